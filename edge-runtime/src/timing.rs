//! Where the time of a slice goes: one histogram per stage, taken whole before the first slice.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest time that a histogram tells apart: a minute, in nanoseconds.
const MAX_NS: u64 = 60_000_000_000;
/// What can be told apart at all: finer steps would take memory.
const MIN_NS: u64 = 1_000;
/// Significant digits that are kept.
const DIGITS: u8 = 3;

/// Times of one stage.
#[derive(Clone, Debug)]
pub struct Stage(Histogram<u64>);

/// Times of every stage, slice by slice; of a 3D network, tile by tile.
#[derive(Clone, Debug, Default)]
pub struct Stages {
    /// Intensity rule and model grid.
    pub preprocess: Stage,
    /// The network, argmax included.
    pub infer: Stage,
    /// Labels back to the scanner's grid.
    pub postprocess: Stage,
    /// All of it.
    pub slice: Stage,
}

/// Percentiles of a stage, ms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Median.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// 99.9th percentile.
    pub p999_ms: f64,
    /// Largest.
    pub max_ms: f64,
}

/// The summary of every stage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StageSummaries {
    /// Slices measured, or tiles of a 3D network.
    pub slices: u64,
    /// See [`Stages::preprocess`].
    pub preprocess: Summary,
    /// See [`Stages::infer`].
    pub infer: Summary,
    /// See [`Stages::postprocess`].
    pub postprocess: Summary,
    /// See [`Stages::slice`].
    pub slice: Summary,
}

impl Default for Stage {
    fn default() -> Self {
        Self(
            Histogram::new_with_bounds(MIN_NS, MAX_NS, DIGITS)
                .expect("the bounds are constants that the crate accepts"),
        )
    }
}

impl Stage {
    /// Adds a time; above a minute it counts as a minute.
    pub fn record(&mut self, time: Duration) {
        self.0.saturating_record(time.as_nanos().min(u128::from(MAX_NS)) as u64);
    }

    /// Times recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Percentiles; all zero before the first time.
    pub fn summary(&self) -> Summary {
        let ms = |quantile: f64| self.0.value_at_quantile(quantile) as f64 / 1e6;
        Summary { p50_ms: ms(0.5), p90_ms: ms(0.9), p99_ms: ms(0.99), p999_ms: ms(0.999), max_ms: ms(1.) }
    }
}

impl Stages {
    /// Adds the times of one slice from the moments between its stages.
    pub fn record(&mut self, [start, codes, labels, end]: [Instant; 4]) {
        self.preprocess.record(codes - start);
        self.infer.record(labels - codes);
        self.postprocess.record(end - labels);
        self.slice.record(end - start);
    }

    /// Percentiles of every stage.
    pub fn summary(&self) -> StageSummaries {
        StageSummaries {
            slices: self.slice.0.len(),
            preprocess: self.preprocess.summary(),
            infer: self.infer.summary(),
            postprocess: self.postprocess.summary(),
            slice: self.slice.summary(),
        }
    }

    /// Adds all times of another.
    pub fn merge(&mut self, other: &Self) {
        let pairs = [
            (&mut self.preprocess, &other.preprocess),
            (&mut self.infer, &other.infer),
            (&mut self.postprocess, &other.postprocess),
            (&mut self.slice, &other.slice),
        ];
        for (mine, theirs) in pairs {
            mine.0.add(&theirs.0).expect("all histograms have the same bounds");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_recorded_times() {
        let mut stage = Stage::default();
        assert_eq!(stage.summary().max_ms, 0.);
        (1..=1000).for_each(|ms| stage.record(Duration::from_millis(ms)));
        let summary = stage.summary();
        for (found, expected) in
            [(summary.p50_ms, 500.), (summary.p90_ms, 900.), (summary.p99_ms, 990.), (summary.max_ms, 1000.)]
        {
            assert!((found / expected - 1.).abs() < 2e-3, "{found} instead of {expected}");
        }
    }
}
