//! `gantry-edge segment`: every volume in turn, each unharmed by the others' refusals.

use std::{io::Write, path::Path};

use contract::{Modality, net::Spatial, tiles::Tiling};
use edge_runtime::{
    EdgeError, Engine, Model,
    segment::{self, Segmented, VolumeReport},
    selftest,
    timing::{StageSummaries, Stages},
};
use serde::Serialize;

use super::{
    SegmentArgs,
    jobs::{self, Job},
    tables,
};
use crate::{complain, progress_bar, show, show_json, warn_of_float};

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: &'a Path,
    model_sha256: &'a str,
    /// Who executed, with what.
    engine: String,
    modality: Modality,
    /// How tiles lie on each other; absent for a 2D network.
    tiling: Option<Tiling>,
    /// Whether only the largest connected part of each organ was kept.
    largest_component: bool,
    volumes: Vec<VolumeReport>,
    /// Volumes of which nothing was written.
    refused: Vec<RefusedVolume>,
    /// Over all volumes.
    stages: StageSummaries,
}

#[derive(Debug, Serialize)]
struct RefusedVolume {
    input: std::path::PathBuf,
    code: &'static str,
    reason: String,
}

/// Segments all that was asked for; `false` if a volume was refused.
pub fn segment(args: &SegmentArgs) -> Result<bool, EdgeError> {
    let jobs = jobs::plan(args)?;
    let model = Model::load(&args.model)?;
    let mut engine = args.engine.load(&model)?;
    warn_of_float(&model, &engine);
    selftest::demand(&model, &mut engine)?;
    if !args.json {
        show(|out| writeln!(out, "engine {engine}"));
    }
    let is_3d = model.spec().net.spatial == Spatial::D3;
    let (mut volumes, mut refused, mut stages) = (vec![], vec![], Stages::default());
    for job in &jobs {
        match one(args, &model, &mut engine, job) {
            Ok(done) => {
                report_refusals(&done.report);
                if !args.json {
                    show(|out| tables::volume(out, &done.report, &job.output));
                }
                stages.merge(&done.stages);
                volumes.push(done.report);
            }
            Err(error) => {
                complain(&error);
                let (code, reason) = (error.code().name(), error.to_string());
                refused.push(RefusedVolume { input: job.input.clone(), code, reason });
            }
        }
    }
    let (model_sha256, stages, complete) = (model.sha256.as_str(), stages.summary(), refused.is_empty());
    if args.json {
        let (model, modality, engine) = (args.model.as_path(), args.modality, engine.to_string());
        let (tiling, largest_component) = (is_3d.then(|| args.tiling.into()), args.largest_component);
        show_json(&Report {
            model,
            model_sha256,
            engine,
            modality,
            tiling,
            largest_component,
            volumes,
            refused,
            stages,
        });
    } else if stages.slices > 0 {
        let unit = if is_3d { "tile" } else { "slice" };
        show(|out| tables::stages(out, args.modality, unit, &stages));
    }
    Ok(complete)
}

fn one(args: &SegmentArgs, model: &Model, engine: &mut Engine, job: &Job) -> Result<Segmented, EdgeError> {
    let bar = progress_bar(0, &job.input.display().to_string());
    let progress = |slice, slices| {
        bar.set_length(slices as u64);
        bar.set_position(slice as u64);
    };
    let options = segment::Options {
        allow_partial: args.allow_partial,
        tiling: args.tiling.into(),
        largest_component: args.largest_component,
    };
    let done = segment::volume(model, engine, args.modality, &job.input, &options, progress);
    bar.finish_and_clear();
    let done = done?;
    done.write(&job.output)?;
    if let Some(overlay) = &job.overlay {
        done.write_overlay(overlay, &model.spec().labels)?;
    }
    Ok(done)
}

/// Refused slices of a volume that was written all the same.
fn report_refusals(report: &VolumeReport) {
    for refusal in &report.refused {
        let input = report.input.display();
        eprintln!("warning [{}]: {input}: slice {}: {}; it is background", refusal.code, refusal.slice, refusal.reason);
    }
}
