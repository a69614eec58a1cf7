//! `cargo xtask study`: many trainings of one question, and the table that answers it.
//!
//! Every training is `gantry-train`, called as a person would; this module keeps the books. Runs know nothing of each
//! other, so any number of machines can share the work and a folder: `--shard`, `host-train/cluster/`.

mod config;
mod execute;
mod figures;
mod page;
mod summary;
mod wilcoxon;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{libtorch, shell};
use config::{Run, Study};
use execute::Place;

/// Trainings with several topologies, training-set sizes and seeds, and their comparison.
#[derive(Args)]
#[command(after_help = EXAMPLE)]
pub struct StudyArgs {
    /// Studies, one TOML file each; see studies/phantom-small.toml
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    config: Vec<PathBuf>,
    /// Folder for the studies, each in a folder with its file's name
    #[arg(long, value_name = "DIR", default_value = "target/study")]
    out: PathBuf,
    /// Do every N-th run only, from the I-th (I from 0): `--shard 0/4` to `--shard 3/4` share the work
    #[arg(long, value_name = "I/N", default_value = "0/1", value_parser = parse_shard, conflicts_with = "report_only")]
    shard: (usize, usize),
    /// Train nothing: sum up what is there, and say what is missing
    #[arg(long)]
    report_only: bool,
    /// gantry-train to use; without this it is built in release
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

const EXAMPLE: &str = "\
Example, on this machine; after an interruption the same line goes on where it was:
  cargo xtask study --config studies/phantom-small.toml
Example, shared by two machines with a common folder:
  cargo xtask study --config studies/phantom-small.toml --out /shared --shard 0/2
  cargo xtask study --config studies/phantom-small.toml --out /shared --shard 1/2
  cargo xtask study --config studies/phantom-small.toml --out /shared --report-only
host-train/cluster/ has the same for SLURM and Kubernetes.";

fn parse_shard(text: &str) -> Result<(usize, usize), String> {
    let wrong = || format!("'{text}': expected I/N with I from 0 to N - 1, e.g. 0/4");
    let (shard, of) = text.split_once('/').ok_or_else(wrong)?;
    match (shard.parse(), of.parse()) {
        (Ok(shard), Ok(of)) if shard < of => Ok((shard, of)),
        _ => Err(wrong()),
    }
}

/// Runs `cargo xtask study`.
///
/// # Errors
/// A study is not one, its folder holds another one's runs, or a run failed.
pub fn study(args: &StudyArgs) -> Result<()> {
    let studies =
        args.config.iter().map(|path| Ok((path.as_path(), Study::read(path)?))).collect::<Result<Vec<_>>>()?;
    let program = match &args.program {
        Some(program) => std::path::absolute(program)?,
        None if args.report_only => PathBuf::from("gantry-train"),
        None => build()?,
    };
    let mut failed = vec![];
    for (path, study) in &studies {
        let name = path.file_stem().with_context(|| format!("{}: no file name", path.display()))?;
        let out = std::path::absolute(&args.out)?.join(name);
        fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
        let place = Place { study, program: &program, out: &out };
        let runs = study.runs();
        if !args.report_only {
            failed.extend(work(&place, &runs, args.shard)?);
        }
        report(&place, &runs)?;
    }
    ensure!(failed.is_empty(), "{} runs failed:\n{}", failed.len(), failed.join("\n"));
    Ok(())
}

fn build() -> Result<PathBuf> {
    libtorch::setup()?;
    shell::run(&mut shell::cargo(["build", "--release", "-p", "host-train"]))?;
    Ok(shell::target_dir().join("release/gantry-train").with_extension(std::env::consts::EXE_EXTENSION))
}

/// Does the runs of a shard, one after the other; returns what failed, which holds up no other run.
fn work(place: &Place, runs: &[Run], (shard, of): (usize, usize)) -> Result<Vec<String>> {
    let mut left = vec![];
    for run in runs.iter().skip(shard).step_by(of) {
        if !place.finished(run)? {
            left.push(run);
        }
    }
    let mine = runs.len().saturating_sub(shard).div_ceil(of);
    eprintln!("{}: shard {shard}/{of}, {} of its {mine} runs are left", place.out.display(), left.len());
    if left.is_empty() {
        return Ok(vec![]);
    }
    let data = place.data()?;
    let (start, mut failed) = (Instant::now(), vec![]);
    for (done, run) in left.iter().enumerate() {
        let begun = Instant::now();
        let outcome = place.execute(run, &data);
        let to_go = left.len() - done - 1;
        let each = start.elapsed().as_secs_f64() / (done + 1) as f64;
        let minutes = each * to_go as f64 / 60.;
        let seconds = begun.elapsed().as_secs_f64();
        eprintln!("[{}/{}] {}: {seconds:.0} s; about {minutes:.0} min to go", done + 1, left.len(), run.name());
        if let Err(error) = outcome {
            eprintln!("    failed: {error:#}");
            failed.push(format!("{}: {error:#}", run.name()));
        }
    }
    Ok(failed)
}

/// Sums up the finished runs of the folder, whoever made them.
fn report(place: &Place, runs: &[Run]) -> Result<()> {
    let (mut finished, mut missing) = (vec![], vec![]);
    for run in runs {
        if place.finished(run)? {
            finished.push((run.clone(), summary::Scores::read(&place.folder(run).join(execute::SCORES))?));
        } else {
            missing.push(run.name());
        }
    }
    if finished.is_empty() {
        eprintln!("{}: none of {} runs is finished yet; nothing to sum up", place.out.display(), runs.len());
        return Ok(());
    }
    let summary = summary::Summary::of(place.study, &finished, missing);
    page::write_all(place.out, &summary)?;
    print!("{}", page::terminal(&summary));
    println!("{}", place.out.join("study.html").display());
    Ok(())
}

/// Writes a file of the report.
fn write(path: &Path, text: &str) -> Result<()> {
    volume::atomic::write_bytes(path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_checked() {
        assert_eq!(parse_shard("1/4"), Ok((1, 4)));
        for wrong in ["4/4", "1", "0/0", "-1/2", "a/b"] {
            assert!(parse_shard(wrong).unwrap_err().contains("expected I/N"), "{wrong}");
        }
    }
}
