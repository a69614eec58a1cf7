//! The one rounding rule. Everything that turns a number into an int8 code does it with these functions:
//! `saturate(round_half_even(acc as f32 * ((x_scale * w_scale) / y_scale)) + zero_point)`, in f32, without fused multiply-add.
//! ONNX Runtime computes `QLinearConv` the same way, which is what makes label maps comparable bit for bit.

/// A positive, finite requantisation factor: holding one is proof. (Some engines drop the sign of a factor.)
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Multiplier(f32);

impl Multiplier {
    /// `(x_scale * w_scale) / y_scale`, in this order of operations; `None` unless it is positive and finite.
    pub fn new(x_scale: f32, w_scale: f32, y_scale: f32) -> Option<Self> {
        let factor = (x_scale * w_scale) / y_scale;
        (factor > 0. && factor.is_finite()).then_some(Self(factor))
    }

    /// The factor.
    pub const fn get(self) -> f32 {
        self.0
    }
}

/// Rounds to the nearest integer, ties to even; exact for every `|x| <= 2^22`, which is all that int8 needs.
///
/// Adding `1.5 * 2^23` leaves no room for fraction bits, so the addition itself rounds, in IEEE's default mode.
#[inline]
pub fn round_half_even(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.;
    (x + SHIFT) - SHIFT
}

/// The code of a real: `saturate(round_half_even(x / scale) + zero_point)`.
#[inline]
pub fn quantise(x: f32, scale: f32, zero_point: i8) -> i8 {
    saturate(x / scale, zero_point)
}

/// The real that a code stands for: `(code - zero_point) * scale`.
#[inline]
pub fn dequantise(code: i8, scale: f32, zero_point: i8) -> f32 {
    (i32::from(code) - i32::from(zero_point)) as f32 * scale
}

/// The code of an accumulator (its int32 bias included).
#[inline]
pub fn requantise(acc: i32, multiplier: Multiplier, zero_point: i8) -> i8 {
    saturate(acc as f32 * multiplier.0, zero_point)
}

#[inline]
fn saturate(x: f32, zero_point: i8) -> i8 {
    // Beyond +-512 every code is saturated whatever the zero point; the clamp keeps the rounding trick exact.
    let rounded = round_half_even(x.clamp(-512., 512.)) as i32;
    (rounded + i32::from(zero_point)).clamp(-128, 127) as i8
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn rounding_equals_the_standard_library_on_every_eighth() {
        for eighth in -(1i32 << 20)..1 << 20 {
            let x = eighth as f32 / 8.;
            assert_eq!(round_half_even(x), x.round_ties_even(), "{x}");
        }
    }

    #[test]
    fn requantising_follows_the_rule_at_ties_and_ends() {
        let half = Multiplier::new(0.5, 1., 1.).unwrap();
        let codes = [-7, -5, -3, -1, 0, 1, 3, 5, 7].map(|acc| requantise(acc, half, 0));
        assert_eq!(codes, [-4, -2, -2, 0, 0, 0, 2, 2, 4]);
        assert_eq!(requantise(i32::MAX, half, 0), 127);
        assert_eq!(requantise(i32::MIN, half, 127), -128);
        assert_eq!(requantise(3, half, -128), -126);
        assert_eq!(requantise(600, half, -128), 127);
    }

    #[test]
    fn factors_are_positive_by_type() {
        for (x, w, y) in [(1., -0.5, 1.), (0., 1., 1.), (1., 1., 0.), (f32::NAN, 1., 1.), (f32::MAX, 2., 1.)] {
            assert_eq!(Multiplier::new(x, w, y), None, "{x} {w} {y}");
        }
    }

    #[test]
    fn codes_go_there_and_back() {
        for zero_point in [-128, -3, 0, 127] {
            for code in i8::MIN..=i8::MAX {
                assert_eq!(quantise(dequantise(code, 0.037, zero_point), 0.037, zero_point), code);
            }
        }
    }
}
