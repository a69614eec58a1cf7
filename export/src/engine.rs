//! Runs exported graphs in tract, for calibration, for the report and for the golden digests.
//!
//! A branch is fixed by making the `modality` input a constant of the file before tract reads it: every
//! `Gather(table, modality)` then folds into a plain constant when the graph is optimised.

use std::sync::Arc;

use contract::{Modality, names::MODALITY};
use tract_onnx::{
    pb::{ModelProto, TensorProto, tensor_proto::DataType},
    prelude::*,
};

use crate::ExportError;

/// One branch of a model, ready to run.
pub struct Runner {
    plan: Arc<TypedRunnableModel>,
    dims: Vec<usize>,
}

impl Runner {
    /// Prepares a branch; the results are the named values, in this order.
    pub fn new(model: &ModelProto, modality: Modality, outputs: &[&str]) -> Result<Self, ExportError> {
        Self::prepare(model, modality, outputs).map_err(|error| ExportError::Engine(format!("{error:?}")))
    }

    fn prepare(model: &ModelProto, modality: Modality, outputs: &[&str]) -> TractResult<Self> {
        let mut graph = tract_onnx::onnx().model_for_proto_model(&fix_modality(model.clone(), modality))?;
        graph.select_outputs_by_name(outputs)?;
        let graph = graph.into_optimized()?;
        let shape = graph.input_fact(0)?.shape.as_concrete().map(<[usize]>::to_vec);
        let dims = shape.unwrap_or_default(); // Our files have fixed shapes; another would fail at the first run.
        Ok(Self { plan: graph.into_runnable()?, dims })
    }

    /// Runs an f32 graph on reals; results are f32.
    pub fn run_f32(&self, image: &[f32]) -> Result<Vec<Vec<f32>>, ExportError> {
        let values = |output: &TValue| Ok(output.to_plain_array_view::<f32>()?.iter().copied().collect());
        self.run(image, values)
    }

    /// Runs an int8 graph on codes; results are codes, and labels as they are.
    pub fn run_i8(&self, image: &[i8]) -> Result<Vec<Vec<i8>>, ExportError> {
        self.run(image, |output| match output.datum_type() {
            DatumType::I64 => Ok(labels(output)?.into_iter().map(|label| label as i8).collect()),
            _ => Ok(output.to_plain_array_view::<i8>()?.iter().copied().collect()),
        })
    }

    /// Runs a graph whose one output is the label map on reals or codes; the result is classes.
    pub fn run_labels<T: Datum + Copy>(&self, image: &[T]) -> Result<Vec<u8>, ExportError> {
        Ok(self.run(image, labels)?.concat())
    }

    fn run<T: Datum + Copy, R>(
        &self,
        image: &[T],
        read: impl Fn(&TValue) -> TractResult<R>,
    ) -> Result<Vec<R>, ExportError> {
        let run = || -> TractResult<Vec<R>> {
            let outputs = self.plan.run(tvec!(Tensor::from_shape(&self.dims, image)?.into()))?;
            outputs.iter().map(read).collect()
        };
        run().map_err(|error| ExportError::Engine(format!("{error:?}")))
    }
}

fn labels(output: &TValue) -> TractResult<Vec<u8>> {
    Ok(output.to_plain_array_view::<i64>()?.iter().map(|&label| label as u8).collect())
}

/// The reals that image codes stand for.
pub fn reals(codes: &[i8], scale: f32) -> Vec<f32> {
    codes.iter().map(|&code| scale * f32::from(code)).collect()
}

/// Turns the `modality` input, where there is one, into a constant.
pub fn fix_modality(mut model: ModelProto, modality: Modality) -> ModelProto {
    if let Some(graph) = model.graph.as_mut()
        && graph.input.iter().any(|input| input.name == MODALITY)
    {
        graph.input.retain(|input| input.name != MODALITY);
        graph.initializer.push(TensorProto {
            name: MODALITY.to_string(),
            data_type: DataType::Int64 as i32,
            raw_data: (modality.index() as i64).to_le_bytes().to_vec(),
            ..TensorProto::default()
        });
    }
    model
}
