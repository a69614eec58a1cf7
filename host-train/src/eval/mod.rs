//! How good label maps are, on the scanner's own grid and in mm: of a network, whatever runs it, or of files.
//!
//! Files and networks are scored by the same code, so that a trained network, its f32 export and the int8 runtime can be
//! compared without asking whether their scores mean the same.

mod files;
mod scores;
mod table;

use std::path::Path;

use contract::{LabelMap, ModelSpec};
use volume::metrics;

pub use files::{read_prediction, score_files, score_files_with, write_prediction};
pub use scores::{CaseScore, OrganScore, OrganSummary, Scores, Spread};

use crate::data::{self, Case, DataError};

/// Slices that are predicted at a time.
const BATCH: usize = 16;

/// A network: reals `[n, slices, height, width]` and `n` to classes `[n, height, width]`.
pub type Predict<'a> = dyn FnMut(&[f32], usize) -> Vec<u8> + 'a;

/// Scores a network on cases of one modality.
pub fn evaluate(cases: &[Case], spec: &ModelSpec, predict: &mut Predict) -> Result<Scores, DataError> {
    evaluate_into(cases, spec, None, predict)
}

/// Scores a network, and writes its label maps into the folder `out` if there is one.
pub fn evaluate_into(
    cases: &[Case],
    spec: &ModelSpec,
    out: Option<&Path>,
    predict: &mut Predict,
) -> Result<Scores, DataError> {
    data::one_modality(cases)?;
    let mut scores = vec![];
    for case in cases {
        let predicted = predict_case(case, spec, predict)?;
        if let Some(out) = out {
            write_prediction(out, case, &predicted)?;
        }
        scores.push(score(case, &predicted, &spec.labels));
    }
    Ok(Scores::of(scores))
}

/// Label map of a case on the scanner's grid, canonical `[z][y][x]`; background where a slice is constant.
pub fn predict_case(case: &Case, spec: &ModelSpec, predict: &mut Predict) -> Result<Vec<u8>, DataError> {
    let (resampler, model_area) = (case.resampler(spec)?, spec.grid.height * spec.grid.width);
    let area = case.raw.len() / case.depth();
    let mut labels = vec![0; case.raw.len()];
    let mut codes = vec![0; spec.slices() * model_area];
    let usable: Vec<usize> = (0..case.depth()).filter(|&z| case.usable[z]).collect();
    for batch in usable.chunks(BATCH) {
        let mut images = Vec::with_capacity(batch.len() * codes.len());
        for &z in batch {
            case.image(z, spec.slices(), &mut codes);
            images.extend(data::reals(&codes, spec));
        }
        let predicted = checked(case, spec, predict(&images, batch.len()), batch.len() * model_area)?;
        for (&z, slice) in batch.iter().zip(predicted.chunks_exact(model_area)) {
            resampler.labels_back(slice, &mut labels[z * area..][..area]);
        }
    }
    Ok(labels)
}

fn checked(case: &Case, spec: &ModelSpec, labels: Vec<u8>, expected: usize) -> Result<Vec<u8>, DataError> {
    let (name, classes) = (case.name.clone(), spec.labels.classes());
    if labels.len() != expected {
        return Err(DataError::Length { name, found: labels.len(), expected });
    }
    match labels.iter().find(|&&label| usize::from(label) >= classes) {
        None => Ok(labels),
        Some(&found) => Err(DataError::Class { name, found, classes }),
    }
}

/// Agreement of a label map with the truth of a case, both on the scanner's grid.
fn score(case: &Case, predicted: &[u8], labels: &LabelMap) -> CaseScore {
    let organs = agreements(predicted, &case.labels, labels, case.geometry.shape(), case.spacing_mm());
    CaseScore { case: case.name.clone(), modality: case.modality, organs }
}

fn agreements(
    predicted: &[u8],
    truth: &[u8],
    labels: &LabelMap,
    shape: [usize; 3],
    spacing_mm: [f64; 3],
) -> Vec<OrganScore> {
    let organ = |(class, label): (u8, &contract::Label)| {
        let metrics::Agreement { dice, hd95_mm, assd_mm } =
            metrics::compare(predicted, truth, class, shape, spacing_mm);
        OrganScore { organ: label.name.clone(), dice, hd95_mm, assd_mm }
    };
    labels.organs().map(organ).collect()
}

#[cfg(test)]
mod tests;
