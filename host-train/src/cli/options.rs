//! Options of `gantry-train train`, and what they mean: [`Settings`].

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use contract::{Grid, Intensity, LabelMap, Modality, ModelSpec, Net, net::Shape};
use host_train::{
    augment::Augment,
    loss::{Absent, Kd},
    objective::Objective,
    quirk::Quirk,
    schedule::Schedule,
    topology::Topology,
    trainer::{Amp, Settings},
};

use super::{DeviceArgument, form::FormArguments};

/// Options of `train`. Those under "Objective" default to the paper's values.
#[derive(Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    /// CT data set: a folder in nnU-Net's raw layout (imagesTr, labelsTr, dataset.json)
    #[arg(long, value_name = "DIR")]
    pub ct: PathBuf,
    /// MRI data set, of other patients or the same: nothing is paired
    #[arg(long, value_name = "DIR")]
    pub mr: PathBuf,
    /// Folder for best.safetensors, last.safetensors, metrics.jsonl, report.html and the state for --resume
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Go on with the training in --out, with the same settings, as if it had never stopped
    #[arg(long)]
    pub resume: bool,
    /// Training cases per modality that choose the best checkpoint instead of training, the last in order of name;
    /// default: 2, but at most a quarter of the cases
    #[arg(long, value_name = "N")]
    pub val: Option<usize>,
    /// Train on only N cases per modality of those that are not held out, drawn by --seed; a smaller N draws some of the
    /// same cases
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub cases: Option<u32>,
    /// Leave out cases that cannot be used (corrupt, without labels, labels outside the map), and name them; without
    /// this the first one stops the training
    #[arg(long)]
    pub skip_bad: bool,

    /// What is segmented: the data sets have to name its organs
    #[arg(long, value_enum, default_value = "abdomen", help_heading = "Network")]
    task: TaskArgument,
    /// What CT and MRI share
    #[arg(long, value_enum, default_value = "ummkd", help_heading = "Network")]
    pub topology: Topology,
    /// Family of networks
    #[arg(long, value_enum, default_value = "compact", help_heading = "Network")]
    net: NetArgument,
    /// Channels of the first level; the paper's networks have 16
    #[arg(long, value_name = "CHANNELS", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Network")]
    width: u16,
    /// Pixels that the network sees: N, or HEIGHTxWIDTH; multiples of 16
    #[arg(long, value_name = "PIXELS", default_value = "128", value_parser = parse_size, help_heading = "Network")]
    size: (usize, usize),
    /// Edge of a pixel that the network sees, mm; size times spacing is the field of view
    #[arg(long, allow_negative_numbers = true, value_name = "MM", default_value_t = 3., help_heading = "Network")]
    spacing: f32,
    #[command(flatten)]
    intensity: super::intensity::IntensityArguments,
    /// Neighbouring slices that the network sees at once (odd); dilated2d has 3
    #[arg(long, value_name = "N", help_heading = "Network")]
    slices: Option<usize>,
    /// Consecutive slices of a patch that a 3D network sees and segments at once, a multiple of 8; default: 8.
    /// Volumes of fewer slices are filled up by repeating their ends
    #[arg(long, value_name = "N", help_heading = "Network")]
    depth: Option<usize>,
    #[command(flatten)]
    form: FormArguments,

    /// Optimiser steps; each sees a batch of CT and a batch of MRI
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..), help_heading = "Optimiser")]
    steps: u64,
    /// Slices of each modality in a step, or patches of a 3D network (the paper has 2)
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..), help_heading = "Optimiser")]
    batch: u16,
    /// Parts of a batch whose batch norms take statistics of their own; default: as many as MPI ranks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Optimiser")]
    pub norm_groups: Option<u16>,
    /// Peak learning rate of Adam
    #[arg(
        long,
        allow_negative_numbers = true,
        value_name = "RATE",
        default_value_t = 3e-3,
        help_heading = "Optimiser"
    )]
    lr: f64,
    /// Course of the learning rate
    #[arg(long, value_enum, default_value = "cosine", help_heading = "Optimiser")]
    schedule: Schedule,
    /// Seed of weights, sampling, augmentation and dropout
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Optimiser")]
    pub seed: u64,
    /// Train on the slices as they are, without random variations
    #[arg(long, help_heading = "Optimiser")]
    no_augment: bool,
    /// Strengths of the random variations, as TOML: probability, rotation_deg, scale, translation, shear, elastic, gain,
    /// offset, gamma, noise, bias, blur (0 is off), mirror; what is not named stays as it is
    #[arg(long, value_name = "FILE", conflicts_with = "no_augment", help_heading = "Optimiser")]
    augment: Option<PathBuf>,
    /// Also mirror every second image left to right; refused where organs differ only in their side, as kidneys do
    #[arg(long, help_heading = "Optimiser")]
    mirror: bool,

    /// Weight of the Dice losses
    #[arg(long, allow_negative_numbers = true, value_name = "W", default_value_t = 1., help_heading = "Objective")]
    dice_weight: f64,
    /// Weight of the cross-entropies
    #[arg(long, allow_negative_numbers = true, value_name = "W", default_value_t = 1., help_heading = "Objective")]
    ce_weight: f64,
    /// Weight of the distillation (topology ummkd)
    #[arg(long, allow_negative_numbers = true, value_name = "W", default_value_t = 0.5, help_heading = "Objective")]
    kd_weight: f64,
    /// Temperature of the distillation
    #[arg(long, allow_negative_numbers = true, value_name = "T", default_value_t = 2., help_heading = "Objective")]
    temperature: f64,
    /// Classes that only one of the two batches holds
    #[arg(long, value_enum, default_value = "masked", help_heading = "Objective")]
    kd_absent: Absent,
    /// How the distillation compares CT and MRI (topology ummkd)
    #[arg(long, value_enum, default_value = "symmetric-kl", help_heading = "Objective")]
    kd: Kd,
    /// Steps over which the weight of the distillation grows from 0 to --kd-weight
    #[arg(long, value_name = "STEPS", default_value_t = 0, help_heading = "Objective")]
    kd_warmup: u64,
    /// Checkpoint whose answers the network also imitates, pixel by pixel: of any network with the same grid and classes.
    /// Give it twice for a teacher per modality
    #[arg(long, value_name = "CHECKPOINT", help_heading = "Objective")]
    pub teacher: Vec<PathBuf>,
    /// Weight of the imitation of --teacher
    #[arg(long, allow_negative_numbers = true, value_name = "W", default_value_t = 1., help_heading = "Objective")]
    teacher_weight: f64,
    /// Weight of half the squared convolution kernels
    #[arg(long, allow_negative_numbers = true, value_name = "W", default_value_t = 1e-4, help_heading = "Objective")]
    l2: f64,

    /// Where to compute
    #[arg(long, value_enum, default_value = "auto", help_heading = "Machine")]
    pub device: DeviceArgument,
    /// Number format of convolutions; other than f32 needs CUDA
    #[arg(long, value_enum, default_value = "off", help_heading = "Machine")]
    pub amp: Amp,
    /// Processor threads; default: libtorch's choice
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Machine")]
    pub threads: Option<u16>,
    /// Threads that make batches ahead; any number gives the same batches; default: a quarter of the cores, at most 8
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Machine")]
    pub workers: Option<u16>,
    /// Folder that keeps the cases as the network sees them, so that the next training need not prepare them again; files
    /// are named after contents and settings, so any number of data sets can share it. Off unless given
    #[arg(long, value_name = "DIR", help_heading = "Machine")]
    pub cache: Option<PathBuf>,
    /// Train nothing and write nothing but --cache: make the batches of --steps steps, and say how many samples a second that is
    #[arg(long, help_heading = "Machine")]
    pub loader_only: bool,
    /// Steps between two lines of metrics.jsonl
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..), help_heading = "Machine")]
    pub log_every: u64,
    /// Steps between two validations; checkpoints are written then
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..), help_heading = "Machine")]
    pub val_every: u64,
}

const EXAMPLE: &str = "\
Example:
  gantry-train phantom --out data
  gantry-train train --ct data/Dataset001_PhantomCT --mr data/Dataset002_PhantomMR --out run --steps 600
  gantry-train train --net unet3d --depth 8 --batch 2 --ct data/Dataset001_PhantomCT --mr data/Dataset002_PhantomMR --out run3d
Ctrl-C finishes the step, writes the state and exits with 130 (a second one ends at once): the same line with --resume goes on.
A killed training goes on from its last validation.
Topologies with networks that differ (individual, y-shape, x-shape) write best-ct.safetensors and best-mr.safetensors.";

#[derive(Clone, Copy, ValueEnum)]
pub enum TaskArgument {
    /// Liver, kidneys and spleen; CT in a soft-tissue window, -160 to 240 HU
    Abdomen,
    /// Left ventricular myocardium, left atrium, left ventricle, ascending aorta; CT from -160 to 560 HU (angiography)
    Heart,
}

impl TaskArgument {
    fn labels(self) -> LabelMap {
        match self {
            Self::Abdomen => LabelMap::abdomen(),
            Self::Heart => LabelMap::heart(),
        }
    }

    fn intensity(self) -> Intensity {
        match self {
            Self::Abdomen => Intensity::default(),
            Self::Heart => Intensity::angiography(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NetArgument {
    /// Small U-shaped 2D network for devices
    Compact,
    /// Small residual 2D network with a dilated block, for devices
    CompactDilated,
    /// The paper's dilated residual 2D network (39 million weights at width 16)
    Dilated2d,
    /// Small U-shaped 3D network for devices
    Compact3d,
    /// The paper's 3D U-Net (2.6 million weights at width 16)
    Unet3d,
}

impl NetArgument {
    fn is_3d(self) -> bool {
        matches!(self, Self::Compact3d | Self::Unet3d)
    }
}

fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let (height, width) = text.split_once('x').unwrap_or((text, text));
    let side = |side: &str| match side.parse() {
        Ok(side) if (16..=contract::MAX_SIDE).contains(&side) && side % 16 == 0 => Ok(side),
        _ => Err(format!("'{side}': expected a multiple of 16 from 16 to {}", contract::MAX_SIDE)),
    };
    Ok((side(height)?, side(width)?))
}

impl Arguments {
    /// The family of networks at the size that the options ask for.
    fn net(&self, classes: usize) -> anyhow::Result<Net> {
        let (height, width) = self.size;
        let (slices, depth) = (self.slices.unwrap_or(1), self.depth.unwrap_or(8));
        if self.net.is_3d() {
            ensure!(self.slices.is_none(), "--slices {slices}: for 2D networks; a 3D network sees --depth slices");
            ensure!(depth > 0 && depth % 8 == 0 && depth <= 256, "--depth {depth}: expected a multiple of 8 up to 256");
        } else {
            ensure!(self.depth.is_none(), "--depth {depth}: for 3D networks; a 2D network sees --slices slices");
        }
        Ok(match self.net {
            NetArgument::Compact | NetArgument::CompactDilated => {
                ensure!(slices % 2 == 1 && slices <= 15, "--slices {slices}: expected an odd number up to 15");
                let family = if self.net == NetArgument::Compact { Net::compact } else { Net::compact_dilated };
                family(slices, classes, self.width.into(), height, width)
            }
            NetArgument::Dilated2d => {
                ensure!(self.slices.is_none_or(|n| n == 3), "--slices {slices}: dilated2d sees 3");
                Net::dilated2d(classes, self.width.into(), height, width)
            }
            NetArgument::Compact3d => Net::compact3d(classes, self.width.into(), depth, height, width),
            NetArgument::Unet3d => {
                let family = if self.form.has(Quirk::HollowDeconv) { Net::unet3d_hollow } else { Net::unet3d };
                family(classes, self.width.into(), depth, height, width)
            }
        })
    }

    fn augment(&self, labels: &LabelMap) -> anyhow::Result<Augment> {
        let mut augment = match &self.augment {
            None if self.no_augment => Augment::none(),
            None => Augment::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
                Augment::parse(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?
            }
        };
        augment.mirror |= self.mirror;
        if let (true, Some((right, left))) = (augment.mirror, labels.sided()) {
            bail!("mirror: a mirrored {} would be taught as a {}: leave it out for this task", right.name, left.name);
        }
        Ok(augment)
    }

    /// What the options ask for, if they fit each other.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let (height, width) = self.size;
        let labels = self.task.labels();
        let net = Net { norm: self.form.kind()?, ..self.net(labels.classes())? };
        let topology = self.topology;
        let (norms, quirks) = (self.form.sharing(topology)?, self.form.quirks(topology, &net)?);
        let shapes = net.shapes()?;
        let seen = |shape: &Shape| match net.norm.groups(shape.channels) {
            None => shape.pixels() * usize::from(self.batch),
            Some(groups) => shape.elements() / groups,
        };
        let normed = net.layers.iter().zip(&shapes[1..]).filter(|(layer, _)| layer.has_norm());
        ensure!(
            normed.map(|(_, shape)| seen(shape)).min().is_none_or(|least| least > 1),
            "--batch {} --size {height}x{width}: a norm would see one value, expected more",
            self.batch
        );
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
            ("teacher-weight", self.teacher_weight),
            ("l2", self.l2),
        ] {
            ensure!(weight >= 0. && weight.is_finite(), "--{name} {weight}: expected 0 or more");
        }
        let grid = Grid { height, width, spacing_mm: self.spacing };
        let augment = self.augment(&labels)?;
        let (intensity, modalities) = (self.intensity.over(self.task.intensity()), Modality::ALL.to_vec());
        let spec = ModelSpec { net, labels, grid, intensity, modalities };
        spec.check().context("the options do not make a model")?;
        Ok(Settings {
            topology,
            norms,
            spec,
            steps: self.steps,
            batch: self.batch.into(),
            rate: self.lr,
            schedule: self.schedule,
            seed: self.seed,
            objective: Objective {
                dice: self.dice_weight,
                ce: self.ce_weight,
                kd: self.kd_weight,
                l2: self.l2,
                temperature: self.temperature,
                absent: self.kd_absent,
                kd_kind: self.kd,
                kd_warmup: self.kd_warmup,
                teacher: if self.teacher.is_empty() { 0. } else { self.teacher_weight },
            },
            quirks,
            teachers: vec![],
            groups: 1,
            augment,
            held_out: self.val,
            cases: self.cases,
        })
    }
}
