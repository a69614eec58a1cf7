//! Which patients are for testing. Always whole patients: two scans of one patient on both sides would flatter the scores.

use std::{collections::BTreeSet, fmt, str::FromStr};

use contract::Modality;
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{Found, ImportError, Source};

/// How cases become training and test cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// As the source does it, if it does; else everything trains.
    Own,
    /// Everything trains.
    Train,
    /// The test patients of SIFA, whose authors are UMMKD's, where they are known.
    Sifa,
    /// Patients shuffled and dealt to `folds`; those of `fold` are for testing.
    KFold {
        /// Number of parts.
        folds: usize,
        /// From 0.
        fold: usize,
    },
}

impl Split {
    /// Marks the cases of one modality, which come in order of name.
    pub fn apply(self, source: Source, seed: u64, cases: &mut [Found]) -> Result<(), ImportError> {
        let wrong = |message: String| ImportError::Split { split: self.to_string(), message };
        match self {
            Self::Own => same_side(cases).map_err(wrong),
            Self::Train => {
                cases.iter_mut().for_each(|case| case.test = false);
                Ok(())
            }
            Self::Sifa => sifa(source, cases).map_err(wrong),
            Self::KFold { folds, fold } => deal(folds, fold, seed, cases).map_err(wrong),
        }
    }
}

/// Test patients by number. From issues 6, 10 (MM-WHS) and 34, 43, 51 (abdomen) of the repository of SIFA (Chen, Dou et al.).
const fn sifa_test(source: Source, modality: Modality) -> &'static [u32] {
    match (source, modality) {
        (Source::MmWhs, Modality::Ct) => &[1003, 1008, 1014, 1019],
        (Source::MmWhs, Modality::Mr) => &[1007, 1009, 1018, 1019],
        (Source::Btcv, Modality::Ct) => &[1, 9, 30, 32, 33, 39],
        (Source::Chaos, Modality::Mr) => &[1, 13, 32, 38],
        _ => &[],
    }
}

fn sifa(source: Source, cases: &mut [Found]) -> Result<(), String> {
    let Some(modality) = cases.first().map(|case| case.modality) else { return Ok(()) };
    let test = sifa_test(source, modality);
    if test.is_empty() {
        return Err(format!(
            "known for mm-whs, for the CT of btcv and for the MRI of chaos, not for {modality} of {}: use kfold:K:FOLD",
            source.name()
        ));
    }
    let missing: Vec<String> =
        test.iter().filter(|&&id| !cases.iter().any(|case| case.id == Some(id))).map(u32::to_string).collect();
    if !missing.is_empty() {
        return Err(format!(
            "test patients {} of {modality} are not there: scores on the others would not compare",
            missing.join(", ")
        ));
    }
    cases.iter_mut().for_each(|case| case.test = case.id.is_some_and(|id| test.contains(&id)));
    Ok(())
}

fn deal(folds: usize, fold: usize, seed: u64, cases: &mut [Found]) -> Result<(), String> {
    let mut patients: Vec<String> =
        cases.iter().map(|case| case.patient.clone()).collect::<BTreeSet<_>>().into_iter().collect();
    if patients.len() < folds {
        return Err(format!("{} patients, expected at least one per fold", patients.len()));
    }
    patients.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let test: BTreeSet<&String> = patients.iter().skip(fold).step_by(folds).collect();
    cases.iter_mut().for_each(|case| case.test = test.contains(&case.patient));
    Ok(())
}

/// A source that keeps a patient on both sides is not to be trusted.
fn same_side(cases: &[Found]) -> Result<(), String> {
    for case in cases.iter().filter(|case| !case.test) {
        if let Some(other) = cases.iter().find(|other| other.test && other.patient == case.patient) {
            return Err(format!(
                "patient '{}' is in training (case '{}') and in test (case '{}'), expected one of them",
                case.patient, case.name, other.name
            ));
        }
    }
    Ok(())
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("own"),
            Self::Train => f.write_str("train"),
            Self::Sifa => f.write_str("sifa"),
            Self::KFold { folds, fold } => write!(f, "kfold:{folds}:{fold}"),
        }
    }
}

impl FromStr for Split {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "own" => return Ok(Self::Own),
            "train" => return Ok(Self::Train),
            "sifa" => return Ok(Self::Sifa),
            _ => {}
        }
        let numbers = text.strip_prefix("kfold:").and_then(|rest| rest.split_once(':'));
        match numbers.map(|(folds, fold)| (folds.parse(), fold.parse())) {
            Some((Ok(folds), Ok(fold))) if folds >= 2 && fold < folds => Ok(Self::KFold { folds, fold }),
            _ => Err("expected own, train, sifa, or kfold:K:FOLD with FOLD from 0 to K - 1, like kfold:5:0".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::{Pixels, Truth};

    /// `scans` of each of `ids`.
    fn cases(modality: Modality, ids: impl IntoIterator<Item = u32>, scans: usize) -> Vec<Found> {
        let scan = |id: u32, scan: usize| Found {
            name: format!("{id}_{scan}"),
            patient: id.to_string(),
            id: Some(id),
            modality,
            image: Pixels::Nifti("i".into()),
            truth: Truth::Nifti("l".into()),
            test: false,
        };
        ids.into_iter().flat_map(|id| (0..scans).map(move |n| scan(id, n))).collect()
    }

    fn tested(cases: &[Found]) -> Vec<&str> {
        cases.iter().filter(|case| case.test).map(|case| case.name.as_str()).collect()
    }

    #[test]
    fn published_test_patients_are_marked_with_all_their_scans() {
        let mut ct = cases(Modality::Ct, 1001..=1020, 1);
        Split::Sifa.apply(Source::MmWhs, 0, &mut ct).unwrap();
        assert_eq!(tested(&ct), ["1003_0", "1008_0", "1014_0", "1019_0"]);
        let mut mr = cases(Modality::Mr, 1..=39, 2);
        Split::Sifa.apply(Source::Chaos, 0, &mut mr).unwrap();
        assert_eq!(tested(&mr), ["1_0", "1_1", "13_0", "13_1", "32_0", "32_1", "38_0", "38_1"]);
    }

    #[test]
    fn an_unknown_or_incomplete_split_is_refused() {
        let error = Split::Sifa.apply(Source::Amos22, 0, &mut cases(Modality::Ct, 1..=9, 1)).unwrap_err().to_string();
        assert!(error.contains("--split sifa: known for mm-whs") && error.contains("not for ct of amos22"), "{error}");
        let error = Split::Sifa.apply(Source::Btcv, 0, &mut cases(Modality::Ct, 1..=30, 1)).unwrap_err().to_string();
        assert!(error.contains("test patients 32, 33, 39 of ct are not there"), "{error}");
        let few = Split::KFold { folds: 5, fold: 0 }.apply(Source::Btcv, 0, &mut cases(Modality::Ct, 1..=4, 3));
        assert_eq!(few.unwrap_err().to_string(), "--split kfold:5:0: 4 patients, expected at least one per fold");
        let mut own = cases(Modality::Ct, [7], 2);
        own[1].test = true;
        let error = Split::Own.apply(Source::NnUnet, 0, &mut own).unwrap_err().to_string();
        assert!(error.contains("patient '7' is in training (case '7_0') and in test (case '7_1')"), "{error}");
    }

    #[test]
    fn folds_part_the_patients_whole_and_by_seed() {
        let all: Vec<Vec<String>> = (0..5)
            .map(|fold| {
                let mut cases = cases(Modality::Mr, 1..=17, 3);
                Split::KFold { folds: 5, fold }.apply(Source::Chaos, 3, &mut cases).unwrap();
                let names = tested(&cases);
                assert!(matches!(names.len(), 9 | 12), "{}", names.len());
                for case in cases.iter().filter(|case| !case.test) {
                    assert!(!cases.iter().any(|other| other.test && other.patient == case.patient), "{}", case.name);
                }
                names.into_iter().map(String::from).collect()
            })
            .collect();
        let mut together = all.concat();
        together.sort();
        together.dedup();
        assert_eq!(together.len(), 17 * 3);
        let again = |seed| {
            let mut cases = cases(Modality::Mr, 1..=17, 3);
            Split::KFold { folds: 5, fold: 0 }.apply(Source::Chaos, seed, &mut cases).unwrap();
            tested(&cases).into_iter().map(String::from).collect::<Vec<_>>()
        };
        assert_eq!(again(3), all[0]);
        assert_ne!(again(4), all[0]);
    }

    #[test]
    fn splits_are_typed_as_they_print() {
        for text in ["own", "train", "sifa", "kfold:5:0", "kfold:2:1"] {
            assert_eq!(text.parse::<Split>().unwrap().to_string(), text);
        }
        for text in ["", "kfold", "kfold:5", "kfold:5:5", "kfold:1:0", "kfold:a:b", "Sifa"] {
            assert!(text.parse::<Split>().is_err(), "{text}");
        }
    }
}
