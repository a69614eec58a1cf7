//! How many connections there are, inside and outside associations.

use std::{
    collections::VecDeque,
    io,
    net::{Shutdown, TcpStream},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The two limits and who counts towards them.
pub(super) struct Admission {
    max_unassociated: usize,
    max_associations: usize,
    associations: AtomicUsize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    /// Oldest first.
    connections: VecDeque<(u64, TcpStream)>,
}

impl Admission {
    pub(super) fn new(max_unassociated: usize, max_associations: usize) -> Self {
        Self { max_unassociated, max_associations, associations: AtomicUsize::new(0), waiting: Mutex::default() }
    }

    /// Counts a connection outside an association; if there are too many, closes the oldest of the others.
    pub(super) fn wait(&self, tcp: &TcpStream) -> io::Result<Ticket<'_>> {
        let tcp = tcp.try_clone()?;
        let mut waiting = self.lock();
        let id = waiting.next;
        waiting.next += 1;
        while waiting.connections.len() >= self.max_unassociated {
            let Some((_, oldest)) = waiting.connections.pop_front() else { break };
            // Wakes the thread that reads from it.
            let _ = oldest.shutdown(Shutdown::Both);
        }
        waiting.connections.push_back((id, tcp));
        Ok(Ticket { admission: self, id })
    }

    /// Counts an association, if there may be another.
    pub(super) fn associate(&self) -> Option<Slot<'_>> {
        let more = |n: usize| (n < self.max_associations).then_some(n + 1);
        self.associations.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok().map(|_| Slot(&self.associations))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection outside an association, for as long as it is held.
pub(super) struct Ticket<'a> {
    admission: &'a Admission,
    id: u64,
}

impl Ticket<'_> {
    /// Whether the connection was not closed to make way for another.
    pub(super) fn valid(&self) -> bool {
        self.admission.lock().connections.iter().any(|(id, _)| *id == self.id)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.admission.lock().connections.retain(|(id, _)| *id != self.id);
    }
}

/// An association, for as long as it is held.
pub(super) struct Slot<'a>(&'a AtomicUsize);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
