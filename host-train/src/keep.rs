//! The files of a training's folder: checkpoints, state, the page for people. Each is replaced whole or left as it was.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use contract::manifest::Provenance;
use report::{History, ReportError};

use crate::{
    checkpoint,
    net::Network,
    run::{METRICS, Options, STATE},
    state,
    store::StoreError,
    trainer::{Settings, Trainer},
    validation::Validation,
};

/// Name of the page in the output folder.
pub const PAGE: &str = "report.html";

/// Why the page cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The disk says no.
    #[error("{}: {error}", path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The metrics cannot be shown.
    #[error("{}: {error}", path.display())]
    Report {
        /// The metrics.
        path: PathBuf,
        /// Why.
        error: ReportError,
    },
}

/// File of a network: `best.safetensors`, or `best-ct.safetensors` where each modality has its own.
pub fn checkpoint_name(kind: &str, network: &Network) -> String {
    match network.modalities() {
        [modality] => format!("{kind}-{modality}.safetensors"),
        _ => format!("{kind}.safetensors"),
    }
}

/// Writes checkpoints and state after a validation, and answers whether any network is better than ever before; a network
/// without held-out cases is at its best now.
pub fn validated(
    trainer: &Trainer,
    best: &mut [Option<f64>],
    validation: &Validation,
    options: &Options,
) -> Result<bool, StoreError> {
    let mut any = false;
    for (network, best) in trainer.networks().iter().zip(best.iter_mut()) {
        let score = validation.mean(network.modalities());
        let better = match (score, *best) {
            (Some(score), Some(best)) => score > best,
            _ => true,
        };
        if better {
            write("best", network, trainer, options)?;
            *best = score;
        }
        any |= better;
    }
    stopped(trainer, best, options)?;
    Ok(any)
}

/// Writes the last checkpoint and the state of a training that stops between two validations.
pub fn stopped(trainer: &Trainer, best: &[Option<f64>], options: &Options) -> Result<(), StoreError> {
    for network in trainer.networks() {
        write("last", network, trainer, options)?;
    }
    // Last: a state on disk means that the checkpoints of its step are there.
    state::save(&options.out.join(STATE), trainer, best)
}

fn write(kind: &str, network: &Network, trainer: &Trainer, options: &Options) -> Result<(), StoreError> {
    let provenance = Provenance { steps: trainer.steps_made(), ..options.provenance.clone() };
    let path: &Path = &options.out.join(checkpoint_name(kind, network));
    checkpoint::save(path, network, &trainer.settings().spec, &provenance)
}

/// Writes the page about the training so far, from its metrics.
pub fn page(out: &Path, trainer: &Trainer) -> Result<(), PageError> {
    let (metrics, path) = (out.join(METRICS), out.join(PAGE));
    let io_error = |path: &Path| {
        let path = path.to_path_buf();
        move |error| PageError::Io { path, error }
    };
    let report_error = |error| PageError::Report { path: metrics.clone(), error };
    let text = fs::read_to_string(&metrics).map_err(io_error(&metrics))?;
    let history = History::parse(&text).map_err(report_error)?;
    let settings = trainer.settings();
    let summary = summary(settings, trainer.steps_made());
    let html = report::training_page(&summary, &history, &settings.spec.labels).map_err(report_error)?;
    volume::atomic::write_bytes(&path, html.as_bytes()).map_err(io_error(&path))
}

fn summary(settings: &Settings, step: u64) -> Vec<String> {
    let Settings { topology, spec, steps, batch, rate, schedule, seed, objective, teachers, .. } = settings;
    let mut lines = vec![
        format!("{} {}, after step {step} of {steps}.", topology.name(), spec.net.name),
        format!("Batch {batch} per modality, learning rate {rate} ({schedule:?}), seed {seed}."),
    ];
    if topology.distils() {
        lines.push(format!(
            "Distillation between CT and MRI: {:?}, weight {}, temperature {}, absent classes {:?}, warm-up {} steps.",
            objective.kd_kind, objective.kd, objective.temperature, objective.absent, objective.kd_warmup
        ));
    }
    if !teachers.is_empty() {
        lines.push(format!("Distillation from {} teacher(s): weight {}.", teachers.len(), objective.teacher));
    }
    lines
}
