//! `gantry-export`: what was typed, what it means, what is done.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use contract::Modality;
use export::{
    Checkpoint, ExportError, Folded,
    calibrate::{Method, Sample},
    int8::Format,
    samples,
};
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
    /// Written by gantry-train.
    checkpoint: PathBuf,
    /// nnU-Net raw data set of CT to calibrate on; images only, labels are not read.
    #[arg(long, value_name = "DIR")]
    ct: Option<PathBuf>,
    /// nnU-Net raw data set of MR to calibrate on.
    #[arg(long, value_name = "DIR")]
    mr: Option<PathBuf>,
    /// The int8 file. The f32 file goes beside it: model.onnx, model.f32.onnx.
    #[arg(long, value_name = "FILE", default_value = "model.onnx")]
    out: PathBuf,
    /// How the range of each value is found: minmax, or percentile=P, which leaves out 100 - P percent at each end.
    #[arg(long, value_name = "METHOD", default_value = "percentile=99.99")]
    calibration: Method,
    /// Calibration slices per modality, spread over the data set.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    slices: u16,
    /// Write one modality only; the file then has no `modality` input.
    #[arg(long, value_name = "ct|mr")]
    specialise: Option<Modality>,
    /// Spelling of int8. qdq is for other toolchains and needs --specialise.
    #[arg(long, value_enum, default_value_t = Format::Qoperator)]
    format: Format,
    /// Also write the report (ranges, scales, signal-to-noise, sizes) as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
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
    if args.format == Format::Qdq && args.specialise.is_none() {
        bail!("--format qdq writes one modality: add --specialise ct or --specialise mr");
    }
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
    let bar = ProgressBar::new(slices.len() as u64).with_message("calibrating");
    bar.set_style(ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} slices, {eta} left")?);
    let export = export::export(&folded, &slices, args.calibration, args.format, || bar.inc(1))?;
    bar.finish_and_clear();
    print!("{}", export.report.table());
    let float = args.out.with_extension("f32.onnx");
    write(&float, &export.float)?;
    if let Some(path) = &args.report {
        write(path, &serde_json::to_vec_pretty(&export.report)?)?;
    }
    write(&args.out, &export.int8)
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
