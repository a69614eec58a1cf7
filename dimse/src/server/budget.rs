//! Memory for the data sets of all associations together. Half of it is divided among the associations that there may be, and
//! nobody can take another's part; what goes beyond comes from the other half, which all have in common. So however many large
//! instances arrive, or stop arriving in their middle, an instance that fits its own part never waits.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Instant,
};

use crate::wire::{Halt, POLL};

/// What is taken at once at least, bytes.
const SMALLEST: usize = 64 << 10;

/// Memory that data sets may take, bytes.
pub(super) struct Budget {
    /// Of each association.
    own: usize,
    /// Left of what all have in common.
    common: Mutex<usize>,
    freed: Condvar,
}

impl Budget {
    pub(super) fn new(bytes: usize, associations: usize) -> Self {
        let common = bytes / 2;
        Self { own: (bytes - common) / associations.max(1), common: Mutex::new(common), freed: Condvar::new() }
    }

    /// The largest data set that there can be room for, bytes.
    pub(super) fn most(bytes: usize, associations: usize) -> usize {
        bytes / 2 + (bytes - bytes / 2) / associations.max(1)
    }
}

/// What one association has of it.
pub(super) struct Share<'a> {
    budget: &'a Budget,
    /// Of what all have in common.
    taken: usize,
}

impl<'a> Share<'a> {
    pub(super) fn new(budget: &'a Budget) -> Self {
        Self { budget, taken: 0 }
    }

    /// The capacity, of at most `most` bytes, for which there is room, given that `bytes` are needed: some more, so that it is
    /// not asked for again at once. If there is none, it is waited for until `deadline` or a halt.
    pub(super) fn reserve(&mut self, bytes: usize, most: usize, deadline: Instant, halt: &Halt) -> Option<usize> {
        let own = self.budget.own;
        let ample = bytes.saturating_add(bytes / 4).max(SMALLEST).min(most);
        if bytes <= own {
            return Some(ample.min(own).max(bytes));
        }
        let beyond = ample.saturating_sub(own);
        let mut common = self.budget.common.lock().unwrap_or_else(PoisonError::into_inner);
        while *common + self.taken < beyond {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || halt.get().is_some() {
                return None;
            }
            let waited = self.budget.freed.wait_timeout(common, left.min(POLL));
            common = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *common -= beyond - self.taken;
        self.taken = beyond;
        Some(ample)
    }

    /// Gives everything back.
    pub(super) fn clear(&mut self) {
        if self.taken > 0 {
            *self.budget.common.lock().unwrap_or_else(PoisonError::into_inner) += self.taken;
            self.taken = 0;
            self.budget.freed.notify_all();
        }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{thread, time::Duration};

    #[test]
    fn large_ones_wait_for_each_other_and_small_ones_for_nobody() {
        // Parts of 100,000 and 400,000 in common.
        let (budget, halt) = (Budget::new(800_000, 4), Halt::default());
        let later = |ms| Instant::now() + Duration::from_millis(ms);
        let most = 500_000;
        let [mut large, mut other, mut small] = [(); 3].map(|()| Share::new(&budget));
        assert_eq!(large.reserve(200_000, most, later(0), &halt), Some(250_000));
        assert_eq!(large.reserve(450_000, most, later(0), &halt), Some(most));
        assert_eq!(small.reserve(90_000, most, later(0), &halt), Some(100_000));
        assert_eq!(other.reserve(100_001, most, later(50), &halt), None);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| other.reserve(200_000, most, later(60_000), &halt));
            thread::sleep(Duration::from_millis(50));
            drop(large);
            assert_eq!(waiting.join().unwrap(), Some(250_000));
        });
        let stopping = Halt::default();
        crate::wire::halt(&stopping, Duration::from_secs(60));
        assert_eq!(small.reserve(400_000, most, later(60_000), &stopping), None);
        other.clear();
        assert_eq!(*budget.common.lock().unwrap(), 400_000);
    }
}
