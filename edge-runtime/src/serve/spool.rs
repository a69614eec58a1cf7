//! Instances on disk from before they are acknowledged until their series is written. What is left of an earlier run is
//! segmented again.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use volume::atomic;

/// End of a file that lists instances which are to be deleted: all of a series or none is seen after a crash.
const LIST: &str = "done";

/// The folder.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    next: AtomicU64,
}

/// One instance's place on disk; dropping it leaves the file alone.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    state: Mutex<State>,
    /// Of a file in somebody else's folder: its size and time, so that no other is deleted in its place.
    theirs: Option<(u64, Option<SystemTime>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not written yet, or in vain.
    Open,
    Written,
    /// Not needed any more.
    Forgotten,
}

impl Spool {
    /// Opens the folder and lists what is in it, oldest first. Files that were being written when the power went are
    /// deleted: nobody was told that they had arrived.
    pub fn open(folder: &Path) -> io::Result<(Self, Vec<Kept>)> {
        fs::create_dir_all(folder)?;
        // A file on the disk is of no use in a folder that is not.
        for above in folder.ancestors().skip(1).take(2).filter(|above| !above.as_os_str().is_empty()) {
            File::open(above)?.sync_all()?;
        }
        let mut left = vec![];
        let mut next = 0;
        for entry in fs::read_dir(folder)? {
            let list = entry?.path();
            if list.extension().is_some_and(|extension| extension == LIST) {
                delete(folder, &fs::read_to_string(&list)?, &list)?;
            }
        }
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            match number(&path) {
                Some(number) => {
                    next = next.max(number + 1);
                    left.push(path);
                }
                None if path.extension().is_some_and(|extension| extension == "tmp") => fs::remove_file(&path)?,
                None => {}
            }
        }
        left.sort();
        Ok((Self { folder: folder.into(), next: next.into() }, left.into_iter().map(Kept::at).collect()))
    }

    /// A place for an instance; nothing is written yet.
    pub fn place(&self) -> Kept {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Kept { path: self.folder.join(format!("{number:016x}.dcm")), state: Mutex::new(State::Open), theirs: None }
    }
}

/// The number of a file, if it has one; the largest would leave none for the next.
fn number(path: &Path) -> Option<u64> {
    let stem = path.file_stem()?.to_str()?;
    let number = u64::from_str_radix(stem, 16).ok().filter(|number| *number < u64::MAX)?;
    path.extension().is_some_and(|extension| extension == "dcm").then_some(number)
}

impl Kept {
    /// A file of an earlier run.
    const fn at(path: PathBuf) -> Self {
        Self { path, state: Mutex::new(State::Written), theirs: None }
    }

    /// A file in somebody else's folder, to be deleted when its series is written.
    pub fn theirs(path: PathBuf) -> Self {
        let theirs = fs::metadata(&path).as_ref().map(version).unwrap_or_default();
        Self { theirs: Some(theirs), ..Self::at(path) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes an instance, given in parts, unless that has been done or is no longer needed. It survives a loss of power
    /// when this returns.
    pub fn write(&self, parts: &[&[u8]]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == State::Open {
            atomic::write(&self.path, |file| parts.iter().try_for_each(|part| file.write_all(part)))?;
            *state = State::Written;
        }
        Ok(())
    }

    /// Deletes it: its series is written, or it was refused. What is somebody else's is deleted only if it is `written`, and
    /// is still the same.
    pub fn forget(&self, written: bool) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let was = std::mem::replace(&mut *state, State::Forgotten);
        let ours = match self.theirs {
            None => true,
            Some(theirs) => written && fs::metadata(&self.path).is_ok_and(|now| version(&now) == theirs),
        };
        if was == State::Written && ours { fs::remove_file(&self.path) } else { Ok(()) }
    }
}

/// Forgets the files of a series; after a crash in the middle, the next start forgets the rest.
///
/// # Errors
/// The first that occurred; the others have been tried.
pub fn forget_all<'a>(kept: impl Iterator<Item = &'a Arc<Kept>>, written: bool) -> io::Result<()> {
    let kept: BTreeMap<&Path, _> = kept.map(|kept| (kept.path(), kept)).collect();
    let names = kept.values().filter(|kept| kept.theirs.is_none()).filter_map(|kept| kept.path.file_name()?.to_str());
    let names: Vec<_> = names.collect();
    let list = kept.keys().next().map(|first| first.with_extension(LIST)).filter(|_| names.len() > 1);
    let mut result = list.as_ref().map_or(Ok(()), |list| atomic::write_bytes(list, names.join("\n").as_bytes()));
    for kept in kept.values() {
        // It may be gone: somebody tidied up.
        let gone = kept.forget(written).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        });
        result = result.and(gone);
    }
    result.and_then(|()| list.map_or(Ok(()), fs::remove_file))
}

/// Deletes files of a folder by a list of their names, and the list.
fn delete(folder: &Path, names: &str, list: &Path) -> io::Result<()> {
    // Names only: a list never reaches out of its folder.
    for path in names.lines().filter_map(|name| Path::new(name).file_name()).map(|name| folder.join(name)) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::remove_file(list)
}

fn version(about: &Metadata) -> (u64, Option<SystemTime>) {
    (about.len(), about.modified().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_again_in_order_and_half_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, left) = Spool::open(folder.path()).unwrap();
        assert!(left.is_empty());
        let keep = |spool: &Spool, parts: &[&[u8]]| {
            let kept = spool.place();
            kept.write(parts).map(|()| kept).unwrap()
        };
        let first = keep(&spool, &[b"on", b"e"]);
        let second = keep(&spool, &[b"two"]);
        first.forget(false).unwrap();
        keep(&spool, &[b"three"]);
        fs::write(folder.path().join(".gantry-x.tmp"), b"half").unwrap();
        fs::write(folder.path().join("ffffffffffffffff.dcm"), b"the largest of names").unwrap();
        drop(spool);
        let (spool, left) = Spool::open(folder.path()).unwrap();
        let contents: Vec<_> = left.iter().map(|kept| fs::read(kept.path()).unwrap()).collect();
        assert_eq!(contents, [b"two".to_vec(), b"three".to_vec()]);
        assert_eq!(left[0].path(), second.path());
        let fourth = keep(&spool, &[b"four"]);
        assert!(fourth.path() > left[1].path(), "numbers go on");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    }

    #[test]
    fn what_was_forgotten_first_is_not_written_and_what_failed_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(folder.path()).unwrap();
        let (early, late) = (spool.place(), spool.place());
        early.forget(true).unwrap();
        early.write(&[b"early"]).unwrap();
        assert!(!early.path().exists());
        fs::remove_dir(folder.path()).unwrap();
        assert!(late.write(&[b"late"]).is_err());
        fs::create_dir(folder.path()).unwrap();
        late.write(&[b"late"]).unwrap();
        late.write(&[b"again"]).unwrap();
        assert_eq!(fs::read(late.path()).unwrap(), b"late");
        late.forget(true).unwrap();
        late.forget(true).unwrap();
        assert!(!late.path().exists());
    }

    #[test]
    fn a_crash_while_a_series_is_forgotten_leaves_none_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(folder.path()).unwrap();
        let keep = |bytes: &[u8]| {
            let kept = Arc::new(spool.place());
            kept.write(&[bytes]).map(|()| kept).unwrap()
        };
        let all = [keep(b"one"), keep(b"two"), keep(b"three"), keep(b"of another series")];
        // As far as the list and the first file.
        let names: Vec<_> = all[..3].iter().map(|kept| kept.path().file_name().unwrap().to_str().unwrap()).collect();
        fs::write(all[0].path().with_extension(LIST), names.join("\n")).unwrap();
        fs::remove_file(all[0].path()).unwrap();
        let (_, left) = Spool::open(folder.path()).unwrap();
        assert_eq!(left.iter().map(Kept::path).collect::<Vec<_>>(), [all[3].path()]);
        forget_all(all.iter(), true).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn somebody_elses_file_is_deleted_only_when_it_was_written_and_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("IM0001.dcm");
        let there = |written, changed: Option<&[u8]>| {
            fs::write(&path, b"first").unwrap();
            let kept = Kept::theirs(path.clone());
            changed.map_or(Ok(()), |bytes| fs::write(&path, bytes)).unwrap();
            kept.forget(written).unwrap();
            path.exists()
        };
        assert_eq!([there(true, None), there(false, None), there(true, Some(b"another"))], [false, true, true]);
    }
}
