//! x86-64 with AVX2 and FMA alone. Its byte product (`vpmaddubsw`) saturates in 16 bits, so codes and weights are widened:
//! `vpmaddwd` multiplies 16-bit numbers exactly and adds two at a time. The input is widened once per convolution.

use std::arch::x86_64::*;

use contract::{Intake, IntensityError};

use super::{
    ConvTile, Kernels, LANES, MAX_QUADS, MapTable, Moves, PACK, StepWeights, SumTable, Tile, generic, interpolate::Rows,
};

/// The table, if this CPU has the instructions.
pub fn new() -> Option<Kernels> {
    let one: [Option<ConvTile>; MAX_QUADS] = [Some(conv::<1>), None, None, None, None, None, None];
    Some(Kernels {
        name: "avx2",
        flip: 0x80,
        shift: 128,
        pixel_bytes: 2 * PACK,
        step_planes: 1,
        step_bytes: 2 * LANES * PACK,
        pack,
        quads: [1, 0, 0],
        conv: [one, [None; MAX_QUADS], [None; MAX_QUADS]],
        triples: [None; MAX_QUADS],
        strided: [Some(conv_strided), None, None, None, None, None, None],
        moves: moves()?,
    })
}

/// `[channel pair of the plane][half][8 channels][2]` as 16-bit numbers.
fn pack(step: &StepWeights, out: &mut [u8]) {
    let mut weights = vec![];
    for pair in 0..2 {
        for channel in step {
            weights.extend([channel[2 * pair], channel[2 * pair + 1]]);
        }
    }
    for (weight, out) in weights.into_iter().zip(out.chunks_exact_mut(2)) {
        out.copy_from_slice(&i16::from(weight).to_le_bytes());
    }
}

#[target_feature(enable = "avx2")]
unsafe fn conv<const STRIDE: usize>(tile: &Tile) {
    // SAFETY: the caller's promise about the tile.
    unsafe { four_pixels(tile, STRIDE) }
}

#[target_feature(enable = "avx2")]
unsafe fn conv_strided(tile: &Tile) {
    // SAFETY: the caller's promise about the tile.
    unsafe { four_pixels(tile, tile.stride) }
}

/// Four pixels of 16 channels: eight accumulators.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn four_pixels(tile: &Tile, stride: usize) {
    // SAFETY: the caller's promise about the tile; a pixel is 8 bytes, a step 128 bytes of weights.
    unsafe {
        let bias: [__m256i; 2] = std::array::from_fn(|half| _mm256_loadu_si256(tile.bias.add(8 * half).cast()));
        let mut acc = [bias; 4];
        for step in 0..tile.steps {
            let pixel = tile.input.add(8 * *tile.offsets.add(step) as usize);
            for pair in 0..2 {
                let weights = tile.weights.add(step * 128 + pair * 64);
                let w: [__m256i; 2] = std::array::from_fn(|half| _mm256_loadu_si256(weights.add(32 * half).cast()));
                for (i, acc) in acc.iter_mut().enumerate() {
                    let x = pixel.add(8 * i * stride + 4 * pair).cast::<i32>().read_unaligned();
                    let x = _mm256_set1_epi32(x);
                    for (acc, &w) in acc.iter_mut().zip(&w) {
                        *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(x, w));
                    }
                }
            }
        }
        store(tile, acc);
    }
}

/// Requantises four pixels and writes them to their planes. Takes them by value: a reference, where this is not inlined,
/// would keep the accumulators of the loop in memory.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store(tile: &Tile, acc: [[__m256i; 2]; 4]) {
    let zero = _mm256_set1_epi32(i32::from(tile.zero) + 128);
    let [first, second, third, fourth] = acc;
    for half in 0..2 {
        // SAFETY: the caller's promise about the tile: 16 factors.
        let factors = unsafe { _mm256_loadu_ps(tile.factors.add(8 * half)) };
        // Accumulators times factors stay below 2^30 (checked at load), so the conversion cannot overflow; it rounds half to
        // even, and packing saturates.
        let codes = |acc: [__m256i; 2]| {
            let real = _mm256_mul_ps(_mm256_cvtepi32_ps(acc[half]), factors);
            _mm256_add_epi32(_mm256_cvtps_epi32(real), zero)
        };
        let low = _mm256_packs_epi32(codes(first), codes(second));
        let high = _mm256_packs_epi32(codes(third), codes(fourth));
        let bytes = _mm256_packus_epi16(low, high);
        for (lane, words) in
            [_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes)].into_iter().enumerate()
        {
            let plane = 2 * half + lane;
            if plane < tile.planes {
                // SAFETY: the caller's promise: this plane and these pixels of it can be written.
                unsafe {
                    let out = tile.output.add(plane * tile.plane);
                    if tile.pixels >= 4 {
                        _mm_storeu_si128(out.cast(), words);
                    } else {
                        let mask = _mm_cmpgt_epi32(_mm_set1_epi32(tile.pixels as i32), _mm_setr_epi32(0, 1, 2, 3));
                        _mm_maskstore_epi32(out.cast(), mask, words);
                    }
                }
            }
        }
    }
}

/// Routines compiled for AVX2 and FMA, if this CPU has them.
pub fn moves() -> Option<Moves> {
    let has = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    has.then_some(Moves { codes, max_2x2, max_blocks, repeat_2, argmax, sum, map, interpolate, spread, widen })
}

#[target_feature(enable = "avx2")]
fn codes(intake: &mut Intake, raw: &[i16], codes: &mut [i8]) -> Result<(), IntensityError> {
    intake.codes(raw, codes)
}

/// Words of a vector.
const WORDS: usize = 8;

#[target_feature(enable = "avx2")]
fn max_2x2(a: &[u32], b: &[u32], flip: u8, first: bool, out: &mut [u32]) {
    let sign = _mm256_set1_epi8((flip ^ 0x80) as i8);
    let whole = out.len() / WORDS;
    let rows = a.chunks_exact(2 * WORDS).zip(b.chunks_exact(2 * WORDS));
    for ((a, b), out) in rows.zip(out.chunks_exact_mut(WORDS)) {
        // SAFETY: the chunks have 16, 16 and 8 words.
        unsafe {
            let largest: [__m256; 2] = std::array::from_fn(|half| {
                let [a, b] = [a, b].map(|row| _mm256_loadu_si256(row.as_ptr().add(half * WORDS).cast()));
                _mm256_castsi256_ps(_mm256_max_epu8(_mm256_xor_si256(a, sign), _mm256_xor_si256(b, sign)))
            });
            // Even and odd words of both halves, in the order of the lanes.
            let even = _mm256_castps_si256(_mm256_shuffle_ps::<0x88>(largest[0], largest[1]));
            let odd = _mm256_castps_si256(_mm256_shuffle_ps::<0xdd>(largest[0], largest[1]));
            let mut words = _mm256_permute4x64_epi64::<0xd8>(_mm256_max_epu8(even, odd));
            if !first {
                let held = _mm256_loadu_si256(out.as_ptr().cast());
                words = _mm256_max_epu8(words, _mm256_xor_si256(held, sign));
            }
            _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm256_xor_si256(words, sign));
        }
    }
    let done = whole * WORDS;
    generic::max_2x2(&a[2 * done..], &b[2 * done..], flip, first, &mut out[done..]);
}

#[target_feature(enable = "avx2")]
fn max_blocks(row: &[u32], block: usize, flip: u8, first: bool, out: &mut [u32]) {
    generic::max_blocks(row, block, flip, first, out);
}

#[target_feature(enable = "avx2")]
fn repeat_2(row: &[u32], out: &mut [u32]) {
    generic::repeat_2(row, out);
}

#[target_feature(enable = "avx2")]
fn argmax(planes: &[u32], plane: usize, classes: usize, flip: u8, out: &mut [u8]) {
    generic::argmax(planes, plane, classes, flip, out);
}

#[target_feature(enable = "avx2,fma")]
fn sum(a: &[u32], table: SumTable, flip: u8, out: &mut [u32]) {
    let sign = _mm256_set1_epi8((flip ^ 0x80) as i8);
    let [first, second] = table.factors.map(|factor| _mm256_set1_ps(factor));
    let constant = _mm256_set1_ps(table.constant);
    let whole = out.len() / WORDS;
    for (a, out) in a.chunks_exact(WORDS).zip(out.chunks_exact_mut(WORDS)) {
        // SAFETY: the chunks have 8 words.
        let [a, b] = unsafe { [a.as_ptr(), out.as_ptr()].map(|words| _mm256_loadu_si256(words.cast())) };
        let [a, b] = [a, b].map(|words| _mm256_xor_si256(words, sign));
        let code = |at: usize| {
            let rest = _mm256_fmadd_ps(two_pixels(b, at), second, constant);
            _mm256_cvtps_epi32(_mm256_fmadd_ps(two_pixels(a, at), first, rest))
        };
        let words = _mm256_xor_si256(eight_pixels([code(0), code(1), code(2), code(3)]), sign);
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), words) };
    }
    let done = whole * WORDS;
    generic::sum(&a[done..], table, flip, &mut out[done..]);
}

#[target_feature(enable = "avx2,fma")]
fn map(table: &MapTable, flip: u8, out: &mut [u32]) {
    let sign = _mm256_set1_epi8((flip ^ 0x80) as i8);
    // SAFETY: four numbers each.
    let [factors, shifts] =
        unsafe { [&table.factors, &table.shifts].map(|four| _mm256_broadcast_ps(&_mm_loadu_ps(four.as_ptr()))) };
    let slope = _mm256_set1_ps(table.slope);
    let [x_zero, y_zero] = table.zeros.map(|zero| i32::from(zero) + 128);
    let (x_zero, y_zero) = (_mm256_set1_ps(x_zero as f32), _mm256_set1_epi32(y_zero));
    let whole = out.len() / WORDS;
    for out in out.chunks_exact_mut(WORDS) {
        // SAFETY: the chunk has 8 words.
        let words = _mm256_xor_si256(unsafe { _mm256_loadu_si256(out.as_ptr().cast()) }, sign);
        let code = |at: usize| {
            let value = _mm256_fmadd_ps(_mm256_sub_ps(two_pixels(words, at), x_zero), factors, shifts);
            _mm256_add_epi32(_mm256_cvtps_epi32(_mm256_max_ps(value, _mm256_mul_ps(value, slope))), y_zero)
        };
        let words = _mm256_xor_si256(eight_pixels([code(0), code(1), code(2), code(3)]), sign);
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), words) };
    }
    generic::map(table, flip, &mut out[whole * WORDS..]);
}

/// Bytes of the words `2 * at` and `2 * at + 1`.
#[inline]
#[target_feature(enable = "avx2")]
fn two_pixels(words: __m256i, at: usize) -> __m256 {
    let half = if at < 2 { _mm256_castsi256_si128(words) } else { _mm256_extracti128_si256::<1>(words) };
    let eight = if at.is_multiple_of(2) { half } else { _mm_srli_si128::<8>(half) };
    _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eight))
}

/// Words of four times two pixels, saturated.
#[inline]
#[target_feature(enable = "avx2")]
fn eight_pixels(codes: [__m256i; 4]) -> __m256i {
    let low = _mm256_packs_epi32(codes[0], codes[1]);
    let high = _mm256_packs_epi32(codes[2], codes[3]);
    // Packing leaves the words of both halves in turn.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order)
}

#[target_feature(enable = "avx2")]
fn interpolate(rows: &Rows<'_>, flip: u8, out: &mut [u32]) {
    generic::interpolate(rows, flip, out);
}

#[target_feature(enable = "avx2")]
fn spread(codes: &[i8], lane: usize, flip: u8, out: &mut [u32]) {
    generic::spread(codes, lane, flip, out);
}

#[target_feature(enable = "avx2")]
fn widen(words: &[u32], out: &mut [u64]) {
    generic::widen(words, out);
}
