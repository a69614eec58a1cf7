//! Where slices come from. Each source runs in threads of its own and hands its instances in at the desk.

pub mod folder;
pub mod replay;
pub mod scp;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
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
};
use crate::Code;

/// Folders within folders that are looked into.
const DEPTH: usize = 8;

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
            let gap = [Code::DicomUnreadable, Code::DicomMissing, Code::DicomValue, Code::DicomPixels, Code::DicomSize];
            if let Some((series, instance)) = names.filter(|_| gap.contains(&refusal.code)) {
                self.desk.book.unreadable(&series, &instance);
            }
            self.refused(source, name, refusal);
        })
    }

    /// Hands in what an earlier run had acknowledged and not finished.
    pub fn recover(&self, left: Vec<Kept>, damaged: &Path) {
        let source = self.desk.source();
        for kept in left {
            let path = kept.path().to_owned();
            let now = Instant::now();
            let kept = Arc::new(kept);
            let arrival = Arrival { source, begun: now, received: now, kept: Some(kept), patient: true };
            let name = path.display().to_string();
            if self.desk.stopping() {
                return;
            }
            if self.instance("state", &name, dicom::open(&path), &arrival, false).is_ok() {
                continue;
            }
            // It was sound when it was acknowledged, or it would have been refused then. It is set aside for a person.
            let aside = path.file_name().map(|name| damaged.join(name));
            let moved = fs::create_dir_all(damaged).and_then(|()| fs::rename(&path, aside.unwrap_or_default()));
            let words = match moved {
                Ok(()) => format!("set aside in {}", damaged.display()),
                Err(error) => format!("cannot be set aside: {error}"),
            };
            self.refused("state", &name, &Refusal::new(Code::StateDamaged, words));
        }
    }
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
