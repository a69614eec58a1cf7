//! Linear up-sampling (`Op::Interpolate`) in whole numbers: the weights, the scale of the result, and its one code.
//!
//! An output sample lies over one sample of the input and between it and one neighbour, at odd multiples of `1 / (2 factor)`,
//! so its weights along an axis are whole numbers that sum to `2 factor`, and those of all axes to their product `D`.

/// Largest factor along an axis.
pub const MAX_FACTOR: usize = 8;

/// What the weights of an axis sum to: `2 factor`, or 1 where nothing is done.
pub const fn denominator(factor: usize) -> i32 {
    if factor == 1 { 1 } else { 2 * factor as i32 }
}

/// Weights of samples `s - 1`, `s` and `s + 1` in output sample `factor * s + phase`; that of one neighbour is 0. Beyond the
/// ends of an axis its first and last samples are repeated (half-pixel centres).
pub const fn weights(factor: usize, phase: usize) -> [i32; 3] {
    let whole = denominator(factor);
    // The output's centre less that of sample `s`, in steps of 1 / (2 factor).
    let right = 2 * phase as i32 + 1 - factor as i32;
    if right < 0 { [-right, whole + right, 0] } else { [0, whole - right, right] }
}

/// The codes of an interpolated value, whose scale is that of its input times `(D + 1) / D` and whose zero point is the input's.
/// Holding one is proof that no order of operations can change a code.
///
/// A weighted sum of codes above zero is `n / D` input steps, hence `n / (D + 1)` output steps. `D` is even, so `D + 1` is odd:
/// no such fraction is a tie, and each keeps `1 / (2 (D + 1))` away from one. What engines lose in f32 must stay below that:
/// the rounding of reals, and, where a factor is no power of two, of positions, whose error grows with the axis. With one
/// scale on both sides every second code would be a tie, and engines would also feel free to interpolate codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interpolation {
    factor: [usize; 3],
}

impl Interpolation {
    /// The scale of the result.
    pub fn scale(factor: [usize; 3], x_scale: f32) -> f32 {
        let d = product(factor);
        (f64::from(x_scale) * (d + 1.) / d) as f32
    }

    /// `size` is the input's. `None` where an error of f32 could reach a tie, or where the scales are not as [`Self::scale`]
    /// says up to some units in the last place.
    pub fn new(factor: [usize; 3], size: [usize; 3], x_scale: f32, y_scale: f32) -> Option<Self> {
        let scales = [x_scale, y_scale];
        let known = factor.iter().all(|factor| (1..=MAX_FACTOR).contains(factor));
        if !known || factor == [1; 3] || !scales.iter().all(|scale| scale.is_normal() && *scale > 0.) {
            return None;
        }
        let d = product(factor);
        let ulp = 1. / f64::from(1 << 24);
        let apart = (f64::from(x_scale) / f64::from(y_scale) * (d + 1.) / d - 1.).abs();
        // Positions below `size`: rounded as a quotient or as a product with a reciprocal, and once more less one half.
        let position = |axis: usize| if factor[axis].is_power_of_two() { 0. } else { 3. * size[axis] as f64 * ulp };
        let positions: f64 = (0..3).map(position).sum();
        // Reals: one rounding each for input, weights and sums of every axis, and the way into codes.
        let error = 255. * (apart + positions + 12. * ulp);
        (2. * (d + 1.) * error < 1.).then_some(Self { factor })
    }

    /// The factors.
    pub const fn factor(self) -> [usize; 3] {
        self.factor
    }

    /// `D + 1`.
    pub const fn divisor(self) -> i32 {
        let [z, y, x] = self.factor;
        denominator(z) * denominator(y) * denominator(x) + 1
    }

    /// The code of `sum`: weights times codes plus 128, over all axes. Of such, the code plus 128 is
    /// `(sum + zero_point + 128) / (D + 1)`, rounded: never outside of 0 to 255.
    pub fn code(self, sum: i32, zero_point: i8) -> i8 {
        let divisor = self.divisor();
        // The floor of x + 1/2, which rounds right where there are no ties.
        ((sum + i32::from(zero_point) + 128 + divisor / 2) / divisor - 128) as i8
    }
}

fn product(factor: [usize; 3]) -> f64 {
    factor.iter().map(|&factor| f64::from(denominator(factor))).product()
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::{vec, vec::Vec};

    /// Against the formula of half-pixel centres.
    #[test]
    fn weights_are_those_of_half_pixel_centres() {
        for factor in 1..=MAX_FACTOR {
            for phase in 0..factor {
                let [left, middle, right] = weights(factor, phase);
                assert_eq!(left + middle + right, denominator(factor));
                assert!(left == 0 || right == 0);
                let position = (phase as f64 + 0.5) / factor as f64 - 0.5;
                let found = f64::from(right - left) / f64::from(denominator(factor));
                assert!((found - position).abs() < 1e-12, "{factor} {phase}");
            }
        }
    }

    fn numbers(seed: u32) -> impl FnMut() -> u32 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        }
    }

    /// Eight corners, as an engine would combine them: axis by axis in either order or all at once, with divisions and
    /// reciprocals, fused and not.
    #[test]
    fn interpolations_have_one_code_in_every_order_of_operations() {
        let mut next = numbers(1);
        for factor in
            [[1, 2, 2], [1, 3, 3], [2, 2, 2], [1, 2, 3], [2, 2, 3], [1, 8, 8], [1, 5, 7], [1, 1, 6], [4, 4, 4]]
        {
            for (zero, x_scale) in [(0, 0.012_345_7), (-128, 0.1), (5, 3e-5), (127, 0.7)] {
                let y_scale = Interpolation::scale(factor, x_scale);
                for y_scale in [y_scale, y_scale.next_up(), y_scale.next_down()] {
                    let rule = Interpolation::new(factor, [12; 3], x_scale, y_scale).unwrap();
                    for _ in 0..500 {
                        let pick =
                            |code: u32| if code.is_multiple_of(3) { 255 * (code / 3 % 2) } else { code / 3 % 256 };
                        let codes: Vec<i32> = (0..8).map(|_| pick(next()) as i32 - 128).collect();
                        let pairs: [[i32; 2]; 3] = core::array::from_fn(|axis| {
                            let [left, middle, right] = weights(factor[axis], next() as usize % factor[axis]);
                            [middle, left + right]
                        });
                        let weight = |at: usize| (0..3).map(|axis| pairs[axis][at >> axis & 1]).product::<i32>();
                        let sum: i32 = (0..8).map(|at| weight(at) * (codes[at] + 128)).sum();
                        let expected = rule.code(sum, zero);
                        let ratio =
                            |axis: usize, side: usize| pairs[axis][side] as f32 / denominator(factor[axis]) as f32;
                        let reals: Vec<f32> =
                            codes.iter().map(|code| (code - i32::from(zero)) as f32 * x_scale).collect();
                        let along = |order: [usize; 3], fused: bool| {
                            let mut held = reals.clone();
                            for axis in order {
                                let (one, two) = (ratio(axis, 0), ratio(axis, 1));
                                let mut joined = held.clone();
                                for at in (0..8).filter(|at| at >> axis & 1 == 0) {
                                    let (a, b) = (held[at], held[at | 1 << axis]);
                                    joined[at] = if fused { a.mul_add(one, b * two) } else { a * one + b * two };
                                }
                                held = joined;
                            }
                            held[0]
                        };
                        let at_once = (0..8).fold(0f32, |sum, at| {
                            sum + ratio(0, at & 1) * ratio(1, at >> 1 & 1) * ratio(2, at >> 2) * reals[at]
                        });
                        for real in [along([0, 1, 2], false), along([2, 1, 0], true), along([1, 2, 0], false), at_once]
                        {
                            for steps in [real / y_scale, real * (1. / y_scale)] {
                                let code = steps.round_ties_even() + f32::from(zero);
                                assert_eq!(code.clamp(-128., 127.) as i8, expected, "{factor:?} {codes:?} {pairs:?}");
                                let code = (steps + 0.5).floor() + f32::from(zero);
                                assert_eq!(code.clamp(-128., 127.) as i8, expected, "{factor:?} {codes:?} {pairs:?}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_sum_has_a_code_and_none_is_a_tie() {
        let rule = Interpolation::new([1, 1, 2], [1, 1, 9], 1., 1.25).unwrap();
        let codes: Vec<i8> = [0, 4 * 128, 4 * 255].iter().map(|&sum| rule.code(sum, 0)).collect();
        // From -128, 0 and 127: four fifths, rounded.
        assert_eq!(codes, vec![-102, 0, 102]);
        for zero in [-128, 0, 127] {
            for sum in 0..=4 * 255 {
                let steps = f64::from(sum + i32::from(zero) + 128) / 5.;
                assert_eq!(f64::from(rule.code(sum, zero)), steps.round() - 128.);
            }
        }
    }

    #[test]
    fn interpolations_near_a_tie_are_refused() {
        let new = |factor, size| Interpolation::new(factor, size, 0.1, Interpolation::scale(factor, 0.1));
        assert!(new([1, 2, 2], [1, 4096, 4096]).is_some(), "powers of two have exact positions");
        assert!(new([1, 3, 3], [1, 128, 128]).is_some());
        assert_eq!(new([1, 3, 3], [1, 256, 256]), None, "positions are too coarse");
        assert_eq!(new([8; 3], [4; 3]), None, "reals are too coarse");
        assert_eq!(new([1, 9, 1], [1, 4, 4]), None);
        assert_eq!(new([1, 0, 1], [1, 4, 4]), None);
        assert_eq!(new([1; 3], [1, 4, 4]), None, "halves are ties");
        for y in [0.1, 0.2, 0., f32::NAN, -0.125] {
            assert_eq!(Interpolation::new([1, 1, 2], [1, 1, 4], 0.1, y), None, "{y}");
        }
    }
}
