//! Latency as a device engineer reports it: per modality, whole slices from raw pixels to labels on the scanner's grid,
//! CT and MR in turn so that both meet the same machine. 3D models, which no slice loop feeds, are timed from codes to labels.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use contract::{Grid, Modality, Plane, golden, net::Spatial};
use serde::Serialize;

use crate::{
    EdgeError, Engine, Model, Segmenter,
    engine::Options,
    selftest,
    timing::{StageSummaries, Stages},
};

/// Sides of the slice that is timed: the usual matrix of both modalities.
const SIDE: usize = 512;
/// Slices per modality before the clock runs.
const WARM_UP: usize = 3;

/// Everything that `gantry-edge bench` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Network.
    pub name: String,
    /// CPU as the system names it.
    pub cpu: String,
    /// Who executed, with what.
    pub engine: String,
    /// Instruction set of this program, e.g. `x86_64`.
    pub arch: &'static str,
    /// Whether this program was built with optimisation.
    pub optimised: bool,
    /// What is timed: rows and columns of slices as they come, or depth, rows and columns of a 3D model's own image.
    pub size: Vec<usize>,
    /// Slices per modality.
    pub runs: usize,
    /// Reading and checking the file, ms.
    pub load_ms: f64,
    /// Planning every branch, ms.
    pub plan_ms: f64,
    /// Self-test of every branch, ms.
    pub selftest_ms: f64,
    /// From the start of a process to its first label map (load, plan, self-test, one slice), ms, per modality.
    pub first_result_ms: Vec<FirstResult>,
    /// Largest memory of this process, bytes (`VmHWM`); `None` where the system does not say.
    pub peak_bytes: Option<u64>,
    /// Times per modality.
    pub modalities: Vec<ModalityReport>,
}

/// Time to the first label map of one modality.
#[derive(Clone, Debug, Serialize)]
pub struct FirstResult {
    /// Branch.
    pub modality: Modality,
    /// Wall time, ms.
    pub ms: f64,
}

/// Times of one modality.
#[derive(Clone, Debug, Serialize)]
pub struct ModalityReport {
    /// Branch.
    pub modality: Modality,
    /// Stages and whole slices.
    pub stages: StageSummaries,
}

/// A raw slice of the usual matrix over the model's whole field of view: the golden picture, as intensities.
#[derive(Clone, Debug)]
pub struct Specimen {
    /// Raw values `[512][512]`.
    pub raw: Vec<i16>,
    /// Its pixels.
    pub plane: Plane,
}

impl Specimen {
    /// Makes the slice of a modality.
    pub fn new(modality: Modality, grid: Grid) -> Self {
        let mut codes = vec![0; SIDE * SIDE];
        golden::codes(modality, SIDE, SIDE, &mut codes);
        let raw = codes.into_iter().map(|code| match modality {
            // HU on both sides of water.
            Modality::Ct => 3 * i16::from(code),
            Modality::Mr => 3 * (i16::from(code) + 128),
        });
        let mm = |pixels: usize| f64::from(grid.spacing_mm) * pixels as f64 / SIDE as f64;
        let plane = Plane { height: SIDE, width: SIDE, row_mm: mm(grid.height), column_mm: mm(grid.width) };
        Self { raw: raw.collect(), plane }
    }
}

/// Measures everything; `progress` hears each finished round. `program` is this program, started again for the time to the
/// first result; `None` leaves that out.
pub fn run(
    path: &Path,
    options: &Options,
    runs: usize,
    program: Option<&Path>,
    mut progress: impl FnMut(usize),
) -> Result<Report, EdgeError> {
    let start = Instant::now();
    let model = Model::load(path)?;
    let loaded = Instant::now();
    let mut engine = Engine::with(&model, options)?;
    let planned = Instant::now();
    selftest::demand(&model, &mut engine)?;
    let tested = Instant::now();
    let modalities = &model.spec().modalities;
    let mut first_result_ms = vec![];
    if let Some(program) = program {
        for &modality in modalities {
            first_result_ms.push(FirstResult { modality, ms: ms(first_result(program, path, &engine, modality)?) });
        }
    }
    let modalities = rounds(&model, &mut engine, runs, &mut progress)?;
    Ok(Report {
        name: model.spec().net.name.clone(),
        cpu: cpu_name(),
        engine: engine.to_string(),
        arch: std::env::consts::ARCH,
        optimised: !cfg!(debug_assertions),
        size: match model.spec().net.spatial {
            Spatial::D2 => vec![SIDE; 2],
            Spatial::D3 => model.spec().net.input.size.to_vec(),
        },
        runs,
        load_ms: ms(loaded - start),
        plan_ms: ms(planned - loaded),
        selftest_ms: ms(tested - planned),
        first_result_ms,
        peak_bytes: peak_bytes(),
        modalities,
    })
}

/// Loads, tests and segments a slice so many times: what the process that is timed from outside does, once.
pub fn first_slice(path: &Path, options: &Options, modality: Modality, slices: usize) -> Result<(), EdgeError> {
    let model = Model::load(path)?;
    let mut engine = Engine::with(&model, options)?;
    selftest::demand(&model, &mut engine)?;
    let mut lane = Lane::new(&model, &engine, modality)?;
    (0..slices).try_for_each(|_| lane.run(&mut engine))
}

/// One modality's input, and what segments it.
pub(crate) struct Lane {
    modality: Modality,
    out: Vec<u8>,
    source: Source,
}

enum Source {
    Slice(Box<Segmenter>, Specimen),
    /// A 3D image, and the times of its runs.
    Codes(Vec<i8>, Box<Stages>),
}

impl Lane {
    pub(crate) fn new(model: &Model, engine: &Engine, modality: Modality) -> Result<Self, EdgeError> {
        let grid = model.spec().grid;
        let (source, pixels) = match model.spec().net.spatial {
            Spatial::D2 => {
                let specimen = Specimen::new(modality, grid);
                let segmenter = Box::new(Segmenter::new(model, modality, specimen.plane)?);
                (Source::Slice(segmenter, specimen), SIDE * SIDE)
            }
            Spatial::D3 => {
                let mut codes = vec![0; engine.image_len()];
                golden::codes(modality, grid.height, grid.width, &mut codes);
                (Source::Codes(codes, Box::default()), engine.labels_len())
            }
        };
        Ok(Self { modality, out: vec![0; pixels], source })
    }

    pub(crate) fn run(&mut self, engine: &mut Engine) -> Result<(), EdgeError> {
        match &mut self.source {
            Source::Slice(segmenter, specimen) => {
                segmenter.restart();
                segmenter.segment(engine, &specimen.raw, 0, &mut self.out)
            }
            Source::Codes(codes, stages) => {
                let start = Instant::now();
                engine.run(codes, self.modality, &mut self.out)?;
                let end = Instant::now();
                stages.record([start, start, end, end]);
                Ok(())
            }
        }
    }

    pub(crate) const fn modality(&self) -> Modality {
        self.modality
    }

    pub(crate) fn stages(&mut self) -> &mut Stages {
        match &mut self.source {
            Source::Slice(segmenter, _) => &mut segmenter.stages,
            Source::Codes(_, stages) => stages,
        }
    }
}

fn rounds(
    model: &Model,
    engine: &mut Engine,
    runs: usize,
    progress: &mut impl FnMut(usize),
) -> Result<Vec<ModalityReport>, EdgeError> {
    let lane = |&modality| Lane::new(model, engine, modality);
    let mut lanes = model.spec().modalities.iter().map(lane).collect::<Result<Vec<_>, _>>()?;
    for round in 0..WARM_UP + runs {
        for lane in &mut lanes {
            if round == WARM_UP {
                *lane.stages() = Stages::default();
            }
            lane.run(engine)?;
        }
        progress((round + 1).saturating_sub(WARM_UP));
    }
    let report = |mut lane: Lane| ModalityReport { modality: lane.modality, stages: lane.stages().summary() };
    Ok(lanes.into_iter().map(report).collect())
}

/// Wall time of a fresh process up to its end, which comes right after its first label map.
fn first_result(program: &Path, model: &Path, engine: &Engine, modality: Modality) -> Result<Duration, EdgeError> {
    let start = Instant::now();
    let mut command = Command::new(program);
    command.arg("first-slice").arg("--model").arg(model).args(["--modality", modality.name()]).stdout(Stdio::null());
    match engine {
        Engine::Planned(engine) => command.args(["--engine", "planned", "--kernel", engine.kernels().name()]),
        Engine::Tract { .. } => command.args(["--engine", "tract"]),
    };
    let status = command.status().map_err(|source| EdgeError::Output { path: program.to_path_buf(), source })?;
    if status.success() {
        Ok(start.elapsed())
    } else {
        Err(EdgeError::Run { modality, reason: format!("the process for the first slice ended with {status}") })
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Largest resident memory of this process.
pub fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The CPU's name; on ARM boards, whose kernel gives none, the board's.
pub fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        info.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim())
    };
    let board = || std::fs::read_to_string("/proc/device-tree/model").ok();
    let name = field("model name").or_else(|| field("Model")).map(str::to_string).or_else(board);
    name.map_or_else(|| "unknown".to_string(), |name| name.trim_end_matches('\0').to_string())
}
