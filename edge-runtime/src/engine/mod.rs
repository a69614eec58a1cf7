//! Who executes the network. Every engine gives the same bits for an int8 model: the contract's rounding rule, proved at
//! start by the golden digests. An enum and a match, because the choice is made once, at load.

mod int8;
mod tract;

use contract::Modality;

pub use int8::LayerRun;
pub use tract::Constants;

use crate::{EdgeError, Model};

/// A loaded network, ready for slices of every modality it has.
#[derive(Debug)]
pub enum Engine {
    /// tract's own plan: general, allocates in every run.
    Tract(Box<tract::TractEngine>),
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
    /// Plans every branch of a model.
    pub fn new(model: &Model) -> Result<Self, EdgeError> {
        Ok(Self::Tract(Box::new(tract::TractEngine::new(model)?)))
    }

    /// Segments one image of codes `[slices, h, w]` (`[1, d, h, w]` in 3D) into `labels`, one per pixel. The lowest index
    /// wins a tie. An f32 model takes the reals that the codes stand for.
    pub fn run(&mut self, codes: &[i8], modality: Modality, labels: &mut [u8]) -> Result<(), EdgeError> {
        match self {
            Self::Tract(engine) => engine.run(codes, modality, labels),
        }
    }

    /// Logits of the last successful run.
    pub fn logits(&self) -> Option<Logits<'_>> {
        match self {
            Self::Tract(engine) => engine.logits(),
        }
    }

    /// Codes per image.
    pub fn image_len(&self) -> usize {
        match self {
            Self::Tract(engine) => engine.image_len(),
        }
    }

    /// Labels per image.
    pub fn labels_len(&self) -> usize {
        match self {
            Self::Tract(engine) => engine.labels_len(),
        }
    }

    /// How each layer of the network runs, in the network's order, as found in the plan of the first branch.
    pub fn layers(&self) -> &[LayerRun] {
        match self {
            Self::Tract(engine) => engine.layers(),
        }
    }

    /// Convolutions that do not run in int8.
    pub fn float_convolutions(&self) -> impl Iterator<Item = &LayerRun> {
        self.layers().iter().filter(|layer| layer.int8 == Some(false))
    }

    /// Bytes of weights and tables in memory.
    pub fn constants(&self) -> Constants {
        match self {
            Self::Tract(engine) => engine.constants(),
        }
    }
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
