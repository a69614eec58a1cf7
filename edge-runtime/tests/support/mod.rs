//! A small two-branch int8 model, written by hand as protobuf messages, and the same network as nested loops.
//!
//! Neither the exporter nor tract has a part in the expected values: the loops use the contract's rounding rule alone.
//! Scales of activations are powers of two, so that every order of multiplication gives one factor.
#![allow(dead_code)] // Each test binary uses a part.

pub mod dicom;
pub mod site;

use contract::{
    Grid, Intensity, LabelMap, Modality, ModelSpec, Net, VERSION, golden,
    manifest::{Golden, MANIFEST_KEY, Manifest, Precision, Provenance},
    names,
    net::{Activation, Conv, Layer, NormKind, Op, Shape, Spatial},
    quant::{Multiplier, requantise},
};
use prost::Message;
use sha2::{Digest, Sha256};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_proto::DataType,
    tensor_shape_proto::{Dimension, dimension::Value},
    type_proto,
};

pub const HEIGHT: usize = 24;
pub const WIDTH: usize = 32;

/// Scale and zero point per value: image, enc, pool, deep, narrow, up, join, logits.
const QUANT: [(f32, i8); 8] = [
    (1. / 64., 0),
    (1. / 16., -128),
    (1. / 16., -128),
    (1. / 8., -128),
    (1. / 16., -128),
    (1. / 16., -128),
    (1. / 16., -128),
    (1. / 4., 3),
];

pub struct Weights {
    codes: Vec<i8>,
    /// Per modality and channel.
    scales: [Vec<f32>; 2],
    biases: [Vec<i32>; 2],
}

pub struct Small {
    pub spec: ModelSpec,
    /// In step with the layers; `None` for those without weights.
    pub weights: Vec<Option<Weights>>,
}

impl Small {
    pub fn new(slices: usize) -> Self {
        let layer = |name: &str, inputs: &[usize], op| Layer { name: name.into(), inputs: inputs.to_vec(), op };
        let head = Conv { bias: true, norm: false, activation: Activation::None, ..Conv::plane(5, 1) };
        let layers = vec![
            layer("enc", &[0], Op::Conv(Conv::plane(6, 3))),
            layer("pool", &[1], Op::MaxPool { size: [1, 2, 2] }),
            layer("deep", &[2], Op::Conv(Conv::plane(8, 3))),
            layer("narrow", &[3], Op::Conv(Conv::plane(6, 1))),
            layer("up", &[4], Op::Upsample { factor: [1, 2, 2] }),
            layer("join", &[5, 1], Op::Concat),
            layer("head", &[6], Op::Conv(head)),
        ];
        let input = Shape::plane(slices, HEIGHT, WIDTH);
        let net = Net { name: "small".into(), spatial: Spatial::D2, norm: NormKind::Batch, input, layers };
        let spec = ModelSpec {
            labels: LabelMap::abdomen(),
            grid: Grid { height: HEIGHT, width: WIDTH, spacing_mm: 3. },
            intensity: Intensity::default(),
            modalities: Modality::ALL.to_vec(),
            net,
        };
        spec.check().unwrap();
        let mut state = 0x1234_5678_9abc_def1;
        let weights = (0..spec.net.layers.len()).map(|index| weights(&spec, index, &mut state)).collect();
        Self { spec, weights }
    }

    /// Weights of a convolution as they stand in the file.
    pub fn weight_codes(&self, layer: usize) -> &[i8] {
        &self.weights[layer].as_ref().unwrap().codes
    }

    /// Changes one bit of one weight of a convolution.
    pub fn flip_weight(&mut self, layer: usize) {
        self.weights[layer].as_mut().unwrap().codes[5] ^= 16;
    }

    /// The bytes of `model.onnx`, its golden digests from the loops below.
    pub fn file(&self) -> Vec<u8> {
        self.file_with(&serde_json::to_string(&self.manifest()).unwrap())
    }

    /// As [`Self::file`] with any text as the manifest.
    pub fn file_with(&self, manifest: &str) -> Vec<u8> {
        let entry = StringStringEntryProto { key: MANIFEST_KEY.into(), value: manifest.into() };
        ModelProto { metadata_props: vec![entry], ..self.bare() }.encode_to_vec()
    }

    pub fn manifest(&self) -> Manifest {
        let golden = |&modality: &Modality| {
            let mut image = vec![0; self.spec.slices() * HEIGHT * WIDTH];
            golden::codes(modality, HEIGHT, WIDTH, &mut image);
            let logits = self.logits(&image, modality);
            let bytes: Vec<u8> = logits.iter().map(|&code| code as u8).collect();
            Golden { modality, logits_sha256: sha256(&bytes), labels_sha256: sha256(&self.labels(&logits)) }
        };
        Manifest {
            contract: VERSION,
            spec: self.spec.clone(),
            precision: Precision::Int8,
            golden: self.spec.modalities.iter().map(golden).collect(),
            provenance: Provenance { tool: "by hand".into(), ..Provenance::default() },
        }
    }

    /// The graph without a manifest.
    pub fn bare(&self) -> ModelProto {
        let mut graph = GraphProto { name: "small".into(), ..GraphProto::default() };
        let shapes = self.spec.net.shapes().unwrap();
        let dims = |shape: &Shape| vec![1, shape.channels as i64, HEIGHT as i64, WIDTH as i64];
        graph.input = vec![
            value_info(names::IMAGE, DataType::Int8, &dims(&shapes[0])),
            value_info(names::MODALITY, DataType::Int64, &[]),
        ];
        for (index, &(scale, zero_point)) in QUANT.iter().enumerate() {
            graph.initializer.push(tensor(
                &format!("scale{index}"),
                DataType::Float,
                &[],
                scale.to_le_bytes().to_vec(),
            ));
            graph.initializer.push(tensor(&format!("zero{index}"), DataType::Int8, &[], vec![zero_point as u8]));
        }
        graph.initializer.push(tensor("weights/zero", DataType::Int8, &[], vec![0]));
        for (index, layer) in self.spec.net.layers.iter().enumerate() {
            self.layer(&mut graph, index, layer);
        }
        graph.node.push(node("ArgMax", names::LABELS, &[names::LOGITS], vec![int("axis", 1), int("keepdims", 0)]));
        graph.output = vec![
            value_info(names::LOGITS, DataType::Int8, &dims(&shapes[shapes.len() - 1])),
            value_info(names::LABELS, DataType::Int64, &[1, HEIGHT as i64, WIDTH as i64]),
        ];
        let opset = OperatorSetIdProto { domain: String::new(), version: 17 };
        ModelProto { ir_version: 8, opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() }
    }

    fn layer(&self, graph: &mut GraphProto, index: usize, layer: &Layer) {
        let inputs: Vec<String> = layer.inputs.iter().map(|&value| self.value(value)).collect();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let name = self.value(index + 1);
        match &layer.op {
            Op::Conv(conv) => self.conv(graph, index, conv, inputs[0], &name),
            Op::MaxPool { .. } => {
                let attributes = vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])];
                graph.node.push(node("MaxPool", &name, &inputs, attributes));
            }
            Op::Upsample { .. } => {
                let scales = [1f32, 1., 2., 2.].iter().flat_map(|scale| scale.to_le_bytes()).collect();
                graph.initializer.push(tensor("up/scales", DataType::Float, &[4], scales));
                let modes =
                    [("mode", "nearest"), ("coordinate_transformation_mode", "asymmetric"), ("nearest_mode", "floor")];
                let attributes = modes.map(|(name, value)| text(name, value)).to_vec();
                graph.node.push(node("Resize", &name, &[inputs[0], "", "up/scales"], attributes));
            }
            Op::Concat => graph.node.push(node("Concat", &name, &inputs, vec![int("axis", 1)])),
            other => unreachable!("{other:?} is not in the small network"),
        }
    }

    fn conv(&self, graph: &mut GraphProto, index: usize, conv: &Conv, input: &str, name: &str) {
        let weights = self.weights[index].as_ref().unwrap();
        let (from, to) = (self.spec.net.layers[index].inputs[0], index + 1);
        let (channels, side) = (conv.out_channels as i64, conv.kernel[1] as i64);
        let inputs = weights.codes.len() as i64 / channels / (side * side);
        let bytes = weights.codes.iter().map(|&code| code as u8).collect();
        graph.initializer.push(tensor(
            &format!("{name}/weight"),
            DataType::Int8,
            &[channels, inputs, side, side],
            bytes,
        ));
        let scales = weights.scales.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
        graph.initializer.push(tensor(&format!("{name}/steps"), DataType::Float, &[2, channels], scales));
        let biases = weights.biases.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
        graph.initializer.push(tensor(&format!("{name}/biases"), DataType::Int32, &[2, channels], biases));
        let [step, bias] = ["step", "bias"].map(|part| format!("{name}/{part}"));
        graph.node.push(node("Gather", &step, &[&format!("{step}s"), names::MODALITY], vec![]));
        graph.node.push(node("Gather", &bias, &[&format!("{bias}es"), names::MODALITY], vec![]));
        let of = |word: &str, value: usize| format!("{word}{value}");
        let (xs, xz, ys, yz) = (of("scale", from), of("zero", from), of("scale", to), of("zero", to));
        let inputs =
            [input, &xs, &xz, &format!("{name}/weight"), &step, "weights/zero", &ys, &yz, &bias].map(String::from);
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let pad = side / 2;
        let attributes = vec![
            ints("kernel_shape", &[side, side]),
            ints("strides", &[1, 1]),
            ints("dilations", &[1, 1]),
            ints("pads", &[pad; 4]),
            int("group", 1),
        ];
        graph.node.push(node("QLinearConv", name, &inputs, attributes));
    }

    fn value(&self, index: usize) -> String {
        match index {
            0 => names::IMAGE.into(),
            7 => names::LOGITS.into(),
            _ => self.spec.net.layers[index - 1].name.clone(),
        }
    }

    /// The network as nested loops: logit codes `[5, h, w]` of an image.
    pub fn logits(&self, image: &[i8], modality: Modality) -> Vec<i8> {
        let shapes = self.spec.net.shapes().unwrap();
        let mut values = vec![image.to_vec()];
        for (index, layer) in self.spec.net.layers.iter().enumerate() {
            let (from, input, output) = (layer.inputs[0], shapes[layer.inputs[0]], shapes[index + 1]);
            let ([_, h, w], [_, oh, ow]) = (input.size, output.size);
            let x = &values[from];
            let mut out = Vec::with_capacity(output.elements());
            for (c, y, column) in positions(output) {
                out.push(match &layer.op {
                    Op::Conv(conv) => self.conv_at(index, conv, x, input, modality, [c, y, column]),
                    Op::MaxPool { .. } => {
                        (0..4).map(|i| x[(c * h + 2 * y + i / 2) * w + 2 * column + i % 2]).max().unwrap()
                    }
                    Op::Upsample { .. } => x[(c * h + y / 2) * w + column / 2],
                    Op::Concat => {
                        let other = &values[layer.inputs[1]];
                        *x.get((c * oh + y) * ow + column)
                            .unwrap_or_else(|| &other[((c - input.channels) * oh + y) * ow + column])
                    }
                    other => unreachable!("{other:?}"),
                });
            }
            values.push(out);
        }
        values.pop().unwrap()
    }

    fn conv_at(
        &self,
        index: usize,
        conv: &Conv,
        x: &[i8],
        input: Shape,
        modality: Modality,
        [c, y, column]: [usize; 3],
    ) -> i8 {
        let weights = self.weights[index].as_ref().unwrap();
        let ((x_scale, x_zero), (y_scale, y_zero)) = (QUANT[self.spec.net.layers[index].inputs[0]], QUANT[index + 1]);
        let (side, [_, h, w]) = (conv.kernel[1], input.size);
        let mut acc = weights.biases[modality.index()][c];
        for (channel, ky, kx) in positions(Shape::plane(input.channels, side, side)) {
            let (row, col) = ((y + ky).wrapping_sub(side / 2), (column + kx).wrapping_sub(side / 2));
            if row < h && col < w {
                let weight = weights.codes[((c * input.channels + channel) * side + ky) * side + kx];
                acc += (i32::from(x[(channel * h + row) * w + col]) - i32::from(x_zero)) * i32::from(weight);
            }
        }
        let factor = Multiplier::new(x_scale, weights.scales[modality.index()][c], y_scale).unwrap();
        requantise(acc, factor, y_zero)
    }

    /// The class of the largest logit; the lowest index wins.
    pub fn labels(&self, logits: &[i8]) -> Vec<u8> {
        let area = HEIGHT * WIDTH;
        (0..area)
            .map(|pixel| (0..5u8).rev().max_by_key(|&class| logits[usize::from(class) * area + pixel]).unwrap())
            .collect()
    }
}

fn positions(shape: Shape) -> impl Iterator<Item = (usize, usize, usize)> {
    let [_, height, width] = shape.size;
    (0..shape.elements()).map(move |i| (i / (height * width), i / width % height, i % width))
}

fn weights(spec: &ModelSpec, index: usize, state: &mut u64) -> Option<Weights> {
    let layer = &spec.net.layers[index];
    let Op::Conv(conv) = &layer.op else { return None };
    let mut random = |range: i32| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 33) as i32 % range
    };
    let inputs = spec.net.shapes().unwrap()[layer.inputs[0]].channels;
    let fan = inputs * conv.kernel.iter().product::<usize>();
    let codes = (0..conv.out_channels * fan).map(|_| (random(255) - 127) as i8).collect();
    // Outputs then use most of their range.
    let step = 2. * QUANT[index + 1].0 / QUANT[layer.inputs[0]].0 / (fan as f32).sqrt() / 127.;
    let mut scales = || (0..conv.out_channels).map(|_| step * (0.5 + random(1000) as f32 / 1000.)).collect::<Vec<_>>();
    let scales = [scales(), scales()];
    let mut biases = || (0..conv.out_channels).map(|_| random(8000) - 4000).collect();
    Some(Weights { codes, scales, biases: [biases(), biases()] })
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn tensor(name: &str, kind: DataType, dims: &[i64], raw_data: Vec<u8>) -> TensorProto {
    TensorProto { name: name.into(), data_type: kind as i32, dims: dims.to_vec(), raw_data, ..TensorProto::default() }
}

fn node(op: &str, name: &str, inputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        name: name.into(),
        input: inputs.iter().map(|&input| input.into()).collect(),
        output: vec![name.into()],
        attribute,
        ..NodeProto::default()
    }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attribute(name, AttributeType::Ints) }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { i, ..attribute(name, AttributeType::Int) }
}

fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: value.as_bytes().to_vec(), ..attribute(name, AttributeType::String) }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: kind as i32, ..AttributeProto::default() }
}

fn value_info(name: &str, kind: DataType, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|&dim| Dimension { value: Some(Value::DimValue(dim)), ..Dimension::default() }).collect();
    let tensor = type_proto::Tensor { elem_type: kind as i32, shape: Some(TensorShapeProto { dim }) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.into(), r#type: Some(kind), ..ValueInfoProto::default() }
}
