//! Watches the f32 network on real slices: what every value is, per modality.

use contract::{
    Modality,
    net::{Activation, Op},
};
use tract_onnx::pb::ModelProto;

use crate::{
    ExportError,
    branch::value_name,
    engine::{Runner, reals},
    fold::Folded,
    groups::activation,
    histogram::{Coding, Histogram},
};

pub use crate::histogram::{Method, Range};

/// One calibration image: codes `[slices, h, w]`, in 3D `[1, d, h, w]`, as the runtime would feed them.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The branch it is for.
    pub modality: Modality,
    /// Codes.
    pub codes: Vec<i8>,
    /// Classes `[h, w]` of the slice in the middle, in 3D `[d, h, w]`, on the model's grid, where the data set has labels.
    pub labels: Option<Vec<u8>>,
}

/// What was seen of every value.
pub struct Observed {
    /// `[modality of the spec][value]`, image first.
    histograms: Vec<Vec<Histogram>>,
    /// Of each value.
    codings: Vec<Coding>,
}

impl Observed {
    /// Ranges `[modality of the spec][value]`, image first.
    pub fn ranges(&self, method: Method) -> Vec<Vec<Range>> {
        let range = |(histogram, &coding): (&Histogram, &Coding)| histogram.range(method, coding);
        let row = |values: &Vec<Histogram>| values.iter().zip(&self.codings).map(range).collect();
        self.histograms.iter().map(row).collect()
    }
}

/// Counts every value of the f32 network over the samples.
pub fn observe(folded: &Folded, model: &ModelProto, samples: &[Sample]) -> Result<Observed, ExportError> {
    let values = folded.shapes.len();
    let mut histograms: Vec<Vec<Histogram>> =
        folded.spec.modalities.iter().map(|_| (0..values).map(|_| Histogram::default()).collect()).collect();
    for (row, &modality) in folded.spec.modalities.iter().enumerate() {
        each_sample(folded, model, modality, samples, |values| {
            histograms[row].iter_mut().zip(values).for_each(|(histogram, values)| histogram.add(values));
        })?;
    }
    Ok(Observed { histograms, codings: codings(folded) })
}

/// Runs a branch of the f32 network and shows every value, image first, of each of its samples.
pub fn each_sample(
    folded: &Folded,
    model: &ModelProto,
    modality: Modality,
    samples: &[Sample],
    mut see: impl FnMut(&[Vec<f32>]),
) -> Result<(), ExportError> {
    let spec = &folded.spec;
    let names: Vec<&str> = (1..folded.shapes.len()).map(|value| value_name(spec, value)).collect();
    let runner = Runner::new(model, modality, &names)?;
    let mut seen = false;
    for sample in samples.iter().filter(|sample| sample.modality == modality) {
        let mut values = vec![reals(&sample.codes, spec.intensity.scale)];
        values.append(&mut runner.run_f32(&values[0])?);
        if let Some(value) = values.iter().position(|values| values.iter().any(|value| !value.is_finite())) {
            return Err(ExportError::NotFinite { value: value_name(spec, value).to_string(), modality });
        }
        see(&values);
        seen = true;
    }
    if seen { Ok(()) } else { Err(ExportError::NoSlices { modality }) }
}

/// How the codes of each value will lie, image first. Values that only move have their first input's.
fn codings(folded: &Folded) -> Vec<Coding> {
    let mut codings = vec![Coding::SYMMETRIC];
    for layer in &folded.spec.net.layers {
        codings.push(match (activation(&layer.op), &layer.op) {
            (Some(Activation::Relu), _) => Coding::RECTIFIED,
            // The codes in front of a convolution's leak have the scale of those behind it.
            (Some(Activation::LeakyRelu(slope)), Op::Conv(_) | Op::Deconv(_)) => {
                Coding { steps: 127., below: slope.into() }
            }
            (Some(_), _) => Coding::SYMMETRIC,
            (None, _) => codings[layer.inputs[0]],
        });
    }
    codings
}
