//! Slices of one series on their way to the objects that are made of them.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use contract::Plane;

use super::{metrics::Outcome, refusal::Refusal, runs::Runs, ticket::Ticket};
use crate::Code;

/// Panels of a series' picture.
pub const PANELS: usize = 6;

/// A slice with what became of it.
#[derive(Debug)]
pub struct Labelled {
    /// Whose.
    pub ticket: Arc<Ticket>,
    /// Labels in the order of the source's pixels; background unless segmented.
    pub runs: Runs,
    /// What became of it.
    pub outcome: Outcome,
}

/// A slice worth showing.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Index among the series' slices.
    pub slice: usize,
    /// Pixels of organs.
    pub organs: u64,
    /// Raw values, canonical `[y][x]`.
    pub raw: Vec<i16>,
    /// Labels, canonical `[y][x]`.
    pub labels: Vec<u8>,
    /// Their pixels.
    pub plane: Plane,
}

/// A series that is not over.
#[derive(Debug)]
pub struct Series {
    /// In the order in which they left the loop.
    pub slices: Vec<Labelled>,
    /// The slices with most of the organs, if pictures are wanted.
    pub panels: Vec<Panel>,
    /// Associations and replays that brought slices of it and have not ended.
    pub sources: HashSet<u64>,
    /// Whether a source has ended as it should.
    pub closed: bool,
    /// Whether the source that ended last did not.
    pub cut: bool,
    /// When its last slice left the loop.
    pub last: Instant,
    /// A slice missed its deadline, and the policy is to fail.
    pub failed: bool,
}

impl Series {
    /// Without slices yet.
    pub fn new() -> Self {
        Self {
            slices: vec![],
            panels: vec![],
            sources: HashSet::new(),
            closed: false,
            cut: false,
            last: Instant::now(),
            failed: false,
        }
    }

    /// Keeps a slice as a panel if it shows more than those that are kept.
    pub fn show(&mut self, panel: Panel) {
        self.panels.push(panel);
        if self.panels.len() > PANELS {
            let least = (0..self.panels.len()).min_by_key(|&index| self.panels[index].organs);
            self.panels.swap_remove(least.unwrap_or(0));
        }
    }

    /// Why the series is over, if it is; `quiet` is how long nothing may have come, if that counts.
    pub fn over(&self, at_association_end: bool, expected: Option<usize>, quiet: Option<Duration>) -> Option<Ended> {
        if expected.is_some_and(|expected| self.slices.len() >= expected) {
            Some(Ended::Complete)
        } else if at_association_end && self.closed && self.sources.is_empty() {
            Some(Ended::Association)
        } else if quiet.is_some_and(|quiet| self.last.elapsed() >= quiet) {
            Some(Ended::Quiet)
        } else {
            None
        }
    }
}

/// Why a series is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As many slices came as were expected.
    Complete,
    /// All its associations ended.
    Association,
    /// Nothing came for long enough.
    Quiet,
    /// The service ends.
    Stop,
}

impl Ended {
    /// Name in lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Association => "association",
            Self::Quiet => "quiet",
            Self::Stop => "stop",
        }
    }
}

/// A series that is over.
#[derive(Debug)]
pub struct Finished {
    /// UID, or file.
    pub name: Arc<str>,
    /// Why.
    pub ended: Ended,
    /// Its slices.
    pub slices: Vec<Labelled>,
    /// The slices with most of the organs.
    pub panels: Vec<Panel>,
    /// Instances that could not be read.
    pub unreadable: usize,
    /// Slices that were expected and did not come.
    pub absent: usize,
    /// Its source broke off, or the service ended first: more may be missing.
    pub cut: bool,
    /// The policy made it fail.
    pub failed: bool,
}

impl Finished {
    /// Slices with an outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.slices.iter().filter(|slice| slice.outcome == outcome).count()
    }

    /// Slices without a label map that should have one.
    pub fn missing(&self) -> usize {
        self.count(Outcome::Refused) + self.count(Outcome::Dropped) + self.unreadable + self.absent
    }

    /// What a reader must know of it, in at most 64 characters.
    pub fn warning(&self) -> Option<String> {
        let (missing, stale, came) = (self.missing(), self.count(Outcome::Stale), self.slices.len());
        let all = came + self.unreadable + self.absent;
        let late = if stale > 0 { format!("; {stale} late") } else { String::new() };
        match (missing, self.cut, stale) {
            (0, false, 0) => None,
            (0, false, _) => Some(format!("{stale} of {came} slices came after their deadline")),
            (0, true, _) => Some(format!("CUT SHORT after {came} slices{late}")),
            _ => Some(format!("INCOMPLETE: {missing} of {all} slices not segmented{late}")),
        }
    }

    /// Why nothing of it is to be written, if so.
    pub fn refusal(&self, write_incomplete: bool) -> Option<Refusal> {
        if self.failed {
            return Some(Refusal::new(Code::LateFailed, "a slice missed its deadline (slices.late is fail-closed)"));
        }
        let refused = self.missing() > 0 && !write_incomplete;
        self.warning().filter(|_| refused).map(|words| Refusal::new(Code::SeriesIncomplete, words))
    }
}
