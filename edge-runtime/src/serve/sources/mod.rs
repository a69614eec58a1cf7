//! Where slices come from. Each source runs in threads of its own and hands its instances in at the desk.

pub mod folder;
pub mod replay;
pub mod scp;

use std::{
    fs, io,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use dicom::Fault;
use dicom_object::DefaultDicomObject;
use serde::Serialize;

use super::{
    desk::{Arrival, Desk},
    lines::Lines,
    metrics::Metrics,
    refusal::Refusal,
    spool::Kept,
    ticket::Waiter,
    writer::free,
};
use crate::Code;

/// Folders within folders that are looked into.
const DEPTH: usize = 8;
/// Between two looks whether there is room for another series.
const ROOM: Duration = Duration::from_millis(200);

/// What every source works with.
#[derive(Clone, Copy)]
pub struct Reception<'a> {
    /// Takes instances.
    pub desk: &'a Desk,
    /// Counts.
    pub metrics: &'a Metrics,
    /// Lines.
    pub lines: &'a Lines,
}

/// The line of a refused instance.
#[derive(Serialize)]
struct RefusedLine<'a> {
    source: &'a str,
    instance: &'a str,
    code: &'static str,
    reason: &'a str,
}

impl Reception<'_> {
    /// Counts and reports what was refused before it became slices.
    pub fn refused(&self, source: &str, instance: &str, refusal: &Refusal) {
        self.metrics.refusal(refusal.code);
        let line = RefusedLine { source, instance, code: refusal.code.name(), reason: &refusal.reason };
        self.lines.write("refused", &line);
    }

    /// Hands an instance in; a refusal is counted, reported and returned.
    pub fn instance(
        &self,
        source: &str,
        name: &str,
        object: Result<DefaultDicomObject, Fault>,
        arrival: &Arrival,
        wait: bool,
    ) -> Result<Option<Arc<Waiter>>, Refusal> {
        self.metrics.received();
        let mut names = None;
        let handed = object.map_err(Refusal::from).and_then(|object| {
            names = dicom::series(&object).map(|series| (series, dicom::instance(&object)));
            self.desk.dicom(object, arrival, wait)
        });
        handed.inspect_err(|refusal| {
            // What is no slice by its nature leaves no gap in its series.
            let gap = [
                Code::DicomUnreadable,
                Code::DicomMissing,
                Code::DicomValue,
                Code::DicomPixels,
                Code::DicomSize,
                Code::GeometrySize,
                Code::GeometrySpacing,
                Code::SeriesFull,
                Code::Stopping,
            ];
            if let Some((series, instance)) = names.filter(|_| gap.contains(&refusal.code)) {
                self.desk.book.unreadable(&series, &instance);
            }
            self.refused(source, name, refusal);
        })
    }

    /// Hands in what an earlier run had acknowledged and not finished.
    pub fn recover(&self, left: Vec<Kept>, damaged: &Path) {
        let mut left: Vec<_> = left.into_iter().map(Arc::new).collect();
        while !left.is_empty() && !self.desk.stopping() {
            let (source, before) = (self.desk.source(), left.len());
            // All of a series at once; those for which there is no room come when others are over.
            left.retain(|kept| self.desk.stopping() || !self.recover_one(source, kept, damaged));
            // What came before the crash may not be all: unless more comes, the series was cut short.
            self.desk.closed(source, false);
            if left.len() == before {
                thread::sleep(ROOM);
            }
        }
    }

    /// Whether it is done with, one way or the other.
    fn recover_one(&self, source: u64, kept: &Arc<Kept>, damaged: &Path) -> bool {
        let path = kept.path();
        let object = guarded(|| dicom::open(path));
        let series = object.as_ref().ok().and_then(dicom::series);
        if series.is_some_and(|series| !self.desk.book.admits(&series)) {
            return false;
        }
        let now = Instant::now();
        let arrival = Arrival { source, begun: now, received: now, kept: Some(kept.clone()), patient: true };
        let name = path.display().to_string();
        match self.instance("state", &name, object, &arrival, false) {
            Ok(_) => true,
            Err(Refusal { code: Code::SeriesFull, .. }) => false,
            // The scanner has sent it again meanwhile, and that one is kept.
            Err(Refusal { code: Code::SeriesDuplicate, .. }) => kept.forget(true).is_ok(),
            Err(_) => {
                // It was sound when it was acknowledged, or it would have been refused then. It is set aside for a person.
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let moved = fs::create_dir_all(damaged)
                    .and_then(|()| fs::rename(path, free(damaged, &stem, ".dcm", |_| false)));
                let words = match moved {
                    Ok(()) => format!("set aside in {}", damaged.display()),
                    Err(error) => format!("cannot be set aside: {error}"),
                };
                self.refused("state", &name, &Refusal::new(Code::StateDamaged, words));
                true
            }
        }
    }
}

/// Reads with code that is not ours, some of which panics on what nobody made on purpose.
pub fn guarded<T>(read: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    let panicked = |_| Fault::Unreadable("the reader gave up in disorder (see the log)".into());
    panic::catch_unwind(AssertUnwindSafe(read)).map_err(panicked)?
}

/// Files below a folder by name, without hidden ones and those that are being written.
pub fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = vec![];
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if name.starts_with('.') || [".tmp", ".part", ".partial"].iter().any(|end| name.ends_with(end)) {
                continue;
            }
            // Not through links: a loop of them would never end.
            let kind = entry.file_type()?;
            if kind.is_dir() && depth < DEPTH {
                folders.push((path, depth + 1));
            } else if kind.is_file() {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
