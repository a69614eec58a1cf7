//! The writer: makes files and objects of slices and series, in a thread of its own, so that nobody waits for a disk.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc::Receiver},
    time::Instant,
};

use chrono::{Datelike, Local, Timelike};
use contract::{LabelMap, Modality};
use dicom::{Capture, DicomDate, DicomTime, Maker, stack::Stack};
use dicom_object::{DefaultDicomObject, InMemDicomObject};
use serde::Serialize;
use volume::overlay::{Picture, Window};

use super::{
    config::{Form, Incomplete, Sink},
    lines::Lines,
    metrics::{Metrics, Outcome, Step},
    refusal::Refusal,
    send::Queues,
    series::{Finished, Labelled, Panel},
    ticket::{Origin, Ticket},
};
use crate::Code;

/// Longer side of a panel in a secondary capture, and panels in a row.
const PANEL_SIDE: usize = 384;
const PANEL_COLUMNS: usize = 3;
/// Numbers of the series that are made: far from those of scanners.
const SEG_SERIES: u32 = 9_001;
const SLICE_SERIES: u32 = 9_002;
const CAPTURE_SERIES: u32 = 9_003;
/// Characters of a name of a file.
const NAME: usize = 100;

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

/// A series' line.
#[derive(Serialize)]
struct SeriesLine<'a> {
    series: &'a str,
    part: u32,
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
        for job in &self.jobs {
            match job {
                Job::Slice(job) => self.slice(&job),
                Job::Series(finished) => self.series(&finished),
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
                        let name = format!("{}.slice.dcm", file_name(&job.ticket.name()));
                        self.deliver(&object, modality, folder.as_deref(), &name, send_to)
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

    fn series(&self, finished: &Finished) {
        let Some(first) = finished.slices.first() else { return };
        let modality = first.ticket.modality;
        let (mut wrote, mut failures) = (vec![], vec![]);
        match finished.refusal(self.incomplete == Incomplete::Mark) {
            Some(refusal) => {
                failures.push(refusal);
                self.metrics.series("refused");
            }
            None => {
                for sink in self.sinks {
                    let start = Instant::now();
                    match self.series_sink(finished, modality, sink) {
                        Ok(paths) if paths.is_empty() => continue,
                        Ok(paths) => wrote.extend(paths),
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
        // What could not be written for want of space is tried again after a restart; what cannot be written at all is not.
        if failures.iter().all(|refusal| !RETRY.contains(&refusal.code)) {
            forget(&finished.slices);
        }
        let failures =
            failures.into_iter().map(|refusal| FailureLine { code: refusal.code.name(), reason: refusal.reason });
        self.lines.write(
            "series",
            &SeriesLine {
                series: &finished.name,
                part: finished.part,
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
    }

    fn series_sink(&self, finished: &Finished, modality: Modality, sink: &Sink) -> Result<Vec<String>, Refusal> {
        let part = if finished.part > 1 { format!("-{}", finished.part) } else { String::new() };
        let stem = format!("{}{part}", file_name(&finished.name));
        match sink {
            Sink::Seg { folder, send_to, form, .. } => {
                let object = self.segmentation(finished, *form)?;
                self.deliver(&object, modality, folder.as_deref(), &format!("{stem}.seg.dcm"), send_to)
            }
            Sink::Capture { folder, send_to } => match self.capture(finished, modality)? {
                Some(object) => {
                    self.deliver(&object, modality, folder.as_deref(), &format!("{stem}.capture.dcm"), send_to)
                }
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

    fn draw(&self, panel: &Panel, modality: Modality, side: usize) -> Result<Picture, Refusal> {
        let window = Window::of(modality, &panel.raw);
        Picture::slice(&panel.raw, Some(&panel.labels), panel.plane, window, self.labels, side)
            .map_err(|fault| Refusal::new(Code::Output, fault))
    }

    fn segmentation(&self, finished: &Finished, form: Form) -> Result<DefaultDicomObject, Refusal> {
        let labelled = finished.slices.iter().filter(|slice| slice.outcome.has_labels());
        let labels: Vec<_> = labelled.map(|slice| (&*slice.ticket, slice.runs.labels())).collect();
        let stale = finished.count(Outcome::Stale);
        let description = finished.missing_words().unwrap_or_else(|| match stale {
            0 => "Organs, segmented by a network".into(),
            _ => format!("{stale} of {} slices came after their deadline", finished.slices.len()),
        });
        self.segment(&labels, form, &description, SEG_SERIES, "Gantry organs")
    }

    fn slice_segmentation(&self, job: &SliceJob, form: Form) -> Result<DefaultDicomObject, Refusal> {
        let Origin::Dicom { orientation, .. } = &job.ticket.origin else { return Err(no_dicom()) };
        let labels = [(&*job.ticket, orientation.to_image(&job.panel.labels))];
        let description = if job.stale { "Came after its deadline" } else { "Organs of one slice" };
        self.segment(&labels, form, description, SLICE_SERIES, "Gantry organs, single slices")
    }

    fn segment<'a>(
        &self,
        labelled: &'a [(&Ticket, Vec<u8>)],
        form: Form,
        description: &str,
        number: u32,
        series: &str,
    ) -> Result<DefaultDicomObject, Refusal> {
        let slice = |(ticket, labels): &'a (&Ticket, Vec<u8>)| match &ticket.origin {
            Origin::Dicom { place, .. } => Ok(dicom::Slice { plane: *place, source: source(ticket)?, labels }),
            Origin::Nifti { .. } => Err(no_dicom()),
        };
        let slices = labelled.iter().map(slice).collect::<Result<Vec<_>, _>>()?;
        let header = labelled.first().map(|(ticket, _)| header(ticket)).ok_or_else(no_labels)??;
        let form = match form {
            Form::Binary => dicom::Form::Binary,
            Form::Labelmap => dicom::Form::LabelMap,
        };
        dicom::segmentation(header, &slices, self.labels, &self.maker(number, series), description, form)
            .map_err(|fault| Refusal::new(Code::SeriesOrigin, fault))
    }

    /// A picture of the slices with most of the organs; none where no organ was found.
    fn capture(&self, finished: &Finished, modality: Modality) -> Result<Option<DefaultDicomObject>, Refusal> {
        let Some(first) = finished.panels.first() else { return Ok(None) };
        let header = header(&finished.slices[first.slice].ticket)?;
        let mut panels: Vec<&Panel> = finished.panels.iter().collect();
        let height = |panel: &&Panel| match &finished.slices[panel.slice].ticket.origin {
            Origin::Dicom { place, .. } => place.height_mm([0., 0., 1.]),
            Origin::Nifti { z, .. } => *z as f64,
        };
        panels.sort_by(|a, b| height(a).total_cmp(&height(b)));
        let pictures =
            panels.iter().map(|panel| self.draw(panel, modality, PANEL_SIDE)).collect::<Result<Vec<_>, _>>()?;
        let montage = Picture::montage(&pictures, PANEL_COLUMNS).map_err(|fault| Refusal::new(Code::Output, fault))?;
        let sources = panels.iter().map(|panel| source(&finished.slices[panel.slice].ticket));
        let sources = sources.collect::<Result<Vec<_>, _>>()?;
        let derivation = format!("Organs found by the network {} {}", self.network.name, self.network.version);
        let shown =
            Capture { pictures: &[montage], sources: &sources, derivation: &derivation, burned_in_annotation: false };
        let maker = self.maker(CAPTURE_SERIES, "Gantry organs, picture");
        dicom::capture(header, &shown, &maker).map(Some).map_err(|fault| Refusal::new(Code::SeriesOrigin, fault))
    }

    fn maker<'b>(&'b self, series_number: u32, series_description: &'b str) -> Maker<'b> {
        let now = Local::now();
        let (month, day) = (now.month() as u8, now.day() as u8);
        let time = DicomTime::from_hms(now.hour() as u8, now.minute() as u8, now.second() as u8);
        let midnight = || DicomTime::from_h(0).expect("midnight is a time");
        Maker {
            manufacturer: "Gantry",
            model: "gantry-edge",
            serial: "0",
            software: env!("CARGO_PKG_VERSION"),
            algorithm: &self.network.name,
            version: &self.network.version,
            series_number,
            series_description,
            date: DicomDate::from_ymd(now.year() as u16, month, day).expect("a calendar gives dates"),
            time: time.unwrap_or_else(|_| midnight()),
        }
    }

    /// Writes an object into a folder and into the queues of its destinations.
    fn deliver(
        &self,
        object: &DefaultDicomObject,
        modality: Modality,
        folder: Option<&Path>,
        name: &str,
        send_to: &[String],
    ) -> Result<Vec<String>, Refusal> {
        let mut wrote = vec![];
        if let Some(folder) = folder {
            make(folder)?;
            let path = folder.join(name);
            dicom::write(object, &path).map_err(|error| output(&path, &error))?;
            wrote.push(path.display().to_string());
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

/// Refusals whose cause may be gone after a restart.
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

/// The label map as a volume.
fn nifti(finished: &Finished, folder: &Path, stem: &str) -> Result<Vec<String>, Refusal> {
    make(folder)?;
    let uneven = |words: String| Refusal::new(Code::SeriesUneven, words);
    let (path, geometry, canonical) = match &finished.slices[0].ticket.origin {
        Origin::Nifti { path, geometry, .. } => {
            let mut slices: Vec<_> =
                finished.slices.iter().filter_map(|slice| Some((z(slice)?, &slice.runs))).collect();
            slices.sort_by_key(|(z, _)| *z);
            if slices.len() != geometry.shape()[0] {
                return Err(uneven(format!("{} of {} slices", slices.len(), geometry.shape()[0])));
            }
            let canonical = slices.iter().flat_map(|(_, runs)| runs.labels()).collect::<Vec<_>>();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            (folder.join(name), (**geometry).clone(), canonical)
        }
        Origin::Dicom { .. } => {
            let place = |slice: &Labelled| match &slice.ticket.origin {
                Origin::Dicom { place, .. } => Some(*place),
                Origin::Nifti { .. } => None,
            };
            let planes: Vec<_> = finished.slices.iter().filter_map(place).collect();
            let stack = Stack::new(&planes).map_err(|fault| uneven(fault.to_string()))?;
            let geometry = stack.geometry(&planes).map_err(|fault| uneven(fault.to_string()))?;
            let stored = stack.order.iter().flat_map(|&index| finished.slices[index].runs.labels()).collect::<Vec<_>>();
            let canonical = geometry.to_canonical(&stored);
            (folder.join(format!("{stem}.nii.gz")), geometry, canonical)
        }
    };
    volume::write_labels(&path, &geometry, &canonical).map_err(|error| Refusal::new(Code::Output, error))?;
    Ok(vec![path.display().to_string()])
}

fn z(slice: &Labelled) -> Option<usize> {
    match slice.ticket.origin {
        Origin::Nifti { z, .. } => Some(z),
        Origin::Dicom { .. } => None,
    }
}

fn header(ticket: &Ticket) -> Result<&InMemDicomObject, Refusal> {
    match &ticket.origin {
        Origin::Dicom { header, .. } => Ok(header),
        Origin::Nifti { .. } => Err(no_dicom()),
    }
}

fn source(ticket: &Ticket) -> Result<dicom::Source<'_>, Refusal> {
    match &ticket.origin {
        Origin::Dicom { identity, frame, .. } => {
            Ok(dicom::Source { sop_class: &identity.sop_class, sop_instance: &identity.sop_instance, frame: *frame })
        }
        Origin::Nifti { .. } => Err(no_dicom()),
    }
}

fn no_dicom() -> Refusal {
    Refusal::new(Code::SeriesOrigin, "a NIfTI volume has no patient and no study: expected DICOM")
}

fn no_labels() -> Refusal {
    Refusal::new(Code::SeriesOrigin, "no slice of the series has a label map")
}

fn make(folder: &Path) -> Result<(), Refusal> {
    fs::create_dir_all(folder).map_err(|error| output(folder, &error))
}

fn output(path: &Path, error: &io::Error) -> Refusal {
    Refusal::new(Code::Output, format!("{}: {error}", path.display()))
}

/// A name that is only that, whatever somebody put into a UID or a path.
fn file_name(text: &str) -> String {
    let name = PathBuf::from(text).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let safe = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' };
    let name: String = name.trim_start_matches('.').chars().map(safe).take(NAME).collect();
    if name.is_empty() { "unnamed".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::file_name;

    #[test]
    fn a_name_stays_in_its_folder() {
        assert_eq!(file_name("1.2.840.113"), "1.2.840.113");
        assert_eq!(file_name("1.2#3"), "1.2_3");
        assert_eq!(file_name("../../etc/passwd"), "passwd");
        assert_eq!(file_name(".."), "unnamed");
        assert_eq!(file_name(".hidden"), "hidden");
        assert_eq!(file_name("/data/scan 1.nii.gz"), "scan_1.nii.gz");
        assert_eq!(file_name(&"9".repeat(300)).len(), 100);
    }
}
