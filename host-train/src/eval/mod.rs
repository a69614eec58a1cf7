//! How good label maps are, on the scanner's own grid and in mm: of a network, whatever runs it, or of files.
//!
//! Files and networks are scored by the same code, so that a trained network, its f32 export and the int8 runtime can be
//! compared without asking whether their scores mean the same.

mod files;
mod scores;
mod table;

use std::path::Path;

use contract::{LabelMap, ModelSpec};
use volume::{components::keep_largest, metrics};

pub use files::{read_prediction, score_files, score_files_with, write_prediction};
pub use scores::{CaseScore, OrganScore, OrganSummary, Scores, Spread};

use crate::data::{self, Case, DataError};

/// A network: a case to classes on the model's grid, `[z, height, width]` ([`crate::segment::segment`]).
pub type Predict<'a> = dyn FnMut(&Case) -> Vec<u8> + 'a;

/// What is done with an evaluation's label maps besides scoring them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handling<'a> {
    /// Keep of each organ only its largest connected part, before anything else.
    pub largest_component: bool,
    /// Write them into this folder.
    pub out: Option<&'a Path>,
}

/// Scores a network on cases of one modality.
pub fn evaluate(cases: &[Case], spec: &ModelSpec, predict: &mut Predict) -> Result<Scores, DataError> {
    evaluate_with(cases, spec, Handling::default(), predict)
}

/// Scores a network, its label maps handled as asked.
pub fn evaluate_with(
    cases: &[Case],
    spec: &ModelSpec,
    handling: Handling<'_>,
    predict: &mut Predict,
) -> Result<Scores, DataError> {
    data::one_modality(cases)?;
    let mut scores = vec![];
    for case in cases {
        let mut predicted = predict_case(case, spec, predict)?;
        if handling.largest_component {
            keep_largest(&mut predicted, case.geometry.shape(), &spec.labels);
        }
        if let Some(out) = handling.out {
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
    let predicted = checked(case, spec, predict(case), case.depth() * model_area)?;
    for (z, slice) in predicted.chunks_exact(model_area).enumerate().filter(|&(z, _)| case.usable[z]) {
        resampler.labels_back(slice, &mut labels[z * area..][..area]);
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
