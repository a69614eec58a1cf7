//! A random checkpoint, slices to calibrate on, and networks as nested loops.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{collections::HashMap, path::Path};

use contract::{
    Grid, Intensity, LabelMap, Modality, ModelSpec, Net, VERSION,
    manifest::{CHECKPOINT_KEY, CheckpointMeta, Provenance},
    names::{self, NormParam},
    net::{Activation, Conv, Layer, NORM_EPSILON, Op, Shape},
    quant::{Multiplier, requantise},
};
use export::{Checkpoint, calibrate::Sample, quantise::Quantised};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, tensor::TensorView};

pub type Tensors = HashMap<String, (Vec<usize>, Vec<f32>)>;

pub fn spec(net: Net) -> ModelSpec {
    let grid = Grid { height: net.input.size[1], width: net.input.size[2], spacing_mm: 3. };
    let (labels, intensity) = (LabelMap::abdomen(), Intensity::default());
    ModelSpec { net, labels, grid, intensity, modalities: Modality::ALL.to_vec() }
}

pub fn compact(base: usize, height: usize, width: usize) -> ModelSpec {
    spec(Net::compact(1, 5, base, height, width))
}

/// Tensors as a trainer would leave them: He-scaled weights, positive gammas and variances of every size.
pub fn tensors(spec: &ModelSpec, seed: u64) -> Tensors {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let shapes = spec.net.shapes().unwrap();
    let depth = if spec.net.spatial == contract::net::Spatial::D3 { 0 } else { 1 };
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

/// Golden codes and flat noise of both modalities.
pub fn samples(spec: &ModelSpec) -> Vec<Sample> {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut samples = vec![];
    for &modality in &spec.modalities {
        let mut codes = vec![0; spec.net.input.elements()];
        contract::golden::codes(modality, spec.grid.height, spec.grid.width, &mut codes);
        samples.push(Sample { modality, codes: codes.clone() });
        codes.iter_mut().for_each(|code| *code = rng.random_range(-100..60));
        samples.push(Sample { modality, codes });
    }
    samples
}

/// Visits every tap of every output of a zero-padded 2D convolution: `(output index, channel, weight index, input index)`;
/// taps outside the image are left out.
fn taps(conv: &Conv, input: Shape, output: Shape, mut visit: impl FnMut(usize, usize, usize, usize)) {
    let (in_group, out_group) = (input.channels / conv.groups, output.channels / conv.groups);
    let [[_, height, width], [_, out_height, out_width]] = [input.size, output.size];
    let ([_, kh, kw], [_, sh, sw], [_, dh, dw], [_, ph, pw]) = (conv.kernel, conv.stride, conv.dilation, conv.pads());
    for channel in 0..output.channels {
        for (row, column) in (0..out_height).flat_map(|row| (0..out_width).map(move |column| (row, column))) {
            for c in 0..in_group {
                for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                    let (y, x) = (row * sh + ky * dh, column * sw + kx * dw);
                    if y < ph || x < pw || y - ph >= height || x - pw >= width {
                        continue;
                    }
                    let source = channel / out_group * in_group + c;
                    visit(
                        (channel * out_height + row) * out_width + column,
                        channel,
                        ((channel * in_group + c) * kh + ky) * kw + kx,
                        (source * height + y - ph) * width + x - pw,
                    );
                }
            }
        }
    }
}

/// Pooling, up-sampling and joining: each output is the largest of some inputs.
fn moved<T: Copy + PartialOrd>(op: &Op, inputs: &[(&Shape, &Vec<T>)], output: Shape) -> Vec<T> {
    let (shape, values) = inputs[0];
    let [_, height, width] = output.size;
    let at = |c: usize, y: usize, x: usize| values[(c * shape.size[1] + y) * shape.size[2] + x];
    let pixel = |index: usize| {
        let (c, y, x) = (index / (height * width), index / width % height, index % width);
        match op {
            Op::Upsample { factor } => at(c, y / factor[1], x / factor[2]),
            Op::MaxPool { size } => {
                let block = (0..size[1]).flat_map(|i| (0..size[2]).map(move |j| (i, j)));
                let values = block.map(|(i, j)| at(c, y * size[1] + i, x * size[2] + j));
                values.reduce(|a, b| if b > a { b } else { a }).unwrap()
            }
            other => panic!("{other:?} is not in the test's networks"),
        }
    };
    match op {
        Op::Concat => inputs.iter().flat_map(|(_, values)| values.iter().copied()).collect(),
        _ => (0..output.elements()).map(pixel).collect(),
    }
}

/// Every value of the network as trained: convolution, bias, then the norm written out, in f64.
pub fn unfolded(spec: &ModelSpec, tensors: &Tensors, modality: Modality, image: &[f32]) -> Vec<Vec<f64>> {
    let shapes = spec.net.shapes().unwrap();
    let mut values: Vec<Vec<f64>> = vec![image.iter().map(|&value| f64::from(value)).collect()];
    for (index, layer) in spec.net.layers.iter().enumerate() {
        let (input, output) = (shapes[layer.inputs[0]], shapes[index + 1]);
        let next = match &layer.op {
            Op::Conv(conv) => {
                let weight = &tensors[&names::weight(&layer.name)].1;
                let mut sums = vec![0f64; output.elements()];
                let source = &values[layer.inputs[0]];
                taps(conv, input, output, |out, _, w, x| sums[out] += f64::from(weight[w]) * source[x]);
                finish(layer, conv, tensors, modality, output, &mut sums);
                sums
            }
            op => {
                let inputs: Vec<_> = layer.inputs.iter().map(|&value| (&shapes[value], &values[value])).collect();
                moved(op, &inputs, output)
            }
        };
        values.push(next);
    }
    values
}

fn finish(layer: &Layer, conv: &Conv, tensors: &Tensors, modality: Modality, shape: Shape, sums: &mut [f64]) {
    let vector = |name: String, channel: usize| f64::from(tensors[&name].1[channel]);
    for (index, sum) in sums.iter_mut().enumerate() {
        let channel = index / shape.pixels();
        if conv.bias {
            *sum += vector(names::bias(&layer.name), channel);
        }
        if conv.norm {
            let of = |param| vector(names::norm(&layer.name, modality, param), channel);
            let deviation = (of(NormParam::Var) + f64::from(NORM_EPSILON)).sqrt();
            *sum = of(NormParam::Gamma) * (*sum - of(NormParam::Mean)) / deviation + of(NormParam::Beta);
        }
        if conv.activation == Activation::Relu {
            *sum = sum.max(0.);
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
                taps(conv, input, output, |out, _, w, i| {
                    sums[out] += i32::from(codes.weights[w]) * (i32::from(source[i]) - i32::from(x.zero_point));
                });
                let code = |(index, &sum): (usize, &i32)| {
                    let scale = codes.scales[row][index / output.pixels()];
                    requantise(sum, Multiplier::new(x.scales[row], scale, y.scales[row]).unwrap(), y.zero_point)
                };
                sums.iter().enumerate().map(code).collect()
            }
            op => {
                let inputs: Vec<_> = layer.inputs.iter().map(|&value| (&shapes[value], &values[value])).collect();
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
