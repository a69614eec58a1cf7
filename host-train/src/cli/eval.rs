//! `gantry-train eval`: how good a checkpoint is on scans with truth, or label maps that any other program made.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
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
#[command(after_help = "Example:
  gantry-train eval --checkpoint run/best.safetensors --ct data/Dataset001_PhantomCT --mr data/Dataset002_PhantomMR --json scores.json")]
pub struct Arguments {
    /// Network to score, as `train` wrote it
    #[arg(long, value_name = "FILE", required_unless_present = "predictions", conflicts_with = "predictions")]
    checkpoint: Option<PathBuf>,
    /// Score these label maps of the abdomen instead of a network's: CASE.nii.gz in this folder, or in its folders ct and mr
    #[arg(long, value_name = "DIR", conflicts_with = "labels")]
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
    /// Also write the network's label maps, in the grid of the scans, into the folders ct and mr of this folder
    #[arg(long, value_name = "DIR")]
    labels: Option<PathBuf>,
    /// Where to compute
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceArgument,
}

#[derive(Clone, Copy, ValueEnum)]
enum SplitArgument {
    /// imagesTs and labelsTs
    Test,
    /// imagesTr and labelsTr
    Train,
}

/// Prints Dice, HD95 and ASSD per organ and modality.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let scores = match (&arguments.checkpoint, &arguments.predictions) {
        (Some(checkpoint), _) => arguments.network(checkpoint)?,
        (None, Some(predictions)) => arguments.files(predictions)?,
        (None, None) => bail!("nothing to score: expected --checkpoint or --predictions"),
    };
    print!("{scores}");
    match &arguments.json {
        Some(path) => write(path, &scores),
        None => Ok(()),
    }
}

impl Arguments {
    fn network(&self, checkpoint: &Path) -> anyhow::Result<Scores> {
        let (network, meta) = checkpoint::load(checkpoint, self.device.choose()?)?;
        let mut scores = Scores::default();
        for (modality, folder) in self.folders() {
            ensure!(
                network.modalities().contains(&modality),
                "{}: knows {:?}, not {modality} (of {})",
                checkpoint.display(),
                network.modalities(),
                folder.display()
            );
            let cases = data::load(folder, modality, self.part(), &meta.spec)?;
            let out = self.labels.as_ref().map(|labels| labels.join(modality.name()));
            let mut predict = |reals: &[f32], n: usize| predict(&network, &meta.spec, modality, reals, n);
            scores = scores.merge(eval::evaluate_into(&cases, &meta.spec, out.as_deref(), &mut predict)?);
        }
        Ok(scores)
    }

    fn files(&self, predictions: &Path) -> anyhow::Result<Scores> {
        let mut scores = Scores::default();
        for (modality, folder) in self.folders() {
            let own = predictions.join(modality.name());
            let predictions = if own.is_dir() { own.as_path() } else { predictions };
            let labels = LabelMap::abdomen();
            scores = scores.merge(eval::score_files(folder, modality, self.part(), &labels, predictions)?);
        }
        Ok(scores)
    }

    fn folders(&self) -> impl Iterator<Item = (Modality, &Path)> {
        let folders = Modality::ALL.into_iter().zip([&self.ct, &self.mr]);
        folders.filter_map(|(modality, folder)| Some((modality, folder.as_deref()?)))
    }

    fn part(&self) -> Part {
        match self.split {
            SplitArgument::Test => Part::Test,
            SplitArgument::Train => Part::Train,
        }
    }
}

fn write(path: &Path, scores: &Scores) -> anyhow::Result<()> {
    volume::atomic::write_bytes(path, scores.json().as_bytes()).with_context(|| format!("{}", path.display()))
}
