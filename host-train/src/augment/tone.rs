//! The intensity variations: blur, bias field, exponent, contrast, brightness and noise, on reals in units of codes.

use contract::Modality;
use rand::RngCore;

use super::{Augment, Size, either_way, factor};

/// `code + MIDDLE` lies in `[0, RANGE]`.
const MIDDLE: f32 = 128.;
const RANGE: f32 = 255.;

/// Gaussian of `sigma` pixels, cut at three of them; the edge pixel repeats.
pub(super) fn blur(slice: &mut [f32], width: usize, sigma: f32) {
    let radius = (3. * sigma).ceil() as usize;
    if radius == 0 {
        return;
    }
    let height = slice.len() / width;
    let bell = |index: usize| (-0.5 * ((index as f32 - radius as f32) / sigma).powi(2)).exp();
    let total: f32 = (0..=2 * radius).map(bell).sum();
    let weights: Vec<f32> = (0..=2 * radius).map(|index| bell(index) / total).collect();
    let inside = |index: usize, count: usize| index.saturating_sub(radius).min(count - 1);
    let mut across = vec![0.; slice.len()];
    for (source, target) in slice.chunks_exact(width).zip(across.chunks_exact_mut(width)) {
        for (column, value) in target.iter_mut().enumerate() {
            *value = weights.iter().enumerate().map(|(tap, w)| w * source[inside(column + tap, width)]).sum();
        }
    }
    slice.fill(0.);
    for (row, target) in slice.chunks_exact_mut(width).enumerate() {
        for (tap, weight) in weights.iter().enumerate() {
            let source = &across[inside(row + tap, height) * width..][..width];
            target.iter_mut().zip(source).for_each(|(value, source)| *value += weight * source);
        }
    }
}

/// What happens to the brightness of each pixel.
pub(super) struct Tone {
    /// CT: codes at the ends of the window stay.
    pinned: bool,
    width: usize,
    /// Logarithm of the bias field per row and per column.
    bias: Option<(Vec<f32>, Vec<f32>)>,
    gamma: Option<f32>,
    gain: f32,
    offset: f32,
    noise: f32,
}

impl Tone {
    /// Draws which variations there are, and how strong.
    pub(super) fn draw(strength: &Augment, size: Size, modality: Modality, rng: &mut impl RngCore) -> Self {
        let mr = modality == Modality::Mr;
        let bias = strength.chosen(if mr { strength.bias } else { 0. }, rng);
        let bias = bias.then(|| {
            let (rows, columns) = (parabola(size.height, rng), parabola(size.width, rng));
            // Each lies in [-1, 1], so that their sum with half the strength stays within it.
            let half = either_way(strength.bias, rng) / 2.;
            (rows.iter().map(|v| v * half).collect(), columns.iter().map(|v| v * half).collect())
        });
        let gamma = strength.chosen(strength.gamma, rng).then(|| factor(strength.gamma, rng));
        let gain = if strength.chosen(strength.gain, rng) { factor(strength.gain, rng) } else { 1. };
        let offset = if strength.chosen(strength.offset, rng) { either_way(strength.offset, rng) } else { 0. };
        let noise = strength.chosen(strength.noise, rng);
        let noise = if noise { either_way(strength.noise, rng).abs() } else { 0. };
        Self { pinned: !mr, width: size.width, bias, gamma, gain, offset, noise }
    }

    /// Changes one slice in place; values stay reals, in units of codes.
    pub(super) fn apply(&self, slice: &mut [f32], rng: &mut impl RngCore) {
        let plain = self.bias.is_none() && self.gamma.is_none() && self.gain == 1. && self.offset == 0.;
        if plain && self.noise == 0. {
            return;
        }
        for (row, pixels) in slice.chunks_exact_mut(self.width).enumerate() {
            for (column, value) in pixels.iter_mut().enumerate() {
                let noise = if self.noise > 0. { self.noise * normal(rng) } else { 0. };
                let mut grey = (*value + MIDDLE) / RANGE;
                if self.pinned && (grey <= 0. || grey >= 1.) {
                    continue;
                }
                if let Some((rows, columns)) = &self.bias {
                    grey *= (rows[row] + columns[column]).exp();
                }
                if let Some(gamma) = self.gamma {
                    grey = grey.clamp(0., 1.).powf(gamma);
                }
                grey = (grey - 0.5) * self.gain + 0.5 + self.offset + noise;
                *value = grey * RANGE - MIDDLE;
            }
        }
    }
}

/// A random parabola over `[-1, 1]`, itself within `[-1, 1]`.
fn parabola(length: usize, rng: &mut impl RngCore) -> Vec<f32> {
    let (slope, bend) = (either_way(0.5, rng), either_way(0.5, rng));
    let place = |index: usize| 2. * (index as f32 + 0.5) / length as f32 - 1.;
    (0..length).map(|index| slope * place(index) + bend * (2. * place(index).powi(2) - 1.)).collect()
}

/// Nearly normal, mean 0, standard deviation 1: the sum of four uniform bytes, which is fast and bounded.
fn normal(rng: &mut impl RngCore) -> f32 {
    let sum: u16 = rng.next_u32().to_le_bytes().iter().map(|&byte| u16::from(byte)).sum();
    // Variance of one uniform byte: (256^2 - 1) / 12.
    (f32::from(sum) - 510.) / (4f32 * 65_535. / 12.).sqrt()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn blur_keeps_a_constant_and_spreads_a_point_as_a_gaussian() {
        let mut flat = vec![7f32; 15 * 21];
        blur(&mut flat, 21, 0.8);
        assert!(flat.iter().all(|v| (v - 7.).abs() < 1e-5));
        let mut point = vec![0f32; 15 * 21];
        point[7 * 21 + 10] = 1.;
        blur(&mut point, 21, 0.8);
        let sum: f32 = point.iter().sum();
        let second: f32 = point.iter().enumerate().map(|(i, v)| v * ((i % 21) as f32 - 10.).powi(2)).sum::<f32>();
        assert!((sum - 1.).abs() < 1e-5, "{sum}");
        // Sampling and the cut at three sigma change the variance of 0.64 by less than 2 %.
        assert!((second - 0.64).abs() < 0.0128, "{second}");
    }

    #[test]
    fn noise_has_mean_zero_and_variance_one() {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let draws: Vec<f64> = (0..40_000).map(|_| f64::from(normal(&mut rng))).collect();
        let mean = draws.iter().sum::<f64>() / 4e4;
        let variance = draws.iter().map(|v| v * v).sum::<f64>() / 4e4;
        // Five standard errors: sqrt(1 / n), and at most sqrt(2 / n) for the variance of a bounded sum.
        assert!(mean.abs() < 0.025 && (variance - 1.).abs() < 0.036, "{mean} {variance}");
    }
}
