//! Random networks, exported. Made once for all tests of this program.

use std::{fs, path::PathBuf, sync::LazyLock};

use contract::{
    Modality, ModelSpec, Net,
    net::{Activation, Conv, Deconv, Layer, NormKind, Op, Padding, Shape, Spatial},
};
use export::{
    Checkpoint, Folded,
    calibrate::{Method, Sample},
    export_float,
    int8::Format,
    onnx::encode,
};
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
            .map(|(modality, image)| Sample { modality, codes: this.image(modality, image), labels: None })
            .collect();
        let export =
            export::export(&this.folded(), &samples, &Method::MinMax.into(), Format::Qoperator, |_| ()).unwrap();
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
        checkpoint::image(&self.spec.net, self.seed << 32 | image << 1 | modality.index() as u64)
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
        Exported::new(Net::compact_dilated(3, 5, 4, 32, 48), both, 21),
        Exported::new(Net::compact_dilated(1, 4, 6, 48, 24), both, 22),
        Exported::new(sums(), both, 23),
        Exported::new(Net::compact3d(5, 4, 8, 16, 8), both, 24),
        Exported::new(volume(), both, 25),
        Exported::new(pre_activated(), both, 26),
        Exported::new(Net::dilated2d(5, 2, 16, 24), both, 27),
        Exported::new(interpolated(), both, 28),
        Exported::new(interpolated_volume(), both, 29),
        Exported::new(Net::unet3d(5, 2, 8, 16, 16), both, 30),
        Exported::new(transposed(), both, 32),
        Exported::new(transposed_volume(), both, 33),
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
        Exported::float(Net::unet3d(5, 4, 8, 16, 24), both, 14),
        Exported::float(sums(), both, 15),
        Exported::float(Net::compact3d(5, 4, 8, 16, 24), both, 16),
        Exported::float(interpolated(), both, 17),
        Exported::float(interpolated_volume(), both, 18),
        Exported::float(transposed(), both, 19),
        Exported::float(Net::dilated2d(5, 2, 16, 24), both, 34),
        Exported::float(transposed_volume(), both, 20),
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
    Net {
        name: "convolutions".into(),
        spatial: Spatial::D2,
        norm: NormKind::Batch,
        input: Shape::plane(3, 22, 38),
        layers,
    }
}

/// Sums in chains, of one value with itself, of pooled and of joined values, with and without ReLU.
fn sums() -> Net {
    let add = |activation| Op::Add { activation };
    let layers = vec![
        layer("stem", &[0], Op::Conv(Conv::plane(6, 3))),
        layer("a", &[1], Op::Conv(plain(6, 3))),
        layer("chain1", &[1, 2], add(Activation::None)),
        layer("b", &[3], Op::Conv(Conv::plane(6, 3))),
        layer("chain2", &[4, 3], add(Activation::Relu)),
        layer("pool", &[5], Op::MaxPool { size: [1, 2, 2] }),
        layer("c", &[6], Op::Conv(Conv { dilation: [1, 2, 2], norm: false, bias: true, ..plain(6, 3) })),
        layer("chain3", &[6, 7], add(Activation::Relu)),
        layer("twice", &[8, 8], add(Activation::Relu)),
        layer("up", &[9], Op::Upsample { factor: [1, 2, 2] }),
        layer("join", &[10, 5], Op::Concat),
        layer("wide", &[11], Op::Conv(Conv { activation: Activation::None, ..Conv::plane(12, 1) })),
        layer("far", &[11, 12], add(Activation::None)),
        layer("head", &[13], Op::Conv(Conv { bias: true, ..plain(5, 1) })),
        layer("other", &[11], Op::Conv(Conv { bias: true, ..plain(5, 3) })),
        layer("last", &[14, 15], add(Activation::None)),
    ];
    Net { name: "sums".into(), spatial: Spatial::D2, norm: NormKind::Batch, input: Shape::plane(3, 18, 26), layers }
}

/// Every operation of int8 in 3D, with kernels, strides, dilations and factors that differ between the axes.
fn volume() -> Net {
    let flat = Conv { kernel: [1, 3, 3], ..Conv::plane(5, 3) };
    let deep = Conv { kernel: [3, 1, 3], dilation: [2, 1, 1], groups: 5, ..Conv::plane(5, 3) };
    let strided = Conv { kernel: [3; 3], stride: [1, 2, 1], dilation: [1, 1, 2], ..Conv::plane(6, 3) };
    let straight = Conv { activation: Activation::None, stride: [1, 2, 1], ..Conv::plane(6, 1) };
    let layers = vec![
        layer("flat", &[0], Op::Conv(flat)),
        layer("deep", &[1], Op::Conv(deep)),
        layer("strided", &[2], Op::Conv(strided)),
        layer("straight", &[2], Op::Conv(straight)),
        layer("sum", &[3, 4], Op::Add { activation: Activation::Relu }),
        layer("pool", &[5], Op::MaxPool { size: [2, 1, 3] }),
        layer("up", &[6], Op::Upsample { factor: [2, 2, 3] }),
        layer("join", &[7, 2], Op::Concat),
        layer("head", &[8], Op::Conv(Conv { bias: true, kernel: [3, 3, 1], ..plain(4, 3) })),
    ];
    Net {
        name: "volume".into(),
        spatial: Spatial::D3,
        norm: NormKind::Batch,
        input: Shape { channels: 2, size: [4, 6, 9] },
        layers,
    }
}

/// Linear up-sampling of pooled, leaked and joined values and of other up-samplings, joined, summed and as the last layer.
fn interpolated() -> Net {
    let by = |factor| Op::Interpolate { factor };
    let layers = vec![
        layer("stem", &[0], Op::Conv(Conv::plane(6, 3))),
        layer("down", &[1], Op::Conv(Conv { stride: [1, 2, 2], ..Conv::plane(10, 3) })),
        layer("up", &[2], by([1, 2, 2])),
        layer("join", &[1, 3], Op::Concat),
        layer("mix", &[4], Op::Conv(Conv { activation: Activation::LeakyRelu(0.2), ..Conv::plane(9, 3) })),
        layer("pool", &[5], Op::MaxPool { size: [1, 2, 3] }),
        layer("up2", &[6], by([1, 1, 3])),
        layer("up3", &[7], by([1, 2, 1])),
        layer("branch", &[8], Op::Conv(plain(9, 3))),
        layer("sum", &[8, 9], Op::Add { activation: Activation::None }),
        layer("pool2", &[10], Op::MaxPool { size: [1, 4, 8] }),
        layer("pre", &[11], Op::Norm { activation: Activation::Relu }),
        layer("wide", &[12], by([1, 4, 1])),
        layer("head", &[13], Op::Conv(Conv { bias: true, ..plain(4, 3) })),
        layer("last", &[14], by([1, 1, 8])),
    ];
    Net {
        name: "interpolated".into(),
        spatial: Spatial::D2,
        norm: NormKind::Batch,
        input: Shape::plane(3, 20, 48),
        layers,
    }
}

/// Twice down by a pool and up again by linear up-sampling of the same factor, before a convolution and before a join.
pub fn interpolated_by(factor: [usize; 3]) -> Net {
    let (spatial, depth) = if factor[0] == 1 { (Spatial::D2, 1) } else { (Spatial::D3, 2) };
    let size = [depth * factor[0], 5 * factor[1], 6 * factor[2]];
    let layers = vec![
        layer("pool", &[0], Op::MaxPool { size: factor }),
        layer("a", &[1], Op::Conv(Conv::plane(5, 3))),
        layer("up", &[2], Op::Interpolate { factor }),
        layer("mix", &[3], Op::Conv(plain(6, 3))),
        layer("pool2", &[4], Op::MaxPool { size: factor }),
        layer("b", &[5], Op::Conv(plain(7, 1))),
        layer("up2", &[6], Op::Interpolate { factor }),
        layer("join", &[7, 4], Op::Concat),
        layer("head", &[8], Op::Conv(Conv { bias: true, ..plain(4, 1) })),
    ];
    Net {
        name: format!("interpolated by {factor:?}"),
        spatial,
        norm: NormKind::Batch,
        input: Shape { channels: 2, size },
        layers,
    }
}

/// Linear up-sampling along all axes and along the depth alone.
fn interpolated_volume() -> Net {
    let unit = Conv { kernel: [3; 3], ..Conv::plane(5, 3) };
    let layers = vec![
        layer("stem", &[0], Op::Conv(unit.clone())),
        layer("pool", &[1], Op::MaxPool { size: [2; 3] }),
        layer("a", &[2], Op::Conv(unit.clone())),
        layer("up", &[3], Op::Interpolate { factor: [2; 3] }),
        layer("join", &[4, 1], Op::Concat),
        layer("b", &[5], Op::Conv(Conv { stride: [2, 3, 1], ..unit })),
        layer("flat", &[6], Op::Interpolate { factor: [1, 3, 1] }),
        layer("deep", &[7], Op::Interpolate { factor: [2, 1, 1] }),
        layer("head", &[8], Op::Conv(Conv { bias: true, kernel: [1, 3, 3], ..plain(4, 3) })),
    ];
    Net {
        name: "interpolated volume".into(),
        spatial: Spatial::D3,
        norm: NormKind::Batch,
        input: Shape { channels: 2, size: [4, 6, 10] },
        layers,
    }
}

fn deconv(out_channels: usize, kernel: [usize; 3], stride: [usize; 3], activation: Activation) -> Op {
    Op::Deconv(Deconv { out_channels, kernel, stride, norm: activation != Activation::None, activation })
}

/// Transposed convolutions with more taps than the stride, fewer, and a whole number of times as many; with every activation,
/// reading rectified, leaked and pooled values, and joined.
fn transposed() -> Net {
    let layers = vec![
        layer("stem", &[0], Op::Conv(Conv::plane(6, 3))),
        layer("pool", &[1], Op::MaxPool { size: [1, 2, 2] }),
        layer("more", &[2], deconv(7, [1, 3, 5], [1, 2, 2], Activation::Relu)),
        layer("join", &[3, 1], Op::Concat),
        layer(
            "down",
            &[4],
            Op::Conv(Conv { stride: [1, 2, 3], activation: Activation::LeakyRelu(0.2), ..Conv::plane(8, 3) }),
        ),
        layer("fewer", &[5], deconv(6, [1, 1, 2], [1, 2, 3], Activation::LeakyRelu(0.2))),
        layer("pool2", &[6], Op::MaxPool { size: [1, 2, 2] }),
        layer("as many", &[7], deconv(5, [1, 4, 2], [1, 2, 2], Activation::None)),
        layer("head", &[8], Op::Conv(Conv { bias: true, ..plain(4, 1) })),
    ];
    Net {
        name: "transposed".into(),
        spatial: Spatial::D2,
        norm: NormKind::Batch,
        input: Shape::plane(3, 12, 18),
        layers,
    }
}

/// The same with a depth, the last layer a transposed convolution.
fn transposed_volume() -> Net {
    let leaky = Activation::LeakyRelu(0.2);
    let layers = vec![
        layer("stem", &[0], Op::Conv(Conv { kernel: [3; 3], stride: [2, 2, 1], ..Conv::plane(5, 3) })),
        layer("flat", &[1], deconv(6, [1, 3, 3], [2, 2, 1], leaky)),
        layer("pool", &[2], Op::MaxPool { size: [2; 3] }),
        layer("deep", &[3], deconv(4, [3, 3, 2], [2; 3], Activation::None)),
    ];
    Net {
        name: "transposed volume".into(),
        spatial: Spatial::D3,
        norm: NormKind::Batch,
        input: Shape { channels: 2, size: [4, 8, 6] },
        layers,
    }
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
    Net {
        name: "pre-activated".into(),
        spatial: Spatial::D2,
        norm: NormKind::Batch,
        input: Shape::plane(3, 14, 22),
        layers,
    }
}
