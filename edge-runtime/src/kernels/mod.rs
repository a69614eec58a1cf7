//! Compute routines. `generic` is their meaning; every other table gives the same bits, and the tests hold each against it.
//!
//! A value lies in memory as planes of four channels: `[c / 4][d][h][w]`, one word of four codes per pixel. So the pixels
//! of a row are neighbouring words, a tap is one offset, and joining channels is putting planes one behind another. A
//! convolution is then, for each pixel, `sum over k of weights[k] . word[pixel + offsets[k]]`: a kernel sees a list of
//! offsets and knows nothing of axes, dilation or dimensions.
//!
//! This folder is the only place of the runtime with unsafe code.

mod arena;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
mod codewise;
mod conv;
mod generic;
mod interpolate;
mod labels;
mod moves;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_dotprod;
#[cfg(target_arch = "aarch64")]
mod neon_i8mm;
mod peak;
#[cfg(test)]
mod suite;
mod surroundings;
mod team;

use contract::IntensityError;
use interpolate::Rows;

pub use arena::{Arena, View, WORDS_PER_LINE};
pub use codewise::{Add, Map, MapSpec, MapTable, SumTable};
pub use conv::{Conv, ConvSpec, Part, Table};
pub use interpolate::Interpolate;
pub use labels::{LabelMap, Labels};
pub use moves::{Intake, Lane, Move, Pick, Resize, Shuffle, Widen, share};
pub use peak::PeakTile;
pub use surroundings::{Blank, Fill, Mirror};
pub use team::{Meeting, Team};

/// Channels of a plane.
pub const PACK: usize = 4;
/// Output channels of a vector of accumulators: four planes.
pub const LANES: usize = 16;
/// Most vectors of a tile.
pub const MAX_VECTORS: usize = 3;
/// Most groups of four pixels of a tile.
pub const MAX_QUADS: usize = 7;

/// Weights of one vector and one step: `[output channel][plane of the step * 4 + channel in the plane]`.
pub type StepWeights = [[i8; 2 * PACK]; LANES];

/// Four pixels times `quads`, 16 output channels times `vectors`: what a kernel computes in one go.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    /// First pixel of the tile, tap offset 0. One pixel is [`Kernels::pixel_bytes`] long.
    pub input: *const u8,
    /// Pixels from one output's input to the next.
    pub stride: usize,
    /// Per step and plane of the step: where its pixel lies, in pixels after `input`.
    pub offsets: *const u32,
    /// Steps.
    pub steps: usize,
    /// Packed by [`Kernels::pack`], `[step][vector]`.
    pub weights: *const u8,
    /// `[16 * vectors]`, input zero point included.
    pub bias: *const i32,
    /// `[16 * vectors]`, the requantisation factors.
    pub factors: *const f32,
    /// Code of real 0 of the output.
    pub zero: i8,
    /// First pixel of the tile in the first plane of its channels; one word per pixel.
    pub output: *mut u32,
    /// Words between output planes.
    pub plane: usize,
    /// Planes to write, at most `4 * vectors`.
    pub planes: usize,
    /// Pixels to write, more than `4 * (quads - 1)` and at most `4 * quads`.
    pub pixels: usize,
}

/// A convolution over one tile.
///
/// # Safety
/// The CPU has the instructions of the table that the function comes from. All pointers of the tile are valid for what the
/// fields say: `input` for every offset and all `4 * quads` pixels, the rest for their lengths; `output` overlaps nothing
/// that is read.
pub type ConvTile = unsafe fn(&Tile);

/// One way to compute: a table of routines, chosen once at load. Holding one proves that this CPU can run it.
#[derive(Clone, Copy)]
pub struct Kernels {
    name: &'static str,
    /// A code's byte in memory is `code ^ flip`: 0x80 where the multiplication takes unsigned bytes.
    pub flip: u8,
    /// What the multiplication sees of a code: `code + shift`.
    pub shift: i32,
    /// Bytes of a pixel as the convolution reads it: 4, or 8 where codes must be widened to 16 bits first.
    pub pixel_bytes: usize,
    /// Planes per step.
    pub step_planes: usize,
    /// Bytes of packed weights per step and vector.
    pub step_bytes: usize,
    /// Packs the weights of one step and vector into `step_bytes`.
    pub pack: fn(&StepWeights, &mut [u8]),
    /// Most quads of a tile of 1, 2 and 3 vectors; 0 where the table has no such tile.
    pub quads: [usize; MAX_VECTORS],
    /// `[vectors - 1][quads - 1]`, stride 1.
    conv: [[Option<ConvTile>; MAX_QUADS]; MAX_VECTORS],
    /// `[quads - 1]`, one vector, stride 1, steps in threes whose offsets follow one another; `None` where that is no faster.
    triples: [Option<ConvTile>; MAX_QUADS],
    /// `[quads - 1]`, one vector, any stride: the first few.
    strided: [Option<ConvTile>; MAX_QUADS],
    /// Everything that moves words: compiled for the same instructions.
    pub moves: Moves,
}

/// A slice's way into the network: raw pixels to codes on the model's grid.
pub type Codes = unsafe fn(&mut contract::Intake, &[i16], &mut [i8]) -> Result<(), IntensityError>;

/// Routines around the convolutions. Their code is the contract's or `generic`'s, compiled once per instruction set.
#[derive(Clone, Copy)]
pub struct Moves {
    /// [`contract::Intake::codes`].
    pub codes: Codes,
    /// Largest code of each pair of words and of two rows: `max(a[2i], a[2i + 1], b[2i], b[2i + 1])` per byte; joined with what
    /// `out` holds unless these are the `first` rows.
    pub max_2x2: unsafe fn(a: &[u32], b: &[u32], flip: u8, first: bool, out: &mut [u32]),
    /// Largest code of each `block` words of a row, per byte; joined with what `out` holds unless this is the `first` row.
    pub max_blocks: unsafe fn(row: &[u32], block: usize, flip: u8, first: bool, out: &mut [u32]),
    /// `out[i] = row[i / 2]`.
    pub repeat_2: unsafe fn(row: &[u32], out: &mut [u32]),
    /// Channel of the largest code of each pixel, the lowest at a tie: `planes[c / 4][pixel]` at `plane` words from one another.
    pub argmax: unsafe fn(planes: &[u32], plane: usize, classes: usize, flip: u8, out: &mut [u8]),
    /// Per byte, `a * factors[0] + b * factors[1] + constant`, rounded and saturated, of codes plus 128; `out` holds `b`.
    pub sum: unsafe fn(a: &[u32], table: SumTable, flip: u8, out: &mut [u32]),
    /// Per byte, what a [`MapTable`] says, rounded and saturated.
    pub map: unsafe fn(table: &MapTable, flip: u8, out: &mut [u32]),
    /// One output row of linear up-sampling.
    pub interpolate: unsafe fn(rows: &Rows<'_>, flip: u8, out: &mut [u32]),
    /// Codes into channel `lane` of words. Lane 0 also puts code 0 into the other three, so it comes first.
    pub spread: unsafe fn(codes: &[i8], lane: usize, flip: u8, out: &mut [u32]),
    /// The four bytes of each word as 16-bit numbers.
    pub widen: unsafe fn(words: &[u32], out: &mut [u64]),
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Kernels {
    /// Those that this CPU can run, best first; `generic` is always the last.
    pub fn available() -> Vec<Self> {
        let mut found = vec![];
        #[cfg(target_arch = "x86_64")]
        found.extend([avx512vnni::new(), avx2::new()].into_iter().flatten());
        #[cfg(target_arch = "aarch64")]
        found.extend([neon_i8mm::new(), neon_dotprod::new(), neon::new()].into_iter().flatten());
        found.push(generic::new());
        found
    }

    /// The table of that name, if this CPU can run it.
    pub fn named(name: &str) -> Option<Self> {
        Self::available().into_iter().find(|kernels| kernels.name == name)
    }

    /// Name of the table, e.g. `avx512vnni`.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The codes of a raw slice: [`contract::Intake::codes`], compiled for this CPU.
    pub fn codes(&self, intake: &mut contract::Intake, raw: &[i16], codes: &mut [i8]) -> Result<(), IntensityError> {
        // SAFETY: holding the table proves that the CPU has its instructions.
        unsafe { (self.moves.codes)(intake, raw, codes) }
    }

    /// The routine for a tile of stride 1.
    ///
    /// # Panics
    /// If the table has no such tile: see [`Self::quads`].
    pub fn conv(&self, vectors: usize, quads: usize) -> ConvTile {
        self.conv[vectors - 1][quads - 1].expect("a tile of this table")
    }

    /// The routine for a tile of one vector and any stride.
    ///
    /// # Panics
    /// If the table has no such tile: see [`Self::strided_quads`].
    pub fn strided(&self, quads: usize) -> ConvTile {
        self.strided[quads - 1].expect("a tile of this table")
    }

    /// Most quads of a tile of any stride.
    pub fn strided_quads(&self) -> usize {
        self.strided.iter().flatten().count()
    }

    /// The routine for a tile whose steps come in threes with offsets that follow one another, if the table has one.
    pub fn triples(&self, vectors: usize, quads: usize) -> Option<ConvTile> {
        self.triples[quads - 1].filter(|_| vectors == 1)
    }
}
