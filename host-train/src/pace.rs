//! How fast data comes and steps go, apart: whichever is slower decides what a faster machine would be good for.

use std::time::Duration;

/// How long batches took, summed over the batches taken so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Batches of both modalities taken.
    pub batches: u32,
    /// Time of one thread to make them.
    pub making: Duration,
    /// Time that whoever took them stood still.
    pub waiting: Duration,
}

impl Pace {
    /// What came after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            batches: self.batches - earlier.batches,
            making: self.making - earlier.making,
            waiting: self.waiting - earlier.waiting,
        }
    }
}

/// How fast data came and steps went, over the steps between two lines of metrics. Steps are timed as they are called:
/// CUDA still computes when they return, but for the last one, whose losses are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Samples of both modalities per second that all workers can make.
    pub loader: f64,
    /// Samples of both modalities per second that are trained on while there is data.
    pub step: f64,
    /// Time that a step waited for data, ms.
    pub wait_ms: f64,
}

/// What [`Speed`] is reckoned from.
#[derive(Debug, Default)]
pub struct Clock {
    stepping: Duration,
    before: Pace,
}

impl Clock {
    /// A step took so long, without the wait for its data.
    pub fn step(&mut self, time: Duration) {
        self.stepping += time;
    }

    /// Of the steps since the last call.
    pub fn speed(&mut self, pace: Pace, batch: usize, workers: usize) -> Speed {
        let part = pace.since(&self.before);
        let (steps, samples) = (f64::from(part.batches), 2. * batch as f64 * f64::from(part.batches));
        let rate = |seconds: f64| samples / seconds.max(1e-9);
        let speed = Speed {
            loader: workers.max(1) as f64 * rate(part.making.as_secs_f64()),
            step: rate(self.stepping.as_secs_f64()),
            wait_ms: part.waiting.as_secs_f64() * 1e3 / steps.max(1.),
        };
        *self = Self { stepping: Duration::ZERO, before: pace };
        speed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_that_of_the_steps_since_the_last_line() {
        let pace = |batches, making, waiting| Pace {
            batches,
            making: Duration::from_millis(making),
            waiting: Duration::from_millis(waiting),
        };
        let mut clock = Clock { stepping: Duration::from_millis(500), before: pace(10, 100, 10) };
        let speed = clock.speed(pace(15, 200, 35), 8, 2);
        // 5 steps of 16 samples: 80 in 100 ms by each of two threads, in 500 ms of steps; 25 ms waited in 5 steps.
        assert!((speed.loader - 1600.).abs() < 1e-6 && (speed.step - 160.).abs() < 1e-6, "{speed:?}");
        assert!((speed.wait_ms - 5.).abs() < 1e-9, "{speed:?}");
        assert_eq!((clock.stepping, clock.before), (Duration::ZERO, pace(15, 200, 35)));
    }
}
