//! What int8 does to label maps: Dice and agreement over the slices of a modality, on the model's grid.
//!
//! All slices of a modality are compared together, as the voxels of a volume are: an organ that is a few pixels of one
//! slice weighs no more than those pixels.

use contract::{Label, Modality, ModelSpec, manifest::Precision, names::LABELS};
use serde::{Deserialize, Serialize};
use tract_onnx::pb::ModelProto;
use volume::metrics::dice;

use crate::{
    ExportError,
    calibrate::Sample,
    engine::{Runner, reals},
};

/// One label map `[h, w]` (classes) per sample, in step with the samples.
pub type Maps = Vec<Vec<u8>>;

/// Runs a file, of either precision, on samples of any modality.
pub fn segment(
    spec: &ModelSpec,
    model: &ModelProto,
    precision: Precision,
    samples: &[Sample],
) -> Result<Maps, ExportError> {
    let mut maps: Maps = vec![vec![]; samples.len()];
    for &modality in &spec.modalities {
        let runner = Runner::new(model, modality, &[LABELS])?;
        for (map, sample) in maps.iter_mut().zip(samples).filter(|(_, sample)| sample.modality == modality) {
            *map = match precision {
                Precision::F32 => runner.run_labels(&reals(&sample.codes, spec.intensity.scale))?,
                Precision::Int8 => runner.run_labels(&sample.codes)?,
            };
        }
    }
    Ok(maps)
}

/// Dice per organ, in the label map's order, over pairs of label maps; `None` where an organ is in neither of any pair.
pub fn organs<'a>(spec: &ModelSpec, pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<Option<f64>> {
    let (a, b): (Vec<&[u8]>, Vec<&[u8]>) = pairs.unzip();
    let (a, b) = (a.concat(), b.concat());
    spec.labels.organs().map(|(class, _)| dice(&a, &b, class)).collect()
}

/// One modality.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Branch.
    pub modality: Modality,
    /// Slices that were compared.
    pub slices: usize,
    /// Those of them that have labels in the data set.
    pub labelled: usize,
    /// Share of pixels to which int8 gives the label that f32 gives.
    pub agreement: f64,
    /// One per organ.
    pub organs: Vec<Organ>,
}

/// Dice of one organ, absent where neither map has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Organ {
    /// Name.
    pub organ: String,
    /// int8 against f32, on all slices.
    pub int8_f32: Option<f64>,
    /// f32 against the data set's labels, on the slices that have them.
    pub f32_labels: Option<f64>,
    /// int8 against the data set's labels, on the slices that have them.
    pub int8_labels: Option<f64>,
}

/// Compares the label maps of both precisions with each other and with the data set's; one result per modality.
pub fn compare(spec: &ModelSpec, samples: &[Sample], float: &Maps, int8: &Maps) -> Vec<Accuracy> {
    let branch = |&modality: &Modality| {
        let own: Vec<usize> = (0..samples.len()).filter(|&index| samples[index].modality == modality).collect();
        let both = || own.iter().map(|&index| (&int8[index][..], &float[index][..]));
        let labels = || own.iter().filter_map(|&index| samples[index].labels.as_deref().map(|labels| (index, labels)));
        let columns = [
            organs(spec, both()),
            organs(spec, labels().map(|(index, labels)| (&float[index][..], labels))),
            organs(spec, labels().map(|(index, labels)| (&int8[index][..], labels))),
        ];
        let organ = |(index, (_, label)): (usize, (u8, &Label))| Organ {
            organ: label.name.clone(),
            int8_f32: columns[0][index],
            f32_labels: columns[1][index],
            int8_labels: columns[2][index],
        };
        let pixels = || both().flat_map(|(a, b)| a.iter().zip(b));
        let equal = pixels().filter(|(a, b)| a == b).count();
        Accuracy {
            modality,
            slices: own.len() * spec.depth(),
            labelled: labels().count() * spec.depth(),
            agreement: equal as f64 / pixels().count() as f64,
            organs: spec.labels.organs().enumerate().map(organ).collect(),
        }
    };
    spec.modalities.iter().map(branch).collect()
}
