//! Fresh weights, drawn from a Rust generator: the same for a seed whatever the device, and without touching libtorch's
//! global one. `compact` starts by He et al. 2015 (normal, variance `2 / fan_in`), the paper's networks as in the
//! authors' code (normal with standard deviation 0.01, redrawn beyond two of them except in transposed convolutions).

use contract::{
    Net,
    net::{Layer, Op, Spatial},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use super::{Gamma, Norm, Parts, axes, channels_last, folds};

/// `softplus(UNIT) == 1`: ln(e - 1).
const UNIT: f64 = 0.541_324_854_612_918_1;
/// Standard deviation of the paper's weights.
const PAPER_STD: f64 = 0.01;

/// Draws weights.
pub struct Source {
    random: ChaCha8Rng,
    paper: bool,
}

impl Source {
    pub fn new(net: &Net, seed: u64) -> Self {
        let paper = ["dilated2d", "unet3d"].iter().any(|family| net.name.starts_with(family));
        Self { random: ChaCha8Rng::seed_from_u64(seed), paper }
    }

    /// A standard normal deviate (Box and Muller 1958).
    fn normal(&mut self) -> f64 {
        let radius = (-2. * (1. - self.random.random::<f64>()).ln()).sqrt();
        radius * (core::f64::consts::TAU * self.random.random::<f64>()).cos()
    }

    fn weights(&mut self, shape: &[i64], fan_in: f64, transposed: bool) -> Tensor {
        let count: i64 = shape.iter().product();
        let std = if self.paper { PAPER_STD } else { (2. / fan_in).sqrt() };
        let truncated = self.paper && !transposed;
        let values: Vec<f32> = (0..count)
            .map(|_| {
                let mut deviate = self.normal();
                while truncated && deviate.abs() > 2. {
                    deviate = self.normal();
                }
                (std * deviate) as f32
            })
            .collect();
        Tensor::from_slice(&values).view(shape)
    }
}

/// The tensors of one layer with `sets` norms.
pub fn layer(
    layer: &Layer,
    spatial: Spatial,
    input: usize,
    output: usize,
    sets: usize,
    source: &mut Source,
    device: Device,
) -> Parts {
    let taps = |kernel: [usize; 3]| kernel.iter().product::<usize>() as f64;
    let shape =
        |first: usize, second: usize, kernel| [vec![first as i64, second as i64], axes(spatial, kernel)].concat();
    let mut parts = Parts::default();
    match &layer.op {
        Op::Conv(conv) => {
            let channels = input / conv.groups;
            let shape = shape(output, channels, conv.kernel);
            let weight = source.weights(&shape, channels as f64 * taps(conv.kernel), false);
            parts.weight = Some(variable(&channels_last(&weight), device));
            parts.bias = conv.bias.then(|| constant(output, 0., device).set_requires_grad(true));
        }
        Op::Deconv(deconv) => {
            let weight = source.weights(
                &shape(input, output, deconv.kernel),
                input as f64 * taps(deconv.kernel) / taps(deconv.stride),
                true,
            );
            parts.weight = Some(variable(&channels_last(&weight), device));
        }
        _ => {}
    }
    parts.norms = (0..sets).map(|_| norm(output, folds(layer), device)).collect();
    parts
}

fn norm(channels: usize, positive: bool, device: Device) -> Norm {
    let start = if positive { UNIT } else { 1. };
    let gamma = constant(channels, start, device).set_requires_grad(true);
    Norm {
        gamma: if positive { Gamma::Positive(gamma) } else { Gamma::Plain(gamma) },
        beta: constant(channels, 0., device).set_requires_grad(true),
        mean: constant(channels, 0., device),
        var: constant(channels, 1., device),
    }
}

fn constant(channels: usize, value: f64, device: Device) -> Tensor {
    Tensor::full([channels as i64], value, (Kind::Float, device))
}

fn variable(weights: &Tensor, device: Device) -> Tensor {
    weights.to_device(device).set_requires_grad(true)
}
