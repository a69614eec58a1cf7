//! The collector: takes frames from the loop, counts and reports each slice, gathers series, and gives frames back.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender},
    },
    time::{Duration, Instant},
};

use contract::{IntensityError, LabelMap};
use serde::Serialize;

use super::{
    config::{Late, SeriesConfig},
    desk::Desk,
    dispatch::Event,
    frame::{Fate, Frame, Stamps},
    lines::Lines,
    metrics::{Metrics, Outcome},
    refusal::Refusal,
    rings::{Bell, In, Out, put},
    runs::Runs,
    series::{Ended, Finished, Labelled, Panel, Series},
    ticket::{Origin, Ticket},
    writer::{Job, SliceJob},
};
use crate::{Code, slice_code};

/// How often the collector looks whether a series is over.
const NAP: Duration = Duration::from_millis(50);

/// Slices that wait for the writer at most; the files of more are left out and counted.
const MOST_BEHIND: usize = 64;

/// What the collector works with.
pub struct Collector<'a> {
    /// Frames that left the loop.
    pub done: Out<'a>,
    /// Where they go.
    pub free: In<'a>,
    /// What never got a frame, and which sources ended.
    pub events: Receiver<Event>,
    /// To the writer; never waited for, so that a slow disk holds up nobody.
    pub jobs: Sender<Job>,
    /// Slices that wait for the writer.
    pub behind: &'a AtomicUsize,
    /// Wakes the collector.
    pub bell: &'a Bell,
    /// Wakes the dispatcher.
    pub dispatcher: &'a Bell,
    /// Set when the loop has ended.
    pub ending: &'a AtomicBool,
    /// The sources' side.
    pub desk: &'a Desk,
    /// Counts.
    pub metrics: &'a Metrics,
    /// Lines.
    pub lines: &'a Lines,
    /// Names of organs.
    pub labels: &'a LabelMap,
    /// When a series is over.
    pub config: &'a SeriesConfig,
    /// What happens to late slices.
    pub late: Late,
    /// Whether the writer wants single slices.
    pub single_slices: bool,
    /// Whether the writer wants panels.
    pub panels: bool,
}

/// A slice's line.
#[derive(Serialize)]
struct SliceLine<'a> {
    series: &'a str,
    slice: String,
    modality: &'static str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    glass_to_mask_ms: f64,
    queue_ms: f64,
    loop_ms: f64,
    pixels: HashMap<&'a str, u64>,
}

impl Collector<'_> {
    /// Collects until the loop has ended and all frames are back.
    pub fn run(mut self) {
        self.bell.mine();
        let mut open: HashMap<Arc<str>, Series> = HashMap::new();
        let mut closed = vec![];
        let mut taken = 0;
        // The series that an open association brought a slice of last.
        let mut busy: HashMap<u64, Arc<str>> = HashMap::new();
        loop {
            let ending = self.ending.load(Ordering::Acquire);
            let mut idle = true;
            while let Some(frame) = self.done.dequeue() {
                // A folder has no end, and is never at a series.
                if let Some(ticket) = frame.ticket.as_ref().filter(|ticket| ticket.source != 0) {
                    busy.insert(ticket.source, ticket.series.clone());
                }
                self.frame(frame, &mut open);
                taken += 1;
                idle = false;
            }
            for event in self.events.try_iter() {
                idle = false;
                match event {
                    Event::Lost(ticket, fate, stamps) => {
                        let runs = Runs::new(&vec![0; ticket.plane.height * ticket.plane.width]);
                        self.slice(&ticket, fate, &stamps, runs, &mut open);
                    }
                    Event::Closed { source, whole, after } => closed.push((source, whole, after)),
                }
            }
            // A source's end is heard when its last frame is through.
            closed.retain(|&(source, whole, after)| {
                let heard = after <= taken;
                if heard {
                    busy.remove(&source);
                }
                for series in open.values_mut().filter(|_| heard) {
                    if series.sources.remove(&source) {
                        series.closed |= whole;
                        // Who comes back with the rest makes it whole again.
                        series.cut = !whole;
                    }
                }
                !heard
            });
            let ended = ending && idle;
            self.finish(&mut open, &busy, ended);
            if ended {
                return;
            }
            if idle {
                self.bell.wait(NAP);
            }
        }
    }

    /// Hands series that are over to the writer, at the end all of them.
    fn finish(&self, open: &mut HashMap<Arc<str>, Series>, busy: &HashMap<u64, Arc<str>>, ended: bool) {
        let SeriesConfig { at_association_end, expected_slices, .. } = *self.config;
        let quiet = Duration::from_secs(self.config.quiet_s);
        open.retain(|name, series| {
            // An association that is at this series and pauses will end it itself.
            let paused = at_association_end && busy.values().any(|series| series == name);
            let why = match ended {
                true => Some(Ended::Stop),
                false => series.over(at_association_end, expected_slices, (!paused).then_some(quiet)),
            };
            let Some(why) = why else { return true };
            // At the end nothing is in the loop any more.
            let out = if ended { usize::MAX } else { series.slices.len() };
            let Some(unreadable) = self.desk.book.close(name, out) else { return true };
            let Series { slices, panels, failed, cut, .. } = mem::replace(series, Series::new());
            let cut = cut || why == Ended::Stop;
            let absent = expected_slices.map_or(0, |expected| expected.saturating_sub(slices.len()));
            let name = name.clone();
            let finished = Finished { name, ended: why, slices, panels, unreadable, absent, cut, failed };
            // The writer ends after the collector, so this arrives.
            let _ = self.jobs.send(Job::Series(Box::new(finished)));
            false
        });
    }

    fn frame(&mut self, mut frame: Box<Frame>, open: &mut HashMap<Arc<str>, Series>) {
        if let Some(ticket) = frame.ticket.take() {
            let runs = match &ticket.origin {
                Origin::Dicom { orientation, .. } => Runs::new(&orientation.to_image(&frame.labels)),
                Origin::Nifti { .. } => Runs::new(&frame.labels),
            };
            let outcome = self.slice(&ticket, frame.fate, &frame.stamps, runs, open);
            if matches!(outcome, Outcome::Segmented | Outcome::Stale) {
                self.show(&ticket, &frame, open);
            }
        }
        put(&mut self.free, frame);
        self.dispatcher.ring();
    }

    /// Counts, reports and gathers a slice.
    fn slice(
        &self,
        ticket: &Arc<Ticket>,
        fate: Fate,
        stamps: &Stamps,
        mut runs: Runs,
        open: &mut HashMap<Arc<str>, Series>,
    ) -> Outcome {
        let series = open.entry(ticket.series.clone()).or_insert_with(Series::new);
        let (mut outcome, mut refusal) = judge(fate);
        if outcome == Outcome::Dropped && self.late == Late::FailClosed {
            series.failed = true;
        } else if series.failed {
            outcome = Outcome::Dropped;
            refusal = Some(Refusal::new(Code::LateFailed, "an earlier slice missed its deadline"));
            runs = Runs::new(&vec![0; ticket.plane.height * ticket.plane.width]);
        }
        self.metrics.slice(ticket.modality, outcome, stamps);
        if let Some(refusal) = &refusal {
            self.metrics.refusal(refusal.code);
        }
        self.report(ticket, outcome, refusal.as_ref(), stamps, &runs);
        series.sources.insert(ticket.source);
        series.last = Instant::now();
        series.slices.push(Labelled { ticket: ticket.clone(), runs, outcome });
        if let Some(waiter) = &ticket.waiter {
            waiter.through(refusal.filter(|_| !outcome.has_labels()));
        }
        self.desk.left();
        outcome
    }

    fn report(&self, ticket: &Ticket, outcome: Outcome, refusal: Option<&Refusal>, stamps: &Stamps, runs: &Runs) {
        let counts = runs.counts();
        let organs = self.labels.organs().map(|(class, label)| (label.name.as_str(), counts[usize::from(class)]));
        let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let line = SliceLine {
            series: &ticket.series,
            slice: ticket.name(),
            modality: ticket.modality.name(),
            outcome: outcome.name(),
            code: refusal.map(|refusal| refusal.code.name()),
            reason: refusal.map(|refusal| refusal.reason.as_str()),
            glass_to_mask_ms: ms(stamps.glass_to_mask()),
            queue_ms: ms(stamps.started.saturating_duration_since(stamps.decoded)),
            loop_ms: ms(stamps.finished.saturating_duration_since(stamps.started)),
            pixels: organs.filter(|(_, pixels)| *pixels > 0).collect(),
        };
        self.lines.write("slice", &line);
    }

    /// Gives a label map to those sinks that want single slices or pictures.
    fn show(&self, ticket: &Arc<Ticket>, frame: &Frame, open: &mut HashMap<Arc<str>, Series>) {
        let organs = frame.labels.iter().filter(|&&class| class != 0).count() as u64;
        let Some(series) = open.get_mut(&ticket.series) else { return };
        let slice = series.slices.len() - 1;
        let panel =
            || Panel { slice, organs, raw: frame.raw.clone(), labels: frame.labels.clone(), plane: ticket.plane };
        if self.panels && organs > 0 {
            series.show(panel());
        }
        if self.single_slices {
            if self.behind.load(Ordering::Acquire) >= MOST_BEHIND {
                self.metrics.refusal(Code::OutputBehind);
                return;
            }
            self.behind.fetch_add(1, Ordering::AcqRel);
            let stale = series.slices[slice].outcome == Outcome::Stale;
            let job = SliceJob { ticket: ticket.clone(), panel: panel(), stale };
            // The writer ends after the collector, so this arrives.
            let _ = self.jobs.send(Job::Slice(Box::new(job)));
        }
    }
}

/// What a fate means for the outside.
fn judge(fate: Fate) -> (Outcome, Option<Refusal>) {
    let (outcome, code, reason) = match fate {
        Fate::Segmented { stale: false } => return (Outcome::Segmented, None),
        Fate::Refused(IntensityError::Constant { .. }) => return (Outcome::Blank, None),
        Fate::Segmented { stale: true } => {
            (Outcome::Stale, Code::LateStale, "after its deadline; delivered all the same".to_owned())
        }
        Fate::Refused(error) => (Outcome::Refused, slice_code(&error), error.to_string()),
        Fate::Late => (Outcome::Dropped, Code::LateDropped, "not ready by its deadline".to_owned()),
        Fate::Overflow => (Outcome::Dropped, Code::LateOverflow, "the oldest of too many that waited".to_owned()),
        Fate::Failed | Fate::Waiting => (Outcome::Refused, Code::EngineRun, "the engine failed".to_owned()),
    };
    (outcome, Some(Refusal { code, reason }))
}
