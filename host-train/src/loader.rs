//! Batches of consecutive steps, made ahead by worker threads.
//!
//! Step `k` is made by worker `k mod workers`, and batches are taken in turn: which batch a step gets depends on the step
//! alone, whatever the number of workers and however fast each is. A worker makes one batch ahead and then waits, so that
//! at most two per worker are in memory.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::{
    pace::Pace,
    sampler::{Batch, Sampler},
};

/// What a step sees: CT, then MRI.
pub type Pair = [Batch; 2];

/// Worker threads and what they have made.
#[derive(Debug)]
pub struct Loader {
    /// Of each worker: a pair, and how long it took to make.
    made: Vec<mpsc::Receiver<(Pair, Duration)>>,
    next: u64,
    pace: Pace,
}

impl Loader {
    /// Starts with the batches of step `first` on at least one thread. The threads end when this is dropped.
    pub fn new(samplers: &[Arc<Sampler>; 2], first: u64, workers: usize) -> Self {
        let workers = workers.max(1) as u64;
        let start = |worker: u64| {
            let (sender, made) = mpsc::sync_channel(1);
            let samplers = samplers.clone();
            thread::spawn(move || {
                // A receiver that is gone has seen enough.
                (first + worker..).step_by(workers as usize).all(|step| {
                    let begin = Instant::now();
                    let pair = samplers.each_ref().map(|sampler| sampler.batch(step));
                    sender.send((pair, begin.elapsed())).is_ok()
                })
            });
            made
        };
        Self { made: (0..workers).map(start).collect(), next: 0, pace: Pace::default() }
    }

    /// The batches of the next step.
    ///
    /// # Panics
    /// If a worker has panicked.
    pub fn next_pair(&mut self) -> Pair {
        let worker = (self.next % self.made.len() as u64) as usize;
        let begin = Instant::now();
        let (pair, making) = self.made[worker].recv().expect("a worker lives as long as its receiver");
        self.next += 1;
        self.pace.batches += 1;
        self.pace.making += making;
        self.pace.waiting += begin.elapsed();
        pair
    }

    /// How long it took so far.
    pub const fn pace(&self) -> Pace {
        self.pace
    }
}

/// Threads that keep up with most devices without taking the processor from a training on it: a quarter of the cores.
pub fn default_workers() -> usize {
    (thread::available_parallelism().map_or(1, usize::from) / 4).clamp(1, 8)
}

#[cfg(test)]
mod tests {
    use contract::Modality;

    use super::*;
    use crate::{
        augment::Augment,
        data::tests::{case_of, spec_of},
    };

    fn samplers() -> [Arc<Sampler>; 2] {
        let spec = spec_of(1, 16, 16, 2.);
        Modality::ALL.map(|modality| {
            let raw = (0..16 * 16 * 4).map(|index| (index % 97) as i16 * 3 - 100).collect();
            let labels = (0..16 * 16 * 4).map(|index| (index / 50 % 5) as u8).collect();
            let case = case_of(modality, [16, 16, 4], raw, labels, &spec);
            Arc::new(Sampler::new(vec![case], &spec, 3, 11, Augment::default()).unwrap())
        })
    }

    #[test]
    fn any_number_of_workers_gives_the_same_batches() {
        let samplers = samplers();
        let expected: Vec<Pair> = (5..18).map(|step| samplers.each_ref().map(|sampler| sampler.batch(step))).collect();
        assert!(expected.windows(2).all(|pair| pair[0] != pair[1]));
        for workers in [1, 2, 3, 4, 7] {
            let mut loader = Loader::new(&samplers, 5, workers);
            assert!(expected.iter().all(|pair| loader.next_pair() == *pair), "{workers} workers");
            assert_eq!(loader.pace().batches, 13);
        }
    }

    /// A run that stops and goes on with another number of workers sees what an uninterrupted one sees.
    #[test]
    fn a_loader_starts_anywhere() {
        let samplers = samplers();
        let mut whole = Loader::new(&samplers, 0, 2);
        let all: Vec<Pair> = (0..9).map(|_| whole.next_pair()).collect();
        let mut rest = Loader::new(&samplers, 4, 3);
        assert!(all[4..].iter().all(|pair| rest.next_pair() == *pair));
    }

    /// Nobody takes anything: each worker makes one pair for the channel and one to hold.
    #[test]
    fn workers_do_not_run_ahead_without_bound() {
        let samplers = samplers();
        let loader = Loader::new(&samplers, 0, 2);
        thread::sleep(Duration::from_millis(300));
        let made: usize = loader.made.iter().map(|made| made.try_iter().count()).sum();
        // Taking makes room for at most one more of each while it is counted.
        assert!(made <= 6, "{made}");
    }
}
