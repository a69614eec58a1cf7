//! Parameters and multiply-accumulates: what a network costs.

use alloc::vec::Vec;

use super::{Layer, Net, NetError, Op, Shape};

/// What a network costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Weights and biases of convolutions, shared by all modalities.
    pub shared: usize,
    /// Trainable gamma and beta of one modality.
    pub norm_per_modality: usize,
    /// Multiply-accumulates for one input image, padding taps included.
    pub macs: u64,
}

impl Net {
    /// Sums over all layers.
    pub fn counts(&self) -> Result<Counts, NetError> {
        let add = |sum: Counts, layer: Counts| Counts {
            shared: sum.shared + layer.shared,
            norm_per_modality: sum.norm_per_modality + layer.norm_per_modality,
            macs: sum.macs + layer.macs,
        };
        Ok(self.layer_counts()?.into_iter().fold(Counts::default(), add))
    }

    /// One per layer.
    pub fn layer_counts(&self) -> Result<Vec<Counts>, NetError> {
        let shapes = self.shapes()?;
        let count = |(layer, &output): (&Layer, &Shape)| count(layer, shapes[layer.inputs[0]], output);
        Ok(self.layers.iter().zip(&shapes[1..]).map(count).collect())
    }
}

fn count(layer: &Layer, input: Shape, output: Shape) -> Counts {
    let norm_per_modality = if layer.has_norm() { 2 * output.channels } else { 0 };
    let (weights, biases, positions) = match &layer.op {
        Op::Conv(conv) => {
            let taps: usize = conv.kernel.iter().product();
            let biases = if conv.bias { conv.out_channels } else { 0 };
            (conv.out_channels * (input.channels / conv.groups) * taps, biases, output.pixels())
        }
        // Each input position spreads the whole kernel.
        Op::Deconv(deconv) => {
            let taps: usize = deconv.kernel.iter().product();
            (deconv.out_channels * input.channels * taps, 0, input.pixels())
        }
        _ => (0, 0, 0),
    };
    Counts { shared: weights + biases, norm_per_modality, macs: weights as u64 * positions as u64 }
}
