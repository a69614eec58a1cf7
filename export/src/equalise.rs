//! Cross-layer equalisation: brings the channels of a value to like ranges before it is quantised, without changing what
//! the network computes (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
//! arXiv 1906.04721, section 4.1).
//!
//! ReLU, leaky ReLU and the identity commute with positive factors: a convolution's channel may be divided by `s` if every
//! weight that reads it is multiplied by `s`. Pools, up-sampling and joins hand the factor on. Whatever else reads a
//! value (a sum, a norm of its own, a shuffle, the user) ends the matter, and the value stays as it is.
//!
//! All channels of a value share one activation scale, so a channel that is small beside the largest has few codes. The paper
//! balances the weight ranges of two layers; here weights have a scale per output channel, so the row that makes a channel
//! costs nothing, and what is balanced is the channel's range against its column in the kernels that read it, where a small
//! weight beside a large one has few codes as well. With `r` the channel's range as a part of its scale group's, and `w` its
//! largest weight as a part of the kernel's, `s = sqrt(r / w)` makes both parts `sqrt(r w)`.
//! A part below one code counts as one: a channel that is all but dead would gain nothing but an outlier's room.
//! Modalities share weights and so share `s`: `r` is the larger of theirs, each measured by its own scale.

use contract::net::{Conv, Op};
use tract_onnx::pb::ModelProto;

use crate::{
    ExportError,
    calibrate::{Sample, each_sample},
    fold::Folded,
    groups::group_values,
};

/// Largest magnitude `[modality of the spec][value][channel]` of the f32 network over the samples, image first.
pub fn peaks(folded: &Folded, float: &ModelProto, samples: &[Sample]) -> Result<Vec<Vec<Vec<f32>>>, ExportError> {
    let branch = |&modality: &_| {
        let mut peaks: Vec<Vec<f32>> = folded.shapes.iter().map(|shape| vec![0.; shape.channels]).collect();
        each_sample(folded, float, modality, samples, |values| {
            for ((peaks, values), shape) in peaks.iter_mut().zip(values).zip(&folded.shapes) {
                for (peak, channel) in peaks.iter_mut().zip(values.chunks_exact(shape.pixels())) {
                    *peak = channel.iter().fold(*peak, |peak, value| peak.max(value.abs()));
                }
            }
        })?;
        Ok(peaks)
    };
    folded.spec.modalities.iter().map(branch).collect()
}

/// The same function with channels of like ranges; `peaks` as [`peaks`] returns them.
pub fn equalise(folded: &Folded, peaks: &[Vec<Vec<f32>>]) -> Folded {
    let mut equal = folded.clone();
    let parts = parts(folded, peaks);
    for (index, layer) in folded.spec.net.layers.iter().enumerate() {
        let Op::Conv(_) = layer.op else { continue };
        let Some(readers) = readers(folded, index + 1, 0) else { continue };
        for (channel, &part) in parts[index + 1].iter().enumerate() {
            let column = readers.iter().map(|reader| reader.part(&equal, channel)).fold(0., f32::max);
            // A dead channel, or one that nobody listens to, has no range to balance.
            if part > 0. && column > 0. {
                let factor = (part.max(1. / 255.) / column.max(1. / 127.)).sqrt();
                divide(&mut equal, index, channel, factor);
                readers.iter().for_each(|reader| reader.multiply(&mut equal, channel, factor));
            }
        }
    }
    equal
}

/// Range of each channel as a part of what its scale group spans, the larger of the modalities': `[value][channel]`.
fn parts(folded: &Folded, peaks: &[Vec<Vec<f32>>]) -> Vec<Vec<f32>> {
    let group_of = group_values(folded);
    let mut parts: Vec<Vec<f32>> = folded.shapes.iter().map(|shape| vec![0.; shape.channels]).collect();
    for branch in peaks {
        let mut spans = vec![0f32; group_of.len()];
        for (peaks, &group) in branch.iter().zip(&group_of) {
            spans[group] = peaks.iter().copied().fold(spans[group], f32::max);
        }
        for ((parts, peaks), &group) in parts.iter_mut().zip(branch).zip(&group_of) {
            for (part, peak) in parts.iter_mut().zip(peaks).filter(|_| spans[group] > 0.) {
                *part = part.max(peak / spans[group]);
            }
        }
    }
    parts
}

/// A convolution that reads a value, whose channel 0 is its input channel `first`.
struct Reader {
    layer: usize,
    first: usize,
}

/// All convolutions that read a value's channels, over pools, up-samplings and joins; `None` where anything else does.
fn readers(folded: &Folded, value: usize, first: usize) -> Option<Vec<Reader>> {
    let layers = &folded.spec.net.layers;
    if value == layers.len() {
        return None;
    }
    let mut found = vec![];
    for (index, layer) in layers.iter().enumerate() {
        let mut channel = first;
        for &input in &layer.inputs {
            if input == value {
                match layer.op {
                    Op::Conv(_) => found.push(Reader { layer: index, first: channel }),
                    Op::MaxPool { .. } | Op::Upsample { .. } | Op::Interpolate { .. } | Op::Concat => {
                        found.extend(readers(folded, index + 1, channel)?);
                    }
                    _ => return None,
                }
            }
            channel += folded.shapes[input].channels;
        }
    }
    Some(found)
}

impl Reader {
    /// Index ranges of the weights that meet a channel, each with that of the whole kernel it stands in.
    fn columns(&self, folded: &Folded, channel: usize) -> Vec<[std::ops::Range<usize>; 2]> {
        let Op::Conv(Conv { groups, .. }) = folded.spec.net.layers[self.layer].op else { unreachable!() };
        let shape = &folded.layers[self.layer].weight_shape;
        let (outputs, inputs, taps) = (shape[0] / groups, shape[1], shape[2..].iter().product::<usize>());
        let channel = self.first + channel;
        let (group, within) = (channel / inputs, channel % inputs);
        let column = |output: usize| {
            let start = output * inputs * taps;
            [start + within * taps..start + (within + 1) * taps, start..start + inputs * taps]
        };
        (group * outputs..(group + 1) * outputs).map(column).collect()
    }

    /// Largest weight that meets a channel, as a part of the largest of its kernel.
    fn part(&self, folded: &Folded, channel: usize) -> f32 {
        let weights = &folded.layers[self.layer].weights;
        let largest = |range: std::ops::Range<usize>| weights[range].iter().fold(0f32, |max, w| max.max(w.abs()));
        let part = |[column, kernel]: [_; 2]| match largest(kernel) {
            0. => 0.,
            whole => largest(column) / whole,
        };
        self.columns(folded, channel).into_iter().map(part).fold(0., f32::max)
    }

    fn multiply(&self, folded: &mut Folded, channel: usize, factor: f32) {
        for [column, _] in self.columns(folded, channel) {
            folded.layers[self.layer].weights[column].iter_mut().for_each(|w| *w *= factor);
        }
    }
}

/// Divides what a convolution makes. Its weights stand before the affine steps of both modalities, so dividing them scales
/// both, and the steps' shifts follow.
fn divide(folded: &mut Folded, index: usize, channel: usize, factor: f32) {
    let layer = &mut folded.layers[index];
    let taps = layer.weights.len() / layer.weight_shape[0];
    layer.weights[channel * taps..][..taps].iter_mut().for_each(|w| *w /= factor);
    layer.affine.iter_mut().for_each(|affine| affine.shift[channel] /= factor);
}
