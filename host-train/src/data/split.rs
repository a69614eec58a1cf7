//! Held-out cases: whole patients, because two scans of one patient are no test of each other. And smaller training sets.

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::Case;

/// Splits off at least `held_out` cases, the last in order of name, and with them the other cases of the same patients.
/// The first list may be left empty.
pub fn hold_out(mut cases: Vec<Case>, held_out: usize) -> (Vec<Case>, Vec<Case>) {
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    let first = cases.len() - held_out.min(cases.len());
    let patients: Vec<String> = cases[first..].iter().map(|case| case.patient.clone()).collect();
    cases.into_iter().partition(|case| !patients.contains(&case.patient))
}

/// `count` cases at random, in order of name. A smaller `count` of the same seed draws a subset: sizes of training sets
/// can be compared without other patients coming in. CT and MRI, whose cases are not paired, are drawn apart.
pub fn draw(mut cases: Vec<Case>, count: usize, seed: u64) -> Vec<Case> {
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(cases.first().map_or(0, |case| case.modality.index() as u64));
    cases.shuffle(&mut random);
    cases.truncate(count);
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

#[cfg(test)]
mod tests {
    use contract::Modality;

    use super::*;
    use crate::data::tests::{case_of, spec_of};

    #[test]
    fn smaller_training_sets_are_parts_of_larger_ones_and_seeds_differ() {
        let names = |count, seed| -> Vec<String> {
            let raw: Vec<i16> = (0..64).map(|index| index % 7 * 20 - 60).collect();
            let case = case_of(Modality::Ct, [8, 8, 1], raw, vec![0; 64], &spec_of(1, 16, 16, 2.));
            let cases = (0..12).map(|n| Case { name: format!("{n:02}"), ..case.clone() }).collect();
            draw(cases, count, seed).into_iter().map(|case| case.name).collect()
        };
        let (small, large) = (names(4, 3), names(8, 3));
        assert_eq!((small.len(), large.len()), (4, 8));
        assert!(small.iter().all(|name| large.contains(name)) && large.is_sorted());
        assert!((4..9).any(|seed| names(4, seed) != small));
        assert_eq!(names(12, 3), names(12, 4), "all cases are all cases");
    }
}
