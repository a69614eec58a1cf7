//! The network as data: a list of layers that trainer, exporter, runtime and test oracle each walk with one `match`.
//!
//! A [`Net`] holds no weights. Layer `k` reads earlier values by number (0 is the image, `k` the output of
//! `layers[k - 1]`), so any directed acyclic graph is a list, and the list order is an execution order.

mod count;
mod families;
mod norm;
mod shape;
mod stage;

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

pub use count::Counts;
pub use norm::NormKind;
pub use shape::{NetError, Shape};
pub use stage::Stage;

/// Added to the variance under the root of every norm (the paper's TensorFlow default; PyTorch's is 1e-5).
pub const NORM_EPSILON: f32 = 1e-3;

/// Number of image axes that a network convolves over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spatial {
    /// `[n, c, h, w]`; depth is 1 everywhere and channels of the input are neighbouring slices.
    D2,
    /// `[n, c, d, h, w]`.
    D3,
}

/// A network: what is computed, without weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Net {
    /// Family and size, e.g. `compact-16`.
    pub name: String,
    /// 2D or 3D.
    pub spatial: Spatial,
    /// Of all its norms.
    #[serde(default, skip_serializing_if = "NormKind::is_batch")]
    pub norm: NormKind,
    /// Channels (slices in 2D) and size of the image.
    pub input: Shape,
    /// In execution order; the last one gives the logits, one channel per class.
    pub layers: Vec<Layer>,
}

/// One step of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Unique, and the stem of its tensors' names: `enc2a` owns `enc2a.conv.weight`.
    pub name: String,
    /// Numbers of the values it reads: 0 is the image, `k` the output of `layers[k - 1]`.
    pub inputs: Vec<usize>,
    /// What it does.
    pub op: Op,
}

/// What a layer does. Sizes are `[depth, height, width]`; depth is 1 in 2D.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Convolution, then bias, dropout, norm and activation, each where asked for.
    Conv(Conv),
    /// Transposed convolution that keeps the first `stride * n` samples of each axis, then norm and activation.
    Deconv(Deconv),
    /// A norm that follows no convolution (pre-activation networks), then activation.
    Norm {
        /// Applied after the norm.
        activation: Activation,
    },
    /// Element-wise sum of two values of one shape, then activation.
    Add {
        /// Applied to the sum: the last ReLU of a residual block.
        activation: Activation,
    },
    /// Joins channels in the order of the inputs.
    Concat,
    /// Maximum over blocks of `size`, stride `size`.
    MaxPool {
        /// Block.
        size: [usize; 3],
    },
    /// Nearest-neighbour up-sampling.
    Upsample {
        /// Repeats per axis.
        factor: [usize; 3],
    },
    /// Linear up-sampling along each axis, bilinear in 2D and trilinear in 3D: half-pixel centres, ends repeated (PyTorch's
    /// `align_corners=False`, ONNX `Resize` with `mode=linear` and `half_pixel`).
    Interpolate {
        /// Per axis, 1 to 8, not all 1.
        factor: [usize; 3],
    },
    /// `[c * factor^2, h, w]` to `[c, h * factor, w * factor]`; channel `c * factor^2 + p * factor + q` goes to row `p`, column `q`
    /// of its block (the order of ONNX `DepthToSpace` CRD and of `torch.pixel_shuffle`).
    PixelShuffle {
        /// Up-sampling per axis.
        factor: usize,
    },
    /// Adds channels of zeros (shortcuts of the paper's 2D network).
    PadChannels {
        /// Channels before.
        front: usize,
        /// Channels behind.
        back: usize,
    },
}

/// A convolution and what is fused to it. Weight layout `[out, in / groups, (kd,) kh, kw]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conv {
    /// Channels of the output.
    pub out_channels: usize,
    /// Size of the kernel.
    pub kernel: [usize; 3],
    /// Step between outputs.
    pub stride: [usize; 3],
    /// Step between taps.
    pub dilation: [usize; 3],
    /// Channel groups.
    pub groups: usize,
    /// What stands around the image; the amount is always `dilation * (kernel - 1) / 2` on both sides.
    pub padding: Padding,
    /// A bias per output channel, shared by the modalities.
    pub bias: bool,
    /// Probability that training zeroes an output element (before the norm).
    pub dropout: f32,
    /// A norm per modality.
    pub norm: bool,
    /// Applied last.
    pub activation: Activation,
}

/// A transposed convolution without bias. Weight layout `[in, out, (kd,) kh, kw]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deconv {
    /// Channels of the output.
    pub out_channels: usize,
    /// Size of the kernel.
    pub kernel: [usize; 3],
    /// Up-sampling per axis.
    pub stride: [usize; 3],
    /// A norm per modality.
    pub norm: bool,
    /// Applied last.
    pub activation: Activation,
}

/// What stands around the image of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Padding {
    /// Zeros.
    Zero,
    /// The image mirrored with its edge repeated (`x1 x0 | x0 x1`): TensorFlow's SYMMETRIC.
    Symmetric,
}

/// Element-wise non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Identity.
    None,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, slope * x)`.
    LeakyRelu(f32),
}

impl Activation {
    /// Of one real.
    pub fn apply(self, x: f64) -> f64 {
        match self {
            Self::None => x,
            Self::Relu => x.max(0.),
            Self::LeakyRelu(slope) => x.max(f64::from(slope) * x),
        }
    }
}

impl Conv {
    /// A square convolution of stride 1 with norm and ReLU, zero-padded to keep the size: the usual layer in 2D.
    pub fn plane(out_channels: usize, kernel: usize) -> Self {
        Self {
            out_channels,
            kernel: [1, kernel, kernel],
            stride: [1; 3],
            dilation: [1; 3],
            groups: 1,
            padding: Padding::Zero,
            bias: false,
            dropout: 0.,
            norm: true,
            activation: Activation::Relu,
        }
    }

    /// Padding on both sides of each axis: `dilation * (kernel - 1) / 2`.
    pub fn pads(&self) -> [usize; 3] {
        core::array::from_fn(|axis| self.dilation[axis] * (self.kernel[axis] - 1) / 2)
    }
}

impl Layer {
    /// Whether the layer owns a norm (gamma, beta, mean and variance per modality).
    pub fn has_norm(&self) -> bool {
        match &self.op {
            Op::Conv(conv) => conv.norm,
            Op::Deconv(deconv) => deconv.norm,
            Op::Norm { .. } => true,
            _ => false,
        }
    }
}
