//! A fixed number of threads that walk through the same steps, each with its share of the rows, and wait for one another
//! between steps. Nothing is allocated and no lock is taken in a run; threads spin while a slice is on its way and sleep
//! between slices.

use std::{
    cell::UnsafeCell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

/// How often a waiting thread looks before it gives its core away.
const SPINS: usize = 1 << 14;

/// What every thread does, given its number and the place where it meets the others.
type Job<'a> = dyn Fn(usize, &Meeting<'_>) + Sync + 'a;

/// The calling thread and its workers.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Counts runs.
    round: AtomicUsize,
    /// Workers that are done with the round.
    finished: AtomicUsize,
    /// A part panicked.
    failed: AtomicBool,
    stop: AtomicBool,
    job: UnsafeCell<Option<*const Job<'static>>>,
    /// Threads that have arrived at barriers since the start of the round.
    arrived: AtomicUsize,
    parts: usize,
}

// SAFETY: `job` is written before `round` is released and read after it is acquired; see `Team::run`.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Team {
    /// Starts `parts - 1` workers. `place(part)` runs first on each thread, the caller's as number 0: to pin it to a core.
    pub fn new(parts: usize, place: impl Fn(usize) + Send + Clone + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            round: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            job: UnsafeCell::new(None),
            arrived: AtomicUsize::new(0),
            parts,
        });
        place(0);
        let worker = |part: usize| {
            let (shared, place) = (Arc::clone(&shared), place.clone());
            thread::Builder::new().name(format!("gantry-{part}")).spawn(move || {
                place(part);
                shared.work(part);
            })
        };
        let workers = (1..parts).map(worker).collect::<Result<_, _>>()?;
        Ok(Self { shared, workers })
    }

    /// Threads.
    pub fn parts(&self) -> usize {
        self.shared.parts
    }

    /// Runs `job(part, meeting)` on every thread and returns when all are done: `false` if one panicked.
    pub fn run(&mut self, job: &Job<'_>) -> bool {
        let shared = &self.shared;
        // SAFETY: the lifetime is forgotten only until the end of this function, which waits for every worker. No worker
        // reads `job` now, because all have finished the last round.
        unsafe {
            *shared.job.get() = Some(std::mem::transmute::<*const Job<'_>, *const Job<'static>>(job));
        }
        shared.finished.store(0, Ordering::Relaxed);
        shared.arrived.store(0, Ordering::Relaxed);
        shared.round.fetch_add(1, Ordering::Release);
        self.workers.iter().for_each(|worker| worker.thread().unpark());
        shared.guarded(|| job(0, &Meeting(shared)));
        wait(|| shared.finished.load(Ordering::Acquire) == self.workers.len());
        !shared.failed.swap(false, Ordering::Relaxed)
    }
}

/// Where the threads of a run wait for one another.
pub struct Meeting<'a>(&'a Shared);

impl Meeting<'_> {
    /// Waits until every thread has come here for the `count`th time in this run, or one has panicked.
    pub fn wait(&self, count: usize) {
        self.0.arrived.fetch_add(1, Ordering::AcqRel);
        let all = count * self.0.parts;
        wait(|| self.0.arrived.load(Ordering::Acquire) >= all || self.0.failed.load(Ordering::Relaxed));
    }
}

impl Shared {
    fn work(&self, part: usize) {
        let mut seen = 0;
        loop {
            let mut spins = 0;
            while self.round.load(Ordering::Acquire) == seen {
                spins += 1;
                if spins < SPINS { std::hint::spin_loop() } else { thread::park() }
            }
            seen += 1;
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            // SAFETY: written before the round that was just seen, and alive until this worker reports back.
            let job = unsafe { (*self.job.get()).map(|job| &*job) };
            self.guarded(|| job.into_iter().for_each(|job| job(part, &Meeting(self))));
            self.finished.fetch_add(1, Ordering::Release);
        }
    }

    /// A panic must not leave the others waiting.
    fn guarded(&self, work: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            self.failed.store(true, Ordering::Release);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.round.fetch_add(1, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches its panics.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} threads", self.parts())
    }
}

/// Spins, and after a while lets others have the core.
fn wait(done: impl Fn() -> bool) {
    let mut spins = 0;
    while !done() {
        spins += 1;
        if spins < SPINS { std::hint::spin_loop() } else { thread::yield_now() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_runs_once_and_nobody_passes_a_meeting_early() {
        for parts in 1..=5 {
            let mut team = Team::new(parts, |_| ()).unwrap();
            for _ in 0..200 {
                let (first, second) = (AtomicUsize::new(0), AtomicUsize::new(0));
                let job = |_: usize, meeting: &Meeting<'_>| {
                    first.fetch_add(1, Ordering::SeqCst);
                    meeting.wait(1);
                    assert_eq!(first.load(Ordering::SeqCst), parts);
                    second.fetch_add(1, Ordering::SeqCst);
                    meeting.wait(2);
                    assert_eq!(second.load(Ordering::SeqCst), parts);
                };
                assert!(team.run(&job), "{parts}");
            }
        }
    }

    #[test]
    fn a_panic_is_reported_and_the_team_goes_on() {
        let mut team = Team::new(3, |_| ()).unwrap();
        assert!(!team.run(&|part, _| assert_ne!(part, 1, "as planned")));
        assert!(team.run(&|_, _| ()));
    }
}
