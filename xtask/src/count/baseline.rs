//! What was counted beside what was recorded, and what follows from it. Only counts of one compiler and profile compare:
//! another compiler makes other instructions of the same source.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

/// Counts may differ by so many percent from their record.
pub const TOLERANCE_PERCENT: u64 = 2;

/// Counts of one architecture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// What `rustc --version` says.
    pub rustc: String,
    /// How cargo was told to build.
    pub profile: String,
    /// Instructions of one slice, by kernels and modality.
    pub instructions: BTreeMap<String, u64>,
}

/// The recorded file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// Day of the record, `YYYY-MM-DD`.
    pub date: String,
    /// By architecture.
    pub architectures: BTreeMap<String, Counts>,
}

/// What one count says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Within the tolerance.
    Same,
    /// Below it.
    Fewer,
    /// Above it.
    More,
    /// Not recorded.
    Unrecorded,
    /// Recorded, but no longer counted.
    Gone,
}

/// One count beside its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    name: String,
    now: Option<u64>,
    recorded: Option<u64>,
}

/// All counts of an architecture beside their records, sorted by name.
pub fn rows(architecture: &str, now: &Counts, recorded: Option<&Counts>) -> Vec<Row> {
    let recorded = recorded.map(|counts| &counts.instructions);
    let names: BTreeSet<&String> =
        now.instructions.keys().chain(recorded.into_iter().flatten().map(|(name, _)| name)).collect();
    let row = |name: &String| Row {
        name: format!("{architecture} {name}"),
        now: now.instructions.get(name).copied(),
        recorded: recorded.and_then(|counts| counts.get(name)).copied(),
    };
    names.into_iter().map(row).collect()
}

/// Why the counts of an architecture cannot be judged, if so.
pub fn incomparable(now: &Counts, recorded: Option<&Counts>) -> Option<String> {
    let recorded = recorded?;
    let pairs = [("compiler", &now.rustc, &recorded.rustc), ("profile", &now.profile, &recorded.profile)];
    let (what, now, recorded) = pairs.into_iter().find(|(_, now, recorded)| now != recorded)?;
    Some(format!("the {what} is `{now}`, the record's `{recorded}`"))
}

impl Row {
    /// What it says.
    pub fn verdict(&self) -> Verdict {
        match (self.now, self.recorded) {
            (None, _) => Verdict::Gone,
            (_, None) => Verdict::Unrecorded,
            (Some(now), Some(recorded)) if 100 * now > (100 + TOLERANCE_PERCENT) * recorded => Verdict::More,
            (Some(now), Some(recorded)) if 100 * now < (100 - TOLERANCE_PERCENT) * recorded => Verdict::Fewer,
            _ => Verdict::Same,
        }
    }
}

/// A line of the table.
impl Display for Row {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let count = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
        let ratio = match (self.now, self.recorded) {
            (Some(now), Some(recorded)) => format!("{:.4}", now as f64 / recorded as f64),
            _ => "-".to_owned(),
        };
        let verdict = match self.verdict() {
            Verdict::Same => "",
            Verdict::Fewer => "  fewer",
            Verdict::More => "  MORE",
            Verdict::Unrecorded => "  not recorded",
            Verdict::Gone => "  no longer counted",
        };
        write!(f, "{:<28}{:>14}{:>14}{ratio:>9}{verdict}", self.name, count(self.now), count(self.recorded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(instructions: &[(&str, u64)]) -> Counts {
        let instructions = instructions.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
        Counts { rustc: "rustc 1.91.0".to_owned(), profile: "dev".to_owned(), instructions }
    }

    fn verdict(now: u64, recorded: u64) -> Verdict {
        rows("x86-64", &counts(&[("avx2 ct", now)]), Some(&counts(&[("avx2 ct", recorded)])))[0].verdict()
    }

    #[test]
    fn two_percent_is_the_same_and_one_instruction_beyond_is_not() {
        assert_eq!(verdict(102_000, 100_000), Verdict::Same);
        assert_eq!(verdict(102_001, 100_000), Verdict::More);
        assert_eq!(verdict(98_000, 100_000), Verdict::Same);
        assert_eq!(verdict(97_999, 100_000), Verdict::Fewer);
        assert_eq!(verdict(0, 0), Verdict::Same);
    }

    #[test]
    fn a_count_without_record_and_a_record_without_count_are_seen() {
        let (now, recorded) = (counts(&[("a", 1), ("b", 2)]), counts(&[("b", 2), ("c", 3)]));
        let verdicts: Vec<_> = rows("x", &now, Some(&recorded)).iter().map(Row::verdict).collect();
        assert_eq!(verdicts, [Verdict::Unrecorded, Verdict::Same, Verdict::Gone]);
        let unrecorded = rows("x", &now, None);
        assert!(unrecorded.len() == 2 && unrecorded.iter().all(|row| row.verdict() == Verdict::Unrecorded));
    }

    #[test]
    fn another_compiler_or_profile_is_a_reason_and_no_record_is_none() {
        let now = counts(&[("a", 1)]);
        assert_eq!(incomparable(&now, Some(&now)), None);
        assert_eq!(incomparable(&now, None), None);
        let other = Counts { rustc: "rustc 1.99.0".to_owned(), ..now.clone() };
        let reason = incomparable(&other, Some(&now)).unwrap();
        assert!(reason.contains("1.99.0") && reason.contains("1.91.0"), "{reason}");
        let other = Counts { profile: "release".to_owned(), ..now.clone() };
        assert!(incomparable(&now, Some(&other)).unwrap().contains("profile"));
    }

    #[test]
    fn a_line_has_both_counts_and_their_ratio() {
        let rows = rows("aarch64", &counts(&[("neon ct", 103)]), Some(&counts(&[("neon ct", 100)])));
        assert_eq!(
            rows[0].to_string().split_whitespace().collect::<Vec<_>>(),
            ["aarch64", "neon", "ct", "103", "100", "1.0300", "MORE"]
        );
    }
}
