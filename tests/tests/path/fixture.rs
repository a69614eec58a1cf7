//! Random networks, exported. Made once for all tests of this program.

use std::{fs, path::PathBuf, sync::LazyLock};

use contract::{
    Modality, ModelSpec, Net,
    net::{Activation, Conv, Layer, Op, Padding, Shape, Spatial},
};
use export::{
    Checkpoint, Folded,
    calibrate::{Method, Sample},
    export_float,
    int8::Format,
    onnx::encode,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;
use tests::checkpoint::{self, Tensors};

/// A network, its checkpoint's tensors and its files.
pub struct Exported {
    pub spec: ModelSpec,
    pub tensors: Tensors,
    pub f32: PathBuf,
    /// Absent where the network has no int8 form.
    pub int8: Option<PathBuf>,
    pub seed: u64,
    _folder: TempDir,
}

impl Exported {
    /// A calibrated network goes through both files.
    pub fn new(net: Net, modalities: &[Modality], seed: u64) -> Self {
        let mut this = Self::float(net, modalities, seed);
        let samples: Vec<Sample> = modalities
            .iter()
            .flat_map(|&modality| (0..2).map(move |image| (modality, 100 + image)))
            .map(|(modality, image)| Sample { modality, codes: this.image(modality, image) })
            .collect();
        let export = export::export(&this.folded(), &samples, Method::MinMax, Format::Qoperator, || ()).unwrap();
        let path = this.f32.with_file_name("model.onnx");
        fs::write(&path, export.int8).unwrap();
        fs::write(&this.f32, export.float).unwrap();
        this.int8 = Some(path);
        this
    }

    /// Only the f32 file.
    pub fn float(net: Net, modalities: &[Modality], seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (tensors, spec) = (checkpoint::random(&net, modalities, seed), checkpoint::spec(net, modalities));
        tensors.write(&spec, &folder.path().join("checkpoint.safetensors")).unwrap();
        let f32 = folder.path().join("model.f32.onnx");
        let this = Self { spec, tensors, f32, int8: None, seed, _folder: folder };
        fs::write(&this.f32, encode(&export_float(&this.folded()))).unwrap();
        this
    }

    fn folded(&self) -> Folded {
        let path = self.f32.with_file_name("checkpoint.safetensors");
        Folded::new(&Checkpoint::read(&path).unwrap()).unwrap()
    }

    /// Codes of blobs and noise; `image` 0 and up are other images than those that calibrated.
    pub fn image(&self, modality: Modality, image: u64) -> Vec<i8> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed << 32 | image << 1 | modality.index() as u64);
        let [_, height, width] = self.spec.net.input.size;
        let (row, column) = (rng.random_range(0..height), rng.random_range(0..width));
        let code = |index: usize| {
            let (y, x) = (index / width % height, index % width);
            let blob = if y.abs_diff(row) + x.abs_diff(column) < height.min(width) / 2 { 70 } else { -70 };
            (blob + rng.random_range(-90..=90)).clamp(-128, 127) as i8
        };
        (0..self.spec.net.input.elements()).map(code).collect()
    }
}

/// The reals that image codes stand for.
pub fn reals(spec: &ModelSpec, codes: &[i8]) -> Vec<f32> {
    codes.iter().map(|&code| spec.intensity.scale * f32::from(code)).collect()
}

/// Networks with an int8 form: odd widths, one and three slices, and every kind of convolution. The last is as large as
/// the product's.
pub static INT8: LazyLock<Vec<Exported>> = LazyLock::new(|| {
    let both = &Modality::ALL;
    vec![
        Exported::new(Net::compact(1, 5, 4, 32, 48), both, 1),
        Exported::new(Net::compact(3, 5, 5, 48, 32), both, 2),
        Exported::new(Net::compact(1, 3, 7, 16, 80), both, 3),
        Exported::new(Net::compact(3, 4, 8, 64, 64), both, 4),
        Exported::new(convolutions(), both, 5),
        Exported::new(Net::compact(1, 5, 16, 128, 128), both, 6),
    ]
});

/// Networks whose f32 file is compared: every operation of the contract.
pub static FLOAT: LazyLock<Vec<Exported>> = LazyLock::new(|| {
    let both = &Modality::ALL;
    vec![
        Exported::float(Net::compact(3, 5, 6, 32, 48), both, 11),
        Exported::float(convolutions(), both, 12),
        Exported::float(pre_activated(), both, 13),
        Exported::float(Net::unet3d(5, 8, 16, 24), both, 14),
    ]
});

fn layer(name: &str, inputs: &[usize], op: Op) -> Layer {
    Layer { name: name.to_string(), inputs: inputs.to_vec(), op }
}

/// Neither norm nor activation.
fn plain(channels: usize, kernel: usize) -> Conv {
    Conv { norm: false, activation: Activation::None, ..Conv::plane(channels, kernel) }
}

/// Stride, dilation, groups and a bias beside a norm.
fn convolutions() -> Net {
    let layers = vec![
        layer("wide", &[0], Op::Conv(Conv { bias: true, ..Conv::plane(6, 5) })),
        layer("dilated", &[1], Op::Conv(Conv { dilation: [1, 3, 2], ..Conv::plane(8, 3) })),
        layer("grouped", &[2], Op::Conv(Conv { groups: 2, ..Conv::plane(10, 3) })),
        layer("strided", &[3], Op::Conv(Conv { stride: [1, 2, 2], ..Conv::plane(9, 3) })),
        layer("up", &[4], Op::Upsample { factor: [1, 2, 2] }),
        layer("join", &[5, 3], Op::Concat),
        layer("head", &[6], Op::Conv(Conv { bias: true, ..plain(4, 1) })),
    ];
    Net { name: "convolutions".into(), spatial: Spatial::D2, input: Shape::plane(3, 22, 38), layers }
}

/// All that the paper's 2D network is made of, in few weights.
fn pre_activated() -> Net {
    let leaky = Activation::LeakyRelu(0.2);
    let layers = vec![
        layer("stem", &[0], Op::Conv(plain(6, 3))),
        layer("pre", &[1], Op::Norm { activation: leaky }),
        layer("a", &[2], Op::Conv(Conv { activation: leaky, ..Conv::plane(10, 3) })),
        layer("b", &[3], Op::Conv(Conv { dilation: [1, 2, 2], ..plain(10, 3) })),
        layer("pad", &[1], Op::PadChannels { front: 1, back: 3 }),
        layer("sum", &[5, 4], Op::Add { activation: Activation::None }),
        layer("pool", &[6], Op::MaxPool { size: [1, 2, 2] }),
        layer(
            "mirrored",
            &[7],
            Op::Conv(Conv { padding: Padding::Symmetric, activation: leaky, ..Conv::plane(28, 3) }),
        ),
        layer("shuffle", &[8], Op::PixelShuffle { factor: 2 }),
        layer("head", &[9], Op::Conv(Conv { padding: Padding::Symmetric, ..plain(5, 5) })),
    ];
    Net { name: "pre-activated".into(), spatial: Spatial::D2, input: Shape::plane(3, 14, 22), layers }
}
