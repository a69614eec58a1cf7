//! aarch64 with i8mm (Cortex-A510, A710, Neoverse N2 and later): `smmla` multiplies two rows of eight signed bytes by two
//! columns of eight. Its intrinsic is unstable in Rust 1.95, so each one is an `asm!`.
//!
//! A row is one pixel of two planes, a column one output channel: a step is two planes, whose words are interleaved first.
//! Four pixels of 16 channels are 16 accumulators.

use std::arch::{aarch64::*, asm, is_aarch64_feature_detected};

use super::{ConvTile, Kernels, LANES, MAX_QUADS, PACK, StepWeights, Tile, generic, neon};

/// The table, if this CPU has the instructions.
pub fn new() -> Option<Kernels> {
    let one: [Option<ConvTile>; MAX_QUADS] = [Some(conv), None, None, None, None, None, None];
    is_aarch64_feature_detected!("i8mm").then_some(Kernels {
        name: "neon_i8mm",
        flip: 0,
        shift: 0,
        pixel_bytes: PACK,
        step_planes: 2,
        step_bytes: 2 * LANES * PACK,
        pack,
        quads: [1, 0, 0],
        conv: [one, [None; MAX_QUADS], [None; MAX_QUADS]],
        triples: [None; MAX_QUADS],
        strided: [Some(strided), None, None, None, None, None, None],
        moves: generic::MOVES,
    })
}

/// `[channel][8]`.
fn pack(step: &StepWeights, out: &mut [u8]) {
    for (&weight, out) in step.as_flattened().iter().zip(out) {
        *out = weight as u8;
    }
}

/// Stride 1.
#[target_feature(enable = "neon,i8mm")]
unsafe fn conv(tile: &Tile) {
    // SAFETY: the caller's promise about the tile.
    unsafe { four_by_sixteen(tile, |offset| vld1q_s8(tile.input.add(PACK * offset as usize).cast())) }
}

#[target_feature(enable = "neon,i8mm")]
unsafe fn strided(tile: &Tile) {
    // SAFETY: the caller's promise about the tile.
    unsafe { four_by_sixteen(tile, |offset| neon::four_pixels(tile, offset)) }
}

/// Four pixels of 16 channels; `load` gives the pixels at an offset.
#[inline]
#[target_feature(enable = "neon,i8mm")]
unsafe fn four_by_sixteen(tile: &Tile, load: impl Fn(u32) -> int8x16_t) {
    // SAFETY: the caller's promise about the tile; a step has two offsets and 128 bytes of weights.
    unsafe {
        // `[pair of pixels][pair of channels]`, `[pixel][channel]` in each.
        let [a, b, c, d] = neon::bias(tile, 0).map(|bias| [low_pair(bias), high_pair(bias)]);
        let bias: [int32x4_t; 8] = [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]];
        let mut acc = [bias; 2];
        for step in 0..tile.steps {
            let [a, b] = [0, 1].map(|plane| vreinterpretq_s32_s8(load(*tile.offsets.add(2 * step + plane))));
            let x = [vzip1q_s32(a, b), vzip2q_s32(a, b)].map(|x| vreinterpretq_s8_s32(x));
            let [first, last] = &mut acc;
            for (i, (first, last)) in first.iter_mut().zip(last).enumerate() {
                let w = vld1q_s8(tile.weights.add(128 * step + 16 * i).cast());
                *first = smmla(*first, x[0], w);
                *last = smmla(*last, x[1], w);
            }
        }
        let channels = |acc: [int32x4_t; 8], join: fn(int64x2_t, int64x2_t) -> int64x2_t| -> [int32x4_t; 4] {
            let wide = acc.map(|acc| vreinterpretq_s64_s32(acc));
            std::array::from_fn(|plane| vreinterpretq_s32_s64(join(wide[2 * plane], wide[2 * plane + 1])))
        };
        let first = |a, b| vtrn1q_s64(a, b);
        let second = |a, b| vtrn2q_s64(a, b);
        let quad =
            [channels(acc[0], first), channels(acc[0], second), channels(acc[1], first), channels(acc[1], second)];
        neon::store(tile, 0, 0, quad);
    }
}

/// The first two channels, twice.
#[inline]
#[target_feature(enable = "neon")]
fn low_pair(x: int32x4_t) -> int32x4_t {
    vcombine_s32(vget_low_s32(x), vget_low_s32(x))
}

/// The last two channels, twice.
#[inline]
#[target_feature(enable = "neon")]
fn high_pair(x: int32x4_t) -> int32x4_t {
    vcombine_s32(vget_high_s32(x), vget_high_s32(x))
}

/// Adds the four dot products of the rows of `x` and the rows of `w`.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut acc: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
    // SAFETY: touches nothing but its operands; the function's features say that the CPU has it.
    unsafe {
        asm!(
            "smmla {acc:v}.4s, {x:v}.16b, {w:v}.16b",
            acc = inout(vreg) acc,
            x = in(vreg) x,
            w = in(vreg) w,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}
