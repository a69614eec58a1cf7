//! Which part of a network a layer belongs to, for trainings that share one part between modalities and not another.
//!
//! Read off the resolutions rather than the names of the layers, so that every network has stages: down, at the bottom, up.

use alloc::vec::Vec;

use super::{Net, NetError, Op};

/// Part of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// All that comes before the lowest resolution.
    Encoder,
    /// At the lowest resolution.
    Middle,
    /// All behind the last value of the lowest resolution, and always the last convolution, which makes the logits.
    Decoder,
}

impl Net {
    /// One per layer, in the order of the layers, never falling back to an earlier stage.
    pub fn stages(&self) -> Result<Vec<Stage>, NetError> {
        let shapes = self.shapes()?;
        let pixels = |value: usize| shapes[value].pixels();
        let lowest = (0..shapes.len()).map(pixels).min().unwrap_or(0);
        let at_bottom = |&layer: &usize| pixels(layer + 1) == lowest;
        let layers = 0..self.layers.len();
        let (first, last) = (layers.clone().find(at_bottom).unwrap_or(0), layers.clone().rfind(at_bottom).unwrap_or(0));
        let has_weights = |&layer: &usize| matches!(self.layers[layer].op, Op::Conv(_) | Op::Deconv(_));
        let head = layers.clone().rfind(has_weights).unwrap_or(usize::MAX);
        let stage = |layer| match layer {
            _ if layer > last || layer >= head => Stage::Decoder,
            _ if layer < first => Stage::Encoder,
            _ => Stage::Middle,
        };
        Ok(layers.map(stage).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    /// First layers of middle and decoder, by name.
    fn borders(net: &Net) -> [String; 2] {
        let stages = net.stages().unwrap();
        assert!(stages.is_sorted() && stages[0] == Stage::Encoder, "{}", net.name);
        [Stage::Middle, Stage::Decoder].map(|stage| {
            let first = stages.iter().position(|&found| found == stage).unwrap();
            net.layers[first].name.clone()
        })
    }

    #[test]
    fn every_family_has_three_stages() {
        let cases = [
            (Net::compact(1, 5, 4, 32, 32), ["pool5", "up4"]),
            (Net::compact_dilated(1, 5, 4, 32, 32), ["pool4", "head"]),
            (Net::compact3d(5, 4, 8, 32, 32), ["pool4", "up3"]),
            (Net::dilated2d(5, 4, 32, 32), ["g3.pool", "g10.shuffle"]),
            (Net::unet3d(5, 4, 8, 32, 32), ["pool4", "deconv3"]),
            (Net::unet3d_hollow(5, 4, 8, 32, 32), ["pool4", "deconv3"]),
        ];
        for (net, expected) in cases {
            assert_eq!(borders(&net), expected, "{}", net.name);
        }
    }

    /// All that a network without pools has is a middle and its head.
    #[test]
    fn a_network_of_one_resolution_has_no_encoder() {
        let mut net = Net::compact(1, 5, 4, 32, 32);
        net.layers.truncate(2);
        assert_eq!(net.stages().unwrap(), [Stage::Middle, Stage::Decoder]);
    }
}
