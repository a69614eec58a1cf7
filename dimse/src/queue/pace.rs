//! How long to wait before the next attempt.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// Doubling delays with jitter, so that many senders do not come back to a restarted peer at the same moment.
pub(super) struct Pace {
    smallest: Duration,
    largest: Duration,
    failures: u32,
}

impl Pace {
    pub fn new(smallest: Duration, largest: Duration) -> Self {
        Self { smallest, largest: largest.max(smallest), failures: 0 }
    }

    /// Something was delivered: the peer is well.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next delay: between half and all of the smallest, doubled with each failure up to the largest.
    pub fn delay(&mut self) -> Duration {
        let full = self.smallest.saturating_mul(1 << self.failures.min(20)).min(self.largest);
        self.failures = self.failures.saturating_add(1);
        // Hash keys are the standard library's random numbers; nothing better is needed here.
        let random = RandomState::new().hash_one(self.failures) as u32;
        full.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_largest_and_starts_again() {
        let seconds = Duration::from_secs;
        let mut pace = Pace::new(seconds(1), seconds(60));
        for _ in 0..2 {
            for full in [1, 2, 4, 8, 16, 32, 60, 60, 60].map(seconds) {
                let delay = pace.delay();
                assert!((full / 2..=full).contains(&delay), "{delay:?} of {full:?}");
            }
            for _ in 0..10_000 {
                assert!((seconds(30)..=seconds(60)).contains(&pace.delay()));
            }
            pace.reset();
        }
    }
}
