//! Calibration slices from data sets: on the model's grid, in codes, by the same rules that the runtime follows; with
//! their labels where there are any.

use std::path::Path;

use contract::{
    Intake, IntensityError, Modality, ModelSpec, neighbours,
    net::Spatial,
    tiles::{self, Tiles, Tiling},
};
use volume::{Case, Dataset};

use crate::{ExportError, calibrate::Sample};

/// About `count` slices of a data set's training cases (of its test cases if there are none), spread evenly over cases
/// and slices, the ends of each volume left out. Slices that the intensity rule refuses (empty ones) are passed over.
/// For a 3D network, patches of about as many slices in all.
pub fn read(folder: &Path, modality: Modality, spec: &ModelSpec, count: usize) -> Result<Vec<Sample>, ExportError> {
    let dataset = Dataset::open(folder, &spec.labels)?;
    if dataset.modality() != modality {
        let reason = format!("a data set of {}, expected {modality}", dataset.modality());
        return Err(ExportError::Data { path: folder.to_path_buf(), reason });
    }
    let count = count.div_ceil(spec.depth());
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
) -> Result<Vec<Result<Sample, IntensityError>>, ExportError> {
    let (image, labels) = match case.labels {
        Some(_) => dataset.load(case).map(|(image, labels)| (image, Some(labels)))?,
        None => (dataset.load_image(case)?, None),
    };
    let broken = |error: contract::GridError| ExportError::Data { path: case.image.clone(), reason: error.to_string() };
    let mut intake = Intake::new(modality, spec.intensity, image.plane(), spec.grid).map_err(broken)?;
    let slices: Vec<&[i16]> = image.slices().collect();
    let pixels = spec.grid.height * spec.grid.width;
    let mut sample = |Shown { image, segmented }: Shown| {
        let mut codes = vec![0; pixels * image.len()];
        let mut refused = vec![];
        for (plane, &z) in codes.chunks_exact_mut(pixels).zip(&image) {
            match intake.codes(slices[z], plane) {
                // In a patch, as beside a slice on the scanner's side, a slice of one value is dark.
                Err(error @ IntensityError::Constant { .. }) if spec.net.spatial == Spatial::D3 => refused.push(error),
                other => other?,
            }
        }
        if refused.len() == image.len() {
            return Err(refused[0]);
        }
        let labels = labels.as_ref().map(|labels| {
            let mut classes = vec![0; pixels * segmented.len()];
            for (classes, z) in classes.chunks_exact_mut(pixels).zip(segmented) {
                let plane = slices[z].len();
                intake.resampler().labels_forward(&labels.classes[z * plane..][..plane], classes);
            }
            classes
        });
        Ok(Sample { modality, codes, labels })
    };
    Ok(shown(spec, slices.len(), count).into_iter().map(&mut sample).collect())
}

/// The slices that a sample shows, and those that are segmented.
struct Shown {
    image: Vec<usize>,
    segmented: Vec<usize>,
}

/// Samples spread over a volume of `slices`: single ones with their neighbours, in 3D patches.
fn shown(spec: &ModelSpec, slices: usize, count: usize) -> Vec<Shown> {
    let patch = |start: isize| {
        let image: Vec<usize> = tiles::shown(start, spec.depth(), slices).collect();
        Shown { segmented: image.clone(), image }
    };
    let slice = |z: usize| Shown { image: neighbours(z, slices, spec.slices()).collect(), segmented: vec![z] };
    match spec.net.spatial {
        Spatial::D2 => spread(slices, count).into_iter().map(slice).collect(),
        Spatial::D3 => match slices.checked_sub(spec.depth()) {
            None => {
                Tiles::new(slices, spec.depth(), Tiling::Flush).starts().iter().map(|&start| patch(start)).collect()
            }
            Some(last) => spread(last + 1, count).into_iter().map(|start| patch(start as isize)).collect(),
        },
    }
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
    use contract::{Grid, Intensity, LabelMap, Net};

    use super::*;

    fn spec(net: Net) -> ModelSpec {
        let grid = Grid { height: 16, width: 16, spacing_mm: 3. };
        let (labels, intensity) = (LabelMap::abdomen(), Intensity::default());
        ModelSpec { net, labels, grid, intensity, modalities: Modality::ALL.to_vec() }
    }

    #[test]
    fn a_3d_network_gets_patches_and_a_2d_network_slices() {
        let images = |net, slices, count| -> Vec<Vec<usize>> {
            shown(&spec(net), slices, count).into_iter().map(|shown| shown.image).collect()
        };
        let volumes = || Net::compact3d(5, 2, 8, 16, 16);
        assert_eq!(images(volumes(), 12, 2), [[1, 2, 3, 4, 5, 6, 7, 8], [3, 4, 5, 6, 7, 8, 9, 10]]);
        assert_eq!(images(volumes(), 8, 3), [[0, 1, 2, 3, 4, 5, 6, 7]]);
        assert_eq!(images(volumes(), 5, 3), [[0, 0, 1, 2, 3, 4, 4, 4]]);
        let slices = shown(&spec(Net::compact(3, 5, 2, 16, 16)), 10, 2);
        assert_eq!((&slices[0].image[..], &slices[0].segmented[..]), (&[1, 2, 3][..], &[2][..]));
    }

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
