//! Scans and truth to canonical volumes and our classes, on all cores.

use std::{
    num::NonZero,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use contract::Modality;
use volume::{DatasetWriter, Fault, LabelTable, Split as Part, VolumeError, read_image};

use super::{CaseSummary, Found, ImportError, LabelRules, Pixels, Plan, Truth, dicom, target, truth};

/// Workers at most: each holds a volume and its copies.
const MOST_WORKERS: usize = 8;

/// Which half of the data set a case goes to.
pub fn part(case: &Found) -> Part {
    if case.test { Part::Test } else { Part::Train }
}

/// Finds what is wrong without reading a voxel: the rules, the target, missing truth.
pub fn check(plan: &Plan, rules: &LabelRules, modality: Modality, cases: &[Found]) -> Result<(), ImportError> {
    Table::new(rules, modality, cases)?;
    let path = target(plan, modality);
    if path.exists() {
        return Err(ImportError::Exists { path });
    }
    for case in cases.iter().filter(|_| !plan.skip_bad) {
        truth_is_there(case)?;
    }
    Ok(())
}

fn truth_is_there(case: &Found) -> Result<(), ImportError> {
    if case.truth.path().exists() {
        return Ok(());
    }
    Err(VolumeError::new(case.truth.path(), Fault::NoLabels { image: case.image.path().into() }).into())
}

/// Numbers to classes; no table where organs have masks of their own.
struct Table(Option<LabelTable>);

impl Table {
    fn new(rules: &LabelRules, modality: Modality, cases: &[Found]) -> Result<Self, ImportError> {
        if cases.iter().any(|case| matches!(case.truth, Truth::Masks(_))) {
            return rules.masks(modality).map(|_| Self(None));
        }
        rules.table(modality).map(|table| Self(Some(table)))
    }
}

/// Converts and writes every case; `done` gets the index and what came of it, and says whether to go on.
pub fn all(
    cases: &[Found],
    rules: &LabelRules,
    modality: Modality,
    writer: &DatasetWriter,
    done: &mut dyn FnMut(usize, Result<CaseSummary, ImportError>) -> bool,
) -> Result<(), ImportError> {
    let table = Table::new(rules, modality, cases)?;
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(1, NonZero::get).min(MOST_WORKERS).min(cases.len());
    thread::scope(|scope| {
        let (sender, results) = mpsc::sync_channel(0);
        for _ in 0..workers {
            let (sender, next, table) = (sender.clone(), &next, &table);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(index) else { return };
                    // A receiver that is gone has seen enough.
                    if sender.send((index, one(case, rules, table, writer))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (index, result) in results {
            if !done(index, result) {
                break;
            }
        }
    });
    Ok(())
}

fn one(case: &Found, rules: &LabelRules, table: &Table, writer: &DatasetWriter) -> Result<CaseSummary, ImportError> {
    truth_is_there(case)?;
    let image = case.image.path();
    let (geometry, raw, stack) = match &case.image {
        Pixels::Nifti(path) => {
            let image = read_image(path, case.modality)?;
            (image.geometry, image.raw, None)
        }
        Pixels::Dicom(folder) => {
            let mut stack = dicom::read_stack(folder, case.modality)?;
            (stack.geometry.clone(), std::mem::take(&mut stack.raw), Some(stack))
        }
    };
    let classes = match (&case.truth, &table.0, stack) {
        (Truth::Nifti(path), Some(table), _) => truth::nifti(path, table, image, &geometry)?,
        (Truth::Pngs(folder), Some(table), Some(stack)) => truth::pngs(folder, table, image, &stack)?,
        (Truth::Masks(folder), _, _) => truth::masks(folder, rules, case.modality, image, &geometry)?,
        (Truth::Nifti(_) | Truth::Pngs(_), ..) => unreachable!("a layout gives PNG truth to DICOM slices only"),
    };
    writer.write(part(case), &case.name, &geometry, &raw, &classes)?;
    let [z, y, x] = geometry.shape();
    let mut counts = vec![0; rules.organs().classes()];
    classes.iter().for_each(|&class| counts[usize::from(class)] += 1);
    let voxels = rules.organs().organs().map(|(class, label)| (label.name.clone(), counts[usize::from(class)]));
    Ok(CaseSummary {
        name: case.name.clone(),
        patient: case.patient.clone(),
        size: [x, y, z],
        spacing_mm: geometry.spacing_mm(),
        voxels: voxels.collect(),
    })
}
