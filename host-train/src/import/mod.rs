//! Public data sets as they come, into nnU-Net's raw layout with our label ids: one data set per modality.
//!
//! ```text
//! layouts: where a source keeps its scans   ->  found: scans, truth, patients
//! split:   whole patients to train or test  ->  convert: DICOM, PNG, NIfTI, masks to one grid and our classes
//! ```
//! A data set is written beside its final place and renamed when it is whole, so that an import that stops leaves nothing
//! that looks finished.

mod convert;
pub mod dicom;
mod error;
mod found;
mod labels;
mod layouts;
mod source;
mod split;
mod summary;
mod truth;

use std::{
    fs,
    path::{Path, PathBuf},
};

use contract::Modality;
use volume::{DatasetWriter, Split as Part};

pub use dicom::DicomFault;
pub use error::ImportError;
pub use found::{Found, Pixels, Truth};
pub use labels::{LABEL_MAPS, LabelRules, label_map, label_map_of};
pub use source::Source;
pub use split::Split;
pub use summary::{CaseSummary, SetSummary, Skipped, Summary};

/// What is to be imported.
#[derive(Debug)]
pub struct Plan {
    /// The layout.
    pub source: Source,
    /// The folder that was unpacked.
    pub from: PathBuf,
    /// Folder for the data sets.
    pub to: PathBuf,
    /// Modalities to import; `None` for those of the source that are there.
    pub modality: Option<Modality>,
    /// Only cases whose name contains this, like `t2spir`.
    pub only: Option<String>,
    /// Label rules in place of the built-in ones.
    pub labels: Option<LabelRules>,
    /// Who is for testing.
    pub split: Split,
    /// Of random splits.
    pub seed: u64,
    /// Whether bad cases are left out.
    pub skip_bad: bool,
}

/// A step of an import.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// So many cases are to come.
    Begin(usize),
    /// One of them is done.
    Case,
}

/// Imports all that the plan names.
pub fn import(plan: &Plan, tell: &mut dyn FnMut(Progress)) -> Result<Summary, ImportError> {
    let found = plan.source.find(&plan.from)?;
    let rules = match &plan.labels {
        Some(_) => None,
        None => {
            let name = format!("labels of {}", plan.source.name());
            Some(LabelRules::parse(Path::new(&name), &plan.source.label_text(Some(&plan.from))?)?)
        }
    };
    let rules = plan.labels.as_ref().or(rules.as_ref()).expect("one of the two");
    let mut sets = vec![];
    for modality in Modality::ALL {
        let wanted = plan.modality.map_or(plan.source.usual().contains(&modality), |only| only == modality);
        let named = |case: &&Found| plan.only.as_ref().is_none_or(|part| case.name.contains(part));
        let mut cases: Vec<Found> =
            found.iter().filter(|case| wanted && case.modality == modality).filter(named).cloned().collect();
        if cases.is_empty() && plan.modality == Some(modality) {
            return Err(ImportError::Empty { path: plan.from.clone(), modality });
        }
        if !cases.is_empty() {
            plan.split.apply(plan.source, plan.seed, &mut cases)?;
            sets.push((modality, cases));
        }
    }
    if sets.is_empty() {
        return Err(ImportError::Empty { path: plan.from.clone(), modality: plan.source.usual()[0] });
    }
    // What can be seen without reading a voxel is said before the first hour of work.
    for (modality, cases) in &sets {
        convert::check(plan, rules, *modality, cases)?;
    }
    tell(Progress::Begin(sets.iter().map(|(_, cases)| cases.len()).sum()));
    let write = |(modality, cases): (Modality, Vec<Found>)| set(plan, rules, modality, &cases, tell);
    let sets = sets.into_iter().map(write).collect::<Result<_, _>>()?;
    Ok(Summary { source: plan.source.name(), split: plan.split.to_string(), seed: plan.seed, sets })
}

/// Writes the data set of a modality.
fn set(
    plan: &Plan,
    rules: &LabelRules,
    modality: Modality,
    cases: &[Found],
    tell: &mut dyn FnMut(Progress),
) -> Result<SetSummary, ImportError> {
    let folder = target(plan, modality);
    fs::create_dir_all(&plan.to).map_err(|error| ImportError::io(&plan.to, error))?;
    let unfinished = tempfile::Builder::new().prefix(".gantry-import-").tempdir_in(&plan.to);
    let unfinished = unfinished.map_err(|error| ImportError::io(&plan.to, error))?;
    let place = unfinished.path().join("set");
    let mut writer = DatasetWriter::create(&place, modality, rules.organs())?;
    let mut summary = SetSummary {
        modality,
        folder: folder.clone(),
        unlabelled: rules.unlabelled(modality)?,
        train: vec![],
        test: vec![],
        skipped: vec![],
    };
    let mut results = vec![];
    convert::all(cases, rules, modality, &writer, &mut |index, result| {
        tell(Progress::Case);
        let fatal = result.is_err() && !plan.skip_bad;
        results.push((index, result));
        !fatal
    })?;
    // By the order of the cases, not by that in which threads were done.
    results.sort_by_key(|(index, _)| *index);
    for (index, result) in results {
        let (name, patient, part) = (&cases[index].name, &cases[index].patient, convert::part(&cases[index]));
        match result {
            Ok(case) => {
                writer.count(part, name, patient);
                if part == Part::Test { summary.test.push(case) } else { summary.train.push(case) }
            }
            Err(error) if plan.skip_bad => {
                summary.skipped.push(Skipped { name: name.clone(), why: error.to_string() });
            }
            Err(error) => return Err(error),
        }
    }
    if summary.train.is_empty() && summary.test.is_empty() {
        let last = summary.skipped.pop().map(|skipped| skipped.why).unwrap_or_default();
        return Err(ImportError::AllBad { path: plan.from.clone(), count: cases.len(), last });
    }
    writer.finish()?;
    fs::rename(&place, &folder).map_err(|error| ImportError::io(&folder, error))?;
    Ok(summary)
}

/// Where the data set of a modality will lie.
fn target(plan: &Plan, modality: Modality) -> PathBuf {
    plan.to.join(plan.source.folder(modality))
}
