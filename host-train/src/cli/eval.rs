//! `gantry-train eval`: how good a checkpoint, or label maps that another program made, are on scans with truth.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use contract::{LabelMap, Modality};
use host_train::{
    checkpoint,
    data::{self, Part},
    eval::{self, Scores},
    validation::predict,
};

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
        Some(path) => volume::atomic::write_bytes(path, scores.json().as_bytes())
            .with_context(|| format!("{}: cannot be written", path.display())),
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
        let labels = LabelMap::abdomen();
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
        let mut predict = |reals: &[f32], n: usize| predict(&network, &meta.spec, modality, reals, n);
        scores = scores.merge(eval::evaluate_into(&cases, &meta.spec, out.as_deref(), &mut predict)?);
    }
    Ok(scores)
}
