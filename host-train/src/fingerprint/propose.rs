//! From fingerprints to options of `train`.
//!
//! * **CT window**: the 0.5th to the 99.5th percentile of labelled voxels, as nnU-Net clips CT; outwards to 10 HU.
//! * **MR percentiles**: the model's rule takes percentiles of each slice. The upper one is that above which no more than
//!   0.5 % of the labelled voxels lie in nine cases of ten; the lower one stays at 0.5, because what is dark is background.
//! * **Grid**: one for both modalities, centred on the slice as the runtime centres it. It covers the farthest labelled voxel
//!   of all cases and a tenth more, but not more than the largest slice. Pixels are as large as the coarser median spacing of
//!   the two modalities, or larger where the side would not fit into the pixels that were granted.

use contract::{MAX_SIDE, Modality};
use serde::Serialize;

use super::Fingerprint;

/// Sides of the network's grid are multiples of this.
const SIDE_STEP: usize = 16;
/// Seen beyond the farthest labelled voxel.
const MARGIN: f64 = 1.1;

/// Options of `train` that suit the data.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Proposal {
    /// `--ct-window`, HU; `None` without CT.
    pub ct_window_hu: Option<[i16; 2]>,
    /// `--mr-percentiles` of each slice; `None` without MRI.
    pub mr_percentiles: Option<[f64; 2]>,
    /// `--size`, height and width.
    pub size: [usize; 2],
    /// `--spacing`.
    pub spacing_mm: f64,
}

/// A proposal for the modalities in hand, at least one, with sides of at most `side` pixels.
pub fn propose(fingerprints: &[Fingerprint], side: usize) -> Proposal {
    let of = |modality: Modality| fingerprints.iter().find(|print| print.modality == modality);
    let side = (side.clamp(SIDE_STEP, MAX_SIDE) / SIDE_STEP) * SIDE_STEP;
    // Per axis, of both modalities.
    let field_mm = [0, 1].map(|axis| {
        let needed = |print: &Fingerprint| {
            let (reach, field) = (2. * MARGIN * print.reach_mm[axis].max, print.field_mm[axis].max);
            if reach > 0. { reach.min(field) } else { field }
        };
        fingerprints.iter().map(needed).fold(0., f64::max)
    });
    let usual_mm =
        fingerprints.iter().map(|print| print.spacing_mm[0].median.max(print.spacing_mm[1].median)).fold(0., f64::max);
    let spacing_mm = usual_mm.max(field_mm[0].max(field_mm[1]) / side as f64);
    // Upwards to a twentieth of a millimetre: a number that a person can read.
    let spacing_mm = (spacing_mm * 20. - 1e-6).ceil() / 20.;
    let pixels = |field_mm: f64| {
        let pixels = (field_mm / spacing_mm - 1e-6).ceil().max(1.) as usize;
        pixels.next_multiple_of(SIDE_STEP).min(side)
    };
    Proposal {
        ct_window_hu: of(Modality::Ct).map(window),
        mr_percentiles: of(Modality::Mr).map(percentiles),
        size: [pixels(field_mm[1]), pixels(field_mm[0])],
        spacing_mm,
    }
}

fn window(print: &Fingerprint) -> [i16; 2] {
    // Without labels, what all voxels show.
    let seen = if print.foreground.voxels > 0 { print.foreground } else { print.all };
    let tens = |value: f64| value.clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16;
    let low = (f64::from(seen.p00_5) / 10.).floor() * 10.;
    let high = (f64::from(seen.p99_5) / 10.).ceil() * 10.;
    [tens(low), tens(high.max(low + 10.))]
}

fn percentiles(print: &Fingerprint) -> [f64; 2] {
    const LOW: f64 = 0.5;
    let high = (print.foreground_top_percentile.p90 * 10.).ceil() / 10.;
    [LOW, if high > 0. { high.clamp(95., 99.9) } else { 99.5 }]
}

impl Proposal {
    /// As words of a command line.
    pub fn options(&self) -> String {
        let [height, width] = self.size;
        let side = if height == width { height.to_string() } else { format!("{height}x{width}") };
        let mut words = format!("--size {side} --spacing {}", self.spacing_mm);
        if let Some([low, high]) = self.ct_window_hu {
            words += &format!(" --ct-window {low},{high}");
        }
        if let Some([low, high]) = self.mr_percentiles {
            words += &format!(" --mr-percentiles {low},{high}");
        }
        words
    }
}
