//! Parameters and multiply-accumulates: what a network costs.

use super::{Net, NetError, Op};

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
        let shapes = self.shapes()?;
        let mut counts = Counts::default();
        for (layer, output) in self.layers.iter().zip(&shapes[1..]) {
            let input = shapes[layer.inputs[0]];
            if layer.has_norm() {
                counts.norm_per_modality += 2 * output.channels;
            }
            let (weights, positions) = match &layer.op {
                Op::Conv(conv) => {
                    let taps: usize = conv.kernel.iter().product();
                    counts.shared += if conv.bias { conv.out_channels } else { 0 };
                    (conv.out_channels * (input.channels / conv.groups) * taps, output.pixels())
                }
                // Each input position spreads the whole kernel.
                Op::Deconv(deconv) => {
                    let taps: usize = deconv.kernel.iter().product();
                    (deconv.out_channels * input.channels * taps, input.pixels())
                }
                _ => continue,
            };
            counts.shared += weights;
            counts.macs += weights as u64 * positions as u64;
        }
        Ok(counts)
    }
}
