//! Raw intensities: the one rule from the real values of a file, whatever its format, to `i16`.
//!
//! * **CT**: the value after rescale is in HU; it is rounded half to even and saturated to `i16`.
//! * **MR**: units are arbitrary. If every voxel after rescale is a whole number within `i16`, it is taken as it is.
//!   Otherwise the whole volume is multiplied by the one power of two that brings its largest magnitude into
//!   (16383, 32767], and rounded half to even. The MR intensity rule does not see a factor, and a power of two adds no
//!   rounding of its own.

use contract::Modality;

/// What has to be known of all MR values before the first becomes raw.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    whole: bool,
    largest: f64,
}

impl Default for Extent {
    fn default() -> Self {
        Self { whole: true, largest: 0. }
    }
}

impl Extent {
    /// Takes note of a finite value.
    pub fn see(&mut self, value: f64) {
        self.whole &= value.fract() == 0. && (f64::from(i16::MIN)..=f64::from(i16::MAX)).contains(&value);
        self.largest = self.largest.max(value.abs());
    }

    /// The power of two of the MR rule.
    pub fn exponent(self) -> i32 {
        if self.whole {
            return 0;
        }
        // 32767 / largest may be infinite or rounded, so the estimate is corrected by trial.
        let mut exponent = 15 - self.largest.log2().ceil() as i32;
        while times_power_of_two(self.largest, exponent) > f64::from(i16::MAX) {
            exponent -= 1;
        }
        while times_power_of_two(self.largest, exponent + 1) <= f64::from(i16::MAX) {
            exponent += 1;
        }
        exponent
    }
}

/// The raw value; `exponent` is 0 for CT.
pub fn raw(value: f64, exponent: i32) -> i16 {
    // `as` saturates.
    times_power_of_two(value, exponent).round_ties_even() as i16
}

/// In two factors, because one of them alone may overflow where the product does not.
fn times_power_of_two(value: f64, exponent: i32) -> f64 {
    let half = exponent / 2;
    value * 2f64.powi(half) * 2f64.powi(exponent - half)
}

/// The exponent for values of a modality, all of them seen.
pub fn exponent(modality: Modality, values: impl Iterator<Item = f64>) -> i32 {
    match modality {
        Modality::Ct => 0,
        Modality::Mr => {
            let mut extent = Extent::default();
            values.for_each(|value| extent.see(value));
            extent.exponent()
        }
    }
}
