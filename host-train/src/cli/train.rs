//! `gantry-train train`: from options and folders to a running training.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use contract::{Grid, Intensity, LabelMap, Modality, ModelSpec, Net, manifest::Provenance};
use host_train::{
    augment::Augment,
    data::{self, Case, Part},
    device,
    loss::Absent,
    run::{self, Data, Options, STATE},
    sampler::Sampler,
    schedule::Schedule,
    state,
    topology::Topology,
    trainer::{Amp, Objective, Settings, Trainer},
};

use tch::Device;

use super::{DeviceArgument, progress::Progress};

/// Options of `train`. Those under "Objective" default to the paper's values.
#[derive(Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    /// CT data set: a folder in nnU-Net's raw layout (imagesTr, labelsTr, dataset.json)
    #[arg(long, value_name = "DIR")]
    ct: PathBuf,
    /// MRI data set, of other patients or the same: nothing is paired
    #[arg(long, value_name = "DIR")]
    mr: PathBuf,
    /// Folder for best.safetensors, last.safetensors, metrics.jsonl and the state for --resume
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Go on with the training in --out, with the same settings, as if it had never stopped
    #[arg(long)]
    resume: bool,
    /// Training cases per modality that choose the best checkpoint instead of training (the last in order of name)
    #[arg(long, value_name = "N", default_value_t = 2)]
    val: usize,

    /// What CT and MRI share
    #[arg(long, value_enum, default_value = "ummkd", help_heading = "Network")]
    topology: TopologyArgument,
    /// Family of networks
    #[arg(long, value_enum, default_value = "compact", help_heading = "Network")]
    net: NetArgument,
    /// Channels of the first level of a compact network
    #[arg(long, value_name = "CHANNELS", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Network")]
    width: u16,
    /// Pixels that the network sees: N, or HEIGHTxWIDTH; multiples of 16
    #[arg(long, value_name = "PIXELS", default_value = "128", value_parser = parse_size, help_heading = "Network")]
    size: (usize, usize),
    /// Edge of a pixel that the network sees, mm; size times spacing is the field of view
    #[arg(long, value_name = "MM", default_value_t = 3., help_heading = "Network")]
    spacing: f32,
    /// Neighbouring slices that the network sees at once (odd); dilated2d has 3
    #[arg(long, value_name = "N", help_heading = "Network")]
    slices: Option<usize>,

    /// Optimiser steps; each sees a batch of CT and a batch of MRI
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..), help_heading = "Optimiser")]
    steps: u64,
    /// Slices of each modality in a step
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..), help_heading = "Optimiser")]
    batch: u16,
    /// Peak learning rate of Adam
    #[arg(long, value_name = "RATE", default_value_t = 2e-3, help_heading = "Optimiser")]
    lr: f64,
    /// Course of the learning rate
    #[arg(long, value_enum, default_value = "cosine", help_heading = "Optimiser")]
    schedule: ScheduleArgument,
    /// Seed of weights, sampling, augmentation and dropout
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Optimiser")]
    seed: u64,
    /// Train on the slices as they are, without random variations
    #[arg(long, help_heading = "Optimiser")]
    no_augment: bool,

    /// Weight of the Dice losses
    #[arg(long, value_name = "W", default_value_t = 1., help_heading = "Objective")]
    dice_weight: f64,
    /// Weight of the cross-entropies
    #[arg(long, value_name = "W", default_value_t = 1., help_heading = "Objective")]
    ce_weight: f64,
    /// Weight of the distillation (topology ummkd)
    #[arg(long, value_name = "W", default_value_t = 0.5, help_heading = "Objective")]
    kd_weight: f64,
    /// Temperature of the distillation
    #[arg(long, value_name = "T", default_value_t = 2., help_heading = "Objective")]
    temperature: f64,
    /// Classes that only one of the two batches holds
    #[arg(long, value_enum, default_value = "masked", help_heading = "Objective")]
    kd_absent: AbsentArgument,
    /// Weight of half the squared convolution kernels
    #[arg(long, value_name = "W", default_value_t = 1e-4, help_heading = "Objective")]
    l2: f64,

    /// Where to compute
    #[arg(long, value_enum, default_value = "auto", help_heading = "Machine")]
    device: DeviceArgument,
    /// Mixed precision (bf16 needs CUDA)
    #[arg(long, value_enum, default_value = "off", help_heading = "Machine")]
    amp: AmpArgument,
    /// Processor threads; default: libtorch's choice
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Machine")]
    threads: Option<u16>,
    /// Steps between two lines of metrics.jsonl
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..), help_heading = "Machine")]
    log_every: u64,
    /// Steps between two validations; checkpoints are written then
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..), help_heading = "Machine")]
    val_every: u64,
}

const EXAMPLE: &str = "\
Example:
  gantry-train phantom --out data
  gantry-train train --ct data/Dataset001_PhantomCT --mr data/Dataset002_PhantomMR --out run --steps 1000
Stopped by Ctrl-C? The same line with --resume goes on from the last validation.

Topologies, to compare on the same data and seed:
  individual   a network per modality (best-ct.safetensors, best-mr.safetensors)
  joint        one network, shared norms
  joint-msn    shared convolutions, norms per modality
  ummkd        the same with knowledge distillation between the two";

#[derive(Clone, Copy, ValueEnum)]
enum TopologyArgument {
    Individual,
    Joint,
    JointMsn,
    Ummkd,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NetArgument {
    /// Small U-shaped 2D network for devices
    Compact,
    /// The paper's dilated residual 2D network (39 million weights)
    Dilated2d,
}

#[derive(Clone, Copy, ValueEnum)]
enum ScheduleArgument {
    /// Short warm-up, then half a cosine
    Cosine,
    /// Times 0.95 every 1000 steps
    Paper,
    /// No change
    Constant,
}

#[derive(Clone, Copy, ValueEnum)]
enum AbsentArgument {
    /// Left out
    Masked,
    /// Pulled towards the uniform distribution, as in the paper's code
    Original,
}

#[derive(Clone, Copy, ValueEnum)]
enum AmpArgument {
    /// All in f32
    Off,
    /// Convolutions in bf16
    Bf16,
}

fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let (height, width) = text.split_once('x').unwrap_or((text, text));
    let side = |side: &str| match side.parse() {
        Ok(side) if (16..=contract::MAX_SIDE).contains(&side) && side % 16 == 0 => Ok(side),
        _ => Err(format!("'{side}': expected a multiple of 16 from 16 to {}", contract::MAX_SIDE)),
    };
    Ok((side(height)?, side(width)?))
}

/// Trains.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(threads) = arguments.threads {
        tch::set_num_threads(threads.into());
    }
    let device = arguments.device.choose()?;
    let amp = match arguments.amp {
        AmpArgument::Off => Amp::Off,
        AmpArgument::Bf16 => device::use_bf16(device).map(|()| Amp::Bf16)?,
    };
    let settings = arguments.settings()?;
    let state_path = arguments.out.join(STATE);
    match (arguments.resume, state_path.exists()) {
        (true, false) => bail!("{}: not found, expected the state of the training to resume", state_path.display()),
        (false, true) => {
            bail!("{}: --out holds a training already: add --resume, or choose another folder", state_path.display())
        }
        _ => {}
    }
    let data = arguments.data(&settings)?;
    let (mut trainer, mut best) = if arguments.resume {
        state::load(&state_path, settings, device, amp)?
    } else {
        (Trainer::new(settings, device, amp)?, vec![])
    };
    fs::create_dir_all(&arguments.out).with_context(|| format!("{}: cannot be made", arguments.out.display()))?;
    echo(&arguments.out, &trainer, &data, device)?;
    let options = arguments.options(trainer.settings().seed);
    let progress = Progress::new(trainer.settings().steps, trainer.steps_made());
    run::run(&mut trainer, &mut best, &data, &options, &mut |event| progress.show(&event))?;
    drop(progress);
    for network in trainer.networks() {
        println!("{}", arguments.out.join(run::checkpoint_name("best", network)).display());
    }
    Ok(())
}

impl Arguments {
    fn settings(&self) -> anyhow::Result<Settings> {
        let (height, width) = self.size;
        let labels = LabelMap::abdomen();
        let net = match self.net {
            NetArgument::Compact => {
                let slices = self.slices.unwrap_or(1);
                ensure!(slices % 2 == 1 && slices <= 15, "--slices {slices}: expected an odd number up to 15");
                Net::compact(slices, labels.classes(), self.width.into(), height, width)
            }
            NetArgument::Dilated2d => {
                ensure!(self.slices.is_none_or(|n| n == 3), "--slices {:?}: dilated2d sees 3", self.slices);
                Net::dilated2d(labels.classes(), height, width)
            }
        };
        ensure!(self.lr > 0. && self.lr.is_finite(), "--lr {}: expected a positive number", self.lr);
        ensure!(
            self.temperature > 0. && self.temperature.is_finite(),
            "--temperature {}: expected a positive number",
            self.temperature
        );
        for (name, weight) in [
            ("dice-weight", self.dice_weight),
            ("ce-weight", self.ce_weight),
            ("kd-weight", self.kd_weight),
            ("l2", self.l2),
        ] {
            ensure!(weight >= 0. && weight.is_finite(), "--{name} {weight}: expected 0 or more");
        }
        let grid = Grid { height, width, spacing_mm: self.spacing };
        let spec = ModelSpec { net, labels, grid, intensity: Intensity::default(), modalities: Modality::ALL.to_vec() };
        spec.check().context("the options do not make a model")?;
        Ok(Settings {
            topology: self.topology.into(),
            spec,
            steps: self.steps,
            batch: self.batch.into(),
            rate: self.lr,
            schedule: self.schedule.into(),
            seed: self.seed,
            objective: Objective {
                dice: self.dice_weight,
                ce: self.ce_weight,
                kd: self.kd_weight,
                l2: self.l2,
                temperature: self.temperature,
                absent: self.kd_absent.into(),
            },
            augment: if self.no_augment { Augment::none() } else { Augment::default() },
            held_out: self.val,
        })
    }

    fn data(&self, settings: &Settings) -> anyhow::Result<Data> {
        let [(ct, ct_held), (mr, mr_held)] =
            [self.split(Modality::Ct, &self.ct, settings)?, self.split(Modality::Mr, &self.mr, settings)?];
        let sampler = |cases| {
            let Settings { spec, batch, seed, augment, .. } = settings;
            Sampler::new(cases, spec, *batch, *seed, *augment).map(Arc::new)
        };
        Ok(Data { samplers: [sampler(ct)?, sampler(mr)?], validation: [ct_held, mr_held] })
    }
}

impl Arguments {
    /// Cases that train, and the last `--val` in order of name.
    fn split(&self, modality: Modality, folder: &Path, settings: &Settings) -> anyhow::Result<(Vec<Case>, Vec<Case>)> {
        let mut cases = data::load(folder, modality, Part::Train, &settings.spec)?;
        ensure!(
            cases.len() > self.val,
            "{}: {} training cases, expected more than the {} that --val holds out",
            folder.display(),
            cases.len(),
            self.val
        );
        cases.sort_by(|a, b| a.name.cmp(&b.name));
        let held_out = cases.split_off(cases.len() - self.val);
        Ok((cases, held_out))
    }

    fn options(&self, seed: u64) -> Options {
        let name = |folder: &Path| {
            folder.file_name().map_or_else(|| folder.display().to_string(), |name| name.to_string_lossy().into_owned())
        };
        // File names without folders: provenance travels with the model, the trainer's disk does not.
        let words = std::env::args().skip(1).map(|word| match Path::new(&word) {
            path if path.is_absolute() => name(path),
            _ => word,
        });
        Options {
            out: self.out.clone(),
            log_every: self.log_every,
            validate_every: self.val_every,
            provenance: Provenance {
                tool: format!("gantry-train {}", env!("CARGO_PKG_VERSION")),
                command: ["gantry-train".to_string()].into_iter().chain(words).collect::<Vec<_>>().join(" "),
                data: vec![name(&self.ct), name(&self.mr)],
                seed,
                steps: 0,
                topology: Topology::from(self.topology).name().to_string(),
            },
        }
    }
}

/// Says what was understood, on screen and in `settings.json`.
fn echo(out: &Path, trainer: &Trainer, data: &Data, device: Device) -> anyhow::Result<()> {
    let settings = trainer.settings();
    let counts = settings.spec.net.counts()?;
    let grid = settings.spec.grid;
    println!(
        "{} {}: {} shared weights, {} per modality's norms, {:.0} million multiply-accumulates a slice",
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
        settings.spec.slices()
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

impl From<TopologyArgument> for Topology {
    fn from(argument: TopologyArgument) -> Self {
        match argument {
            TopologyArgument::Individual => Self::Individual,
            TopologyArgument::Joint => Self::Joint,
            TopologyArgument::JointMsn => Self::JointMsn,
            TopologyArgument::Ummkd => Self::Ummkd,
        }
    }
}

impl From<ScheduleArgument> for Schedule {
    fn from(argument: ScheduleArgument) -> Self {
        match argument {
            ScheduleArgument::Cosine => Self::Cosine,
            ScheduleArgument::Paper => Self::Paper,
            ScheduleArgument::Constant => Self::Constant,
        }
    }
}

impl From<AbsentArgument> for Absent {
    fn from(argument: AbsentArgument) -> Self {
        match argument {
            AbsentArgument::Masked => Self::Masked,
            AbsentArgument::Original => Self::Original,
        }
    }
}
