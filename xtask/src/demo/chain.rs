//! The three programs, one after the other: train, score, export, segment, measure.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use contract::{LabelMap, Modality, ModelSpec};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use volume::dataset::Split;

use crate::{libtorch, shell};

/// The built programs.
pub struct Programs {
    /// `gantry-train`.
    pub train: PathBuf,
    /// `gantry-export`.
    pub export: PathBuf,
    /// `gantry-edge`.
    pub edge: PathBuf,
}

/// Data sets in, models, label maps and figures out.
pub struct Chain {
    /// What runs.
    pub programs: Programs,
    /// One data set per modality, in table order.
    pub data: [PathBuf; 2],
    /// Output folder.
    pub out: PathBuf,
    /// Scans that are scored.
    pub split: Split,
    /// Further arguments of the training.
    pub training: Vec<String>,
    /// Slices per modality whose latency is measured.
    pub bench_runs: usize,
    /// When the whole began, phantoms included, builds not.
    pub start: Instant,
}

/// What a label map came from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The trainer's own network.
    Trained,
    /// The f32 file in the edge runtime.
    F32,
    /// The int8 file in the edge runtime.
    Int8,
}

/// What the chain found.
pub struct Results {
    /// Dice per stage, in the order of [`Stage`].
    pub scores: [Scores; 3],
    /// `gantry-edge bench --json` of the int8 file.
    pub bench: Value,
    /// Wall time, seconds.
    pub seconds: f64,
}

/// The part of `gantry-train eval --json` that is shown.
#[derive(Deserialize)]
pub struct Scores {
    /// One per modality and organ, then `all organs`.
    pub summary: Vec<OrganSummary>,
}

/// One organ over all cases.
#[derive(Deserialize)]
pub struct OrganSummary {
    /// Of the cases.
    pub modality: Modality,
    /// Name, or `all organs`.
    pub organ: String,
    /// Mean over cases.
    pub dice: Option<Spread>,
}

/// Mean over cases.
#[derive(Deserialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
}

impl Stage {
    /// Folder name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trained => "trained",
            Self::F32 => "f32",
            Self::Int8 => "int8",
        }
    }
}

impl Programs {
    /// Those in `folder`; without one they are built, in release.
    pub fn get(folder: Option<&Path>) -> Result<Self> {
        let folder = match folder {
            Some(folder) => std::path::absolute(folder)?,
            None => {
                libtorch::setup()?;
                let packages = ["-p", "host-train", "-p", "export", "-p", "edge-runtime"];
                shell::run(&mut shell::cargo(["build", "--release"].iter().chain(&packages)))?;
                shell::target_dir().join("release")
            }
        };
        let program = |name: &str| folder.join(name).with_extension(std::env::consts::EXE_EXTENSION);
        Ok(Self { train: program("gantry-train"), export: program("gantry-export"), edge: program("gantry-edge") })
    }
}

impl Chain {
    /// All steps.
    pub fn run(&self) -> Result<Results> {
        fs::create_dir_all(self.model()).with_context(|| format!("cannot create {}", self.model().display()))?;
        self.train()?;
        self.export()?;
        for modality in Modality::ALL {
            for stage in [Stage::F32, Stage::Int8] {
                self.segment(stage, modality)?;
            }
        }
        let scores = [self.score(Stage::Trained)?, self.score(Stage::F32)?, self.score(Stage::Int8)?];
        let runs = self.bench_runs.to_string();
        let mut bench = shell::command(&self.programs.edge, ["bench", "--json", "--runs", &runs, "--model"]);
        let bench = shell::output(bench.arg(self.onnx(Stage::Int8)))?;
        let bench = serde_json::from_str(&bench).context("gantry-edge bench --json")?;
        Ok(Results { scores, bench, seconds: self.start.elapsed().as_secs_f64() })
    }

    /// Folder of the model files.
    pub fn model(&self) -> PathBuf {
        self.out.join("model")
    }

    /// A model file.
    pub fn onnx(&self, stage: Stage) -> PathBuf {
        self.model().join(if stage == Stage::Int8 { "model.onnx" } else { "model.f32.onnx" })
    }

    /// The trainer's history.
    pub fn history(&self) -> PathBuf {
        self.out.join("run/metrics.jsonl")
    }

    /// What the network calls its classes.
    pub fn labels(&self) -> Result<LabelMap> {
        /// The part of the trainer's settings that is used.
        #[derive(Deserialize)]
        struct Settings {
            spec: ModelSpec,
        }
        Ok(read_json::<Settings>(&self.out.join("run/settings.json"))?.spec.labels)
    }

    /// The exporter's report.
    pub fn export_report(&self) -> PathBuf {
        self.model().join("report.json")
    }

    /// Label maps of a stage.
    pub fn label_maps(&self, stage: Stage, modality: Modality) -> PathBuf {
        self.out.join("labels").join(stage.name()).join(modality.name())
    }

    fn train(&self) -> Result<()> {
        let mut command = shell::command(&self.programs.train, ["train"]);
        self.with_data(&mut command).arg("--out").arg(self.out.join("run")).args(&self.training);
        shell::run(&mut command)?;
        let (best, kept) = (self.out.join("run/best.safetensors"), self.model().join("checkpoint.safetensors"));
        ensure!(
            best.exists(),
            "this topology has a network per modality, and one file holds one network: export best-ct.safetensors and \
             best-mr.safetensors of {} with gantry-export, one by one",
            self.out.join("run").display()
        );
        fs::copy(&best, &kept).with_context(|| format!("cannot copy {} to {}", best.display(), kept.display()))?;
        Ok(())
    }

    fn export(&self) -> Result<()> {
        let mut command = shell::command(&self.programs.export, ["onnx"]);
        command.arg(self.model().join("checkpoint.safetensors"));
        self.with_data(&mut command).arg("--out").arg(self.onnx(Stage::Int8)).arg("--report").arg(self.export_report());
        shell::run(&mut command)
    }

    fn segment(&self, stage: Stage, modality: Modality) -> Result<()> {
        let out = self.label_maps(stage, modality);
        fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
        let mut command = shell::command(&self.programs.edge, ["segment", "--modality", modality.name(), "--model"]);
        command.arg(self.onnx(stage)).arg(self.images(modality)).arg("--out").arg(&out);
        shell::run(&mut command)
    }

    fn score(&self, stage: Stage) -> Result<Scores> {
        let file = self.out.join("labels").join(stage.name()).with_extension("json");
        let mut command = shell::command(&self.programs.train, ["eval", "--split"]);
        command.arg(if self.split == Split::Train { "train" } else { "test" });
        self.with_data(&mut command).arg("--json").arg(&file);
        match stage {
            Stage::Trained => command.arg("--checkpoint").arg(self.model().join("checkpoint.safetensors")),
            Stage::F32 | Stage::Int8 => command.arg("--predictions").arg(self.out.join("labels").join(stage.name())),
        };
        shell::run(&mut command)?;
        read_json(&file)
    }

    fn images(&self, modality: Modality) -> PathBuf {
        self.data[modality.index()].join(if self.split == Split::Train { "imagesTr" } else { "imagesTs" })
    }

    fn with_data<'a>(&self, command: &'a mut std::process::Command) -> &'a mut std::process::Command {
        command.arg("--ct").arg(&self.data[0]).arg("--mr").arg(&self.data[1])
    }
}

/// Reads a JSON file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not what was expected", path.display()))
}
