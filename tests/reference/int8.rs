//! The network on int8 codes, from the constants of a model file: i32 sums and the contract's one rounding rule.
//!
//! Only the constants come from the file. What is computed comes from the manifest's network, so a wrong stride or a
//! missing layer in the file's graph shows as a difference.

use std::fmt;

use contract::{
    Modality, Net, names,
    net::{Activation, Conv, Deconv, Layer, Op, Shape},
    quant::{Affine, Multiplier, Sum, Table, requantise},
};

use super::{Values, source};
use crate::model_file::{ModelFile, Tensor};

/// Codes and the reals they stand for.
#[derive(Clone, Debug, PartialEq)]
pub struct Codes {
    /// The codes.
    pub values: Values<i8>,
    /// The real that one step stands for.
    pub scale: f32,
    /// The code of real 0.
    pub zero_point: i8,
}

/// A layer that the file does not hold in the form that this reference understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    layer: String,
    reason: String,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layer '{}': {}", self.layer, self.reason)
    }
}

impl std::error::Error for Misfit {}

/// What one `QLinearConv` of the file holds for one modality.
struct Constants {
    x: (f32, i8),
    weight: Vec<i8>,
    weight_scale: Vec<f32>,
    y: (f32, i8),
    bias: Vec<i32>,
}

/// Logit codes of one image, `[classes, d, h, w]`.
pub fn logits(file: &ModelFile, modality: Modality, image: &[i8]) -> Result<Codes, Misfit> {
    let mut values = all(file, modality, image)?;
    Ok(values.swap_remove(values.len() - 1))
}

/// Every value of the network: the image, then the output of each layer.
pub fn all(file: &ModelFile, modality: Modality, image: &[i8]) -> Result<Vec<Codes>, Misfit> {
    let spec = file.manifest().spec;
    let net: &Net = &spec.net;
    let shapes = net.shapes().map_err(|error| Misfit { layer: net.name.clone(), reason: error.to_string() })?;
    let image = Values::new(net.input, image.to_vec());
    let mut values = vec![Codes { values: image, scale: spec.intensity.scale, zero_point: 0 }];
    for (index, (layer, &shape)) in net.layers.iter().zip(&shapes[1..]).enumerate() {
        let inputs: Vec<&Codes> = layer.inputs.iter().map(|&value| &values[value]).collect();
        // The last layer's output bears the graph output's name.
        let output = if index + 1 == net.layers.len() { names::LOGITS } else { &layer.name };
        let codes = step(file, layer, output, &inputs, shape, modality)
            .map_err(|reason| Misfit { layer: layer.name.clone(), reason })?;
        values.push(codes);
    }
    Ok(values)
}

fn step(
    file: &ModelFile,
    layer: &Layer,
    output: &str,
    inputs: &[&Codes],
    shape: Shape,
    modality: Modality,
) -> Result<Codes, String> {
    let input = inputs[0];
    let moved = |values: Values<i8>| Codes { values, scale: input.scale, zero_point: input.zero_point };
    match &layer.op {
        Op::Conv(conv) => {
            let (made, leak) = match conv.activation {
                Activation::LeakyRelu(_) => Leak::read(file, output, modality).map(|leak| (leak.codes, Some(leak)))?,
                _ => (output, None),
            };
            let constants = constants(file, made, modality)?;
            same_scale(constants.x, input)?;
            let codes = convolve(&input.values, conv, &constants, shape)?;
            match leak {
                Some(leak) => leak.apply(&codes, conv.activation),
                None => Ok(codes),
            }
        }
        Op::MaxPool { size } => Ok(moved(input.values.max_pool(*size))),
        Op::Upsample { factor } => Ok(moved(input.values.upsample(*factor))),
        Op::Interpolate { factor } => interpolate(file, output, input, *factor, modality),
        Op::PixelShuffle { factor } => Ok(moved(input.values.pixel_shuffle(*factor))),
        Op::PadChannels { front, back } => Ok(moved(input.values.pad_channels(*front, *back, input.zero_point))),
        Op::Concat => {
            if inputs.iter().any(|other| (other.scale, other.zero_point) != (input.scale, input.zero_point)) {
                return Err("joins values of different scales".into());
            }
            Ok(moved(Values::concat(&inputs.iter().map(|codes| &codes.values).collect::<Vec<_>>())))
        }
        Op::Add { activation: Activation::LeakyRelu(_) } => Err("has no int8 form yet".into()),
        Op::Add { activation } => add(file, output, [inputs[0], inputs[1]], *activation, modality),
        Op::Norm { activation } => norm(file, output, input, *activation, modality),
        Op::Deconv(deconv) => {
            let (made, leak) = match deconv.activation {
                Activation::LeakyRelu(_) => Leak::read(file, output, modality).map(|leak| (leak.codes, Some(leak)))?,
                _ => (output, None),
            };
            // The phases, and how they come to their places.
            let [turned, _] = operands(file, made, "Reshape")?;
            let [split] = operands(file, turned, "Transpose")?;
            let [phases, _] = operands(file, split, "Reshape")?;
            let constants = constants(file, phases, modality)?;
            same_scale(constants.x, input)?;
            let codes = deconvolve(&input.values, deconv, &constants, shape)?;
            match leak {
                Some(leak) => leak.apply(&codes, deconv.activation),
                None => Ok(codes),
            }
        }
    }
}

/// What the file spells as `DequantizeLinear`, `LeakyRelu` and `QuantizeLinear` behind a convolution.
struct Leak<'f> {
    /// The value that the convolution makes.
    codes: &'f str,
    read: (f32, i8),
    written: (f32, i8),
}

impl<'f> Leak<'f> {
    fn read(file: &'f ModelFile, output: &str, modality: Modality) -> Result<Self, String> {
        let (leaked, written) = input_and_scale(file, output, "QuantizeLinear", modality)?;
        let [real] = operands(file, leaked, "LeakyRelu")?;
        let (codes, read) = input_and_scale(file, real, "DequantizeLinear", modality)?;
        Ok(Self { codes, read, written })
    }

    fn apply(&self, input: &Codes, activation: Activation) -> Result<Codes, String> {
        same_scale(self.read, input)?;
        let table = Table::new(self.read, Affine::IDENTITY, activation, self.written).ok_or("codes near a tie")?;
        let data = input.values.data.iter().map(|&code| table.code(code)).collect();
        let (scale, zero_point) = self.written;
        Ok(Codes { values: Values::new(input.values.shape, data), scale, zero_point })
    }
}

/// What the file spells as `DequantizeLinear`, `Mul`, `Add`, perhaps `LeakyRelu`, and `QuantizeLinear`.
fn norm(
    file: &ModelFile,
    output: &str,
    input: &Codes,
    activation: Activation,
    modality: Modality,
) -> Result<Codes, String> {
    let (mut real, written) = input_and_scale(file, output, "QuantizeLinear", modality)?;
    if let Activation::LeakyRelu(_) = activation {
        [real] = operands(file, real, "LeakyRelu")?;
    }
    let [scaled, shift] = operands(file, real, "Add")?;
    let [real, factor] = operands(file, scaled, "Mul")?;
    let (_, read) = input_and_scale(file, real, "DequantizeLinear", modality)?;
    same_scale(read, input)?;
    let vector = |name: &str| constant(file, name, modality).map(|tensor| tensor.f32s());
    let (factors, shifts) = (vector(factor)?, vector(shift)?);
    let mut data = vec![];
    for (channel, codes) in input.values.data.chunks_exact(input.values.shape.pixels()).enumerate() {
        let affine = Affine { factor: factors[channel], shift: shifts[channel] };
        let table = Table::new(read, affine, activation, written);
        let table = table.ok_or_else(|| format!("codes of channel {channel} near a tie"))?;
        data.extend(codes.iter().map(|&code| table.code(code)));
    }
    Ok(Codes { values: Values::new(input.values.shape, data), scale: written.0, zero_point: written.1 })
}

/// What the file spells as `DequantizeLinear`, `Resize` and `QuantizeLinear`: in double precision, away from all ties.
fn interpolate(
    file: &ModelFile,
    output: &str,
    input: &Codes,
    factor: [usize; 3],
    modality: Modality,
) -> Result<Codes, String> {
    let (real, (scale, zero_point)) = input_and_scale(file, output, "QuantizeLinear", modality)?;
    let [codes, _, factors] = operands(file, real, "Resize")?;
    let found = constant(file, factors, modality)?.f32s();
    let rest = factor.iter().skip(5 - found.len());
    let expected: Vec<f32> = [1, 1].iter().chain(rest).map(|&factor| factor as f32).collect();
    if found != expected {
        return Err(format!("has factors {found:?}, expected {expected:?}"));
    }
    let (_, read) = input_and_scale(file, codes, "DequantizeLinear", modality)?;
    same_scale(read, input)?;
    // Weights are multiples of 1 / d; with a scale (d + 1) / d times the input's, no sum is near a tie.
    let d: f64 = factor.iter().map(|&factor| if factor == 1 { 1. } else { 2. * factor as f64 }).product();
    if (f64::from(scale) / f64::from(input.scale) * d / (d + 1.) - 1.).abs() > 1e-4 {
        return Err(format!("codes of {scale:e} from {:e}, expected {} / {d} times as much", input.scale, d + 1.));
    }
    let code = |sum: f64| ((sum * d / (d + 1.)).round() + f64::from(zero_point)) as i8;
    let values = input.values.interpolate(factor, |code| f64::from(code) - f64::from(input.zero_point), code);
    Ok(Codes { values, scale, zero_point })
}

/// What the node of this operation reads.
fn operands<'f, const N: usize>(file: &'f ModelFile, output: &str, op: &str) -> Result<[&'f str; N], String> {
    let node = file.maker(output).filter(|node| node.op == op);
    let inputs: Vec<&str> = node.map(|node| node.inputs.iter().map(String::as_str).collect()).unwrap_or_default();
    inputs.try_into().map_err(|_| format!("'{output}' is no {op} of {N} values"))
}

/// What the file spells as `DequantizeLinear` twice, `Add` and `QuantizeLinear`.
fn add(
    file: &ModelFile,
    output: &str,
    inputs: [&Codes; 2],
    activation: Activation,
    modality: Modality,
) -> Result<Codes, String> {
    let (real, (scale, zero_point)) = input_and_scale(file, output, "QuantizeLinear", modality)?;
    for (summand, input) in operands::<2>(file, real, "Add")?.into_iter().zip(inputs) {
        let (_, read) = input_and_scale(file, summand, "DequantizeLinear", modality)?;
        same_scale(read, input)?;
    }
    let [a, b] = inputs;
    let rule = Sum::new(a.scale, b.scale, scale).ok_or_else(|| {
        format!("engines may disagree about the sum of codes of {:e} and {:e} in codes of {scale:e}", a.scale, b.scale)
    })?;
    let floor = floor(activation, zero_point);
    let above_zero = |codes: &Codes, index: usize| i32::from(codes.values.data[index]) - i32::from(codes.zero_point);
    let code = |index| rule.code(above_zero(a, index), above_zero(b, index), zero_point).max(floor);
    let data = (0..a.values.data.len()).map(code).collect();
    Ok(Codes { values: Values::new(a.values.shape, data), scale, zero_point })
}

/// A real floor of 0 is the code of 0. A leak has none, and is a table's work.
fn floor(activation: Activation, zero_point: i8) -> i8 {
    match activation {
        Activation::None | Activation::LeakyRelu(_) => i8::MIN,
        Activation::Relu => zero_point,
    }
}

fn same_scale(read: (f32, i8), made: &Codes) -> Result<(), String> {
    let made = (made.scale, made.zero_point);
    if read == made { Ok(()) } else { Err(format!("reads codes of {read:?} but they were made with {made:?}")) }
}

/// Input of the `DequantizeLinear` or `QuantizeLinear` that makes a value, with scale and zero point.
fn input_and_scale<'f>(
    file: &'f ModelFile,
    output: &str,
    op: &str,
    modality: Modality,
) -> Result<(&'f str, (f32, i8)), String> {
    let node = file.maker(output).ok_or_else(|| format!("the file makes no value '{output}'"))?;
    match &node.inputs[..] {
        [input, scale, zero] if node.op == op => {
            let scale = one(&constant(file, scale, modality)?.f32s())?;
            Ok((input, (scale, one(&constant(file, zero, modality)?.i8s())?)))
        }
        inputs => Err(format!("expected a {op} of 3 inputs, the file has {} of {}", node.op, inputs.len())),
    }
}

/// Inputs of `QLinearConv` by position: x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, B.
fn constants(file: &ModelFile, output: &str, modality: Modality) -> Result<Constants, String> {
    let node = file.maker(output).ok_or_else(|| format!("the file makes no value '{output}'"))?;
    if node.op != "QLinearConv" || node.inputs.len() != 9 {
        return Err(format!("expected a QLinearConv of 9 inputs, the file has {} of {}", node.op, node.inputs.len()));
    }
    let tensor = |input: usize| constant(file, &node.inputs[input], modality);
    let number = |input: usize| -> Result<f32, String> { one(&tensor(input)?.f32s()) };
    let code = |input: usize| -> Result<i8, String> { one(&tensor(input)?.i8s()) };
    if tensor(5)?.i8s().iter().any(|&zero| zero != 0) {
        return Err("weights must be symmetric".into());
    }
    Ok(Constants {
        x: (number(1)?, code(2)?),
        weight: tensor(3)?.i8s(),
        weight_scale: tensor(4)?.f32s(),
        y: (number(6)?, code(7)?),
        bias: tensor(8)?.i32s(),
    })
}

/// A constant, or the modality's row of a table.
fn constant(file: &ModelFile, value: &str, modality: Modality) -> Result<Tensor, String> {
    if let Some(tensor) = file.tensors.get(value) {
        return Ok(tensor.clone());
    }
    match file.maker(value) {
        Some(node) if node.op == "Gather" && node.inputs[1] == names::MODALITY => {
            let table = file.tensors.get(&node.inputs[0]).ok_or_else(|| format!("'{value}' gathers no constant"))?;
            Ok(table.row(modality.index()))
        }
        _ => Err(format!("'{value}' is neither a constant nor a row of a table")),
    }
}

fn one<T: Copy>(values: &[T]) -> Result<T, String> {
    match values {
        [value] => Ok(*value),
        _ => Err(format!("expected one value, got {}", values.len())),
    }
}

fn convolve(input: &Values<i8>, conv: &Conv, constants: &Constants, shape: Shape) -> Result<Codes, String> {
    let (x_zero, (y_scale, y_zero)) = (i32::from(constants.x.1), constants.y);
    let mut multipliers = vec![];
    for channel in 0..conv.out_channels {
        // One scale may stand for all channels.
        let weight_scale = constants.weight_scale[channel.min(constants.weight_scale.len() - 1)];
        let multiplier = Multiplier::new(constants.x.0, weight_scale, y_scale);
        multipliers.push(multiplier.ok_or_else(|| format!("channel {channel} has no positive multiplier"))?);
    }
    let floor = floor(conv.activation, y_zero);
    let values = Values::build(shape, |o, position| {
        let sum = constants.bias[o] + taps(input, conv, &constants.weight, x_zero, o, position);
        requantise(sum, multipliers[o], y_zero).max(floor)
    });
    Ok(Codes { values, scale: y_scale, zero_point: y_zero })
}

/// A transposed convolution by its definition: output `position` is met by the taps `k` for which `position - k` is a multiple
/// of the stride. The file has the weights in phases: channel `o * phases + phase` of an ordinary convolution, whose last tap
/// along an axis reads the input beside the output.
fn deconvolve(input: &Values<i8>, deconv: &Deconv, constants: &Constants, shape: Shape) -> Result<Codes, String> {
    let (x_zero, (y_scale, y_zero), stride) = (i32::from(constants.x.1), constants.y, deconv.stride);
    let phases = stride.iter().product::<usize>();
    let kernel: [usize; 3] = std::array::from_fn(|axis| deconv.kernel[axis].div_ceil(stride[axis]));
    let expected = deconv.out_channels * phases * input.shape.channels * kernel.iter().product::<usize>();
    if constants.weight.len() != expected {
        return Err(format!("has {} weights, expected {expected}", constants.weight.len()));
    }
    let mut multipliers = vec![];
    for channel in 0..deconv.out_channels * phases {
        let multiplier = Multiplier::new(constants.x.0, constants.weight_scale[channel], y_scale);
        multipliers.push(multiplier.ok_or_else(|| format!("channel {channel} has no positive multiplier"))?);
    }
    let floor = floor(deconv.activation, y_zero);
    let values = Values::build(shape, |o, position| {
        let phase = (0..3).fold(0, |phase, axis| phase * stride[axis] + position[axis] % stride[axis]);
        let channel = o * phases + phase;
        let mut sum = constants.bias[channel];
        for tap in 0..deconv.kernel.iter().product() {
            let [_, kh, kw] = deconv.kernel;
            let tap = [tap / (kh * kw), tap / kw % kh, tap % kw];
            if (0..3).any(|axis| position[axis] < tap[axis] || (position[axis] - tap[axis]) % stride[axis] != 0) {
                continue;
            }
            let from: [usize; 3] = std::array::from_fn(|axis| (position[axis] - tap[axis]) / stride[axis]);
            let back = |axis: usize| kernel[axis] - 1 - tap[axis] / stride[axis];
            for i in 0..input.shape.channels {
                let row = (channel * input.shape.channels + i) * kernel[0] + back(0);
                let weight = constants.weight[(row * kernel[1] + back(1)) * kernel[2] + back(2)];
                sum += i32::from(weight) * (i32::from(input.at(i, from)) - x_zero);
            }
        }
        requantise(sum, multipliers[channel], y_zero).max(floor)
    });
    Ok(Codes { values, scale: y_scale, zero_point: y_zero })
}

/// Sum of weight times code above zero, over the taps of one output.
fn taps(input: &Values<i8>, conv: &Conv, weight: &[i8], zero: i32, o: usize, [z, y, x]: [usize; 3]) -> i32 {
    let (pads, [kd, kh, kw]) = (conv.pads(), conv.kernel);
    let group_in = input.shape.channels / conv.groups;
    let first = o / (conv.out_channels / conv.groups) * group_in;
    let from = |axis: usize, position: usize, tap: usize| {
        let coordinate = (position * conv.stride[axis] + tap * conv.dilation[axis]) as isize - pads[axis] as isize;
        source(coordinate, input.shape.size[axis], conv.padding)
    };
    let mut sum = 0;
    for i in 0..group_in {
        for dz in 0..kd {
            let Some(sz) = from(0, z, dz) else { continue };
            for dy in 0..kh {
                let Some(sy) = from(1, y, dy) else { continue };
                for dx in 0..kw {
                    let Some(sx) = from(2, x, dx) else { continue };
                    let tap = weight[(((o * group_in + i) * kd + dz) * kh + dy) * kw + dx];
                    sum += i32::from(tap) * (i32::from(input.at(first + i, [sz, sy, sx])) - zero);
                }
            }
        }
    }
    sum
}
