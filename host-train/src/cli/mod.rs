//! The command line: what was typed, what it means, what is done.

mod bench;
mod eval;
mod fingerprint;
mod form;
mod import;
mod intensity;
mod options;
mod phantom;
mod progress;
mod signals;
mod train;

use std::{path::Path, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};
use host_train::{data::OnBad, device};

/// Trains one compact network on unpaired CT and MRI scans, with shared convolutions, a set of norms per modality and
/// knowledge distillation between the two.
#[derive(Parser)]
#[command(name = "gantry-train", version, after_help = EXAMPLE)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLE: &str = "\
Example, from nothing to scores (about ten minutes on two cores):
  gantry-train phantom --out data
  gantry-train train --ct data/Dataset001_PhantomCT --mr data/Dataset002_PhantomMR --out run
  gantry-train eval --checkpoint run/best.safetensors --ct data/Dataset001_PhantomCT --mr data/Dataset002_PhantomMR

Your own scans go into folders of the same shape (nnU-Net raw: imagesTr, labelsTr, imagesTs, labelsTs, dataset.json);
public data sets come in by `gantry-train import`, and `gantry-train fingerprint` proposes options for them.";

#[derive(Subcommand)]
enum Command {
    /// Train a network; writes checkpoints and metrics into a folder
    Train(Box<options::Arguments>),
    /// Score a checkpoint: Dice, HD95 and ASSD per organ and modality
    Eval(eval::Arguments),
    /// Bring a public data set, or your own, into the layout that `train` reads
    Import(import::Arguments),
    /// Measure data sets, and propose options for `train`
    Fingerprint(fingerprint::Arguments),
    /// Make synthetic CT and MRI data sets
    Phantom(phantom::Arguments),
    /// Time training steps on random batches, or compare a device with the processor
    Bench(bench::Arguments),
}

/// Where to compute.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DeviceArgument {
    /// The processor
    Cpu,
    /// The first CUDA device, or an error
    Cuda,
    /// CUDA if it works, the processor otherwise
    Auto,
}

impl DeviceArgument {
    fn choose(self) -> Result<tch::Device, device::DeviceError> {
        device::choose(match self {
            Self::Cpu => device::Choice::Cpu,
            Self::Cuda => device::Choice::Cuda,
            Self::Auto => device::Choice::Auto,
        })
    }
}

/// What `--skip-bad` means.
fn on_bad(skip: bool) -> OnBad {
    if skip { OnBad::Skip(vec![]) } else { OnBad::Stop }
}

/// Counts and names the cases of `folder` that were left out.
fn tell_skipped(folder: &Path, bad: &OnBad) {
    let OnBad::Skip(errors) = bad else { return };
    if !errors.is_empty() {
        let cases = if errors.len() == 1 { "case" } else { "cases" };
        eprintln!("{}: skipped {} bad {cases}:", folder.display(), errors.len());
    }
    for error in errors {
        eprintln!("  {error}");
    }
}

/// Runs what the command line asks for; a training that was asked to stop answers with the status of its signal.
pub fn run() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Train(arguments) => return train::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments)?,
        Command::Import(arguments) => import::run(&arguments)?,
        Command::Fingerprint(arguments) => fingerprint::run(&arguments)?,
        Command::Phantom(arguments) => phantom::run(&arguments)?,
        Command::Bench(arguments) => bench::run(&arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}
