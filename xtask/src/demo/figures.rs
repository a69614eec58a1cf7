//! What the chain measured, as the tables, headline figures and pictures of the report.

use std::path::Path;

use anyhow::{Context, Result};
use contract::{LabelMap, Modality};
use report::{Row, Table};
use serde_json::Value;
use volume::{
    dataset::{Dataset, Split},
    overlay::{self, Picture, Window},
};

use super::{
    chain::{self, Chain, Results, Stage},
    page::Report,
};

/// Slices of each picture, and their side in pixels.
const SLICES: usize = 3;
const SIDE: usize = 300;

/// Lays everything out.
pub fn report(chain: &Chain, results: &Results, scans: &str) -> Result<Report> {
    let labels = chain.labels()?;
    let mut pictures = vec![];
    for modality in Modality::ALL {
        pictures.push(picture(chain, modality, &labels)?);
    }
    let minutes = results.seconds / 60.;
    let cpu = results.bench["cpu"].as_str().unwrap_or("unknown CPU");
    Ok(Report {
        summary: vec![
            format!("Scored on {scans}."),
            format!("{minutes:.1} minutes from data to report on {cpu}, {} threads.", threads()),
        ],
        figures: figures(chain, results)?,
        dice: dice(results),
        latency: latency(&results.bench)?,
        charts: charts(&chain.history(), &labels)?,
        pictures,
        labels,
    })
}

fn charts(path: &Path, labels: &LabelMap) -> Result<Vec<report::Chart>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let history = report::History::parse(&text).with_context(|| path.display().to_string())?;
    Ok(report::charts(&history, labels))
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn figures(chain: &Chain, results: &Results) -> Result<Vec<(String, String)>> {
    let export: Value = chain::read_json(&chain.export_report())?;
    let bytes =
        |name: &str| export["sizes"][name].as_f64().with_context(|| format!("no {name} in the exporter's report"));
    let (int8, f32, second) = (bytes("int8_bytes")?, bytes("f32_bytes")?, bytes("second_modality_bytes")?);
    let mean = |stage: usize, modality| {
        let rows = &results.scores[stage].summary;
        rows.iter().find(|row| row.modality == modality && row.organ == ALL).and_then(|row| row.dice.as_ref())
    };
    let mut figures = vec![];
    for modality in Modality::ALL {
        let value = mean(2, modality).map_or("none".into(), |dice| format!("{:.3}", dice.mean));
        figures.push((value, format!("mean Dice of the int8 label maps, {}", title(modality))));
    }
    figures.push((
        format!("{:.0} kB", int8 / 1e3),
        format!("model.onnx, int8: {:.1} % of the f32 file ({:.0} kB)", 100. * int8 / f32, f32 / 1e3),
    ));
    figures.push((
        format!("{:.1} kB", second / 1e3),
        format!("is what MRI adds to it: {:.1} %", 100. * second / (int8 - second)),
    ));
    Ok(figures)
}

/// Name of the mean over organs in the trainer's scores.
const ALL: &str = "all organs";

fn dice(results: &Results) -> Table {
    let columns = ["", "organ", "trained network", "f32 ONNX, edge", "int8 ONNX, edge", "int8 - trained"];
    let rows = results.scores[0].summary.iter().map(|first| {
        let of = |stage: usize| {
            let same = |row: &&chain::OrganSummary| row.modality == first.modality && row.organ == first.organ;
            results.scores[stage].summary.iter().find(same).and_then(|row| row.dice.as_ref()).map(|dice| dice.mean)
        };
        let shown = |value: Option<f64>| value.map_or("none".into(), |value| format!("{value:.4}"));
        let loss = of(2).zip(of(0)).map_or("none".into(), |(int8, trained)| format!("{:+.4}", int8 - trained));
        let cells = vec![title(first.modality), first.organ.clone(), shown(of(0)), shown(of(1)), shown(of(2)), loss];
        Row { cells, mean: first.organ == ALL }
    });
    Table { columns: columns.map(String::from).to_vec(), rows: rows.collect() }
}

/// Stages of `gantry-edge bench --json`, and what they are.
const STAGES: [(&str, &str); 4] = [
    ("preprocess", "intensity and model grid"),
    ("infer", "network and argmax"),
    ("postprocess", "back to the scanner's grid"),
    ("slice", "whole slice"),
];

fn latency(bench: &Value) -> Result<Table> {
    let columns = ["", "stage", "p50 ms", "p90 ms", "p99 ms", "max ms"].map(String::from).to_vec();
    let mut rows = vec![];
    for modality in bench["modalities"].as_array().context("no modalities in the bench")? {
        let name: Modality = serde_json::from_value(modality["modality"].clone())?;
        for (key, stage) in STAGES {
            let times = &modality["stages"][key];
            let ms = |key: &str| times[key].as_f64().map_or("none".into(), |ms| format!("{ms:.2}"));
            let cells = vec![title(name), stage.into(), ms("p50_ms"), ms("p90_ms"), ms("p99_ms"), ms("max_ms")];
            rows.push(Row { cells, mean: key == "slice" });
        }
    }
    Ok(Table { columns, rows })
}

/// Image, truth and int8 result of the first case, a few slices each.
fn picture(chain: &Chain, modality: Modality, labels: &LabelMap) -> Result<(Vec<u8>, String)> {
    let data = Dataset::open(&chain.data[modality.index()], labels)?;
    let cases = if chain.split == Split::Train { &data.train } else { &data.test };
    let case = cases.first().with_context(|| format!("no cases in {}", chain.data[modality.index()].display()))?;
    let (image, truth) = data.load(case)?;
    let found = chain.label_maps(Stage::Int8, modality).join(format!("{}.nii.gz", case.name));
    let found = volume::read_labels(&found, &volume::LabelTable::identity(labels))?;
    let window = Window::of(modality, &image.raw);
    let pixels = image.plane().height * image.plane().width;
    let mut panels = vec![];
    let slices = overlay::spread(&truth.classes, image.shape(), SLICES);
    for classes in [None, Some(&truth.classes), Some(&found.classes)] {
        for &z in &slices {
            let range = z * pixels..(z + 1) * pixels;
            let classes = classes.map(|classes| &classes[range.clone()]);
            panels.push(Picture::slice(&image.raw[range.clone()], classes, image.plane(), window, labels, SIDE)?);
        }
    }
    let png = Picture::montage(&panels, slices.len())?.png()?;
    let caption =
        format!("{}, {}: image, truth, int8 result (rows); slices {slices:?} (columns)", title(modality), case.name);
    Ok((png, caption))
}

fn title(modality: Modality) -> String {
    match modality {
        Modality::Ct => "CT".into(),
        Modality::Mr => "MRI".into(),
    }
}
