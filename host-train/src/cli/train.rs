//! `gantry-train train`: from options and folders to a running training.

use std::{fs, path::Path, process::ExitCode, rc::Rc, sync::Arc, time::Instant};

use anyhow::{Context, bail, ensure};
use contract::{Modality, manifest::Provenance};
use host_train::{
    data::{self, Cache, Case, Part},
    device, keep,
    loader::{self, Loader},
    ranks::Ranks,
    run::{self, Data, End, Event, Options, STATE},
    sampler::Sampler,
    state,
    teacher::Teachers,
    trainer::{Settings, Trainer},
};
use tch::Device;

use super::{options::Arguments, progress::Progress, signals::Signals};

/// Trains; as one of several processes if a launcher started this one among others.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let ranks = Rc::new(Ranks::start()?);
    let end = train(arguments, &ranks);
    if let (Err(error), true) = (&end, ranks.count() > 1) {
        // The others would wait for this one for ever.
        eprintln!("error: rank {}: {error:#}", ranks.rank());
        ranks.abort(2);
    }
    end
}

fn train(arguments: &Arguments, ranks: &Rc<Ranks>) -> anyhow::Result<ExitCode> {
    if let Some(threads) = arguments.threads {
        tch::set_num_threads(threads.into());
    }
    let device = arguments.device.choose()?;
    let amp = arguments.amp;
    device::set_precision(device, amp)?;
    let mut settings = arguments.settings()?;
    let (teachers, digests) = Teachers::load(&arguments.teacher, &settings.spec, device)?;
    settings.teachers = digests;
    settings.groups = arguments.norm_groups.map_or(ranks.count(), usize::from);
    ranks.check(settings.batch, settings.groups)?;
    let state_path = arguments.out.join(STATE);
    match (arguments.resume, state_path.exists()) {
        (true, false) => bail!("{}: not found, expected the state of the training to resume", state_path.display()),
        (false, true) => {
            bail!("{}: --out holds a training already: add --resume, or choose another folder", state_path.display())
        }
        _ => {}
    }
    let data = read(arguments, &settings)?;
    if arguments.loader_only {
        time_loader(&data, &settings, workers(arguments));
        return Ok(ExitCode::SUCCESS);
    }
    let (trainer, mut best) = if arguments.resume {
        state::load(&state_path, settings, device, amp)?
    } else {
        (Trainer::new(settings, device, amp)?, vec![])
    };
    let mut trainer = trainer.taught_by(teachers).among(Rc::clone(ranks));
    fs::create_dir_all(&arguments.out).with_context(|| format!("{}: cannot be made", arguments.out.display()))?;
    let chief = ranks.rank() == 0;
    if chief {
        echo(&arguments.out, &trainer, &data, device)?;
    }
    let signals = Signals::listen().context("cannot listen for Ctrl-C")?;
    let options = Options { stop: Arc::clone(&signals.stop), ..options(arguments) };
    let progress = chief.then(|| Progress::new(trainer.settings().steps, trainer.steps_made()));
    let mut show = |event: Event<'_>| progress.iter().for_each(|progress| progress.show(&event));
    let end = run::run(&mut trainer, &mut best, &data, &options, &mut show)?;
    drop(progress);
    if let End::Stopped { step } = end {
        if chief {
            eprintln!("stopped after step {step}: the same line with --resume goes on from there");
        }
        return Ok(signals.status());
    }
    if !chief {
        return Ok(ExitCode::SUCCESS);
    }
    for network in trainer.networks() {
        println!("{}", arguments.out.join(run::checkpoint_name("best", network)).display());
    }
    println!("{}", arguments.out.join(keep::PAGE).display());
    Ok(ExitCode::SUCCESS)
}

/// Says what was understood, on screen and in `settings.json`.
fn echo(out: &Path, trainer: &Trainer, data: &Data, device: Device) -> anyhow::Result<()> {
    let settings = trainer.settings();
    let counts = settings.spec.net.counts()?;
    let grid = settings.spec.grid;
    println!(
        "{} {}: {} shared weights, {} per modality's norms, {:.0} million multiply-accumulates an image",
        settings.topology.name(),
        settings.spec.net.name,
        counts.shared,
        counts.norm_per_modality,
        counts.macs as f64 / 1e6
    );
    println!(
        "  sees {} x {} pixels of {} mm, {} slices",
        grid.height,
        grid.width,
        grid.spacing_mm,
        settings.spec.slices() * settings.spec.depth()
    );
    for (modality, (sampler, held_out)) in Modality::ALL.iter().zip(data.samplers.iter().zip(&data.validation)) {
        println!("  {modality}: trains on {} slices, {} cases held out", sampler.slices(), held_out.len());
    }
    println!(
        "  steps {} to {} of batch {}, lr {} ({:?}), seed {}, on {device:?}",
        trainer.steps_made() + 1,
        settings.steps,
        settings.batch,
        settings.rate,
        settings.schedule,
        settings.seed
    );
    let path = out.join("settings.json");
    volume::atomic::write_bytes(&path, &serde_json::to_vec_pretty(settings)?)
        .with_context(|| format!("{}", path.display()))
}

fn workers(arguments: &Arguments) -> usize {
    arguments.workers.map_or_else(loader::default_workers, usize::from)
}

/// Makes the batches of all steps as fast as they can be had.
fn time_loader(data: &Data, settings: &Settings, workers: usize) {
    let mut loader = Loader::new(&data.samplers, 0, workers);
    let start = Instant::now();
    (0..settings.steps).for_each(|_| drop(loader.next_pair()));
    let seconds = start.elapsed().as_secs_f64();
    let samples = 2 * settings.batch as u64 * settings.steps;
    println!(
        "loader: {:.0} samples/s ({samples} samples of both modalities in {seconds:.2} s, {workers} workers)",
        samples as f64 / seconds
    );
}

fn read(arguments: &Arguments, settings: &Settings) -> anyhow::Result<Data> {
    let split = |modality, folder| split(modality, folder, arguments, settings);
    let ((ct, ct_held), (mr, mr_held)) = (split(Modality::Ct, &arguments.ct)?, split(Modality::Mr, &arguments.mr)?);
    let sampler = |cases| {
        let Settings { spec, batch, seed, augment, .. } = settings;
        Sampler::new(cases, spec, *batch, *seed, *augment).map(Arc::new)
    };
    Ok(Data { samplers: [sampler(ct)?, sampler(mr)?], validation: [ct_held, mr_held] })
}

/// Cases that train, and the last ones in order of name, which are held out by patient.
fn split(
    modality: Modality,
    folder: &Path,
    arguments: &Arguments,
    settings: &Settings,
) -> anyhow::Result<(Vec<Case>, Vec<Case>)> {
    let mut bad = super::on_bad(arguments.skip_bad);
    let cache = match &arguments.cache {
        Some(path) => Some(Cache::new(path).with_context(|| format!("{}: cannot be made", path.display()))?),
        None => None,
    };
    let cases = data::load_cached(folder, modality, Part::Train, &settings.spec, &mut bad, cache.as_ref())?;
    super::tell_skipped(folder, &bad);
    let held_out = arguments.val.unwrap_or((cases.len() / 4).min(2));
    ensure!(
        cases.len() > held_out,
        "{}: {} training cases, expected more than the {held_out} that --val holds out",
        folder.display(),
        cases.len()
    );
    let (training, held_out) = data::hold_out(cases, held_out);
    ensure!(
        !training.is_empty(),
        "{}: the {} held-out cases are of the same patients as all others, expected a patient to train on: use a smaller \
         --val",
        folder.display(),
        held_out.len()
    );
    let Some(count) = arguments.cases else { return Ok((training, held_out)) };
    ensure!(
        training.len() >= count as usize,
        "--cases {count}: {} has {} training cases besides the {} held out, expected at most that many",
        folder.display(),
        training.len(),
        held_out.len()
    );
    Ok((data::draw(training, count as usize, arguments.seed), held_out))
}

fn options(arguments: &Arguments) -> Options {
    Options {
        out: arguments.out.clone(),
        log_every: arguments.log_every,
        validate_every: arguments.val_every,
        workers: workers(arguments),
        provenance: Provenance {
            tool: format!("gantry-train {}", env!("CARGO_PKG_VERSION")),
            command: command(std::env::args().skip(1)),
            data: vec![last_part(&arguments.ct), last_part(&arguments.mr)],
            seed: arguments.seed,
            steps: 0,
            topology: arguments.topology.name().to_string(),
        },
        stop: Arc::default(),
    }
}

/// The command line with folders cut to their last part: provenance travels with the model, the trainer's disk does not.
fn command(words: impl Iterator<Item = String>) -> String {
    let short = |word: String| match word.split_once('=') {
        Some((name, value)) if Path::new(value).is_absolute() => format!("{name}={}", last_part(Path::new(value))),
        _ if Path::new(&word).is_absolute() => last_part(Path::new(&word)),
        _ => word,
    };
    ["gantry-train".to_string()].into_iter().chain(words.map(short)).collect::<Vec<_>>().join(" ")
}

fn last_part(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provenance_names_no_folder_of_the_trainers_disk() {
        let words = ["train", "--ct", "/a/b/CT", "--mr=/a/MR", "--out", "runs/1", "--lr=0.1"].map(String::from);
        assert_eq!(command(words.into_iter()), "gantry-train train --ct CT --mr=MR --out runs/1 --lr=0.1");
    }
}
