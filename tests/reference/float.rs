//! The network in double precision from a checkpoint's tensors, norms as they were trained.

use contract::{
    Modality, Net,
    names::{self, NormParam},
    net::{Activation, Conv, Deconv, Layer, NORM_EPSILON, Op, Shape},
};

use super::{Values, activate, source};
use crate::checkpoint::Tensors;

/// Logits of one image, `[classes, d, h, w]`.
///
/// # Panics
/// If the network is none, its norms are not batch norms, a tensor is missing or the image has another size.
pub fn logits(net: &Net, tensors: &Tensors, modality: Modality, image: &[f32]) -> Values<f64> {
    let mut values = all(net, tensors, modality, image);
    values.swap_remove(values.len() - 1)
}

/// Every value of the network: the image, then the output of each layer.
///
/// # Panics
/// As [`logits`].
pub fn all(net: &Net, tensors: &Tensors, modality: Modality, image: &[f32]) -> Vec<Values<f64>> {
    let shapes = net.shapes().expect("a network");
    assert!(net.norm.is_batch(), "{:?} norms are not known here", net.norm);
    let mut values = vec![Values::new(net.input, image.iter().map(|&x| f64::from(x)).collect())];
    for (layer, &shape) in net.layers.iter().zip(&shapes[1..]) {
        let inputs: Vec<&Values<f64>> = layer.inputs.iter().map(|&value| &values[value]).collect();
        let output = step(layer, &inputs, shape, tensors, modality);
        assert_eq!(output.shape, shape, "{}", layer.name);
        values.push(output);
    }
    values
}

fn step(layer: &Layer, inputs: &[&Values<f64>], shape: Shape, tensors: &Tensors, modality: Modality) -> Values<f64> {
    let input = inputs[0];
    match &layer.op {
        Op::Conv(conv) => {
            let bias = conv.bias.then(|| tensors.get(&names::bias(&layer.name)));
            let sum = convolve(input, conv, tensors.get(&names::weight(&layer.name)), bias, shape);
            finish(sum, layer, conv.norm, conv.activation, tensors, modality)
        }
        Op::Deconv(deconv) => {
            let sum = deconvolve(input, deconv, tensors.get(&names::weight(&layer.name)), shape);
            finish(sum, layer, deconv.norm, deconv.activation, tensors, modality)
        }
        Op::Norm { activation } => finish(input.clone(), layer, true, *activation, tensors, modality),
        Op::Add { activation } => Values::build(shape, |c, position| {
            activate(inputs[0].at(c, position) + inputs[1].at(c, position), *activation)
        }),
        Op::Concat => Values::concat(inputs),
        Op::MaxPool { size } => input.max_pool(*size),
        Op::Upsample { factor } => input.upsample(*factor),
        Op::Interpolate { factor } => input.interpolate(*factor, |x| x, |x| x),
        Op::PixelShuffle { factor } => input.pixel_shuffle(*factor),
        Op::PadChannels { front, back } => input.pad_channels(*front, *back, 0.),
    }
}

fn convolve(input: &Values<f64>, conv: &Conv, weight: &[f32], bias: Option<&[f32]>, shape: Shape) -> Values<f64> {
    let (pads, [kd, kh, kw]) = (conv.pads(), conv.kernel);
    let group_in = input.shape.channels / conv.groups;
    let group_out = conv.out_channels / conv.groups;
    let from = |axis: usize, position: usize, tap: usize| {
        let coordinate = (position * conv.stride[axis] + tap * conv.dilation[axis]) as isize - pads[axis] as isize;
        source(coordinate, input.shape.size[axis], conv.padding)
    };
    Values::build(shape, |o, [z, y, x]| {
        let mut sum = bias.map_or(0., |bias| f64::from(bias[o]));
        for i in 0..group_in {
            for dz in 0..kd {
                let Some(sz) = from(0, z, dz) else { continue };
                for dy in 0..kh {
                    let Some(sy) = from(1, y, dy) else { continue };
                    for dx in 0..kw {
                        let Some(sx) = from(2, x, dx) else { continue };
                        let tap = weight[(((o * group_in + i) * kd + dz) * kh + dy) * kw + dx];
                        sum += f64::from(tap) * input.at(o / group_out * group_in + i, [sz, sy, sx]);
                    }
                }
            }
        }
        sum
    })
}

/// Each input sample spreads the kernel from `stride * position` on; what would stand behind the output is cut off.
fn deconvolve(input: &Values<f64>, deconv: &Deconv, weight: &[f32], shape: Shape) -> Values<f64> {
    let [kd, kh, kw] = deconv.kernel;
    // The input sample whose tap `tap` lands on an output position.
    let from = |axis: usize, position: usize, tap: usize| {
        let start = position.checked_sub(tap)?;
        let sample = start / deconv.stride[axis];
        (start % deconv.stride[axis] == 0 && sample < input.shape.size[axis]).then_some(sample)
    };
    Values::build(shape, |o, [z, y, x]| {
        let mut sum = 0.;
        for i in 0..input.shape.channels {
            for dz in 0..kd {
                let Some(sz) = from(0, z, dz) else { continue };
                for dy in 0..kh {
                    let Some(sy) = from(1, y, dy) else { continue };
                    for dx in 0..kw {
                        let Some(sx) = from(2, x, dx) else { continue };
                        let tap = weight[(((i * deconv.out_channels + o) * kd + dz) * kh + dy) * kw + dx];
                        sum += f64::from(tap) * input.at(i, [sz, sy, sx]);
                    }
                }
            }
        }
        sum
    })
}

/// Norm and activation.
fn finish(
    mut values: Values<f64>,
    layer: &Layer,
    norm: bool,
    activation: Activation,
    tensors: &Tensors,
    modality: Modality,
) -> Values<f64> {
    let pixels = values.shape.pixels();
    let vectors = norm.then(|| NormParam::ALL.map(|param| tensors.get(&names::norm(&layer.name, modality, param))));
    for (c, channel) in values.data.chunks_exact_mut(pixels).enumerate() {
        for x in channel {
            if let Some(vectors) = &vectors {
                let [gamma, beta, mean, var] = vectors.map(|vector| f64::from(vector[c]));
                *x = gamma * (*x - mean) / (var + f64::from(NORM_EPSILON)).sqrt() + beta;
            }
            *x = activate(*x, activation);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::net::Padding;

    fn row(data: &[f64]) -> Values<f64> {
        Values::new(Shape::plane(1, 1, data.len()), data.to_vec())
    }

    #[test]
    fn convolutions_by_hand() {
        let conv = Conv { kernel: [1, 1, 3], ..Conv::plane(1, 3) };
        let weight = [1., 10., 100.];
        let run = |conv: &Conv, width: usize| {
            convolve(&row(&[1., 2., 3., 4.]), conv, &weight, Some(&[0.5]), Shape::plane(1, 1, width)).data
        };
        assert_eq!(run(&conv, 4), [210.5, 321.5, 432.5, 43.5]);
        assert_eq!(run(&Conv { padding: Padding::Symmetric, ..conv.clone() }, 4), [211.5, 321.5, 432.5, 443.5]);
        assert_eq!(run(&Conv { stride: [1, 1, 2], ..conv.clone() }, 2), [210.5, 432.5]);
        assert_eq!(run(&Conv { dilation: [1, 1, 2], ..conv }, 4), [310.5, 420.5, 31.5, 42.5]);
    }

    #[test]
    fn groups_read_their_own_channels() {
        let input = Values::new(Shape::plane(4, 1, 1), vec![1., 10., 100., 1000.]);
        let conv = Conv { groups: 2, ..Conv::plane(2, 1) };
        assert_eq!(convolve(&input, &conv, &[1., 2., 3., 4.], None, Shape::plane(2, 1, 1)).data, [21., 4300.]);
    }

    #[test]
    fn transposed_convolutions_by_hand() {
        let deconv = |kernel| Deconv {
            out_channels: 1,
            kernel: [1, 1, kernel],
            stride: [1, 1, 2],
            norm: false,
            activation: Activation::None,
        };
        let shape = Shape::plane(1, 1, 4);
        // Kernel 3: the full result is 1, 10, 102, 20, 200; its first four stay. Kernel 1 leaves gaps.
        assert_eq!(deconvolve(&row(&[1., 2.]), &deconv(3), &[1., 10., 100.], shape).data, [1., 10., 102., 20.]);
        assert_eq!(deconvolve(&row(&[1., 2.]), &deconv(1), &[5.], shape).data, [5., 0., 10., 0.]);
    }
}
