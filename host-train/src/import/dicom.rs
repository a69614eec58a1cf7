//! A folder of DICOM files, one slice each, as a volume.
//!
//! Where the slices lie is taken from the image plane (PS3.3 C.7.6.2), never from names or instance numbers; which files
//! belong together is taken from the folder, never from the series' UID, which anonymised data sets often lost. A gap, a
//! slice that is there twice or one that looks another way is refused: the volume would not be the patient.

use std::path::{Path, PathBuf};

use contract::Modality;
use dicom::{
    Fault, Frame, Image, Plane,
    stack::{self, StackFault},
};
use volume::{Geometry, raw};

use super::{ImportError, found::files};

/// What is wrong with a slice or a stack.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DicomFault {
    /// A file that is no slice.
    #[error(transparent)]
    Slice(#[from] Fault),
    /// A file with more slices than one.
    #[error("{0} frames: expected one")]
    Frames(usize),
    /// Of another modality than the layout promises.
    #[error("modality {found}: expected {expected}")]
    Modality {
        /// As in the file.
        found: Modality,
        /// As the folder says.
        expected: Modality,
    },
    /// Slices that do not make one stack.
    #[error("{what} differs from that of {}: expected slices of one stack", first.display())]
    Differs {
        /// Size, spacing or orientation, with both values.
        what: String,
        /// The file that it was compared with.
        first: PathBuf,
    },
    /// Too few slices.
    #[error("{0} DICOM slices, expected at least 2")]
    Few(usize),
    /// Neighbouring slices too far apart, too close or out of line.
    #[error(
        "the step from {} to {} is {step_mm:.3?} mm, others are {usual_mm:.3?} mm: is a file missing, or there twice?",
        below.display(), above.display()
    )]
    Step {
        /// Name of the lower file.
        below: PathBuf,
        /// Name of the upper file.
        above: PathBuf,
        /// Patient x, y, z (to left, posterior, superior).
        step_mm: [f64; 3],
        /// The median step.
        usual_mm: [f64; 3],
    },
}

/// A volume from slices.
#[derive(Debug)]
pub struct Stack {
    /// The files in order of name.
    pub files: Vec<PathBuf>,
    /// Which file each stored slice came from.
    pub order: Vec<usize>,
    /// Stored order: columns, rows, slices along the normal.
    pub geometry: Geometry,
    /// Raw intensities, canonical `[z][y][x]`.
    pub raw: Vec<i16>,
}

/// Reads all `.dcm` files of a folder.
pub fn read_stack(folder: &Path, modality: Modality) -> Result<Stack, ImportError> {
    let files = files(folder, ".dcm")?;
    let at = |path: &Path, fault| ImportError::Dicom { path: path.into(), fault };
    if files.len() < 2 {
        return Err(at(folder, DicomFault::Few(files.len())));
    }
    let mut slices = vec![];
    for path in &files {
        slices.push(slice(path, modality).map_err(|fault| at(path, fault))?);
    }
    let planes: Vec<Plane> = slices.iter().map(|slice| slice.plane).collect();
    let stack = stack::Stack::new(&planes).map_err(|fault| stack_fault(fault, folder, &files))?;
    let geometry =
        stack.geometry(&planes).map_err(|fault| ImportError::from(volume::VolumeError::new(folder, fault)))?;
    let raw = geometry.to_canonical(&raw_values(&slices, &stack.order, modality));
    Ok(Stack { files, order: stack.order, geometry, raw })
}

fn slice(path: &Path, expected: Modality) -> Result<Frame, DicomFault> {
    let Image { modality: found, mut frames } = Image::open(path)?;
    match frames.len() {
        _ if found != expected => Err(DicomFault::Modality { found, expected }),
        1 => Ok(frames.remove(0)),
        several => Err(DicomFault::Frames(several)),
    }
}

/// A fault of the stack with the files' names.
fn stack_fault(fault: StackFault, folder: &Path, files: &[PathBuf]) -> ImportError {
    let name = |index: usize| files[index].file_name().map_or_else(PathBuf::new, PathBuf::from);
    let (path, fault) = match fault {
        StackFault::Few(slices) => (folder, DicomFault::Few(slices)),
        StackFault::Differs { index, what } => {
            (files[index].as_path(), DicomFault::Differs { what, first: files[0].clone() })
        }
        StackFault::Step { below, above, step_mm, usual_mm } => {
            (folder, DicomFault::Step { below: name(below), above: name(above), step_mm, usual_mm })
        }
    };
    ImportError::Dicom { path: path.into(), fault }
}

/// Raw values in stored order, by the rule for all files.
fn raw_values(slices: &[Frame], order: &[usize], modality: Modality) -> Vec<i16> {
    let values = || order.iter().flat_map(|&index| slices[index].values());
    let exponent = raw::exponent(modality, values());
    values().map(|value| raw::raw(value, exponent)).collect()
}
