//! Raw pixel (i16, after rescale) to int8 code, by a rule that needs nothing but the slice in hand.
//!
//! The trainer feeds the network `scale * code` of the same rule, so it never sees a value that a scanner cannot produce.
//! All arithmetic is on integers: the same bits on every machine.

use alloc::{boxed::Box, vec, vec::Vec};
use core::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::Modality;

/// Number of raw values.
const RAW_VALUES: usize = 1 << 16;
/// Counts per raw value.
const WAYS: usize = 2;

/// Fat begins here, and everything darker is air or lung.
const DARK_HU: i16 = -30;

/// How the intensities of one modality become codes: `low` and below is -128, `high` and above is 127, linear between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// A fixed window.
    Window {
        /// HU.
        low: i16,
        /// HU.
        high: i16,
    },
    /// Percentiles of the slice's own histogram, in hundredths of a percent.
    SlicePercentile {
        /// E.g. 50 for 0.5 %.
        low: u16,
        /// E.g. 9950 for 99.5 %.
        high: u16,
    },
}

/// The intensity rules of a model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intensity {
    /// For CT.
    pub ct: Rule,
    /// For MR.
    pub mr: Rule,
    /// The real that one code step stands for; code 0 is real 0.
    pub scale: f32,
}

/// Why a slice is not segmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntensityError {
    /// Nothing to see.
    #[error("every pixel of the slice is {value}")]
    Constant {
        /// The one raw value.
        value: i16,
    },
    /// Every CT slice shows air, lung or fat; none is all water, muscle and bone.
    #[error(
        "said to be CT, but only {dark} of {pixels} pixels are at or below {DARK_HU} HU, where air and fat lie: expected \
         1 % or more (is it MR, or is the rescale missing?)"
    )]
    NotHounsfield {
        /// Pixels at or below -30 HU.
        dark: usize,
        /// All pixels.
        pixels: usize,
    },
    /// Strongly negative and bounded as Hounsfield units are.
    #[error("said to be MR, but the values lie between {low} and {high} as Hounsfield units do (is it CT?)")]
    LooksHounsfield {
        /// Low percentile.
        low: i16,
        /// High percentile.
        high: i16,
    },
    /// No pixels.
    #[error("the slice has no pixels")]
    Empty,
}

impl Default for Intensity {
    /// An abdominal soft-tissue window for CT, the middle 99 % of each slice for MR, reals within [-2, 2).
    fn default() -> Self {
        Self {
            ct: Rule::Window { low: -160, high: 240 },
            mr: Rule::SlicePercentile { low: 50, high: 9950 },
            scale: 1. / 64.,
        }
    }
}

impl Intensity {
    /// As the default, but for CT angiography: blood full of contrast medium lies within the window.
    pub fn angiography() -> Self {
        Self { ct: Rule::Window { low: -160, high: 560 }, ..Self::default() }
    }

    /// The rule of a modality.
    pub const fn rule(&self, modality: Modality) -> Rule {
        match modality {
            Modality::Ct => self.ct,
            Modality::Mr => self.mr,
        }
    }

    /// Whether the rules can be followed: windows and percentiles that rise, a positive scale.
    pub fn is_valid(&self) -> bool {
        let rises = |rule| match rule {
            Rule::Window { low, high } => low < high,
            Rule::SlicePercentile { low, high } => low < high && high <= 10_000,
        };
        rises(self.ct) && rises(self.mr) && self.scale > 0. && self.scale.is_finite()
    }
}

/// Raw value to code, for one slice at a time. All memory is taken when it is made.
#[derive(Clone, Debug)]
pub struct Lut {
    /// Of `low` and the values above it, up to `high`.
    codes: Vec<i8>,
    /// Per raw value, the counts of every second pixel: neighbours, often equal, need not wait for one another.
    histogram: Box<[[u32; WAYS]; RAW_VALUES]>,
    /// The ends that `codes` was filled for.
    ends: Option<(i16, i16)>,
}

impl Default for Lut {
    fn default() -> Self {
        Self {
            codes: vec![0; RAW_VALUES],
            histogram: vec![[0; WAYS]; RAW_VALUES].try_into().expect("as many as there are raw values"),
            ends: None,
        }
    }
}

/// What a look at every pixel finds.
struct Scan {
    min: i16,
    max: i16,
    dark: usize,
}

impl Scan {
    #[inline(always)]
    fn new(raw: &[i16]) -> Self {
        /// Pixels that stay in the first cache, few enough to count in 16 bits.
        const BLOCK: usize = 1024;
        let mut scan = Self { min: i16::MAX, max: i16::MIN, dark: 0 };
        for block in raw.chunks(BLOCK) {
            scan.min = block.iter().fold(scan.min, |min, &value| min.min(value));
            scan.max = block.iter().fold(scan.max, |max, &value| max.max(value));
            scan.dark += usize::from(block.iter().map(|&value| u16::from(value <= DARK_HU)).sum::<u16>());
        }
        scan
    }
}

impl Lut {
    #[inline(always)] // for callers that are compiled for a CPU's own instructions
    /// Fits the table to a slice, or says why the slice must not be segmented.
    pub fn fit(&mut self, intensity: &Intensity, modality: Modality, raw: &[i16]) -> Result<(), IntensityError> {
        let Scan { min, max, dark } = Scan::new(raw);
        if min > max {
            return Err(IntensityError::Empty);
        }
        if min == max {
            return Err(IntensityError::Constant { value: min });
        }
        if modality == Modality::Ct && dark * 100 < raw.len() {
            return Err(IntensityError::NotHounsfield { dark, pixels: raw.len() });
        }
        let (low, high) = match intensity.rule(modality) {
            Rule::Window { low, high } => (low, high),
            Rule::SlicePercentile { low, high } => self.percentiles(raw, bin(min)..=bin(max), low, high),
        };
        if modality == Modality::Mr && (-4096..=-200).contains(&low) && high < 4096 {
            return Err(IntensityError::LooksHounsfield { low, high });
        }
        // A slice that is almost all one value (a little noise in a wide frame) still has two ends.
        let (low, high) = if low < high { (low, high) } else { (min, max) };
        self.fill(low, high);
        Ok(())
    }

    /// The darkest raw value, which also stands outside the image.
    pub fn low(&self) -> i16 {
        self.ends.map_or(0, |(low, _)| low)
    }

    /// The code of a raw value.
    #[inline]
    pub fn code(&self, raw: i16) -> i8 {
        let (low, high) = self.ends.unwrap_or((0, 0));
        self.codes[bin(raw.clamp(low, high)) - bin(low)]
    }

    /// The codes of raw values.
    pub fn encode(&self, raw: &[i16], codes: &mut [i8]) {
        for (code, &raw) in codes.iter_mut().zip(raw) {
            *code = self.code(raw);
        }
    }

    #[inline(always)]
    fn percentiles(&mut self, raw: &[i16], bins: RangeInclusive<usize>, low: u16, high: u16) -> (i16, i16) {
        let first = *bins.start();
        self.histogram[bins.clone()].fill([0; WAYS]);
        let (groups, rest) = raw.as_chunks::<WAYS>();
        for group in groups {
            for (way, &value) in group.iter().enumerate() {
                self.histogram[bin(value)][way] += 1;
            }
        }
        for &value in rest {
            self.histogram[bin(value)][0] += 1;
        }
        let histogram = &self.histogram[bins];
        let last = raw.len() as u64 - 1;
        let rank = |percent: u16| last * u64::from(percent) / 10_000;
        let ranked = |rank| (ranked(histogram, rank) + first).wrapping_add_signed(i16::MIN as isize) as i16;
        (ranked(rank(low)), ranked(rank(high)))
    }

    fn fill(&mut self, low: i16, high: i16) {
        if self.ends == Some((low, high)) {
            return;
        }
        let span = i32::from(high) - i32::from(low);
        for (above, code) in (0..=span).zip(&mut self.codes) {
            *code = ((above * 510 + span) / (2 * span) - 128) as i8;
        }
        self.ends = Some((low, high));
    }
}

/// Raw values as numbers from 0, in their order.
const fn bin(raw: i16) -> usize {
    (raw as u16 ^ 0x8000) as usize
}

/// The bin that holds the pixel of a rank.
fn ranked(histogram: &[[u32; WAYS]], rank: u64) -> usize {
    let mut below = 0;
    let passed = histogram.iter().position(|counts| {
        below += counts.iter().map(|&count| u64::from(count)).sum::<u64>();
        below > rank
    });
    passed.unwrap_or(histogram.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_values() -> Vec<i16> {
        (i16::MIN..=i16::MAX).collect()
    }

    #[test]
    fn a_window_is_linear_monotone_and_saturates_over_all_raw_values() {
        let mut lut = Lut::default();
        lut.fit(&Intensity::default(), Modality::Ct, &[-1000, 40]).unwrap();
        for raw in all_values() {
            let exact = (f64::from(raw) + 160.) / 400. * 255. - 128.;
            let expected = exact.clamp(-128., 127.);
            assert!((f64::from(lut.code(raw)) - expected).abs() <= 0.5, "{raw}");
        }
        assert_eq!((lut.code(-160), lut.code(240), lut.low()), (-128, 127, -160));
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_slice() {
        let mut slice: Vec<i16> = (0..2001).map(|i| ((i * 7919) % 2001) as i16 - 100).collect();
        let mut lut = Lut::default();
        lut.fit(&Intensity::default(), Modality::Mr, &slice).unwrap();
        slice.sort_unstable();
        assert_eq!(lut.ends, Some((slice[10], slice[1990])));
        assert_eq!((lut.code(slice[10]), lut.code(slice[1990])), (-128, 127));
    }

    /// The network sees the same picture whatever gain and offset the MR receiver had.
    #[test]
    fn mr_codes_ignore_gain_and_offset() {
        let slice: Vec<i16> = (0..500).map(|i| ((i * i) % 997) as i16).collect();
        let louder: Vec<i16> = slice.iter().map(|v| v * 8 + 50).collect();
        let (mut a, mut b) = (Lut::default(), Lut::default());
        a.fit(&Intensity::default(), Modality::Mr, &slice).unwrap();
        b.fit(&Intensity::default(), Modality::Mr, &louder).unwrap();
        assert!(slice.iter().zip(&louder).all(|(&x, &y)| a.code(x) == b.code(y)));
    }

    #[test]
    fn what_cannot_be_right_is_refused() {
        let mut lut = Lut::default();
        let mut fit = |modality, raw: &[i16]| lut.fit(&Intensity::default(), modality, raw);
        assert_eq!(fit(Modality::Ct, &[]), Err(IntensityError::Empty));
        assert_eq!(fit(Modality::Mr, &[7, 7, 7]), Err(IntensityError::Constant { value: 7 }));
        let mr: Vec<i16> = (0..1000).map(|i| i - 9).collect();
        assert_eq!(fit(Modality::Ct, &mr), Err(IntensityError::NotHounsfield { dark: 0, pixels: 1000 }));
        // Ringing makes a few pixels of an MR volume negative.
        let ringing: Vec<i16> = (0..1000).map(|i| i - 39).collect();
        assert_eq!(fit(Modality::Ct, &ringing), Ok(()));
        assert_eq!(fit(Modality::Ct, &ringing[1..]), Err(IntensityError::NotHounsfield { dark: 9, pixels: 999 }));
        let ct: Vec<i16> = (0..100).map(|i| -1024 + i * 15).collect();
        assert_eq!(fit(Modality::Mr, &ct), Err(IntensityError::LooksHounsfield { low: -1024, high: 446 }));
        assert_eq!(fit(Modality::Ct, &ct), Ok(()));
    }

    #[test]
    fn a_slice_that_is_almost_empty_still_has_two_ends() {
        let mut slice = vec![0i16; 10_000];
        slice[77] = 900;
        let mut lut = Lut::default();
        lut.fit(&Intensity::default(), Modality::Mr, &slice).unwrap();
        assert_eq!((lut.code(0), lut.code(900)), (-128, 127));
    }
}
