//! Instances on disk from before they are acknowledged until their series is written. What is left of an earlier run is
//! segmented again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use volume::atomic;

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
        let mut left = vec![];
        let mut next = 0;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let number = path.file_stem().and_then(|stem| u64::from_str_radix(&stem.to_string_lossy(), 16).ok());
            match (number, path.extension().is_some_and(|extension| extension == "dcm")) {
                (Some(number), true) => {
                    next = next.max(number + 1);
                    left.push(path);
                }
                _ if path.extension().is_some_and(|extension| extension == "tmp") => fs::remove_file(&path)?,
                _ => {}
            }
        }
        left.sort();
        Ok((Self { folder: folder.into(), next: next.into() }, left.into_iter().map(Kept::at).collect()))
    }

    /// A place for an instance; nothing is written yet.
    pub fn place(&self) -> Kept {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Kept { path: self.folder.join(format!("{number:016x}.dcm")), state: Mutex::new(State::Open) }
    }
}

impl Kept {
    /// A file that is there, to be deleted when its series is written.
    pub const fn at(path: PathBuf) -> Self {
        Self { path, state: Mutex::new(State::Written) }
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

    /// Deletes it: its series is written, or it was refused.
    pub fn forget(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, State::Forgotten) {
            State::Written => fs::remove_file(&self.path),
            State::Open | State::Forgotten => Ok(()),
        }
    }
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
        first.forget().unwrap();
        keep(&spool, &[b"three"]);
        fs::write(folder.path().join(".gantry-x.tmp"), b"half").unwrap();
        drop(spool);
        let (spool, left) = Spool::open(folder.path()).unwrap();
        let contents: Vec<_> = left.iter().map(|kept| fs::read(kept.path()).unwrap()).collect();
        assert_eq!(contents, [b"two".to_vec(), b"three".to_vec()]);
        assert_eq!(left[0].path(), second.path());
        let fourth = keep(&spool, &[b"four"]);
        assert!(fourth.path() > left[1].path(), "numbers go on");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn what_was_forgotten_first_is_not_written_and_what_failed_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(folder.path()).unwrap();
        let (early, late) = (spool.place(), spool.place());
        early.forget().unwrap();
        early.write(&[b"early"]).unwrap();
        assert!(!early.path().exists());
        fs::remove_dir(folder.path()).unwrap();
        assert!(late.write(&[b"late"]).is_err());
        fs::create_dir(folder.path()).unwrap();
        late.write(&[b"late"]).unwrap();
        late.write(&[b"again"]).unwrap();
        assert_eq!(fs::read(late.path()).unwrap(), b"late");
        late.forget().unwrap();
        late.forget().unwrap();
        assert!(!late.path().exists());
    }
}
