//! A watched folder. It is looked through again and again, which also works on network drives, where nobody tells of new
//! files.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use contract::Modality;

use super::{Reception, files, guarded};
use crate::{
    Code,
    serve::{config::After, desk::Arrival, refusal::Refusal, spool::Kept},
};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// A file as it was last seen.
struct Seen {
    size: u64,
    changed: Option<SystemTime>,
    since: Instant,
    taken: bool,
}

/// Watches until the service ends.
pub fn watch(
    reception: Reception<'_>,
    folder: &Path,
    nifti_modality: Option<Modality>,
    settle: Duration,
    after: After,
) {
    let mut seen: HashMap<PathBuf, Seen> = HashMap::new();
    let mut absent = false;
    while !reception.desk.stopping() {
        match files(folder) {
            Ok(found) => {
                absent = false;
                let found = settled(found, &mut seen, settle);
                for path in found {
                    if reception.desk.stopping() {
                        return;
                    }
                    take(reception, path, nifti_modality, after);
                }
            }
            // Said once: the folder may be on a drive that comes back.
            Err(error) if !absent => {
                absent = true;
                let refusal = Refusal::new(Code::Volume, format!("the folder cannot be read: {error}"));
                reception.refused("folder", &folder.display().to_string(), &refusal);
            }
            Err(_) => {}
        }
        thread::sleep(LOOK);
    }
}

/// The files that have stopped changing and were not taken before.
fn settled(found: Vec<PathBuf>, seen: &mut HashMap<PathBuf, Seen>, settle: Duration) -> Vec<PathBuf> {
    let mut ready = vec![];
    let mut still = HashMap::new();
    for path in found {
        let Ok(about) = path.metadata() else { continue };
        let (size, changed) = (about.len(), about.modified().ok());
        let before = seen.remove(&path).filter(|before| (before.size, before.changed) == (size, changed));
        let mut now = before.unwrap_or_else(|| Seen { size, changed, since: Instant::now(), taken: false });
        if !now.taken && now.since.elapsed() >= settle {
            now.taken = true;
            ready.push(path.clone());
        }
        still.insert(path, now);
    }
    // What is gone may come again under the same name.
    *seen = still;
    ready
}

fn take(reception: Reception<'_>, path: PathBuf, nifti_modality: Option<Modality>, after: After) {
    let now = Instant::now();
    let kept = (after == After::Delete).then(|| Arc::new(Kept::theirs(path.clone())));
    // A folder has no end.
    let arrival = Arrival { source: 0, begun: now, received: now, kept, patient: true };
    let name = path.display().to_string();
    let nifti = [".nii", ".nii.gz"].iter().any(|end| name.ends_with(end));
    if !nifti {
        // Refusals are counted and reported there; the file stays.
        let _ = reception.instance("folder", &name, guarded(|| dicom::open(&path)), &arrival, false);
        return;
    }
    reception.metrics.received();
    let handed = match nifti_modality {
        Some(modality) => reception.desk.nifti(path, modality, &arrival),
        None => Err(Refusal::new(Code::Volume, "a NIfTI file does not say its modality: set nifti_modality")),
    };
    if let Err(refusal) = handed {
        reception.refused("folder", &name, &refusal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_once_when_it_has_settled_and_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.dcm");
        let mut seen = HashMap::new();
        let mut look = |settle| settled(files(folder.path()).unwrap(), &mut seen, settle);
        std::fs::write(&path, b"one").unwrap();
        std::fs::write(folder.path().join("b.dcm.part"), b"half").unwrap();
        assert!(look(Duration::from_secs(3600)).is_empty(), "not settled");
        assert_eq!(look(Duration::ZERO), std::slice::from_ref(&path));
        assert!(look(Duration::ZERO).is_empty(), "taken");
        std::fs::write(&path, b"two, longer").unwrap();
        assert_eq!(look(Duration::ZERO), [path]);
    }
}
