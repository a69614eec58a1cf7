//! The inference loop: no allocation, no lock, no call of the system but clock and futex, and it never ends because of a
//! slice.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use super::{
    config::Late,
    frame::{Fate, Frame},
    http::Pulse,
    rings::{Bell, In, Out, put},
};
use crate::Engine;

/// How long the loop sleeps at most where nobody wakes it.
const NAP: Duration = Duration::from_millis(200);

/// What the loop works with.
pub struct Loop<'a> {
    /// Runs the network.
    pub engine: &'a mut Engine,
    /// Slices to segment.
    pub raw: Out<'a>,
    /// Slices that are done.
    pub done: In<'a>,
    /// Wakes this loop.
    pub bell: &'a Bell,
    /// Wakes who takes from `done`.
    pub next: &'a Bell,
    /// Set after the last frame was put into `raw`.
    pub ending: &'a AtomicBool,
    /// Sign of life.
    pub pulse: &'a Pulse,
    /// From arrival to label map.
    pub deadline: Duration,
    /// What happens after it.
    pub late: Late,
}

impl Loop<'_> {
    /// Segments until the end.
    pub fn run(mut self) {
        self.bell.mine();
        let mut usual = Usual::default();
        loop {
            self.pulse.beat();
            let ending = self.ending.load(Ordering::Acquire);
            let Some(mut frame) = self.raw.dequeue() else {
                if ending {
                    return;
                }
                self.bell.wait(NAP);
                continue;
            };
            self.segment(&mut frame, &mut usual);
            put(&mut self.done, frame);
            self.next.ring();
        }
    }

    fn segment(&mut self, frame: &mut Frame, usual: &mut Usual) {
        let now = Instant::now();
        frame.stamps.started = now;
        (frame.stamps.prepared, frame.stamps.inferred, frame.stamps.finished) = (now, now, now);
        let due = frame.stamps.received + self.deadline;
        let dropping = self.late != Late::StaleFlag;
        if dropping && usual.hopeless(due.saturating_duration_since(now), self.deadline) {
            frame.fate = Fate::Late;
            return;
        }
        frame.fate = label(self.engine, frame);
        frame.stamps.finished = Instant::now();
        if let Fate::Segmented { stale } = &mut frame.fate
            && frame.stamps.finished > due
        {
            *stale = true;
            if dropping {
                frame.fate = Fate::Late;
            }
        }
        if !matches!(frame.fate, Fate::Segmented { .. }) {
            frame.labels.fill(0);
        }
        // Otherwise the network did not run, and nothing is known of how long it takes.
        if frame.stamps.inferred != now {
            usual.took(frame.stamps.finished - now);
        }
    }
}

/// What a slice takes in the loop: mean and mean deviation of late, as TCP estimates round trips (RFC 6298).
#[derive(Debug, Default)]
struct Usual {
    mean: Duration,
    deviation: Duration,
}

impl Usual {
    /// Whether a slice with so much time left need not be begun, because it would hardly be ready. Whoever has half of the
    /// deadline left is tried all the same: slow slices of the past do not keep out what comes fresh.
    fn hopeless(&self, left: Duration, deadline: Duration) -> bool {
        left < deadline / 2 && left < self.mean + 2 * self.deviation
    }

    fn took(&mut self, time: Duration) {
        if self.mean.is_zero() {
            (self.mean, self.deviation) = (time, time / 4);
        } else {
            self.deviation = (self.deviation * 3 + time.abs_diff(self.mean)) / 4;
            self.mean = (self.mean * 7 + time) / 8;
        }
    }
}

/// Fills the labels of a frame, which keep their length.
fn label(engine: &mut Engine, frame: &mut Frame) -> Fate {
    let Some(intake) = &mut frame.intake else { return Fate::Failed };
    if let Err(refusal) = engine.codes(intake, &frame.raw, &mut frame.codes) {
        return Fate::Refused(refusal);
    }
    frame.stamps.prepared = Instant::now();
    if engine.run(&frame.codes, frame.modality, &mut frame.grid_labels).is_err() {
        return Fate::Failed;
    }
    frame.stamps.inferred = Instant::now();
    intake.resampler().labels_back(&frame.grid_labels, &mut frame.labels);
    Fate::Segmented { stale: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slices come three times as fast as the loop can do them, and none takes as long as the one before.
    #[test]
    fn at_overload_nearly_all_that_is_begun_is_ready_in_time() {
        let ms = Duration::from_millis;
        let (deadline, mut usual) = (ms(1500), Usual::default());
        let (mut now, mut begun, mut ready) = (Duration::ZERO, 0, 0);
        for number in 0..3000 {
            let came = ms(100) * number;
            now = now.max(came);
            if now > came + deadline || usual.hopeless(came + deadline - now, deadline) {
                continue;
            }
            let took = ms(u64::from(200 + number * 7919 % 200));
            usual.took(took);
            now += took;
            begun += 1;
            ready += i32::from(now <= came + deadline);
        }
        // 300 s of slices that take 0.3 s.
        assert!(begun > 900 && ready * 20 >= begun * 19, "{ready} of {begun}");
    }

    #[test]
    fn a_stall_does_not_keep_out_what_comes_fresh() {
        let mut usual = Usual::default();
        (0..50).for_each(|_| usual.took(Duration::from_millis(2)));
        usual.took(Duration::from_secs(100));
        let deadline = Duration::from_millis(250);
        assert!(!usual.hopeless(deadline, deadline) && usual.hopeless(deadline / 3, deadline));
    }
}
