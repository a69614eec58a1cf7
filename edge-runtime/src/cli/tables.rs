//! Reports for people. Every number here is also in the JSON.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
};

use contract::Modality;
use edge_runtime::{
    Code,
    bench::Report,
    inspect::{Inspection, PlanReport},
    profile::Profile,
    segment::VolumeReport,
    selftest::Answer,
    serve::Snapshot,
    sustained::Sustained,
    timing::{StageSummaries, Summary},
};
use serde::Serialize;

const MIB: f64 = (1 << 20) as f64;

/// One modality of `selftest --json`.
#[derive(Debug, Serialize)]
pub struct AnswerJson {
    logits_sha256: String,
    labels_sha256: String,
    /// `null` if the model records no digests (f32).
    pass: Option<bool>,
}

/// Answers keyed by modality.
pub fn answers_json(answers: &[Answer]) -> BTreeMap<&'static str, AnswerJson> {
    let json = |answer: &Answer| AnswerJson {
        logits_sha256: answer.logits_sha256.clone(),
        labels_sha256: answer.labels_sha256.clone(),
        pass: answer.pass(),
    };
    answers.iter().map(|answer| (answer.modality.name(), json(answer))).collect()
}

/// Digests and verdict per modality.
pub fn answers(out: &mut impl Write, answers: &[Answer]) -> io::Result<()> {
    for answer in answers {
        let verdict = match answer.pass() {
            Some(true) => "PASS",
            Some(false) => "FAIL",
            None => "not recorded in the model",
        };
        writeln!(
            out,
            "{}  {verdict}\n  logits {}\n  labels {}",
            answer.modality, answer.logits_sha256, answer.labels_sha256
        )?;
        if let Some([logits, labels]) = answer.golden.as_ref().filter(|_| answer.pass() == Some(false)) {
            writeln!(out, "  expected\n  logits {logits}\n  labels {labels}")?;
        }
    }
    Ok(())
}

/// Slices and organs of a volume.
pub fn volume(out: &mut impl Write, report: &VolumeReport, output: &Path) -> io::Result<()> {
    let VolumeReport { segmented, blank, refused, .. } = report;
    let (input, output) = (report.input.display(), output.display());
    writeln!(out, "{input} -> {output}: {segmented} slices segmented, {blank} blank, {} refused", refused.len())?;
    if report.removed_voxels > 0 {
        writeln!(out, "  {} voxels outside the largest part of their organ taken away", report.removed_voxels)?;
    }
    for organ in &report.organs {
        writeln!(out, "  {:>3} {:<24} {:>10} voxels {:>9.1} ml", organ.class, organ.name, organ.voxels, organ.ml)?;
    }
    Ok(())
}

/// Times per stage of one modality; a `unit` is what is timed, a slice or a tile.
pub fn stages(out: &mut impl Write, modality: Modality, unit: &str, stages: &StageSummaries) -> io::Result<()> {
    writeln!(out, "{modality}, {} {unit}s, ms     p50      p90      p99      max", stages.slices)?;
    let whole = format!("whole {unit}");
    let StageSummaries { preprocess, infer, postprocess, slice, .. } = stages;
    for (name, summary) in [("preprocess", preprocess), ("infer", infer), ("postprocess", postprocess), (&whole, slice)]
    {
        let Summary { p50_ms, p90_ms, p99_ms, p999_ms: _, max_ms } = summary;
        writeln!(out, "  {name:<16} {p50_ms:>8.2} {p90_ms:>8.2} {p99_ms:>8.2} {max_ms:>8.2}")?;
    }
    Ok(())
}

/// Latencies, start-up and memory.
pub fn bench(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let size: Vec<String> = report.size.iter().map(usize::to_string).collect();
    writeln!(out, "{} on {} ({}), input of {}", report.name, report.cpu, report.arch, size.join(" x "))?;
    writeln!(out, "engine {}", report.engine)?;
    if !report.optimised {
        writeln!(out, "built without optimisation: times say nothing about a release build")?;
    }
    for modality in &report.modalities {
        stages(out, modality.modality, "slice", &modality.stages)?;
    }
    writeln!(
        out,
        "read model {:.1} ms, plan {:.1} ms, self-test {:.1} ms",
        report.load_ms, report.plan_ms, report.selftest_ms
    )?;
    for first in &report.first_result_ms {
        writeln!(out, "process start to first {} label map {:.1} ms", first.modality, first.ms)?;
    }
    match report.peak_bytes {
        Some(bytes) => writeln!(out, "peak memory {:.1} MiB", bytes as f64 / MIB)?,
        None => writeln!(out, "peak memory unknown on this system")?,
    }
    Ok(())
}

/// Manifest, costs and layers.
pub fn inspection(out: &mut impl Write, model: &Inspection) -> io::Result<()> {
    let modalities: Vec<&str> = model.modalities.iter().map(|modality| modality.name()).collect();
    let labels: Vec<String> = model.labels.iter().map(|(class, label)| format!("{class} {}", label.name)).collect();
    let grid = model.grid;
    writeln!(
        out,
        "{} ({:?}), contract {}, modalities {}",
        model.name,
        model.precision,
        model.contract,
        modalities.join(" ")
    )?;
    writeln!(out, "labels      {}", labels.join(", "))?;
    writeln!(out, "grid        {} x {} at {} mm, {} slice(s)", grid.height, grid.width, grid.spacing_mm, model.slices)?;
    writeln!(
        out,
        "intensity   ct {:?}, mr {:?}, scale {}",
        model.intensity.ct, model.intensity.mr, model.intensity.scale
    )?;
    let provenance = &model.provenance;
    writeln!(out, "trained by  {}: {}", provenance.tool, provenance.command)?;
    writeln!(
        out,
        "            {}, {} steps, seed {}, data {:?}",
        provenance.topology, provenance.steps, provenance.seed, provenance.data
    )?;
    writeln!(out, "file        {} bytes, SHA-256 {}", model.file_bytes, model.file_sha256)?;
    writeln!(
        out,
        "parameters  {} shared, {} of norms per modality (folded)",
        model.parameters, model.norm_parameters_per_modality
    )?;
    let share = 100. * model.int8_macs as f64 / (model.macs as f64).max(1.);
    writeln!(
        out,
        "work        {:.1} M multiply-accumulates per image, {share:.1} % in int8 here",
        model.macs as f64 / 1e6
    )?;
    writeln!(out, "engine      {}", model.engine)?;
    writeln!(
        out,
        "memory      {:.2} MiB of weights and tables, {:.2} MiB of it used by more than one modality",
        model.constant_bytes as f64 / MIB,
        model.shared_constant_bytes as f64 / MIB
    )?;
    writeln!(out, "\n{:<14} {:<20} {:>16} {:>10}  runs  plan", "layer", "op", "output", "MMAC")?;
    for layer in &model.layers {
        let [channels, depth, height, width] = layer.shape;
        let shape = if depth == 1 {
            format!("{channels}x{height}x{width}")
        } else {
            format!("{channels}x{depth}x{height}x{width}")
        };
        let (macs, runs) = (layer.macs as f64 / 1e6, layer.runs.unwrap_or("-"));
        writeln!(
            out,
            "{:<14} {:<20} {shape:>16} {macs:>10.2}  {runs:<4}  {}",
            layer.name,
            layer.op,
            layer.plan.join(" ")
        )?;
    }
    for golden in &model.golden {
        writeln!(
            out,
            "\ngolden {}\n  logits {}\n  labels {}",
            golden.modality, golden.logits_sha256, golden.labels_sha256
        )?;
    }
    Ok(())
}

/// Steps and memory of the planned engine.
pub fn plan(out: &mut impl Write, plan: &PlanReport) -> io::Result<()> {
    writeln!(out, "kernel {}\n\n{:<14} {:>10} {:>10}  step", plan.kernel, "layer", "at", "bytes")?;
    for step in &plan.steps {
        writeln!(out, "{:<14} {:>10} {:>10}  {}", step.layer, step.at, step.bytes, step.step)?;
    }
    let ratio = plan.arena_bytes as f64 / plan.alive_bytes as f64;
    writeln!(
        out,
        "\narena    {:>10} bytes, {ratio:.3} of the {} that are alive at one time",
        plan.arena_bytes, plan.alive_bytes
    )?;
    writeln!(out, "weights  {:>10} bytes, packed once for all modalities", plan.weight_bytes)?;
    writeln!(out, "tables   {:>10} bytes, of all modalities", plan.table_bytes)
}

/// Time of each step.
pub fn profile(out: &mut impl Write, profile: &Profile) -> io::Result<()> {
    writeln!(out, "{}, kernel {}, one thread, medians of {} slices", profile.name, profile.kernel, profile.runs)?;
    writeln!(
        out,
        "\n{:<12} {:<34} {:>8} {:>9} {:>8} {:>8} {:>6}",
        "layer", "step", "MMAC", "kB", "us", "GMAC/s", "peak"
    )?;
    for step in &profile.steps {
        let (mmac, kb, us) = (step.macs as f64 / 1e6, step.bytes as f64 / 1e3, step.ms * 1e3);
        write!(out, "{:<12} {:<34} {mmac:>8.2} {kb:>9.1} {us:>8.1}", step.layer, step.step)?;
        match step.macs {
            0 => writeln!(out)?,
            _ => writeln!(out, " {:>8.1} {:>4.0} %", step.gmacs, step.percent_of_peak)?,
        }
    }
    writeln!(
        out,
        "\nnetwork {:.3} ms, {:.0} % of this kernel's peak of {:.0} GMAC/s; memory copies at {:.1} GB/s",
        profile.total_ms, profile.percent_of_peak, profile.peak_gmacs, profile.memory_gbytes
    )
}

/// Every stable code.
pub fn codes(out: &mut impl Write) -> io::Result<()> {
    for code in Code::ALL {
        writeln!(out, "{:<14} {}\n{:<14} -> {}", code.name(), code.meaning(), "", code.advice())?;
    }
    Ok(())
}

/// The table of `docs/codes.md`.
pub fn codes_markdown(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "# Codes\n")?;
    writeln!(
        out,
        "Every refusal of `gantry-edge` has a stable code: it never changes its meaning and is never used again for"
    )?;
    writeln!(out, "another. Made by `gantry-edge codes --markdown`; a test compares.\n")?;
    writeln!(out, "| code | what it means | what to do |\n|---|---|---|")?;
    for code in Code::ALL {
        writeln!(out, "| `{}` | {} | {} |", code.name(), code.meaning(), code.advice())?;
    }
    Ok(())
}

/// What a service did.
pub fn service(out: &mut impl Write, snapshot: &Snapshot) -> io::Result<()> {
    writeln!(out, "instances and volumes  {}", snapshot.received)?;
    for (what, count) in &snapshot.slices {
        writeln!(out, "slices, {what:<14} {count}")?;
    }
    for (what, count) in &snapshot.series {
        writeln!(out, "series, {what:<14} {count}")?;
    }
    for (code, count) in &snapshot.codes {
        writeln!(out, "{code:<22} {count}")?;
    }
    if !snapshot.times.is_empty() {
        writeln!(out, "\n{:<18} {:>9} {:>9} {:>9} {:>9} {:>9}", "ms", "p50", "p90", "p99", "p99.9", "max")?;
    }
    for (what, time) in &snapshot.times {
        let Summary { p50_ms, p90_ms, p99_ms, p999_ms, max_ms } = time;
        writeln!(out, "{what:<18} {p50_ms:>9.3} {p90_ms:>9.3} {p99_ms:>9.3} {p999_ms:>9.3} {max_ms:>9.3}")?;
    }
    Ok(())
}

/// Steady load, minute by minute.
pub fn sustained(out: &mut impl Write, report: &Sustained) -> io::Result<()> {
    writeln!(out, "{} on {}, engine {}", report.name, report.cpu, report.engine)?;
    if !report.optimised {
        writeln!(out, "built without optimisation: times say nothing about a release build")?;
    }
    writeln!(out, "minute  modality  slices   p50 ms   p99 ms   max ms      MHz  hottest C")?;
    let known = |value: Option<f64>| value.map_or_else(|| "unknown".into(), |value| format!("{value:.0}"));
    for minute in &report.minutes {
        let (mhz, hottest) = (known(minute.cpu_mhz), known(minute.hottest_c));
        for times in &minute.modalities {
            let Summary { p50_ms, p99_ms, max_ms, .. } = times.slice;
            let (number, modality, slices) = (minute.minute, times.modality.name(), times.slices);
            writeln!(
                out,
                "{number:>6}  {modality:<8} {slices:>7} {p50_ms:>8.3} {p99_ms:>8.3} {max_ms:>8.3} {mhz:>8}  {hottest:>9}"
            )?;
        }
    }
    for (modality, ratio) in report.drift() {
        writeln!(out, "{modality}: the last minute's median is {ratio:.3} of the first one's")?;
    }
    Ok(())
}
