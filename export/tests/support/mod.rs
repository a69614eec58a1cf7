//! A random checkpoint, slices to calibrate on, and networks as nested loops.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{collections::HashMap, path::Path};

use contract::{
    Grid, Intensity, LabelMap, Modality, ModelSpec, Net, VERSION,
    manifest::{CHECKPOINT_KEY, CheckpointMeta, Provenance},
    names::{self, NormParam},
    net::{Activation, Conv, Deconv, Layer, NORM_EPSILON, NormKind, Op, Padding, Shape, Spatial},
    quant::{Multiplier, Sum, requantise},
};
use export::{Checkpoint, calibrate::Sample, quantise::Quantised};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, tensor::TensorView};
use tempfile::TempDir;
use volume::{DatasetWriter, Geometry, Split};

pub type Tensors = HashMap<String, (Vec<usize>, Vec<f32>)>;

pub fn spec(net: Net) -> ModelSpec {
    let grid = Grid { height: net.input.size[1], width: net.input.size[2], spacing_mm: 3. };
    let (labels, intensity) = (LabelMap::abdomen(), Intensity::default());
    ModelSpec { net, labels, grid, intensity, modalities: Modality::ALL.to_vec() }
}

pub fn compact(base: usize, height: usize, width: usize) -> ModelSpec {
    spec(Net::compact(1, 5, base, height, width))
}

/// One of each operation that int8 knows, with stride, dilation and groups, wide and narrow.
pub fn mixed() -> Net {
    let layer = |name: &str, inputs: &[usize], op| Layer { name: name.to_string(), inputs: inputs.to_vec(), op };
    let conv = |channels, kernel| Conv::plane(channels, kernel);
    let head = Conv { bias: true, norm: false, activation: Activation::None, ..Conv::plane(5, 3) };
    let layers = vec![
        layer("a", &[0], Op::Conv(Conv { bias: true, ..conv(17, 3) })),
        layer("b", &[1], Op::Conv(Conv { dilation: [1, 2, 2], ..conv(12, 3) })),
        layer("pool", &[2], Op::MaxPool { size: [1, 2, 2] }),
        layer("c", &[3], Op::Conv(Conv { groups: 4, ..conv(8, 3) })),
        layer("free", &[4], Op::Conv(Conv { activation: Activation::None, ..conv(6, 1) })),
        layer("d", &[5], Op::Conv(conv(9, 1))),
        layer("up", &[6], Op::Upsample { factor: [1, 2, 2] }),
        layer("join", &[7, 2], Op::Concat),
        layer("e", &[8], Op::Conv(Conv { stride: [1, 2, 2], ..conv(10, 3) })),
        layer("head", &[9], Op::Conv(head)),
        layer("beside", &[9], Op::Conv(Conv { activation: Activation::None, ..conv(5, 1) })),
        layer("sum", &[10, 11], Op::Add { activation: Activation::Relu }),
        layer("wide", &[12], Op::Upsample { factor: [1, 2, 2] }),
    ];
    Net { name: "mixed".into(), spatial: Spatial::D2, norm: NormKind::Batch, input: Shape::plane(3, 24, 20), layers }
}

/// Tensors as a trainer would leave them: He-scaled weights, positive gammas and variances of every size.
pub fn tensors(spec: &ModelSpec, seed: u64) -> Tensors {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let shapes = spec.net.shapes().unwrap();
    let depth = if spec.net.spatial == Spatial::D3 { 0 } else { 1 };
    let mut tensors = Tensors::new();
    for (index, layer) in spec.net.layers.iter().enumerate() {
        let (input, output) = (shapes[layer.inputs[0]].channels, shapes[index + 1].channels);
        let weight = match &layer.op {
            Op::Conv(conv) => Some([&[output, input / conv.groups], &conv.kernel[depth..]].concat()),
            Op::Deconv(deconv) => Some([&[input, output], &deconv.kernel[depth..]].concat()),
            _ => None,
        };
        if let Some(shape) = weight {
            let taps = shape.iter().product::<usize>() / shape[0];
            let bound = (6. / taps as f32).sqrt();
            let values = (0..taps * shape[0]).map(|_| rng.random_range(-bound..bound)).collect();
            tensors.insert(names::weight(&layer.name), (shape, values));
        }
        if matches!(&layer.op, Op::Conv(conv) if conv.bias) {
            let values = (0..output).map(|_| rng.random_range(-0.5..0.5)).collect();
            tensors.insert(names::bias(&layer.name), (vec![output], values));
        }
        for modality in spec.modalities.iter().filter(|_| layer.has_norm()) {
            for (param, low, high) in [
                (NormParam::Gamma, 0.3, 1.6),
                (NormParam::Beta, -0.6, 0.6),
                (NormParam::Mean, -0.5, 0.5),
                (NormParam::Var, 0.2, 2.5),
            ] {
                let values = (0..output).map(|_| rng.random_range(low..high)).collect();
                tensors.insert(names::norm(&layer.name, *modality, param), (vec![output], values));
            }
        }
    }
    tensors
}

pub fn checkpoint_bytes(spec: &ModelSpec, tensors: &Tensors) -> Vec<u8> {
    let provenance = Provenance { tool: "test".into(), seed: 7, ..Provenance::default() };
    let meta = CheckpointMeta { contract: VERSION, spec: spec.clone(), provenance };
    let text = serde_json::to_string(&meta).unwrap();
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| {
            (name.clone(), shape.clone(), values.iter().flat_map(|value| value.to_le_bytes()).collect())
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, data)| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    safetensors::serialize(views, Some(HashMap::from([(CHECKPOINT_KEY.to_string(), text)]))).unwrap()
}

pub fn checkpoint(spec: &ModelSpec, tensors: &Tensors) -> Checkpoint {
    Checkpoint::parse(Path::new("test.safetensors"), &checkpoint_bytes(spec, tensors)).unwrap()
}

/// A folder with a checkpoint and two small data sets, `ct` and `mr`.
pub fn workplace(spec: &ModelSpec) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let bytes = checkpoint_bytes(spec, &tensors(spec, 51));
    std::fs::write(folder.path().join("checkpoint.safetensors"), bytes).unwrap();
    let affine = [[2., 0., 0., 0.], [0., 2., 0., 0.], [0., 0., 5., 0.]];
    let geometry = Geometry::new([48, 40, 6], affine).unwrap();
    for modality in Modality::ALL {
        let mut writer =
            DatasetWriter::create(folder.path().join(modality.name()), modality, &LabelMap::abdomen()).unwrap();
        let offset = if modality == Modality::Ct { -500 } else { 0 };
        let raw: Vec<i16> = (0..48 * 40 * 6).map(|i| (i * 7919 % 1009) as i16 + offset).collect();
        writer.add(Split::Train, "one", &geometry, &raw, &vec![0; raw.len()]).unwrap();
        writer.finish().unwrap();
    }
    folder
}

/// Golden codes and flat noise of both modalities.
pub fn samples(spec: &ModelSpec) -> Vec<Sample> {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut samples = vec![];
    for &modality in &spec.modalities {
        let mut codes = vec![0; spec.net.input.elements()];
        contract::golden::codes(modality, spec.grid.height, spec.grid.width, &mut codes);
        samples.push(Sample { modality, codes: codes.clone(), labels: None });
        codes.iter_mut().for_each(|code| *code = rng.random_range(-100..60));
        samples.push(Sample { modality, codes, labels: None });
    }
    samples
}

/// All positions of a box, in row-major order.
fn positions(size: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    let [depth, height, width] = size;
    (0..depth * height * width).map(move |i| [i / (height * width), i / width % height, i % width])
}

fn index(size: [usize; 3], channel: usize, [z, y, x]: [usize; 3]) -> usize {
    ((channel * size[0] + z) * size[1] + y) * size[2] + x
}

/// Visits every tap of every output of a convolution: `(output index, weight index, input index)`; taps on zeros around
/// the image are left out.
fn taps(conv: &Conv, input: Shape, output: Shape, mut visit: impl FnMut(usize, usize, usize)) {
    let (in_group, out_group) = (input.channels / conv.groups, output.channels / conv.groups);
    let source = |position: [usize; 3], tap: [usize; 3], axis: usize| {
        let n = input.size[axis] as isize;
        let at = (position[axis] * conv.stride[axis] + tap[axis] * conv.dilation[axis]) as isize;
        let at = at - conv.pads()[axis] as isize;
        match conv.padding {
            _ if (0..n).contains(&at) => Some(at as usize),
            Padding::Zero => None,
            Padding::Symmetric => Some(if at < 0 { -1 - at } else { 2 * n - 1 - at } as usize),
        }
    };
    for (channel, position) in (0..output.channels).flat_map(|c| positions(output.size).map(move |p| (c, p))) {
        for (tap, k) in positions(conv.kernel).zip(0..) {
            let [Some(z), Some(y), Some(x)] = [0, 1, 2].map(|axis| source(position, tap, axis)) else { continue };
            for c in 0..in_group {
                let weight = (channel * in_group + c) * conv.kernel.iter().product::<usize>() + k;
                let from = index(input.size, channel / out_group * in_group + c, [z, y, x]);
                visit(index(output.size, channel, position), weight, from);
            }
        }
    }
}

/// Pooling, up-sampling, joining and the like: values that only move.
fn moved<T: Copy + PartialOrd + Default>(op: &Op, inputs: &[(Shape, &Vec<T>)], output: Shape) -> Vec<T> {
    let (shape, values) = inputs[0];
    let at = |channel: usize, position: [usize; 3]| values[index(shape.size, channel, position)];
    let value = |(c, p): (usize, [usize; 3])| match op {
        Op::Upsample { factor } => at(c, [0, 1, 2].map(|axis| p[axis] / factor[axis])),
        Op::MaxPool { size } => {
            let inside = positions(*size).map(|q| at(c, [0, 1, 2].map(|axis| p[axis] * size[axis] + q[axis])));
            inside.reduce(|a, b| if b > a { b } else { a }).unwrap()
        }
        Op::PixelShuffle { factor: f } => at((c * f + p[1] % f) * f + p[2] % f, [0, p[1] / f, p[2] / f]),
        Op::PadChannels { front, .. } if c < *front || c >= front + shape.channels => T::default(),
        Op::PadChannels { front, .. } => at(c - front, p),
        other => panic!("{other:?} computes"),
    };
    match op {
        Op::Concat => inputs.iter().flat_map(|(_, values)| values.iter().copied()).collect(),
        _ => (0..output.channels).flat_map(|c| positions(output.size).map(move |p| (c, p))).map(value).collect(),
    }
}

/// Every value of the network as trained: convolution, bias, then the norm written out, in f64.
pub fn unfolded(spec: &ModelSpec, tensors: &Tensors, modality: Modality, image: &[f32]) -> Vec<Vec<f64>> {
    let shapes = spec.net.shapes().unwrap();
    let mut values: Vec<Vec<f64>> = vec![image.iter().map(|&value| f64::from(value)).collect()];
    for (number, layer) in spec.net.layers.iter().enumerate() {
        let (input, output) = (shapes[layer.inputs[0]], shapes[number + 1]);
        let source = &values[layer.inputs[0]];
        let weights = tensors.get(&names::weight(&layer.name)).map_or(&[][..], |tensor| &tensor.1);
        let weight = |w: usize| f64::from(weights[w]);
        let mut sums = vec![0f64; output.elements()];
        let activation = match &layer.op {
            Op::Conv(conv) => {
                taps(conv, input, output, |out, w, x| sums[out] += weight(w) * source[x]);
                conv.activation
            }
            Op::Deconv(deconv) => {
                spread(deconv, input, output, |out, w, x| sums[out] += weight(w) * source[x]);
                deconv.activation
            }
            Op::Norm { activation } => {
                sums.clone_from(source);
                *activation
            }
            Op::Add { activation } => {
                sums = source.iter().zip(&values[layer.inputs[1]]).map(|(a, b)| a + b).collect();
                *activation
            }
            op => {
                let inputs: Vec<_> = layer.inputs.iter().map(|&value| (shapes[value], &values[value])).collect();
                sums = moved(op, &inputs, output);
                Activation::None
            }
        };
        finish(layer, activation, tensors, modality, output, &mut sums);
        values.push(sums);
    }
    values
}

/// As [`taps`], of a transposed convolution: each input spreads its kernel, and what lies beyond `stride * n` is cut.
fn spread(deconv: &Deconv, input: Shape, output: Shape, mut visit: impl FnMut(usize, usize, usize)) {
    let kernel: usize = deconv.kernel.iter().product();
    for (c, position) in (0..input.channels).flat_map(|c| positions(input.size).map(move |p| (c, p))) {
        for (tap, k) in positions(deconv.kernel).zip(0..) {
            let to = [0, 1, 2].map(|axis| position[axis] * deconv.stride[axis] + tap[axis]);
            if (0..3).any(|axis| to[axis] >= output.size[axis]) {
                continue;
            }
            for channel in 0..output.channels {
                let weight = (c * output.channels + channel) * kernel + k;
                visit(index(output.size, channel, to), weight, index(input.size, c, position));
            }
        }
    }
}

fn finish(
    layer: &Layer,
    activation: Activation,
    tensors: &Tensors,
    modality: Modality,
    shape: Shape,
    sums: &mut [f64],
) {
    for (number, channel) in sums.chunks_exact_mut(shape.pixels()).enumerate() {
        let vector = |name: String| f64::from(tensors[&name].1[number]);
        let bias = if tensors.contains_key(&names::bias(&layer.name)) { vector(names::bias(&layer.name)) } else { 0. };
        let norm =
            layer.has_norm().then(|| NormParam::ALL.map(|param| vector(names::norm(&layer.name, modality, param))));
        for sum in channel {
            *sum += bias;
            if let Some([gamma, beta, mean, var]) = norm {
                *sum = gamma * (*sum - mean) / (var + f64::from(NORM_EPSILON)).sqrt() + beta;
            }
            *sum = match activation {
                Activation::None => *sum,
                Activation::Relu => sum.max(0.),
                Activation::LeakyRelu(slope) => sum.max(f64::from(slope) * *sum),
            };
        }
    }
}

/// Every value of the int8 network by the one rounding rule; `row` is the branch.
pub fn int8(spec: &ModelSpec, quantised: &Quantised, row: usize, image: &[i8]) -> Vec<Vec<i8>> {
    let shapes = spec.net.shapes().unwrap();
    let mut values = vec![image.to_vec()];
    for (index, layer) in spec.net.layers.iter().enumerate() {
        let (input, output) = (shapes[layer.inputs[0]], shapes[index + 1]);
        let next = match &layer.op {
            Op::Conv(conv) => {
                let codes = quantised.convs[index].as_ref().unwrap();
                let (x, y) = (quantised.group(layer.inputs[0]), quantised.group(index + 1));
                let bias = &codes.biases[row];
                let mut sums: Vec<i32> = (0..output.elements()).map(|index| bias[index / output.pixels()]).collect();
                let source = &values[layer.inputs[0]];
                taps(conv, input, output, |out, w, i| {
                    sums[out] += i32::from(codes.weights[w]) * (i32::from(source[i]) - i32::from(x.zero_point));
                });
                let code = |(index, &sum): (usize, &i32)| {
                    let scale = codes.scales[row][index / output.pixels()];
                    requantise(sum, Multiplier::new(x.scales[row], scale, y.scales[row]).unwrap(), y.zero_point)
                };
                sums.iter().enumerate().map(code).collect()
            }
            Op::Add { .. } => {
                let [a, b, y] = [layer.inputs[0], layer.inputs[1], index + 1].map(|value| quantised.group(value));
                let sum = Sum::new(a.scales[row], b.scales[row], y.scales[row]).unwrap();
                let above = |code: i8, zero: i8| i32::from(code) - i32::from(zero);
                let pairs = values[layer.inputs[0]].iter().zip(&values[layer.inputs[1]]);
                let code = |(&x, &z)| sum.code(above(x, a.zero_point), above(z, b.zero_point), y.zero_point);
                pairs.map(code).collect()
            }
            op => {
                let inputs: Vec<_> = layer.inputs.iter().map(|&value| (shapes[value], &values[value])).collect();
                moved(op, &inputs, output)
            }
        };
        values.push(next);
    }
    values
}

/// First class with the largest logit, per pixel.
pub fn argmax(logits: &[i8], classes: usize) -> Vec<i8> {
    let pixels = logits.len() / classes;
    let best = |pixel: usize| {
        let logit = |class: usize| logits[class * pixels + pixel];
        (0..classes).fold(0, |best, class| if logit(class) > logit(best) { class } else { best }) as i8
    };
    (0..pixels).map(best).collect()
}
