//! The writer: makes files and objects of slices and series, in a thread of its own, so that nobody waits for a disk.

mod files;
mod objects;

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use contract::{LabelMap, Modality};
use dicom_object::DefaultDicomObject;
use serde::Serialize;

use super::{
    config::{Incomplete, Sink},
    lines::Lines,
    metrics::{Metrics, Outcome, Step},
    refusal::Refusal,
    send::Queues,
    series::{Finished, Labelled, Panel},
    ticket::Ticket,
};
use crate::Code;
use files::{file_name, make, nifti};

/// Between two attempts to write what could not be written.
const AGAIN: Duration = Duration::from_secs(5);
/// Series that wait for another attempt; more are left to the next start.
const MOST: usize = 32;

/// Work for the writer.
pub enum Job {
    /// A label map, for sinks that want each at once.
    Slice(Box<SliceJob>),
    /// A series that is over.
    Series(Box<Finished>),
}

/// One label map with its slice.
pub struct SliceJob {
    /// Whose.
    pub ticket: Arc<Ticket>,
    /// Raw values and labels.
    pub panel: Panel,
    /// After its deadline.
    pub stale: bool,
}

/// Who makes the objects.
#[derive(Clone, Debug)]
pub struct Network {
    /// Name of the network.
    pub name: String,
    /// First digits of the model file's SHA-256.
    pub version: String,
}

/// What the writer works with.
pub struct Writer<'a> {
    /// From the collector.
    pub jobs: Receiver<Job>,
    /// Where results go.
    pub sinks: &'a [Sink],
    /// Destinations by name.
    pub queues: &'a Queues,
    /// Names and colours of organs.
    pub labels: &'a LabelMap,
    /// The network.
    pub network: Network,
    /// What becomes of an incomplete series.
    pub incomplete: Incomplete,
    /// Counts.
    pub metrics: &'a Metrics,
    /// Lines.
    pub lines: &'a Lines,
}

/// A series that not every sink has yet.
struct Unwritten {
    finished: Box<Finished>,
    /// By sink.
    done: Vec<bool>,
}

/// A series' line.
#[derive(Serialize)]
struct SeriesLine<'a> {
    series: &'a str,
    modality: &'static str,
    ended: &'static str,
    slices: usize,
    segmented: usize,
    stale: usize,
    blank: usize,
    refused: usize,
    dropped: usize,
    unreadable: usize,
    wrote: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<FailureLine>,
}

#[derive(Serialize)]
struct FailureLine {
    code: &'static str,
    reason: String,
}

impl Writer<'_> {
    /// Writes until the collector has ended.
    pub fn run(self) {
        let mut waiting: VecDeque<Unwritten> = VecDeque::new();
        let mut tried = Instant::now();
        loop {
            let job = self.jobs.recv_timeout(AGAIN);
            let ended = matches!(job, Err(RecvTimeoutError::Disconnected));
            match job {
                Ok(Job::Slice(job)) => self.slice(&job),
                Ok(Job::Series(finished)) => {
                    let unwritten = self.series(Unwritten { finished, done: vec![false; self.sinks.len()] });
                    waiting.extend(unwritten.filter(|_| waiting.len() < MOST));
                }
                Err(_) => {}
            }
            if tried.elapsed() >= AGAIN || ended {
                waiting = waiting.into_iter().filter_map(|unwritten| self.series(unwritten)).collect();
                tried = Instant::now();
            }
            if ended {
                return;
            }
        }
    }

    fn slice(&self, job: &SliceJob) {
        let modality = job.ticket.modality;
        for sink in self.sinks {
            let start = Instant::now();
            let result = match sink {
                Sink::Png { folder, side } => self.picture(job, folder, *side),
                Sink::Seg { folder, send_to, form, per_slice: true } => {
                    self.slice_segmentation(job, *form).and_then(|object| {
                        let stem = file_name(&job.ticket.name());
                        self.deliver(&object, modality, folder.as_deref(), [&stem, ".slice.dcm"], send_to)
                    })
                }
                _ => continue,
            };
            self.metrics.time(modality, Step::Encode, start.elapsed());
            if let Err(refusal) = result {
                self.metrics.refusal(refusal.code);
                let failure = FailureLine { code: refusal.code.name(), reason: refusal.reason };
                self.lines.write("failure", &failure);
            }
        }
    }

    /// Gives a series to the sinks that do not have it; returns it if that is worth another attempt.
    fn series(&self, mut unwritten: Unwritten) -> Option<Unwritten> {
        let Unwritten { finished, done } = &mut unwritten;
        let modality = finished.slices.first()?.ticket.modality;
        let (mut wrote, mut failures) = (vec![], vec![]);
        match finished.refusal(self.incomplete == Incomplete::Mark) {
            Some(refusal) => {
                failures.push(refusal);
                self.metrics.series("refused");
            }
            None => {
                for (sink, done) in self.sinks.iter().zip(done).filter(|(_, done)| !**done) {
                    let start = Instant::now();
                    match self.series_sink(finished, modality, sink) {
                        Ok(paths) => {
                            *done = true;
                            if paths.is_empty() {
                                continue;
                            }
                            wrote.extend(paths);
                        }
                        Err(refusal) => failures.push(refusal),
                    }
                    self.metrics.time(modality, Step::Encode, start.elapsed());
                }
                self.metrics.series(if failures.is_empty() { "written" } else { "failed" });
            }
        }
        for refusal in &failures {
            self.metrics.refusal(refusal.code);
        }
        // What could not be written for want of space is tried again, after a restart too; what cannot be written at all is
        // not.
        let again = failures.iter().any(|refusal| RETRY.contains(&refusal.code));
        if !again {
            forget(&finished.slices);
        }
        let failures =
            failures.into_iter().map(|refusal| FailureLine { code: refusal.code.name(), reason: refusal.reason });
        self.lines.write(
            "series",
            &SeriesLine {
                series: &finished.name,
                modality: modality.name(),
                ended: finished.ended.name(),
                slices: finished.slices.len(),
                segmented: finished.count(Outcome::Segmented),
                stale: finished.count(Outcome::Stale),
                blank: finished.count(Outcome::Blank),
                refused: finished.count(Outcome::Refused),
                dropped: finished.count(Outcome::Dropped),
                unreadable: finished.unreadable,
                wrote,
                failures: failures.collect(),
            },
        );
        again.then_some(unwritten)
    }

    fn series_sink(&self, finished: &Finished, modality: Modality, sink: &Sink) -> Result<Vec<String>, Refusal> {
        let stem = file_name(&finished.name);
        match sink {
            Sink::Seg { folder, send_to, form, .. } => {
                let object = self.segmentation(finished, *form)?;
                self.deliver(&object, modality, folder.as_deref(), [&stem, ".seg.dcm"], send_to)
            }
            Sink::Capture { folder, send_to } => match self.capture(finished, modality)? {
                Some(object) => self.deliver(&object, modality, folder.as_deref(), [&stem, ".capture.dcm"], send_to),
                None => Ok(vec![]),
            },
            Sink::Nifti { folder } => nifti(finished, folder, &stem),
            Sink::Png { .. } | Sink::Lines { .. } => Ok(vec![]),
        }
    }

    fn picture(&self, job: &SliceJob, folder: &Path, side: usize) -> Result<Vec<String>, Refusal> {
        let (ticket, panel) = (&job.ticket, &job.panel);
        let folder = folder.join(file_name(&ticket.series));
        make(&folder)?;
        let path = folder.join(format!("{}{}.png", file_name(&ticket.name()), if job.stale { ".stale" } else { "" }));
        let picture = self.draw(panel, ticket.modality, side)?;
        picture.write_png(&path).map_err(|error| Refusal::new(Code::Output, error))?;
        Ok(vec![path.display().to_string()])
    }

    /// Writes an object into a folder and into the queues of its destinations.
    fn deliver(
        &self,
        object: &DefaultDicomObject,
        modality: Modality,
        folder: Option<&Path>,
        [stem, end]: [&str; 2],
        send_to: &[String],
    ) -> Result<Vec<String>, Refusal> {
        let mut wrote = vec![];
        if let Some(folder) = folder {
            wrote.push(files::dicom(object, folder, stem, end)?.display().to_string());
        }
        if send_to.is_empty() {
            return Ok(wrote);
        }
        let mut bytes = vec![];
        object.write_all(&mut bytes).map_err(|error| Refusal::new(Code::Output, error))?;
        for destination in send_to {
            self.queues.push(destination, modality, &bytes)?;
            wrote.push(format!("queue of {destination}"));
        }
        Ok(wrote)
    }
}

/// Refusals whose cause may go away.
const RETRY: [Code; 2] = [Code::Output, Code::SendQueue];

/// Deletes the files that kept the slices.
fn forget(slices: &[Labelled]) {
    let kept: BTreeMap<_, _> =
        slices.iter().filter_map(|slice| slice.ticket.kept.as_ref()).map(|kept| (kept.path(), kept)).collect();
    for kept in kept.values() {
        // It may be gone: somebody tidied up. Then there is nothing to do.
        let _ = kept.forget();
    }
}
