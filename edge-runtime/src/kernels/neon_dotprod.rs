//! aarch64 with dotprod (Cortex-A55, A76, Neoverse N1 and later): `sdot` multiplies 16 pairs of signed bytes and adds four at
//! a time. Its intrinsic is unstable in Rust 1.95, so each one is an `asm!`; LLVM allocates the registers and schedules.
//!
//! Four pixels of a plane are one load, and `sdot` picks one of them as its second factor. A tile of one quad goes over all
//! 16 channels at once; one of two or three quads takes eight channels at a time, so that 24 accumulators share five loads.

use std::arch::{aarch64::*, asm, is_aarch64_feature_detected};

use super::{ConvTile, Kernels, LANES, MAX_QUADS, PACK, Tile, generic, neon};

/// The table, if this CPU has the instructions.
pub fn new() -> Option<Kernels> {
    let one: [Option<ConvTile>; MAX_QUADS] =
        [Some(conv::<4, 1>), Some(conv::<2, 2>), Some(conv::<2, 3>), None, None, None, None];
    is_aarch64_feature_detected!("dotprod").then_some(Kernels {
        name: "neon_dotprod",
        flip: 0,
        shift: 0,
        pixel_bytes: PACK,
        step_planes: 1,
        step_bytes: STEP,
        pack: generic::pack,
        quads: [3, 0, 0],
        conv: [one, [None; MAX_QUADS], [None; MAX_QUADS]],
        triples: [Some(triples::<4, 1>), Some(triples::<2, 2>), Some(triples::<2, 3>), None, None, None, None],
        strided: [Some(strided), None, None, None, None, None, None],
        moves: generic::MOVES,
    })
}

/// Bytes of a step: 16 for each plane of output channels.
const STEP: usize = LANES * PACK;

/// Four pixels and `P` planes of output channels: `[pixel][plane]`.
type Quad<const P: usize> = [[int32x4_t; P]; 4];

/// Four pixels and the four after them.
type Words = [int8x16_t; 2];

/// `Q` quads, `P` planes of output channels at a time.
#[target_feature(enable = "neon,dotprod")]
unsafe fn conv<const P: usize, const Q: usize>(tile: &Tile) {
    for first in (0..tile.planes).step_by(P) {
        // SAFETY: the caller's promise about the tile.
        unsafe {
            let mut acc = [[neon::bias(tile, first); 4]; Q];
            let mut weights = tile.weights.add(16 * first);
            let mut offsets = tile.offsets;
            for _ in 0..tile.steps / 2 {
                step::<P, Q, 0>(&mut acc, quads(tile, *offsets), weights);
                step::<P, Q, 0>(&mut acc, quads(tile, *offsets.add(1)), weights.add(STEP));
                offsets = offsets.add(2);
                weights = weights.add(2 * STEP);
            }
            if tile.steps % 2 == 1 {
                step::<P, Q, 0>(&mut acc, quads(tile, *offsets), weights);
            }
            for (q, quad) in acc.into_iter().enumerate() {
                neon::store(tile, first, 4 * q, quad);
            }
        }
    }
}

/// The same where three taps follow one another: they share their pixels, so that three quads are four loads instead of nine.
#[target_feature(enable = "neon,dotprod")]
unsafe fn triples<const P: usize, const Q: usize>(tile: &Tile) {
    for first in (0..tile.planes).step_by(P) {
        // SAFETY: the caller's promise about the tile.
        unsafe {
            let mut acc = [[neon::bias(tile, first); 4]; Q];
            let mut weights = tile.weights.add(16 * first);
            for triple in 0..tile.steps / 3 {
                let x = quads_and_two(tile, *tile.offsets.add(3 * triple));
                step::<P, Q, 0>(&mut acc, x, weights);
                step::<P, Q, 1>(&mut acc, x, weights.add(STEP));
                step::<P, Q, 2>(&mut acc, x, weights.add(2 * STEP));
                weights = weights.add(3 * STEP);
            }
            for (q, quad) in acc.into_iter().enumerate() {
                neon::store(tile, first, 4 * q, quad);
            }
        }
    }
}

/// Any stride, four pixels.
#[target_feature(enable = "neon,dotprod")]
unsafe fn strided(tile: &Tile) {
    // SAFETY: the caller's promise about the tile.
    unsafe {
        let mut acc = [[neon::bias::<4>(tile, 0); 4]];
        for s in 0..tile.steps {
            let x = neon::four_pixels(tile, *tile.offsets.add(s));
            step::<4, 1, 0>(&mut acc, [[x; 2]], tile.weights.add(STEP * s));
        }
        neon::store(tile, 0, 0, acc[0]);
    }
}

/// The pixels that a tap sees, and none after them.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn quads<const Q: usize>(tile: &Tile, offset: u32) -> [Words; Q] {
    // SAFETY: the caller's promise about the tile: every offset and all its pixels can be read.
    std::array::from_fn(|q| unsafe { [vld1q_s8(tile.input.add(PACK * offset as usize + 16 * q).cast()); 2] })
}

/// The pixels that three taps see: two more than the first of them.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn quads_and_two<const Q: usize>(tile: &Tile, offset: u32) -> [Words; Q] {
    // SAFETY: the caller's promise about the tile: the last tap's last pixel is the last of these two.
    let after = unsafe { vld1_s8(tile.input.add(PACK * offset as usize + 16 * Q).cast()) };
    // SAFETY: as above, of the first tap.
    let mut x: [Words; Q] = unsafe { quads(tile, offset) };
    for q in 0..Q {
        x[q][1] = if q + 1 < Q { x[q + 1][0] } else { vcombine_s8(after, vdup_n_s8(0)) };
    }
    x
}

/// One plane of the input, from word `SHIFT` of its pixels on.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn step<const P: usize, const Q: usize, const SHIFT: usize>(
    acc: &mut [Quad<P>; Q],
    x: [Words; Q],
    weights: *const u8,
) {
    // SAFETY: the caller's promise about the tile: 16 bytes per plane of output channels.
    let w: [int8x16_t; P] = std::array::from_fn(|plane| unsafe { vld1q_s8(weights.add(16 * plane).cast()) });
    for (quad, x) in acc.iter_mut().zip(x) {
        for (plane, w) in w.into_iter().enumerate() {
            quad[0][plane] = sdot::<SHIFT, 0>(quad[0][plane], w, x);
            quad[1][plane] = sdot::<SHIFT, 1>(quad[1][plane], w, x);
            quad[2][plane] = sdot::<SHIFT, 2>(quad[2][plane], w, x);
            quad[3][plane] = sdot::<SHIFT, 3>(quad[3][plane], w, x);
        }
    }
}

/// Adds to each lane the dot product of four bytes of `w` and word `SHIFT + PIXEL` of `x`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot<const SHIFT: usize, const PIXEL: usize>(mut acc: int32x4_t, w: int8x16_t, x: Words) -> int32x4_t {
    // SAFETY: touches nothing but its operands; the function's features say that the CPU has it.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {w:v}.16b, {x:v}.4b[{word}]",
            acc = inout(vreg) acc,
            w = in(vreg) w,
            x = in(vreg) x[(SHIFT + PIXEL) / 4],
            word = const (SHIFT + PIXEL) % 4,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}
