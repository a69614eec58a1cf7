//! A queue on disk between a program and a destination that may be away. An object is a file from [`Queue::push`] until the
//! destination has acknowledged it, so a kill or a power cut at any moment loses nothing that was pushed. It may at worst send one
//! object twice, when the end came between the acknowledgement and the removal of the file; a second copy has the same SOP Instance
//! UID, and archives keep one.
//!
//! One folder belongs to one queue of one process. In it lie the waiting objects, and beside them `refused/`, what the destination
//! does not want, and `damaged/`, what is no DICOM file any more, each with a `.txt` that says why. Neither counts towards the
//! limit, and nothing here clears them: a person looks at them, and moves an object that is to be sent after all through `push`.
//!
//! The order is that of the pushes, except that an object over which an attempt failed three times goes behind the others, so that
//! one which makes the destination stumble does not hold them all.

mod folder;
mod pace;
mod worker;

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    client::Target,
    wire::{self, Halt},
};
use folder::{Entry, Folder};
use pace::Pace;
use worker::Worker;

/// Objects per association: long enough that negotiation does not matter, short enough that an order can change.
const BATCH: usize = 100;
/// Failed attempts over an object until others go first.
const PATIENCE: u32 = 3;
const SMALLEST_DELAY: Duration = Duration::from_secs(1);
const LARGEST_DELAY: Duration = Duration::from_secs(60);
/// How long a transfer in progress may go on when the queue stops.
const GRACE: Duration = Duration::from_secs(10);

/// What happened to an object, by the name of its file in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The destination has it.
    Sent {
        /// The name.
        file: String,
        /// From the first byte of the request to the response.
        took: Duration,
    },
    /// It was not taken and stays; when an attempt failed for all, the first waiting object stands for them.
    Retry {
        /// The name.
        file: String,
        /// What failed.
        reason: String,
    },
    /// The destination does not want it for good; it is in `refused/`.
    Refused {
        /// The name.
        file: String,
        /// What the destination said.
        reason: String,
    },
    /// The file is gone, or was changed, or is no DICOM file; it is in `damaged/` if it is still there.
    Damaged {
        /// The name.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why an object was not taken into the queue.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// It would go over the limit.
    #[error("the queue is full: {waiting} bytes wait, {size} more would go over the limit of {limit}")]
    Full {
        /// Of this object, in bytes.
        size: u64,
        /// Of what waits, in bytes.
        waiting: u64,
        /// The `max_bytes` of the queue.
        limit: u64,
    },
    /// The disk did not take it.
    #[error("the object cannot be written to the queue: {0}")]
    Io(#[from] io::Error),
}

/// An outgoing queue and its worker thread. Dropping it is [`Queue::stop`].
pub struct Queue {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

struct Shared {
    folder: Folder,
    limit: u64,
    state: Mutex<State>,
    changed: Condvar,
    halt: Halt,
}

#[derive(Default)]
struct State {
    /// By rank (how often the object was put behind the others) and number.
    waiting: BTreeMap<(u32, u64), Waiting>,
    /// Of all that waits or is being pushed.
    bytes: u64,
    next: u64,
    stopping: bool,
}

#[derive(Clone, Copy)]
struct Waiting {
    entry: Entry,
    failures: u32,
}

impl Waiting {
    fn key(&self) -> (u32, u64) {
        (self.failures / PATIENCE, self.entry.number)
    }
}

impl Queue {
    /// Opens or makes the queue in `folder` and starts its worker, which first sends what an earlier run left. At most `max_bytes`
    /// wait. `on_event` is called from the worker and holds it for as long as it takes; it must not panic.
    pub fn open(
        folder: &Path,
        target: Target,
        max_bytes: u64,
        on_event: impl Fn(&Event) + Send + 'static,
    ) -> io::Result<Self> {
        Self::open_paced(folder, target, max_bytes, SMALLEST_DELAY, on_event)
    }

    /// [`Queue::open`] with the delay after the first failed attempt, which doubles from there up to a minute.
    #[doc(hidden)]
    pub fn open_paced(
        folder: &Path,
        target: Target,
        max_bytes: u64,
        smallest_delay: Duration,
        on_event: impl Fn(&Event) + Send + 'static,
    ) -> io::Result<Self> {
        let (folder, found, next) = Folder::open(folder)?;
        let mut state = State { next, ..State::default() };
        for entry in found {
            state.bytes = state.bytes.saturating_add(entry.size);
            let waiting = Waiting { entry, failures: 0 };
            state.waiting.insert(waiting.key(), waiting);
        }
        let (state, changed, halt) = (Mutex::new(state), Condvar::new(), Halt::default());
        let shared = Arc::new(Shared { folder, limit: max_bytes, state, changed, halt });
        let worker =
            Worker { shared: shared.clone(), target, pace: Pace::new(smallest_delay, LARGEST_DELAY), on_event };
        let worker = thread::Builder::new().name("dicom queue".into()).spawn(move || worker.run())?;
        Ok(Self { shared, worker: Some(worker) })
    }

    /// Takes a DICOM file (PS3.10), as its bytes. It is on the disk when this returns, and stays until it is delivered or set
    /// aside. After an error it is not in the queue.
    pub fn push(&self, file: &[u8]) -> Result<(), QueueError> {
        let size = file.len() as u64;
        let entry = {
            let mut state = self.shared.state();
            if state.bytes.saturating_add(size) > self.shared.limit {
                return Err(QueueError::Full { size, waiting: state.bytes, limit: self.shared.limit });
            }
            state.bytes += size;
            state.next += 1;
            Entry { number: state.next - 1, size }
        };
        let written = self.shared.folder.write(entry, file);
        let mut state = self.shared.state();
        match written {
            Ok(()) => {
                let waiting = Waiting { entry, failures: 0 };
                state.waiting.insert(waiting.key(), waiting);
                self.shared.changed.notify_all();
                Ok(())
            }
            Err(error) => {
                state.bytes = state.bytes.saturating_sub(size);
                Err(error.into())
            }
        }
    }

    /// How many objects wait, the one being sent among them; an object leaves the count after its event.
    pub fn waiting(&self) -> usize {
        self.shared.state().waiting.len()
    }

    /// Starts nothing new, and gives the transfer in progress 10 s to come to its end; does not wait for it. For several queues
    /// that are to stop together.
    pub fn halt(&self) {
        self.shared.state().stopping = true;
        self.shared.changed.notify_all();
        wire::halt(&self.shared.halt, GRACE);
    }

    /// [`Queue::halt`], and returns when the worker has gone: at the latest after those 10 s, or when an attempt to connect has
    /// come to its timeout. What waits is sent after the next [`Queue::open`].
    pub fn stop(self) {}
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.halt();
        if let Some(worker) = self.worker.take() {
            // A panic there has already been reported by the thread itself.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the state half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
