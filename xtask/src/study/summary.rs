//! Numbers of a study: means over seeds, and paired differences.
//!
//! An organ that only one of truth and result has scores Dice 0 and has no distance. Such distances are counted, never
//! given a value: a mean distance is of the cases that have one, and stands beside the count of those that have none.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use contract::Modality;
use serde::{Deserialize, Serialize};

use super::{
    config::{Arm, Run, Study, size},
    wilcoxon::{Wilcoxon, signed_rank},
};

/// Name of the mean over organs, case by case.
pub const ALL: &str = "all organs";

/// Scores of a run: those of `gantry-train eval --json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Scores {
    /// Case by case.
    pub cases: Vec<CaseScore>,
}

/// One case.
#[derive(Clone, Debug, Deserialize)]
pub struct CaseScore {
    /// Name.
    pub case: String,
    /// Modality.
    pub modality: Modality,
    /// In class order.
    pub organs: Vec<OrganScore>,
}

/// One organ of one case.
#[derive(Clone, Debug, Deserialize)]
pub struct OrganScore {
    /// Name.
    pub organ: String,
    /// `None` if neither truth nor result has the organ.
    pub dice: Option<f64>,
    /// `None` also if only one of the two has it.
    pub hd95_mm: Option<f64>,
    /// The same.
    pub assd_mm: Option<f64>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// 0 to 1, more is better.
    Dice,
    /// mm, less is better.
    Hd95,
    /// mm, less is better.
    Assd,
}

/// What a case says about an organ.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reading {
    /// Nothing: there is no such organ.
    Absent,
    /// A distance to something that is not there.
    Undefined,
    /// A number.
    Value(f64),
}

/// Mean over seeds of the means over cases.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation of the sample; `None` for one seed.
    pub sd: Option<f64>,
    /// Seeds that have a value.
    pub seeds: usize,
}

/// One organ, modality and arm.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Training cases per modality, or `all`.
    pub size: String,
    /// Of the scans.
    pub modality: Modality,
    /// Or [`ALL`].
    pub organ: String,
    /// Topology and options.
    pub arm: String,
    /// Dice coefficient.
    pub dice: Option<Spread>,
    /// mm, of the cases that have one.
    pub hd95_mm: Option<Spread>,
    /// The same.
    pub assd_mm: Option<Spread>,
    /// Cases times seeds with a Dice.
    pub scored: usize,
    /// Those of them without distances.
    pub undefined: usize,
}

/// An arm against its baseline, case by case.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    /// As in [`Row`].
    pub size: String,
    /// As in [`Row`].
    pub modality: Modality,
    /// As in [`Row`].
    pub organ: String,
    /// As in [`Row`].
    pub arm: String,
    /// The arm that it is compared with.
    pub baseline: String,
    /// Of what.
    pub metric: Metric,
    /// Seeds that both have, and over which a case's values are averaged.
    pub seeds: usize,
    /// Cases.
    pub cases: usize,
    /// Cases left out, because a run of either has no value there.
    pub left_out: usize,
    /// Mean of arm minus baseline.
    pub difference: Option<f64>,
    /// The test, unless there are no differences.
    pub wilcoxon: Option<Wilcoxon>,
}

/// Values for one box: cases, averaged over seeds.
#[derive(Clone, Debug, Serialize)]
pub struct Values {
    /// As in [`Row`].
    pub size: String,
    /// As in [`Row`].
    pub modality: Modality,
    /// As in [`Row`].
    pub organ: String,
    /// As in [`Row`].
    pub arm: String,
    /// Of what.
    pub metric: Metric,
    /// One per case that has one in every seed.
    pub values: Vec<f64>,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Topology or arm that the others are compared with.
    pub baseline: String,
    /// Runs that count.
    pub finished: usize,
    /// Names of those that are not finished.
    pub missing: Vec<String>,
    /// Means.
    pub rows: Vec<Row>,
    /// Comparisons.
    pub pairs: Vec<Pair>,
    /// For boxplots.
    pub values: Vec<Values>,
}

impl Scores {
    /// Reads `scores.json`.
    ///
    /// # Errors
    /// It cannot be read, or is something else.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| {
            format!("{}: not scores of gantry-train eval; remove the file, and the run is scored anew", path.display())
        })
    }
}

impl Metric {
    /// All, in the order of tables.
    pub const ALL: [Self; 3] = [Self::Dice, Self::Hd95, Self::Assd];

    /// Name and unit.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Dice => "Dice",
            Self::Hd95 => "HD95, mm",
            Self::Assd => "ASSD, mm",
        }
    }

    /// In file names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dice => "dice",
            Self::Hd95 => "hd95",
            Self::Assd => "assd",
        }
    }

    const fn of(self, score: &OrganScore) -> Option<f64> {
        match self {
            Self::Dice => score.dice,
            Self::Hd95 => score.hd95_mm,
            Self::Assd => score.assd_mm,
        }
    }

    fn reading(self, score: &OrganScore) -> Reading {
        match (score.dice, self.of(score)) {
            (None, _) => Reading::Absent,
            (Some(_), None) => Reading::Undefined,
            (Some(_), Some(value)) => Reading::Value(value),
        }
    }
}

impl CaseScore {
    /// Of an organ, or of all: the mean over the organs that are there, undefined if it is so for one of them.
    fn reading(&self, organ: &str, metric: Metric) -> Reading {
        if organ != ALL {
            let found = self.organs.iter().find(|score| score.organ == organ);
            return found.map_or(Reading::Absent, |score| metric.reading(score));
        }
        let mut values = vec![];
        for score in &self.organs {
            match metric.reading(score) {
                Reading::Absent => {}
                Reading::Undefined => return Reading::Undefined,
                Reading::Value(value) => values.push(value),
            }
        }
        mean(&values).map_or(Reading::Absent, Reading::Value)
    }
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        let mean = mean(values)?;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let sd = (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt());
        Some(Self { mean, sd, seeds: values.len() })
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The runs of an arm at one size, by seed.
type Seeds<'a> = Vec<(u64, &'a Scores)>;

impl Summary {
    /// Sums up finished runs.
    pub fn of(study: &Study, finished: &[(Run, Scores)], missing: Vec<String>) -> Self {
        let of_arm = |arm: &Arm, cases: Option<u32>| -> Seeds {
            let same = finished.iter().filter(|(run, _)| run.arm == *arm && run.cases == cases);
            same.map(|(run, scores)| (run.seed, scores)).collect()
        };
        let mut summary = Self {
            baseline: study.baseline.clone(),
            finished: finished.len(),
            missing,
            rows: vec![],
            pairs: vec![],
            values: vec![],
        };
        for cases in study.sizes() {
            for modality in Modality::ALL {
                for organ in organs(finished, modality) {
                    for arm in study.arms() {
                        let place = (size(cases), modality, organ.as_str(), arm.name());
                        let runs = of_arm(&arm, cases);
                        if runs.is_empty() {
                            continue;
                        }
                        let base = study.baseline_of(&arm).map(|base| (base.name(), of_arm(&base, cases)));
                        summary.add(place, &runs, base);
                    }
                }
            }
        }
        summary
    }

    fn add(
        &mut self,
        (size, modality, organ, arm): (String, Modality, &str, String),
        runs: &Seeds,
        base: Option<(String, Seeds)>,
    ) {
        let organ = organ.to_string();
        self.rows.push(Row::of(&size, modality, &organ, &arm, runs));
        for metric in Metric::ALL {
            let (values, _) = by_case(runs, modality, &organ, metric);
            let values = values.into_iter().map(|(_, value)| value).collect();
            let (size, organ, arm) = (size.clone(), organ.clone(), arm.clone());
            self.values.push(Values { size, modality, organ, arm, metric, values });
        }
        let Some((baseline, base)) = base else { return };
        let (ours, theirs) = (common(runs, &base), common(&base, runs));
        for metric in Metric::ALL {
            let (values, without) = by_case(&ours, modality, &organ, metric);
            let (of_base, _) = by_case(&theirs, modality, &organ, metric);
            let differences: Vec<f64> = values
                .iter()
                .filter_map(|(case, value)| Some(value - of_base.iter().find(|(other, _)| other == case)?.1))
                .collect();
            self.pairs.push(Pair {
                size: size.clone(),
                modality,
                organ: organ.clone(),
                arm: arm.clone(),
                baseline: baseline.clone(),
                metric,
                seeds: ours.len(),
                cases: differences.len(),
                left_out: values.len() + without - differences.len(),
                difference: mean(&differences),
                wilcoxon: signed_rank(&differences),
            });
        }
    }
}

impl Row {
    fn of(size: &str, modality: Modality, organ: &str, arm: &str, runs: &Seeds) -> Self {
        let spread = |metric| {
            let of_seed = |scores: &Scores| mean(&readings(scores, modality, organ, metric).1);
            Spread::of(&runs.iter().filter_map(|(_, scores)| of_seed(scores)).collect::<Vec<_>>())
        };
        let count = |counted: fn(&Reading) -> bool, metric| -> usize {
            let of_seed = |scores| readings(scores, modality, organ, metric).0.iter().filter(|r| counted(r)).count();
            runs.iter().map(|(_, scores)| of_seed(*scores)).sum()
        };
        Self {
            size: size.into(),
            modality,
            organ: organ.into(),
            arm: arm.into(),
            dice: spread(Metric::Dice),
            hd95_mm: spread(Metric::Hd95),
            assd_mm: spread(Metric::Assd),
            scored: count(|reading| matches!(reading, Reading::Value(_)), Metric::Dice),
            undefined: count(|reading| *reading == Reading::Undefined, Metric::Hd95),
        }
    }
}

/// All readings of an organ, and the numbers among them.
fn readings(scores: &Scores, modality: Modality, organ: &str, metric: Metric) -> (Vec<Reading>, Vec<f64>) {
    let of_modality = scores.cases.iter().filter(|case| case.modality == modality);
    let readings: Vec<Reading> = of_modality.map(|case| case.reading(organ, metric)).collect();
    let value = |reading: &Reading| if let Reading::Value(value) = reading { Some(*value) } else { None };
    let values = readings.iter().filter_map(value).collect();
    (readings, values)
}

/// Runs whose seed the other arm has too.
fn common<'a>(runs: &Seeds<'a>, other: &Seeds) -> Seeds<'a> {
    runs.iter().copied().filter(|(seed, _)| other.iter().any(|(theirs, _)| theirs == seed)).collect()
}

/// Mean over seeds of each case that has a value in all of them, and how many cases have not (those without the organ in
/// every seed aside).
fn by_case(runs: &Seeds, modality: Modality, organ: &str, metric: Metric) -> (Vec<(String, f64)>, usize) {
    let Some((_, first)) = runs.first() else { return (vec![], 0) };
    let (mut values, mut without) = (vec![], 0);
    for case in first.cases.iter().filter(|case| case.modality == modality) {
        let reading = |scores: &Scores| {
            let same = scores.cases.iter().find(|other| other.modality == modality && other.case == case.case);
            same.map_or(Reading::Absent, |case| case.reading(organ, metric))
        };
        let readings: Vec<Reading> = runs.iter().map(|(_, scores)| reading(scores)).collect();
        let numbers: Vec<f64> = readings
            .iter()
            .filter_map(|reading| if let Reading::Value(value) = reading { Some(*value) } else { None })
            .collect();
        if numbers.len() == readings.len() {
            values.extend(mean(&numbers).map(|value| (case.case.clone(), value)));
        } else if readings.iter().any(|reading| *reading != Reading::Absent) {
            without += 1;
        }
    }
    (values, without)
}

/// Organs of a modality in class order, then all of them.
fn organs(finished: &[(Run, Scores)], modality: Modality) -> Vec<String> {
    let cases = finished.iter().flat_map(|(_, scores)| &scores.cases);
    let Some(case) = cases.into_iter().find(|case| case.modality == modality) else { return vec![] };
    case.organs.iter().map(|score| score.organ.clone()).chain([ALL.to_string()]).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Three cases of CT with two organs; `shift` is added to every Dice, `missed` spleens are not found.
    fn scores(shift: f64, missed: usize) -> Scores {
        let organ = |organ: &str, dice: f64| {
            let distance = (dice > 0.).then_some(10. * (1. - dice));
            OrganScore { organ: organ.into(), dice: Some(dice), hd95_mm: distance, assd_mm: distance }
        };
        let case = |at: usize| {
            let spleen = if at < missed { 0. } else { 0.6 + shift };
            let organs = vec![organ("liver", 0.5 + 0.1 * at as f64 + shift), organ("spleen", spleen)];
            CaseScore { case: format!("case{at}"), modality: Modality::Ct, organs }
        };
        Scores { cases: (0..3).map(case).collect() }
    }

    /// Two arms, two seeds; the last run of `ummkd` is missing.
    pub fn example() -> Summary {
        let study: Study = toml::from_str(
            "topologies = ['joint', 'ummkd']\nseeds = [0, 1]\nbaseline = 'joint'\n[data]\nct = 'a'\nmr = 'b'\n",
        )
        .unwrap();
        let runs = study.runs();
        let finished = [scores(0., 0), scores(0.1, 1), scores(0.02, 2)];
        let finished: Vec<_> = runs.iter().cloned().zip(finished).collect();
        Summary::of(&study, &finished, vec![runs[3].name()])
    }

    fn near(found: Option<f64>, expected: f64) {
        assert!((found.unwrap() - expected).abs() < 1e-12, "{found:?}, expected {expected}");
    }

    #[test]
    fn means_and_deviations_are_over_seeds() {
        let summary = example();
        let row =
            |organ: &str, arm: &str| summary.rows.iter().find(|row| row.organ == organ && row.arm == arm).unwrap();
        let joint = row("liver", "joint");
        // Means of the seeds: 0.6 and 0.62.
        near(joint.dice.map(|dice| dice.mean), 0.61);
        near(joint.dice.unwrap().sd, (2f64 * 0.01 * 0.01).sqrt());
        assert_eq!((row("liver", "ummkd").dice.unwrap().sd, row("liver", "ummkd").dice.unwrap().seeds), (None, 1));
        // Two of six spleens have no distance; the others' are not mixed with made-up ones.
        let spleen = row("spleen", "joint");
        assert_eq!((spleen.scored, spleen.undefined), (6, 2));
        near(spleen.hd95_mm.map(|hd95| hd95.mean), (4. + 3.8) / 2.);
        assert_eq!(row(ALL, "joint").undefined, 2);
        assert_eq!(summary.missing, ["ummkd-nall-s1"]);
    }

    #[test]
    fn differences_are_of_the_seeds_and_cases_that_both_have() {
        let summary = example();
        let pair = |organ: &str, metric| {
            summary.pairs.iter().find(|pair| pair.organ == organ && pair.metric == metric).unwrap()
        };
        let liver = pair("liver", Metric::Dice);
        assert_eq!((liver.seeds, liver.cases, liver.left_out), (1, 3, 0));
        near(liver.difference, 0.1);
        near(liver.wilcoxon.map(|test| test.p), 0.25);
        let spleen = pair("spleen", Metric::Hd95);
        assert_eq!((spleen.cases, spleen.left_out), (2, 1), "the spleen that ummkd missed has no distance");
        near(spleen.difference, -1.);
        assert_eq!(summary.pairs.len(), 3 * 3, "joint has nothing to be compared with");
    }
}
