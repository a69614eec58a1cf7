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
        // What a slice takes in the mean: what cannot be ready in time need not be begun.
        let mut usual = Duration::ZERO;
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
            usual = self.segment(&mut frame, usual);
            put(&mut self.done, frame);
            self.next.ring();
        }
    }

    /// Segments one slice; returns what a slice usually takes, given what it was thought to take.
    fn segment(&mut self, frame: &mut Frame, usual: Duration) -> Duration {
        let now = Instant::now();
        frame.stamps.started = now;
        (frame.stamps.prepared, frame.stamps.inferred, frame.stamps.finished) = (now, now, now);
        let due = frame.stamps.received + self.deadline;
        let dropping = self.late != Late::StaleFlag;
        if dropping && now + usual + usual / 4 > due {
            frame.fate = Fate::Late;
            // So that slow slices of the past do not keep all later ones from being tried.
            return usual * 15 / 16;
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
        if frame.stamps.inferred == now {
            // The network did not run: nothing is known of how long it takes.
            return usual;
        }
        let took = frame.stamps.finished - now;
        if usual.is_zero() { took } else { (usual * 15 + took) / 16 }
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
