//! One layer of one of our files: whether its nodes are those that `gantry-export` writes, and their constants.

use contract::{
    Modality, ModelSpec,
    interpolate::Interpolation,
    net::{Activation, Conv, Op, Padding, Shape, Spatial},
    quant::{self, Affine, Multiplier, Sum},
};
use tract_onnx::pb::{NodeProto, tensor_proto::DataType};

use super::{
    graph::{File, Reason, Value, expect_attributes, expect_op, foreign, invalid, words},
    load::ConvCodes,
};
use crate::kernels::{MapSpec, Table};

/// Largest accumulator, before and after its factor: what the exporter keeps to, so that no order of additions overflows.
const ACCUMULATOR_LIMIT: f64 = (1i64 << 30) as f64;

/// Scale per modality, and code of real 0.
type Made = (Vec<f32>, i8);

/// A layer in its file.
pub struct Place<'a> {
    /// Of the model.
    pub spec: &'a ModelSpec,
    /// The node that makes the layer's value.
    pub node: &'a NodeProto,
    /// Names of the values it reads.
    pub inputs: Vec<&'a str>,
    /// Their shapes.
    pub shapes: Vec<Shape>,
    /// How their codes were made.
    pub made: Vec<Made>,
}

impl Place<'_> {
    /// Image axes in the file.
    const fn axes(&self) -> std::ops::Range<usize> {
        match self.spec.net.spatial {
            Spatial::D2 => 1..3,
            Spatial::D3 => 0..3,
        }
    }

    /// Refuses codes that were not made as they are read.
    fn expect_made(&self, input: usize, read: &Made) -> Result<(), Reason> {
        let made = &self.made[input];
        match read == made {
            true => Ok(()),
            false => foreign(format!("reads codes of scale and zero point {read:?}, made with {made:?}")),
        }
    }
}

impl<'a> File<'a> {
    /// A convolution, with its leak if it has one: `QLinearConv`, on mirrored surroundings where asked for.
    pub fn conv(&self, place: &Place<'a>, conv: &Conv) -> Result<(ConvCodes<'a>, Made), Reason> {
        let node = self.unleaked(place.node, conv.activation)?;
        expect_op(node, "QLinearConv", 9, &[])?;
        let (axes, shape) = (place.axes(), place.shapes[0]);
        let pads = match conv.padding {
            Padding::Zero => {
                expect_op(node, "QLinearConv", 9, &place.inputs)?;
                conv.pads()
            }
            Padding::Symmetric => {
                self.mirror(place, &node.input[0], conv.pads())?;
                [0; 3]
            }
        };
        let pads = [&pads[axes.clone()], &pads[axes.clone()]].concat();
        let expected: [(&str, Value); 5] = [
            ("kernel_shape", conv.kernel[axes.clone()].into()),
            ("strides", conv.stride[axes.clone()].into()),
            ("dilations", conv.dilation[axes.clone()].into()),
            ("pads", pads.as_slice().into()),
            ("group", [conv.groups].as_slice().into()),
        ];
        expect_attributes(node, &expected)?;
        let shape = [&[conv.out_channels, shape.channels / conv.groups], &conv.kernel[axes]].concat();
        let weights = self.constant(&node.input[3], DataType::Int8, &shape)?;
        if let Some(position) = weights.iter().position(|&weight| weight == 0x80) {
            return invalid(format!("weight {position} is -128, expected -127 to 127"));
        }
        if !self.constant(&node.input[5], DataType::Int8, &[])?.iter().all(|&zero| zero == 0) {
            return foreign("the zero point of the weights is not 0");
        }
        let made = |scale: usize| self.made(place.spec, &node.input[scale], &node.input[scale + 1]);
        place.expect_made(0, &made(1)?)?;
        let (y, y_zero) = made(6)?;
        if conv.activation == Activation::Relu && y_zero != i8::MIN {
            return foreign(format!(
                "a ReLU with zero point {y_zero}, expected -128: saturation would not be the ReLU"
            ));
        }
        let w = self.scales(place.spec, &node.input[4], &[conv.out_channels])?;
        let (mut tables, mut leak) = (vec![], vec![]);
        for (row, &modality) in place.spec.modalities.iter().enumerate() {
            let bias = self.row(&node.input[8], modality, DataType::Int32, &[conv.out_channels])?;
            let bias: Vec<i32> = words(bias).map(i32::from_le_bytes).collect();
            tables.push(table(modality, weights, bias, place.made[0].0[row], &w[row], y[row])?);
            if matches!(conv.activation, Activation::LeakyRelu(_)) {
                let y = (y[row], y_zero);
                leak.push(map(modality, y, vec![Affine::IDENTITY], conv.activation, y)?);
            }
        }
        Ok((ConvCodes { weights, tables, leak }, (y, y_zero)))
    }

    /// The node in front of a leak: `DequantizeLinear`, `LeakyRelu` and `QuantizeLinear` with the scale of its codes.
    fn unleaked(&self, node: &'a NodeProto, activation: Activation) -> Result<&'a NodeProto, Reason> {
        let Activation::LeakyRelu(slope) = activation else { return Ok(node) };
        expect_op(node, "QuantizeLinear", 3, &[])?;
        let leak = self.maker(&node.input[0])?;
        expect_op(leak, "LeakyRelu", 1, &[])?;
        expect_attributes(leak, &[("alpha", Value::Real(slope))])?;
        let reals = self.maker(&leak.input[0])?;
        expect_op(reals, "DequantizeLinear", 3, &[])?;
        let conv = self.maker(&reals.input[0])?;
        let same = reals.input[1..] == node.input[1..] && conv.input.get(6..8) == Some(&node.input[1..]);
        if same { Ok(conv) } else { foreign("the leak's codes have another scale than the convolution's") }
    }

    /// The image mirrored around itself: one `Gather` per axis.
    fn mirror(&self, place: &Place<'_>, name: &str, pads: [usize; 3]) -> Result<(), Reason> {
        let axes = place.axes();
        let mut name = name;
        // The last axis was gathered last.
        for axis in axes.clone().rev().filter(|&axis| pads[axis] > 0) {
            let gather = self.maker(name)?;
            expect_op(gather, "Gather", 2, &[])?;
            expect_attributes(gather, &[("axis", [axis - axes.start + 2].as_slice().into())])?;
            let (n, pad) = (place.shapes[0].size[axis] as i64, pads[axis] as i64);
            let reflect = |i: i64| i.rem_euclid(2 * n).min(2 * n - 1 - i.rem_euclid(2 * n));
            let found = self.constant(&gather.input[1], DataType::Int64, &[(n + 2 * pad) as usize])?;
            let found = found.chunks_exact(8).map(|word| i64::from_le_bytes(std::array::from_fn(|at| word[at])));
            if !found.eq((-pad..n + pad).map(reflect)) {
                return foreign("its surroundings are not the mirrored image");
            }
            name = &gather.input[0];
        }
        match name == place.inputs[0] {
            true => Ok(()),
            false => foreign(format!("reads '{name}', expected '{}'", place.inputs[0])),
        }
    }

    /// A sum of two values: `DequantizeLinear` of each, `Add`, `QuantizeLinear`.
    pub fn sum(&self, place: &Place<'a>, activation: Activation) -> Result<(Vec<Sum>, Made), Reason> {
        expect_op(place.node, "QuantizeLinear", 3, &[])?;
        let add = self.maker(&place.node.input[0])?;
        expect_op(add, "Add", 2, &[])?;
        for (input, real) in add.input.iter().enumerate() {
            self.dequantised(place, input, real)?;
        }
        if let Activation::LeakyRelu(_) = activation {
            return foreign("a leak behind a sum has no int8 form");
        }
        let (y, zero) = self.written(place, activation)?;
        let sums = (0..y.len()).map(|row| {
            let [a, b] = [place.made[0].0[row], place.made[1].0[row]];
            let near_tie =
                || (true, format!("{a:e} and {b:e} over {}: engines could round such sums differently", y[row]));
            Sum::new(a, b, y[row]).ok_or_else(near_tie)
        });
        Ok((sums.collect::<Result<_, _>>()?, (y, zero)))
    }

    /// A norm that follows no convolution: `DequantizeLinear`, `Mul`, `Add`, maybe `LeakyRelu`, `QuantizeLinear`.
    pub fn norm(&self, place: &Place<'a>, activation: Activation) -> Result<(Vec<MapSpec>, Made), Reason> {
        expect_op(place.node, "QuantizeLinear", 3, &[])?;
        let mut shifted = self.maker(&place.node.input[0])?;
        if let Activation::LeakyRelu(slope) = activation {
            expect_op(shifted, "LeakyRelu", 1, &[])?;
            expect_attributes(shifted, &[("alpha", Value::Real(slope))])?;
            shifted = self.maker(&shifted.input[0])?;
        }
        expect_op(shifted, "Add", 2, &[])?;
        let scaled = self.maker(&shifted.input[0])?;
        expect_op(scaled, "Mul", 2, &[])?;
        self.dequantised(place, 0, &scaled.input[0])?;
        let mut shape = vec![1; place.axes().len() + 1];
        shape[0] = place.shapes[0].channels;
        let factors = self.reals(place.spec, &scaled.input[1], &shape)?;
        let shifts = self.reals(place.spec, &shifted.input[1], &shape)?;
        let (y, zero) = self.written(place, activation)?;
        let maps = place.spec.modalities.iter().enumerate().map(|(row, &modality)| {
            let (x, x_zero) = &place.made[0];
            let affine = factors[row].iter().zip(&shifts[row]).map(|(&factor, &shift)| Affine { factor, shift });
            map(modality, (x[row], *x_zero), affine.collect(), activation, (y[row], zero))
        });
        Ok((maps.collect::<Result<_, _>>()?, (y, zero)))
    }

    /// Linear up-sampling: `DequantizeLinear`, `Resize`, `QuantizeLinear`.
    pub fn interpolation(&self, place: &Place<'a>, factor: [usize; 3]) -> Result<(Interpolation, Made), Reason> {
        expect_op(place.node, "QuantizeLinear", 3, &[])?;
        let resize = self.maker(&place.node.input[0])?;
        expect_op(resize, "Resize", 3, &[])?;
        let expected = [("mode", "linear"), ("coordinate_transformation_mode", "half_pixel")];
        self.resized(resize, &factor[place.axes()], &expected)?;
        self.dequantised(place, 0, &resize.input[0])?;
        let (x, x_zero) = &place.made[0];
        let (y, zero) = self.written(place, Activation::None)?;
        if zero != *x_zero {
            return foreign(format!("zero point {zero}, expected its input's {x_zero}"));
        }
        let mut rules = x.iter().zip(&y).map(|(&x, &y)| {
            let refused =
                || (true, format!("codes of {y:e} from {x:e}: engines could interpolate such codes differently"));
            Interpolation::new(factor, place.shapes[0].size, x, y).ok_or_else(refused)
        });
        let first = rules.next().unwrap_or_else(|| foreign("no modality"))?;
        rules.try_for_each(|rule| rule.map(drop))?;
        Ok((first, (y, zero)))
    }

    /// A `Resize` by these factors of the image axes, with these texts.
    fn resized(&self, node: &NodeProto, factor: &[usize], texts: &[(&str, &str)]) -> Result<(), Reason> {
        let expected: Vec<(&str, Value)> = texts.iter().map(|&(name, text)| (name, text.into())).collect();
        expect_attributes(node, &expected)?;
        let scales: Vec<f32> = [1, 1].iter().chain(factor).map(|&factor| factor as f32).collect();
        let found = self.constant(&node.input[2], DataType::Float, &[scales.len()])?;
        match node.input[1].is_empty() && words(found).map(f32::from_le_bytes).eq(scales) {
            true => Ok(()),
            false => foreign("its factors are not the manifest's"),
        }
    }

    /// `real` is the input of that number, dequantised.
    fn dequantised(&self, place: &Place<'_>, input: usize, real: &str) -> Result<(), Reason> {
        let node = self.maker(real)?;
        expect_op(node, "DequantizeLinear", 3, &place.inputs[input..=input])?;
        place.expect_made(input, &self.made(place.spec, &node.input[1], &node.input[2])?)
    }

    /// How `QuantizeLinear` makes a layer's codes; its saturation must be the ReLU where there is one.
    fn written(&self, place: &Place<'_>, activation: Activation) -> Result<Made, Reason> {
        let (y, zero) = self.made(place.spec, &place.node.input[1], &place.node.input[2])?;
        match activation {
            Activation::Relu if zero != i8::MIN => foreign(format!("a ReLU with zero point {zero} is no saturation")),
            _ => Ok((y, zero)),
        }
    }

    /// A scale per modality, and a zero point.
    fn made(&self, spec: &ModelSpec, scale: &str, zero: &str) -> Result<Made, Reason> {
        let scales = self.scales(spec, scale, &[])?.into_iter().map(|row| row[0]).collect();
        Ok((scales, self.constant(zero, DataType::Int8, &[])?[0] as i8))
    }

    /// Operations that move codes without changing them.
    pub fn moves(&self, place: &Place<'_>, op: &Op) -> Result<(), Reason> {
        let (axes, node, inputs) = (place.axes(), place.node, place.inputs.as_slice());
        match op {
            Op::MaxPool { size } => {
                expect_op(node, "MaxPool", 1, inputs)?;
                let size = || size[axes.clone()].into();
                expect_attributes(node, &[("kernel_shape", size()), ("strides", size())])
            }
            Op::Concat => {
                expect_op(node, "Concat", inputs.len(), inputs)?;
                expect_attributes(node, &[("axis", [1].as_slice().into())])
            }
            Op::Upsample { factor } => {
                expect_op(node, "Resize", 3, inputs)?;
                let expected =
                    [("mode", "nearest"), ("coordinate_transformation_mode", "asymmetric"), ("nearest_mode", "floor")];
                self.resized(node, &factor[axes], &expected)
            }
            Op::PixelShuffle { factor } => {
                expect_op(node, "DepthToSpace", 1, inputs)?;
                expect_attributes(node, &[("blocksize", [*factor].as_slice().into()), ("mode", "CRD".into())])
            }
            Op::PadChannels { front, back } => {
                expect_op(node, "Pad", 3, inputs)?;
                expect_attributes(node, &[])?;
                let mut pads = vec![0; 2 * (axes.len() + 2)];
                (pads[1], pads[axes.len() + 3]) = (*front as i64, *back as i64);
                let found = self.constant(&node.input[1], DataType::Int64, &[pads.len()])?;
                let zero = self.constant(&node.input[2], DataType::Int8, &[])?[0] as i8;
                let pads: Vec<u8> = pads.into_iter().flat_map(i64::to_le_bytes).collect();
                match found == pads && zero == place.made[0].1 {
                    true => Ok(()),
                    false => foreign("its padding is not the manifest's zeros"),
                }
            }
            Op::Deconv(_) => foreign("transposed convolutions are not planned"),
            _ => foreign("it has no int8 form"),
        }
    }
}

/// A map of which no code lies near a tie.
fn map(
    modality: Modality,
    x: (f32, i8),
    affine: Vec<Affine>,
    activation: Activation,
    y: (f32, i8),
) -> Result<MapSpec, Reason> {
    match affine.iter().position(|&affine| quant::Table::new(x, affine, activation, y).is_none()) {
        Some(channel) => invalid(format!(
            "{modality} channel {channel}: {:?} of codes of {x:?} to {y:?}: engines could round differently",
            affine[channel]
        )),
        None => Ok(MapSpec { x, affine, activation, y }),
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
