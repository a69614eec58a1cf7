//! Who executes the network. Every engine gives the same bits for an int8 model: the contract's rounding rule, proved at
//! start by the golden digests. An enum and a match, because the choice is made once, at load.

mod graph;
mod int8;
mod layout;
mod load;
mod lower;
mod plan;
mod planes;
mod planned;
mod read;
mod step;
mod tract;

use std::fmt;

use contract::{Intake, IntensityError, Modality};

pub use int8::LayerRun;
pub use lower::Memory;
pub use planned::PlannedEngine;
pub use step::{Planned, Program, Step};

use crate::{EdgeError, Model, kernels::Kernels};

/// A loaded network, ready for slices of every modality it has.
#[derive(Debug)]
pub enum Engine {
    /// Ours: our own int8 files, without an allocation per slice.
    Planned(Box<PlannedEngine>),
    /// tract's own plan: any model, allocates in every run.
    Tract {
        /// The plan.
        engine: Box<tract::TractEngine>,
        /// Why it is not ours.
        why: String,
    },
}

/// Who is to execute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// `planned` where the file allows it, else `tract`.
    #[default]
    Auto,
    /// `planned`, or an error.
    Planned,
    /// `tract`.
    Tract,
}

/// How to load.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who executes.
    pub choice: Choice,
    /// What the planned engine computes with; `None`: the best that this CPU can run.
    pub kernels: Option<Kernels>,
    /// Most memory for the values of a planned network.
    pub max_arena_bytes: usize,
    /// Threads that share a slice of the planned engine.
    pub threads: usize,
    /// Core of each thread, where it matters.
    pub cores: Vec<usize>,
}

impl Options {
    /// Far above any network for a device.
    pub const MAX_ARENA_BYTES: usize = 256 << 20;
}

impl Default for Options {
    fn default() -> Self {
        Self { choice: Choice::Auto, kernels: None, max_arena_bytes: Self::MAX_ARENA_BYTES, threads: 1, cores: vec![] }
    }
}

/// Bytes of a plan's constants (packed weights, tables) in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Constants {
    /// Of all branches, each tensor once.
    pub total_bytes: usize,
    /// Used by more than one branch, counted once for each further branch.
    pub shared_bytes: usize,
}

/// What a network says about each pixel, `[classes, pixels]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Logits<'a> {
    /// Of an int8 model.
    Codes(&'a [i8]),
    /// Of an f32 model.
    Reals(&'a [f32]),
}

impl Engine {
    /// Plans every branch of a model, with the best engine for it.
    pub fn new(model: &Model) -> Result<Self, EdgeError> {
        Self::with(model, &Options::default())
    }

    /// Plans every branch of a model as asked.
    ///
    /// # Errors
    /// If the model cannot be planned, holds impossible numbers, or needs more memory than allowed.
    pub fn with(model: &Model, options: &Options) -> Result<Self, EdgeError> {
        let planned = match options.choice {
            Choice::Tract => Err("tract was asked for".to_string()),
            _ => PlannedEngine::new(model, options)?,
        };
        match planned {
            Ok(engine) => Ok(Self::Planned(Box::new(engine))),
            Err(reason) if options.choice == Choice::Planned => {
                Err(EdgeError::NotPlanned { path: model.path.clone(), reason })
            }
            Err(why) => Ok(Self::Tract { engine: Box::new(tract::TractEngine::new(model)?), why }),
        }
    }

    /// Segments one image of codes `[slices, h, w]` (`[1, d, h, w]` in 3D) into `labels`, one per pixel. The lowest index
    /// wins a tie. An f32 model takes the reals that the codes stand for.
    pub fn run(&mut self, codes: &[i8], modality: Modality, labels: &mut [u8]) -> Result<(), EdgeError> {
        match self {
            Self::Planned(engine) => engine.run(codes, modality, labels),
            Self::Tract { engine, .. } => engine.run(codes, modality, labels),
        }
    }

    /// The codes of a raw slice, with the engine's own instructions: [`Intake::codes`].
    pub fn codes(&self, intake: &mut Intake, raw: &[i16], codes: &mut [i8]) -> Result<(), IntensityError> {
        match self {
            Self::Planned(engine) => engine.kernels().codes(intake, raw, codes),
            Self::Tract { .. } => intake.codes(raw, codes),
        }
    }

    /// Logits of the last successful run. For tests of bits: takes memory.
    pub fn logits(&mut self) -> Option<Logits<'_>> {
        match self {
            Self::Planned(engine) => engine.logits(),
            Self::Tract { engine, .. } => engine.logits(),
        }
    }

    /// Codes per image.
    pub fn image_len(&self) -> usize {
        match self {
            Self::Planned(engine) => engine.image_len(),
            Self::Tract { engine, .. } => engine.image_len(),
        }
    }

    /// Labels per image.
    pub fn labels_len(&self) -> usize {
        match self {
            Self::Planned(engine) => engine.labels_len(),
            Self::Tract { engine, .. } => engine.labels_len(),
        }
    }

    /// How each layer of the network runs, in the network's order, as found in the plan of the first branch.
    pub fn layers(&self) -> &[LayerRun] {
        match self {
            Self::Planned(engine) => engine.layers(),
            Self::Tract { engine, .. } => engine.layers(),
        }
    }

    /// Convolutions that do not run in int8.
    pub fn float_convolutions(&self) -> impl Iterator<Item = &LayerRun> {
        self.layers().iter().filter(|layer| layer.int8 == Some(false))
    }

    /// Bytes of weights and tables in memory.
    pub fn constants(&self) -> Constants {
        match self {
            Self::Planned(engine) => engine.constants(),
            Self::Tract { engine, .. } => engine.constants(),
        }
    }
}

/// Which engine, with what, and why.
impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Planned(engine) => {
                write!(f, "planned, kernel {}, threads {}", engine.kernels().name(), engine.threads())
            }
            Self::Tract { why, .. } => write!(f, "tract ({why})"),
        }
    }
}

fn expect(what: &'static str, found: usize, expected: usize) -> Result<(), EdgeError> {
    if found == expected { Ok(()) } else { Err(EdgeError::Length { what, found, expected }) }
}

/// Class of the largest logit per pixel of `[classes, pixels]`; the lowest index wins a tie.
fn argmax<T: Copy + PartialOrd>(logits: &[T], labels: &mut [u8]) {
    /// Pixels whose best logit stays in the first cache.
    const BLOCK: usize = 1024;
    let pixels = labels.len();
    let Some(&first) = logits.first() else { return };
    let mut best = [first; BLOCK];
    for (block, labels) in labels.chunks_mut(BLOCK).enumerate() {
        labels.fill(0);
        for (class, plane) in logits.chunks_exact(pixels).enumerate() {
            let values = plane.iter().skip(block * BLOCK);
            for ((label, best), &value) in labels.iter_mut().zip(&mut best).zip(values) {
                if class == 0 || value > *best {
                    (*best, *label) = (value, class as u8);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::argmax;

    #[test]
    fn the_lowest_index_wins_a_tie_in_every_block() {
        let pixels = 2 * 1024 + 7;
        let logits: Vec<i8> = (0..3 * pixels).map(|i| ((i * 31 + i / 977) % 5) as i8 - 2).collect();
        let mut labels = vec![9; pixels];
        argmax(&logits, &mut labels);
        for (pixel, &label) in labels.iter().enumerate() {
            let values: Vec<i8> = (0..3).map(|class| logits[class * pixels + pixel]).collect();
            let largest = values.iter().max().unwrap();
            assert_eq!(usize::from(label), values.iter().position(|value| value == largest).unwrap());
        }
        let mut label = [7];
        argmax(&[f32::NAN, f32::INFINITY], &mut label);
        assert_eq!(label, [0], "a NaN is no reason to leave background");
    }
}
