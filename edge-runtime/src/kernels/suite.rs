//! One suite, every table: each must give `generic`'s bits, and `generic` those of the formula written out here.

use contract::{
    Grid, Intake, Intensity, Modality, Plane,
    interpolate::{Interpolation, weights},
    net::Activation,
    quant::{self, Affine, Multiplier, Sum, requantise},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    Arena, ConvTile, Interpolate, Kernels, LANES, MAX_VECTORS, MapSpec, PACK, StepWeights, SumTable, Tile, View,
};

/// A random convolution over one tile, in codes.
struct Case {
    pixels: usize,
    planes: usize,
    stride: usize,
    /// Per step of one plane, in pixels.
    offsets: Vec<u32>,
    /// `[pixel][4]`.
    codes: Vec<[i8; PACK]>,
    /// `[vector][step]`, the first plane of each used.
    weights: Vec<Vec<[[i8; PACK]; LANES]>>,
    bias: Vec<i32>,
    factors: Vec<f32>,
    zero: i8,
}

/// Words between output planes.
const PLANE: usize = 40;
/// What stands where a kernel must not write.
const UNTOUCHED: u32 = 0xdead_beef;

impl Case {
    fn random(rng: &mut ChaCha8Rng, vectors: usize, quads: usize, stride: usize) -> Self {
        let steps = rng.random_range(1..=20);
        let length = 4 * quads * stride + 60;
        let extreme = rng.random_bool(0.3);
        let mut code = |low: i8| match extreme {
            true => *[low, -1, 0, 127].get(rng.random_range(0..4)).unwrap(),
            false => rng.random_range(low..=127),
        };
        let codes = (0..length).map(|_| [(); PACK].map(|()| code(-128))).collect();
        let weights = (0..vectors)
            .map(|_| (0..steps).map(|_| [(); LANES].map(|()| [(); PACK].map(|()| code(-127)))).collect())
            .collect();
        let channels = vectors * LANES;
        // Products of sums and factors stay below 2^30, as the loader makes sure.
        let most = if extreme { 700. } else { 2e-3 };
        Self {
            pixels: rng.random_range(4 * (quads - 1) + 1..=4 * quads),
            planes: rng.random_range(1..=4 * vectors),
            stride,
            offsets: (0..steps).map(|_| rng.random_range(0..50)).collect(),
            codes,
            weights,
            bias: (0..channels).map(|_| rng.random_range(-40_000..40_000)).collect(),
            factors: (0..channels).map(|_| rng.random_range(1e-4..most)).collect(),
            zero: *[-128, 0, 5, 127].get(rng.random_range(0..4)).unwrap(),
        }
    }

    /// Steps in threes, offsets following one another.
    fn in_threes(&mut self) {
        let steps = self.offsets.len() / 3 * 3;
        self.offsets = (0..steps).map(|step| self.offsets[step / 3 * 3] + step as u32 % 3).collect();
        self.weights.iter_mut().for_each(|vector| vector.truncate(steps));
    }

    /// Output planes by the formula, as codes.
    fn expected(&self) -> Vec<u32> {
        let mut out = vec![UNTOUCHED; self.planes * PLANE];
        for (plane, pixel) in (0..self.planes).flat_map(|plane| (0..self.pixels).map(move |pixel| (plane, pixel))) {
            let bytes = std::array::from_fn(|lane| {
                let channel = plane * PACK + lane;
                let sum = self.offsets.iter().enumerate().fold(self.bias[channel], |sum, (step, &offset)| {
                    let codes = self.codes[offset as usize + pixel * self.stride];
                    let weights = self.weights[channel / LANES][step][channel % LANES];
                    sum + codes.iter().zip(weights).map(|(&x, w)| i32::from(x) * i32::from(w)).sum::<i32>()
                });
                requantise(sum, Multiplier::new(self.factors[channel], 1., 1.).unwrap(), self.zero) as u8
            });
            out[plane * PLANE + pixel] = u32::from_le_bytes(bytes);
        }
        out
    }

    /// Output planes by a table, as codes.
    fn run(&self, kernels: &Kernels, conv: ConvTile) -> Vec<u32> {
        // Each pixel as the table wants it.
        let words: Vec<u32> =
            self.codes.iter().map(|codes| word(codes.map(|code| code as u8 ^ kernels.flip))).collect();
        let mut wide = vec![0u64; words.len()];
        // SAFETY: the table was made on this machine.
        unsafe { (kernels.moves.widen)(&words, &mut wide) };
        let input = if kernels.pixel_bytes == PACK { words.as_ptr().cast() } else { wide.as_ptr().cast() };
        // Steps of more than one plane are filled up with planes of weight zero.
        let mut offsets = self.offsets.clone();
        let first = offsets.first().copied().unwrap_or(0);
        offsets.resize(offsets.len().next_multiple_of(kernels.step_planes), first);
        let mut packed = vec![];
        for step in 0..offsets.len() / kernels.step_planes {
            for vector in &self.weights {
                let mut weights: StepWeights = Default::default();
                for plane in 0..kernels.step_planes {
                    let Some(plane_weights) = vector.get(step * kernels.step_planes + plane) else { continue };
                    for (to, from) in weights.iter_mut().zip(plane_weights) {
                        to[plane * PACK..][..PACK].copy_from_slice(from);
                    }
                }
                let start = packed.len();
                packed.resize(start + kernels.step_bytes, 0);
                (kernels.pack)(&weights, &mut packed[start..]);
            }
        }
        // What the shift adds, the bias takes away.
        let shifted = |(channel, bias): (usize, &i32)| {
            let steps = &self.weights[channel / LANES];
            bias - kernels.shift * steps.iter().flat_map(|step| step[channel % LANES]).map(i32::from).sum::<i32>()
        };
        let bias: Vec<i32> = self.bias.iter().enumerate().map(shifted).collect();
        let mut out = vec![UNTOUCHED; self.planes * PLANE];
        let tile = Tile {
            input,
            stride: self.stride,
            offsets: offsets.as_ptr(),
            steps: offsets.len() / kernels.step_planes,
            weights: packed.as_ptr(),
            bias: bias.as_ptr(),
            factors: self.factors.as_ptr(),
            zero: self.zero,
            output: out.as_mut_ptr(),
            plane: PLANE,
            planes: self.planes,
            pixels: self.pixels,
        };
        // SAFETY: the table was made on this machine; offsets stay below 50 of at least 60 further pixels; 40 words per plane.
        unsafe { conv(&tile) };
        let flipped = |word: u32| word ^ u32::from_le_bytes([kernels.flip; PACK]);
        out.into_iter().map(|word| if word == UNTOUCHED { word } else { flipped(word) }).collect()
    }
}

fn word(bytes: [u8; PACK]) -> u32 {
    u32::from_le_bytes(bytes)
}

#[test]
fn every_tile_of_every_table_equals_the_formula() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for kernels in Kernels::available() {
        println!("{kernels:?}");
        let mut tiles = 0;
        for vectors in 1..=MAX_VECTORS {
            for quads in 1..=kernels.quads[vectors - 1] {
                for _ in 0..40 {
                    let mut case = Case::random(&mut rng, vectors, quads, 1);
                    let conv = kernels.conv(vectors, quads);
                    assert_eq!(case.run(&kernels, conv), case.expected(), "{kernels:?} {vectors} x {quads}");
                    if let Some(conv) = kernels.triples(vectors, quads) {
                        case.in_threes();
                        assert_eq!(case.run(&kernels, conv), case.expected(), "{kernels:?} triples x {quads}");
                    }
                }
                tiles += 1;
            }
        }
        assert!(tiles > 0);
        assert!(kernels.strided_quads() > 0);
        for (stride, quads) in [2, 3, 5].into_iter().flat_map(|s| (1..=kernels.strided_quads()).map(move |q| (s, q))) {
            for _ in 0..20 {
                let case = Case::random(&mut rng, 1, quads, stride);
                let got = case.run(&kernels, kernels.strided(quads));
                assert_eq!(got, case.expected(), "{kernels:?} stride {stride} x {quads}");
            }
        }
    }
}

/// Every length up to a few vectors, and codes of both signs.
#[test]
fn moves_of_every_table_equal_plain_loops() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for kernels in Kernels::available() {
        let (moves, flip) = (kernels.moves, kernels.flip);
        let code = |word: u32, lane: usize| (word.to_le_bytes()[lane] ^ flip) as i8;
        for length in (1..70).chain([200]) {
            let a: Vec<u32> = (0..2 * length).map(|_| rng.random()).collect();
            let b: Vec<u32> = (0..2 * length).map(|_| rng.random()).collect();
            let mut pooled_twice = vec![0; length];
            let (mut pooled, mut thirds, mut doubled) =
                (vec![0; length], vec![UNTOUCHED; 2 * length / 3], vec![0; 4 * length]);
            let (sum, mut summed) = (Sum::new(0.41, 0.77, 0.63).unwrap(), b[..length].to_vec());
            let [first, second] = sum.ratios();
            let sum_table = SumTable { factors: [first, second], constant: 5. - first * 128. - second * 0. };
            let (mut labels, mut labels_4) = (vec![9; length], vec![9; length]);
            let codes: Vec<i8> = (0..2 * length).map(|_| rng.random()).collect();
            let (mut words, mut wide) = (vec![UNTOUCHED; 2 * length], vec![0; 2 * length]);
            // SAFETY: the table was made on this machine.
            unsafe {
                (moves.max_2x2)(&a, &b, flip, true, &mut pooled);
                (moves.max_2x2)(&b, &a, flip, true, &mut pooled_twice);
                (moves.max_2x2)(&a, &a, flip, false, &mut pooled_twice);
                (moves.max_blocks)(&a, 3, flip, true, &mut thirds);
                (moves.max_blocks)(&b, 3, flip, false, &mut thirds);
                (moves.sum)(&a[..length], sum_table, flip, &mut summed);
                (moves.repeat_2)(&a, &mut doubled);
                (moves.argmax)(&a, length, 7, flip, &mut labels);
                (moves.argmax)(&a, length, 4, flip, &mut labels_4);
                (moves.spread)(&codes, 0, flip, &mut words);
                (moves.spread)(&codes, 2, flip, &mut words);
                (moves.widen)(&a, &mut wide);
            }
            for lane in 0..PACK {
                assert_eq!(pooled, pooled_twice);
                for i in 0..length {
                    let four = [a[2 * i], a[2 * i + 1], b[2 * i], b[2 * i + 1]];
                    assert_eq!(code(pooled[i], lane), four.map(|word| code(word, lane)).into_iter().max().unwrap());
                }
                for i in 0..length {
                    let of = |word: u32| i32::from(code(word, lane));
                    assert_eq!(code(summed[i], lane), sum.code(of(a[i]), of(b[i]) + 128, -123));
                }
                for (i, &third) in thirds.iter().enumerate() {
                    let six = [a[3 * i], a[3 * i + 1], a[3 * i + 2], b[3 * i], b[3 * i + 1], b[3 * i + 2]];
                    assert_eq!(code(third, lane), six.map(|word| code(word, lane)).into_iter().max().unwrap());
                }
                for i in 0..2 * length {
                    assert_eq!((wide[i] >> (16 * lane)) as u16, u16::from(a[i].to_le_bytes()[lane]));
                    let expected = if lane % 2 == 0 { codes[i] } else { 0 };
                    assert_eq!(code(words[i], lane), expected, "lane {lane}");
                }
            }
            assert!((0..4 * length).all(|i| doubled[i] == a[i / 2]));
            for (labels, classes) in [(&labels, 7), (&labels_4, 4)] {
                for (i, &label) in labels.iter().enumerate() {
                    let logits: Vec<i8> = (0..classes).map(|c| code(a[c / PACK * length + i], c % PACK)).collect();
                    let best = logits.iter().max().unwrap();
                    assert_eq!(usize::from(label), logits.iter().position(|logit| logit == best).unwrap());
                }
            }
        }
    }
}

/// Affine steps with every activation against the contract's tables of all 256 codes.
#[test]
fn maps_of_every_table_equal_the_contracts() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut compared = 0;
    while compared < 300 {
        let affine =
            [(); PACK].map(|()| Affine { factor: rng.random_range(-2f32..2.), shift: rng.random_range(-2f32..2.) });
        let activation = [Activation::None, Activation::Relu, Activation::LeakyRelu(0.2)][rng.random_range(0..3)];
        let zero = |rectified| if rectified { -128 } else { 0 };
        let x = (rng.random_range(0.01f32..0.1), zero(rng.random()));
        let y = (rng.random_range(0.005f32..0.1), zero(activation == Activation::Relu));
        let Some(expected) = affine.map(|affine| quant::Table::new(x, affine, activation, y)).into_iter().collect()
        else {
            continue;
        };
        let expected: Vec<quant::Table> = expected;
        let spec = MapSpec { x, affine: affine.to_vec(), activation, y };
        let table = spec.table(&[Some(0), Some(1), None, Some(3)]);
        let length = rng.random_range(1..70);
        let words: Vec<u32> = (0..length).map(|_| rng.random()).collect();
        for kernels in Kernels::available() {
            let mut mapped = words.clone();
            // SAFETY: the table was made on this machine.
            unsafe { (kernels.moves.map)(&table, kernels.flip, &mut mapped) };
            for lane in [0, 1, 3] {
                let code = |word: u32| (word.to_le_bytes()[lane] ^ kernels.flip) as i8;
                for (&word, &mapped) in words.iter().zip(&mapped) {
                    assert_eq!(code(mapped), expected[lane].code(code(word)), "{kernels:?} {spec:?} {lane}");
                }
            }
        }
        compared += 1;
    }
}

/// Rows of every table against the contract's rule, written out per pixel: every length, four source rows or fewer.
#[test]
fn interpolated_rows_of_every_table_equal_the_contracts() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for (width, factor) in
        (1..70).chain([128, 131, 200]).zip([[1, 2, 2], [2, 2, 2], [1, 3, 3], [1, 1, 4], [1, 8, 1]].into_iter().cycle())
    {
        let (zero, size) = (*[-128, 0, 7].get(rng.random_range(0..3)).unwrap(), [2, 3, width]);
        let rule = Interpolation::new(factor, size, 0.1, Interpolation::scale(factor, 0.1)).unwrap();
        let view = |origin: usize, size: [usize; 3]| {
            let (row, slab) = (size[2] + 1, size[1] * (size[2] + 1));
            View { origin, planes: 2, size, row, slab, plane: size[0] * slab }
        };
        let input = view(0, size);
        let output = view(input.span().end, [0, 1, 2].map(|axis| size[axis] * factor[axis]));
        let words = output.span().end;
        let codes: Vec<u32> =
            (0..words).map(|_| if rng.random_bool(0.3) { 0x7f80_7f80 } else { rng.random() }).collect();
        for kernels in Kernels::available() {
            let flip = u32::from_le_bytes([kernels.flip; PACK]);
            let bytes: Vec<u8> = codes.iter().flat_map(|word| (word ^ flip).to_ne_bytes()).collect();
            let arena = Arena::of_bytes(&bytes);
            let step = Interpolate::new(kernels, input, output, rule, zero, words);
            step.run(&arena, 0..1);
            step.run(&arena, 1..output.rows());
            // SAFETY: nobody writes any more.
            let found = unsafe { arena.words_at(0, words) };
            for (plane, row, x) in (0..2).flat_map(|plane| {
                (0..output.rows()).flat_map(move |row| (0..output.size[2]).map(move |x| (plane, row, x)))
            }) {
                let at = [row / output.size[1], row % output.size[1], x];
                for lane in 0..PACK {
                    let mut sum = 0;
                    for side in 0..27 {
                        let sides = [side / 9, side / 3 % 3, side % 3];
                        let weight: i32 =
                            (0..3).map(|axis| weights(factor[axis], at[axis] % factor[axis])[sides[axis]]).product();
                        let [z, y, x] =
                            [0, 1, 2].map(|axis| (at[axis] / factor[axis] + sides[axis]).clamp(1, size[axis]) - 1);
                        let word = codes[input.row_at(plane, z * size[1] + y) + x];
                        sum += weight * (i32::from(word.to_le_bytes()[lane] as i8) + 128);
                    }
                    let code = ((found[output.row_at(plane, row) + x] ^ flip).to_le_bytes()[lane]) as i8;
                    assert_eq!(code, rule.code(sum, zero), "{kernels:?} {factor:?} width {width} at {at:?}");
                }
            }
            // What stands behind each row is nobody's.
            assert!((0..output.rows() - 1).all(|row| {
                let gap = output.row_at(0, row) + output.size[2];
                found[gap] ^ flip == codes[gap]
            }));
        }
    }
}

/// The front end compiled for every table gives the contract's codes, of slices larger and smaller than the model's grid.
#[test]
fn codes_of_every_table_are_the_contracts() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let grid = Grid { height: 40, width: 48, spacing_mm: 3. };
    for (height, width, mm) in [(40, 48, 3.), (97, 131, 0.9), (200, 33, 1.7), (512, 77, 0.2), (20, 64, 6.), (7, 5, 0.1)]
    {
        let plane = Plane { height, width, row_mm: mm, column_mm: 1.3 * mm };
        let raw: Vec<i16> = (0..height * width).map(|_| rng.random_range(-300..3000)).collect();
        for modality in Modality::ALL {
            let mut intake = Intake::new(modality, Intensity::default(), plane, grid).unwrap();
            let mut expected = vec![0; grid.height * grid.width];
            let result = intake.codes(&raw, &mut expected);
            for kernels in Kernels::available() {
                let mut codes = vec![9; expected.len()];
                assert_eq!(kernels.codes(&mut intake, &raw, &mut codes), result);
                assert_eq!(codes, expected, "{kernels:?} {modality} {plane:?}");
            }
        }
    }
}

#[test]
fn tables_have_names_of_their_own_and_generic_is_always_there() {
    let names: Vec<&str> = Kernels::available().iter().map(Kernels::name).collect();
    assert_eq!(names.last(), Some(&"generic"));
    for name in &names {
        assert_eq!(Kernels::named(name).map(|kernels| kernels.name()), Some(*name));
        assert_eq!(names.iter().filter(|other| other == &name).count(), 1);
    }
    assert!(Kernels::named("amx").is_none());
}
