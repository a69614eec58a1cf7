//! Linear up-sampling by the contract's rule, a row at a time: the source rows of a block of pixels are joined column by column,
//! then each phase of the row takes its weights of three neighbouring columns.
//!
//! All sums are whole numbers below 2^24, so f32 holds them exactly and their order does not matter.

use std::ops::Range;

use contract::interpolate::{Interpolation, weights};

use super::{Arena, Kernels, PACK, View};

/// Interpolates planes.
#[derive(Debug)]
pub struct Interpolate {
    kernels: Kernels,
    input: View,
    output: View,
    rule: Interpolation,
    zero: i8,
}

/// What one row of the output is made of.
pub struct Rows<'a> {
    /// Up to four rows of the input, of equal lengths, and the weight of each.
    sources: [(&'a [u32], f32); 4],
    /// How many of them.
    count: usize,
    /// Along the row.
    factor: usize,
    /// Added to each sum: the zero point plus 128.
    zero: f32,
    /// One over the rule's divisor.
    inverse: f32,
}

impl Interpolate {
    /// From one place to another; `zero` is the code of real 0 of both.
    pub fn new(kernels: Kernels, input: View, output: View, rule: Interpolation, zero: i8, words: usize) -> Self {
        output.check_against(input.span(), words);
        assert_eq!(input.planes, output.planes);
        assert!((0..3).all(|axis| output.size[axis] == input.size[axis] * rule.factor()[axis]));
        Self { kernels, input, output, rule, zero }
    }

    /// Words that it writes into.
    pub fn writes(&self) -> Range<usize> {
        self.output.span()
    }

    /// Bytes of input and output.
    pub const fn bytes(&self) -> usize {
        PACK * (self.input.pixels() + self.output.pixels())
    }

    /// Some rows of the output.
    pub fn run(&self, arena: &Arena, rows: Range<usize>) {
        let ([depth, height, width], factor) = (self.input.size, self.rule.factor());
        for (plane, row) in (0..self.output.planes).flat_map(|plane| rows.clone().map(move |row| (plane, row))) {
            let (z, y) = (row / self.output.size[1], row % self.output.size[1]);
            let mut rows = Rows {
                sources: [(&[], 0.); 4],
                count: 0,
                factor: factor[2],
                zero: f32::from(self.zero) + 128.,
                inverse: 1. / self.rule.divisor() as f32,
            };
            for (z, z_weight) in neighbours(factor[0], depth, z) {
                for (y, y_weight) in neighbours(factor[1], height, y) {
                    // SAFETY: `new` checked that the views are in bounds and disjoint.
                    let source = unsafe { arena.words_at(self.input.row_at(plane, z * height + y), width) };
                    rows.sources[rows.count] = (source, (z_weight * y_weight) as f32);
                    rows.count += 1;
                }
            }
            // SAFETY: as above; rows differ between threads; the table was made on this machine.
            unsafe {
                let out = arena.words_mut(self.output.row_at(plane, row), self.output.size[2]);
                (self.kernels.moves.interpolate)(&rows, self.kernels.flip, out);
            }
        }
    }
}

/// The samples of an axis that an output lies between, one or two, and their weights.
fn neighbours(factor: usize, length: usize, position: usize) -> impl Iterator<Item = (usize, i32)> {
    let (sample, weights) = (position / factor, weights(factor, position % factor));
    let samples = [sample.saturating_sub(1), sample, (sample + 1).min(length - 1)];
    samples.into_iter().zip(weights).filter(|(_, weight)| *weight != 0)
}

/// Source pixels whose columns stay in the first cache.
const BLOCK: usize = 64;

/// One row; `out` is `factor` times as long as the sources.
#[inline(always)]
pub(super) fn interpolate(rows: &Rows<'_>, flip: u8, out: &mut [u32]) {
    let (factor, width) = (rows.factor, rows.sources[0].0.len());
    // The columns of a block with one neighbour on each side.
    let mut columns = [0f32; (BLOCK + 2) * PACK];
    for (block, out) in out.chunks_mut(BLOCK * factor).enumerate() {
        let (start, pixels) = (block * BLOCK, out.len() / factor);
        let columns = &mut columns[..(pixels + 2) * PACK];
        columns.fill(0.);
        for (source, weight) in &rows.sources[..rows.count] {
            let ends = [source[start.saturating_sub(1)], source[(start + pixels).min(width - 1)]];
            add(&mut columns[..PACK], &ends[..1], *weight, flip);
            add(&mut columns[PACK..], &source[start..start + pixels], *weight, flip);
            add(&mut columns[(pixels + 1) * PACK..], &ends[1..], *weight, flip);
        }
        for phase in 0..factor {
            let weights = weights(factor, phase).map(|weight| weight as f32);
            spread(columns, weights, rows, flip, &mut out[phase..]);
        }
    }
}

/// Adds codes plus 128, times a weight.
#[inline(always)]
fn add(columns: &mut [f32], words: &[u32], weight: f32, flip: u8) {
    let sign = flip ^ 0x80;
    for (columns, word) in columns.chunks_exact_mut(PACK).zip(words) {
        for (column, byte) in columns.iter_mut().zip(word.to_le_bytes()) {
            *column += weight * f32::from(byte ^ sign);
        }
    }
}

/// One phase: every `factor`th word of `out`.
#[inline(always)]
fn spread(columns: &[f32], weights: [f32; 3], rows: &Rows<'_>, flip: u8, out: &mut [u32]) {
    /// With this added, a number from 0 to 255 stands rounded in the lowest bits.
    const SHIFT: f32 = 12_582_912.;
    let mut bytes = [0u8; BLOCK * PACK];
    let bytes = &mut bytes[..columns.len() - 2 * PACK];
    let [left, middle, right] = weights;
    let (own, behind) = (&columns[PACK..][..bytes.len()], &columns[2 * PACK..][..bytes.len()]);
    for (((byte, a), b), c) in bytes.iter_mut().zip(columns).zip(own).zip(behind) {
        let sum = left * a + middle * b + right * c + rows.zero;
        // No tie is near: see the contract's `Interpolation`.
        *byte = (sum * rows.inverse + SHIFT).to_bits() as u8 ^ flip ^ 0x80;
    }
    for (word, out) in bytes.chunks_exact(PACK).zip(out.iter_mut().step_by(rows.factor)) {
        *out = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
    }
}
