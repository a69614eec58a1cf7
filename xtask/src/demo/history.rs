//! The trainer's `metrics.jsonl` as charts: segmentation and distillation apart, Dice per modality.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use contract::{LabelMap, Modality};
use serde_json::Value;

use crate::report::{Chart, Series};

/// Share of the newest value in a smoothed curve; single batches are noisy.
const FRESH: f64 = 0.1;

/// Reads a history.
pub fn charts(path: &Path, labels: &LabelMap) -> Result<Vec<Chart>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines: Vec<Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is not one JSON object per line", path.display()))?;
    let of_kind = |kind: &str| lines.iter().filter(move |line| line["kind"] == kind).collect::<Vec<_>>();
    let (steps, validations) = (of_kind("step"), of_kind("validation"));
    let loss = |name: &str, color, key: &str| Series {
        name: name.into(),
        color,
        points: smooth(points(&steps, |line| &line[key])),
    };
    let mut charts = vec![
        Chart {
            caption: "Segmentation losses (smoothed)".into(),
            unit: "loss".into(),
            series: vec![
                loss("Dice loss, CT", 0, "dice_ct"),
                loss("Dice loss, MRI", 1, "dice_mr"),
                loss("cross-entropy, CT", 2, "ce_ct"),
                loss("cross-entropy, MRI", 3, "ce_mr"),
            ],
            range: None,
        },
        Chart {
            caption: "Distillation between CT and MRI (smoothed)".into(),
            unit: "symmetric KL, nats".into(),
            series: vec![loss("KL", 3, "kd")],
            range: None,
        },
    ];
    for modality in Modality::ALL {
        let organs = labels.organs().map(|(class, label)| Series {
            name: label.name.clone(),
            color: 3 + usize::from(class),
            points: points(&validations, |line| &line[modality.name()][&label.name]),
        });
        let mean = Series {
            name: "mean".into(),
            color: modality.index(),
            points: points(&validations, |line| &line[modality.name()]["mean"]),
        };
        charts.push(Chart {
            caption: format!("Dice on validation subjects, {}", modality.name().to_uppercase()),
            unit: "Dice".into(),
            series: organs.chain([mean]).collect(),
            range: Some((0., 1.)),
        });
    }
    Ok(charts)
}

/// Step and value of every line that has both; a later line of the same step wins.
fn points(lines: &[&Value], value: impl Fn(&Value) -> &Value) -> Vec<(f64, f64)> {
    let by_step: BTreeMap<u64, f64> =
        lines.iter().filter_map(|line| Some((line["step"].as_u64()?, value(line).as_f64()?))).collect();
    by_step.into_iter().map(|(step, value)| (step as f64, value)).collect()
}

fn smooth(mut points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let mut mean = points.first().map_or(0., |point| point.1);
    for point in &mut points {
        mean += FRESH * (point.1 - mean);
        point.1 = mean;
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_becomes_curves_and_a_broken_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let text = "{\"kind\":\"step\",\"step\":1,\"dice_ct\":-0.5,\"kd\":0.25}\n\
                    {\"kind\":\"step\",\"step\":2,\"dice_ct\":-0.7,\"kd\":0.125}\n\
                    {\"kind\":\"validation\",\"step\":2,\"ct\":{\"liver\":0.5,\"spleen\":null,\"mean\":0.5},\"mr\":{}}\n";
        std::fs::write(&path, text).unwrap();
        let charts = charts(&path, &LabelMap::abdomen()).unwrap();
        assert_eq!(charts[0].series[0].points, [(1., -0.5), (2., -0.5 + FRESH * -0.2)]);
        assert_eq!(charts[2].series[0].points, [(2., 0.5)]);
        assert!(charts[2].series[3].points.is_empty(), "an organ without a value has no point");
        std::fs::write(&path, "{\"kind\"").unwrap();
        assert!(super::charts(&path, &LabelMap::abdomen()).is_err());
    }
}
