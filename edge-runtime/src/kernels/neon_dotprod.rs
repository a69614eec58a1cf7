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
        step_bytes: LANES * PACK,
        pack: generic::pack,
        quads: [3, 0, 0],
        conv: [one, [None; MAX_QUADS], [None; MAX_QUADS]],
        triples: [None; MAX_QUADS],
        strided,
        moves: generic::MOVES,
    })
}

/// `P` planes of a quad's results: `[pixel][plane]`.
type Quad<const P: usize> = [[int32x4_t; P]; 4];

/// `Q` quads, `P` planes of output channels at a time.
#[target_feature(enable = "neon,dotprod")]
unsafe fn conv<const P: usize, const Q: usize>(tile: &Tile) {
    for first in (0..tile.planes).step_by(P) {
        // SAFETY: the caller's promise about the tile; a step is 64 bytes of weights, 16 per plane of output channels.
        unsafe {
            let mut acc: [Quad<P>; Q] = [[neon::bias(tile, first); 4]; Q];
            let mut weights = tile.weights.add(16 * first);
            let mut offsets = tile.offsets;
            for _ in 0..tile.steps / 2 {
                step(&mut acc, quads(tile, *offsets), weights);
                step(&mut acc, quads(tile, *offsets.add(1)), weights.add(LANES * PACK));
                offsets = offsets.add(2);
                weights = weights.add(2 * LANES * PACK);
            }
            if tile.steps % 2 == 1 {
                step(&mut acc, quads(tile, *offsets), weights);
            }
            for (q, quad) in acc.iter().enumerate() {
                neon::store(tile, first, 4 * q, quad);
            }
        }
    }
}

/// Any stride, four pixels.
#[target_feature(enable = "neon,dotprod")]
unsafe fn strided(tile: &Tile) {
    // SAFETY: the caller's promise about the tile; a step is 64 bytes of weights.
    unsafe {
        let mut acc = [[neon::bias::<4>(tile, 0); 4]];
        for s in 0..tile.steps {
            let x = neon::four_pixels(tile, *tile.offsets.add(s));
            step(&mut acc, [x], tile.weights.add(s * LANES * PACK));
        }
        neon::store(tile, 0, 0, &acc[0]);
    }
}

/// The pixels that one tap of the tile sees.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn quads<const Q: usize>(tile: &Tile, offset: u32) -> [int8x16_t; Q] {
    // SAFETY: the caller's promise about the tile: every offset and all its pixels can be read.
    std::array::from_fn(|q| unsafe { vld1q_s8(tile.input.add(PACK * offset as usize + 16 * q).cast()) })
}

/// One plane of the input.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn step<const P: usize, const Q: usize>(acc: &mut [Quad<P>; Q], x: [int8x16_t; Q], weights: *const u8) {
    // SAFETY: the caller's promise: 16 bytes per plane of output channels.
    let w: [int8x16_t; P] = std::array::from_fn(|plane| unsafe { vld1q_s8(weights.add(16 * plane).cast()) });
    for (quad, x) in acc.iter_mut().zip(x) {
        for (plane, w) in w.into_iter().enumerate() {
            quad[0][plane] = sdot::<0>(quad[0][plane], w, x);
            quad[1][plane] = sdot::<1>(quad[1][plane], w, x);
            quad[2][plane] = sdot::<2>(quad[2][plane], w, x);
            quad[3][plane] = sdot::<3>(quad[3][plane], w, x);
        }
    }
}

/// Adds to each lane the dot product of four bytes of `w` and word `PIXEL` of `x`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot<const PIXEL: usize>(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: touches nothing but its operands; the function's features say that the CPU has it.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {w:v}.16b, {x:v}.4b[{pixel}]",
            acc = inout(vreg) acc,
            w = in(vreg) w,
            x = in(vreg) x,
            pixel = const PIXEL,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}
