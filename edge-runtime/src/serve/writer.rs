//! The writer: makes files and objects of slices and series, in a thread of its own, so that nobody waits for a disk.

mod files;
mod objects;

use std::{
    collections::{BTreeSet, VecDeque},
    mem,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
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
    series::{Finished, Panel},
    spool::forget_all,
    ticket::Ticket,
};
use crate::Code;
pub use files::free;
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
    /// Slices among them.
    pub behind: &'a AtomicUsize,
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

/// A series on its way to the sinks.
struct Unwritten {
    finished: Box<Finished>,
    /// By sink.
    deliveries: Vec<Delivery>,
    /// A sink refused it for good.
    refused: bool,
}

/// What one sink has of a series or slice.
#[derive(Clone, Default)]
struct Delivery {
    /// Nothing more is to be done.
    ended: bool,
    /// Folders and destinations that have it.
    places: BTreeSet<String>,
    /// Files and queues of this attempt.
    wrote: Vec<String>,
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
    absent: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
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
                Ok(Job::Slice(job)) => {
                    self.behind.fetch_sub(1, Ordering::AcqRel);
                    self.slice(&job);
                }
                Ok(Job::Series(finished)) => {
                    let deliveries = vec![Delivery::default(); self.sinks.len()];
                    let unwritten = self.series(Unwritten { finished, deliveries, refused: false });
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
                        let to = (folder.as_deref(), send_to.as_slice());
                        self.deliver(&object, modality, [&stem, ".slice.dcm"], to, &mut Delivery::default())
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
        let Unwritten { finished, deliveries, refused } = &mut unwritten;
        let modality = finished.slices.first()?.ticket.modality;
        let mut failures = vec![];
        match finished.refusal(self.incomplete == Incomplete::Mark) {
            Some(refusal) => {
                failures.push(refusal);
                self.metrics.series("refused");
            }
            None => {
                for (sink, delivery) in self.sinks.iter().zip(&mut *deliveries).filter(|(_, delivery)| !delivery.ended)
                {
                    let start = Instant::now();
                    let result = self.series_sink(finished, modality, sink, delivery);
                    if !delivery.wrote.is_empty() {
                        self.metrics.time(modality, Step::Encode, start.elapsed());
                    }
                    delivery.ended = result.as_ref().err().is_none_or(|refusal| !RETRY.contains(&refusal.code));
                    failures.extend(result.err());
                }
                self.metrics.series(if failures.is_empty() { "written" } else { "failed" });
            }
        }
        // What could not be written for want of space is tried again, after a restart too; what cannot be written at all is
        // not.
        let again = failures.iter().any(|refusal| RETRY.contains(&refusal.code));
        *refused |= failures.iter().any(|refusal| !RETRY.contains(&refusal.code));
        if !again {
            let kept = finished.slices.iter().filter_map(|slice| slice.ticket.kept.as_ref());
            if let Err(error) = forget_all(kept, !*refused) {
                failures.push(Refusal::new(Code::StateWrite, error));
            }
        }
        self.report(
            finished,
            deliveries.iter_mut().flat_map(|delivery| mem::take(&mut delivery.wrote)).collect(),
            failures,
        );
        again.then_some(unwritten)
    }

    fn report(&self, finished: &Finished, wrote: Vec<String>, failures: Vec<Refusal>) {
        for refusal in &failures {
            self.metrics.refusal(refusal.code);
        }
        let failures =
            failures.into_iter().map(|refusal| FailureLine { code: refusal.code.name(), reason: refusal.reason });
        self.lines.write(
            "series",
            &SeriesLine {
                series: &finished.name,
                modality: finished.slices[0].ticket.modality.name(),
                ended: finished.ended.name(),
                slices: finished.slices.len(),
                segmented: finished.count(Outcome::Segmented),
                stale: finished.count(Outcome::Stale),
                blank: finished.count(Outcome::Blank),
                refused: finished.count(Outcome::Refused),
                dropped: finished.count(Outcome::Dropped),
                unreadable: finished.unreadable,
                absent: finished.absent,
                warning: finished.warning(),
                wrote,
                failures: failures.collect(),
            },
        );
    }

    fn series_sink(
        &self,
        finished: &Finished,
        modality: Modality,
        sink: &Sink,
        delivery: &mut Delivery,
    ) -> Result<(), Refusal> {
        let stem = file_name(&finished.name);
        match sink {
            Sink::Seg { folder, send_to, form, .. } => {
                let object = self.segmentation(finished, *form)?;
                self.deliver(&object, modality, [&stem, ".seg.dcm"], (folder.as_deref(), send_to), delivery)
            }
            Sink::Capture { folder, send_to } => self.capture(finished, modality)?.map_or(Ok(()), |object| {
                self.deliver(&object, modality, [&stem, ".capture.dcm"], (folder.as_deref(), send_to), delivery)
            }),
            Sink::Nifti { folder } => nifti(finished, folder, &stem).map(|path| delivery.wrote.push(path)),
            Sink::Png { .. } | Sink::Lines { .. } => Ok(()),
        }
    }

    fn picture(&self, job: &SliceJob, folder: &Path, side: usize) -> Result<(), Refusal> {
        let (ticket, panel) = (&job.ticket, &job.panel);
        let folder = folder.join(file_name(&ticket.series));
        make(&folder)?;
        let path = folder.join(format!("{}{}.png", file_name(&ticket.name()), if job.stale { ".stale" } else { "" }));
        let picture = self.draw(panel, ticket.modality, side)?;
        picture.write_png(&path).map_err(|error| Refusal::new(Code::Output, error))
    }

    /// Writes an object into a folder and into the queues of its destinations, but for those that have it.
    ///
    /// # Errors
    /// The first; the other places get it all the same.
    fn deliver(
        &self,
        object: &DefaultDicomObject,
        modality: Modality,
        [stem, end]: [&str; 2],
        (folder, send_to): (Option<&Path>, &[String]),
        delivery: &mut Delivery,
    ) -> Result<(), Refusal> {
        let Delivery { places, wrote, .. } = delivery;
        let mut result = Ok(());
        // No destination has an empty name.
        if let Some(folder) = folder.filter(|_| !places.contains("")) {
            match files::dicom(object, folder, stem, end) {
                Ok(path) => {
                    places.insert(String::new());
                    wrote.push(path.display().to_string());
                }
                Err(refusal) => result = Err(refusal),
            }
        }
        let to: Vec<_> = send_to.iter().filter(|destination| !places.contains(*destination)).collect();
        if to.is_empty() {
            return result;
        }
        let mut bytes = vec![];
        object.write_all(&mut bytes).map_err(|error| Refusal::new(Code::Output, error))?;
        for destination in to {
            match self.queues.push(destination, modality, &bytes) {
                Ok(()) => {
                    places.insert(destination.clone());
                    wrote.push(format!("queue of {destination}"));
                }
                Err(refusal) => result = result.and(Err(refusal)),
            }
        }
        result
    }
}

/// Refusals whose cause may go away.
const RETRY: [Code; 2] = [Code::Output, Code::SendQueue];
