//! The constants of one of our int8 files, straight from its protobuf.
//!
//! The graph must be the manifest's network to the letter, as `gantry-export` writes it. What differs is [`Refused::Foreign`]:
//! tract's to run. What is ours but holds impossible numbers is [`Refused::Invalid`]: nobody's.

use contract::{
    Modality, ModelSpec, names,
    net::{Activation, Conv, Layer, Op, Padding, Shape, Spatial},
    quant::{Multiplier, Sum},
};
use tract_onnx::pb::{GraphProto, NodeProto, tensor_proto::DataType};

use super::graph::{File, Reason, expect_attributes, expect_op, expect_texts, foreign, invalid, words};
use crate::kernels::Table;

/// Largest accumulator, before and after its factor: what the exporter keeps to, so that no order of additions overflows.
const ACCUMULATOR_LIMIT: f64 = (1i64 << 30) as f64;

/// An int8 network as the planner wants it.
#[derive(Debug)]
pub struct Network<'a> {
    /// Layers, grid, modalities.
    pub spec: &'a ModelSpec,
    /// Of every value: the image, then each layer's output.
    pub shapes: Vec<Shape>,
    /// Code of real 0 of every value.
    pub zeros: Vec<i8>,
    /// In step with the layers.
    pub constants: Vec<Constants<'a>>,
}

/// What a layer computes with.
#[derive(Debug)]
pub enum Constants<'a> {
    /// A convolution's.
    Conv(ConvCodes<'a>),
    /// A residual sum's, one per modality of the spec.
    Add(Vec<Sum>),
    /// None: codes only move.
    None,
}

/// A convolution's constants.
#[derive(Debug)]
pub struct ConvCodes<'a> {
    /// `[out, in / groups, (d,) h, w]`, in [-127, 127].
    pub weights: &'a [u8],
    /// One per modality of the spec.
    pub tables: Vec<Table>,
}

/// Why a file has no plan of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another graph than ours.
    Foreign {
        /// Where it differs.
        layer: String,
        /// How.
        reason: String,
    },
    /// Ours, with impossible numbers.
    Invalid {
        /// Where.
        layer: String,
        /// What was found and what was expected.
        reason: String,
    },
}

/// Reads a graph that belongs to `spec`.
pub fn network<'a>(spec: &'a ModelSpec, graph: &'a GraphProto) -> Result<Network<'a>, Refused> {
    let at = |layer: &str, (invalid, reason): Reason| {
        let layer = layer.to_string();
        if invalid { Refused::Invalid { layer, reason } } else { Refused::Foreign { layer, reason } }
    };
    let net = &spec.net;
    let shapes = net.shapes().map_err(|error| at(&net.name, (false, error.to_string())))?;
    let file = File::new(graph);
    let (mut scales, mut zeros) = (vec![vec![spec.intensity.scale; spec.modalities.len()]], vec![0]);
    let mut constants = vec![];
    for (index, layer) in net.layers.iter().enumerate() {
        let read = || -> Result<_, Reason> {
            let node = file.node(spec, index)?;
            let inputs: Vec<&str> = layer.inputs.iter().map(|&value| value_name(spec, value)).collect();
            let first = layer.inputs[0];
            match &layer.op {
                Op::Conv(conv) => {
                    let (codes, scale, zero) = file.conv(spec, node, conv, &inputs, shapes[first].channels)?;
                    if codes.x != (scales[first].clone(), zeros[first]) {
                        let made = (&scales[first], zeros[first]);
                        return foreign(format!(
                            "reads codes of scale and zero point {:?}, made with {made:?}",
                            codes.x
                        ));
                    }
                    Ok((Constants::Conv(codes.codes), scale, zero))
                }
                Op::Add { activation } => {
                    let made: Vec<_> =
                        layer.inputs.iter().map(|&value| (scales[value].as_slice(), zeros[value])).collect();
                    let (sums, scale, zero) = file.sum(spec, node, *activation, &inputs, &made)?;
                    Ok((Constants::Add(sums), scale, zero))
                }
                op => {
                    file.moves(spec, node, layer, op, &inputs)?;
                    let made = |value: usize| (&scales[value], zeros[value]);
                    if layer.inputs.iter().any(|&value| made(value) != made(first)) {
                        return foreign("joins values of different scales");
                    }
                    Ok((Constants::None, scales[first].clone(), zeros[first]))
                }
            }
        };
        let (read, scale, zero) = read().map_err(|reason| at(&layer.name, reason))?;
        constants.push(read);
        scales.push(scale);
        zeros.push(zero);
    }
    Ok(Network { spec, shapes, zeros, constants })
}

/// Name of a value in the file.
fn value_name(spec: &ModelSpec, value: usize) -> &str {
    match value {
        0 => names::IMAGE,
        _ if value == spec.net.layers.len() => names::LOGITS,
        _ => &spec.net.layers[value - 1].name,
    }
}

/// A convolution as read, and what it takes its input for.
struct ReadConv<'a> {
    codes: ConvCodes<'a>,
    x: (Vec<f32>, i8),
}

impl<'a> File<'a> {
    /// The node that makes the output of layer `index`.
    fn node(&self, spec: &ModelSpec, index: usize) -> Result<&'a NodeProto, Reason> {
        self.maker(value_name(spec, index + 1))
    }

    fn conv(
        &self,
        spec: &ModelSpec,
        node: &'a NodeProto,
        conv: &Conv,
        inputs: &[&str],
        channels: usize,
    ) -> Result<(ReadConv<'a>, Vec<f32>, i8), Reason> {
        expect_op(node, "QLinearConv", 9, &inputs[..1])?;
        if conv.padding != Padding::Zero || matches!(conv.activation, Activation::LeakyRelu(_)) {
            return foreign("mirrored padding and leaky ReLU have no int8 form");
        }
        let axes = axes(spec.net.spatial);
        let pads = &conv.pads()[axes.clone()];
        let expected = [
            ("kernel_shape", conv.kernel[axes.clone()].to_vec()),
            ("strides", conv.stride[axes.clone()].to_vec()),
            ("dilations", conv.dilation[axes.clone()].to_vec()),
            ("pads", [pads, pads].concat()),
            ("group", vec![conv.groups]),
        ];
        expect_attributes(node, &expected)?;
        let shape = [&[conv.out_channels, channels / conv.groups], &conv.kernel[axes]].concat();
        let weights = self.constant(&node.input[3], DataType::Int8, &shape)?;
        if let Some(position) = weights.iter().position(|&weight| weight == 0x80) {
            return invalid(format!("weight {position} is -128, expected -127 to 127"));
        }
        if !self.constant(&node.input[5], DataType::Int8, &[])?.iter().all(|&zero| zero == 0) {
            return foreign("the zero point of the weights is not 0");
        }
        let zero = |input: usize| self.constant(&node.input[input], DataType::Int8, &[]).map(|bytes| bytes[0] as i8);
        let (x_zero, y_zero) = (zero(2)?, zero(7)?);
        if conv.activation == Activation::Relu && y_zero != i8::MIN {
            return foreign(format!(
                "a ReLU with zero point {y_zero}, expected -128: saturation would not be the ReLU"
            ));
        }
        let x = self.scales(spec, &node.input[1], None)?;
        let w = self.scales(spec, &node.input[4], Some(conv.out_channels))?;
        let y = self.scales(spec, &node.input[6], None)?;
        let mut tables = vec![];
        for (row, &modality) in spec.modalities.iter().enumerate() {
            let bias = self.row(&node.input[8], modality, DataType::Int32, Some(conv.out_channels))?;
            let bias: Vec<i32> = words(bias).map(i32::from_le_bytes).collect();
            tables.push(table(modality, weights, bias, x[row][0], &w[row], y[row][0])?);
        }
        let first = |rows: Vec<Vec<f32>>| rows.into_iter().map(|row| row[0]).collect();
        let read = ReadConv { codes: ConvCodes { weights, tables }, x: (first(x), x_zero) };
        Ok((read, first(y), y_zero))
    }

    /// A sum of two values: `DequantizeLinear` of each, `Add`, `QuantizeLinear`.
    fn sum(
        &self,
        spec: &ModelSpec,
        node: &'a NodeProto,
        activation: Activation,
        inputs: &[&str],
        made: &[(&[f32], i8)],
    ) -> Result<(Vec<Sum>, Vec<f32>, i8), Reason> {
        expect_op(node, "QuantizeLinear", 3, &[])?;
        let add = self.maker(&node.input[0])?;
        expect_op(add, "Add", 2, &[])?;
        for ((real, &input), made) in add.input.iter().zip(inputs).zip(made) {
            let real = self.maker(real)?;
            expect_op(real, "DequantizeLinear", 3, &[input])?;
            let read = self.scale_and_zero(spec, real)?;
            if (read.0.as_slice(), read.1) != *made {
                return foreign(format!("reads codes of scale and zero point {read:?}, made with {made:?}"));
            }
        }
        let (y, zero) = self.scale_and_zero(spec, node)?;
        match activation {
            Activation::None => {}
            Activation::Relu if zero == i8::MIN => {}
            _ => return foreign(format!("{activation:?} with zero point {zero} is no saturation")),
        }
        let sums = (0..y.len()).map(|row| {
            let [a, b] = [made[0].0[row], made[1].0[row]];
            let near_tie =
                || (true, format!("{a:e} and {b:e} over {}: engines could round such sums differently", y[row]));
            Sum::new(a, b, y[row]).ok_or_else(near_tie)
        });
        Ok((sums.collect::<Result<_, _>>()?, y, zero))
    }

    /// Operations that move codes without changing them.
    fn moves(&self, spec: &ModelSpec, node: &NodeProto, layer: &Layer, op: &Op, inputs: &[&str]) -> Result<(), Reason> {
        let axes = axes(spec.net.spatial);
        match op {
            Op::MaxPool { size } => {
                expect_op(node, "MaxPool", 1, inputs)?;
                let size = size[axes].to_vec();
                expect_attributes(node, &[("kernel_shape", size.clone()), ("strides", size)])
            }
            Op::Concat => {
                expect_op(node, "Concat", inputs.len(), inputs)?;
                expect_attributes(node, &[("axis", vec![1])])
            }
            Op::Upsample { factor } => {
                expect_op(node, "Resize", 3, inputs)?;
                let expected =
                    [("mode", "nearest"), ("coordinate_transformation_mode", "asymmetric"), ("nearest_mode", "floor")];
                expect_texts(node, &expected)?;
                let scales: Vec<f32> = [1, 1].iter().chain(&factor[axes]).map(|&factor| factor as f32).collect();
                let found = self.constant(&node.input[2], DataType::Float, &[scales.len()])?;
                match node.input[1].is_empty() && words(found).map(f32::from_le_bytes).eq(scales) {
                    true => Ok(()),
                    false => foreign("its factors are not the manifest's"),
                }
            }
            _ => foreign(format!("{} has no int8 form", layer.name)),
        }
    }
}

/// Factors, and the proof that no sum overflows whatever its order.
fn table(
    modality: Modality,
    weights: &[u8],
    bias: Vec<i32>,
    x_scale: f32,
    w_scales: &[f32],
    y_scale: f32,
) -> Result<Table, Reason> {
    let taps = weights.len() / bias.len();
    let mut factors = vec![];
    for (channel, (&w_scale, &bias)) in w_scales.iter().zip(&bias).enumerate() {
        let Some(factor) = Multiplier::new(x_scale, w_scale, y_scale) else {
            return invalid(format!(
                "{modality} channel {channel}: {x_scale:e} * {w_scale:e} / {y_scale:e} is no positive number"
            ));
        };
        let codes = &weights[channel * taps..][..taps];
        let reach = 255. * codes.iter().map(|&weight| f64::from(weight as i8).abs()).sum::<f64>();
        let largest = (f64::from(bias).abs() + reach) * f64::from(factor.get()).max(1.);
        if largest > ACCUMULATOR_LIMIT {
            return invalid(format!(
                "{modality} channel {channel}: sums reach {largest:e}, expected at most {ACCUMULATOR_LIMIT:e}"
            ));
        }
        factors.push(factor.get());
    }
    Ok(Table { bias, factors })
}

/// Image axes in the file.
const fn axes(spatial: Spatial) -> std::ops::Range<usize> {
    match spatial {
        Spatial::D2 => 1..3,
        Spatial::D3 => 0..3,
    }
}
