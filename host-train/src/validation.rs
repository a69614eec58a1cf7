//! Dice on held-out training cases, on the model's grid: quick enough to be asked for often. Scores on the scanner's grid,
//! with distances in mm, are the business of `eval`.

use contract::{Modality, ModelSpec, tiles::Tiling};

use crate::{data::Case, net::Network, segment::segment};

/// Mean Dice per organ over the cases of one modality.
#[derive(Clone, Debug, PartialEq)]
pub struct OrganDice {
    /// Of the cases.
    pub modality: Modality,
    /// Organ and mean Dice over the cases that have the organ or were said to; `None` if none.
    pub organs: Vec<(String, Option<f64>)>,
}

/// One per modality that has held-out cases.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Validation(pub Vec<OrganDice>);

impl OrganDice {
    /// Mean over the organs that have a value.
    pub fn mean(&self) -> Option<f64> {
        mean(self.organs.iter().filter_map(|(_, dice)| *dice))
    }
}

impl Validation {
    /// Mean over some modalities; `None` without cases.
    pub fn mean(&self, modalities: &[Modality]) -> Option<f64> {
        mean(self.0.iter().filter(|scores| modalities.contains(&scores.modality)).filter_map(OrganDice::mean))
    }
}

/// Scores a network on cases of one modality.
pub fn validate(network: &Network, spec: &ModelSpec, modality: Modality, cases: &[Case]) -> OrganDice {
    let mut values = vec![vec![]; spec.labels.classes()];
    for case in cases {
        let (mut both, mut either) = (vec![0u64; spec.labels.classes()], vec![0u64; spec.labels.classes()]);
        let area = case.model_labels.len() / case.depth();
        let predicted = segment(network, spec, modality, case, Tiling::default());
        for (z, slice) in predicted.chunks_exact(area).enumerate().filter(|&(z, _)| case.usable[z]) {
            for (&a, &b) in slice.iter().zip(case.slice_labels(z)) {
                either[usize::from(a)] += 1;
                either[usize::from(b)] += 1;
                both[usize::from(a)] += u64::from(a == b);
            }
        }
        for (class, values) in values.iter_mut().enumerate().filter(|&(class, _)| either[class] > 0) {
            values.push(2. * both[class] as f64 / either[class] as f64);
        }
    }
    let organ =
        |(class, label): (u8, &contract::Label)| (label.name.clone(), mean(values[usize::from(class)].iter().copied()));
    OrganDice { modality, organs: spec.labels.organs().map(organ).collect() }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0., 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{data::tests::case_of, net::Norms, test_support::settings, topology::Topology};
    use tch::Device;

    /// Dice of a random network, counted voxel by voxel from its own answers; classes that nobody shows have no value.
    #[test]
    fn dice_is_that_of_the_answers_counted_one_by_one() {
        let spec = settings(Topology::Ummkd).spec;
        let network = Network::new(&spec.net, &[Modality::Ct], Norms::PerModality, 5, Device::Cpu).unwrap();
        let depth = 19;
        let labels: Vec<u8> = (0..depth * 1024).map(|i| [0, 1, 3][i / 7 % 3]).collect();
        let mut raw: Vec<i16> = (0..depth * 1024).map(|i| (i * 7919 % 601) as i16 - 300).collect();
        raw[1024..2048].fill(12); // A constant slice is nobody's business.
        let case = case_of(Modality::Ct, [32, 32, depth], raw, labels, &spec);
        let used: Vec<usize> = (0..depth).filter(|&z| z != 1).collect();
        let found = segment(&network, &spec, Modality::Ct, &case, Tiling::default());
        let answers: Vec<u8> = used.iter().flat_map(|&z| found[z * 1024..][..1024].to_vec()).collect();
        let truth: Vec<u8> = used.iter().flat_map(|&z| case.slice_labels(z).to_vec()).collect();
        let scores = validate(&network, &spec, Modality::Ct, &[case]);
        for (class, (organ, dice)) in (1u8..).zip(&scores.organs) {
            let count = |labels: &[u8]| labels.iter().filter(|&&label| label == class).count();
            let both = answers.iter().zip(&truth).filter(|&(&a, &b)| a == class && b == class).count();
            let sum = count(&answers) + count(&truth);
            assert_eq!(*dice, (sum > 0).then(|| 2. * both as f64 / sum as f64), "{organ}");
        }
        let known: Vec<f64> = scores.organs.iter().filter_map(|(_, dice)| *dice).collect();
        assert_eq!(scores.mean(), Some(known.iter().sum::<f64>() / known.len() as f64));
        assert_eq!(Validation(vec![scores]).mean(&[Modality::Mr]), None);
    }
}
