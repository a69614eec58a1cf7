//! The trainer's `metrics.jsonl` as charts: segmentation and distillation apart, Dice per modality, and what CT and MRI do
//! to each other.

use std::collections::BTreeMap;

use contract::{LabelMap, Modality};
use serde_json::Value;

use crate::{Chart, ReportError, Series};

/// Share of the newest value in a smoothed curve; single batches are noisy.
const FRESH: f64 = 0.1;

/// The lines of a `metrics.jsonl`.
#[derive(Clone, Debug)]
pub struct History(Vec<Value>);

impl History {
    /// From the text of the file.
    pub fn parse(text: &str) -> Result<Self, ReportError> {
        let lines = text.lines().count();
        let parse = |(index, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|error| ReportError::History { line: index + 1, lines, error })
        };
        text.lines().enumerate().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// The lines of one kind, oldest first.
    pub fn of_kind<'a>(&'a self, kind: &str) -> Vec<&'a Value> {
        self.0.iter().filter(|line| line["kind"] == kind).collect()
    }
}

/// Losses, distillation, and Dice per modality.
pub fn charts(history: &History, labels: &LabelMap) -> Vec<Chart> {
    let (steps, validations) = (history.of_kind("step"), history.of_kind("validation"));
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
            unit: "distillation loss".into(),
            series: vec![loss("loss", 3, "kd")],
            range: None,
        },
    ];
    if steps.iter().any(|line| line["teacher_ct"].is_number()) {
        charts.push(Chart {
            caption: "Distillation from the teacher (smoothed)".into(),
            unit: "KL per pixel, nats".into(),
            series: vec![loss("CT", 0, "teacher_ct"), loss("MRI", 1, "teacher_mr")],
            range: None,
        });
    }
    charts.extend(Modality::ALL.map(|modality| dice(&validations, modality, labels)));
    charts
}

fn dice(validations: &[&Value], modality: Modality, labels: &LabelMap) -> Chart {
    let organs = labels.organs().map(|(class, label)| Series {
        name: label.name.clone(),
        color: 3 + usize::from(class),
        points: points(validations, |line| &line[modality.name()][&label.name]),
    });
    let mean = Series {
        name: "mean".into(),
        color: modality.index(),
        points: points(validations, |line| &line[modality.name()]["mean"]),
    };
    Chart {
        caption: format!("Dice on validation subjects, {}", modality.name().to_uppercase()),
        unit: "Dice".into(),
        series: organs.chain([mean]).collect(),
        range: Some((0., 1.)),
    }
}

/// How far the two modalities agree: divergence per class, and the angle between what they ask of the shared kernels.
pub(crate) fn agreement(diagnoses: &[&Value], classes: &[String]) -> Vec<Chart> {
    let class = |(index, name): (usize, &String)| Series {
        name: name.clone(),
        color: 3 + index,
        points: points(diagnoses, |line| &line["kl"][name]),
    };
    let mut charts = vec![Chart {
        caption: "Divergence between CT and MRI, per class".into(),
        unit: "symmetric KL, nats".into(),
        series: classes.iter().enumerate().map(class).collect(),
        range: None,
    }];
    let cosine = points(diagnoses, |line| &line["cosine"]);
    if !cosine.is_empty() {
        charts.push(Chart {
            caption: "Gradients of CT and MRI on the shared kernels".into(),
            unit: "cosine".into(),
            series: vec![Series { name: "cosine".into(), color: 2, points: cosine }],
            range: Some((-1., 1.)),
        });
    }
    charts
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
        let text = "{\"kind\":\"step\",\"step\":1,\"dice_ct\":-0.5,\"kd\":0.25}\n\
                    {\"kind\":\"step\",\"step\":2,\"dice_ct\":-0.7,\"kd\":0.125}\n\
                    {\"kind\":\"validation\",\"step\":2,\"ct\":{\"liver\":0.5,\"spleen\":null,\"mean\":0.5},\"mr\":{}}\n";
        let charts = charts(&History::parse(text).unwrap(), &LabelMap::abdomen());
        assert_eq!(charts[0].series[0].points, [(1., -0.5), (2., -0.5 + FRESH * -0.2)]);
        assert_eq!(charts[2].series[0].points, [(2., 0.5)]);
        assert!(charts[2].series[3].points.is_empty(), "an organ without a value has no point");
        let error = History::parse("{}\n{\"kind\"").unwrap_err().to_string();
        assert!(error.starts_with("line 2 of 2 of the metrics"), "{error}");
    }

    #[test]
    fn a_teacher_has_a_chart_only_where_there_is_one() {
        let with = "{\"kind\":\"step\",\"step\":1,\"teacher_ct\":0.5}";
        let count = |text| charts(&History::parse(text).unwrap(), &LabelMap::abdomen()).len();
        assert_eq!((count(with), count("{\"kind\":\"step\",\"step\":1}")), (5, 4));
    }
}
