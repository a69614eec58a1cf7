//! Scores of label maps: per case and organ, and their mean and standard deviation per modality and organ.

use contract::Modality;
use serde::{Deserialize, Serialize};

/// Agreement of one organ in one case. An organ that neither label map has scores nothing; one that only one of them has
/// scores Dice 0 and has no distances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrganScore {
    /// Name in the label map.
    pub organ: String,
    /// Dice coefficient, 0 to 1.
    pub dice: Option<f64>,
    /// 95th percentile of the surface distances, mm.
    pub hd95_mm: Option<f64>,
    /// Average symmetric surface distance, mm.
    pub assd_mm: Option<f64>,
}

/// All organs of one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseScore {
    /// Name of the case.
    pub case: String,
    /// Its modality.
    pub modality: Modality,
    /// In class order.
    pub organs: Vec<OrganScore>,
}

/// Mean and standard deviation over the cases that have the value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation of the sample (divided by n - 1); 0 for one case.
    pub sd: f64,
    /// Number of cases.
    pub n: usize,
}

/// One organ over all cases of a modality.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrganSummary {
    /// Of the cases.
    pub modality: Modality,
    /// Name in the label map, or `all organs`: the mean over organs, case by case.
    pub organ: String,
    /// Dice coefficient.
    pub dice: Option<Spread>,
    /// mm.
    pub hd95_mm: Option<Spread>,
    /// mm.
    pub assd_mm: Option<Spread>,
}

/// What an evaluation found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Case by case.
    pub cases: Vec<CaseScore>,
    /// Modality by modality: every organ in class order, then `all organs`.
    pub summary: Vec<OrganSummary>,
}

/// Name of the last row of a modality.
const ALL: &str = "all organs";

impl Spread {
    /// Of the values that exist; `None` if there is none.
    pub fn of(values: impl IntoIterator<Item = Option<f64>>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().flatten().collect();
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Some(Self { mean, sd: (squares / (n.max(2) - 1) as f64).sqrt(), n })
    }
}

impl Scores {
    /// Sums up.
    pub fn of(cases: Vec<CaseScore>) -> Self {
        let mut summary = vec![];
        for modality in Modality::ALL {
            let of_modality: Vec<&CaseScore> = cases.iter().filter(|case| case.modality == modality).collect();
            let Some(first) = of_modality.first() else { continue };
            for (class, organ) in first.organs.iter().enumerate() {
                let spread = |value: fn(&OrganScore) -> Option<f64>| {
                    Spread::of(of_modality.iter().map(|case| value(&case.organs[class])))
                };
                summary.push(OrganSummary::of(modality, &organ.organ, spread));
            }
            let spread = |value: fn(&OrganScore) -> Option<f64>| {
                let mean = |case: &&CaseScore| Some(Spread::of(case.organs.iter().map(value))?.mean);
                Spread::of(of_modality.iter().map(mean))
            };
            summary.push(OrganSummary::of(modality, ALL, spread));
        }
        Self { cases, summary }
    }

    /// The cases of both, summed up anew.
    pub fn merge(self, other: Self) -> Self {
        Self::of([self.cases, other.cases].concat())
    }

    /// Mean Dice over the organs of all cases of a modality.
    pub fn mean_dice(&self, modality: Modality) -> Option<f64> {
        let of_all = |summary: &&OrganSummary| summary.modality == modality && summary.organ == ALL;
        Some(self.summary.iter().find(of_all)?.dice?.mean)
    }

    /// Indented JSON.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings, numbers and nothing else")
    }
}

impl OrganSummary {
    fn of(modality: Modality, organ: &str, spread: impl Fn(fn(&OrganScore) -> Option<f64>) -> Option<Spread>) -> Self {
        Self {
            modality,
            organ: organ.to_string(),
            dice: spread(|score| score.dice),
            hd95_mm: spread(|score| score.hd95_mm),
            assd_mm: spread(|score| score.assd_mm),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn case(modality: Modality, name: &str, dices: [Option<f64>; 2]) -> CaseScore {
        let organ = |(organ, dice): (&str, Option<f64>)| OrganScore {
            organ: organ.into(),
            dice,
            hd95_mm: dice.filter(|&dice| dice > 0.).map(|dice| 10. * (1. - dice)),
            assd_mm: None,
        };
        let organs = ["liver", "spleen"].into_iter().zip(dices).map(organ).collect();
        CaseScore { case: name.into(), modality, organs }
    }

    #[test]
    fn means_and_deviations_are_those_of_the_cases_that_have_a_value() {
        let ct = [[Some(0.9), None], [Some(0.7), Some(0.)], [Some(0.8), Some(0.6)]];
        let ct = Scores::of(ct.map(|dices| case(Modality::Ct, "a", dices)).to_vec());
        let mr = Scores::of(vec![case(Modality::Mr, "b", [Some(1.), None])]);
        let scores = mr.merge(ct);
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        let rows: Vec<_> = scores.summary.iter().map(|row| (row.modality.name(), row.organ.as_str())).collect();
        let modality = |name| [(name, "liver"), (name, "spleen"), (name, ALL)];
        assert_eq!(rows, [modality("ct"), modality("mr")].concat());
        let liver = scores.summary[0].dice.unwrap();
        near(liver.mean, 0.8);
        near(liver.sd, 0.1);
        let spleen = scores.summary[1].clone();
        assert_eq!((spleen.dice.unwrap().n, spleen.hd95_mm.unwrap().n, spleen.assd_mm), (2, 1, None));
        // Case by case: 0.9, 0.35, 0.7.
        near(scores.mean_dice(Modality::Ct).unwrap(), 1.95 / 3.);
        assert_eq!(scores.mean_dice(Modality::Mr), Some(1.));
        assert_eq!(scores.summary[3].dice.unwrap().sd, 0.);
        assert_eq!(serde_json::from_str::<Scores>(&scores.json()).unwrap(), scores);
    }
}
