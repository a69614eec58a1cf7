//! `gantry-export`: what was typed, what it means, what is done.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use contract::Modality;
use export::{Calibration, Checkpoint, Export, ExportError, Folded, Recipe, calibrate::Sample, int8::Format, samples};
use indicatif::{ProgressBar, ProgressStyle};

/// Turns a trained checkpoint into ONNX files for the edge.
#[derive(Parser)]
#[command(name = "gantry-export", version, about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Onnx(OnnxArgs),
    Report(ReportArgs),
    Float(FloatArgs),
    Inspect(InspectArgs),
}

/// Write the int8 file and the f32 file of a checkpoint.
///
/// Norms are folded, the f32 network is run on calibration slices of every modality to find the range of each value,
/// and weights and activations become int8. The int8 file holds the kernels once and one row of scales and biases
/// per modality; its input `modality` (int64: 0 = CT, 1 = MR) picks the row. The f32 file is the reference.
#[derive(Args)]
#[command(
    after_help = "Example:\n  gantry-export onnx checkpoint.safetensors --ct data/phantom_ct --mr data/phantom_mr --out model.onnx\n  \
gantry-export onnx checkpoint.safetensors --ct data/phantom_ct --specialise ct --format qdq --out ct.onnx"
)]
struct OnnxArgs {
    #[command(flatten)]
    quantise: QuantiseArgs,
    /// The int8 file. The f32 file goes beside it: model.onnx, model.f32.onnx.
    #[arg(long, value_name = "FILE", default_value = "model.onnx")]
    out: PathBuf,
    /// Spelling of int8. qdq is for other toolchains (the only one that OpenVINO 2026.4 reads) and needs --specialise.
    #[arg(long, value_enum, default_value_t = Format::Qoperator)]
    format: Format,
    /// Also write the report (what `gantry-export report --json` prints) as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Quantise as `onnx` does and print how well int8 stands for f32; writes no model.
///
/// Per layer and modality: range, scale, signal-to-noise, mean error in code steps (of the whole value, and the mean
/// magnitude over its channels), saturated codes. Then label agreement and Dice per organ of int8 against f32, and of both
/// against the data sets' labels, on the calibration slices and the model's grid.
#[derive(Args)]
#[command(
    after_help = "Example:\n  gantry-export report checkpoint.safetensors --ct data/phantom_ct --mr data/phantom_mr \
--calibration auto --bias-correction"
)]
struct ReportArgs {
    #[command(flatten)]
    quantise: QuantiseArgs,
    /// Print JSON, nothing else.
    #[arg(long)]
    json: bool,
}

/// What is quantised, and how.
#[derive(Args)]
struct QuantiseArgs {
    /// Written by gantry-train.
    checkpoint: PathBuf,
    /// nnU-Net raw data set of CT to calibrate on. Labels, where it has them, score label maps in the report;
    /// nothing is chosen by them.
    #[arg(long, value_name = "DIR")]
    ct: Option<PathBuf>,
    /// nnU-Net raw data set of MR to calibrate on.
    #[arg(long, value_name = "DIR")]
    mr: Option<PathBuf>,
    /// How the range of each value is found: minmax, percentile=P, mse or auto.
    ///
    /// minmax: all that was seen; one outlier coarsens every code. percentile=P: leaves out 100 - P percent at each end.
    /// mse: the clip range with the smallest mean squared error of the codes. auto: quantises with minmax,
    /// percentile=99.99, percentile=99.9 and mse, and keeps the one with the best Dice on the calibration slices (mean over
    /// organs and modalities, against f32's label maps: labels of training scans would reward chance). The report names all.
    #[arg(long, value_name = "METHOD", default_value = "percentile=99.99")]
    calibration: Calibration,
    /// Calibration slices per modality, spread over the data set.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    slices: u16,
    /// Move each int8 bias until the convolution's mean result is that of f32, layer by layer. Costs time here, none on the
    /// device.
    #[arg(long)]
    bias_correction: bool,
    /// Bring the channels of each value to like ranges before quantising, where the f32 network stays the same function:
    /// between convolutions, over pools, up-samplings and joins, not through sums.
    #[arg(long)]
    equalise: bool,
    /// Quantise one modality only; the file then has no `modality` input.
    #[arg(long, value_name = "ct|mr")]
    specialise: Option<Modality>,
}

/// Write the f32 file only; every network of the contract, no calibration.
#[derive(Args)]
struct FloatArgs {
    /// Written by gantry-train.
    checkpoint: PathBuf,
    /// The f32 file.
    #[arg(long, value_name = "FILE", default_value = "model.f32.onnx")]
    out: PathBuf,
    /// Write one modality only.
    #[arg(long, value_name = "ct|mr")]
    specialise: Option<Modality>,
}

/// Print what a model file says about itself and where its bytes are.
#[derive(Args)]
struct InspectArgs {
    /// Written by gantry-export.
    model: PathBuf,
    /// The manifest as JSON, nothing else.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Onnx(args) => onnx(&args),
        Command::Report(args) => report(&args),
        Command::Float(args) => float(&args),
        Command::Inspect(args) => inspect(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantry-export: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn onnx(args: &OnnxArgs) -> Result<()> {
    if args.format == Format::Qdq && args.quantise.specialise.is_none() {
        bail!("--format qdq writes one modality: add --specialise ct or --specialise mr");
    }
    let export = quantise(&args.quantise, args.format)?;
    print!("{}", export.report.table());
    let float = args.out.with_extension("f32.onnx");
    write(&float, &export.float)?;
    if let Some(path) = &args.report {
        write(path, &serde_json::to_vec_pretty(&export.report)?)?;
    }
    write(&args.out, &export.int8)
}

fn report(args: &ReportArgs) -> Result<()> {
    let report = quantise(&args.quantise, Format::Qoperator)?.report;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{}", report.table()),
    }
    Ok(())
}

fn quantise(args: &QuantiseArgs, format: Format) -> Result<Export> {
    let folded = fold(&args.checkpoint, args.specialise)?;
    let mut slices: Vec<Sample> = vec![];
    for &modality in &folded.spec.modalities {
        let folder = match modality {
            Modality::Ct => &args.ct,
            Modality::Mr => &args.mr,
        };
        let folder = folder.as_ref().ok_or(ExportError::NoSlices { modality })?;
        slices.extend(samples::read(folder, modality, &folded.spec, args.slices.into())?);
    }
    let recipe =
        Recipe { calibration: args.calibration, bias_correction: args.bias_correction, equalise: args.equalise };
    let spinner = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg} ({elapsed})")?);
    spinner.enable_steady_tick(Duration::from_millis(100));
    let export = export::export(&folded, &slices, &recipe, format, |step| spinner.set_message(step.to_string()))?;
    spinner.finish_and_clear();
    Ok(export)
}

fn float(args: &FloatArgs) -> Result<()> {
    let folded = fold(&args.checkpoint, args.specialise)?;
    write(&args.out, &export::onnx::encode(&export::export_float(&folded)))
}

fn fold(checkpoint: &Path, only: Option<Modality>) -> Result<Folded> {
    let in_file = || format!("{}", checkpoint.display());
    let folded = Folded::new(&Checkpoint::read(checkpoint)?).with_context(in_file)?;
    match only {
        None => Ok(folded),
        Some(modality) => folded.specialise(modality).with_context(in_file),
    }
}

fn inspect(args: &InspectArgs) -> Result<()> {
    let bytes = fs::read(&args.model).with_context(|| format!("{}", args.model.display()))?;
    let summary = export::inspect::Summary::new(&args.model, &bytes)?;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&summary.manifest)?),
        false => print!("{}", summary.table()),
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    volume::atomic::write_bytes(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}: {} bytes", path.display(), bytes.len());
    Ok(())
}
