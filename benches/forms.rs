//! Three forms of one convolution, shape by shape: why the runtime's is direct.
//!
//! * **direct**: the runtime's. Taps are offsets into the image, nothing is copied.
//! * **implicit GEMM**: the taps of one tile of pixels are gathered into a patch that stays in the first cache, then multiplied.
//! * **im2col**: the taps of the whole image are gathered into a matrix, then multiplied.
//!
//! All three use the same kernels, weights and requantisation and must give the same codes. Rounds are interleaved; a line
//! has the median of each form and its ratio to direct. Tables that widen codes first (AVX2, NEON) are left out: for them
//! a gather would widen too, which is another routine.
//!
//! `cargo bench -p benches --bench forms`, or `cargo bench -p benches --bench forms -- 3x3` for some shapes.

use std::{hint::black_box, ops::Range, time::Instant};

use edge_runtime::kernels::{Kernels, LANES, MAX_VECTORS, PACK, StepWeights, Tile};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A layer of the networks; sizes `[d, h, w]`.
struct Shape {
    name: &'static str,
    /// Input and output channels.
    channels: [usize; 2],
    kernel: [usize; 3],
    stride: usize,
    dilation: usize,
    size: [usize; 3],
}

const PLANE: [usize; 3] = [1, 3, 3];
const CUBE: [usize; 3] = [3; 3];
const POINT: [usize; 3] = [1; 3];

#[rustfmt::skip]
const SHAPES: [Shape; 14] = [
    Shape { name: "3x3 stem", channels: [4, 16], kernel: PLANE, stride: 1, dilation: 1, size: [1, 256, 256] },
    Shape { name: "3x3 16", channels: [16, 16], kernel: PLANE, stride: 1, dilation: 1, size: [1, 256, 256] },
    Shape { name: "3x3 32", channels: [32, 32], kernel: PLANE, stride: 1, dilation: 1, size: [1, 128, 128] },
    Shape { name: "3x3 48", channels: [48, 48], kernel: PLANE, stride: 1, dilation: 1, size: [1, 64, 64] },
    Shape { name: "3x3 64", channels: [64, 64], kernel: PLANE, stride: 1, dilation: 1, size: [1, 32, 32] },
    Shape { name: "3x3 128", channels: [128, 128], kernel: PLANE, stride: 1, dilation: 1, size: [1, 32, 32] },
    Shape { name: "3x3 joined 64 to 32", channels: [64, 32], kernel: PLANE, stride: 1, dilation: 1, size: [1, 128, 128] },
    Shape { name: "3x3 dilated 4", channels: [128, 128], kernel: PLANE, stride: 1, dilation: 4, size: [1, 32, 32] },
    Shape { name: "3x3 stride 2, 16 to 32", channels: [16, 32], kernel: PLANE, stride: 2, dilation: 1, size: [1, 256, 256] },
    Shape { name: "3x3 stride 2, 32 to 64", channels: [32, 64], kernel: PLANE, stride: 2, dilation: 1, size: [1, 128, 128] },
    Shape { name: "1x1 32 to 16", channels: [32, 16], kernel: POINT, stride: 1, dilation: 1, size: [1, 128, 128] },
    Shape { name: "1x1 head 16 to 5", channels: [16, 5], kernel: POINT, stride: 1, dilation: 1, size: [1, 256, 256] },
    Shape { name: "3x3x3 8", channels: [8, 8], kernel: CUBE, stride: 1, dilation: 1, size: [16, 96, 96] },
    Shape { name: "3x3x3 32", channels: [32, 32], kernel: CUBE, stride: 1, dilation: 1, size: [4, 24, 24] },
];

impl Shape {
    /// Surroundings on each side that keep the size at stride 1.
    fn pads(&self) -> [usize; 3] {
        self.kernel.map(|kernel| self.dilation * (kernel / 2))
    }

    /// In the plane only.
    fn output(&self) -> [usize; 3] {
        [self.size[0], self.size[1].div_ceil(self.stride), self.size[2].div_ceil(self.stride)]
    }

    fn macs(&self) -> usize {
        self.output().iter().chain(&self.kernel).chain(&self.channels).product()
    }
}

/// Output channels that a tile computes together: vectors of 16, and their weights `[step][vector]`.
struct Block {
    first: usize,
    vectors: usize,
    weights: Vec<u8>,
}

/// A shape with random codes and weights.
struct Layer {
    kernels: Kernels,
    shape: Shape,
    /// `[plane][z][y][x]` with gaps for the surroundings, as in the runtime's arena.
    image: Vec<u32>,
    /// Words from row to row and from slab to slab of the image.
    row: usize,
    slab: usize,
    /// Per step, words after an output's first tap.
    taps: Vec<u32>,
    /// For taps in the image. The runtime's kernels compute one vector at a time where they stride.
    direct: Vec<Block>,
    /// For gathered taps, which never stride.
    gemm: Vec<Block>,
    bias: Vec<i32>,
    factors: Vec<f32>,
}

/// What the forms write.
struct Memory {
    /// The taps of some pixels, `[step][pixel]`.
    gathered: Vec<u32>,
    /// `[plane][pixel]`.
    output: Vec<u32>,
}

/// One of the three: computes the output.
type Form = fn(&Layer, &mut Memory);
const FORMS: [Form; 3] = [Layer::direct, Layer::implicit_gemm, Layer::im2col];
const ROUNDS: usize = 60;
/// Words that the last tile of a plane may read behind it.
const SLACK: usize = 256;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    for kernels in Kernels::available() {
        if kernels.pixel_bytes != PACK || kernels.name() == "generic" {
            continue;
        }
        println!("{}, one thread, medians of {ROUNDS} interleaved rounds in us, ratios to direct", kernels.name());
        println!("{:26}{:>7}{:>10}{:>8}{:>18}{:>18}", "shape", "MMAC", "direct", "GMAC/s", "implicit GEMM", "im2col");
        for shape in SHAPES {
            if wanted.is_empty() || wanted.iter().any(|wanted| shape.name.contains(wanted.as_str())) {
                Layer::new(kernels, shape).report();
            }
        }
    }
}

impl Layer {
    fn new(kernels: Kernels, shape: Shape) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let ([inputs, outputs], [kd, kh, kw]) = (shape.channels, shape.kernel);
        let pads = shape.pads();
        let row = shape.size[2] + 2 * pads[2];
        let slab = row * (shape.size[1] + 2 * pads[1]);
        let (planes, plane) = (inputs / PACK, slab * (shape.size[0] + 2 * pads[0]));
        let tap = |tap: usize| shape.dilation * (tap / (kh * kw) * slab + tap / kw % kh * row + tap % kw);
        let mut taps: Vec<u32> =
            (0..planes).flat_map(|at| (0..kd * kh * kw).map(move |index| (at * plane + tap(index)) as u32)).collect();
        let channels = outputs.next_multiple_of(LANES);
        let weights: Vec<Vec<[i8; PACK]>> =
            (0..channels).map(|_| taps.iter().map(|_| rng.random()).collect()).collect();
        taps.resize(taps.len().next_multiple_of(kernels.step_planes), 0);
        let fits = |vectors: &usize| kernels.quads[vectors - 1] > 0 && (channels / LANES).is_multiple_of(*vectors);
        let widest = (1..=MAX_VECTORS).rev().find(fits).unwrap_or(1);
        Self {
            direct: blocks(&kernels, &weights, if shape.stride == 1 { widest } else { 1 }),
            gemm: blocks(&kernels, &weights, widest),
            image: (0..planes * plane + SLACK).map(|_| rng.random()).collect(),
            row,
            slab,
            bias: vec![1000; channels],
            factors: vec![2e-4; channels],
            taps,
            kernels,
            shape,
        }
    }

    /// Prints a line.
    fn report(&self) {
        let (planes, pixels) = (self.shape.channels[1].div_ceil(PACK), self.shape.output().iter().product::<usize>());
        let mut memory =
            Memory { gathered: vec![0; self.taps.len() * pixels + SLACK], output: vec![0; planes * pixels] };
        let outputs = FORMS.map(|form| {
            memory.output.fill(0);
            form(self, &mut memory);
            memory.output.clone()
        });
        assert!(outputs.iter().all(|output| *output == outputs[0]), "{}: the forms differ", self.shape.name);
        let mut times = [const { vec![] }; FORMS.len()];
        for _ in 0..ROUNDS {
            for (form, times) in FORMS.into_iter().zip(&mut times) {
                let start = Instant::now();
                form(self, black_box(&mut memory));
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
        let [direct, implicit, im2col] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[ROUNDS / 2]
        });
        let macs = self.shape.macs() as f64 / 1e6;
        let beside = |time: f64| format!("{time:.1} ({:.2})", time / direct);
        println!(
            "{:26}{macs:7.1}{direct:10.1}{:8.0}{:>18}{:>18}",
            self.shape.name,
            macs / direct * 1e3,
            beside(implicit),
            beside(im2col)
        );
    }

    /// Word of the first tap of an output pixel.
    fn first_tap(&self, row: usize, x: usize) -> usize {
        let height = self.shape.output()[1];
        row / height * self.slab + row % height * self.shape.stride * self.row + x * self.shape.stride
    }

    fn direct(&self, memory: &mut Memory) {
        let [depth, height, width] = self.shape.output();
        let threes = self.shape.kernel[2] == 3 && self.shape.dilation == 1 && self.kernels.step_planes == 1;
        let strided = self.shape.stride != 1;
        for block in &self.direct {
            let most = if strided { self.kernels.strided_quads() } else { self.kernels.quads[block.vectors - 1] };
            for row in 0..depth * height {
                for x in tiles(width, most) {
                    let quads = x.len().div_ceil(4);
                    let routine = match self.kernels.triples(block.vectors, quads).filter(|_| threes) {
                        _ if strided => self.kernels.strided(quads),
                        Some(triples) => triples,
                        None => self.kernels.conv(block.vectors, quads),
                    };
                    let input = &self.image[self.first_tap(row, x.start)..];
                    let tile = self.tile(block, input, &self.taps, &mut memory.output, row * width + x.start, x.len());
                    // SAFETY: the image holds all taps of all pixels and `SLACK` words behind.
                    unsafe { routine(&tile) };
                }
            }
        }
    }

    fn implicit_gemm(&self, memory: &mut Memory) {
        let [depth, height, width] = self.shape.output();
        let most = self.kernels.quads[self.gemm[0].vectors - 1];
        let offsets = self.offsets(4 * most);
        for row in 0..depth * height {
            for x in tiles(width, most) {
                self.gather(row, x.clone(), &mut memory.gathered, 4 * most);
                self.multiply(&offsets, &memory.gathered, &mut memory.output, row * width + x.start, x.len());
            }
        }
    }

    fn im2col(&self, memory: &mut Memory) {
        let [depth, height, width] = self.shape.output();
        let pixels = depth * height * width;
        for row in 0..depth * height {
            self.gather(row, 0..width, &mut memory.gathered[row * width..], pixels);
        }
        let offsets = self.offsets(pixels);
        for x in tiles(pixels, self.kernels.quads[self.gemm[0].vectors - 1]) {
            self.multiply(&offsets, &memory.gathered[x.start..], &mut memory.output, x.start, x.len());
        }
    }

    /// Where each step begins among the gathered taps of so many pixels.
    fn offsets(&self, pixels: usize) -> Vec<u32> {
        (0..self.taps.len()).map(|step| (step * pixels) as u32).collect()
    }

    /// Copies the taps of some pixels of a row to `out`, each step's `pixels` words after the last.
    fn gather(&self, row: usize, x: Range<usize>, out: &mut [u32], pixels: usize) {
        let start = self.first_tap(row, x.start);
        for (step, &tap) in self.taps.iter().enumerate() {
            let (from, to) = (&self.image[start + tap as usize..], &mut out[step * pixels..][..x.len()]);
            match self.shape.stride {
                1 => to.copy_from_slice(&from[..x.len()]),
                stride => to.iter_mut().zip(from.iter().step_by(stride)).for_each(|(to, from)| *to = *from),
            }
        }
    }

    /// Multiplies gathered taps.
    fn multiply(&self, offsets: &[u32], gathered: &[u32], output: &mut [u32], pixel: usize, pixels: usize) {
        for block in &self.gemm {
            let tile = self.tile(block, gathered, offsets, output, pixel, pixels);
            // SAFETY: the gathered taps are those of all steps, with `SLACK` words behind.
            unsafe { self.kernels.conv(block.vectors, pixels.div_ceil(4))(&tile) };
        }
    }

    fn tile(
        &self,
        block: &Block,
        input: &[u32],
        offsets: &[u32],
        output: &mut [u32],
        pixel: usize,
        pixels: usize,
    ) -> Tile {
        let (plane, first) = (self.shape.output().iter().product(), block.first * LANES / PACK);
        Tile {
            input: input.as_ptr().cast(),
            stride: self.shape.stride,
            offsets: offsets.as_ptr(),
            steps: offsets.len() / self.kernels.step_planes,
            weights: block.weights.as_ptr(),
            bias: self.bias[block.first * LANES..].as_ptr(),
            factors: self.factors[block.first * LANES..].as_ptr(),
            zero: 3,
            output: output[first * plane + pixel..].as_mut_ptr(),
            plane,
            planes: (output.len() / plane - first).min(block.vectors * LANES / PACK),
            pixels,
        }
    }
}

/// Tiles of at most `most` quads of pixels, as few and as equal as possible.
fn tiles(pixels: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let quads = pixels.div_ceil(4);
    let tiles = quads.div_ceil(most);
    (0..tiles).map(move |tile| 4 * (quads * tile / tiles)..pixels.min(4 * (quads * (tile + 1) / tiles)))
}

/// Packs `[channel][step]`.
fn blocks(kernels: &Kernels, weights: &[Vec<[i8; PACK]>], vectors: usize) -> Vec<Block> {
    let pack = |first: usize| {
        let mut packed = vec![];
        for step in (0..weights[0].len()).step_by(kernels.step_planes) {
            for channels in weights[first * LANES..][..vectors * LANES].chunks_exact(LANES) {
                let mut one = StepWeights::default();
                for (to, from) in one.iter_mut().zip(channels) {
                    for (to, from) in to.chunks_exact_mut(PACK).zip(&from[step..]).take(kernels.step_planes) {
                        to.copy_from_slice(from);
                    }
                }
                let start = packed.len();
                packed.resize(start + kernels.step_bytes, 0);
                (kernels.pack)(&one, &mut packed[start..]);
            }
        }
        Block { first, vectors, weights: packed }
    };
    (0..weights.len() / LANES).step_by(vectors).map(pack).collect()
}
