//! Writes the f32 file: every layer of the contract, both branches, kernels once.
//!
//! A folded norm is a `Mul` and an `Add` behind its convolution with rows picked by `modality`, not a second set of
//! kernels. This file is the reference that int8 is judged by.

use contract::{
    names::{IMAGE, LABELS, LOGITS},
    net::{Activation, Conv, Deconv, Op, Padding},
};
use tract_onnx::pb::{AttributeProto, ModelProto};

use crate::{
    branch::{declare_modality, dims, row_f32, spatial, value_name},
    fold::Folded,
    onnx::{Element, Graph, float, int, ints, text},
};

/// The f32 model; inputs `image` (reals `[1, slices, (d,) h, w]`) and `modality`, outputs `logits` and `labels`.
pub fn write(folded: &Folded, metadata: &[(&str, String)]) -> ModelProto {
    let spec = &folded.spec;
    let mut writer = Writer { folded, graph: Graph::new(&spec.net.name) };
    writer.graph.input(IMAGE, Element::F32, &dims(spec, &folded.shapes[0]));
    declare_modality(&mut writer.graph, spec);
    for index in 0..spec.net.layers.len() {
        writer.layer(index);
    }
    writer.graph.node("ArgMax", LABELS, &[LOGITS], vec![int("axis", 1), int("keepdims", 0)]);
    let logits = dims(spec, &folded.shapes[folded.shapes.len() - 1]);
    writer.graph.output(LOGITS, Element::F32, &logits);
    writer.graph.output(LABELS, Element::I64, &[&logits[..1], &logits[2..]].concat());
    writer.graph.finish(metadata)
}

struct Writer<'a> {
    folded: &'a Folded,
    graph: Graph,
}

impl<'a> Writer<'a> {
    /// Emits a layer; its value gets the layer's name.
    fn layer(&mut self, index: usize) {
        let spec = &self.folded.spec;
        let layer = &spec.net.layers[index];
        let name = value_name(spec, index + 1).to_string();
        let inputs: Vec<&str> = layer.inputs.iter().map(|&value| value_name(spec, value)).collect();
        match &layer.op {
            Op::Conv(conv) => self.conv(index, conv, inputs[0], &name),
            Op::Deconv(deconv) => self.deconv(index, deconv, inputs[0], &name),
            Op::Norm { activation } => self.affine(index, inputs[0], *activation, &name),
            Op::Add { activation } => self.add(&inputs, *activation, &name),
            Op::Concat => drop(self.graph.node("Concat", &name, &inputs, vec![int("axis", 1)])),
            Op::MaxPool { size } => max_pool(&mut self.graph, spatial(spec, size), inputs[0], &name),
            Op::Upsample { factor } => upsample(&mut self.graph, spatial(spec, factor), inputs[0], &name),
            Op::Interpolate { factor } => interpolate(&mut self.graph, spatial(spec, factor), inputs[0], &name),
            Op::PixelShuffle { factor } => pixel_shuffle(&mut self.graph, *factor, inputs[0], &name),
            Op::PadChannels { front, back } => {
                let axes = dims(spec, &self.folded.shapes[0]).len();
                pad_channels(&mut self.graph, axes, [*front, *back], inputs[0], None, &name);
            }
        }
    }

    fn conv(&mut self, index: usize, conv: &Conv, input: &str, name: &str) {
        let spec = &self.folded.spec;
        let pads = spatial(spec, &conv.pads()).to_vec();
        let mut attributes = vec![
            ints("kernel_shape", spatial(spec, &conv.kernel)),
            ints("strides", spatial(spec, &conv.stride)),
            ints("dilations", spatial(spec, &conv.dilation)),
            int("group", conv.groups as i64),
        ];
        let mut input = input.to_string();
        match conv.padding {
            Padding::Zero => attributes.push(ints("pads", &[&pads[..], &pads[..]].concat())),
            Padding::Symmetric => {
                let shape = dims(spec, &self.folded.shapes[spec.net.layers[index].inputs[0]]);
                input = mirror(&mut self.graph, &shape, &input, &pads, name);
            }
        }
        self.weighted("Conv", index, &input, attributes, conv.norm, conv.activation, name);
    }

    fn deconv(&mut self, index: usize, deconv: &Deconv, input: &str, name: &str) {
        let spec = &self.folded.spec;
        let (kernel, stride) = (spatial(spec, &deconv.kernel).to_vec(), spatial(spec, &deconv.stride).to_vec());
        // The full result has `stride * (n - 1) + kernel` samples; the first `stride * n` are kept.
        let cut: Vec<usize> = kernel.iter().zip(&stride).map(|(k, s)| k.saturating_sub(*s)).collect();
        let missing: Vec<usize> = kernel.iter().zip(&stride).map(|(k, s)| s.saturating_sub(*k)).collect();
        let attributes = vec![
            ints("kernel_shape", &kernel),
            ints("strides", &stride),
            ints("pads", &[vec![0; cut.len()], cut].concat()),
            ints("output_padding", &missing),
        ];
        self.weighted("ConvTranspose", index, input, attributes, deconv.norm, deconv.activation, name);
    }

    /// A convolution with its folded norm, or with a plain bias, and its activation.
    #[allow(clippy::too_many_arguments)]
    fn weighted(
        &mut self,
        op: &str,
        index: usize,
        input: &str,
        attributes: Vec<AttributeProto>,
        norm: bool,
        activation: Activation,
        name: &str,
    ) {
        let layer = &self.folded.layers[index];
        let weight = self.graph.f32s(&format!("{name}/weight"), &layer.weight_shape, &layer.weights);
        if norm {
            let value = self.graph.node(op, &format!("{name}/conv"), &[input, &weight], attributes);
            return self.affine(index, &value, activation, name);
        }
        let shift = &layer.affine[0].shift;
        let bias = self.graph.f32s(&format!("{name}/bias"), &[shift.len()], shift);
        let conv_name = if activation == Activation::None { name.to_string() } else { format!("{name}/conv") };
        let value = self.graph.node(op, &conv_name, &[input, &weight, &bias], attributes);
        self.activate(&value, activation, name);
    }

    fn affine(&mut self, index: usize, input: &str, activation: Activation, name: &str) {
        let affine = &self.folded.layers[index].affine;
        let rank = dims(&self.folded.spec, &self.folded.shapes[0]).len();
        let mut row = vec![1; rank - 1];
        row[0] = affine[0].scale.len();
        let scales: Vec<Vec<f32>> = affine.iter().map(|branch| branch.scale.clone()).collect();
        let shifts: Vec<Vec<f32>> = affine.iter().map(|branch| branch.shift.clone()).collect();
        let scale = row_f32(&mut self.graph, &format!("{name}/scale"), &row, &scales);
        let shift = row_f32(&mut self.graph, &format!("{name}/shift"), &row, &shifts);
        let scaled = self.graph.node("Mul", &format!("{name}/scaled"), &[input, &scale], vec![]);
        let last = if activation == Activation::None { name.to_string() } else { format!("{name}/norm") };
        let normed = self.graph.node("Add", &last, &[&scaled, &shift], vec![]);
        self.activate(&normed, activation, name);
    }

    fn add(&mut self, inputs: &[&str], activation: Activation, name: &str) {
        let last = if activation == Activation::None { name.to_string() } else { format!("{name}/sum") };
        let sum = self.graph.node("Add", &last, inputs, vec![]);
        self.activate(&sum, activation, name);
    }

    /// Nothing for the identity: then `input` already bears the name.
    fn activate(&mut self, input: &str, activation: Activation, name: &str) {
        match activation {
            Activation::None => debug_assert_eq!(input, name),
            Activation::Relu => drop(self.graph.node("Relu", name, &[input], vec![])),
            Activation::LeakyRelu(slope) => {
                self.graph.node("LeakyRelu", name, &[input], vec![float("alpha", slope)]);
            }
        }
    }
}

/// ONNX has no padding that repeats the edge and mirrors (`x1 x0 | x0 x1`), but it can pick rows and columns by number, of any
/// element type. `shape` is the input's, batch and channels included.
pub fn mirror(graph: &mut Graph, shape: &[usize], input: &str, pads: &[usize], name: &str) -> String {
    let mut value = input.to_string();
    for (axis, &pad) in pads.iter().enumerate().filter(|(_, pad)| **pad > 0) {
        let n = shape[axis + 2] as i64;
        let reflect = |i: i64| {
            let i = i.rem_euclid(2 * n);
            if i < n { i } else { 2 * n - 1 - i }
        };
        let picks: Vec<i64> = (-(pad as i64)..n + pad as i64).map(reflect).collect();
        let picks = graph.i64s(&format!("{name}/picks{axis}"), &[picks.len()], &picks);
        let attributes = vec![int("axis", axis as i64 + 2)];
        value = graph.node("Gather", &format!("{name}/mirror{axis}"), &[&value, &picks], attributes);
    }
    value
}

/// Channels of zeros around those of a value of so many axes; `zero` names the zero of its element type, if that is not 0.
pub fn pad_channels(graph: &mut Graph, axes: usize, added: [usize; 2], input: &str, zero: Option<&str>, name: &str) {
    let mut pads = vec![0; 2 * axes];
    (pads[1], pads[axes + 1]) = (added[0] as i64, added[1] as i64);
    let pads = graph.i64s(&format!("{name}/pads"), &[2 * axes], &pads);
    let inputs: Vec<&str> = [input, &pads].into_iter().chain(zero).collect();
    graph.node("Pad", name, &inputs, vec![]);
}

/// Maximum over blocks, of any element type.
pub fn max_pool(graph: &mut Graph, size: &[usize], input: &str, name: &str) {
    graph.node("MaxPool", name, &[input], vec![ints("kernel_shape", size), ints("strides", size)]);
}

/// Channels to pixels, of any element type.
pub fn pixel_shuffle(graph: &mut Graph, factor: usize, input: &str, name: &str) {
    graph.node("DepthToSpace", name, &[input], vec![int("blocksize", factor as i64), text("mode", "CRD")]);
}

/// Nearest-neighbour up-sampling, of any element type.
pub fn upsample(graph: &mut Graph, factor: &[usize], input: &str, name: &str) {
    let attributes = vec![
        text("mode", "nearest"),
        text("coordinate_transformation_mode", "asymmetric"),
        text("nearest_mode", "floor"),
    ];
    resize(graph, factor, input, attributes, name);
}

/// Linear up-sampling of reals.
pub fn interpolate(graph: &mut Graph, factor: &[usize], input: &str, name: &str) {
    let attributes = vec![text("mode", "linear"), text("coordinate_transformation_mode", "half_pixel")];
    resize(graph, factor, input, attributes, name);
}

fn resize(graph: &mut Graph, factor: &[usize], input: &str, attributes: Vec<AttributeProto>, name: &str) {
    let scales: Vec<f32> = [1, 1].iter().chain(factor).map(|&factor| factor as f32).collect();
    let scales = graph.f32s(&format!("{name}/factors"), &[scales.len()], &scales);
    graph.node("Resize", name, &[input, "", &scales], attributes);
}
