//! The planned engine on random networks: every table of routines and several numbers of threads give the reference's bits.

use contract::{
    Modality, Net,
    net::{Activation, Conv, Layer, NormKind, Op, Padding, Shape, Spatial},
};
use edge_runtime::{
    Engine, Logits, Model,
    engine::{Choice, Options},
    kernels::Kernels,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tests::{model_file::ModelFile, reference};

use crate::fixture::{Exported, INT8};

/// A network of a few layers, all of them read: sizes odd and even, one channel and many, every kind that int8 has.
struct Random {
    rng: ChaCha8Rng,
    spatial: Spatial,
    layers: Vec<Layer>,
    shapes: Vec<Shape>,
    /// Whether a value was made by a ReLU: only such are joined with such.
    rectified: Vec<bool>,
}

impl Random {
    fn net(seed: u64) -> Net {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let spatial = if seed % 4 == 3 { Spatial::D3 } else { Spatial::D2 };
        let depth = if spatial == Spatial::D3 { rng.random_range(1..4) } else { 1 };
        let size = [depth * rng.random_range(1..3), rng.random_range(3..15), rng.random_range(3..40)];
        let size = if spatial == Spatial::D3 { size } else { [1, size[1], size[2]] };
        let input = Shape { channels: *[1, 1, 2, 3, 5].get(rng.random_range(0..5)).unwrap(), size };
        let mut this = Self { rng, spatial, layers: vec![], shapes: vec![input], rectified: vec![false] };
        this.conv(0, [1; 3], Activation::Relu);
        for _ in 0..this.rng.random_range(2..6) {
            this.grow();
        }
        // The head, sometimes at a lower resolution.
        let block = this.block(this.shapes.len() - 1);
        if this.rng.random_bool(0.3) && block != [1; 3] {
            this.push(&[this.shapes.len() - 1], Op::MaxPool { size: block }, true);
            this.head();
            this.push(&[this.shapes.len() - 1], Op::Upsample { factor: block }, false);
        } else {
            this.head();
        }
        if seed % 5 == 1 {
            // Of all at once: a value has one kind of surroundings in our plan.
            for layer in &mut this.layers {
                if let Op::Conv(conv) = &mut layer.op {
                    conv.padding = Padding::Symmetric;
                }
            }
        }
        Net { name: format!("random-{seed}"), spatial, norm: NormKind::Batch, input, layers: this.layers }
    }

    fn push(&mut self, inputs: &[usize], op: Op, rectified: bool) {
        let name = format!("l{}", self.layers.len());
        self.layers.push(Layer { name: name.clone(), inputs: inputs.to_vec(), op });
        let net = Net {
            name,
            spatial: self.spatial,
            norm: NormKind::Batch,
            input: self.shapes[0],
            layers: self.layers.clone(),
        };
        self.shapes.push(*net.shapes().unwrap().last().unwrap());
        self.rectified.push(rectified);
    }

    fn head(&mut self) {
        let head = Conv { bias: true, norm: false, activation: Activation::None, ..Conv::plane(5, 1) };
        self.push(&[self.shapes.len() - 1], Op::Conv(head), false);
    }

    /// A block that divides a value's size.
    fn block(&mut self, value: usize) -> [usize; 3] {
        self.shapes[value].size.map(|n| {
            let fits: Vec<usize> = [1, 2, 3].into_iter().filter(|block| n % block == 0).collect();
            fits[self.rng.random_range(0..fits.len())]
        })
    }

    fn conv(&mut self, input: usize, stride: [usize; 3], activation: Activation) {
        let rng = &mut self.rng;
        let odd = |rng: &mut ChaCha8Rng| *[1, 3, 3, 5].get(rng.random_range(0..4)).unwrap();
        let depth = if self.spatial == Spatial::D3 { odd(rng) } else { 1 };
        let kernel = [depth, odd(rng), odd(rng)];
        let channels = self.shapes[input].channels;
        let groups = if channels.is_multiple_of(2) && rng.random_bool(0.2) { 2 } else { 1 };
        let conv = Conv {
            kernel,
            stride,
            dilation: [1, rng.random_range(1..3), rng.random_range(1..3)],
            groups,
            bias: rng.random_bool(0.5),
            activation,
            ..Conv::plane(rng.random_range(1..40) * groups.max(2) / 2 + 1, 3)
        };
        let conv = Conv { out_channels: conv.out_channels.next_multiple_of(groups), ..conv };
        self.push(&[input], Op::Conv(conv), activation == Activation::Relu);
    }

    fn any_activation(&mut self) -> Activation {
        [Activation::None, Activation::Relu, Activation::LeakyRelu(0.2)][self.rng.random_range(0..3)]
    }

    fn grow(&mut self) {
        let last = self.shapes.len() - 1;
        match self.rng.random_range(0..11) {
            0 | 1 => self.conv(last, [1; 3], Activation::Relu),
            6 => self.conv(last, [1; 3], Activation::LeakyRelu(0.2)),
            7 => {
                let activation = self.any_activation();
                self.push(&[last], Op::Norm { activation }, activation == Activation::Relu);
            }
            8 if self.spatial == Spatial::D2 => {
                let channels = self.rng.random_range(1..9);
                self.push(&[last], Op::Conv(Conv::plane(4 * channels, 3)), true);
                self.push(&[last + 1], Op::PixelShuffle { factor: 2 }, true);
                self.push(&[last + 2], Op::MaxPool { size: [1, 2, 2] }, true);
            }
            9 => {
                // The shortcut of the paper's 2D network: a convolution to more channels, and zeros around the channels before.
                let (channels, more) = (self.rng.random_range(2..20), self.rng.random_range(1..9));
                let plain = Conv { activation: Activation::None, ..Conv::plane(channels, 3) };
                self.push(&[last], Op::Conv(plain.clone()), false);
                self.push(&[last + 1], Op::PadChannels { front: more, back: more }, false);
                self.push(&[last + 1], Op::Conv(Conv { out_channels: channels + 2 * more, ..plain }), false);
                let activation = if self.rng.random_bool(0.5) { Activation::Relu } else { Activation::None };
                self.push(&[last + 3, last + 2], Op::Add { activation }, activation == Activation::Relu);
                let activation = self.any_activation();
                self.push(&[last + 4], Op::Norm { activation }, activation == Activation::Relu);
            }
            2 | 3 => {
                // Down by a pool or a stride, and up again.
                let block = self.block(last);
                match self.rng.random_bool(0.5) {
                    true => self.push(&[last], Op::MaxPool { size: block }, self.rectified[last]),
                    false => self.conv(last, block, Activation::Relu),
                }
                self.conv(last + 1, [1; 3], Activation::Relu);
                self.push(&[last + 2], Op::Upsample { factor: block }, true);
            }
            10 => {
                // Down, and up again between the pixels; sometimes joined with what was there before.
                let block = self.block(last);
                if block == [1; 3] {
                    return self.conv(last, [1; 3], Activation::Relu);
                }
                match self.rng.random_bool(0.5) {
                    true => self.push(&[last], Op::MaxPool { size: block }, self.rectified[last]),
                    false => self.conv(last, block, Activation::Relu),
                }
                let activation = if self.rectified[last] { Activation::Relu } else { self.any_activation() };
                self.conv(last + 1, [1; 3], activation);
                self.push(&[last + 2], Op::Interpolate { factor: block }, activation == Activation::Relu);
                if self.rectified[last] && self.rng.random_bool(0.5) {
                    self.push(&[last, last + 3], Op::Concat, true);
                }
            }
            4 => {
                // Two convolutions of one value, joined with it in some order.
                let conv = Conv::plane(self.rng.random_range(2..21), 3);
                self.push(&[last], Op::Conv(conv), true);
                if self.rectified[last] {
                    let inputs = if self.rng.random_bool(0.5) { [last, last + 1] } else { [last + 1, last] };
                    self.push(&inputs, Op::Concat, true);
                }
            }
            _ => {
                // A residual block; that of a join sums channels that lie in different lanes.
                let channels = self.shapes[last].channels;
                if channels < 2 {
                    return self.conv(last, [1; 3], Activation::Relu);
                }
                let plain = Conv { activation: Activation::None, ..Conv::plane(channels, 3) };
                self.push(&[last], Op::Conv(plain), false);
                let relu = self.rng.random_bool(0.5);
                let activation = if relu { Activation::Relu } else { Activation::None };
                self.push(&[last, last + 1], Op::Add { activation }, relu);
            }
        }
    }
}

/// Planned with every table and 1 and 3 threads; CT and MR in turn on one engine.
fn check(exported: &Exported) {
    let path = exported.int8.as_ref().unwrap();
    let (file, model) = (ModelFile::read(path), Model::load(path).unwrap());
    let images = Modality::ALL.map(|modality| exported.image(modality, 0));
    let expected = Modality::ALL.map(|modality| {
        let codes = reference::int8::logits(&file, modality, &images[modality.index()]).unwrap();
        (codes.values.labels(), codes.values.data)
    });
    for kernels in Kernels::available() {
        for threads in [1, 3] {
            let options = Options { choice: Choice::Planned, kernels: Some(kernels), threads, ..Options::default() };
            let mut engine = Engine::with(&model, &options).unwrap();
            let mut labels = vec![9; engine.labels_len()];
            for modality in [Modality::Mr, Modality::Ct, Modality::Mr] {
                let name = format!("{} {modality}, {engine}", exported.spec.net.name);
                engine.run(&images[modality.index()], modality, &mut labels).unwrap();
                let (expected_labels, expected_logits) = &expected[modality.index()];
                let Some(Logits::Codes(logits)) = engine.logits() else { panic!("{name}: no codes") };
                let apart = logits.iter().zip(expected_logits).filter(|(a, b)| a != b).count();
                assert_eq!((logits.len(), apart), (expected_logits.len(), 0), "{name}: {:?}", exported.spec.net.layers);
                assert_eq!(&labels, expected_labels, "{name}");
            }
        }
    }
}

#[test]
fn random_networks_have_the_bits_of_the_reference() {
    let mut seen = [0; 10];
    for seed in 0..100 {
        let net = Random::net(seed);
        let count = |kind: fn(&Op) -> bool| net.layers.iter().filter(|layer| kind(&layer.op)).count();
        let kinds: [fn(&Op) -> bool; 9] = [
            |op| matches!(op, Op::Concat),
            |op| matches!(op, Op::Add { .. }),
            |op| matches!(op, Op::Norm { .. }),
            |op| matches!(op, Op::PixelShuffle { .. }),
            |op| matches!(op, Op::PadChannels { .. }),
            |op| matches!(op, Op::Interpolate { .. }),
            |op| matches!(op, Op::Conv(conv) if conv.stride != [1; 3]),
            |op| matches!(op, Op::Conv(conv) if conv.padding == Padding::Symmetric),
            |op| matches!(op, Op::Conv(conv) if matches!(conv.activation, Activation::LeakyRelu(_))),
        ];
        for (seen, kind) in seen.iter_mut().zip(kinds) {
            *seen += count(kind);
        }
        seen[9] += usize::from(net.spatial == Spatial::D3);
        check(&Exported::new(net, &Modality::ALL, 1000 + seed));
    }
    assert!(seen.iter().all(|&count| count >= 5), "of every kind a few: {seen:?}");
}

/// The families and the hand-made networks: none is left to tract but those with a transposed convolution.
#[test]
fn families_have_the_bits_of_the_reference() {
    let mut left = vec![];
    for exported in INT8.iter() {
        let model = Model::load(exported.int8.as_ref().unwrap()).unwrap();
        match Engine::new(&model).unwrap() {
            Engine::Planned(_) => check(exported),
            Engine::Tract { why, .. } => {
                println!("{} is left to tract: {why}", exported.spec.net.name);
                left.push(exported.spec.net.name.as_str());
                assert!(why.contains("transposed convolutions are not planned"), "{why}");
            }
        }
    }
    let transposed =
        |exported: &&Exported| exported.spec.net.layers.iter().any(|layer| matches!(layer.op, Op::Deconv(_)));
    let expected: Vec<&str> = INT8.iter().filter(transposed).map(|exported| exported.spec.net.name.as_str()).collect();
    assert_eq!(left, expected);
}

/// On a network of the product's size the arena is within 1.15 of what must be alive at one time.
#[test]
fn the_arena_is_hardly_larger_than_what_lives_in_it() {
    let model = Model::load(INT8.last().unwrap().int8.as_ref().unwrap()).unwrap();
    let options = Options { kernels: Kernels::named("generic"), ..Options::default() };
    let Engine::Planned(engine) = Engine::with(&model, &options).unwrap() else { panic!("compact has a plan") };
    let memory = engine.memory();
    assert!(memory.arena_bytes >= memory.alive_bytes, "{memory:?}");
    assert!(memory.arena_bytes as f64 <= 1.15 * memory.alive_bytes as f64, "{memory:?}");
}
