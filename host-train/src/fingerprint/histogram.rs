//! Exact counts of raw values.

use serde::Serialize;

/// How often each `i16` occurs.
#[derive(Clone, Debug)]
pub struct Histogram(Vec<u64>);

/// Raw values in a few numbers; all 0 where there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Intensities {
    /// How many.
    pub voxels: u64,
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub deviation: f64,
    /// 0.5th percentile.
    pub p00_5: i16,
    /// 50th percentile.
    pub median: i16,
    /// 99.5th percentile.
    pub p99_5: i16,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// Without counts.
    pub fn new() -> Self {
        Self(vec![0; 1 << 16])
    }

    /// Counts a value.
    pub fn count(&mut self, raw: i16) {
        self.0[usize::from(raw.cast_unsigned() ^ 0x8000)] += 1;
    }

    /// Counts all that `other` counted.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(count, other)| *count += other);
    }

    /// The smallest value that at least `percent` of all are not above; `None` of nothing.
    pub fn percentile(&self, percent: f64) -> Option<i16> {
        let needed = ((percent / 100. * self.total() as f64).ceil() as u64).max(1);
        let mut sum = 0;
        let found = self.0.iter().position(|count| {
            sum += count;
            sum >= needed
        });
        found.map(value)
    }

    /// Which percent of all values are not above `raw`.
    pub fn rank(&self, raw: i16) -> f64 {
        let below: u64 = self.0[..=usize::from(raw.cast_unsigned() ^ 0x8000)].iter().sum();
        100. * below as f64 / self.total().max(1) as f64
    }

    /// In a few numbers.
    pub fn intensities(&self) -> Intensities {
        let voxels = self.total();
        let (Some(p00_5), Some(median), Some(p99_5)) =
            (self.percentile(0.5), self.percentile(50.), self.percentile(99.5))
        else {
            return Intensities::default();
        };
        let mean_of = |what: &dyn Fn(f64) -> f64| {
            let sum: f64 =
                self.0.iter().enumerate().map(|(index, &count)| what(f64::from(value(index))) * count as f64).sum();
            sum / voxels as f64
        };
        let mean = mean_of(&|raw| raw);
        let deviation = mean_of(&|raw| (raw - mean) * (raw - mean)).sqrt();
        Intensities { voxels, mean, deviation, p00_5, median, p99_5 }
    }

    fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// The value of a place, from the lowest.
fn value(index: usize) -> i16 {
    (index as u16 ^ 0x8000).cast_signed()
}
