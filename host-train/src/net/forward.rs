//! The walk through the layers: one match over [`Op`].
//!
//! Shapes were checked by the contract when the network was made, so the plain calls of `tch` are used, which panic
//! only where libtorch itself fails (out of memory).

use contract::{
    Modality,
    net::{Activation, Conv, Deconv, NORM_EPSILON, NormKind, Op, Padding, Spatial},
};
use tch::Tensor;

use super::{Network, Norm, Parts, axes, channels_last};

impl Network {
    /// Logits `[n, classes, (d,) h, w]` of reals `[n, c, (d,) h, w]`. In training, norms use the batch's own statistics
    /// and move the modality's running ones; dropout is on.
    ///
    /// # Panics
    /// If the network does not know the modality or the image has another size than the network.
    pub fn forward(&self, image: &Tensor, modality: Modality, train: bool) -> Tensor {
        let input = self.shapes[0];
        let expected = [vec![input.channels as i64], axes(self.net.spatial, input.size)].concat();
        assert_eq!(image.size()[1..], expected, "channels and size of the image");
        let set = self.set(modality);
        let mut values = vec![channels_last(image)];
        for (index, layer) in self.net.layers.iter().enumerate() {
            let parts = &self.parts[index];
            let inputs: Vec<&Tensor> = layer.inputs.iter().map(|&value| &values[value]).collect();
            let x = inputs[0];
            let norm = Applied { norm: parts.norms.get(set), kind: self.net.norm, momentum: self.momentum, train };
            let spatial = self.net.spatial;
            let value = match &layer.op {
                Op::Conv(conv) => {
                    let x = convolve(x, conv, parts, spatial);
                    let x = if conv.dropout > 0. { x.dropout(f64::from(conv.dropout), train) } else { x };
                    activate(norm.apply(x), conv.activation)
                }
                Op::Deconv(deconv) => {
                    let size = axes(spatial, self.shapes[index + 1].size);
                    activate(norm.apply(spread(x, deconv, parts, spatial, &size)), deconv.activation)
                }
                Op::Norm { activation } => activate(norm.apply(x.shallow_clone()), *activation),
                Op::Add { activation } => activate(x + inputs[1], *activation),
                Op::Concat => Tensor::cat(&inputs, 1),
                Op::MaxPool { size } => pool(x, &axes(spatial, *size)),
                Op::Upsample { .. } => upsample(x, &axes(spatial, self.shapes[index + 1].size)),
                Op::Interpolate { .. } => interpolate(x, &axes(spatial, self.shapes[index + 1].size)),
                Op::PixelShuffle { factor } => shuffle(x, *factor as i64),
                Op::PadChannels { front, back } => pad_channels(x, *front as i64, *back as i64),
            };
            values.push(value);
        }
        values.swap_remove(self.net.layers.len())
    }
}

fn convolve(x: &Tensor, conv: &Conv, parts: &Parts, spatial: Spatial) -> Tensor {
    let mut pads = axes(spatial, conv.pads());
    let padded = match conv.padding {
        Padding::Zero => x.shallow_clone(),
        Padding::Symmetric => {
            let padded = symmetric(x, &pads);
            pads.fill(0);
            padded
        }
    };
    let weight = parts.weight.as_ref().expect("a convolution has weights");
    let none = vec![0; pads.len()];
    padded.convolution(
        weight,
        parts.bias.as_ref(),
        axes(spatial, conv.stride),
        pads,
        axes(spatial, conv.dilation),
        false,
        none,
        conv.groups as i64,
    )
}

/// The image mirrored on both sides of each axis with its edge repeated; no padding mode of libtorch does it.
fn symmetric(x: &Tensor, pads: &[i64]) -> Tensor {
    let mut x = x.shallow_clone();
    for (axis, &pad) in (2..).zip(pads).filter(|&(_, &pad)| pad > 0) {
        let length = x.size()[axis as usize];
        let (first, last) = (x.narrow(axis, 0, pad).flip([axis]), x.narrow(axis, length - pad, pad).flip([axis]));
        x = Tensor::cat(&[first, x, last], axis);
    }
    x
}

/// Transposed convolution without padding, cropped to its first `size` samples (TensorFlow's SAME).
fn spread(x: &Tensor, deconv: &Deconv, parts: &Parts, spatial: Spatial, size: &[i64]) -> Tensor {
    let (kernel, stride) = (axes(spatial, deconv.kernel), axes(spatial, deconv.stride));
    // A kernel shorter than the stride leaves the last samples without a tap; they are zeros that must be asked for.
    let missing: Vec<i64> = kernel.iter().zip(&stride).map(|(k, s)| (s - k).max(0)).collect();
    let weight = parts.weight.as_ref().expect("a transposed convolution has weights");
    let (none, one) = (vec![0; size.len()], vec![1; size.len()]);
    let mut y = x.convolution(weight, None::<&Tensor>, stride, none, one, true, missing, 1);
    for (axis, &length) in (2..).zip(size) {
        y = y.narrow(axis, 0, length);
    }
    y
}

/// A layer's norm, if it has one, and how it is used.
struct Applied<'a> {
    norm: Option<&'a Norm>,
    kind: NormKind,
    momentum: f64,
    train: bool,
}

impl Applied<'_> {
    fn apply(&self, x: Tensor) -> Tensor {
        let Some(Norm { gamma, beta, mean, var }) = self.norm else { return x };
        let (gamma, epsilon) = (gamma.value(), f64::from(NORM_EPSILON));
        match self.kind.groups(x.size()[1] as usize) {
            None => {
                let [gamma, beta, mean, var] = [&gamma, beta, mean, var].map(Some);
                x.batch_norm(gamma, beta, mean, var, self.train, self.momentum, epsilon, true)
            }
            Some(groups) => x.group_norm(groups as i64, Some(&gamma), Some(beta), epsilon, true),
        }
    }
}

/// Of a value that nobody else reads, so that ReLU may work in place.
fn activate(mut x: Tensor, activation: Activation) -> Tensor {
    match activation {
        Activation::None => x,
        Activation::Relu => x.relu_(),
        // One pass each way, as libtorch's own leaky ReLU, whose slope `tch` does not pass on.
        Activation::LeakyRelu(slope) => x.prelu(&Tensor::full([1], f64::from(slope), (x.kind(), x.device()))),
    }
}

fn pool(x: &Tensor, size: &[i64]) -> Tensor {
    let (none, one) = (vec![0; size.len()], vec![1; size.len()]);
    match size.len() {
        2 => x.max_pool2d(size, size, none, one, false),
        _ => x.max_pool3d(size, size, none, one, false),
    }
}

fn upsample(x: &Tensor, size: &[i64]) -> Tensor {
    match size.len() {
        2 => x.upsample_nearest2d(size, None, None),
        _ => x.upsample_nearest3d(size, None, None, None),
    }
}

/// Linear, half-pixel centres.
fn interpolate(x: &Tensor, size: &[i64]) -> Tensor {
    match size.len() {
        2 => x.upsample_bilinear2d(size, false, None, None),
        _ => x.upsample_trilinear3d(size, false, None, None, None),
    }
}

fn shuffle(x: &Tensor, factor: i64) -> Tensor {
    match x.size()[..] {
        // Slice by slice: depth goes to the batch and returns.
        [n, _, depth, ..] if x.dim() == 5 => {
            let planes = x.permute([0, 2, 1, 3, 4]).flatten(0, 1).pixel_shuffle(factor);
            planes.unflatten(0, [n, depth]).permute([0, 2, 1, 3, 4])
        }
        _ => x.pixel_shuffle(factor),
    }
}

fn pad_channels(x: &Tensor, front: i64, back: i64) -> Tensor {
    // Innermost axis first, two numbers each, up to the channels.
    let mut pads = vec![0; 2 * (x.dim() - 2)];
    pads.extend([front, back]);
    x.constant_pad_nd(pads)
}
