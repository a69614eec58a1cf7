//! The thread that sends what waits in a queue.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::{BATCH, Event, Shared, State, Waiting, pace::Pace};
use crate::client::{self, Error, Target};

/// What it needs.
pub(super) struct Worker<F> {
    pub shared: Arc<Shared>,
    pub target: Target,
    pub pace: Pace,
    pub on_event: F,
}

impl<F: Fn(&Event)> Worker<F> {
    /// Sends until the queue stops.
    pub fn run(mut self) {
        while let Some(batch) = self.next_batch() {
            let attempt = self.send(&batch);
            if attempt.progress {
                self.pace.reset();
            }
            if attempt.failed {
                let delay = self.pace.delay();
                let state = self.shared.state();
                let waited = self.shared.changed.wait_timeout_while(state, delay, |state| !state.stopping);
                drop(waited);
            }
        }
    }

    /// What to send next, when there is something; nothing when it is time to stop.
    fn next_batch(&self) -> Option<Vec<Waiting>> {
        let idle = |state: &mut State| state.waiting.is_empty() && !state.stopping;
        let state = self.shared.changed.wait_while(self.shared.state(), idle).unwrap_or_else(PoisonError::into_inner);
        (!state.stopping).then(|| state.waiting.values().take(BATCH).copied().collect())
    }

    /// Tries a batch over one association.
    fn send(&self, batch: &[Waiting]) -> Attempt {
        let mut attempt = Attempt::default();
        let mut whole = Vec::with_capacity(batch.len());
        for waiting in batch {
            match self.shared.folder.damage(waiting.entry) {
                None => whole.push(*waiting),
                Some(reason) => self.set_aside(waiting, &Error::File(reason), &mut attempt),
            }
        }
        let paths: Vec<_> = whole.iter().map(|waiting| self.shared.folder.path_of(waiting.entry)).collect();
        client::store_until(&self.target, &paths, &self.shared.halt, |index, result, took| {
            let waiting = &whole[index];
            match result {
                Ok(()) => self.sent(waiting, took, &mut attempt),
                Err(error) if set_aside(&error) => self.set_aside(waiting, &error, &mut attempt),
                Err(error) => self.keep(waiting, &error, &mut attempt),
            }
            !self.shared.state().stopping
        });
        attempt
    }

    fn sent(&self, waiting: &Waiting, took: Duration, attempt: &mut Attempt) {
        attempt.progress = true;
        let file = waiting.entry.name();
        // First of all, because a kill before it means a second delivery.
        let removed = self.shared.folder.remove(waiting.entry);
        (self.on_event)(&Event::Sent { file: file.clone(), took });
        if let Err(error) = removed {
            // Kept in the list it would be sent again and again; in the folder it waits for the next start.
            (self.on_event)(&Event::Retry { file, reason: format!("sent, but its file cannot be removed: {error}") });
        }
        self.forget(waiting);
    }

    fn set_aside(&self, waiting: &Waiting, error: &Error, attempt: &mut Attempt) {
        let (file, reason) = (waiting.entry.name(), error.to_string());
        let damaged = matches!(error, Error::File(_));
        let moved = if damaged {
            self.shared.folder.damaged(waiting.entry, &reason)
        } else {
            self.shared.folder.refuse(waiting.entry, &reason)
        };
        if let Err(error) = moved {
            attempt.failed = true;
            self.postpone(waiting);
            let reason = format!("{reason}; and it cannot be set aside: {error}");
            return (self.on_event)(&Event::Retry { file, reason });
        }
        attempt.progress = true;
        (self.on_event)(&if damaged { Event::Damaged { file, reason } } else { Event::Refused { file, reason } });
        self.forget(waiting);
    }

    fn keep(&self, waiting: &Waiting, error: &Error, attempt: &mut Attempt) {
        let own = matches!(error, Error::Status { .. } | Error::System(_));
        if own || matches!(error, Error::Lost(_) | Error::Protocol(_)) {
            self.postpone(waiting);
        }
        if own || !attempt.failed {
            (self.on_event)(&Event::Retry { file: waiting.entry.name(), reason: error.to_string() });
        }
        attempt.failed = true;
    }

    fn forget(&self, waiting: &Waiting) {
        let mut state = self.shared.state();
        if state.waiting.remove(&waiting.key()).is_some() {
            state.bytes = state.bytes.saturating_sub(waiting.entry.size);
        }
    }

    /// Counts a failure that may be the object's own.
    fn postpone(&self, waiting: &Waiting) {
        let mut state = self.shared.state();
        if let Some(mut waiting) = state.waiting.remove(&waiting.key()) {
            waiting.failures = waiting.failures.saturating_add(1);
            state.waiting.insert(waiting.key(), waiting);
        }
    }
}

#[derive(Default)]
struct Attempt {
    /// Something left the queue.
    progress: bool,
    /// Something that should have left it did not.
    failed: bool,
}

/// The object itself is at fault, or not wanted. A rejected association is neither, even a permanent one: it concerns every object
/// alike, and a wrong entity title is put right without anybody going through `refused/`.
fn set_aside(error: &Error) -> bool {
    match error {
        Error::File(_) | Error::NotAccepted { .. } => true,
        Error::Status { .. } => !error.transient(),
        _ => false,
    }
}
