//! From nothing to an int8 label map, and the same chain on your own data: `cargo xtask demo` and `cargo xtask chain`.
//!
//! Every step is one of the three programs, called as a user would call it; this module only carries files from one to
//! the next and lays their figures side by side.

mod chain;
mod figures;
mod page;

use std::{path::PathBuf, time::Instant};

use anyhow::{Context, Result};
use clap::Args;
use volume::dataset::Split;

use crate::{shell, subjects};
use chain::{Chain, Programs};

/// Phantoms, training, export, segmentation and a report, into target/demo/.
#[derive(Args)]
pub struct DemoArgs {
    /// Part of the body
    #[arg(long, default_value = "abdomen", value_parser = ["abdomen", "heart"])]
    anatomy: String,
    /// Training subjects of each modality
    #[arg(long, default_value_t = 14)]
    train: usize,
    /// Held-out subjects of each modality
    #[arg(long, default_value_t = 4)]
    test: usize,
    /// Seed of subjects and training
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Training steps
    #[arg(long, default_value_t = 300)]
    steps: u64,
    #[command(flatten)]
    programs: ProgramArgs,
    /// Further arguments for `gantry-train train`, e.g. `-- --topology joint`
    #[arg(last = true)]
    training: Vec<String>,
}

/// Where the three programs are, and how long they are timed.
#[derive(Args)]
struct ProgramArgs {
    /// Folder with gantry-train, gantry-export and gantry-edge; without this they are built in release
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Slices per modality whose latency is measured
    #[arg(long, value_name = "N", default_value_t = 100)]
    bench_runs: usize,
}

/// The demo's chain on your own two data sets (nnU-Net's raw layout).
#[derive(Args)]
pub struct ChainArgs {
    /// CT data set
    #[arg(long, value_name = "DIR")]
    ct: PathBuf,
    /// MRI data set
    #[arg(long, value_name = "DIR")]
    mr: PathBuf,
    /// Where models, label maps and report.html go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Score the training scans instead of the held-out ones (imagesTs): an overfit check, and the report says so
    #[arg(long)]
    on_training: bool,
    #[command(flatten)]
    programs: ProgramArgs,
    /// Further arguments for `gantry-train train`, e.g. `-- --steps 2000`
    #[arg(last = true)]
    training: Vec<String>,
}

/// Runs `cargo xtask demo`.
pub fn demo(args: &DemoArgs) -> Result<()> {
    let programs = Programs::get(args.programs.programs.as_deref())?;
    let start = Instant::now();
    let out = shell::target_dir().join("demo");
    if out.exists() {
        std::fs::remove_dir_all(&out).with_context(|| format!("cannot empty {}", out.display()))?;
    }
    let data = out.join("data");
    shell::run(shell::command(&programs.train, ["phantom"]).arg("--out").arg(&data).args([
        "--anatomy",
        &args.anatomy,
        "--train",
        &args.train.to_string(),
        "--test",
        &args.test.to_string(),
        "--seed",
        &args.seed.to_string(),
    ]))?;
    let fixed = ["--task", &args.anatomy, "--steps", &args.steps.to_string(), "--seed", &args.seed.to_string()];
    let chain = Chain {
        programs,
        data: subjects::data_sets(&data)?,
        out,
        split: Split::Test,
        training: [fixed.map(String::from).as_slice(), &args.training].concat(),
        bench_runs: args.programs.bench_runs,
        start,
    };
    finish(&chain, "synthetic subjects that the network has not seen")
}

/// Runs `cargo xtask chain`.
pub fn chain(args: &ChainArgs) -> Result<()> {
    let programs = Programs::get(args.programs.programs.as_deref())?;
    let split = if args.on_training { Split::Train } else { Split::Test };
    let chain = Chain {
        programs,
        data: [std::path::absolute(&args.ct)?, std::path::absolute(&args.mr)?],
        out: std::path::absolute(&args.out)?,
        split,
        training: args.training.clone(),
        bench_runs: args.programs.bench_runs,
        start: Instant::now(),
    };
    let scans = match split {
        Split::Train => "the training scans themselves: an overfit check, not a measure of accuracy",
        Split::Test => "scans that the network has not seen",
    };
    finish(&chain, scans)
}

fn finish(chain: &Chain, scans: &str) -> Result<()> {
    let results = chain.run()?;
    let report = figures::report(chain, &results, scans)?;
    let path = chain.out.join("report.html");
    volume::atomic::write_bytes(&path, page::page(&report)?.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("\nDice on {scans}\n\n{}", report.dice.text());
    println!("{}", report.latency.text());
    for (value, name) in &report.figures {
        println!("{value:>12}  {name}");
    }
    println!("\nreport: {}", path.display());
    Ok(())
}
