//! The meaning of every kernel: plain loops, the contract's rounding rule. Runs anywhere, fast nowhere.

use contract::{
    Intake,
    quant::{Multiplier, requantise, round_half_even},
};

pub(super) use super::interpolate::interpolate;
use super::{ConvTile, Kernels, LANES, MAX_QUADS, MapTable, Moves, PACK, StepWeights, SumTable, Tile};

/// The table.
pub fn new() -> Kernels {
    let one: [Option<ConvTile>; MAX_QUADS] =
        [Some(conv::<1, 1>), Some(conv::<1, 2>), Some(conv::<1, 3>), Some(conv::<1, 4>), None, None, None];
    Kernels {
        name: "generic",
        flip: 0,
        shift: 0,
        pixel_bytes: 4,
        step_planes: 1,
        step_bytes: LANES * PACK,
        pack,
        quads: [4, 0, 0],
        conv: [one, [None; MAX_QUADS], [None; MAX_QUADS]],
        triples: [None; MAX_QUADS],
        strided: one,
        moves: MOVES,
    }
}

/// `[channel][4]`: what dot products of four bytes want.
pub fn pack(step: &StepWeights, out: &mut [u8]) {
    for (channel, out) in step.iter().zip(out.chunks_exact_mut(PACK)) {
        for (&weight, byte) in channel.iter().zip(out) {
            *byte = weight as u8;
        }
    }
}

unsafe fn conv<const V: usize, const Q: usize>(tile: &Tile) {
    for pixel in 0..tile.pixels {
        for plane in 0..tile.planes.min(V * LANES / PACK) {
            let mut bytes = [0; PACK];
            for (lane, byte) in bytes.iter_mut().enumerate() {
                let channel = plane * PACK + lane;
                // SAFETY: the caller's promise: every step's offset, weights and the channel's constants can be read.
                unsafe {
                    let mut acc = *tile.bias.add(channel);
                    for step in 0..tile.steps {
                        let at = *tile.offsets.add(step) as usize + pixel * tile.stride;
                        let codes = tile.input.add(at * PACK).cast::<[i8; PACK]>().read_unaligned();
                        let weights = tile.weights.add((step * V * LANES + channel) * PACK).cast::<[i8; PACK]>();
                        let products = codes.iter().zip(*weights).map(|(&x, w)| i32::from(x) * i32::from(w));
                        acc = acc.wrapping_add(products.sum());
                    }
                    // Proved positive when the model was loaded.
                    let factor = Multiplier::new(*tile.factors.add(channel), 1., 1.);
                    *byte = factor.map_or(tile.zero, |factor| requantise(acc, factor, tile.zero)) as u8;
                }
            }
            debug_assert!(pixel < Q * 4);
            // SAFETY: the caller's promise: pixels and planes of the tile can be written.
            unsafe { *tile.output.add(plane * tile.plane + pixel) = u32::from_le_bytes(bytes) };
        }
    }
}

/// Moves without special instructions.
pub const MOVES: Moves =
    Moves { codes: Intake::codes, max_2x2, max_blocks, repeat_2, argmax, sum, map, interpolate, spread, widen };

/// Bytewise maximum of codes stored as `code ^ flip`.
#[inline(always)]
fn max_codes(a: u32, b: u32, flip: u8) -> u32 {
    // Codes compare as unsigned bytes once their sign is flipped.
    let sign = u32::from_le_bytes([flip ^ 0x80; PACK]);
    let (a, b) = ((a ^ sign).to_le_bytes(), (b ^ sign).to_le_bytes());
    u32::from_le_bytes([a[0].max(b[0]), a[1].max(b[1]), a[2].max(b[2]), a[3].max(b[3])]) ^ sign
}

#[inline(always)]
pub(super) fn max_2x2(a: &[u32], b: &[u32], flip: u8, first: bool, out: &mut [u32]) {
    for ((a, b), out) in a.chunks_exact(2).zip(b.chunks_exact(2)).zip(out) {
        let largest = max_codes(max_codes(a[0], a[1], flip), max_codes(b[0], b[1], flip), flip);
        *out = if first { largest } else { max_codes(largest, *out, flip) };
    }
}

#[inline(always)]
pub(super) fn max_blocks(row: &[u32], block: usize, flip: u8, first: bool, out: &mut [u32]) {
    for (words, out) in row.chunks_exact(block).zip(out) {
        let start = if first { words[0] } else { *out };
        *out = words.iter().fold(start, |largest, &word| max_codes(largest, word, flip));
    }
}

#[inline(always)]
pub(super) fn repeat_2(row: &[u32], out: &mut [u32]) {
    for (&word, out) in row.iter().zip(out.chunks_exact_mut(2)) {
        out.fill(word);
    }
}

#[inline(always)]
pub(super) fn argmax(planes: &[u32], plane: usize, classes: usize, flip: u8, out: &mut [u8]) {
    /// Pixels whose best codes stay in registers or the first cache.
    const BLOCK: usize = 64;
    let sign = u32::from(flip ^ 0x80);
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let (mut best, mut label) = ([0u32; BLOCK], [0u32; BLOCK]);
        for class in 0..classes {
            let words = &planes[class / PACK * plane + block * BLOCK..][..out.len()];
            let bits = 8 * (class % PACK) as u32;
            for ((best, label), &word) in best.iter_mut().zip(&mut label).zip(words) {
                let code = (word >> bits & 0xff) ^ sign;
                // The smallest code is 0, the start: class 0 wins where every class has it.
                let wins = code > *best;
                *best = if wins { code } else { *best };
                *label = if wins { class as u32 } else { *label };
            }
        }
        for (out, &label) in out.iter_mut().zip(&label) {
            *out = label as u8;
        }
    }
}

#[inline(always)]
pub(super) fn sum(a: &[u32], table: SumTable, flip: u8, out: &mut [u32]) {
    let [first, second] = table.factors;
    for (&a, out) in a.iter().zip(out) {
        let (a, b) = (lanes(a, flip), lanes(*out, flip));
        // No order of operations changes the code: see the contract's `Sum`.
        let real = |lane: usize| first * a[lane] + second * b[lane] + table.constant;
        *out = word(std::array::from_fn(real), flip);
    }
}

#[inline(always)]
pub(super) fn map(table: &MapTable, flip: u8, out: &mut [u32]) {
    let MapTable { factors, shifts, slope, zeros } = table;
    let [x_zero, y_zero] = zeros.map(|zero| f32::from(zero) + 128.);
    for out in out {
        let codes = lanes(*out, flip);
        // No order of operations changes the code: see the contract's `Table`.
        let real = |lane: usize| {
            let value = factors[lane] * (codes[lane] - x_zero) + shifts[lane];
            // The zero point comes after rounding: before, it would cost bits.
            round_half_even(value.max(slope * value).clamp(-512., 512.)) + y_zero
        };
        *out = word(std::array::from_fn(real), flip);
    }
}

/// Codes plus 128 of a word.
#[inline(always)]
fn lanes(word: u32, flip: u8) -> [f32; PACK] {
    word.to_le_bytes().map(|byte| f32::from(byte ^ flip ^ 0x80))
}

/// A word of codes plus 128, rounded.
#[inline(always)]
fn word(codes: [f32; PACK], flip: u8) -> u32 {
    u32::from_le_bytes(codes.map(|code| round_half_even(code.clamp(0., 255.)) as u8 ^ flip ^ 0x80))
}

#[inline(always)]
pub(super) fn spread(codes: &[i8], lane: usize, flip: u8, out: &mut [u32]) {
    let bits = 8 * lane as u32;
    // Lane 0 comes first and fills the others.
    let fresh = u32::from_le_bytes([0, flip, flip, flip]);
    for (&code, out) in codes.iter().zip(out) {
        let rest = if lane == 0 { fresh } else { *out & !(0xff << bits) };
        *out = u32::from(code as u8 ^ flip) << bits | rest;
    }
}

#[inline(always)]
pub(super) fn widen(words: &[u32], out: &mut [u64]) {
    for (&word, out) in words.iter().zip(out) {
        let [a, b, c, d] = word.to_le_bytes().map(u64::from);
        *out = a | b << 16 | c << 32 | d << 48;
    }
}
