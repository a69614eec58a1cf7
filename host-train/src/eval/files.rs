//! Predicted label maps as NIfTI files, `<case>.nii.gz` in the grid of the case's image.

use std::{
    fs,
    path::{Path, PathBuf},
};

use contract::{LabelMap, Modality};
use volume::{Geometry, LabelTable, VolumeError, dataset, read_labels, write_labels};

use super::{CaseScore, Scores, agreements};
use crate::data::{self, Case, DataError, OnBad, Part};

/// Writes a label map, canonical `[z][y][x]`, in the geometry of the case's image. Makes the folder.
pub fn write_prediction(folder: &Path, case: &Case, labels: &[u8]) -> Result<(), DataError> {
    fs::create_dir_all(folder).map_err(|error| VolumeError::new(folder, error))?;
    Ok(write_labels(folder.join(format!("{}.nii.gz", case.name)), &case.geometry, labels)?)
}

/// Reads the label map of a case, canonical `[z][y][x]`: `<case>.nii.gz`, or `<case>.nii` if only that is there.
///
/// # Errors
/// If there is none, it holds a class that `labels` lacks, or it does not lie on `geometry`, which is that of `image`.
pub fn read_prediction(
    folder: &Path,
    name: &str,
    labels: &LabelMap,
    image: &Path,
    geometry: &Geometry,
) -> Result<Vec<u8>, DataError> {
    let path = file(folder, name);
    let found = read_labels(&path, &LabelTable::identity(labels))?;
    found.geometry.expect_match(geometry, image).map_err(|fault| VolumeError::new(&path, fault))?;
    Ok(found.classes)
}

/// Scores the label maps in `predictions`, whoever made them, against the truth of one part of a data set.
pub fn score_files(
    folder: &Path,
    modality: Modality,
    part: Part,
    labels: &LabelMap,
    predictions: &Path,
) -> Result<Scores, DataError> {
    score_files_with(folder, modality, part, labels, predictions, &mut OnBad::Stop)
}

/// As [`score_files`]; what is wrong with a single case goes to `bad`.
pub fn score_files_with(
    folder: &Path,
    modality: Modality,
    part: Part,
    labels: &LabelMap,
    predictions: &Path,
    bad: &mut OnBad,
) -> Result<Scores, DataError> {
    let (data, cases) = data::open(folder, modality, part, labels, bad)?;
    let score = |case: &dataset::Case| -> Result<CaseScore, DataError> {
        let truth = data.load_labels(case)?;
        let geometry = &truth.geometry;
        let predicted = read_prediction(predictions, &case.name, labels, &case.image, geometry)?;
        let organs = agreements(&predicted, &truth.classes, labels, geometry.shape(), geometry.spacing_mm());
        Ok(CaseScore { case: case.name.clone(), modality, organs })
    };
    Ok(Scores::of(data::each(folder, &cases, bad, score)?))
}

fn file(folder: &Path, name: &str) -> PathBuf {
    let plain = folder.join(format!("{name}.nii"));
    let packed = folder.join(format!("{name}.nii.gz"));
    if !packed.exists() && plain.exists() { plain } else { packed }
}
