//! Predicted label maps as NIfTI files, `<case>.nii.gz` in the grid of the case's image.

use std::{
    fs,
    path::{Path, PathBuf},
};

use contract::{LabelMap, Modality};
use volume::{Fault, Geometry, LabelTable, VolumeError, dataset, read_labels, write_labels};

use super::{CaseScore, Scores, agreements};
use crate::data::{self, Case, DataError, Part};

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
    if !found.geometry.matches(geometry) {
        let fault =
            Fault::Mismatch { other: image.into(), found: describe(&found.geometry), expected: describe(geometry) };
        return Err(VolumeError::new(&path, fault).into());
    }
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
    let (data, cases) = data::open(folder, modality, part, labels)?;
    let score = |case: &dataset::Case| -> Result<CaseScore, DataError> {
        let truth = data.load_labels(case)?;
        let geometry = &truth.geometry;
        let predicted = read_prediction(predictions, &case.name, labels, &case.image, geometry)?;
        let organs = agreements(&predicted, &truth.classes, labels, geometry.shape(), geometry.spacing_mm());
        Ok(CaseScore { case: case.name.clone(), modality, organs })
    };
    Ok(Scores::of(cases.iter().map(score).collect::<Result<_, _>>()?))
}

fn file(folder: &Path, name: &str) -> PathBuf {
    let plain = folder.join(format!("{name}.nii"));
    let packed = folder.join(format!("{name}.nii.gz"));
    if !packed.exists() && plain.exists() { plain } else { packed }
}

fn describe(geometry: &Geometry) -> String {
    let ([z, y, x], spacing) = (geometry.shape(), geometry.spacing_mm());
    let corner = geometry.canonical_affine().map(|row| row[3]);
    format!("{x}x{y}x{z} voxels of {spacing:.3?} mm, first at {corner:.3?} mm")
}
