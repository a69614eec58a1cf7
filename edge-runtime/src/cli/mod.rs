//! The command line, and the help that teaches it.

mod jobs;
pub mod run;
pub mod tables;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use contract::{Modality, tiles::Tiling};
use edge_runtime::{EdgeError, Engine, Model, engine, kernels::Kernels, serve::config::Rate};

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
  Where a slice's time goes, as a table and a picture:
    gantry-edge inspect --model model.onnx --profile --roofline roofline.svg
  Every step and byte of the planned engine:
    gantry-edge plan --model model.onnx
  Does this machine compute what the exporter recorded?
    gantry-edge selftest --model model.onnx
  Latency per modality:
    gantry-edge bench --model model.onnx --runs 200
  Does it stay so when the device grows warm?
    gantry-edge bench --model model.onnx --sustained 30m --curve curve.svg
  Beside a scanner:
    gantry-edge serve --config gantry.toml

Exit codes: 0 done, 2 refused (each refusal names a stable code; gantry-edge codes lists them).";

const SEGMENT_EXAMPLES: &str = "\
The label map has the input's own shape, affine and orientation. Slices of a single value are background and counted as
blank. If any other slice is refused (for example because its values are not Hounsfield units), nothing is written for
that volume, unless --allow-partial makes such slices background.

A 2D network sees slice by slice. A 3D network sees tiles of consecutive slices that overlap by half; a volume of fewer
slices than a tile is filled up by repeating its ends.

Examples:
  gantry-edge segment --model model.onnx --modality ct scan.nii.gz --out labels.nii.gz --overlay labels.png
  gantry-edge segment --model model.onnx --modality mr a.nii.gz b.nii --out labels/
  gantry-edge segment --model model.onnx --modality mr scans/ --out labels/ --allow-partial --json";

const SERVE_EXAMPLES: &str = "\
Every key of the configuration is explained in edge-runtime/gantry.toml, which is a working example. An unknown key is an
error. SIGTERM and Ctrl-C end the service in order: slices that have arrived are finished, series are written, exit code 0.
Instances that were acknowledged and not finished, because of a crash, are segmented at the next start.

Examples:
  Is the configuration right, and what is in force?
    gantry-edge serve --config gantry.toml --check
  Serve:
    gantry-edge serve --config gantry.toml
  Without a scanner: play a folder of DICOM files at 20 slices per second into the configured sinks, then end:
    gantry-edge serve --config gantry.toml --replay series/ --rate 20/s
  From another machine, with dcmtk:
    storescu -aec GANTRY device 11112 slice.dcm";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Segment NIfTI volumes, slice by slice or, with a 3D network, by tiles of slices
    #[command(after_long_help = SEGMENT_EXAMPLES)]
    Segment(SegmentArgs),
    /// Show a model: manifest, costs, and where each layer runs in int8
    Inspect(InspectArgs),
    /// Show the planned engine's steps and every byte that they need
    Plan(ModelArgs),
    /// Run the network on a fixed picture and compare the bits with those that the exporter recorded
    Selftest(ModelArgs),
    /// Measure latency per modality, load time, time to the first result and memory
    Bench(BenchArgs),
    /// Segment slices as they arrive: from a scanner over DICOM, from a folder, from a replay
    #[command(after_long_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// List every stable code with its meaning and what to do
    Codes(CodesArgs),
    /// Load, test, segment one slice or more, end: what `bench` times and `cargo xtask count` counts from outside
    #[command(hide = true)]
    FirstSlice(FirstSliceArgs),
}

/// Arguments of `segment`.
#[derive(Debug, Args)]
pub struct SegmentArgs {
    /// Model file (ONNX, written by gantry-export)
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// How to run it
    #[command(flatten)]
    pub engine: EngineArgs,
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
    /// How the tiles of a 3D network lie on each other
    #[arg(long, value_enum, default_value = "gaussian", value_name = "NAME")]
    pub tiling: TilingName,
    /// Keep of each organ only its largest connected part (voxels that share a face, an edge or a corner)
    #[arg(long)]
    pub largest_component: bool,
    /// Print organs, refusals and timings as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Configuration (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Check the configuration, print it with every default, and end
    #[arg(long)]
    pub check: bool,
    /// Play a folder of DICOM files instead of the configured sources
    #[arg(long, value_name = "DIR")]
    pub replay: Option<PathBuf>,
    /// Slices per second of the replay, like 20/s, or max
    #[arg(long, default_value = "10/s", requires = "replay")]
    pub rate: Rate,
    /// How many times the replay is played
    #[arg(long, default_value_t = 1, requires = "replay")]
    pub times: usize,
    /// Print counts and times as JSON at the end
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `codes`.
#[derive(Debug, Args)]
pub struct CodesArgs {
    /// Print the table of docs/codes.md
    #[arg(long)]
    pub markdown: bool,
}

/// How tiles lie on each other.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum TilingName {
    /// Half a tile apart, logits weighted by a Gaussian
    Gaussian,
    /// Side by side, the last flush with the end, as in the paper's code
    Flush,
}

impl From<TilingName> for Tiling {
    fn from(name: TilingName) -> Self {
        match name {
            TilingName::Gaussian => Self::Gaussian,
            TilingName::Flush => Self::Flush,
        }
    }
}

/// Who executes the network.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum EngineName {
    /// planned where the file is one of ours in int8, else tract
    Auto,
    /// Our own plan: fast, fixed memory; int8 files of gantry-export
    Planned,
    /// tract's plan: any file of gantry-export, slower
    Tract,
}

/// How to run a model.
#[derive(Debug, Args)]
pub struct EngineArgs {
    /// Who executes the network
    #[arg(long, value_enum, default_value = "auto", value_name = "NAME")]
    pub engine: EngineName,
    /// Instructions that the planned engine uses, for tests and bug reports; the default is the best of this CPU
    #[arg(long, value_parser = kernels, value_name = "NAME")]
    pub kernel: Option<Kernels>,
    /// Refuse a network whose values need more memory
    #[arg(long, value_name = "MB", default_value_t = engine::Options::MAX_ARENA_BYTES >> 20)]
    pub max_arena_mb: usize,
    /// Threads that share one slice of the planned engine
    #[arg(long, default_value_t = 1, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub threads: usize,
    /// Core of each thread, e.g. 2,3; the default leaves that to the system
    #[arg(long, value_delimiter = ',', value_name = "CORES")]
    pub cores: Vec<usize>,
}

impl EngineArgs {
    /// Plans a model as the arguments say.
    pub fn load(&self, model: &Model) -> Result<Engine, EdgeError> {
        Engine::with(model, &self.options())
    }

    /// The arguments for the library.
    pub fn options(&self) -> engine::Options {
        let choice = match self.engine {
            EngineName::Auto => engine::Choice::Auto,
            EngineName::Planned => engine::Choice::Planned,
            EngineName::Tract => engine::Choice::Tract,
        };
        let max_arena_bytes = self.max_arena_mb.saturating_mul(1 << 20);
        engine::Options {
            choice,
            kernels: self.kernel,
            max_arena_bytes,
            threads: self.threads,
            cores: self.cores.clone(),
        }
    }
}

/// A table of routines by name.
fn kernels(name: &str) -> Result<Kernels, String> {
    let names = || Kernels::available().iter().map(Kernels::name).collect::<Vec<_>>().join(", ");
    Kernels::named(name).ok_or_else(|| format!("this CPU can run {}", names()))
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// What to look at
    #[command(flatten)]
    pub model: ModelArgs,
    /// Time each step of the planned engine against this machine's measured peak
    #[arg(long)]
    pub profile: bool,
    /// Also draw the profile as a roofline (SVG)
    #[arg(long, value_name = "SVG", requires = "profile")]
    pub roofline: Option<PathBuf>,
}

/// Arguments of `plan` and `selftest`.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Model file (ONNX, written by gantry-export)
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// How to run it
    #[command(flatten)]
    pub engine: EngineArgs,
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
    /// How to run it
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Slices per modality
    #[arg(long, default_value_t = 100, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub runs: usize,
    /// Instead: segment without a pause for so long (like 30m or 90s), and report minute by minute
    #[arg(long, value_parser = length, value_name = "TIME")]
    pub sustained: Option<Duration>,
    /// Also draw the minutes (SVG)
    #[arg(long, value_name = "SVG", requires = "sustained")]
    pub curve: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A length of time.
fn length(text: &str) -> Result<Duration, String> {
    let fault = || format!("'{text}': expected a time like 90s, 30m or 2h");
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        _ => return Err(fault()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| fault())?;
    let seconds = count.checked_mul(unit).filter(|seconds| (1..=604_800).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(fault)
}

/// Arguments of `first-slice`.
#[derive(Debug, Args)]
pub struct FirstSliceArgs {
    /// Model file
    #[arg(long)]
    pub model: PathBuf,
    /// How to run it
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Branch
    #[arg(long)]
    pub modality: Modality,
    /// Slices
    #[arg(long, default_value_t = 1)]
    pub slices: usize,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
