//! The one rounding rule. Everything that turns a number into an int8 code does it with these functions:
//! `saturate(round_half_even(acc as f32 * ((x_scale * w_scale) / y_scale)) + zero_point)`, in f32, without fused multiply-add.
//! ONNX Runtime computes `QLinearConv` the same way, which is what makes label maps comparable bit for bit.

use crate::net::Activation;

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

/// The sum of two codes of different scales: `saturate(round(r_a * (a - zero_a) + r_b * (b - zero_b)) + zero_y)` with
/// `r = scale / scale_y`. Holding one is proof that no order of operations can change a code.
///
/// Each ratio lies next to a fraction of one small odd denominator `d`. Half an odd number is no multiple of `1 / d`, so a sum
/// never meets a tie and keeps `1 / (2 d)` away from each, thousands of times what f32 loses on the way: with reciprocals
/// or divisions, fused multiply-add or not, ties to even or upwards, every engine finds the same code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sum {
    numerators: [i32; 2],
    denominator: i32,
    ratios: [f32; 2],
}

impl Sum {
    /// Largest `r_a + r_b`.
    pub const MAX_RATIO: f64 = 8.;
    /// Largest denominator.
    pub const MAX_DENOMINATOR: i32 = 63;

    /// `None` unless there is a denominator at which no error of f32 can reach a tie.
    pub fn new(a_scale: f32, b_scale: f32, y_scale: f32) -> Option<Self> {
        let scales = [a_scale, b_scale, y_scale];
        if !scales.iter().all(|scale| scale.is_normal() && *scale > 0.) {
            return None;
        }
        let ratios = [a_scale, b_scale].map(|scale| f64::from(scale) / f64::from(y_scale));
        let sum = ratios[0] + ratios[1];
        // Ten roundings to 24 bits of values up to 128 (sum + 1), which is more than any way of writing the sum has.
        let rounding = 10. * 128. * (sum + 1.) / f64::from(1 << 24);
        (1..=Self::MAX_DENOMINATOR).step_by(2).filter(|_| sum <= Self::MAX_RATIO).find_map(|denominator| {
            let d = f64::from(denominator);
            let numerators = ratios.map(|ratio| (ratio * d + 0.5) as i32);
            let apart = |index: usize| (ratios[index] - f64::from(numerators[index]) / d).abs();
            let error = 255. * (apart(0) + apart(1)) + rounding;
            let ratios = [a_scale / y_scale, b_scale / y_scale];
            (2. * d * error < 1.).then_some(Self { numerators, denominator, ratios })
        })
    }

    /// The code of a sum; `a` and `b` are codes less their zero points, -255 to 255.
    #[inline]
    pub fn code(self, a: i32, b: i32, zero_point: i8) -> i8 {
        let (sum, d) = (self.numerators[0] * a + self.numerators[1] * b, self.denominator);
        // The floor of x + 1/2, which rounds right where there are no ties.
        let rounded = (2 * sum + d).div_euclid(2 * d);
        (rounded + i32::from(zero_point)).clamp(-128, 127) as i8
    }

    /// `[r_a, r_b]`: what a kernel multiplies by.
    pub const fn ratios(self) -> [f32; 2] {
        self.ratios
    }
}

/// What one code becomes behind an affine step and an activation: `saturate(round(f((x - zero_x) * scale_x) / scale_y) + zero_y)`
/// with `f(v) = activation(factor * v + shift)`. Only 256 codes exist, so each was looked at: holding a table is proof that none
/// of them comes so near a tie that engines could disagree about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table([i8; 256]);

/// The real `factor * v + shift`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Any number.
    pub factor: f32,
    /// Any number.
    pub shift: f32,
}

impl Affine {
    /// Changes nothing.
    pub const IDENTITY: Self = Self { factor: 1., shift: 0. };
}

impl Table {
    /// `x` and `y` are scale and zero point; `None` if a code is too near a tie or no number.
    pub fn new(x: (f32, i8), affine: Affine, activation: Activation, y: (f32, i8)) -> Option<Self> {
        let mut table = [0; 256];
        for (code, entry) in (-128..=127).zip(&mut table) {
            *entry = look_up(code, x, affine, activation, y)?;
        }
        Some(Self(table))
    }

    /// The code that `x` becomes.
    #[inline]
    pub fn code(&self, x: i8) -> i8 {
        self.0[(i32::from(x) + 128) as usize]
    }

    /// Of the codes -128 to 127 in this order.
    pub const fn codes(&self) -> &[i8; 256] {
        &self.0
    }
}

fn look_up(code: i32, x: (f32, i8), affine: Affine, activation: Activation, y: (f32, i8)) -> Option<i8> {
    let real = f64::from(code - i32::from(x.1)) * f64::from(x.0);
    let (scaled, shift) = (real * f64::from(affine.factor), f64::from(affine.shift));
    let steps = activation.apply(scaled + shift) / f64::from(y.0);
    // Ten roundings to 24 bits of the largest number on the way: more than any way of writing it has.
    let error = 10. * (scaled.abs() + shift.abs()) / f64::from(y.0) / f64::from(1 << 24);
    if y.0 <= 0. || error.is_nan() || error >= 0.25 {
        return None;
    }
    let clamped = steps.clamp(-512., 512.);
    let floor = (clamped + 1024.) as i32 - 1024;
    let above = clamped - f64::from(floor);
    let safe = (above - 0.5).abs() > error || clamped != steps;
    let rounded = floor + i32::from(above > 0.5);
    safe.then(|| (rounded + i32::from(y.1)).clamp(-128, 127) as i8)
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

    /// Every pair of codes in the orders that engines use: ONNX Runtime joins the zero points into one constant, others
    /// dequantise, add and quantise, with a division or a reciprocal.
    #[test]
    fn sums_have_one_code_in_every_order_of_operations() {
        let scales =
            [(41., 77., 63.), (1., 1., 1.), (63., 1., 63.), (250., 250., 63.), (1., 100., 37.), (126., 63., 63.)];
        for ((a, b, y), step) in scales.into_iter().zip([0.0123457f32, 0.1, 3e-5, 0.7, 0.0078125, 0.0313]) {
            // Some units in the last place off, as the exporter leaves them.
            let scales = [a * step, b * step * (1. + 9e-7), y * step * (1. - 9e-7)];
            let (a_scale, b_scale, y_scale) = (scales[0], scales[1], scales[2]);
            let sum = Sum::new(a_scale, b_scale, y_scale).unwrap();
            let [r_a, r_b] = sum.ratios();
            for (zero_a, zero_b, zero_y) in [(0, 0, 0), (-128, 0, -128), (-128, -128, 0)] {
                let (fa, fb, fy) = (zero_a as f32, zero_b as f32, f32::from(zero_y as i8));
                let constant = fy - (r_a * fa + r_b * fb);
                for (a, b) in (-128..128).flat_map(|a| (-128..128).map(move |b| (a, b))) {
                    let expected = sum.code(a - zero_a, b - zero_b, zero_y as i8);
                    let (x, z) = ((a - zero_a) as f32, (b - zero_b) as f32);
                    let real = x * a_scale + z * b_scale;
                    let orders = [
                        real / y_scale + fy,
                        real * (1. / y_scale) + fy,
                        a as f32 * r_a + (b as f32 * r_b + constant),
                        r_a.mul_add(x, r_b * z) + fy,
                        (a_scale * (1. / y_scale)).mul_add(a as f32 - fa, z * r_b) + fy,
                    ];
                    for order in orders {
                        assert_eq!(order.round_ties_even().clamp(-128., 127.) as i8, expected, "{scales:?} {a} {b}");
                        assert_eq!((order + 0.5).floor().clamp(-128., 127.) as i8, expected, "{scales:?} {a} {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn sums_near_a_tie_are_refused() {
        for (a, b, y) in [(1., 1., 2.), (0.5, 1., 1.), (1., 0.7171068, 1.), (5., 4., 1.), (1., 1., 0.), (-1., 1., 1.)] {
            assert_eq!(Sum::new(a, b, y), None, "{a} {b} {y}");
        }
        assert_eq!(Sum::new(2., 1., 3.).unwrap().code(2, -1, -128), -127);
        assert_eq!(Sum::new(2., 1., 1.).unwrap().code(100, 100, 0), 127);
    }

    /// With a leak, a shift, and ReLU as a saturation; in f32 with divisions and reciprocals, fused and not.
    #[test]
    fn tables_have_one_code_in_every_order_of_operations() {
        let leaky = Activation::LeakyRelu(0.2);
        let cases = [
            ((0.037, 0), Affine::IDENTITY, leaky, (0.037, 0)),
            ((0.037, -128), Affine { factor: 0.7313, shift: -1.2345 }, leaky, (0.0173, 0)),
            ((0.011, 0), Affine { factor: 1.9, shift: 0.111 }, Activation::Relu, (0.0217, -128)),
            ((0.2, 0), Affine { factor: 1e-3, shift: 0.0302 }, Activation::None, (0.001, 0)),
        ];
        for (x, affine, activation, y) in cases {
            let table = Table::new(x, affine, activation, y).unwrap();
            for code in i8::MIN..=i8::MAX {
                let real = dequantise(code, x.0, x.1);
                let act = |v: f32| match activation {
                    Activation::None => v,
                    Activation::Relu => v.max(0.),
                    Activation::LeakyRelu(slope) => {
                        if v < 0. {
                            v * slope
                        } else {
                            v
                        }
                    }
                };
                let plain = act(real * affine.factor + affine.shift);
                let fused = act(real.mul_add(affine.factor, affine.shift));
                for steps in [plain / y.0, plain * (1. / y.0), fused / y.0, fused * (1. / y.0)] {
                    let rounded = steps.round_ties_even() + f32::from(y.1);
                    assert_eq!(rounded.clamp(-128., 127.) as i8, table.code(code), "{x:?} {affine:?} {y:?} {code}");
                }
            }
        }
    }

    #[test]
    fn tables_near_a_tie_are_refused() {
        let half = Activation::LeakyRelu(0.5);
        assert_eq!(Table::new((0.1, 0), Affine::IDENTITY, half, (0.1, 0)), None);
        assert_eq!(Table::new((0.1, 0), Affine::IDENTITY, Activation::LeakyRelu(0.01), (0.1, 0)), None, "-50 * 0.01");
        for y in [0., -1., f32::NAN] {
            assert_eq!(Table::new((0.1, 0), Affine::IDENTITY, Activation::None, (y, 0)), None, "{y}");
        }
        let identity = Table::new((0.1, 0), Affine::IDENTITY, Activation::None, (0.1, 0)).unwrap();
        assert!((i8::MIN..=i8::MAX).all(|code| identity.code(code) == code));
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
