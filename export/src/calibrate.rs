//! Watches the f32 network on real slices: the range of every value, per modality.
//!
//! Ranges are min-max, or percentiles of a histogram whose bins are the upper half of an f32's bits: 128 bins per
//! factor of two (0.8 % wide at most), whatever the range turns out to be, so one pass over the slices is enough.

use std::str::FromStr;

use contract::Modality;
use tract_onnx::pb::ModelProto;

use crate::{
    ExportError,
    branch::value_name,
    engine::{Runner, reals},
    fold::Folded,
};

/// One calibration image: codes `[slices, h, w]` as the runtime would feed them.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The branch it is for.
    pub modality: Modality,
    /// Codes.
    pub codes: Vec<i8>,
}

/// How ranges are read from what was observed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// From the smallest to the largest value.
    MinMax,
    /// Leaves out `100 - p` percent of the values at each end.
    Percentile(f64),
}

impl FromStr for Method {
    type Err = String;

    /// `minmax`, `percentile` (99.99) or `percentile=99.9`.
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("'{text}': expected minmax, percentile, or percentile=P with 50 < P <= 100");
        match text.split_once('=') {
            None if text == "minmax" => Ok(Self::MinMax),
            None if text == "percentile" => Ok(Self::Percentile(99.99)),
            Some(("percentile", p)) => match p.parse::<f64>() {
                Ok(p) if p > 50. && p <= 100. => Ok(Self::Percentile(p)),
                _ => Err(expected()),
            },
            _ => Err(expected()),
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

const BINS: usize = 1 << 16;

/// Values seen so far.
struct Observer {
    range: Range,
    histogram: Vec<u64>,
}

impl Observer {
    fn new() -> Self {
        Self { range: Range { min: f32::INFINITY, max: f32::NEG_INFINITY }, histogram: vec![0; BINS] }
    }

    fn add(&mut self, values: &[f32]) {
        for &value in values {
            self.range = self.range.union(Range { min: value, max: value });
            self.histogram[bin(value)] += 1;
        }
    }

    fn range(&self, method: Method) -> Range {
        let Method::Percentile(percent) = method else { return self.range };
        let total: u64 = self.histogram.iter().sum();
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
            passed += self.histogram[index];
            passed > left_out
        })
    }
}

/// Bins sort as their values do: the sign bit is flipped, and all bits of negative values.
fn bin(value: f32) -> usize {
    let bits = value.to_bits();
    let sorted = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    (sorted >> 16) as usize
}

/// The value at the lower (0) or upper (0xffff) edge of a bin.
fn edge_of(index: usize, lower_half: u32) -> f32 {
    let sorted = (index as u32) << 16 | lower_half;
    f32::from_bits(if sorted >> 31 == 1 { sorted & !(1 << 31) } else { !sorted })
}

/// Ranges `[modality of the spec][value]` (image first) of the f32 network over the samples.
/// `progress` is called once per sample.
pub fn observe(
    folded: &Folded,
    model: &ModelProto,
    samples: &[Sample],
    method: Method,
    mut progress: impl FnMut(),
) -> Result<Vec<Vec<Range>>, ExportError> {
    let spec = &folded.spec;
    let names: Vec<&str> = (1..=spec.net.layers.len()).map(|value| value_name(spec, value)).collect();
    spec.modalities
        .iter()
        .map(|&modality| {
            let runner = Runner::new(model, modality, &names)?;
            let mut observers: Vec<Observer> = (0..=names.len()).map(|_| Observer::new()).collect();
            let mut seen = false;
            for sample in samples.iter().filter(|sample| sample.modality == modality) {
                let image = reals(&sample.codes, spec.intensity.scale);
                observers[0].add(&image);
                let outputs = runner.run_f32(&image)?;
                for ((observer, values), name) in observers[1..].iter_mut().zip(&outputs).zip(&names) {
                    if values.iter().any(|value| !value.is_finite()) {
                        return Err(ExportError::NotFinite { value: name.to_string(), modality });
                    }
                    observer.add(values);
                }
                seen = true;
                progress();
            }
            if !seen {
                return Err(ExportError::NoSlices { modality });
            }
            Ok(observers.iter().map(|observer| observer.range(method)).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut observer = Observer::new();
        let values: Vec<f32> = (-1000..9000).map(|i| i as f32).collect();
        observer.add(&values);
        assert_eq!(observer.range(Method::MinMax), Range { min: -1000., max: 8999. });
        let range = observer.range(Method::Percentile(99.));
        assert!((range.min + 900.).abs() < 8. && (range.max - 8899.).abs() < 64., "{range:?}");
        assert_eq!(observer.range(Method::Percentile(100.)), observer.range(Method::MinMax));
    }

    #[test]
    fn methods_are_read_or_refused() {
        assert_eq!("minmax".parse(), Ok(Method::MinMax));
        assert_eq!("percentile".parse(), Ok(Method::Percentile(99.99)));
        assert_eq!("percentile=99.5".parse(), Ok(Method::Percentile(99.5)));
        for text in ["", "max", "percentile=", "percentile=40", "percentile=101", "percentile=nan", "minmax=3"] {
            assert!(text.parse::<Method>().is_err(), "{text}");
        }
    }
}
