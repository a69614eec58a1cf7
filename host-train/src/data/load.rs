//! Cases from an nnU-Net raw folder: modality checked, labels translated, every slice through the scanner side's intake.

use std::path::Path;

use contract::{LabelMap, Modality, ModelSpec};
use volume::{Dataset, Fault, VolumeError, dataset};

use super::{Cache, Case, DataError, Scan};

/// Which half of a data set.
pub use volume::Split as Part;

/// What a case that cannot be used does to the rest.
#[derive(Debug)]
pub enum OnBad {
    /// Stops everything.
    Stop,
    /// Is left out and kept here: why, case by case.
    Skip(Vec<DataError>),
}

impl OnBad {
    /// Keeps `error`, or gives it back as what stops everything.
    pub fn meet(&mut self, error: DataError) -> Result<(), DataError> {
        match self {
            Self::Stop => Err(error),
            Self::Skip(kept) => {
                kept.push(error);
                Ok(())
            }
        }
    }
}

/// Reads all cases of one part of a data set, in order of name.
///
/// # Errors
/// If the folder's channel is not `modality`, the part is empty or unlabelled, a patient is in both parts, a file cannot be
/// read, image and labels do not lie on each other, or a slice is refused for anything but being constant.
pub fn load(folder: &Path, modality: Modality, part: Part, spec: &ModelSpec) -> Result<Vec<Case>, DataError> {
    load_with(folder, modality, part, spec, &mut OnBad::Stop)
}

/// As [`load`]; what is wrong with a single case goes to `bad`.
///
/// # Errors
/// Besides what `bad` does not take: if no case is left.
pub fn load_with(
    folder: &Path,
    modality: Modality,
    part: Part,
    spec: &ModelSpec,
    bad: &mut OnBad,
) -> Result<Vec<Case>, DataError> {
    load_cached(folder, modality, part, spec, bad, None)
}

/// As [`load_with`]; what `cache` has is not made again.
///
/// # Errors
/// Besides those of [`load_with`]: if the cache cannot be written.
pub fn load_cached(
    folder: &Path,
    modality: Modality,
    part: Part,
    spec: &ModelSpec,
    bad: &mut OnBad,
    cache: Option<&Cache>,
) -> Result<Vec<Case>, DataError> {
    let (data, cases) = open(folder, modality, part, &spec.labels, bad)?;
    each(folder, &cases, bad, |entry| {
        let kept = cache.map(|cache| cache.path(folder, entry, spec)).transpose()?;
        if let Some(found) = kept.as_ref().and_then(|path| Cache::read(path, entry, spec, modality)) {
            return Ok(found);
        }
        let (image, labels) = data.load(entry)?;
        let (name, path) = (entry.name.clone(), entry.image.clone());
        let scan = Scan { name, path, modality, geometry: image.geometry, raw: image.raw, labels: labels.classes };
        let case = Case { patient: entry.patient.clone(), ..Case::new(scan, spec)? };
        let Some(path) = kept else { return Ok(case) };
        Cache::write(&path, &case).map_err(|error| VolumeError::new(&path, error))?;
        // The mapped one, so that a first training takes no more memory than the next.
        Ok(Cache::read(&path, entry, spec, modality).unwrap_or(case))
    })
}

/// `use_case` of every case of `folder`, at least one of which must be good.
pub(crate) fn each<T>(
    folder: &Path,
    cases: &[dataset::Case],
    bad: &mut OnBad,
    mut use_case: impl FnMut(&dataset::Case) -> Result<T, DataError>,
) -> Result<Vec<T>, DataError> {
    let mut good = vec![];
    for case in cases {
        match use_case(case) {
            Ok(value) => good.push(value),
            Err(error) => bad.meet(error)?,
        }
    }
    match (good.is_empty(), bad) {
        (true, OnBad::Skip(kept)) if !kept.is_empty() => Err(DataError::AllBad {
            path: folder.into(),
            count: kept.len(),
            last: Box::new(kept.remove(kept.len() - 1)),
        }),
        _ => Ok(good),
    }
}

/// Opens a data set of a known modality; its cases of one part, at least one unless `bad` took them.
pub(crate) fn open(
    folder: &Path,
    modality: Modality,
    part: Part,
    labels: &LabelMap,
    bad: &mut OnBad,
) -> Result<(Dataset, Vec<dataset::Case>), DataError> {
    let data = Dataset::open_skipping(folder, labels)?;
    let found = data.modality();
    if found != modality {
        return Err(DataError::Modality { path: folder.join(dataset::DESCRIPTION), found, expected: modality });
    }
    let [images, _] = part.folders();
    let of_part = |error: &&VolumeError| match &error.fault {
        Fault::NoLabels { image } => image.starts_with(folder.join(images)),
        _ => true,
    };
    let faulty: Vec<VolumeError> = data.faulty.iter().filter(of_part).cloned().collect();
    let cases = match part {
        Part::Train => data.train.clone(),
        Part::Test => data.test.clone(),
    };
    if cases.is_empty() && faulty.is_empty() {
        return Err(DataError::NoCases { path: folder.into(), part: images });
    }
    for error in faulty {
        bad.meet(error.into())?;
    }
    Ok((data, cases))
}
