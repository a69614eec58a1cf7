//! The training loop: batches, steps, validations, files.
//!
//! `metrics.jsonl` grows line by line; `best.safetensors`, `last.safetensors` and `state.safetensors` are replaced whole at
//! every validation, so a training can be stopped at any moment and loses at most the steps since the last one.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use contract::{Modality, manifest::Provenance};

use crate::{
    checkpoint,
    data::Case,
    metrics::Metrics,
    net::Network,
    sampler::{Prefetch, Sampler},
    state,
    store::StoreError,
    trainer::{Terms, Trainer},
    validation::{OrganDice, Validation, validate},
};

/// Name of the state in the output folder.
pub const STATE: &str = "state.safetensors";
/// Name of the metrics in the output folder.
pub const METRICS: &str = "metrics.jsonl";

/// What a training reads, in the order of [`Modality::ALL`].
pub struct Data {
    /// Training slices.
    pub samplers: [Arc<Sampler>; 2],
    /// Held-out cases; may be empty.
    pub validation: [Vec<Case>; 2],
}

/// What changes nothing about the outcome.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of all files; it exists.
    pub out: PathBuf,
    /// Steps between two lines of metrics.
    pub log_every: u64,
    /// Steps between two validations.
    pub validate_every: u64,
    /// For checkpoints; the steps are filled in.
    pub provenance: Provenance,
}

/// What happened, for people who watch.
pub enum Event<'a> {
    /// A step was made; `terms` where they were read.
    Step {
        /// From 1.
        step: u64,
        /// The losses, at every logged step.
        terms: Option<Terms>,
    },
    /// Held-out cases were scored and files written.
    Validation {
        /// Steps made.
        step: u64,
        /// Dice.
        validation: &'a Validation,
        /// Whether any network is better than ever before.
        better: bool,
    },
}

/// Why a training stops early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Files of tensors.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Metrics.
    #[error("{}: {error}", path.display())]
    Metrics {
        /// File.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The losses left the numbers.
    #[error("step {step}: the loss is not finite ({terms:?}): try a lower --lr than {rate}")]
    Diverged {
        /// From 1.
        step: u64,
        /// The losses.
        terms: Terms,
        /// Learning rate of the step.
        rate: f64,
    },
}

/// File of a network: `best.safetensors`, or `best-ct.safetensors` where each modality has its own.
pub fn checkpoint_name(kind: &str, network: &Network) -> String {
    match network.modalities() {
        [modality] => format!("{kind}-{modality}.safetensors"),
        _ => format!("{kind}.safetensors"),
    }
}

/// Trains to the end; `best` holds each network's best score so far.
pub fn run(
    trainer: &mut Trainer,
    best: &mut Vec<Option<f64>>,
    data: &Data,
    options: &Options,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<(), RunError> {
    let path = options.out.join(METRICS);
    let metrics_error = |error| RunError::Metrics { path: path.clone(), error };
    let mut metrics = Metrics::open(&path, trainer.steps_made()).map_err(metrics_error)?;
    let ahead = data.samplers.each_ref().map(|sampler| Prefetch::new(Arc::clone(sampler), trainer.steps_made()));
    best.resize(trainer.networks().len(), None);
    let steps = trainer.settings().steps;
    while trainer.steps_made() < steps {
        let rate = trainer.rate();
        let step = trainer.steps_made() + 1;
        let log = step == 1 || step == steps || step.is_multiple_of(options.log_every);
        let batches = ahead.each_ref().map(Prefetch::next_batch);
        let terms = trainer.step(batches.each_ref(), log);
        if let Some(terms) = terms {
            if !terms.is_finite() {
                return Err(RunError::Diverged { step, terms, rate });
            }
            metrics.step(step, &terms, rate).map_err(metrics_error)?;
        }
        observe(Event::Step { step, terms });
        if step == steps || step.is_multiple_of(options.validate_every) {
            let validation = validate_all(trainer, data);
            metrics.validation(step, &validation).map_err(metrics_error)?;
            let better = save(trainer, best, &validation, options)?;
            observe(Event::Validation { step, validation: &validation, better });
        }
    }
    Ok(())
}

fn validate_all(trainer: &Trainer, data: &Data) -> Validation {
    let scores = |(&modality, cases): (&Modality, &Vec<Case>)| -> Option<OrganDice> {
        let network = trainer.network(modality);
        (!cases.is_empty()).then(|| validate(network, &trainer.settings().spec, modality, cases))
    };
    Validation(Modality::ALL.iter().zip(&data.validation).filter_map(scores).collect())
}

/// Writes all files; a network without held-out cases is at its best now.
fn save(
    trainer: &Trainer,
    best: &mut [Option<f64>],
    validation: &Validation,
    options: &Options,
) -> Result<bool, RunError> {
    let provenance = Provenance { steps: trainer.steps_made(), ..options.provenance.clone() };
    let write = |kind: &str, network: &Network| {
        let path: &Path = &options.out.join(checkpoint_name(kind, network));
        checkpoint::save(path, network, &trainer.settings().spec, &provenance)
    };
    let mut any = false;
    for (network, best) in trainer.networks().iter().zip(best.iter_mut()) {
        let score = validation.mean(network.modalities());
        let better = match (score, *best) {
            (Some(score), Some(best)) => score > best,
            _ => true,
        };
        if better {
            write("best", network)?;
            *best = score;
        }
        write("last", network)?;
        any |= better;
    }
    // Last: a state on disk means that the checkpoints of its step are there.
    state::save(&options.out.join(STATE), trainer, best)?;
    Ok(any)
}
