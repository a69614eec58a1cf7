//! A convolution of planes: geometry and packed weights, proved to stay inside the arena when made, run tile by tile.
//!
//! Direct for every shape, because measured so: with the same kernels, an implicit GEMM takes 1.1 to 1.9 times and im2col 1.2
//! to 3.5 times as long (`cargo bench -p benches --bench forms`, 14 shapes; `benches/runs/2026-11-23-forms-xeon-207`). An
//! offset costs what a pointer into gathered taps would, and the gathering comes on top.

use super::{Arena, ConvTile, Kernels, LANES, MAX_QUADS, MAX_VECTORS, PACK, StepWeights, Tile, View};

/// What one modality multiplies and adds.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Per output channel, in accumulator steps; the file's bias without zero points.
    pub bias: Vec<i32>,
    /// Per output channel, positive and finite.
    pub factors: Vec<f32>,
}

/// Planes that a convolution reads.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Where they lie in the arena.
    pub view: View,
    /// The first pixel, in pixels from the start of the space: the arena's words, or a widened copy.
    pub origin: usize,
}

/// What is to be computed: sizes and constants as the model file has them.
#[derive(Clone, Copy, Debug)]
pub struct ConvSpec<'a> {
    /// Where the codes are, with gaps of at least `pads` around them; all of one size and with the same steps from row to row.
    pub input: &'a [Part],
    /// First word of the space that the parts' origins count from.
    pub space: usize,
    /// Channel of each lane of the input planes, `[planes * 4]`; `None` for lanes that hold nothing.
    pub lanes: &'a [Option<usize>],
    /// Where the codes go.
    pub output: View,
    /// Kernel size `[d, h, w]`.
    pub kernel: [usize; 3],
    /// Step between outputs.
    pub stride: [usize; 3],
    /// Step between taps.
    pub dilation: [usize; 3],
    /// Surroundings on each side.
    pub pads: [usize; 3],
    /// Channel groups.
    pub groups: usize,
    /// `[out, in / groups, d, h, w]`.
    pub weights: &'a [i8],
    /// Output channels.
    pub channels: usize,
    /// Code of real 0 of the input.
    pub input_zero: i8,
    /// Code of real 0 of the output.
    pub output_zero: i8,
    /// One per modality.
    pub tables: &'a [Table],
}

/// A planned convolution.
#[derive(Debug)]
pub struct Conv {
    kernels: Kernels,
    /// First word of the space that is read: the arena, or a widened copy.
    space: usize,
    /// First tap of output (0, 0, 0) that comes first, in pixels of the space.
    first_tap: usize,
    row: usize,
    slab: usize,
    stride: [usize; 3],
    output: View,
    /// Bytes of the input's pixels.
    input_bytes: usize,
    /// Per step and plane of the step, pixels after the first tap.
    offsets: Vec<u32>,
    /// `[block][step][vector]`, aligned to cache lines: a load that straddles two costs twice.
    weights: Arena,
    blocks: Vec<Block>,
    tables: Vec<Table>,
    output_zero: i8,
    words: usize,
}

/// Output channels that one tile computes.
#[derive(Clone, Debug)]
struct Block {
    vectors: usize,
    /// Its first vector.
    first: usize,
    /// Bytes before its weights.
    weights: usize,
    /// Quads of each tile of a row, left to right, and the routine that computes it.
    tiles: Vec<(usize, ConvTile)>,
}

impl Conv {
    /// Packs the weights.
    ///
    /// # Panics
    /// If the views do not fit the arena's `words` or each other: a mistake of the planner, not of the model.
    pub fn new(kernels: Kernels, spec: &ConvSpec<'_>, words: usize) -> Self {
        let (output, View { size, row, slab, .. }) = (spec.output, spec.input[0].view);
        assert_eq!(spec.lanes.len(), spec.input.iter().map(|part| part.view.planes * PACK).sum::<usize>());
        assert!(spec.input.iter().all(|part| (part.view.size, part.view.row, part.view.slab) == (size, row, slab)));
        assert_eq!(output.planes, spec.channels.div_ceil(PACK));
        assert!((0..3).all(|axis| output.size[axis] == size[axis].div_ceil(spec.stride[axis])));
        let (before, _) = reach(spec);
        let first_tap = spec.input.iter().map(|part| part.origin.checked_sub(before)).min().flatten();
        let first_tap = first_tap.expect("the surroundings of the first pixel lie in the space");
        let taps = taps(spec, first_tap + before);
        let mut offsets: Vec<u32> = taps.iter().map(|tap| tap.offset).collect();
        offsets.resize(offsets.len().next_multiple_of(kernels.step_planes), offsets[0]);
        // Three taps side by side.
        let in_threes = kernels.step_planes == 1 && spec.kernel[2] == 3 && spec.dilation[2] == 1;
        let vectors = spec.channels.div_ceil(LANES);
        let (mut blocks, mut weights, mut first) = (vec![], vec![], 0);
        while first < vectors {
            let take = block_vectors(&kernels, vectors - first, spec.stride);
            let start = weights.len();
            pack(&kernels, spec, &taps, first..first + take, &mut weights);
            let most = if spec.stride[2] == 1 { kernels.quads[take - 1] } else { kernels.strided_quads() };
            let routine = |quads| match kernels.triples(take, quads).filter(|_| in_threes) {
                _ if spec.stride[2] != 1 => kernels.strided(quads),
                Some(routine) => routine,
                None => kernels.conv(take, quads),
            };
            let tiles = split(output.size[2], most).into_iter().map(|quads| (quads, routine(quads))).collect();
            blocks.push(Block { vectors: take, first, weights: start, tiles });
            first += take;
        }
        let conv = Self {
            kernels,
            space: spec.space,
            first_tap,
            row,
            slab,
            stride: spec.stride,
            output,
            input_bytes: spec.input.iter().map(|part| part.view.pixels() * kernels.pixel_bytes).sum(),
            offsets,
            weights: Arena::of_bytes(&weights),
            blocks,
            tables: spec.tables.iter().map(|table| shifted(table, spec, kernels.shift)).collect(),
            output_zero: spec.output_zero,
            words,
        };
        conv.check(spec);
        conv
    }

    /// Proves what [`Self::run`] relies on.
    fn check(&self, spec: &ConvSpec<'_>) {
        let [d, h, w] = self.output.size;
        let last_row = (d - 1) * self.stride[0] * self.slab + (h - 1) * self.stride[1] * self.row;
        // The last quad of a row may compute up to three pixels that are not written.
        let last_pixel = (w.next_multiple_of(4) - 1) * self.stride[2];
        let pixel_words = self.kernels.pixel_bytes / PACK;
        let (before, after) = reach(spec);
        for Part { view, origin } in spec.input {
            let end = origin + (view.planes - 1) * view.plane + last_row + last_pixel + after + 1;
            let range = self.space + (origin - before) * pixel_words..self.space + end * pixel_words;
            self.output.check_against(range, self.words);
        }
        for table in &self.tables {
            assert!(table.bias.len() == table.factors.len() && table.bias.len() >= self.vectors() * LANES);
        }
        assert_eq!(self.weight_bytes(), self.vectors() * self.steps() * self.kernels.step_bytes);
        assert!(spec.tables.iter().all(|table| table.factors.iter().all(|&factor| factor > 0.)));
    }

    fn vectors(&self) -> usize {
        self.blocks.iter().map(|block| block.vectors).sum()
    }

    fn steps(&self) -> usize {
        self.offsets.len() / self.kernels.step_planes
    }

    /// Bytes of packed weights, shared by all modalities.
    pub const fn weight_bytes(&self) -> usize {
        PACK * self.weights.words()
    }

    /// Bytes of the tables of all modalities.
    pub fn table_bytes(&self) -> usize {
        self.tables.iter().map(|table| 8 * table.bias.len()).sum()
    }

    /// Tile of the widest block: vectors of 16 channels and pixels.
    pub fn tile(&self) -> [usize; 2] {
        let widest = self.blocks.iter().max_by_key(|block| block.vectors).expect("a block");
        [widest.vectors, 4 * widest.tiles[0].0]
    }

    /// Words that it writes into.
    pub fn writes(&self) -> std::ops::Range<usize> {
        self.output.span()
    }

    /// Bytes of input, weights and output, each once.
    pub fn bytes(&self) -> usize {
        self.input_bytes + self.weight_bytes() + PACK * self.output.pixels()
    }

    /// Address of the packed weights: one for all modalities.
    pub const fn weights(&self) -> *const u8 {
        self.weights.base().cast_const().cast()
    }

    /// Computes some rows of the output, for the modality of `table`.
    pub fn run(&self, arena: &Arena, table: usize, rows: std::ops::Range<usize>) {
        assert!(arena.words() >= self.words && rows.end <= self.output.rows());
        let (table, height) = (&self.tables[table], self.output.size[1]);
        let pixel_words = self.kernels.pixel_bytes / PACK;
        for block in &self.blocks {
            let planes = (self.output.planes - block.first * 4).min(block.vectors * 4);
            for row in rows.clone() {
                let (z, y) = (row / height, row % height);
                let tap = self.first_tap + z * self.stride[0] * self.slab + y * self.stride[1] * self.row;
                let output = self.output.row_at(block.first * 4, row);
                let mut x = 0;
                for &(quads, routine) in &block.tiles {
                    let input = self.space + (tap + x * self.stride[2]) * pixel_words;
                    // SAFETY: `check` proved that every tap of every pixel of every tile lies in the arena, that weights, bias
                    // and factors fill all vectors, and that the output overlaps nothing that is read. Holding `kernels` proves
                    // that the CPU has its instructions. Rows differ between threads.
                    unsafe {
                        let tile = Tile {
                            input: arena.base().add(input).cast(),
                            stride: self.stride[2],
                            offsets: self.offsets.as_ptr(),
                            steps: self.steps(),
                            weights: self.weights().add(block.weights),
                            bias: table.bias.as_ptr().add(block.first * LANES),
                            factors: table.factors.as_ptr().add(block.first * LANES),
                            zero: self.output_zero,
                            output: arena.base().add(output + x),
                            plane: self.output.plane,
                            planes,
                            pixels: (self.output.size[2] - x).min(4 * quads),
                        };
                        routine(&tile);
                    }
                    x += 4 * quads;
                }
            }
        }
    }
}

/// One tap of one input plane.
struct Tap {
    offset: u32,
    plane: usize,
    /// Index in the kernel, `[d, h, w]` flattened.
    index: usize,
}

/// Pixels from the first tap to the pixel itself, and from there to the last tap.
fn reach(spec: &ConvSpec<'_>) -> (usize, usize) {
    let View { row, slab, .. } = spec.input[0].view;
    let pixels = |steps: [usize; 3]| steps[0] * slab + steps[1] * row + steps[2];
    (
        pixels(spec.pads),
        pixels(std::array::from_fn(|axis| spec.dilation[axis] * (spec.kernel[axis] - 1) - spec.pads[axis])),
    )
}

/// All taps of a plane, then those of the next; offsets count from the first tap of
/// the part whose origin is `first`.
fn taps(spec: &ConvSpec<'_>, first: usize) -> Vec<Tap> {
    let ([kd, kh, kw], [dz, dy, dx]) = (spec.kernel, spec.dilation);
    let mut taps = vec![];
    let planes =
        spec.input.iter().flat_map(|part| (0..part.view.planes).map(|plane| part.origin + plane * part.view.plane));
    let View { row, slab, .. } = spec.input[0].view;
    for (plane, origin) in planes.enumerate() {
        for index in 0..kd * kh * kw {
            let (z, y, x) = (index / (kh * kw), index / kw % kh, index % kw);
            let offset = origin - first + z * dz * slab + y * dy * row + x * dx;
            taps.push(Tap { offset: u32::try_from(offset).expect("an arena below 2^32 words"), plane, index });
        }
    }
    taps
}

/// Vectors of the next tile: two if possible, three rather than two and one, as far as the table has them.
fn block_vectors(kernels: &Kernels, left: usize, stride: [usize; 3]) -> usize {
    let wanted = match left {
        _ if stride[2] != 1 => 1,
        1 | 3 => left,
        _ => 2,
    };
    (1..=wanted.min(MAX_VECTORS)).rev().find(|&vectors| kernels.quads[vectors - 1] > 0).unwrap_or(1)
}

/// Quads of each tile of a row of `width` pixels: as few tiles as possible, as equal as possible.
fn split(width: usize, most: usize) -> Vec<usize> {
    debug_assert!((1..=MAX_QUADS).contains(&most));
    let quads = width.div_ceil(4);
    let tiles = quads.div_ceil(most);
    (0..tiles).map(|tile| (quads + tile) / tiles).rev().collect()
}

fn pack(kernels: &Kernels, spec: &ConvSpec<'_>, taps: &[Tap], vectors: std::ops::Range<usize>, out: &mut Vec<u8>) {
    let size: usize = spec.kernel.iter().product();
    let group_in = spec.lanes.iter().flatten().count() / spec.groups;
    let group_out = spec.channels / spec.groups;
    let weight = |o: usize, tap: &Tap, lane: usize| -> i8 {
        let Some(i) = spec.lanes[tap.plane * PACK + lane] else { return 0 };
        // Other groups' channels weigh nothing.
        if o >= spec.channels || i / group_in != o / group_out {
            return 0;
        }
        spec.weights[(o * group_in + i % group_in) * size + tap.index]
    };
    for step in taps.chunks(kernels.step_planes) {
        for vector in vectors.clone() {
            let mut weights: StepWeights = Default::default();
            for (lane, channel) in weights.iter_mut().enumerate() {
                for (position, tap) in step.iter().enumerate() {
                    for input in 0..PACK {
                        channel[position * PACK + input] = weight(vector * LANES + lane, tap, input);
                    }
                }
            }
            let start = out.len();
            out.resize(start + kernels.step_bytes, 0);
            (kernels.pack)(&weights, &mut out[start..]);
        }
    }
}

/// The table with zero points folded into the bias, filled up to whole vectors.
fn shifted(table: &Table, spec: &ConvSpec<'_>, shift: i32) -> Table {
    let per_channel = spec.weights.len() / spec.channels;
    // The kernel sees `code + shift`, the formula wants `code - zero`.
    let excess = i32::from(spec.input_zero) + shift;
    let bias = |(channel, bias): (usize, &i32)| {
        let weights = &spec.weights[channel * per_channel..][..per_channel];
        bias - excess * weights.iter().map(|&weight| i32::from(weight)).sum::<i32>()
    };
    let mut shifted = Table { bias: table.bias.iter().enumerate().map(bias).collect(), factors: table.factors.clone() };
    let whole = spec.channels.next_multiple_of(LANES);
    shifted.bias.resize(whole, 0);
    shifted.factors.resize(whole, 1.);
    shifted
}
