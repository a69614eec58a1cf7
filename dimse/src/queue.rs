//! Objects on disk on their way to a destination that may be away.
//!
//! What [`Queue::push`] has taken is sent, whatever happens to the program or the power. A crash between an object's status
//! and its deletion sends it twice, with the same UID.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::client::{Error, Target, store};

/// Objects of one association.
const BATCH: usize = 64;
/// First and longest pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What happened to an object, or to the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was stored.
    Sent {
        /// Its share of the time of its association.
        took: Duration,
    },
    /// The destination is away; all objects wait.
    Retry(String),
    /// The destination refused it for good; it is in `refused/`, with a note.
    Refused(String),
    /// It cannot be read; it is in `damaged/`.
    Damaged(String),
}

/// Why an object was not taken.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Too much waits.
    #[error(
        "{waiting} bytes wait and {more} more do not fit: at most {max} are allowed; see why the destination is away"
    )]
    Full {
        /// Bytes that wait.
        waiting: u64,
        /// Of the object.
        more: u64,
        /// Allowed.
        max: u64,
    },
    /// The disk.
    #[error(transparent)]
    Disk(#[from] io::Error),
}

/// A queue and its thread.
pub struct Queue {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
    max_bytes: u64,
}

struct Shared {
    folder: PathBuf,
    next: AtomicU64,
    waiting_bytes: AtomicU64,
    stop: AtomicBool,
    /// Files that wait, oldest first.
    waiting: Mutex<Vec<PathBuf>>,
    changed: Condvar,
}

impl Queue {
    /// Opens a folder and begins to send what an earlier run left in it.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(
        folder: &Path,
        target: Target,
        max_bytes: u64,
        on_event: impl Fn(&Event) + Send + 'static,
    ) -> io::Result<Self> {
        Self::with_pause(folder, target, max_bytes, FIRST_PAUSE, on_event)
    }

    /// As [`Queue::open`], with another first pause after a failure.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn with_pause(
        folder: &Path,
        target: Target,
        max_bytes: u64,
        first_pause: Duration,
        on_event: impl Fn(&Event) + Send + 'static,
    ) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let (mut waiting, mut next, mut bytes) = (vec![], 0, 0);
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            let ends = |end: &str| path.extension().is_some_and(|extension| extension == end);
            if ends("tmp") {
                // Its push never returned.
                fs::remove_file(&path)?;
            } else if ends("dcm") && entry.file_type()?.is_file() {
                let number = path.file_stem().and_then(|stem| u64::from_str_radix(&stem.to_string_lossy(), 16).ok());
                next = next.max(number.map_or(0, |number| number + 1));
                bytes += entry.metadata()?.len();
                waiting.push(path);
            }
        }
        waiting.sort();
        let shared = Arc::new(Shared {
            folder: folder.into(),
            next: next.into(),
            waiting_bytes: bytes.into(),
            stop: AtomicBool::new(false),
            waiting: Mutex::new(waiting),
            changed: Condvar::new(),
        });
        let worker = {
            let shared = shared.clone();
            let work = move || shared.work(&target, first_pause, &on_event);
            thread::Builder::new().name("queue".into()).spawn(work)?
        };
        Ok(Self { shared, worker: Some(worker), max_bytes })
    }

    /// Takes a DICOM file; it is on disk when this returns.
    ///
    /// # Errors
    /// [`QueueError`].
    pub fn push(&self, file: &[u8]) -> Result<(), QueueError> {
        let shared = &self.shared;
        let more = file.len() as u64;
        let room = |waiting: u64| waiting.checked_add(more).filter(|bytes| *bytes <= self.max_bytes);
        let taken = shared.waiting_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, room);
        taken.map_err(|waiting| QueueError::Full { waiting, more, max: self.max_bytes })?;
        let written = shared.write(file).inspect_err(|_| {
            shared.waiting_bytes.fetch_sub(more, Ordering::AcqRel);
        })?;
        let mut waiting = shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let place = waiting.partition_point(|path| *path < written);
        waiting.insert(place, written);
        shared.changed.notify_all();
        Ok(())
    }

    /// Objects that wait.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Lets the association in progress come to its end and leaves the rest for the next start.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.changed.notify_all();
        if let Some(worker) = self.worker.take() {
            // A panic of the worker has been printed; the files are on disk.
            let _ = worker.join();
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn write(&self, file: &[u8]) -> io::Result<PathBuf> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{number:016x}.dcm"));
        let mut part = tempfile::Builder::new().suffix(".tmp").tempfile_in(&self.folder)?;
        part.write_all(file)?;
        part.as_file().sync_all()?;
        part.persist(&path).map_err(|error| error.error)?;
        // The name is part of the folder.
        File::open(&self.folder)?.sync_all()?;
        Ok(path)
    }

    fn work(&self, target: &Target, first_pause: Duration, on_event: &dyn Fn(&Event)) {
        let mut pause = first_pause;
        while let Some(batch) = self.batch() {
            let start = Instant::now();
            let results = store(target, &batch);
            let took = start.elapsed() / batch.len() as u32;
            let mut away = None;
            for (path, result) in batch.iter().zip(results) {
                match result {
                    Ok(()) => {
                        self.done(path, || fs::remove_file(path));
                        on_event(&Event::Sent { took });
                    }
                    Err(error) if error.transient() => away = Some(error.to_string()),
                    Err(error @ Error::File(_)) => {
                        self.done(path, || aside(path, "damaged", &error.to_string()));
                        on_event(&Event::Damaged(error.to_string()));
                    }
                    Err(error) => {
                        self.done(path, || aside(path, "refused", &error.to_string()));
                        on_event(&Event::Refused(error.to_string()));
                    }
                }
            }
            match away {
                None => pause = first_pause,
                Some(words) => {
                    on_event(&Event::Retry(words));
                    self.rest(pause + jitter(pause));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// The oldest objects; waits until there are some, `None` at the end.
    fn batch(&self) -> Option<Vec<PathBuf>> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |waiting: &mut Vec<PathBuf>| waiting.is_empty() && !self.stop.load(Ordering::Acquire);
        // Looks now and then: a stop may be set between the question and the wait.
        let mut waiting = waiting;
        while idle(&mut waiting) {
            let waited = self.changed.wait_timeout(waiting, Duration::from_millis(200));
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let batch = waiting.iter().take(BATCH).cloned().collect();
        (!self.stop.load(Ordering::Acquire)).then_some(batch)
    }

    /// Takes a file out of the queue. One that cannot be moved or deleted stays on disk and is tried at the next start.
    fn done(&self, path: &Path, act: impl FnOnce() -> io::Result<()>) {
        let bytes = path.metadata().map_or(0, |about| about.len());
        let _ = act();
        let bytes = |waiting: u64| Some(waiting.saturating_sub(bytes));
        let _ = self.waiting_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, bytes);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| other != path);
    }

    fn rest(&self, pause: Duration) {
        let end = Instant::now() + pause;
        while Instant::now() < end && !self.stop.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(20).min(pause));
        }
    }
}

/// Moves a file into a folder beside it, with a note.
fn aside(path: &Path, folder: &str, words: &str) -> io::Result<()> {
    let folder = path.with_file_name(folder);
    fs::create_dir_all(&folder)?;
    let target = folder.join(path.file_name().unwrap_or_default());
    fs::write(target.with_extension("txt"), format!("{words}\n"))?;
    fs::rename(path, target)
}

/// Up to a quarter of a pause, so that devices that lost a destination together do not all come back at once.
fn jitter(pause: Duration) -> Duration {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    pause * (nanos % 256) / 1024
}
