//! Held-out cases: whole patients, because two scans of one patient are no test of each other.

use super::Case;

/// Splits off at least `held_out` cases, the last in order of name, and with them the other cases of the same patients.
/// The first list may be left empty.
pub fn hold_out(mut cases: Vec<Case>, held_out: usize) -> (Vec<Case>, Vec<Case>) {
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    let first = cases.len() - held_out.min(cases.len());
    let patients: Vec<String> = cases[first..].iter().map(|case| case.patient.clone()).collect();
    cases.into_iter().partition(|case| !patients.contains(&case.patient))
}
