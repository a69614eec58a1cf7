//! Instances on disk from before they are acknowledged until their series is written. What is left of an earlier run is
//! segmented again.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use volume::atomic;

/// The folder.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    next: AtomicU64,
}

/// One instance; dropping it leaves the file alone.
#[derive(Debug)]
pub struct Kept(PathBuf);

impl Spool {
    /// Opens the folder and lists what is in it, oldest first. Files that were being written when the power went are
    /// deleted: nobody was told that they had arrived. Names in `damaged`, where instances are set aside, are not given again.
    pub fn open(folder: &Path, damaged: &Path) -> io::Result<(Self, Vec<Kept>)> {
        fs::create_dir_all(folder)?;
        // A file on the disk is of no use in a folder that is not.
        for above in folder.ancestors().skip(1).take(2).filter(|above| !above.as_os_str().is_empty()) {
            File::open(above)?.sync_all()?;
        }
        let mut left = vec![];
        let mut next = match fs::read_dir(damaged) {
            Ok(aside) => aside.flatten().filter_map(|entry| number(&entry.path())).max().map_or(0, |most| most + 1),
            Err(_) => 0,
        };
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
        Ok((Self { folder: folder.into(), next: next.into() }, left.into_iter().map(Kept).collect()))
    }

    /// Writes an instance, given in parts; it survives a loss of power when this returns.
    pub fn keep(&self, parts: &[&[u8]]) -> io::Result<Kept> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{number:016x}.dcm"));
        atomic::write(&path, |file| parts.iter().try_for_each(|part| file.write_all(part)))?;
        Ok(Kept(path))
    }
}

/// The number of a file, if it has one; the largest would leave none for the next.
fn number(path: &Path) -> Option<u64> {
    let stem = path.file_stem()?.to_str()?;
    let number = u64::from_str_radix(stem, 16).ok().filter(|number| *number < u64::MAX)?;
    path.extension().is_some_and(|extension| extension == "dcm").then_some(number)
}

impl Kept {
    /// A file of somebody else's folder that is to be deleted when its series is written.
    pub const fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Deletes it: its series is written, or it was refused.
    pub fn forget(&self) -> io::Result<()> {
        fs::remove_file(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_again_in_order_and_half_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let damaged = folder.path().join("damaged");
        let open = || Spool::open(folder.path(), &damaged).unwrap();
        let (spool, left) = open();
        assert!(left.is_empty());
        let first = spool.keep(&[b"on", b"e"]).unwrap();
        let second = spool.keep(&[b"two"]).unwrap();
        first.forget().unwrap();
        spool.keep(&[b"three"]).unwrap();
        fs::write(folder.path().join(".gantry-x.tmp"), b"half").unwrap();
        drop(spool);
        let (spool, left) = open();
        let contents: Vec<_> = left.iter().map(|kept| fs::read(kept.path()).unwrap()).collect();
        assert_eq!(contents, [b"two".to_vec(), b"three".to_vec()]);
        assert_eq!(left[0].path(), second.path());
        let fourth = spool.keep(&[b"four"]).unwrap();
        assert!(fourth.path() > left[1].path(), "numbers go on");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);

        // Set aside, and a file with the largest of names.
        fs::create_dir(&damaged).unwrap();
        let aside = damaged.join(fourth.path().file_name().unwrap());
        fs::rename(fourth.path(), &aside).unwrap();
        left.iter().for_each(|kept| kept.forget().unwrap());
        fs::write(folder.path().join("ffffffffffffffff.dcm"), b"last").unwrap();
        let (spool, _) = open();
        assert!(spool.keep(&[b"fifth"]).unwrap().path().file_name() > aside.file_name());
    }
}
