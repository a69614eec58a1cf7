//! One run: a folder with what was asked for (`run.json`), the training, a log, and the scores, written last.
//!
//! `scores.json` is the mark of a finished run: it appears at once, whole, under its name. Everything else in the folder
//! may be half done, and `gantry-train train --resume` goes on from it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use contract::Modality;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::{Data, Run, Study};
use crate::subjects;

/// The mark of a finished run.
pub const SCORES: &str = "scores.json";
/// What was asked for.
const ASKED: &str = "run.json";
/// What `gantry-train` said.
pub const LOG: &str = "log.txt";

/// What decides the outcome of a run, and nothing of the machine that it runs on.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Asked {
    data: Data,
    train: Vec<String>,
    eval: Vec<String>,
}

/// A study in its folder.
pub struct Place<'a> {
    /// What to do.
    pub study: &'a Study,
    /// `gantry-train`.
    pub program: &'a Path,
    /// The study's folder, maybe shared with other machines.
    pub out: &'a Path,
}

impl Place<'_> {
    /// Folder of a run.
    pub fn folder(&self, run: &Run) -> PathBuf {
        self.out.join(run.name())
    }

    /// Whether the run is finished.
    ///
    /// # Errors
    /// Its folder holds a run of another configuration.
    pub fn finished(&self, run: &Run) -> Result<bool> {
        let folder = self.folder(run);
        let path = folder.join(ASKED);
        if path.exists() {
            same(&path, &self.asked(run))?;
        }
        Ok(folder.join(SCORES).exists())
    }

    /// Trains and scores, or goes on with it.
    ///
    /// # Errors
    /// Another process works on it, or a program fails.
    pub fn execute(&self, run: &Run, data: &[PathBuf; 2]) -> Result<()> {
        let folder = self.folder(run);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let lock = File::create(folder.join(".lock"))?;
        if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            bail!("{}: another process works on it; give each its own --shard", folder.display());
        }
        volume::atomic::write_bytes(folder.join(ASKED), &serde_json::to_vec_pretty(&self.asked(run))?)?;
        let trained = folder.join("train");
        let mut train = self.command(&folder, "train")?;
        train.arg("--ct").arg(&data[0]).arg("--mr").arg(&data[1]).arg("--out").arg(&trained);
        train.args(run.training(self.study));
        if trained.join("state.safetensors").exists() {
            train.arg("--resume");
        }
        said(&mut train, &folder)?;
        self.score(&folder, &trained, data)
    }

    /// Scores of the network, or of the two networks of a training that shares nothing.
    fn score(&self, folder: &Path, trained: &Path, data: &[PathBuf; 2]) -> Result<()> {
        let eval = |checkpoint: &Path, modalities: &[Modality], json: &Path| -> Result<Value> {
            let mut command = self.command(folder, "eval")?;
            command.arg("--checkpoint").arg(checkpoint).arg("--json").arg(json);
            for modality in modalities {
                command.arg(format!("--{}", modality.name())).arg(&data[modality.index()]);
            }
            said(command.args(&self.study.eval), folder)?;
            read(json)
        };
        let part = folder.join(".eval.json");
        let both = trained.join("best.safetensors");
        let scores = if both.exists() {
            eval(&both, &Modality::ALL, &part)?
        } else {
            let mut cases = vec![];
            for modality in Modality::ALL {
                let checkpoint = trained.join(format!("best-{}.safetensors", modality.name()));
                let scores = eval(&checkpoint, &[modality], &part)?;
                cases.extend(scores["cases"].as_array().context("no cases in the scores")?.iter().cloned());
            }
            serde_json::json!({ "cases": cases })
        };
        fs::remove_file(&part)?;
        volume::atomic::write_bytes(folder.join(SCORES), &serde_json::to_vec_pretty(&scores)?)
            .with_context(|| format!("cannot write {}", folder.join(SCORES).display()))
    }

    /// The data sets; phantoms are made on the first call.
    ///
    /// # Errors
    /// They cannot be made, or are those of another configuration.
    pub fn data(&self) -> Result<[PathBuf; 2]> {
        let arguments = match &self.study.data {
            Data::Folders { ct, mr } => return Ok([std::path::absolute(ct)?, std::path::absolute(mr)?]),
            Data::Phantom { phantom } => phantom,
        };
        let (whole, asked) = (self.out.join("data"), self.out.join("data/phantom.json"));
        if !whole.exists() {
            // Machines that share the folder make the same patients; whoever is first keeps them.
            let part = tempfile::tempdir_in(self.out).context("cannot make a folder for phantoms")?;
            said(self.command(self.out, "phantom")?.arg("--out").arg(part.path()).args(arguments), self.out)?;
            fs::write(part.path().join("phantom.json"), serde_json::to_vec(arguments)?)?;
            if let Err(error) = fs::rename(part.path(), &whole)
                && !whole.exists()
            {
                return Err(error).with_context(|| format!("cannot make {}", whole.display()));
            }
        }
        let found: Vec<String> = serde_json::from_value(read(&asked)?)?;
        ensure!(
            found == *arguments,
            "{}: made with {found:?}, expected {arguments:?}; choose another --out, or remove the study's old folder",
            whole.display()
        );
        subjects::data_sets(&whole)
    }

    fn asked(&self, run: &Run) -> Asked {
        let Study { data, eval, .. } = self.study;
        Asked { data: data.clone(), train: run.training(self.study), eval: eval.clone() }
    }

    /// A command of `gantry-train` whose output goes to the log of `folder`.
    fn command(&self, folder: &Path, subcommand: &str) -> Result<Command> {
        let path = folder.join(LOG);
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("cannot write {}", path.display()))?;
        let mut command = Command::new(self.program);
        command.arg(subcommand).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }
}

/// Runs a command; where it fails, with the last lines of what it said.
fn said(command: &mut Command, folder: &Path) -> Result<()> {
    let program = command.get_program().display().to_string();
    let status = command.status().with_context(|| format!("cannot start {program}; see --program"))?;
    if status.success() {
        return Ok(());
    }
    let log = folder.join(LOG);
    let text = fs::read_to_string(&log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(4)..].join("\n    ");
    bail!("gantry-train: {status}; {} ends in\n    {last}", log.display())
}

/// Refuses to go on with a folder that was made for something else, and says what differs.
fn same(path: &Path, asked: &Asked) -> Result<()> {
    let found: Asked = serde_json::from_value(read(path)?).with_context(|| format!("{}: not a run", path.display()))?;
    let differs = [
        ("data", format!("{:?}", found.data), format!("{:?}", asked.data)),
        ("train", found.train.join(" "), asked.train.join(" ")),
        ("eval", found.eval.join(" "), asked.eval.join(" ")),
    ];
    match differs.iter().find(|(_, found, asked)| found != asked) {
        None => Ok(()),
        Some((what, found, asked)) => bail!(
            "{}: its {what} was\n    {found}\nand the study now says\n    {asked}\nchoose another --out, or remove the old folder",
            path.parent().unwrap_or(path).display()
        ),
    }
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{}: not JSON", path.display()))
}
