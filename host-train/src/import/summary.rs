//! What an import did, for people and for programs: who went where, and what was left out.

use std::{collections::BTreeMap, path::PathBuf};

use contract::Modality;
use serde::Serialize;

/// What was imported.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Name of the source.
    pub source: &'static str,
    /// The split, as on the command line.
    pub split: String,
    /// Its seed.
    pub seed: u64,
    /// One per modality.
    pub sets: Vec<SetSummary>,
}

/// One data set that was written.
#[derive(Debug, Serialize)]
pub struct SetSummary {
    /// Of every scan.
    pub modality: Modality,
    /// Where it lies.
    pub folder: PathBuf,
    /// Organs of our label map that the source does not label: background in every case.
    pub unlabelled: Vec<String>,
    /// Training cases.
    pub train: Vec<CaseSummary>,
    /// Test cases.
    pub test: Vec<CaseSummary>,
    /// Cases that were left out.
    pub skipped: Vec<Skipped>,
}

/// One case that was written.
#[derive(Debug, Serialize)]
pub struct CaseSummary {
    /// Name of its files.
    pub name: String,
    /// Whose scan it is.
    pub patient: String,
    /// Voxels along x, y, z.
    pub size: [usize; 3],
    /// Along x, y, z.
    pub spacing_mm: [f64; 3],
    /// Voxels of each organ.
    pub voxels: BTreeMap<String, u64>,
}

/// One case that was left out.
#[derive(Debug, Serialize)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub why: String,
}
