//! Seeded random draws that are the same on every machine: ChaCha8 for the bits, `libm` for the functions.
//! A platform's own `sin` or `ln` may differ in the last bit, and one bit is enough to break a stored digest.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

/// A stream of draws. Streams of one seed are independent, so that e.g. a finer grid, which draws more noise,
/// leaves the anatomy as it is.
pub(crate) struct Draw {
    rng: ChaCha8Rng,
    spare: Option<f32>,
}

impl Draw {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self { rng, spare: None }
    }

    /// In `[0, 1)`, a multiple of 2^-24.
    fn unit(&mut self) -> f32 {
        (self.rng.next_u32() >> 8) as f32 / 16_777_216.0
    }

    pub(crate) fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// `value` plus or minus at most `spread`.
    pub(crate) fn around(&mut self, value: f32, spread: f32) -> f32 {
        self.uniform(value - spread, value + spread)
    }

    /// A point in the box of half-widths `spread` about `centre`.
    pub(crate) fn near(&mut self, centre: [f32; 3], spread: [f32; 3]) -> [f32; 3] {
        [0, 1, 2].map(|axis| self.around(centre[axis], spread[axis]))
    }

    /// An integer in `0..count`.
    pub(crate) fn below(&mut self, count: u32) -> u32 {
        // The bias of the modulo, below 2^-24 for the small counts used here, does not matter.
        self.rng.next_u32() % count
    }

    pub(crate) fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// Standard normal, by Box and Muller's method (two at a time).
    pub(crate) fn normal(&mut self) -> f32 {
        if let Some(value) = self.spare.take() {
            return value;
        }
        let radius = (-2.0 * libm::logf(1.0 - self.unit())).sqrt();
        let (sin, cos) = libm::sincosf(core::f32::consts::TAU * self.unit());
        self.spare = Some(radius * sin);
        radius * cos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normals_have_the_moments_of_a_normal_distribution() {
        let mut draw = Draw::new(1, 0);
        let values: Vec<f32> = (0..40_000).map(|_| draw.normal()).collect();
        let moment = |power: i32| values.iter().map(|v| f64::from(*v).powi(power)).sum::<f64>() / 40_000.0;
        // Five standard errors of each estimate: sqrt(1/n), sqrt(2/n), sqrt(96/n).
        assert!(moment(1).abs() < 0.025, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.036, "{}", moment(2));
        assert!((moment(4) - 3.0).abs() < 0.25, "{}", moment(4));
    }

    #[test]
    fn streams_of_one_seed_differ() {
        assert_ne!(Draw::new(7, 0).unit(), Draw::new(7, 1).unit());
        assert_eq!(Draw::new(7, 1).unit(), Draw::new(7, 1).unit());
    }
}
