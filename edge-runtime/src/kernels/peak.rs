//! A tile over data that stay in the first cache: how fast the kernels could be if memory cost nothing.

use super::{Kernels, LANES, MAX_VECTORS, Tile};

/// A tile of one size with its own memory.
pub struct PeakTile {
    kernels: Kernels,
    vectors: usize,
    quads: usize,
    input: Vec<u64>,
    offsets: Vec<u32>,
    weights: Vec<u8>,
    bias: Vec<i32>,
    factors: Vec<f32>,
}

/// Steps of a tile: weights of at most 24 KiB.
const STEPS: usize = 128;

impl PeakTile {
    /// The largest tile of each number of vectors.
    pub fn all(kernels: Kernels) -> Vec<Self> {
        (1..=MAX_VECTORS)
            .filter(|vectors| kernels.quads[vectors - 1] > 0)
            .map(|vectors| Self {
                kernels,
                vectors,
                quads: kernels.quads[vectors - 1],
                input: vec![0x0102_0304_0506_0708; 4 * kernels.quads[vectors - 1]],
                offsets: vec![0; STEPS * kernels.step_planes],
                weights: vec![3; STEPS * kernels.step_bytes * vectors],
                bias: vec![0; LANES * vectors],
                factors: vec![1e-3; LANES * vectors],
            })
            .collect()
    }

    /// Multiply-accumulates of one run.
    pub fn macs(&self) -> usize {
        STEPS * self.kernels.step_planes * super::PACK * LANES * self.vectors * 4 * self.quads
    }

    /// Computes the tile so many times; returns a word of its output.
    pub fn run(&self, times: usize) -> u32 {
        let plane = 4 * self.quads;
        let mut out = vec![0; plane * 4 * self.vectors];
        let tile = Tile {
            input: self.input.as_ptr().cast(),
            stride: 1,
            offsets: self.offsets.as_ptr(),
            steps: STEPS,
            weights: self.weights.as_ptr(),
            bias: self.bias.as_ptr(),
            factors: self.factors.as_ptr(),
            zero: 0,
            output: out.as_mut_ptr(),
            plane,
            planes: 4 * self.vectors,
            pixels: 4 * self.quads,
        };
        let conv = self.kernels.conv(self.vectors, self.quads);
        for _ in 0..times {
            // SAFETY: every offset is 0 and the input holds all pixels, 8 bytes each; the other vectors have the tile's lengths.
            unsafe { conv(&tile) };
        }
        out[0]
    }
}
