//! tract's plan: one per branch, with `modality` fixed to a constant so that every table lookup folds away at load.
//!
//! Only the logits are asked for: the runtime takes the maximum itself, into bytes, which saves the file's int64 `ArgMax`.
//! tract may panic on a graph that it did not foresee, so each call into it is guarded: a panic becomes an error.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use contract::{Modality, names, quant};
use tract_onnx::{
    prelude::{
        Framework, InferenceFact, InferenceModel, InferenceModelExt, IntoRunnable, TValue, Tensor, TractResult,
        TypedModel, TypedRunnableModel, TypedSimpleState, tensor0, tvec,
    },
    tract_core::{self, ops::konst::Const},
    tract_hir::internal::InferenceOp,
};

use super::{Constants, LayerRun, Logits, argmax, expect, int8};
use crate::{EdgeError, Model, model::dims};

/// Plans and their states. All that tract lets us keep between runs is kept.
#[derive(Debug)]
pub struct TractEngine {
    branches: Vec<Branch>,
    image: Vec<usize>,
    /// Real of one code step, for f32 models.
    scale: Option<f32>,
    /// Logits of the last run, where tract put them.
    last: Option<TValue>,
    layers: Vec<LayerRun>,
    constants: Constants,
}

#[derive(Debug)]
struct Branch {
    modality: Modality,
    plan: Arc<TypedRunnableModel>,
    state: TypedSimpleState,
}

impl TractEngine {
    pub(super) fn new(model: &Model) -> Result<Self, EdgeError> {
        let spec = model.spec();
        let classes = spec.labels.classes();
        let parsed = guarded(|| tract_onnx::onnx().model_for_proto_model(&model.proto));
        let mut plans: Vec<(Modality, TypedModel)> = Vec::with_capacity(spec.modalities.len());
        for &modality in &spec.modalities {
            let refuse = |reason| EdgeError::Plan { path: model.path.clone(), modality, reason };
            let parsed = parsed.as_ref().map_err(|reason| refuse(reason.clone()))?.clone();
            let mut plan = guarded(|| optimised(parsed, modality)).map_err(refuse)?;
            check_output(&model.path, &plan, &dims(spec, classes))?;
            if let Some((_, first)) = plans.first() {
                share_constants(first, &mut plan);
            }
            plans.push((modality, plan));
        }
        let constants = count(&plans);
        let layers = plans.first().map(|(_, plan)| int8::layers(&spec.net, plan)).unwrap_or_default();
        let branches = plans.into_iter().map(|(modality, plan)| {
            let refuse = |reason| EdgeError::Plan { path: model.path.clone(), modality, reason };
            guarded(|| Branch::new(modality, plan)).map_err(refuse)
        });
        Ok(Self {
            branches: branches.collect::<Result<_, _>>()?,
            image: dims(spec, spec.slices()),
            scale: (!model.is_int8()).then_some(spec.intensity.scale),
            last: None,
            layers,
            constants,
        })
    }

    pub(super) fn run(&mut self, codes: &[i8], modality: Modality, labels: &mut [u8]) -> Result<(), EdgeError> {
        expect("the image", codes.len(), self.image_len())?;
        expect("the label map", labels.len(), self.labels_len())?;
        self.last = None;
        let available = || self.branches.iter().map(|branch| branch.modality).collect();
        let Some(index) = self.branches.iter().position(|branch| branch.modality == modality) else {
            return Err(EdgeError::Modality { wanted: modality, available: available() });
        };
        let (branch, image, scale) = (&mut self.branches[index], &self.image, self.scale);
        let outputs = guarded(|| {
            let input = match scale {
                None => Tensor::from_shape(image, codes)?,
                Some(scale) => reals(image, codes, scale)?,
            };
            branch.state.run(tvec!(input.into()))
        });
        match outputs {
            Ok(mut outputs) => self.last = outputs.pop(),
            Err(reason) => {
                // A failed run may leave half of its values behind.
                branch.state = branch.plan.spawn().map_err(|error| failed(modality, format!("{error:#}")))?;
                return Err(failed(modality, reason));
            }
        }
        match self.logits() {
            Some(Logits::Codes(logits)) => argmax(logits, labels),
            Some(Logits::Reals(logits)) => argmax(logits, labels),
            None => return Err(failed(modality, "the logits are neither int8 nor f32".to_string())),
        }
        Ok(())
    }

    pub(super) fn logits(&self) -> Option<Logits<'_>> {
        let view = self.last.as_ref()?.as_plain_ram()?;
        match self.scale {
            None => view.as_slice().ok().map(Logits::Codes),
            Some(_) => view.as_slice().ok().map(Logits::Reals),
        }
    }

    pub(super) fn image_len(&self) -> usize {
        self.image.iter().product()
    }

    pub(super) fn labels_len(&self) -> usize {
        // Batch and channels are the first two axes.
        self.image.iter().skip(2).product()
    }

    pub(super) fn layers(&self) -> &[LayerRun] {
        &self.layers
    }

    pub(super) const fn constants(&self) -> Constants {
        self.constants
    }
}

impl Branch {
    fn new(modality: Modality, plan: TypedModel) -> TractResult<Self> {
        let plan = plan.into_runnable()?;
        Ok(Self { modality, state: plan.spawn()?, plan })
    }
}

/// Runs tract code; an error or a panic becomes words.
fn guarded<T>(work: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            Err(format!("panic: {}", words.or_else(|| panic.downcast_ref().copied()).unwrap_or("no message")))
        }
    }
}

/// Fixes the modality, where the graph asks for one, and lets tract fold and pack.
fn optimised(mut graph: InferenceModel, modality: Modality) -> TractResult<TypedModel> {
    let inputs = std::mem::take(&mut graph.inputs);
    for outlet in inputs {
        if graph.node(outlet.node).name != names::MODALITY {
            graph.inputs.push(outlet);
            continue;
        }
        let value = Arc::new(tensor0(modality.index() as i64));
        graph.set_outlet_fact(outlet, InferenceFact::from((*value).clone()))?;
        let op: Box<dyn InferenceOp> = Const::new(value)?.into();
        graph.node_mut(outlet.node).op = op;
    }
    graph.into_optimized()
}

fn check_output(path: &Path, plan: &TypedModel, expected: &[usize]) -> Result<(), EdgeError> {
    let fact = guarded(|| plan.output_fact(0).cloned());
    let found = fact.map(|fact| (fact.shape.as_concrete().map(<[usize]>::to_vec), format!("{fact:?}")));
    match found {
        Ok((Some(shape), _)) if shape == expected => Ok(()),
        Ok((_, found)) | Err(found) => Err(EdgeError::ModelGraph {
            path: path.to_path_buf(),
            what: format!("output '{}'", names::LOGITS),
            found,
            expected: format!("{expected:?}"),
        }),
    }
}

/// Lets `plan` use the constants of `first` where both hold the same values: the weights, packed.
fn share_constants(first: &TypedModel, plan: &mut TypedModel) {
    for node in &mut plan.nodes {
        let Some(konst) = node.op_as::<Const>() else { continue };
        let same = |other: &&tract_core::model::TypedNode| {
            other.name == node.name && other.op_as::<Const>().is_some_and(|other| other.val() == konst.val())
        };
        if let Some(other) = first.nodes.iter().find(same) {
            node.op = other.op.clone();
            node.outputs = node
                .outputs
                .iter()
                .zip(&other.outputs)
                .map(|(mine, theirs)| {
                    let mut outlet = mine.clone();
                    outlet.fact = theirs.fact.clone();
                    outlet
                })
                .collect();
        }
    }
}

/// Counts each constant once, by its address.
fn count(plans: &[(Modality, TypedModel)]) -> Constants {
    let values = |plan: &TypedModel| -> Vec<Arc<Tensor>> {
        plan.nodes.iter().filter_map(|node| node.op_as::<Const>()).map(|konst| konst.val().clone()).collect()
    };
    let mut seen: Vec<Arc<Tensor>> = vec![];
    let mut constants = Constants::default();
    for value in plans.iter().flat_map(|(_, plan)| values(plan)) {
        let bytes = int8::bytes(&value);
        if seen.iter().any(|other| Arc::ptr_eq(other, &value)) {
            constants.shared_bytes += bytes;
        } else {
            constants.total_bytes += bytes;
            seen.push(value);
        }
    }
    constants
}

fn reals(shape: &[usize], codes: &[i8], scale: f32) -> TractResult<Tensor> {
    let mut tensor = Tensor::zero::<f32>(shape)?;
    let mut view = tensor.try_as_plain_ram_mut()?;
    for (real, &code) in view.as_slice_mut::<f32>()?.iter_mut().zip(codes) {
        *real = quant::dequantise(code, scale, 0);
    }
    Ok(tensor)
}

fn failed(modality: Modality, reason: String) -> EdgeError {
    EdgeError::Run { modality, reason }
}
