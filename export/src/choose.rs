//! Chooses among candidates by what users see: Dice of their label maps on the calibration slices against those of the f32
//! network, which int8 stands for.
//!
//! Not against the data set's labels: on scans that the network was trained on, a candidate that is further from f32 can be
//! nearer to them by chance. On the demo's phantoms that chose the worst candidate for held-out subjects, twice in four times.
//! Both modalities weigh alike however many slices they have, and so do all organs however large they are.

use std::cmp::Ordering;

use contract::{Modality, ModelSpec};
use serde::{Deserialize, Serialize};

use crate::{
    accuracy::{Maps, organs},
    calibrate::Sample,
    histogram::Method,
};

/// A method and what its label maps are worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The method, as the command line has it.
    pub calibration: String,
    /// One per modality.
    pub scores: Vec<Score>,
    /// Whether this is the one.
    pub chosen: bool,
}

/// Dice of a candidate in one modality.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Branch.
    pub modality: Modality,
    /// Mean over organs; 1 where there is no organ on any slice.
    pub mean: f64,
    /// The smallest of any organ.
    pub worst: f64,
    /// That organ.
    pub worst_organ: String,
}

impl Candidate {
    /// Scores the label maps that a method led to against those of f32.
    pub fn new(spec: &ModelSpec, samples: &[Sample], float: &Maps, method: Method, maps: &Maps) -> Self {
        let score = |&modality: &Modality| {
            let both = samples.iter().zip(maps.iter().zip(float)).filter(|(sample, _)| sample.modality == modality);
            let dices = organs(spec, both.map(|(_, (found, float))| (&found[..], &float[..])));
            let names = spec.labels.organs().map(|(_, label)| &label.name);
            let found: Vec<(f64, &String)> = dices.into_iter().zip(names).filter_map(|(d, n)| Some((d?, n))).collect();
            let worst = found.iter().min_by(|a, b| a.0.total_cmp(&b.0));
            Score {
                modality,
                mean: if found.is_empty() { 1. } else { mean(found.iter().map(|(dice, _)| *dice)) },
                worst: worst.map_or(1., |(dice, _)| *dice),
                worst_organ: worst.map_or(String::new(), |(_, name)| name.to_string()),
            }
        };
        let scores = spec.modalities.iter().map(score).collect();
        Self { calibration: method.to_string(), scores, chosen: false }
    }

    /// Mean over modalities.
    pub fn mean(&self) -> f64 {
        mean(self.scores.iter().map(|score| score.mean))
    }

    /// Worst organ of any modality.
    pub fn worst(&self) -> f64 {
        self.scores.iter().fold(f64::INFINITY, |worst, score| worst.min(score.worst))
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

/// Marks the best candidate and returns its position: the highest mean, of equals the one whose worst organ is best, of
/// equals the first.
///
/// # Panics
/// Without candidates.
pub fn choose(candidates: &mut [Candidate]) -> usize {
    let better = |&a: &usize, &b: &usize| -> Ordering {
        let (first, second) = (&candidates[a], &candidates[b]);
        let order = first.mean().total_cmp(&second.mean()).then(first.worst().total_cmp(&second.worst()));
        order.then(b.cmp(&a))
    };
    let best = (0..candidates.len()).max_by(better).expect("there is a candidate");
    candidates[best].chosen = true;
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{Grid, Intensity, LabelMap, Net};

    fn spec() -> ModelSpec {
        ModelSpec {
            net: Net::compact(1, 5, 4, 32, 32),
            labels: LabelMap::abdomen(),
            grid: Grid { height: 32, width: 32, spacing_mm: 3. },
            intensity: Intensity::default(),
            modalities: Modality::ALL.to_vec(),
        }
    }

    fn sample(modality: Modality) -> Sample {
        Sample { modality, codes: vec![], labels: None }
    }

    fn candidate(calibration: &str, scores: [(f64, f64); 2]) -> Candidate {
        let score = |(modality, (mean, worst))| Score { modality, mean, worst, worst_organ: "liver".into() };
        let scores = Modality::ALL.into_iter().zip(scores).map(score).collect();
        Candidate { calibration: calibration.into(), scores, chosen: false }
    }

    #[test]
    fn the_mean_decides_then_the_worst_organ_then_the_order() {
        let winner = |scores: &[[(f64, f64); 2]]| {
            let mut candidates: Vec<_> = scores.iter().map(|&scores| candidate("some", scores)).collect();
            let best = choose(&mut candidates);
            assert!(candidates.iter().enumerate().all(|(index, candidate)| candidate.chosen == (index == best)));
            best
        };
        assert_eq!(winner(&[[(0.9, 0.8), (0.9, 0.8)], [(0.875, 0.5), (0.9375, 0.5)], [(0.8, 0.8), (0.9, 0.9)]]), 1);
        assert_eq!(winner(&[[(0.5, 0.25), (0.5, 0.5)], [(0.25, 0.375), (0.75, 0.5)]]), 1, "a tie: the worst organ");
        assert_eq!(winner(&[[(0.5, 0.25), (0.5, 0.5)], [(0.5, 0.5), (0.5, 0.25)]]), 0, "a tie in both: the first");
    }

    /// One CT slice against three MR slices: liver right, kidney half right.
    #[test]
    fn modalities_and_organs_weigh_alike() {
        let samples = [sample(Modality::Ct), sample(Modality::Mr), sample(Modality::Mr), sample(Modality::Mr)];
        let float: Maps = vec![vec![1, 1, 1, 0], vec![1, 2, 2, 0], vec![0; 4], vec![1, 0, 0, 0]];
        let maps: Maps = vec![vec![1, 1, 1, 1], vec![1, 2, 0, 0], vec![0; 4], vec![1, 0, 0, 0]];
        let found = Candidate::new(&spec(), &samples, &float, Method::Mse, &maps);
        let (ct, mr) = (6. / 7., (1. + 2. / 3.) / 2.);
        assert!((found.scores[0].mean - ct).abs() < 1e-12 && (found.scores[1].mean - mr).abs() < 1e-12, "{found:?}");
        assert!((found.mean() - (ct + mr) / 2.).abs() < 1e-12);
        assert_eq!((found.scores[1].worst_organ.as_str(), found.worst()), ("right kidney", 2. / 3.));
    }

    #[test]
    fn slices_without_any_organ_tell_nothing() {
        let samples = [sample(Modality::Ct), sample(Modality::Mr)];
        let maps: Maps = vec![vec![0; 4]; 2];
        let found = Candidate::new(&spec(), &samples, &maps, Method::MinMax, &maps);
        assert_eq!((found.mean(), found.worst()), (1., 1.));
    }
}
