//! Cases from an nnU-Net raw folder: modality checked, labels translated, every slice through the scanner side's intake.

use std::path::Path;

use contract::{LabelMap, Modality, ModelSpec};
use volume::{Dataset, dataset};

use super::{Case, DataError, Scan};

/// Which half of a data set.
pub use volume::Split as Part;

/// Reads all cases of one part of a data set, in order of name.
///
/// # Errors
/// If the folder's channel is not `modality`, the part is empty or unlabelled, a file cannot be read, image and labels do
/// not lie on each other, or a slice is refused for anything but being constant.
pub fn load(folder: &Path, modality: Modality, part: Part, spec: &ModelSpec) -> Result<Vec<Case>, DataError> {
    let (data, cases) = open(folder, modality, part, &spec.labels)?;
    let load = |case: &dataset::Case| {
        let (image, labels) = data.load(case)?;
        let (name, path) = (case.name.clone(), case.image.clone());
        let scan = Scan { name, path, modality, geometry: image.geometry, raw: image.raw, labels: labels.classes };
        Case::new(scan, spec)
    };
    cases.iter().map(load).collect()
}

/// Opens a data set of a known modality; its cases of one part, at least one.
pub(crate) fn open(
    folder: &Path,
    modality: Modality,
    part: Part,
    labels: &LabelMap,
) -> Result<(Dataset, Vec<dataset::Case>), DataError> {
    let data = Dataset::open(folder, labels)?;
    let found = data.modality();
    if found != modality {
        return Err(DataError::Modality { path: folder.join(dataset::DESCRIPTION), found, expected: modality });
    }
    let (cases, name) = match part {
        Part::Train => (data.train.clone(), "imagesTr"),
        Part::Test => (data.test.clone(), "imagesTs"),
    };
    if cases.is_empty() {
        return Err(DataError::NoCases { path: folder.into(), part: name });
    }
    Ok((data, cases))
}
