//! `gantry-train eval`: how good a checkpoint, or label maps that another program made, are on scans with truth.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use contract::{Modality, net::Spatial, tiles::Tiling};
use host_train::{
    checkpoint,
    data::{self, Case, Part},
    eval::{self, Handling, Scores},
    import::label_map_of,
    segment::{blank_ends, segment},
};
use serde::Serialize;

use super::DeviceArgument;

/// Options of `eval`.
#[derive(Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    /// Network to score, as `train` wrote it
    #[arg(long, value_name = "FILE", required_unless_present = "predictions")]
    checkpoint: Option<PathBuf>,
    /// Label maps to score instead: a folder with ct/CASE.nii.gz and mr/CASE.nii.gz
    #[arg(long, value_name = "DIR", conflicts_with_all = ["checkpoint", "labels"])]
    predictions: Option<PathBuf>,
    /// CT data set in nnU-Net's raw layout
    #[arg(long, value_name = "DIR", required_unless_present = "mr")]
    ct: Option<PathBuf>,
    /// MRI data set in nnU-Net's raw layout
    #[arg(long, value_name = "DIR")]
    mr: Option<PathBuf>,
    /// Which of their cases
    #[arg(long, value_enum, default_value = "test")]
    split: SplitArgument,
    /// Also write all scores, case by case, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write the network's label maps, in the grid of the scans: DIR/ct/CASE.nii.gz and DIR/mr/CASE.nii.gz
    #[arg(long, value_name = "DIR")]
    labels: Option<PathBuf>,
    /// Leave out cases that cannot be used, and name them; without this the first one stops the evaluation
    #[arg(long)]
    skip_bad: bool,
    /// How a 3D network's tiles lie on each other
    #[arg(long, value_enum, default_value = "gaussian", conflicts_with = "predictions")]
    tiling: TilingArgument,
    /// Keep of each organ only its largest connected part (voxels that share a face, an edge or a corner)
    #[arg(long, conflicts_with = "predictions")]
    largest_component: bool,
    /// Leave the first and the last slice of every scan background, as the paper's 2D code does; for 2D networks
    #[arg(long, conflicts_with = "predictions")]
    edge_slices_background: bool,
    /// Where to compute
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceArgument,
}

const EXAMPLE: &str = "\
Example:
  gantry-train eval --checkpoint run/best.safetensors --ct data/Dataset001_PhantomCT --mr data/Dataset002_PhantomMR
Organs are the model's; distances are in mm on the grid of the scan.";

#[derive(Clone, Copy, ValueEnum)]
enum SplitArgument {
    /// imagesTs and labelsTs
    Test,
    /// imagesTr and labelsTr
    Train,
}

#[derive(Clone, Copy, ValueEnum)]
enum TilingArgument {
    /// Half a tile apart, logits weighted by a Gaussian
    Gaussian,
    /// Side by side, the last flush with the end, as in the paper's code
    Flush,
}

impl From<TilingArgument> for Tiling {
    fn from(argument: TilingArgument) -> Self {
        match argument {
            TilingArgument::Gaussian => Self::Gaussian,
            TilingArgument::Flush => Self::Flush,
        }
    }
}

/// What `--json` writes.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    scores: &'a Scores,
    /// Absent where label maps were read.
    #[serde(skip_serializing_if = "Option::is_none")]
    tiling: Option<Tiling>,
    largest_component: bool,
    edge_slices_background: bool,
}

/// Prints Dice, HD95 and ASSD per organ and modality.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let part = match arguments.split {
        SplitArgument::Test => Part::Test,
        SplitArgument::Train => Part::Train,
    };
    let sets: Vec<(Modality, &Path)> = (Modality::ALL.into_iter().zip([&arguments.ct, &arguments.mr]))
        .filter_map(|(modality, folder)| Some((modality, folder.as_deref()?)))
        .collect();
    let scores = match (&arguments.predictions, &arguments.checkpoint) {
        (Some(predictions), _) => of_files(arguments, predictions, &sets, part)?,
        (None, Some(checkpoint)) => of_network(arguments, checkpoint, &sets, part)?,
        (None, None) => unreachable!("the command line asks for one of the two"),
    };
    print!("{scores}");
    match &arguments.json {
        Some(path) => {
            let tiling = arguments.predictions.is_none().then(|| arguments.tiling.into());
            let &Arguments { largest_component, edge_slices_background, .. } = arguments;
            let report = Report { scores: &scores, tiling, largest_component, edge_slices_background };
            volume::atomic::write_bytes(path, &serde_json::to_vec_pretty(&report)?)
                .with_context(|| format!("{}: cannot be written", path.display()))
        }
        None => Ok(()),
    }
}

fn of_files(
    arguments: &Arguments,
    predictions: &Path,
    sets: &[(Modality, &Path)],
    part: Part,
) -> anyhow::Result<Scores> {
    let mut scores = Scores::default();
    for &(modality, folder) in sets {
        let made = predictions.join(modality.name());
        let mut bad = super::on_bad(arguments.skip_bad);
        let labels = label_map_of(folder);
        scores = scores.merge(eval::score_files_with(folder, modality, part, &labels, &made, &mut bad)?);
        super::tell_skipped(folder, &bad);
    }
    Ok(scores)
}

fn of_network(
    arguments: &Arguments,
    checkpoint: &Path,
    sets: &[(Modality, &Path)],
    part: Part,
) -> anyhow::Result<Scores> {
    let (network, meta) = checkpoint::load(checkpoint, arguments.device.choose()?)?;
    ensure!(
        !arguments.edge_slices_background || meta.spec.net.spatial == Spatial::D2,
        "--edge-slices-background: for 2D networks, but {} is one of 3D",
        meta.spec.net.name
    );
    let mut scores = Scores::default();
    for &(modality, folder) in sets {
        ensure!(
            network.modalities().contains(&modality),
            "{}: a network for {:?}, expected one that knows {modality} (of {})",
            checkpoint.display(),
            network.modalities(),
            folder.display()
        );
        let mut bad = super::on_bad(arguments.skip_bad);
        let cases = data::load_with(folder, modality, part, &meta.spec, &mut bad)?;
        super::tell_skipped(folder, &bad);
        let out = arguments.labels.as_ref().map(|labels| labels.join(modality.name()));
        let mut predict = |case: &Case| {
            let mut labels = segment(&network, &meta.spec, modality, case, arguments.tiling.into());
            if arguments.edge_slices_background {
                blank_ends(&mut labels, case.depth());
            }
            labels
        };
        let handling = Handling { largest_component: arguments.largest_component, out: out.as_deref() };
        scores = scores.merge(eval::evaluate_with(&cases, &meta.spec, handling, &mut predict)?);
    }
    Ok(scores)
}
