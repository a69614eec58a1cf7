//! A folder of DICOM files, played like a scanner: for demonstrations, for tests of load, and to see again what a device
//! saw.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{Reception, files, guarded};
use crate::{
    Code,
    serve::{config::Rate, desk::Arrival, refusal::Refusal},
};

/// How often a replay looks whether it may go on.
const LOOK: Duration = Duration::from_millis(5);
/// Longest sleep between slices, so that the service ends soon.
const STEP: Duration = Duration::from_millis(100);

/// Plays until the end, or until the service ends.
pub fn play(reception: Reception<'_>, folder: &Path, rate: Rate, times: usize) {
    let paths = match files(folder) {
        Ok(paths) if !paths.is_empty() => paths,
        Ok(_) => return refuse(reception, folder, "the folder has no files"),
        Err(error) => return refuse(reception, folder, &format!("the folder cannot be read: {error}")),
    };
    for _ in 0..times {
        let source = reception.desk.source();
        let start = Instant::now();
        for (index, path) in paths.iter().enumerate() {
            if let Rate(Some(per_second)) = rate {
                let due = start + Duration::from_secs_f64(index as f64 / per_second);
                while Instant::now() < due && !reception.desk.stopping() {
                    thread::sleep(due.saturating_duration_since(Instant::now()).min(STEP));
                }
            }
            if reception.desk.stopping() {
                return;
            }
            let begun = Instant::now();
            let object = guarded(|| dicom::open(path));
            let received = Instant::now();
            let arrival = Arrival { source, begun, received, kept: None, patient: rate.0.is_none() };
            // Refusals are counted and reported there.
            let _ = reception.instance("replay", &path.display().to_string(), object, &arrival, false);
        }
        reception.desk.closed(source, true);
        // The same instances may come again only when their series are over.
        while reception.desk.book.len() > 0 && !reception.desk.stopping() {
            thread::sleep(LOOK);
        }
    }
}

fn refuse(reception: Reception<'_>, folder: &Path, reason: &str) {
    reception.refused("replay", &folder.display().to_string(), &Refusal::new(Code::Volume, reason));
}
