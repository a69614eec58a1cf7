//! The command line, and the help that teaches it.

mod jobs;
pub mod run;
pub mod tables;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use contract::Modality;

/// Segments CT and MRI slices in int8, next to the scanner.
///
/// One model file serves both modalities: the kernels are shared, and --modality picks the normalisation. For research use;
/// not a medical device.
#[derive(Debug, Parser)]
#[command(name = "gantry-edge", version, after_long_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  One CT volume, with a picture:
    gantry-edge segment --model model.onnx --modality ct scan.nii.gz --out labels.nii.gz --overlay labels.png
  Every MR volume of a folder, with timings as JSON:
    gantry-edge segment --model model.onnx --modality mr scans/ --out labels/ --json > report.json
  What is in a model, and where it runs in int8:
    gantry-edge inspect --model model.onnx
  Does this machine compute what the exporter recorded?
    gantry-edge selftest --model model.onnx
  Latency per modality:
    gantry-edge bench --model model.onnx --runs 200

Exit codes: 0 done, 2 refused (each refusal names a stable code; gantry-edge codes lists them).";

const SEGMENT_EXAMPLES: &str = "\
The label map has the input's own shape, affine and orientation. Slices of a single value are background and counted as
blank. If any other slice is refused (for example because its values are not Hounsfield units), nothing is written for
that volume, unless --allow-partial makes such slices background.

Examples:
  gantry-edge segment --model model.onnx --modality ct scan.nii.gz --out labels.nii.gz --overlay labels.png
  gantry-edge segment --model model.onnx --modality mr a.nii.gz b.nii --out labels/
  gantry-edge segment --model model.onnx --modality mr scans/ --out labels/ --allow-partial --json";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Segment NIfTI volumes slice by slice
    #[command(after_long_help = SEGMENT_EXAMPLES)]
    Segment(SegmentArgs),
    /// Show a model: manifest, costs, and where each layer runs in int8
    Inspect(ModelArgs),
    /// Run the network on a fixed picture and compare the bits with those that the exporter recorded
    Selftest(ModelArgs),
    /// Measure latency per modality, load time, time to the first result and memory
    Bench(BenchArgs),
    /// List every stable code with its meaning and what to do
    Codes,
    /// Load, test, segment one slice, end: what `bench` times from outside
    #[command(hide = true)]
    FirstSlice(FirstSliceArgs),
}

/// Arguments of `segment`.
#[derive(Debug, Args)]
pub struct SegmentArgs {
    /// Model file (ONNX, written by gantry-export)
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// What the scans are: ct or mr. It is never guessed
    #[arg(long)]
    pub modality: Modality,
    /// Volumes (.nii, .nii.gz), or folders of them
    #[arg(required = true, value_name = "IN")]
    pub inputs: Vec<PathBuf>,
    /// Label map, or a folder for label maps of the inputs' names (without nnU-Net's _0000)
    #[arg(long, value_name = "OUT")]
    pub out: PathBuf,
    /// Picture with six slices and outlines; a folder if --out is one
    #[arg(long, value_name = "PNG")]
    pub overlay: Option<PathBuf>,
    /// Write the label map although slices were refused; they are background
    #[arg(long)]
    pub allow_partial: bool,
    /// Print organs, refusals and timings as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `inspect` and `selftest`.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Model file (ONNX, written by gantry-export)
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Model file (ONNX, written by gantry-export)
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// Slices per modality
    #[arg(long, default_value_t = 100, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub runs: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `first-slice`.
#[derive(Debug, Args)]
pub struct FirstSliceArgs {
    /// Model file
    #[arg(long)]
    pub model: PathBuf,
    /// Branch
    #[arg(long)]
    pub modality: Modality,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
