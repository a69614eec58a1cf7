//! Bias correction: int8 convolutions whose outputs have, on average, the mean that f32 has.
//!
//! Rounded weights and clipped, rounded inputs shift the mean of a convolution's output, and the shift goes on into all
//! layers behind. Biases are int32 in accumulator steps, so they can take it back at no cost (Nagel et al. 2019,
//! "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721, section 4.2).

use contract::{
    Modality,
    net::{Activation, Op},
};
use tract_onnx::pb::ModelProto;

use crate::{
    ExportError,
    branch::value_name,
    calibrate::Sample,
    engine::{Runner, reals},
    fold::Folded,
    int8::{self, Format},
    quantise::{Quantised, QuantisedConv},
    samples::thin,
};

/// Slices per modality that means are taken over; each layer runs both networks up to itself on them.
const SLICES: usize = 8;

/// Moves the biases of every convolution, in network order, each on what the layers before it, corrected already, really
/// give. `float` is the f32 file of the network that was quantised.
///
/// # Errors
/// Where an accumulator could overflow with the new bias.
pub fn correct(
    folded: &Folded,
    float: &ModelProto,
    quantised: &mut Quantised,
    samples: &[Sample],
) -> Result<(), ExportError> {
    let spec = &folded.spec;
    let thinned: Vec<Vec<Sample>> = spec.modalities.iter().map(|&modality| thin(samples, modality, SLICES)).collect();
    for (index, layer) in spec.net.layers.iter().enumerate() {
        let (Op::Conv(conv), Some(codes)) = (&layer.op, &quantised.convs[index]) else { continue };
        let files = [float, &int8::write(folded, quantised, Format::Qoperator, &[])];
        let (x, y) = (quantised.group(layer.inputs[0]), quantised.group(index + 1));
        let mut biases = vec![];
        for (row, samples) in thinned.iter().enumerate() {
            let (x, y) = ((x.scales[row], x.zero_point), (y.scales[row], y.zero_point));
            let missing = missing(folded, files, index, conv.activation, y, samples)?;
            let old = codes.biases[row].iter().zip(&codes.scales[row]);
            let new = old.zip(missing).map(|((&bias, scale), real)| f64::from(bias) + real / f64::from(x.0 * scale));
            biases.push(codes.settle_biases(folded, index, row, [x.0, y.0], &new.collect::<Vec<f64>>())?);
        }
        quantised.convs[index] = Some(QuantisedConv { biases, ..codes.clone() });
    }
    Ok(())
}

/// What each channel of a convolution lacks in front of its activation, in reals, so that its mean output is that of f32:
/// the summed difference of the outputs, over how much that sum grows with the bias. Outputs that ReLU has cut off in both
/// networks do not grow with it, and those behind a leak by the slope.
fn missing(
    folded: &Folded,
    files: [&ModelProto; 2],
    index: usize,
    activation: Activation,
    (scale, zero_point): (f32, i8),
    samples: &[Sample],
) -> Result<Vec<f64>, ExportError> {
    let spec = &folded.spec;
    let shape = folded.shapes[index + 1];
    let mut sums = vec![(0., 0.); shape.channels];
    let Some(modality) = samples.first().map(|sample: &Sample| -> Modality { sample.modality }) else {
        return Ok(vec![0.; shape.channels]);
    };
    let names = [value_name(spec, index + 1)];
    let (float, int8) = (Runner::new(files[0], modality, &names)?, Runner::new(files[1], modality, &names)?);
    let slope = match activation {
        Activation::None => 1.,
        Activation::Relu => 0.,
        Activation::LeakyRelu(slope) => f64::from(slope),
    };
    for sample in samples {
        let wanted = float.run_f32(&reals(&sample.codes, spec.intensity.scale))?.remove(0);
        let found = int8.run_i8(&sample.codes)?.remove(0);
        for (at, (&real, &code)) in wanted.iter().zip(&found).enumerate() {
            let (difference, growth) = &mut sums[at / shape.pixels()];
            *difference += f64::from(real - contract::quant::dequantise(code, scale, zero_point));
            *growth += if real > 0. || code > zero_point { 1. } else { slope };
        }
    }
    Ok(sums.into_iter().map(|(difference, growth)| if growth > 0. { difference / growth } else { 0. }).collect())
}
