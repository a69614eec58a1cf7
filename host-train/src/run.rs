//! The training loop: batches, steps, validations, files.
//!
//! `metrics.jsonl` grows line by line; `best.safetensors`, `last.safetensors`, `state.safetensors` and `report.html` are
//! replaced whole at every validation, so a training can be killed at any moment and loses at most the steps since the last
//! one. Asked to stop, it loses none.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use contract::{Modality, manifest::Provenance};

use crate::{
    data::Case,
    diagnosis::probe,
    keep::{self, PageError},
    loader::Loader,
    metrics::Metrics,
    objective::Terms,
    pace::{Clock, Speed},
    sampler::{Batch, Sampler},
    store::StoreError,
    trainer::Trainer,
    validation::{OrganDice, Validation, validate},
};

pub use crate::keep::checkpoint_name;

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
    /// Threads that make batches.
    pub workers: usize,
    /// Set from outside, it ends the training after the step that is being made.
    pub stop: Arc<AtomicBool>,
}

/// How a training ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All steps are made.
    Finished,
    /// It was asked to stop; the state is that after this many steps.
    Stopped {
        /// Steps made.
        step: u64,
    },
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
    /// How fast the steps since the last of these were.
    Speed(Speed),
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
    /// A checkpoint or the state cannot be written.
    #[error("{error}: {}; when there is room, the same line with --resume goes on", kept(*step, "whole"))]
    Keep {
        /// Why.
        error: StoreError,
        /// Of the last state that was written.
        step: Option<u64>,
    },
    /// Metrics.
    #[error("{}: {error}", path.display())]
    Metrics {
        /// File.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The page for people.
    #[error(transparent)]
    Page(#[from] PageError),
    /// The losses left the numbers.
    #[error(
        "step {step}: the loss or its gradient is not finite (noticed at step {noticed}: {terms:?}); the batch held {batch}; {}; \
         try a lower --lr than {rate}",
        kept(*kept_step, "kept")
    )]
    Diverged {
        /// From 1.
        step: u64,
        /// The step whose losses were read.
        noticed: u64,
        /// Those losses.
        terms: Box<Terms>,
        /// Learning rate of the step.
        rate: f64,
        /// Cases and slices that the step saw.
        batch: String,
        /// Of the last state that was written.
        kept_step: Option<u64>,
    },
}

fn kept(step: Option<u64>, how: &str) -> String {
    step.map_or("no checkpoint was written yet".into(), |step| format!("the checkpoints of step {step} are {how}"))
}

/// Trains to the end, or until it is asked to stop; `best` holds each network's best score so far.
pub fn run(
    trainer: &mut Trainer,
    best: &mut Vec<Option<f64>>,
    data: &Data,
    options: &Options,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<End, RunError> {
    let path = options.out.join(METRICS);
    let metrics_error = |error| RunError::Metrics { path: path.clone(), error };
    // One process writes; all others only make their part of the steps.
    let chief = trainer.ranks().rank() == 0;
    let mut metrics =
        if chief { Some(Metrics::open(&path, trainer.steps_made()).map_err(metrics_error)?) } else { None };
    let mut loader = Loader::new(&data.samplers, trainer.steps_made(), options.workers);
    let mut clock = Clock::default();
    best.resize(trainer.networks().len(), None);
    let (steps, labels) = (trainer.settings().steps, trainer.settings().spec.labels.clone());
    let probes: [Batch; 2] = data.samplers.each_ref().map(|sampler| probe(sampler, &labels));
    let mut kept = (trainer.steps_made() > 0).then(|| trainer.steps_made());
    if let (None, Some(metrics)) = (kept, &mut metrics) {
        metrics.diagnosis(0, &trainer.diagnose(probes.each_ref()), &labels).map_err(metrics_error)?;
    }
    while trainer.steps_made() < steps {
        if trainer.ranks().any(options.stop.load(Ordering::Relaxed)) {
            let step = trainer.steps_made();
            if !chief {
                return Ok(End::Stopped { step });
            }
            keep::stopped(trainer, best, options).map_err(|error| RunError::Keep { error, step: kept })?;
            keep::page(&options.out, trainer)?;
            return Ok(End::Stopped { step });
        }
        let rate = trainer.rate();
        let step = trainer.steps_made() + 1;
        let validates = step == steps || step.is_multiple_of(options.validate_every);
        // A validation writes checkpoints: none is written whose losses nobody has read.
        let log = step == 1 || validates || step.is_multiple_of(options.log_every);
        let batches = loader.next_pair();
        let begin = Instant::now();
        let terms = trainer.step(batches.each_ref(), log);
        clock.step(begin.elapsed());
        if let Some(terms) = terms {
            sound(trainer, data, &terms, kept)?;
            let speed = clock.speed(loader.pace(), trainer.settings().batch, options.workers);
            if let Some(metrics) = &mut metrics {
                metrics.step(step, &terms, rate, &speed).map_err(metrics_error)?;
            }
            observe(Event::Speed(speed));
        }
        observe(Event::Step { step, terms });
        if let (true, Some(metrics)) = (validates, &mut metrics) {
            let validation = validate_all(trainer, data);
            metrics.validation(step, &validation).map_err(metrics_error)?;
            metrics.diagnosis(step, &trainer.diagnose(probes.each_ref()), &labels).map_err(metrics_error)?;
            let better = keep::validated(trainer, best, &validation, options)
                .map_err(|error| RunError::Keep { error, step: kept })?;
            kept = Some(step);
            keep::page(&options.out, trainer)?;
            observe(Event::Validation { step, validation: &validation, better });
        }
    }
    Ok(End::Finished)
}

/// Refuses losses that are no numbers, and names the batch that did it, which may have been some steps ago.
fn sound(trainer: &Trainer, data: &Data, terms: &Terms, kept_step: Option<u64>) -> Result<(), RunError> {
    let noticed = trainer.steps_made();
    let bad = trainer.first_bad().or_else(|| (!terms.is_finite()).then_some(noticed));
    let Some(step) = bad else { return Ok(()) };
    let batch = Modality::ALL.map(|modality| {
        format!("{} {}", modality.name().to_uppercase(), data.samplers[modality.index()].contents(step - 1))
    });
    let settings = trainer.settings();
    let rate = settings.schedule.rate(settings.rate, step - 1, settings.steps);
    Err(RunError::Diverged { step, noticed, terms: Box::new(*terms), rate, batch: batch.join("; "), kept_step })
}

fn validate_all(trainer: &Trainer, data: &Data) -> Validation {
    let scores = |(&modality, cases): (&Modality, &Vec<Case>)| -> Option<OrganDice> {
        let network = trainer.network(modality);
        (!cases.is_empty()).then(|| validate(network, &trainer.settings().spec, modality, cases))
    };
    Validation(Modality::ALL.iter().zip(&data.validation).filter_map(scores).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        augment::Augment,
        checkpoint::load,
        data::tests::case_of,
        net::Norms,
        state,
        test_support::settings,
        topology::Topology,
        trainer::{Amp, Settings},
    };
    use contract::Net;
    use std::{fs, path::Path};
    use tch::Device;

    /// Four slices with a square each, whose place and brightness tell its class.
    fn case(modality: Modality, settings: &Settings, seed: usize) -> Case {
        let class = |i: usize| {
            let (z, row, column) = (i / 4096, i / 64 % 64, i % 64);
            let inside = (20..44).contains(&(row + seed % 3)) && (20..44).contains(&(column + seed % 5));
            if inside { 1 + (z % 4) as u8 } else { 0 }
        };
        let labels: Vec<u8> = (0..4 * 4096).map(class).collect();
        let raw = labels.iter().enumerate().map(|(i, &class)| i16::from(class) * 60 - 150 + (i * seed % 7) as i16);
        case_of(modality, [64, 64, 4], raw.collect(), labels.clone(), &settings.spec)
    }

    fn data(settings: &Settings, held_out: usize) -> Data {
        let cases = |modality, first: usize, n| (first..first + n).map(|seed| case(modality, settings, seed)).collect();
        let sampler = |modality| {
            let Settings { spec, batch, seed, .. } = settings;
            Arc::new(Sampler::new(cases(modality, 1, 2), spec, *batch, *seed, Augment::default()).unwrap())
        };
        Data {
            samplers: Modality::ALL.map(sampler),
            validation: Modality::ALL.map(|modality| cases(modality, 7, held_out)),
        }
    }

    fn options(out: &Path) -> Options {
        let out = out.to_path_buf();
        fs::create_dir_all(&out).unwrap();
        Options {
            out,
            log_every: 2,
            validate_every: 4,
            provenance: Provenance::default(),
            workers: 2,
            stop: Arc::default(),
        }
    }

    /// Steps of the metrics file, by kind.
    fn steps(out: &Path, kind: &str) -> Vec<u64> {
        let text = fs::read_to_string(out.join(METRICS)).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.filter(|line| line["kind"] == kind).map(|line| line["step"].as_u64().unwrap()).collect()
    }

    /// The files of a training that was cut off after step 4 and resumed are those of one that was not.
    #[test]
    fn a_resumed_run_leaves_the_files_of_an_uninterrupted_one() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
        let volumes = |mut settings: Settings| {
            settings.spec.net = Net::compact3d(5, 2, 8, 32, 32);
            settings
        };
        let apart = Settings { norms: Some(Norms::Shared), ..settings(Topology::XShape) };
        let all =
            [settings(Topology::Ummkd), settings(Topology::Individual), apart, volumes(settings(Topology::Ummkd))];
        for settings in all {
            let settings = Settings { steps: 10, ..settings };
            let name = format!("{:?} {}", settings.topology, settings.spec.net.name);
            let data = data(&settings, 1);
            let mut trainer = Trainer::new(settings.clone(), Device::Cpu, Amp::Off).unwrap();
            fs::create_dir_all(&cut).unwrap();
            let mut keep = |event: Event<'_>| {
                if let Event::Validation { step: 4, .. } = event {
                    for file in fs::read_dir(&whole).unwrap().map(Result::unwrap) {
                        fs::copy(file.path(), cut.join(file.file_name())).unwrap();
                    }
                }
            };
            run(&mut trainer, &mut vec![], &data, &options(&whole), &mut keep).unwrap();
            let (mut resumed, mut best) = state::load(&cut.join(STATE), settings, Device::Cpu, Amp::Off).unwrap();
            assert_eq!((resumed.steps_made(), best.len()), (4, resumed.networks().len()));
            run(&mut resumed, &mut best, &data, &options(&cut), &mut |_| {}).unwrap();
            let mut compared = 0;
            for file in fs::read_dir(&whole).unwrap().map(Result::unwrap) {
                if file.path().extension().is_some_and(|ending| ending == "safetensors") {
                    let [a, b] = [&whole, &cut].map(|folder| fs::read(folder.join(file.file_name())).unwrap());
                    assert!(a == b, "{name}: {:?}", file.file_name());
                    compared += 1;
                }
            }
            assert_eq!(compared, 2 * trainer.networks().len() + 1);
            assert_eq!(steps(&cut, "step"), [1, 2, 4, 6, 8, 10]);
            assert_eq!(steps(&cut, "validation"), [4, 8, 10]);
            fs::remove_dir_all(&whole).unwrap();
            fs::remove_dir_all(&cut).unwrap();
        }
    }

    /// `best` is the checkpoint of the step that scored best, not of the last one.
    #[test]
    fn the_best_checkpoint_is_that_of_the_best_validation() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { steps: 24, rate: 0.2, ..settings(Topology::JointMsn) };
        let data = data(&settings, 1);
        let mut trainer = Trainer::new(settings, Device::Cpu, Amp::Off).unwrap();
        let (mut scores, mut best) = (vec![], vec![]);
        let mut observe = |event: Event<'_>| {
            if let Event::Validation { step, validation, .. } = event {
                scores.push((validation.mean(&Modality::ALL).unwrap(), step));
            }
        };
        run(&mut trainer, &mut best, &data, &options(folder.path()), &mut observe).unwrap();
        let top = scores.iter().fold((f64::MIN, 0), |top, &score| if score.0 > top.0 { score } else { top });
        let (network, meta) = load(&folder.path().join("best.safetensors"), Device::Cpu).unwrap();
        assert_eq!((meta.provenance.steps, best), (top.1, vec![Some(top.0)]));
        let again = Modality::ALL.map(|modality| {
            validate(&network, &meta.spec, modality, &data.validation[modality.index()]).mean().unwrap()
        });
        assert_eq!((again[0] + again[1]) / 2., top.0);
        let (_, last) = load(&folder.path().join("last.safetensors"), Device::Cpu).unwrap();
        assert_eq!(last.provenance.steps, 24);
    }

    #[test]
    fn without_held_out_cases_the_best_is_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { steps: 6, ..settings(Topology::Joint) };
        let data = data(&settings, 0);
        let mut trainer = Trainer::new(settings, Device::Cpu, Amp::Off).unwrap();
        run(&mut trainer, &mut vec![], &data, &options(folder.path()), &mut |_| {}).unwrap();
        let [best, last] =
            ["best", "last"].map(|kind| fs::read(folder.path().join(format!("{kind}.safetensors"))).unwrap());
        assert!(best == last);
    }

    #[test]
    fn a_training_that_diverges_says_at_which_step() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { steps: 6, ..settings(Topology::Ummkd) };
        let data = data(&settings, 0);
        let mut trainer = Trainer::new(settings, Device::Cpu, Amp::Off).unwrap();
        let mut weight = trainer.networks()[0].variables()[0].tensor.shallow_clone();
        let _ = tch::no_grad(|| weight.fill_(f64::NAN));
        let error = run(&mut trainer, &mut vec![], &data, &options(folder.path()), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("step 1: the loss or its gradient is not finite"), "{error}");
        assert!(error.to_string().contains("; no checkpoint was written yet"), "{error}");
        assert!(!folder.path().join("last.safetensors").exists());
    }
}
