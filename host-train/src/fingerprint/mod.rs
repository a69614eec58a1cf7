//! What a data set is like, and which intensity rule and grid suit it: sizes, spacings, intensities and class shares of the
//! training cases, as nnU-Net's fingerprint collects them.
//!
//! Intensities are counted, not sampled: raw values are `i16`, so a histogram of 65,536 counts is exact whatever the size of
//! the data set.

mod histogram;
mod propose;

use std::{collections::BTreeMap, path::Path};

use contract::{LabelMap, Modality};
use serde::Serialize;
use volume::{Image, Labels};

pub use histogram::{Histogram, Intensities};
pub use propose::{Proposal, propose};

use crate::data::{self, DataError, OnBad, Part};

/// Training cases of one modality, measured.
#[derive(Clone, Debug, Serialize)]
pub struct Fingerprint {
    /// Of every case.
    pub modality: Modality,
    /// Number of cases.
    pub cases: usize,
    /// Number of patients.
    pub patients: usize,
    /// Voxels along x, y, z.
    pub size: [Spread; 3],
    /// Voxel spacing along x, y, z, mm.
    pub spacing_mm: [Spread; 3],
    /// Width and height of the slices, mm.
    pub field_mm: [Spread; 2],
    /// How far labelled voxels lie from the middle of their slice along x and y, mm: per case the farthest.
    pub reach_mm: [Spread; 2],
    /// Raw values of all voxels.
    pub all: Intensities,
    /// Raw values of labelled voxels.
    pub foreground: Intensities,
    /// For each case, which percentile of all its voxels is the 99.5th of its labelled ones.
    pub foreground_top_percentile: Spread,
    /// Per class, background included.
    pub classes: BTreeMap<String, ClassShare>,
}

/// How much of a class there is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClassShare {
    /// Voxels of the class, percent of all.
    pub percent: f64,
    /// Cases that show it.
    pub cases: usize,
}

/// Percentiles of one number per case.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Smallest.
    pub min: f64,
    /// 10th percentile, the lower of two neighbours.
    pub p10: f64,
    /// 50th percentile.
    pub median: f64,
    /// 90th percentile, the upper of two neighbours.
    pub p90: f64,
    /// Largest.
    pub max: f64,
}

impl Spread {
    /// Of at least one number; all 0 of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else {
            return Self { min: 0., p10: 0., median: 0., p90: 0., max: 0. };
        };
        let place = |percent: f64| percent / 100. * last as f64;
        let (low, high) = (sorted[last / 2], sorted[last.div_ceil(2)]);
        Self {
            min: sorted[0],
            p10: sorted[place(10.).floor() as usize],
            median: (low + high) / 2.,
            p90: sorted[place(90.).ceil() as usize],
            max: sorted[last],
        }
    }
}

/// What is kept of a case.
struct Measured {
    patient: String,
    size: [usize; 3],
    spacing_mm: [f64; 3],
    reach_mm: Option<[f64; 2]>,
    top_percentile: Option<f64>,
    counts: Vec<u64>,
}

/// Measures the training cases of a data set; `tell` hears of every case that is done, and of how many there are.
pub fn measure(
    folder: &Path,
    modality: Modality,
    labels: &LabelMap,
    bad: &mut OnBad,
    tell: &mut dyn FnMut(usize),
) -> Result<Fingerprint, DataError> {
    let (data, cases) = data::open(folder, modality, Part::Train, labels, bad)?;
    let (mut all, mut foreground) = (Histogram::new(), Histogram::new());
    let measured = data::each(folder, &cases, bad, |case| {
        tell(cases.len());
        let (image, truth) = data.load(case)?;
        let [whole, organs] = histograms(&image, &truth);
        all.add(&whole);
        foreground.add(&organs);
        let top = organs.percentile(99.5).map(|value| whole.rank(value));
        Ok(one(case.patient.clone(), &image, &truth, labels, top))
    })?;
    Ok(summary(modality, &measured, &all, &foreground, labels))
}

fn histograms(image: &Image, truth: &Labels) -> [Histogram; 2] {
    let (mut all, mut foreground) = (Histogram::new(), Histogram::new());
    for (&raw, &class) in image.raw.iter().zip(&truth.classes) {
        all.count(raw);
        if class != 0 {
            foreground.count(raw);
        }
    }
    [all, foreground]
}

fn one(patient: String, image: &Image, truth: &Labels, labels: &LabelMap, top_percentile: Option<f64>) -> Measured {
    let ([z, height, width], spacing_mm) = (image.shape(), image.spacing_mm());
    let mut counts = vec![0; labels.classes()];
    // Twice the distance in pixels, which is whole.
    let mut reach: Option<[usize; 2]> = None;
    for (index, &class) in truth.classes.iter().enumerate() {
        counts[usize::from(class)] += 1;
        if class != 0 {
            let twice = |at: usize, n: usize| (2 * at + 1).abs_diff(n) + 1;
            let [x, y] = reach.unwrap_or_default();
            let (column, row) = (index % width, index / width % height);
            reach = Some([x.max(twice(column, width)), y.max(twice(row, height))]);
        }
    }
    let reach_mm = reach.map(|[x, y]| [x as f64 / 2. * spacing_mm[0], y as f64 / 2. * spacing_mm[1]]);
    Measured { patient, size: [width, height, z], spacing_mm, reach_mm, top_percentile, counts }
}

fn summary(
    modality: Modality,
    cases: &[Measured],
    all: &Histogram,
    foreground: &Histogram,
    labels: &LabelMap,
) -> Fingerprint {
    let spread = |value: &dyn Fn(&Measured) -> f64| Spread::of(cases.iter().map(value));
    let voxels: u64 = cases.iter().flat_map(|case| &case.counts).sum();
    let share = |(class, label): (u8, &contract::Label)| {
        let of = |case: &Measured| case.counts[usize::from(class)];
        let total: u64 = cases.iter().map(of).sum();
        let percent = 100. * total as f64 / voxels.max(1) as f64;
        (label.name.clone(), ClassShare { percent, cases: cases.iter().filter(|case| of(case) > 0).count() })
    };
    let mut patients: Vec<&String> = cases.iter().map(|case| &case.patient).collect();
    patients.sort();
    patients.dedup();
    Fingerprint {
        modality,
        cases: cases.len(),
        patients: patients.len(),
        size: [0, 1, 2].map(|axis| spread(&|case| case.size[axis] as f64)),
        spacing_mm: [0, 1, 2].map(|axis| spread(&|case| case.spacing_mm[axis])),
        field_mm: [0, 1].map(|axis| spread(&|case| case.size[axis] as f64 * case.spacing_mm[axis])),
        reach_mm: [0, 1].map(|axis| Spread::of(cases.iter().filter_map(|case| Some(case.reach_mm?[axis])))),
        all: all.intensities(),
        foreground: foreground.intensities(),
        foreground_top_percentile: Spread::of(cases.iter().filter_map(|case| case.top_percentile)),
        classes: labels.iter().map(share).collect(),
    }
}

#[cfg(test)]
mod tests;
