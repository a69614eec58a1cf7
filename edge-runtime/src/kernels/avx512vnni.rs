//! x86-64 with AVX-512 and VNNI: `vpdpbusd` multiplies 64 unsigned by 64 signed bytes and adds four at a time.
//!
//! A tile holds up to 24 accumulators of 16 channels (with 28 the compiler runs out of registers). A word of the input is broadcast to all lanes, weights are loaded
//! whole. Packing the results of four pixels twice leaves in each 128-bit lane one plane of four pixels, so a store needs no
//! shuffle.

use std::arch::x86_64::*;

use super::{ConvTile, Kernels, LANES, MAX_QUADS, PACK, Tile, avx2, generic};

/// The table, if this CPU has the instructions.
pub fn new() -> Option<Kernels> {
    let has = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni");
    let moves = avx2::moves()?;
    let one: [Option<ConvTile>; MAX_QUADS] = [
        Some(conv::<1, 1>),
        Some(conv::<1, 2>),
        Some(conv::<1, 3>),
        Some(conv::<1, 4>),
        Some(conv::<1, 5>),
        Some(conv::<1, 6>),
        None,
    ];
    let two = [Some(conv::<2, 1> as ConvTile), Some(conv::<2, 2>), Some(conv::<2, 3>), None, None, None, None];
    let three = [Some(conv::<3, 1> as ConvTile), Some(conv::<3, 2>), None, None, None, None, None];
    has.then_some(Kernels {
        name: "avx512vnni",
        flip: 0x80,
        shift: 128,
        pixel_bytes: PACK,
        step_planes: 1,
        step_bytes: LANES * PACK,
        pack: generic::pack,
        quads: [6, 3, 2],
        conv: [one, two, three],
        triples: [
            Some(triples::<1>),
            Some(triples::<2>),
            Some(triples::<3>),
            Some(triples::<4>),
            Some(triples::<5>),
            Some(triples::<6>),
            None,
        ],
        strided: [
            Some(strided::<1>),
            Some(strided::<2>),
            Some(strided::<3>),
            Some(strided::<4>),
            Some(strided::<5>),
            Some(strided::<6>),
            None,
        ],
        moves,
    })
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn conv<const V: usize, const Q: usize>(tile: &Tile) {
    // SAFETY: the caller's promise about the tile.
    unsafe {
        let bias: [__m512i; V] = std::array::from_fn(|v| _mm512_loadu_si512(tile.bias.add(v * LANES).cast()));
        let mut acc = [[bias; 4]; Q];
        let input: *const i32 = tile.input.cast();
        let mut weights = tile.weights;
        for step in 0..tile.steps {
            let word = input.add(*tile.offsets.add(step) as usize);
            let w: [__m512i; V] = std::array::from_fn(|v| _mm512_loadu_si512(weights.add(v * 64).cast()));
            for (q, quad) in acc.iter_mut().enumerate() {
                for (pixel, acc) in quad.iter_mut().enumerate() {
                    let x = _mm512_set1_epi32(word.add(4 * q + pixel).read_unaligned());
                    for (acc, &w) in acc.iter_mut().zip(&w) {
                        *acc = _mm512_dpbusd_epi32(*acc, x, w);
                    }
                }
            }
            weights = weights.add(V * 64);
        }
        for (q, quad) in acc.iter().enumerate() {
            store(tile, 4 * q, *quad);
        }
    }
}

/// One vector, steps in threes whose offsets follow one another: the three taps of a row of a kernel. Six words
/// are broadcast for twelve products, because with one vector and a word per product the loads would be the limit.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn triples<const Q: usize>(tile: &Tile) {
    // SAFETY: the caller's promise about the tile; the words of a triple are those of its three offsets.
    unsafe {
        let mut acc = [[[_mm512_loadu_si512(tile.bias.cast())]; 4]; Q];
        let input: *const i32 = tile.input.cast();
        for triple in 0..tile.steps / 3 {
            let word = input.add(*tile.offsets.add(3 * triple) as usize);
            let weights = tile.weights.add(triple * 3 * 64);
            let w: [__m512i; 3] = std::array::from_fn(|tap| _mm512_loadu_si512(weights.add(tap * 64).cast()));
            for (q, quad) in acc.iter_mut().enumerate() {
                let x: [__m512i; 6] =
                    std::array::from_fn(|at| _mm512_set1_epi32(word.add(4 * q + at).read_unaligned()));
                for (tap, &w) in w.iter().enumerate() {
                    for (pixel, acc) in quad.iter_mut().enumerate() {
                        acc[0] = _mm512_dpbusd_epi32(acc[0], x[pixel + tap], w);
                    }
                }
            }
        }
        for (q, quad) in acc.iter().enumerate() {
            store(tile, 4 * q, *quad);
        }
    }
}

/// Any stride, one vector.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn strided<const Q: usize>(tile: &Tile) {
    // SAFETY: the caller's promise about the tile.
    unsafe {
        let mut acc = [[[_mm512_loadu_si512(tile.bias.cast())]; 4]; Q];
        for step in 0..tile.steps {
            let word = tile.input.cast::<i32>().add(*tile.offsets.add(step) as usize);
            let w = _mm512_loadu_si512(tile.weights.add(step * 64).cast());
            for (q, quad) in acc.iter_mut().enumerate() {
                let word = word.add(4 * q * tile.stride);
                for (pixel, acc) in quad.iter_mut().enumerate() {
                    let x = _mm512_set1_epi32(word.add(pixel * tile.stride).read_unaligned());
                    acc[0] = _mm512_dpbusd_epi32(acc[0], x, w);
                }
            }
        }
        for (q, quad) in acc.iter().enumerate() {
            store(tile, 4 * q, *quad);
        }
    }
}

/// Requantises four pixels and writes them to their planes. Takes them by value: a reference, where this is not inlined,
/// would keep the accumulators of the loop in memory.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn store<const V: usize>(tile: &Tile, first: usize, acc: [[__m512i; V]; 4]) {
    let zero = _mm512_set1_epi32(i32::from(tile.zero) + 128);
    let pixels = tile.pixels - first;
    let [a, b, c, d] = acc;
    for v in 0..V {
        // SAFETY: the caller's promise about the tile: 16 factors per vector.
        let factors = unsafe { _mm512_loadu_ps(tile.factors.add(v * LANES)) };
        // Accumulators times factors stay below 2^30 (checked at load), so the conversion cannot overflow; it rounds half to
        // even, and packing saturates.
        let codes = |acc: [__m512i; V]| {
            let real = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[v]), factors);
            _mm512_add_epi32(_mm512_cvtps_epi32(real), zero)
        };
        let low = _mm512_packs_epi32(codes(a), codes(b));
        let high = _mm512_packs_epi32(codes(c), codes(d));
        let bytes = _mm512_packus_epi16(low, high);
        let lanes = [
            _mm512_castsi512_si128(bytes),
            _mm512_extracti32x4_epi32::<1>(bytes),
            _mm512_extracti32x4_epi32::<2>(bytes),
            _mm512_extracti32x4_epi32::<3>(bytes),
        ];
        for (lane, words) in lanes.into_iter().enumerate() {
            let plane = 4 * v + lane;
            if plane < tile.planes {
                // SAFETY: the caller's promise: this plane and these pixels of it can be written.
                unsafe {
                    let out = tile.output.add(plane * tile.plane + first);
                    if pixels >= 4 {
                        _mm_storeu_si128(out.cast(), words);
                    } else {
                        _mm_mask_storeu_epi32(out.cast(), (1 << pixels) - 1, words);
                    }
                }
            }
        }
    }
}
