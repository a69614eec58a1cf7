//! Memory for data sets on their way in, of all associations together: many that are large must not take it all, and must not
//! keep slices of common size out.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What each association may hold besides, bytes: eight slices of 512 x 512.
const OWN: usize = 4 << 20;

/// What there is for all, bytes.
#[derive(Debug)]
pub(super) struct Room {
    most: usize,
    taken: AtomicUsize,
}

/// A part of it; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    room: &'a Room,
    bytes: usize,
}

impl Room {
    pub const fn new(most: usize) -> Self {
        Self { most, taken: AtomicUsize::new(0) }
    }

    /// Nothing yet.
    pub const fn reserve(&self) -> Reservation<'_> {
        Reservation { room: self, bytes: 0 }
    }
}

impl Reservation<'_> {
    /// Takes room for a data set of so many bytes by now; whether there is any.
    pub fn grow(&mut self, length: usize) -> bool {
        let more = length.saturating_sub(OWN).saturating_sub(self.bytes);
        let fits = |taken: usize| taken.checked_add(more).filter(|sum| *sum <= self.room.most);
        let there = more == 0 || self.room.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok();
        self.bytes += if there { more } else { 0 };
        there
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_data_sets_share_what_there_is_and_small_ones_have_their_own() {
        let room = Room::new(1000);
        let (mut first, mut second, mut small) = (room.reserve(), room.reserve(), room.reserve());
        assert!(first.grow(OWN) && first.grow(OWN + 600) && first.grow(OWN + 700));
        assert!(!second.grow(OWN + 301) && second.grow(OWN + 300) && !second.grow(OWN + 301));
        assert!(small.grow(OWN));
        drop(first);
        assert!(second.grow(OWN + 1000));
        drop((second, small));
        assert_eq!(room.taken.into_inner(), 0);
    }
}
