//! Checkpoints: read for the reference network, and made at random for tests of everything behind training.

use std::{collections::BTreeMap, error::Error, path::Path};

use contract::{
    Grid, Intensity, LabelMap, Modality, ModelSpec, Net, VERSION,
    manifest::{CHECKPOINT_KEY, CheckpointMeta, Provenance},
    names::{self, NormParam},
    net::{Layer, Op, Spatial},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// A tensor's sizes and values.
type Tensor = (Vec<usize>, Vec<f32>);

/// The tensors of a checkpoint by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensors(BTreeMap<String, Tensor>);

impl Tensors {
    /// The values of a tensor, row-major.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn get(&self, name: &str) -> &[f32] {
        &self.0.get(name).unwrap_or_else(|| panic!("no tensor '{name}'")).1
    }

    /// Lets a test choose what chance would not.
    pub fn get_mut(&mut self, name: &str) -> &mut [f32] {
        &mut self.0.get_mut(name).unwrap_or_else(|| panic!("no tensor '{name}'")).1
    }

    /// Reads `checkpoint.safetensors`.
    pub fn read(path: &Path) -> Result<(CheckpointMeta, Self), Box<dyn Error>> {
        let bytes = std::fs::read(path)?;
        let (_, header) = SafeTensors::read_metadata(&bytes)?;
        let text = header.metadata().as_ref().and_then(|map| map.get(CHECKPOINT_KEY)).ok_or("no metadata")?;
        let mut tensors = BTreeMap::new();
        for (name, view) in SafeTensors::deserialize(&bytes)?.iter() {
            let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            tensors.insert(name.to_string(), (view.shape().to_vec(), values));
        }
        Ok((serde_json::from_str(text)?, Self(tensors)))
    }

    /// Writes `checkpoint.safetensors`.
    pub fn write(&self, spec: &ModelSpec, path: &Path) -> Result<(), Box<dyn Error>> {
        let provenance = Provenance { tool: "random weights of the tests".into(), ..Provenance::default() };
        let meta = CheckpointMeta { contract: VERSION, spec: spec.clone(), provenance };
        let bytes: Vec<Vec<u8>> =
            self.0.values().map(|(_, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
        let mut views = vec![];
        for ((name, (sizes, _)), bytes) in self.0.iter().zip(&bytes) {
            views.push((name, TensorView::new(Dtype::F32, sizes.clone(), bytes)?));
        }
        let info = [(CHECKPOINT_KEY.to_string(), serde_json::to_string(&meta)?)].into();
        std::fs::write(path, safetensors::serialize(views, Some(info))?)?;
        Ok(())
    }
}

/// A model around a network: labels and grid that fit it, the default intensity rules, 3 mm pixels.
///
/// # Panics
/// If the network is none.
pub fn spec(net: Net, modalities: &[Modality]) -> ModelSpec {
    let classes = net.classes().expect("a network");
    let labels = match LabelMap::abdomen() {
        labels if labels.classes() == classes => labels,
        _ => LabelMap::new(&vec![("organ", [200, 80, 80]); classes - 1]),
    };
    let [_, height, width] = net.input.size;
    let grid = Grid { height, width, spacing_mm: 3. };
    ModelSpec { net, labels, grid, intensity: Intensity::default(), modalities: modalities.to_vec() }
}

/// Weights from which signals neither vanish nor explode, and norms that differ between the modalities in every vector.
///
/// # Panics
/// If the network is none.
pub fn random(net: &Net, modalities: &[Modality], seed: u64) -> Tensors {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let shapes = net.shapes().expect("a network");
    let mut tensors = BTreeMap::new();
    for (layer, output) in net.layers.iter().zip(&shapes[1..]) {
        let channels = output.channels;
        if let Some((sizes, fan_in)) = weight_sizes(layer, shapes[layer.inputs[0]].channels, net.spatial) {
            // He's bound for a uniform distribution: variance 2 / fan in.
            let bound = (6. / fan_in as f32).sqrt();
            tensors.insert(names::weight(&layer.name), uniform(&mut rng, sizes, -bound, bound));
        }
        if matches!(&layer.op, Op::Conv(conv) if conv.bias) {
            tensors.insert(names::bias(&layer.name), uniform(&mut rng, vec![channels], -0.5, 0.5));
        }
        for &modality in modalities.iter().filter(|_| layer.has_norm()) {
            for param in NormParam::ALL {
                let (low, high) = match param {
                    NormParam::Gamma => (0.5, 1.5),
                    NormParam::Beta | NormParam::Mean => (-0.4, 0.4),
                    NormParam::Var => (0.5, 2.),
                };
                let name = names::norm(&layer.name, modality, param);
                tensors.insert(name, uniform(&mut rng, vec![channels], low, high));
            }
        }
    }
    Tensors(tensors)
}

/// Codes of one image: a blob on a ground, and noise.
pub fn image(net: &Net, seed: u64) -> Vec<i8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let [_, height, width] = net.input.size;
    let (row, column) = (rng.random_range(0..height), rng.random_range(0..width));
    let code = |index: usize| {
        let (y, x) = (index / width % height, index % width);
        let blob = if y.abs_diff(row) + x.abs_diff(column) < height.min(width) / 2 { 70 } else { -70 };
        (blob + rng.random_range(-90..=90)).clamp(-128, 127) as i8
    };
    (0..net.input.elements()).map(code).collect()
}

fn weight_sizes(layer: &Layer, inputs: usize, spatial: Spatial) -> Option<(Vec<usize>, usize)> {
    let (first, second, kernel, fan_in) = match &layer.op {
        Op::Conv(conv) => (conv.out_channels, inputs / conv.groups, conv.kernel, inputs / conv.groups),
        Op::Deconv(deconv) => (inputs, deconv.out_channels, deconv.kernel, inputs),
        _ => return None,
    };
    let axes = match spatial {
        Spatial::D2 => &kernel[1..],
        Spatial::D3 => &kernel[..],
    };
    let sizes = [first, second].iter().chain(axes).copied().collect();
    Some((sizes, fan_in * kernel.iter().product::<usize>()))
}

fn uniform(rng: &mut ChaCha8Rng, sizes: Vec<usize>, low: f32, high: f32) -> Tensor {
    let values = (0..sizes.iter().product()).map(|_| rng.random_range(low..high)).collect();
    (sizes, values)
}
