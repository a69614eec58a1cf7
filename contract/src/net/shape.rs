//! Shapes, and the checks that make a [`Net`] safe to walk: after [`Net::shapes`] succeeds, every input number,
//! channel count and kernel of the network is known to fit.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};

use serde::{Deserialize, Serialize};

use super::{Layer, Net, Op, Spatial};
use crate::interpolate::MAX_FACTOR;

/// Channels and `[depth, height, width]` of one value; depth is 1 in 2D.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Channels.
    pub channels: usize,
    /// `[depth, height, width]`.
    pub size: [usize; 3],
}

/// Largest number of elements that a value may have; far above any network that fits a device.
const MAX_ELEMENTS: usize = 1 << 31;

impl Shape {
    /// A 2D shape.
    pub const fn plane(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, size: [1, height, width] }
    }

    /// Pixels or voxels of one channel.
    pub fn pixels(&self) -> usize {
        self.size.iter().product()
    }

    /// `channels * depth * height * width`.
    pub fn elements(&self) -> usize {
        self.channels * self.pixels()
    }
}

/// Why a list of layers is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// A network must do something.
    #[error("the network has no layers")]
    Empty,
    /// Two layers would own the same tensors.
    #[error("layer name '{0}' occurs twice or is empty")]
    Name(String),
    /// A layer reads what does not exist yet.
    #[error("layer '{layer}' reads value {value}, but only 0 to {last} exist before it")]
    Order {
        /// Layer.
        layer: String,
        /// The input number.
        value: usize,
        /// The last number that it may read.
        last: usize,
    },
    /// Wrong number of inputs.
    #[error("layer '{layer}' has {got} inputs, expected {expected}")]
    Inputs {
        /// Layer.
        layer: String,
        /// Inputs it has.
        got: usize,
        /// Inputs its operation takes.
        expected: &'static str,
    },
    /// Channels that the groups of a norm do not divide.
    #[error("layer '{layer}' has {channels} channels, expected a multiple of the {groups} groups of its norm")]
    Groups {
        /// Layer.
        layer: String,
        /// Channels that are normalised.
        channels: usize,
        /// Groups of the norm.
        groups: usize,
    },
    /// The operation does not fit the shape of its input.
    #[error("layer '{layer}' does not fit its input of {channels} x {size:?}: {reason}")]
    Fit {
        /// Layer.
        layer: String,
        /// Channels of the input.
        channels: usize,
        /// Size of the input.
        size: [usize; 3],
        /// What was expected.
        reason: &'static str,
    },
}

impl Net {
    /// Shape of every value: image first, then the output of each layer.
    pub fn shapes(&self) -> Result<Vec<Shape>, NetError> {
        if self.layers.is_empty() {
            return Err(NetError::Empty);
        }
        let mut shapes = Vec::with_capacity(self.layers.len() + 1);
        shapes.push(self.input);
        for (index, layer) in self.layers.iter().enumerate() {
            if layer.name.is_empty() || self.layers[..index].iter().any(|other| other.name == layer.name) {
                return Err(NetError::Name(layer.name.clone()));
            }
            if let Some(&value) = layer.inputs.iter().find(|&&value| value > index) {
                return Err(NetError::Order { layer: layer.name.clone(), value, last: index });
            }
            let inputs: Vec<Shape> = layer.inputs.iter().map(|&value| shapes[value]).collect();
            let output = layer.output(&inputs, self.spatial)?;
            if layer.has_norm() && !self.norm.fits(output.channels) {
                let groups = self.norm.groups(output.channels).unwrap_or(0);
                return Err(NetError::Groups { layer: layer.name.clone(), channels: output.channels, groups });
            }
            shapes.push(output);
        }
        Ok(shapes)
    }

    /// Number of classes: channels of the logits.
    pub fn classes(&self) -> Result<usize, NetError> {
        self.shapes().map(|shapes| shapes[shapes.len() - 1].channels)
    }
}

impl Layer {
    /// Shape of the output, checked against the inputs.
    fn output(&self, inputs: &[Shape], spatial: Spatial) -> Result<Shape, NetError> {
        let expected = match self.op {
            Op::Add { .. } => (inputs.len() == 2, "2"),
            Op::Concat => (inputs.len() >= 2, "2 or more"),
            _ => (inputs.len() == 1, "1"),
        };
        if !expected.0 {
            return Err(NetError::Inputs { layer: self.name.clone(), got: inputs.len(), expected: expected.1 });
        }
        let shape = transform(&self.op, inputs).map_err(|reason| self.misfit(inputs[0], reason))?;
        if shape.size.contains(&0) || shape.channels == 0 {
            return Err(self.misfit(inputs[0], "the output would be empty"));
        }
        if spatial == Spatial::D2 && shape.size[0] != 1 {
            return Err(self.misfit(inputs[0], "a 2D network has depth 1"));
        }
        let elements = shape.size.iter().try_fold(shape.channels, |product, &axis| product.checked_mul(axis));
        match elements {
            Some(elements) if elements <= MAX_ELEMENTS => Ok(shape),
            _ => Err(self.misfit(inputs[0], "the output would exceed 2^31 elements")),
        }
    }

    fn misfit(&self, input: Shape, reason: &'static str) -> NetError {
        NetError::Fit { layer: self.name.to_string(), channels: input.channels, size: input.size, reason }
    }
}

fn transform(op: &Op, inputs: &[Shape]) -> Result<Shape, &'static str> {
    let Shape { channels, size } = inputs[0];
    let need = |holds: bool, reason: &'static str| if holds { Ok(()) } else { Err(reason) };
    let scaled = |factor: [usize; 3]| {
        let mut scaled = [0; 3];
        for axis in 0..3 {
            scaled[axis] = size[axis].checked_mul(factor[axis]).ok_or("the output would overflow")?;
        }
        Ok::<_, &'static str>(scaled)
    };
    match op {
        Op::Conv(conv) => {
            need(!conv.kernel.contains(&0) && conv.kernel.iter().all(|k| k % 2 == 1), "kernels must be odd")?;
            need(!conv.stride.contains(&0) && !conv.dilation.contains(&0), "stride and dilation start at 1")?;
            need(
                conv.groups > 0 && channels % conv.groups == 0 && conv.out_channels % conv.groups == 0,
                "groups must divide the channels of input and output",
            )?;
            need(conv.kernel.iter().chain(&conv.dilation).all(|&n| n <= 1024), "kernel and dilation end at 1024")?;
            need((0. ..1.).contains(&conv.dropout), "dropout must lie in [0, 1)")?;
            // Padding keeps the size at stride 1, so only the stride shrinks it.
            let size = core::array::from_fn(|axis| size[axis].div_ceil(conv.stride[axis]));
            Ok(Shape { channels: conv.out_channels, size })
        }
        Op::Deconv(deconv) => {
            need(!deconv.kernel.contains(&0) && !deconv.stride.contains(&0), "kernel and stride start at 1")?;
            Ok(Shape { channels: deconv.out_channels, size: scaled(deconv.stride)? })
        }
        Op::Norm { .. } => Ok(inputs[0]),
        Op::Add { .. } => {
            need(inputs[0] == inputs[1], "both summands must have one shape")?;
            Ok(inputs[0])
        }
        Op::Concat => {
            need(inputs.iter().all(|other| other.size == size), "joined values must have one size")?;
            Ok(Shape { channels: inputs.iter().map(|shape| shape.channels).sum(), size })
        }
        Op::MaxPool { size: block } => {
            need(!block.contains(&0), "blocks start at 1")?;
            need((0..3).all(|axis| size[axis] % block[axis] == 0), "blocks must divide the size")?;
            Ok(Shape { channels, size: core::array::from_fn(|axis| size[axis] / block[axis]) })
        }
        Op::Upsample { factor } => Ok(Shape { channels, size: scaled(*factor)? }),
        Op::Interpolate { factor } => {
            let fits = factor.iter().all(|factor| (1..=MAX_FACTOR).contains(factor));
            need(fits, "factors of linear up-sampling lie between 1 and 8")?;
            need(*factor != [1; 3], "linear up-sampling by 1 would do nothing")?;
            Ok(Shape { channels, size: scaled(*factor)? })
        }
        Op::PixelShuffle { factor } => {
            need((1..=64).contains(factor), "the factor lies between 1 and 64")?;
            need(channels % (factor * factor) == 0, "the squared factor must divide the channels")?;
            Ok(Shape { channels: channels / (factor * factor), size: scaled([1, *factor, *factor])? })
        }
        Op::PadChannels { front, back } => {
            let channels = channels.checked_add(*front).and_then(|sum| sum.checked_add(*back));
            Ok(Shape { channels: channels.ok_or("the output would overflow")?, size })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Activation, Conv, NormKind};
    use super::*;
    use alloc::vec;

    fn net(layers: Vec<(&str, Vec<usize>, Op)>) -> Net {
        let layers =
            layers.into_iter().map(|(name, inputs, op)| Layer { name: name.to_string(), inputs, op }).collect();
        Net {
            name: "test".to_string(),
            spatial: Spatial::D2,
            norm: NormKind::Batch,
            input: Shape::plane(4, 6, 9),
            layers,
        }
    }

    #[test]
    fn strides_pools_and_shuffles_give_the_sizes_they_should() {
        let strided = Conv { stride: [1, 2, 2], dilation: [1, 3, 3], ..Conv::plane(8, 3) };
        let net = net(vec![
            ("a", vec![0], Op::Conv(strided)),
            ("b", vec![1], Op::PixelShuffle { factor: 2 }),
            ("c", vec![0], Op::MaxPool { size: [1, 3, 3] }),
            ("d", vec![3], Op::Upsample { factor: [1, 2, 2] }),
            ("e", vec![4, 4], Op::Concat),
            ("f", vec![5], Op::PadChannels { front: 1, back: 2 }),
            ("g", vec![6], Op::Norm { activation: Activation::None }),
            ("h", vec![7], Op::Interpolate { factor: [1, 3, 2] }),
        ]);
        let shapes = net.shapes().unwrap();
        let expected =
            [(4, 6, 9), (8, 3, 5), (2, 6, 10), (4, 2, 3), (4, 4, 6), (8, 4, 6), (11, 4, 6), (11, 4, 6), (11, 12, 12)];
        assert_eq!(shapes, expected.map(|(c, h, w)| Shape::plane(c, h, w)));
    }

    #[test]
    fn interpolations_are_text_and_back() {
        let op = Op::Interpolate { factor: [1, 2, 3] };
        let text = serde_json::to_string(&op).unwrap();
        assert_eq!(text, r#"{"interpolate":{"factor":[1,2,3]}}"#);
        assert_eq!(serde_json::from_str::<Op>(&text).unwrap(), op);
    }

    #[test]
    fn groups_of_a_norm_divide_its_channels() {
        let with = |norm| Net { norm, ..net(vec![("a", vec![0], Op::Conv(Conv::plane(6, 3)))]) };
        for norm in [NormKind::Batch, NormKind::Instance, NormKind::Layer, NormKind::Group(3)] {
            assert!(with(norm).shapes().is_ok(), "{norm:?}");
        }
        for groups in [0, 4, 12] {
            let message = with(NormKind::Group(groups)).shapes().unwrap_err().to_string();
            assert!(
                message.contains(&alloc::format!("6 channels, expected a multiple of the {groups} groups")),
                "{message}"
            );
        }
    }

    /// What was written before norms had kinds has batch norms, and those are not mentioned now either.
    #[test]
    fn networks_without_a_kind_have_batch_norms() {
        let batch = net(vec![("a", vec![0], Op::Concat)]);
        let text = serde_json::to_string(&batch).unwrap();
        assert!(!text.contains("norm"), "{text}");
        assert_eq!(serde_json::from_str::<Net>(&text).unwrap(), batch);
        let group = Net { norm: NormKind::Group(2), ..batch };
        let text = serde_json::to_string(&group).unwrap();
        assert!(text.contains(r#""norm":{"group":2}"#), "{text}");
        assert_eq!(serde_json::from_str::<Net>(&text).unwrap(), group);
    }

    #[test]
    fn every_broken_list_is_refused_with_its_layer() {
        let relu = Op::Norm { activation: Activation::Relu };
        let cases = [
            (net(vec![]), "no layers"),
            (net(vec![("a", vec![0], relu.clone()), ("a", vec![1], relu.clone())]), "'a' occurs twice"),
            (net(vec![("a", vec![1], relu.clone())]), "reads value 1"),
            (net(vec![("a", vec![0], Op::Add { activation: Activation::None })]), "1 inputs, expected 2"),
            (net(vec![("a", vec![0], Op::MaxPool { size: [1, 4, 4] })]), "divide the size"),
            (net(vec![("a", vec![0], Op::PixelShuffle { factor: 3 })]), "squared factor"),
            (net(vec![("a", vec![0], Op::Conv(Conv::plane(8, 2)))]), "odd"),
            (net(vec![("a", vec![0], Op::Conv(Conv { groups: 3, ..Conv::plane(6, 3) }))]), "groups"),
            (net(vec![("a", vec![0], Op::Upsample { factor: [1, 1 << 20, 1 << 20] })]), "2^31"),
            (net(vec![("a", vec![0], Op::Upsample { factor: [2, 1, 1] })]), "depth 1"),
            (net(vec![("a", vec![0], Op::Upsample { factor: [1, 0, 1] })]), "empty"),
            (net(vec![("a", vec![0], Op::Interpolate { factor: [1, 0, 1] })]), "between 1 and 8"),
            (net(vec![("a", vec![0], Op::Interpolate { factor: [1, 9, 1] })]), "between 1 and 8"),
            (net(vec![("a", vec![0], Op::Interpolate { factor: [1, 1, 1] })]), "do nothing"),
            (net(vec![("a", vec![0], Op::Interpolate { factor: [2, 1, 1] })]), "depth 1"),
        ];
        for (net, words) in cases {
            let message = net.shapes().unwrap_err().to_string();
            assert!(message.contains(words), "'{message}' should contain '{words}'");
        }
    }
}
