//! Chooses scales whose requantisation factors are the same f32 number in every order of operations.
//!
//! The one rounding rule multiplies an accumulator by `(x_scale * w_scale) / y_scale`. ONNX Runtime computes exactly that.
//! tract 0.23.9 turns the division into a multiplication by the reciprocal and then joins constants as it likes:
//! `(x * w) * r`, `w * (x * r)` or `x * (w * r)` with `r = 1 / y`. For 63 % of random scales one of those differs in the
//! last bit, and then now and then a code falls on the other side of a tie (measured before the cure: 38 of the 1,114,096
//! codes of 20 random networks). Where all channels of a convolution have one and the same factor, tract multiplies in
//! fixed point instead of f32, which also rounds otherwise now and then.
//!
//! Both are cured where the numbers are made: scales are free within a part in a thousand or so, so the exporter moves them by some
//! units in the last place until all orders agree, and keeps the factors of a convolution from being all equal. With that,
//! tract, ONNX Runtime and the rule gave the same codes in every trial. The self-test at every start of the runtime
//! (the manifest's digests) would find a machine on which they do not.

/// Products of scales that have to be exact enough are this close to the true quotient, relatively.
const CLOSE: f64 = 1. / (1 << 26) as f64;
/// A weight scale moves by at most this many units in the last place (0.1 %).
const MAX_WEIGHT_MOVES: usize = 1 << 13;

/// Whether `(x * w) / y` is the same number in every order in which an engine may compute it.
pub fn agrees(x: f32, w: f32, y: f32) -> bool {
    let factor = (x * w) / y;
    let reciprocal = 1. / y;
    let orders = [(x * w) * reciprocal, w * (x * reciprocal), x * (w * reciprocal)];
    orders.iter().all(|&other| other == factor)
}

/// The weight scale nearest above `w` whose factor agrees; `None` if there is none nearby.
pub fn settle_weight(x: f32, w: f32, y: f32) -> Option<f32> {
    let mut scale = w;
    for _ in 0..MAX_WEIGHT_MOVES {
        if agrees(x, scale, y) {
            return Some(scale);
        }
        scale = scale.next_up();
    }
    None
}

/// The scales that a scale meets in convolutions.
#[derive(Clone, Debug, Default)]
pub struct Neighbours {
    /// Read by convolutions that write it.
    pub inputs: Vec<f32>,
    /// Written by convolutions that read it.
    pub outputs: Vec<f32>,
}

/// The scale nearest above `scale`, within `max_moves` units in the last place, whose reciprocal, and whose quotients with
/// its neighbours, are almost exact. Otherwise their error alone, common to all channels, would keep factors from agreeing.
pub fn settle_scale(scale: f32, neighbours: &Neighbours, max_moves: usize) -> Option<f32> {
    let Neighbours { inputs, outputs } = neighbours;
    let close = |x: f32, y: f32| {
        let quotient = f64::from(x * (1. / y));
        (quotient * f64::from(y) / f64::from(x) - 1.).abs() <= CLOSE
    };
    let mut scale = scale;
    for _ in 0..max_moves {
        let fits =
            close(1., scale) && inputs.iter().all(|&x| close(x, scale)) && outputs.iter().all(|&y| close(scale, y));
        if fits {
            return Some(scale);
        }
        scale = scale.next_up();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn settled_scales_agree_and_hardly_move() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut moved = 0;
        for _ in 0..200 {
            let x = rng.random_range(0.001f32..0.1);
            let y = rng.random_range(0.001f32..0.1);
            let z = settle_scale(rng.random_range(0.001f32..0.1), &Neighbours::default(), 1 << 16).unwrap();
            let settled = settle_scale(y, &Neighbours { inputs: vec![x], outputs: vec![z] }, 1 << 16).unwrap();
            assert!((settled / y - 1.).abs() < 0.005, "{y} became {settled}");
            for _ in 0..20 {
                let w = rng.random_range(1e-5f32..1e-1);
                let weight = settle_weight(x, w, settled).unwrap();
                assert!(agrees(x, weight, settled));
                assert!((weight / w - 1.).abs() < 1e-3, "{w} became {weight}");
                moved += usize::from(weight != w);
            }
        }
        // If nothing ever had to move, this module would be for nothing.
        assert!(moved > 400, "{moved} of 4000");
    }
}
