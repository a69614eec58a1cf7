//! What a value was seen to be, and the range that should stand for it.
//!
//! Bins are the upper half of an f32's bits: 128 per factor of two (0.8 % wide at most), whatever the range turns out to
//! be, so one pass over the slices is enough.

use std::{fmt, str::FromStr};

/// How ranges are read from what was observed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// From the smallest to the largest value.
    MinMax,
    /// Leaves out `100 - p` percent of the values at each end.
    Percentile(f64),
    /// The clip range whose codes have the smallest mean squared error over all values seen.
    Mse,
}

impl FromStr for Method {
    type Err = String;

    /// `minmax`, `percentile` (99.99), `percentile=99.9` or `mse`.
    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("'{text}': expected minmax, percentile, percentile=P with 50 < P <= 100, mse, or auto");
        match text.split_once('=') {
            None if text == "minmax" => Ok(Self::MinMax),
            None if text == "percentile" => Ok(Self::Percentile(99.99)),
            None if text == "mse" => Ok(Self::Mse),
            Some(("percentile", p)) => match p.parse::<f64>() {
                Ok(p) if p > 50. && p <= 100. => Ok(Self::Percentile(p)),
                _ => Err(expected()),
            },
            _ => Err(expected()),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::MinMax => f.write_str("minmax"),
            Self::Percentile(percent) => write!(f, "percentile={percent}"),
            Self::Mse => f.write_str("mse"),
        }
    }
}

/// Smallest and largest value to represent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Smallest.
    pub min: f32,
    /// Largest.
    pub max: f32,
}

impl Range {
    /// The range that holds both.
    pub fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// How codes lie on the reals of a value whose largest is `clip`: `steps` of `clip / steps` from 0 up, and down to
/// `-below * clip`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coding {
    /// Steps between 0 and the clip.
    pub steps: f64,
    /// What is represented below 0, as a part of the clip.
    pub below: f64,
}

impl Coding {
    /// Behind a ReLU: all codes from 0 up.
    pub const RECTIFIED: Self = Self { steps: 255., below: 0. };
    /// As many codes below 0 as above.
    pub const SYMMETRIC: Self = Self { steps: 127., below: 1. };

    /// Square of what is lost of a value.
    fn squared_error(self, value: f64, clip: f64) -> f64 {
        let step = clip / self.steps;
        let stood_for = ((value / step).round_ties_even() * step).clamp(-self.below * clip, clip);
        (value - stood_for).powi(2)
    }
}

const BINS: usize = 1 << 16;
/// Clip ranges that are tried, each by this factor smaller than the last.
const CLIP_FACTOR: f64 = 0.99;

/// Values seen so far.
pub struct Histogram {
    range: Range,
    bins: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { range: Range { min: f32::INFINITY, max: f32::NEG_INFINITY }, bins: vec![0; BINS] }
    }
}

impl Histogram {
    /// Counts values, all finite.
    pub fn add(&mut self, values: &[f32]) {
        for &value in values {
            self.range = self.range.union(Range { min: value, max: value });
            self.bins[bin(value)] += 1;
        }
    }

    /// The range to represent; `coding` is how the codes will lie in it.
    pub fn range(&self, method: Method, coding: Coding) -> Range {
        match method {
            Method::MinMax => self.range,
            Method::Percentile(percent) => self.percentile(percent),
            Method::Mse => self.least_squares(coding),
        }
    }

    fn percentile(&self, percent: f64) -> Range {
        let total: u64 = self.bins.iter().sum();
        let left_out = (total as f64 * (1. - percent / 100.)) as u64;
        let (first, last) = (self.end(0..BINS, left_out), self.end((0..BINS).rev(), left_out));
        let edge = |index: Option<usize>, upper: u32, limit: f32| index.map_or(limit, |index| edge_of(index, upper));
        Range {
            min: edge(first, 0, self.range.min).max(self.range.min),
            max: edge(last, 0xffff, self.range.max).min(self.range.max),
        }
    }

    /// The first bin that leaves more than `left_out` values behind.
    fn end(&self, mut bins: impl Iterator<Item = usize>, left_out: u64) -> Option<usize> {
        let mut passed = 0;
        bins.find(|&index| {
            passed += self.bins[index];
            passed > left_out
        })
    }

    /// Tries clip ranges from the largest value down. What is clipped away only grows on that way, so the search ends where
    /// that alone is worse than the best; a smaller clip cannot be the answer.
    fn least_squares(&self, coding: Coding) -> Range {
        let seen: Vec<(f64, f64)> = self.counts().collect();
        let (min, max) = (f64::from(self.range.min), f64::from(self.range.max));
        let widest = max.max(if coding.below > 0. { -min / coding.below } else { 0. });
        let (mut best, mut least) = (widest, f64::INFINITY);
        let mut clip = widest;
        while clip > f64::from(f32::MIN_POSITIVE) {
            let (mut rounded, mut clipped) = (0., 0.);
            for &(value, count) in &seen {
                let error = count * coding.squared_error(value, clip);
                let inside = (-coding.below * clip..=clip).contains(&value);
                *(if inside { &mut rounded } else { &mut clipped }) += error;
            }
            if rounded + clipped < least {
                (best, least) = (clip, rounded + clipped);
            }
            if clipped >= least {
                break;
            }
            clip *= CLIP_FACTOR;
        }
        Range { min: (0. - coding.below * best).max(min) as f32, max: best.min(max) as f32 }
    }

    /// A value for each bin that is not empty, and how often it was seen.
    fn counts(&self) -> impl Iterator<Item = (f64, f64)> {
        let filled = self.bins.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(index, &count)| {
            let middle = edge_of(index, 0x8000).clamp(self.range.min, self.range.max);
            (f64::from(middle), count as f64)
        })
    }
}

/// Bins sort as their values do: the sign bit is flipped, and all bits of negative values.
fn bin(value: f32) -> usize {
    let bits = value.to_bits();
    let sorted = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    (sorted >> 16) as usize
}

/// The value at the lower (0) or upper (0xffff) edge of a bin, or between.
fn edge_of(index: usize, lower_half: u32) -> f32 {
    let sorted = (index as u32) << 16 | lower_half;
    f32::from_bits(if sorted >> 31 == 1 { sorted & !(1 << 31) } else { !sorted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn seen(values: &[f32]) -> Histogram {
        let mut histogram = Histogram::default();
        histogram.add(values);
        histogram
    }

    #[test]
    fn bins_sort_as_values_do() {
        let values = [-1e30, -7., -1., -1e-30, 0., 1e-30, 0.5, 1., 1.5, 1e30];
        assert!(values.is_sorted_by(|&a, &b| bin(a) < bin(b)));
        for value in values {
            assert!(edge_of(bin(value), 0) <= value && value <= edge_of(bin(value), 0xffff), "{value}");
        }
    }

    #[test]
    fn percentiles_leave_out_what_they_say_and_minmax_nothing() {
        let values: Vec<f32> = (-1000..9000).map(|i| i as f32).collect();
        let range = |method| seen(&values).range(method, Coding::SYMMETRIC);
        assert_eq!(range(Method::MinMax), Range { min: -1000., max: 8999. });
        let percentile = range(Method::Percentile(99.));
        assert!((percentile.min + 900.).abs() < 8. && (percentile.max - 8899.).abs() < 64., "{percentile:?}");
        assert_eq!(range(Method::Percentile(100.)), range(Method::MinMax));
    }

    /// Squares of exponential values with either sign: many small ones and few very large ones.
    fn heavy_tailed(count: usize) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        (0..count).map(|_| rng.random_range(1e-9f32..1.).ln().powi(2) * if rng.random() { 1. } else { -1. }).collect()
    }

    /// The mean squared error of the values themselves, by the contract's own functions.
    fn measured(values: &[f32], clip: f64, rectified: bool) -> f64 {
        let (steps, zero_point) = if rectified { (255., -128) } else { (127., 0) };
        let scale = (clip / steps) as f32;
        let error = |&value: &f32| {
            let code = contract::quant::quantise(value, scale, zero_point).max(if rectified { -128 } else { -127 });
            f64::from(value - contract::quant::dequantise(code, scale, zero_point)).powi(2)
        };
        values.iter().map(error).sum::<f64>() / values.len() as f64
    }

    #[test]
    fn mse_clips_a_heavy_tail_where_the_measured_error_is_smallest() {
        let signed = heavy_tailed(200_000);
        let rectified: Vec<f32> = signed.iter().map(|value| value.max(0.)).collect();
        for (values, coding) in [(signed, Coding::SYMMETRIC), (rectified, Coding::RECTIFIED)] {
            let largest = values.iter().fold(0f32, |max, value| max.max(value.abs()));
            let range = seen(&values).range(Method::Mse, coding);
            assert!(range.max < 0.95 * largest, "{range:?} of {largest}");
            assert_eq!(range.min, if coding.below == 0. { 0. } else { -range.max });
            let rectified = coding == Coding::RECTIFIED;
            let found = measured(&values, range.max.into(), rectified);
            let scan = (1..=200).map(|part| measured(&values, f64::from(largest * part as f32 / 200.), rectified));
            let least = scan.fold(f64::INFINITY, f64::min);
            assert!(found <= 1.01 * least, "{found:e} at {range:?}, the scan has {least:e}");
        }
    }

    /// The two codings have other optima: with twice as many steps, rounding costs a quarter, so clipping pays later.
    #[test]
    fn mse_knows_how_many_steps_there_are() {
        let values: Vec<f32> = heavy_tailed(100_000).iter().map(|value| value.max(0.)).collect();
        let clip = |coding| seen(&values).range(Method::Mse, coding).max;
        let (fine, coarse) = (clip(Coding::RECTIFIED), clip(Coding::SYMMETRIC));
        assert!(fine > 1.02 * coarse, "{fine} with 255 steps, {coarse} with 127");
    }

    #[test]
    fn mse_leaves_flat_and_dead_values_alone() {
        let flat: Vec<f32> = (0..=1000).map(|i| i as f32 / 1000.).collect();
        let range = seen(&flat).range(Method::Mse, Coding::RECTIFIED);
        assert!(range.max > 0.97, "{range:?}");
        assert_eq!(seen(&[0.; 9]).range(Method::Mse, Coding::RECTIFIED), Range { min: 0., max: 0. });
        // Behind a leak of 0.2, -2 takes as many codes as 10.
        let leaked = seen(&[-2., 1.]).range(Method::Mse, Coding { steps: 127., below: 0.2 });
        assert!(leaked.min < -1.95, "{leaked:?}");
    }

    #[test]
    fn methods_are_read_or_refused_and_written_as_they_are_read() {
        for (text, method) in [
            ("minmax", Method::MinMax),
            ("percentile=99.99", Method::Percentile(99.99)),
            ("percentile=99.5", Method::Percentile(99.5)),
            ("mse", Method::Mse),
        ] {
            assert_eq!(text.parse(), Ok(method));
            assert_eq!(method.to_string(), text);
        }
        assert_eq!("percentile".parse(), Ok(Method::Percentile(99.99)));
        for text in ["", "max", "percentile=", "percentile=40", "percentile=101", "percentile=nan", "minmax=3", "mse=1"]
        {
            assert!(text.parse::<Method>().is_err(), "{text}");
        }
    }
}
