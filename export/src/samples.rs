//! Calibration slices from data sets: on the model's grid, in codes, by the same rules that the runtime follows; with
//! their labels where there are any.

use std::path::Path;

use contract::{Intake, Modality, ModelSpec, neighbours};
use volume::{Case, Dataset};

use crate::{ExportError, calibrate::Sample};

/// About `count` slices of a data set's training cases (of its test cases if there are none), spread evenly over cases
/// and slices, the ends of each volume left out. Slices that the intensity rule refuses (empty ones) are passed over.
pub fn read(folder: &Path, modality: Modality, spec: &ModelSpec, count: usize) -> Result<Vec<Sample>, ExportError> {
    let dataset = Dataset::open(folder, &spec.labels)?;
    if dataset.modality() != modality {
        let reason = format!("a data set of {}, expected {modality}", dataset.modality());
        return Err(ExportError::Data { path: folder.to_path_buf(), reason });
    }
    let cases = if dataset.train.is_empty() { &dataset.test } else { &dataset.train };
    let chosen = spread(cases.len(), count.min(cases.len()));
    let per_case = count.div_ceil(chosen.len());
    let (mut samples, mut looked_at, mut refusal) = (vec![], 0, None);
    for case in chosen.into_iter().map(|index| &cases[index]) {
        let slices = read_case(&dataset, case, modality, spec, per_case)?;
        looked_at += slices.len();
        for slice in slices {
            match slice {
                Ok(sample) => samples.push(sample),
                Err(error) => refusal = Some(error),
            }
        }
    }
    match refusal {
        Some(source) if samples.is_empty() => {
            Err(ExportError::Slices { path: folder.to_path_buf(), slices: looked_at, source })
        }
        _ => Ok(samples),
    }
}

fn read_case(
    dataset: &Dataset,
    case: &Case,
    modality: Modality,
    spec: &ModelSpec,
    count: usize,
) -> Result<Vec<Result<Sample, contract::IntensityError>>, ExportError> {
    let (image, labels) = match case.labels {
        Some(_) => dataset.load(case).map(|(image, labels)| (image, Some(labels)))?,
        None => (dataset.load_image(case)?, None),
    };
    let broken = |error: contract::GridError| ExportError::Data { path: case.image.clone(), reason: error.to_string() };
    let mut intake = Intake::new(modality, spec.intensity, image.plane(), spec.grid).map_err(broken)?;
    let slices: Vec<&[i16]> = image.slices().collect();
    let pixels = spec.grid.height * spec.grid.width;
    let mut sample = |z: usize| {
        let mut codes = vec![0; pixels * spec.slices()];
        for (plane, z) in codes.chunks_exact_mut(pixels).zip(neighbours(z, slices.len(), spec.slices())) {
            intake.codes(slices[z], plane)?;
        }
        let labels = labels.as_ref().map(|labels| {
            let mut classes = vec![0; pixels];
            let plane = slices[z].len();
            intake.resampler().labels_forward(&labels.classes[z * plane..][..plane], &mut classes);
            classes
        });
        Ok(Sample { modality, codes, labels })
    };
    Ok(spread(slices.len(), count).into_iter().map(&mut sample).collect())
}

/// At most `count` samples of a modality, spread evenly.
pub fn thin(samples: &[Sample], modality: Modality, count: usize) -> Vec<Sample> {
    let own: Vec<&Sample> = samples.iter().filter(|sample| sample.modality == modality).collect();
    spread(own.len(), count).into_iter().map(|index| own[index].clone()).collect()
}

/// The middles of `count` equal parts of `0..n`, all different.
fn spread(n: usize, count: usize) -> Vec<usize> {
    let count = count.min(n);
    (0..count).map(|part| (2 * part + 1) * n / (2 * count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_spread_evenly_and_never_twice() {
        assert_eq!(spread(10, 2), [2, 7]);
        assert_eq!(spread(3, 8), [0, 1, 2]);
        assert_eq!(spread(100, 4), [12, 37, 62, 87]);
        for count in 1..40 {
            assert!(spread(40, count).is_sorted_by(|a, b| a < b));
        }
    }
}
