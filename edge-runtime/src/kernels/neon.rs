//! aarch64 without dotprod (Cortex-A53, A72): `smull` and `smlal` multiply eight pairs of signed bytes, `sadalp` adds the 16-bit
//! products in pairs to 32-bit sums.
//!
//! Weights are never -128, so two products (at most 2 * 127 * 128 = 32,512) fit 16 bits: a step is two planes, and three
//! instructions do 16 multiplications. A channel's sum lies in two neighbouring lanes until the end. So four pixels of 16
//! channels would fill all 32 registers; a tile takes eight channels at a time.

use std::arch::aarch64::*;

use super::{ConvTile, Kernels, LANES, MAX_QUADS, PACK, StepWeights, Tile, generic};

/// The table. Every aarch64 CPU has NEON.
pub fn new() -> Option<Kernels> {
    let one: [Option<ConvTile>; MAX_QUADS] = [Some(conv), None, None, None, None, None, None];
    Some(Kernels {
        name: "neon",
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

/// `[half of the channels][input plane][channel][4]`.
fn pack(step: &StepWeights, out: &mut [u8]) {
    for (i, out) in out.chunks_exact_mut(PACK).enumerate() {
        let (half, plane, channel) = (i / 16, i / 8 % 2, i % 8);
        for (&weight, out) in step[8 * half + channel][PACK * plane..].iter().zip(out) {
            *out = weight as u8;
        }
    }
}

/// Stride 1.
#[target_feature(enable = "neon")]
unsafe fn conv(tile: &Tile) {
    // SAFETY: the caller's promise about the tile.
    unsafe { halves(tile, |offset| vld1q_s8(tile.input.add(PACK * offset as usize).cast())) }
}

#[target_feature(enable = "neon")]
unsafe fn strided(tile: &Tile) {
    // SAFETY: the caller's promise about the tile.
    unsafe { halves(tile, |offset| four_pixels(tile, offset)) }
}

/// Four pixels of 16 channels, eight channels at a time; `load` gives the pixels at an offset.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn halves(tile: &Tile, load: impl Fn(u32) -> int8x16_t) {
    for half in 0..tile.planes.div_ceil(2) {
        // `[pixel][pair of channels]`: each sum in two parts.
        let mut acc = [[vdupq_n_s32(0); 4]; 4];
        for step in 0..tile.steps {
            // SAFETY: the caller's promise about the tile; a step has two offsets and 128 bytes of weights.
            unsafe {
                let x = [load(*tile.offsets.add(2 * step)), load(*tile.offsets.add(2 * step + 1))];
                let weights = tile.weights.add(128 * step + 64 * half);
                let w = std::array::from_fn(|i| vld1q_s8(weights.add(16 * i).cast()));
                multiply(&mut acc[0], w, x.map(|x| pixel::<0>(x)));
                multiply(&mut acc[1], w, x.map(|x| pixel::<1>(x)));
                multiply(&mut acc[2], w, x.map(|x| pixel::<2>(x)));
                multiply(&mut acc[3], w, x.map(|x| pixel::<3>(x)));
            }
        }
        // SAFETY: the caller's promise about the tile.
        unsafe {
            let bias: [int32x4_t; 2] = bias(tile, 2 * half);
            let whole = acc.map(|acc| {
                let sums = [vpaddq_s32(acc[0], acc[1]), vpaddq_s32(acc[2], acc[3])];
                [vaddq_s32(sums[0], bias[0]), vaddq_s32(sums[1], bias[1])]
            });
            store(tile, 2 * half, 0, whole);
        }
    }
}

/// One pixel in all four words.
#[inline]
#[target_feature(enable = "neon")]
fn pixel<const PIXEL: i32>(x: int8x16_t) -> int8x16_t {
    vreinterpretq_s8_s32(vdupq_laneq_s32::<PIXEL>(vreinterpretq_s32_s8(x)))
}

/// One pixel and eight channels over two planes: `w` is `[plane * 2 + half of the eight]`.
#[inline]
#[target_feature(enable = "neon")]
fn multiply(acc: &mut [int32x4_t; 4], w: [int8x16_t; 4], x: [int8x16_t; 2]) {
    for i in 0..2 {
        let low = vmull_s8(vget_low_s8(w[i]), vget_low_s8(x[0]));
        let low = vmlal_s8(low, vget_low_s8(w[2 + i]), vget_low_s8(x[1]));
        acc[2 * i] = vpadalq_s16(acc[2 * i], low);
        let high = vmlal_high_s8(vmull_high_s8(w[i], x[0]), w[2 + i], x[1]);
        acc[2 * i + 1] = vpadalq_s16(acc[2 * i + 1], high);
    }
}

/// Four pixels at the tile's stride.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn four_pixels(tile: &Tile, offset: u32) -> int8x16_t {
    // SAFETY: the caller's promise about the tile: every offset and all four pixels can be read.
    unsafe {
        let word = |pixel: usize| tile.input.cast::<u32>().add(offset as usize + pixel * tile.stride);
        let x = vdupq_n_u32(word(0).read_unaligned());
        let x = vld1q_lane_u32::<1>(word(1), x);
        let x = vld1q_lane_u32::<2>(word(2), x);
        vreinterpretq_s8_u32(vld1q_lane_u32::<3>(word(3), x))
    }
}

/// The biases of `P` planes of output channels.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn bias<const P: usize>(tile: &Tile, first: usize) -> [int32x4_t; P] {
    // SAFETY: the caller's promise about the tile: 16 biases.
    std::array::from_fn(|plane| unsafe { vld1q_s32(tile.bias.add(PACK * (first + plane))) })
}

/// Requantises a quad, `[pixel][plane]`, and writes it from plane `first` and pixel `start` on. By value, because a reference
/// would keep the accumulators in memory all along; so does inlining, where the compiler then does not unroll the loop over
/// quads.
#[inline(never)]
#[target_feature(enable = "neon")]
pub(super) unsafe fn store<const P: usize>(tile: &Tile, first: usize, start: usize, acc: [[int32x4_t; P]; 4]) {
    let words: [uint32x4_t; P] = std::array::from_fn(|plane| {
        // SAFETY: the caller's promise about the tile: 16 factors.
        let factors = unsafe { vld1q_f32(tile.factors.add(PACK * (first + plane))) };
        requantise(acc.map(|planes| planes[plane]), factors, tile.zero)
    });
    for (plane, words) in words.into_iter().enumerate() {
        if first + plane < tile.planes {
            // SAFETY: the caller's promise about the tile: this plane and these pixels of it can be written.
            unsafe { write(tile, first + plane, start, words) };
        }
    }
}

/// Codes of four pixels of one plane.
///
/// Rounds as the contract does: where 1.5 * 2^23 has been added, a float is that number's bits plus the rounded integer. Bits
/// grow with reals and the subtraction saturates, so what is out of range ends there too. (Converting costs an Arm core of
/// the A76 family four times as much as adding.)
#[inline]
#[target_feature(enable = "neon")]
fn requantise(acc: [int32x4_t; 4], factors: float32x4_t, zero: i8) -> uint32x4_t {
    const SHIFT: f32 = 12_582_912.;
    let base = vdupq_n_s32(SHIFT.to_bits() as i32 - i32::from(zero));
    let [a, b, c, d] = acc.map(|acc| {
        let shifted = vaddq_f32(vmulq_f32(vcvtq_f32_s32(acc), factors), vdupq_n_f32(SHIFT));
        vqsubq_s32(vreinterpretq_s32_f32(shifted), base)
    });
    let low = vqmovn_high_s32(vqmovn_s32(a), b);
    let high = vqmovn_high_s32(vqmovn_s32(c), d);
    vreinterpretq_u32_s8(vqmovn_high_s16(vqmovn_s16(low), high))
}

/// Writes the pixels from `start` on, at most four, to one plane.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn write(tile: &Tile, plane: usize, start: usize, words: uint32x4_t) {
    let pixels = tile.pixels - start;
    // SAFETY: the caller's promise about the tile: this plane and these pixels of it can be written.
    unsafe {
        let out = tile.output.add(plane * tile.plane + start);
        if pixels >= 4 {
            return vst1q_u32(out, words);
        }
        vst1q_lane_u32::<0>(out, words);
        if pixels > 1 {
            vst1q_lane_u32::<1>(out.add(1), words);
        }
        if pixels > 2 {
            vst1q_lane_u32::<2>(out.add(2), words);
        }
    }
}
