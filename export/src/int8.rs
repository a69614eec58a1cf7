//! Writes the int8 file: `QLinearConv` with kernels once and scales and biases picked by `modality`, or, for
//! toolchains that want it, the same numbers as a QDQ graph with one branch.
//!
//! Found out with tract 0.23.9 and ONNX Runtime 1.32, on random networks of these operations and both branches:
//! * ONNX Runtime equals the one rounding rule in every code, padding included (it pads with the zero point).
//! * tract loads the file, folds the picked rows once `modality` is a constant, stays in int8 from end to end and pads with
//!   the zero point. Its codes equal the rule's if the factors are made as `factors.rs` says, and otherwise not always.
//! * tract runs QDQ convolutions in f32; hence `QLinearConv` for our own path.
//! * The standard has no transposed convolution on codes: it is spelled as an ordinary one (see [`crate::phases`]).
//! * The standard has no sum, leak, norm or linear up-sampling on codes. Spelled as `DequantizeLinear`, float operations and
//!   `QuantizeLinear`, they are the contract's [`Sum`](contract::quant::Sum), [`Table`](contract::quant::Table) and
//!   [`Interpolation`](contract::interpolate::Interpolation) in both engines, because no code comes near a tie; ONNX Runtime fuses the sum to its `QLinearAdd` and the leak to its `QLinearLeakyRelu`.

use std::borrow::Cow;

use contract::{
    ModelSpec,
    names::{IMAGE, LABELS, LOGITS},
    net::{Activation, Conv, Deconv, Op, Padding},
};
use tract_onnx::pb::{AttributeProto, ModelProto};

use crate::{
    branch::{declare_modality, dims, row_f32, row_i32, spatial, value_name},
    float::{interpolate, max_pool, mirror, pad_channels, pixel_shuffle, upsample},
    fold::Folded,
    onnx::{Element, Graph, float, int, ints},
    phases,
    quantise::{Quantised, QuantisedConv},
};

/// How int8 is spelled in ONNX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// `QLinearConv` on codes: what gantry-edge runs in int8.
    Qoperator,
    /// `DequantizeLinear`, float operations, `QuantizeLinear`: what other toolchains convert from. One modality only.
    Qdq,
}

/// The int8 model; inputs `image` (codes `[1, slices, (d,) h, w]`) and `modality`, outputs `logits` (codes) and `labels`.
///
/// # Panics
/// If QDQ is asked for with more than one branch.
pub fn write(folded: &Folded, quantised: &Quantised, format: Format, metadata: &[(&str, String)]) -> ModelProto {
    let spec = &folded.spec;
    assert!(format == Format::Qoperator || spec.modalities.len() == 1, "a QDQ file has one branch");
    let mut writer = Writer { folded, quantised, graph: Graph::new(&spec.net.name), scales: vec![] };
    writer.graph.input(IMAGE, Element::I8, &dims(spec, &folded.shapes[0]));
    declare_modality(&mut writer.graph, spec);
    writer.scales();
    if format == Format::Qoperator {
        writer.graph.i8s(WEIGHT_ZERO, &[], &[0]);
    }
    for index in 0..spec.net.layers.len() {
        match format {
            Format::Qoperator => writer.codes(index),
            Format::Qdq => writer.reals(index),
        }
    }
    writer.graph.node("ArgMax", LABELS, &[LOGITS], vec![int("axis", 1), int("keepdims", 0)]);
    let logits = dims(spec, &folded.shapes[folded.shapes.len() - 1]);
    writer.graph.output(LOGITS, Element::I8, &logits);
    writer.graph.output(LABELS, Element::I64, &[&logits[..1], &logits[2..]].concat());
    writer.graph.finish(metadata)
}

/// Zero point of all weights.
const WEIGHT_ZERO: &str = "weights/zero";

struct Writer<'a> {
    folded: &'a Folded,
    quantised: &'a Quantised,
    graph: Graph,
    /// Names of scale and zero point of each group.
    scales: Vec<(String, String)>,
}

impl<'a> Writer<'a> {
    /// Emits scale and zero point of every group, named after the first value that has them.
    fn scales(&mut self) {
        for (index, group) in self.quantised.groups.iter().enumerate() {
            let value = self.quantised.group_of.iter().position(|&other| other == index).expect("no group is empty");
            let name = value_name(&self.folded.spec, value);
            let rows: Vec<Vec<f32>> = group.scales.iter().map(|&scale| vec![scale]).collect();
            let scale = row_f32(&mut self.graph, &format!("{name}/scale"), &[], &rows);
            let zero_point = self.graph.i8s(&format!("{name}/zero"), &[], &[group.zero_point]);
            self.scales.push((scale, zero_point));
        }
    }

    fn scale_of(&self, value: usize) -> (String, String) {
        self.scales[self.quantised.group_of[value]].clone()
    }

    /// Emits a layer on codes.
    fn codes(&mut self, index: usize) {
        let layer = &self.folded.spec.net.layers[index];
        let name = value_name(&self.folded.spec, index + 1).to_string();
        let inputs: Vec<String> =
            layer.inputs.iter().map(|&value| value_name(&self.folded.spec, value).to_string()).collect();
        match &layer.op {
            Op::Conv(_) | Op::Deconv(_) => self.qlinear_conv(index, &inputs[0], &name),
            // The standard has none of them on codes, but what it has means them; ONNX Runtime fuses the sum.
            Op::Add { .. } | Op::Norm { .. } | Op::Interpolate { .. } => self.reals(index),
            Op::PadChannels { front, back } => {
                let (axes, zero) = (self.dims_of(index).len(), self.scale_of(index + 1).1);
                pad_channels(&mut self.graph, axes, [*front, *back], &inputs[0], Some(&zero), &name);
            }
            op => self.move_values(op, &inputs, &name),
        }
    }

    fn qlinear_conv(&mut self, index: usize, input: &str, name: &str) {
        let (x_scale, x_zero) = self.scale_of(self.folded.spec.net.layers[index].inputs[0]);
        let (y_scale, y_zero) = self.scale_of(index + 1);
        let Form { codes, weight_shape, attributes, activation } = self.form(index);
        let channels = weight_shape[0];
        let weight = self.graph.i8s(&format!("{name}/weight"), &weight_shape, &codes.weights);
        let w_scale = row_f32(&mut self.graph, &format!("{name}/step"), &[channels], &codes.scales);
        let bias = row_i32(&mut self.graph, &format!("{name}/bias"), &[channels], &codes.biases);
        let input = self.padded(index, input, name);
        let inputs = [&input, &x_scale, &x_zero, &weight, &w_scale, WEIGHT_ZERO, &y_scale, &y_zero, &bias];
        let Activation::LeakyRelu(slope) = activation else {
            return self.placed(index, name, |graph, name| drop(graph.node("QLinearConv", name, &inputs, attributes)));
        };
        // A table of 256 codes in the standard's words; its codes have one scale on both sides.
        let codes = format!("{name}/codes");
        self.placed(index, &codes, |graph, name| drop(graph.node("QLinearConv", name, &inputs, attributes)));
        let real = self.graph.node("DequantizeLinear", &format!("{name}/in"), &[&codes, &y_scale, &y_zero], vec![]);
        let leaked = self.graph.node("LeakyRelu", &format!("{name}/real"), &[&real], vec![float("alpha", slope)]);
        self.graph.node("QuantizeLinear", name, &[&leaked, &y_scale, &y_zero], vec![]);
    }

    /// What a layer multiplies with; a transposed convolution as the ordinary one of [`phases`].
    fn form(&self, index: usize) -> Form<'a> {
        let (spec, codes) = (&self.folded.spec, self.quantised.convs[index].as_ref());
        let codes = codes.expect("a convolution has been quantised");
        match &spec.net.layers[index].op {
            Op::Deconv(deconv) => {
                let (kernel, codes) = (phases::kernel(deconv), phases::expand(deconv, codes));
                let inputs = self.dims_of(index)[1];
                let weight_shape = [&[codes.scales[0].len(), inputs], spatial(spec, &kernel)].concat();
                let attributes = phase_attributes(spec, deconv);
                Form { codes: Cow::Owned(codes), weight_shape, attributes, activation: deconv.activation }
            }
            Op::Conv(conv) => Form {
                codes: Cow::Borrowed(codes),
                weight_shape: self.folded.layers[index].weight_shape.clone(),
                attributes: conv_attributes(spec, conv),
                activation: conv.activation,
            },
            other => unreachable!("{other:?} does not multiply"),
        }
    }

    /// Names what a convolution makes, the phases of a transposed one moved to their places.
    fn placed(&mut self, index: usize, name: &str, make: impl FnOnce(&mut Graph, &str)) {
        let spec = &self.folded.spec;
        let Op::Deconv(deconv) = &spec.net.layers[index].op else { return make(&mut self.graph, name) };
        let made = format!("{name}/phases");
        make(&mut self.graph, &made);
        let (stride, dims) = (spatial(spec, &deconv.stride), self.dims_of(index));
        phases::interleave(&mut self.graph, stride, &dims[2..], deconv.out_channels, &made, name);
    }

    /// The image of a convolution with what stands around it, where that is not zero.
    fn padded(&mut self, index: usize, input: &str, name: &str) -> String {
        match &self.folded.spec.net.layers[index].op {
            Op::Conv(conv) if conv.padding == Padding::Symmetric => {
                let (shape, pads) = (self.dims_of(index), conv.pads());
                mirror(&mut self.graph, &shape, input, spatial(&self.folded.spec, &pads), name)
            }
            _ => input.to_string(),
        }
    }

    /// Shape of the first value that a layer reads.
    fn dims_of(&self, index: usize) -> Vec<usize> {
        let spec = &self.folded.spec;
        dims(spec, &self.folded.shapes[spec.net.layers[index].inputs[0]])
    }

    /// Emits a layer as float operations between `DequantizeLinear` and `QuantizeLinear`.
    fn reals(&mut self, index: usize) {
        let layer = &self.folded.spec.net.layers[index];
        let name = value_name(&self.folded.spec, index + 1).to_string();
        let real = |writer: &mut Self, (position, &value): (usize, &usize)| {
            let (scale, zero) = writer.scale_of(value);
            let codes = value_name(&writer.folded.spec, value).to_string();
            writer.graph.node("DequantizeLinear", &format!("{name}/in{position}"), &[&codes, &scale, &zero], vec![])
        };
        let inputs: Vec<String> = layer.inputs.iter().enumerate().map(|input| real(self, input)).collect();
        let output = format!("{name}/real");
        match &layer.op {
            Op::Conv(_) | Op::Deconv(_) => self.dequantised_conv(index, &inputs[0], &output),
            // Here as well, ReLU is the saturation of QuantizeLinear at its zero point.
            Op::Add { .. } => {
                self.graph.node("Add", &output, &[&inputs[0], &inputs[1]], vec![]);
            }
            Op::Norm { activation } => self.affine(index, *activation, &inputs[0], &output),
            Op::Interpolate { factor } => {
                interpolate(&mut self.graph, spatial(&self.folded.spec, factor), &inputs[0], &output);
            }
            Op::PadChannels { front, back } => {
                let axes = self.dims_of(index).len();
                pad_channels(&mut self.graph, axes, [*front, *back], &inputs[0], None, &output);
            }
            op => self.move_values(op, &inputs, &output),
        }
        let (scale, zero) = self.scale_of(index + 1);
        self.graph.node("QuantizeLinear", &name, &[&output, &scale, &zero], vec![]);
    }

    fn dequantised_conv(&mut self, index: usize, input: &str, output: &str) {
        let x = self.quantised.group(self.folded.spec.net.layers[index].inputs[0]).scales[0];
        let Form { codes, weight_shape, attributes, activation } = self.form(index);
        let channels = weight_shape[0];
        let graph = &mut self.graph;
        let weight = graph.i8s(&format!("{output}/weight_codes"), &weight_shape, &codes.weights);
        let w_scale = graph.f32s(&format!("{output}/step"), &[channels], &codes.scales[0]);
        let w_zero = graph.i8s(&format!("{output}/weight_zero"), &[channels], &vec![0; channels]);
        let axis = vec![int("axis", 0)];
        let weight =
            graph.node("DequantizeLinear", &format!("{output}/weight"), &[&weight, &w_scale, &w_zero], axis.clone());
        let bias = graph.i32s(&format!("{output}/bias_codes"), &[channels], &codes.biases[0]);
        let steps: Vec<f32> = codes.scales[0].iter().map(|w| x * w).collect();
        let b_scale = graph.f32s(&format!("{output}/bias_step"), &[channels], &steps);
        let bias = graph.node("DequantizeLinear", &format!("{output}/bias"), &[&bias, &b_scale], axis);
        let input = self.padded(index, input, output);
        let conv =
            |graph: &mut Graph, name: &str| drop(graph.node("Conv", name, &[&input, &weight, &bias], attributes));
        let Activation::LeakyRelu(slope) = activation else { return self.placed(index, output, conv) };
        let before = format!("{output}/before");
        self.placed(index, &before, conv);
        self.graph.node("LeakyRelu", output, &[&before], vec![float("alpha", slope)]);
    }

    /// A norm that follows no convolution.
    fn affine(&mut self, index: usize, activation: Activation, input: &str, output: &str) {
        let rows = &self.quantised.norms[index];
        let mut row = vec![1; self.dims_of(index).len() - 1];
        row[0] = rows[0].scale.len();
        let factors: Vec<Vec<f32>> = rows.iter().map(|branch| branch.scale.clone()).collect();
        let shifts: Vec<Vec<f32>> = rows.iter().map(|branch| branch.shift.clone()).collect();
        let factor = row_f32(&mut self.graph, &format!("{output}/factor"), &row, &factors);
        let shift = row_f32(&mut self.graph, &format!("{output}/shift"), &row, &shifts);
        let scaled = self.graph.node("Mul", &format!("{output}/scaled"), &[input, &factor], vec![]);
        self.activated(output, activation, |graph, name| {
            graph.node("Add", name, &[&scaled, &shift], vec![]);
        });
    }

    /// Names a real `output`, through a leak if there is one. ReLU is the saturation of QuantizeLinear at its zero point.
    fn activated(&mut self, output: &str, activation: Activation, make: impl FnOnce(&mut Graph, &str)) {
        let Activation::LeakyRelu(slope) = activation else { return make(&mut self.graph, output) };
        let before = format!("{output}/before");
        make(&mut self.graph, &before);
        self.graph.node("LeakyRelu", output, &[&before], vec![float("alpha", slope)]);
    }

    /// Operations that move values without changing them, the same for codes and reals.
    fn move_values(&mut self, op: &Op, inputs: &[String], name: &str) {
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let spec = &self.folded.spec;
        let graph = &mut self.graph;
        match op {
            Op::MaxPool { size } => max_pool(graph, spatial(spec, size), inputs[0], name),
            Op::Upsample { factor } => upsample(graph, spatial(spec, factor), inputs[0], name),
            Op::PixelShuffle { factor } => pixel_shuffle(graph, *factor, inputs[0], name),
            Op::Concat => drop(graph.node("Concat", name, &inputs, vec![int("axis", 1)])),
            other => unreachable!("{other:?} has been refused when quantising"),
        }
    }
}

/// A convolution as the file spells it.
struct Form<'a> {
    codes: Cow<'a, QuantisedConv>,
    /// `[out, in / groups, (d,) h, w]`.
    weight_shape: Vec<usize>,
    attributes: Vec<AttributeProto>,
    activation: Activation,
}

fn conv_attributes(spec: &ModelSpec, conv: &Conv) -> Vec<AttributeProto> {
    let pads = conv.pads();
    let pads = spatial(spec, &pads);
    vec![
        ints("kernel_shape", spatial(spec, &conv.kernel)),
        ints("strides", spatial(spec, &conv.stride)),
        ints("dilations", spatial(spec, &conv.dilation)),
        ints("pads", &if conv.padding == Padding::Zero { [pads, pads].concat() } else { vec![0; 2 * pads.len()] }),
        int("group", conv.groups as i64),
    ]
}

/// All padding lies before the input, so that each input has as many outputs as there are phases.
fn phase_attributes(spec: &ModelSpec, deconv: &Deconv) -> Vec<AttributeProto> {
    let kernel = phases::kernel(deconv);
    let before: Vec<usize> = spatial(spec, &kernel).iter().map(|taps| taps - 1).collect();
    let (one, none) = (vec![1; before.len()], vec![0; before.len()]);
    vec![
        ints("kernel_shape", spatial(spec, &kernel)),
        ints("strides", &one),
        ints("dilations", &one),
        ints("pads", &[before, none].concat()),
        int("group", 1),
    ]
}
