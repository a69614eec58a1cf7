//! The files of a queue. A name is a number, which gives the order, and the size in bytes, which shows a file that was cut off.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

const REFUSED: &str = "refused";
const DAMAGED: &str = "damaged";
/// What begins so was never acknowledged to anybody.
const UNFINISHED: &str = ".unfinished-";

/// Of 16 digits; at a thousand a second they last 300,000 years.
const LAST_NUMBER: u64 = 9_999_999_999_999_999;

/// An object in the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub number: u64,
    /// In bytes.
    pub size: u64,
}

impl Entry {
    pub fn name(self) -> String {
        format!("{:016}-{}.dcm", self.number, self.size)
    }

    fn parse(name: &str) -> Option<Self> {
        let (number, size) = name.strip_suffix(".dcm")?.split_once('-')?;
        let entry = Self { number: number.parse().ok()?, size: size.parse().ok()? };
        (entry.name() == name && entry.number <= LAST_NUMBER).then_some(entry)
    }
}

/// A folder that only this process uses.
pub(super) struct Folder {
    path: PathBuf,
    /// Held, not read: the lock goes with it, also when the process dies.
    _lock: File,
}

impl Folder {
    /// Makes the folder if need be, locks it, clears what an earlier run left unfinished; returns what waits, in order, and the
    /// number that comes after all those that are in use.
    pub fn open(path: &Path) -> io::Result<(Self, Vec<Entry>, u64)> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        make(path).map_err(named)?;
        let lock = File::create(path.join(".lock")).map_err(named)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::Error(error) => named(error),
            TryLockError::WouldBlock => named(io::Error::new(
                io::ErrorKind::WouldBlock,
                "another queue has this folder open: give each its own",
            )),
        })?;
        let mut waiting = Vec::new();
        for found in fs::read_dir(path).map_err(named)? {
            let found = found.map_err(named)?;
            let name = found.file_name().to_string_lossy().into_owned();
            if name.starts_with(UNFINISHED) {
                fs::remove_file(found.path()).map_err(named)?;
            } else {
                waiting.extend(Entry::parse(&name));
            }
        }
        waiting.sort_unstable_by_key(|entry| entry.number);
        // What was set aside keeps its name until a person takes it away: another object must not come to bear it.
        let mut next = waiting.last().map_or(0, |entry| entry.number + 1);
        for aside in [REFUSED, DAMAGED] {
            let entries = match fs::read_dir(path.join(aside)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                found => found.map_err(named)?,
            };
            for found in entries {
                let name = found.map_err(named)?.file_name();
                next = next.max(Entry::parse(&name.to_string_lossy()).map_or(0, |entry| entry.number + 1));
            }
        }
        Ok((Self { path: path.to_owned(), _lock: lock }, waiting, next))
    }

    pub fn path_of(&self, entry: Entry) -> PathBuf {
        self.path.join(entry.name())
    }

    /// Writes an object so that it is there whole or not at all, and is on the disk on return.
    pub fn write(&self, entry: Entry, bytes: &[u8]) -> io::Result<()> {
        if entry.number > LAST_NUMBER {
            // The next start would not know such a name for one of its own.
            return Err(io::Error::other(format!("no number is left after {LAST_NUMBER}")));
        }
        let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.path)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        let path = self.path_of(entry);
        file.persist_noclobber(&path).map_err(|error| error.error)?;
        sync(&self.path).inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })
    }

    /// Why the file of an entry is not what was pushed, if so.
    pub fn damage(&self, entry: Entry) -> Option<String> {
        match fs::metadata(self.path_of(entry)) {
            Ok(found) if !found.is_file() => Some("no file".into()),
            Ok(found) if found.len() != entry.size => {
                Some(format!("it has {} bytes, expected {}", found.len(), entry.size))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some("it is gone".into()),
            Ok(_) | Err(_) => None,
        }
    }

    /// Takes a delivered object away. That this is not forced to the disk may cost a second delivery, no loss.
    pub fn remove(&self, entry: Entry) -> io::Result<()> {
        match fs::remove_file(self.path_of(entry)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// To `refused/`, with the reason beside it.
    pub fn refuse(&self, entry: Entry, reason: &str) -> io::Result<()> {
        self.set_aside(REFUSED, entry, reason)
    }

    /// To `damaged/`, with the reason beside it; nothing if the file is gone.
    pub fn damaged(&self, entry: Entry, reason: &str) -> io::Result<()> {
        match self.set_aside(DAMAGED, entry, reason) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// The reason first: without the object it says too much, the object without it too little.
    fn set_aside(&self, folder: &str, entry: Entry, reason: &str) -> io::Result<()> {
        let folder = self.path.join(folder);
        fs::create_dir_all(&folder)?;
        let path = folder.join(entry.name());
        let mut text = File::create(path.with_extension("txt"))?;
        writeln!(text, "{reason}")?;
        text.sync_all()?;
        fs::rename(self.path_of(entry), &path)?;
        sync(&folder)?;
        sync(&self.path)
    }
}

/// Makes a folder and those above it so that they last: a file on the disk is of no use in a folder that is not.
fn make(path: &Path) -> io::Result<()> {
    let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.is_dir();
    let made: Vec<&Path> = path.ancestors().take_while(missing).collect();
    fs::create_dir_all(path)?;
    for folder in made {
        match folder.parent() {
            Some(above) if !above.as_os_str().is_empty() => sync(above)?,
            _ => sync(Path::new("."))?,
        }
    }
    Ok(())
}

/// A new name in a folder lasts when the folder itself is on the disk.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
