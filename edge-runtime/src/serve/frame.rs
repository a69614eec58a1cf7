//! One slice on its way, with all the memory that the loop needs for it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use contract::{Intake, IntensityError, Modality};

use super::ticket::Ticket;

/// A slice and its memory. Made once, used again and again.
#[derive(Debug)]
pub struct Frame {
    /// Whose slice it is.
    pub ticket: Option<Arc<Ticket>>,
    /// Branch of the network.
    pub modality: Modality,
    /// The way to the model's grid and back; always there between the raw and the done ring.
    pub intake: Option<Box<Intake>>,
    /// Raw values, canonical `[y][x]`.
    pub raw: Vec<i16>,
    /// The model's image.
    pub codes: Vec<i8>,
    /// Labels on the model's grid.
    pub grid_labels: Vec<u8>,
    /// Labels of the raw pixels, canonical `[y][x]`; background unless segmented.
    pub labels: Vec<u8>,
    /// What became of it.
    pub fate: Fate,
    /// When.
    pub stamps: Stamps,
}

/// What became of a slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// Not yet known.
    Waiting,
    /// It has a label map.
    Segmented {
        /// After the deadline, and delivered nevertheless.
        stale: bool,
    },
    /// The contract refuses it; a blank slice ([`IntensityError::Constant`]) is background.
    Refused(IntensityError),
    /// The deadline was missed.
    Late,
    /// Too many slices waited: it was the oldest.
    Overflow,
    /// The engine failed.
    Failed,
}

/// When a slice passed which point. Monotonic, so that a jump of the clock changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Stamps {
    /// Its first byte came.
    pub begun: Instant,
    /// Its last byte was here.
    pub received: Instant,
    /// Its pixels were decoded, and it was given to the loop.
    pub decoded: Instant,
    /// The loop took it up.
    pub started: Instant,
    /// The network's image was ready.
    pub prepared: Instant,
    /// The network had run.
    pub inferred: Instant,
    /// The labels were on the scanner's grid.
    pub finished: Instant,
}

impl Stamps {
    /// All points at one moment.
    pub const fn at(moment: Instant) -> Self {
        Self {
            begun: moment,
            received: moment,
            decoded: moment,
            started: moment,
            prepared: moment,
            inferred: moment,
            finished: moment,
        }
    }

    /// From the last byte to the label map.
    pub fn glass_to_mask(&self) -> Duration {
        self.finished.saturating_duration_since(self.received)
    }
}

impl Frame {
    /// Takes memory for slices of at most `max_pixels`, and images of a model.
    pub fn new(max_pixels: usize, image: usize, labels: usize) -> Self {
        Self {
            ticket: None,
            modality: Modality::Ct,
            intake: None,
            raw: Vec::with_capacity(max_pixels),
            codes: vec![i8::MIN; image],
            grid_labels: vec![0; labels],
            labels: Vec::with_capacity(max_pixels),
            fate: Fate::Waiting,
            stamps: Stamps::at(Instant::now()),
        }
    }
}
