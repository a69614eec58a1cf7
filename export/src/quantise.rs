//! Folded network and observed ranges to int8: weights once for all modalities, scales and biases per modality.
//!
//! The scales of activations are chosen in [`crate::groups`]; here are the weights, and what int8 refuses.

use std::borrow::Cow;

use contract::{
    Modality,
    net::{Activation, Conv, Deconv, Layer, Op, Spatial},
    quant,
};

use crate::{
    ExportError,
    calibrate::Range,
    factors::{agrees, settle_weight},
    fold::{Affine, Folded},
    groups::{self, Group},
    phases::output_first,
};

/// Largest magnitude of weight codes: symmetric, without -128.
const WEIGHT_MAX: f32 = 127.;
/// Largest accumulator: leaves int32 room for the order in which engines add zero-point corrections.
const ACCUMULATOR_LIMIT: f64 = (1i64 << 30) as f64;

/// An int8 network.
pub struct Quantised {
    /// Which scale each value has: index into `groups`; image first.
    pub group_of: Vec<usize>,
    /// Scales.
    pub groups: Vec<Group>,
    /// In step with the layers; `None` where there is no convolution.
    pub convs: Vec<Option<QuantisedConv>>,
    /// `[layer][modality]`, empty where a layer is no norm of its own: its affine step, moved off all ties.
    pub norms: Vec<Vec<Affine>>,
}

/// A convolution in int8.
#[derive(Clone)]
pub struct QuantisedConv {
    /// Codes in [-127, 127], shape as in the checkpoint; of a transposed convolution `[out, in, taps]`.
    pub weights: Vec<i8>,
    /// `[modality][channel]`: weight step times the norm's factor.
    pub scales: Vec<Vec<f32>>,
    /// `[modality][channel]`, in steps of input scale times weight scale.
    pub biases: Vec<Vec<i32>>,
}

impl Quantised {
    /// Quantises; `ranges[modality][value]` as [`crate::calibrate::Observed::ranges`] returns them.
    pub fn new(folded: &Folded, ranges: &[Vec<Range>]) -> Result<Self, ExportError> {
        check_supported(folded)?;
        let (group_of, groups) = groups::plan(folded, ranges)?;
        let conv = |(index, layer): (usize, &Layer)| match &layer.op {
            Op::Conv(_) | Op::Deconv(_) => {
                let (x, y) = (&groups[group_of[layer.inputs[0]]], &groups[group_of[index + 1]]);
                quantise_conv(folded, index, x, y).map(Some)
            }
            _ => Ok(None),
        };
        let convs = folded.spec.net.layers.iter().enumerate().map(conv).collect::<Result<_, _>>()?;
        let norm = |(index, layer): (usize, &Layer)| match &layer.op {
            Op::Norm { activation } => {
                let (x, y) = (&groups[group_of[layer.inputs[0]]], &groups[group_of[index + 1]]);
                settle_norm(folded, index, *activation, x, y)
            }
            _ => Ok(vec![]),
        };
        let norms = folded.spec.net.layers.iter().enumerate().map(norm).collect::<Result<_, _>>()?;
        Ok(Self { group_of, groups, convs, norms })
    }

    /// Scale group of a value.
    pub fn group(&self, value: usize) -> &Group {
        &self.groups[self.group_of[value]]
    }
}

impl QuantisedConv {
    /// Biases of one branch, `[channel]` in accumulator steps, as int32, unless an accumulator could overflow with them.
    /// `scales` are those of the values read and written; those of the branch's weights must stand already.
    pub fn settle_biases(
        &self,
        folded: &Folded,
        index: usize,
        row: usize,
        scales: [f32; 2],
        biases: &[f64],
    ) -> Result<Vec<i32>, ExportError> {
        let taps = self.weights.len() / biases.len();
        let settle = |(channel, bias): (usize, &f64)| {
            let codes = &self.weights[channel * taps..][..taps];
            let reach = 255. * codes.iter().map(|&w| f64::from(w).abs()).sum::<f64>();
            let (step, bias) = (scales[0] * self.scales[row][channel], bias.round_ties_even());
            // Engines add the zero point to the requantised accumulator in int32, so that must fit as well.
            let magnitude = (bias.abs() + reach) * f64::from(step / scales[1]).max(1.);
            if magnitude.is_nan() || magnitude > ACCUMULATOR_LIMIT {
                return Err(ExportError::Overflow {
                    layer: folded.spec.net.layers[index].name.clone(),
                    channel,
                    modality: folded.spec.modalities[row],
                    magnitude,
                    limit: ACCUMULATOR_LIMIT,
                    shift: (bias * f64::from(step)) as f32,
                    step,
                });
            }
            Ok(bias as i32)
        };
        biases.iter().enumerate().map(settle).collect()
    }
}

/// Refuses by name what has no int8 form yet.
fn check_supported(folded: &Folded) -> Result<(), ExportError> {
    let net = &folded.spec.net;
    for layer in &net.layers {
        let (what, reason) = match &layer.op {
            Op::Conv(Conv { activation, .. }) | Op::Deconv(Deconv { activation, .. }) if !is_safe(*activation) => (
                "leaky ReLU",
                "engines may disagree where the slope's products with codes come near ties; 0.2 does not",
            ),
            Op::Conv(Conv { out_channels: 1, .. }) | Op::Deconv(Deconv { out_channels: 1, .. }) => (
                "convolution with one output channel",
                "engines round a single factor in fixed point; use two channels",
            ),
            Op::Add { activation: Activation::LeakyRelu(_) } => {
                ("sum with leaky ReLU", "only ReLU is a saturation; train with ReLU")
            }
            Op::PixelShuffle { .. } if net.spatial == Spatial::D3 => ("pixel shuffle in 3D", "up-sample and convolve"),
            Op::Conv(_) | Op::Deconv(_) | Op::Add { .. } | Op::Norm { .. } => continue,
            Op::MaxPool { .. } | Op::Upsample { .. } | Op::Interpolate { .. } | Op::Concat => continue,
            Op::PixelShuffle { .. } | Op::PadChannels { .. } => continue,
        };
        return Err(ExportError::Unsupported { layer: layer.name.clone(), what, format: "int8", reason });
    }
    Ok(())
}

/// Whether every engine leaks all codes alike. The scale is the same on both sides, so it does not matter.
fn is_safe(activation: Activation) -> bool {
    quant::Table::new((1., 0), quant::Affine::IDENTITY, activation, (1., 0)).is_some()
}

/// The affine steps of a norm that follows no convolution, one per modality; a shift moves by up to a tenth of a code until
/// none of the 256 codes of its channel lies near a tie.
fn settle_norm(
    folded: &Folded,
    index: usize,
    activation: Activation,
    x: &Group,
    y: &Group,
) -> Result<Vec<Affine>, ExportError> {
    let spec = &folded.spec;
    let settle = |(row, &modality): (usize, &Modality)| {
        let Affine { scale, shift } = &folded.layers[index].affine[row];
        let (read, written) = ((x.scales[row], x.zero_point), (y.scales[row], y.zero_point));
        let settle_shift = |(&factor, &shift): (&f32, &f32)| {
            let moved = (0..100).map(|step| shift + step as f32 * 1e-3 * written.0);
            let holds =
                |&shift: &f32| quant::Table::new(read, quant::Affine { factor, shift }, activation, written).is_some();
            let layer = || spec.net.layers[index].name.clone();
            moved.into_iter().find(holds).ok_or_else(|| ExportError::Factor { layer: layer(), modality, factor })
        };
        let shift = scale.iter().zip(shift).map(settle_shift).collect::<Result<_, _>>()?;
        Ok(Affine { scale: scale.clone(), shift })
    };
    spec.modalities.iter().enumerate().map(settle).collect()
}

fn quantise_conv(folded: &Folded, index: usize, x: &Group, y: &Group) -> Result<QuantisedConv, ExportError> {
    let (layer, spec) = (&folded.layers[index], &folded.spec);
    let name = &spec.net.layers[index].name;
    let channels = folded.shapes[index + 1].channels;
    let by_output = match &spec.net.layers[index].op {
        Op::Deconv(_) => Cow::Owned(output_first(&layer.weights, layer.weight_shape[0], channels)),
        _ => Cow::Borrowed(&layer.weights),
    };
    let kernels: Vec<&[f32]> = by_output.chunks_exact(by_output.len() / channels).collect();
    let largest = |kernel: &&[f32]| kernel.iter().fold(0f32, |max, w| max.max(w.abs()));
    // An all-zero kernel needs some step.
    let steps: Vec<f32> = kernels.iter().map(largest).map(|max| if max > 0. { max / WEIGHT_MAX } else { 1. }).collect();
    let code = |(kernel, step): (&&[f32], &f32)| -> Vec<i8> {
        kernel.iter().map(|w| (w / step).round_ties_even().clamp(-WEIGHT_MAX, WEIGHT_MAX) as i8).collect()
    };
    let weights: Vec<i8> = kernels.iter().zip(&steps).flat_map(code).collect();
    let mut conv = QuantisedConv { weights, scales: vec![], biases: vec![] };
    for (row, &modality) in spec.modalities.iter().enumerate() {
        let (x_scale, y_scale) = (x.scales[row], y.scales[row]);
        conv.scales.push(settle_weights(name, modality, &steps, &layer.affine[row], x_scale, y_scale)?);
        let in_steps = |(shift, scale): (&f32, &f32)| f64::from(*shift) / f64::from(x_scale * scale);
        let biases: Vec<f64> = layer.affine[row].shift.iter().zip(&conv.scales[row]).map(in_steps).collect();
        conv.biases.push(conv.settle_biases(folded, index, row, [x_scale, y_scale], &biases)?);
    }
    Ok(conv)
}

/// Weight scales of one branch whose factors agree in every order and are not all equal.
fn settle_weights(
    layer: &str,
    modality: Modality,
    steps: &[f32],
    affine: &Affine,
    x_scale: f32,
    y_scale: f32,
) -> Result<Vec<f32>, ExportError> {
    let factor = |w: f32| (x_scale * w) / y_scale;
    let settle = |w: f32| {
        let settled = settle_weight(x_scale, w, y_scale).filter(|&w| factor(w) > 0. && factor(w).is_finite());
        settled.ok_or_else(|| ExportError::Factor { layer: layer.to_string(), modality, factor: factor(w) })
    };
    let mut scales: Vec<f32> =
        steps.iter().zip(&affine.scale).map(|(step, scale)| settle(step * scale)).collect::<Result<_, _>>()?;
    while scales.iter().all(|&w| factor(w) == factor(scales[0])) {
        scales[0] = settle(scales[0].next_up())?;
    }
    debug_assert!(scales.iter().all(|&w| agrees(x_scale, w, y_scale)));
    Ok(scales)
}
