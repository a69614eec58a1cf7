//! A folder of DICOM files, one slice each, as a volume.
//!
//! Where the slices lie is taken from the image plane (PS3.3 C.7.6.2), never from names or instance numbers; which files
//! belong together is taken from the folder, never from the series' UID, which anonymised data sets often lost. A gap, a
//! slice that is there twice or one that looks another way is refused: the volume would not be the patient.

use std::path::{Path, PathBuf};

use contract::Modality;
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, Tag, open_file};
use dicom_pixeldata::{PixelDecoder, PixelRepresentation};
use volume::{Geometry, raw};

use super::{ImportError, found::files};

/// Steps between neighbouring slices may differ by this part of a step.
const STEP_TOLERANCE: f64 = 0.05;
/// Direction cosines of neighbouring slices may differ by this.
const COSINE_TOLERANCE: f64 = 1e-3;

/// What is wrong with a slice or a stack.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DicomFault {
    /// The reader's or decoder's words.
    #[error("{0}")]
    Unreadable(String),
    /// An element that a slice must have.
    #[error("no {0}: expected an image with its place in the patient")]
    Missing(&'static str),
    /// Not one grey image of 8 or 16 bits.
    #[error("{0}: expected one frame of MONOCHROME2 with 8 or 16 bits")]
    Pixels(String),
    /// Of another modality than the layout promises.
    #[error("modality {found}: expected {expected}")]
    Modality {
        /// As in the file.
        found: String,
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
        "the step from {} to {} is {step_mm:.3?} mm, others are {expected_mm:.3?} mm: is a file missing, or there twice?",
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
        expected_mm: [f64; 3],
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

struct Slice {
    size: [usize; 2],
    spacing_mm: [f64; 2],
    /// Directions of columns and rows in the patient.
    rows: [f64; 3],
    columns: [f64; 3],
    place_mm: [f64; 3],
    stored: Vec<i32>,
    slope: f64,
    intercept: f64,
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
    for (path, slice) in files.iter().zip(&slices) {
        same_stack(&slices[0], slice, &files[0]).map_err(|fault| at(path, fault))?;
    }
    let (order, step) = order(&slices, &files).map_err(|fault| at(folder, fault))?;
    let geometry = geometry(&slices[order[0]], slices.len(), step)
        .map_err(|fault| ImportError::from(volume::VolumeError::new(folder, fault)))?;
    let raw = geometry.to_canonical(&raw_values(&slices, &order, modality));
    Ok(Stack { files, order, geometry, raw })
}

fn slice(path: &Path, modality: Modality) -> Result<Slice, DicomFault> {
    let unreadable = |error: &dyn std::fmt::Display| DicomFault::Unreadable(error.to_string());
    let object = open_file(path).map_err(|error| unreadable(&error))?;
    let found = text(&object, tags::MODALITY, "Modality")?;
    if Modality::from_dicom(&found) != Ok(modality) {
        return Err(DicomFault::Modality { found: found.trim().into(), expected: modality });
    }
    let [row_mm, column_mm] = numbers(&object, tags::PIXEL_SPACING, "PixelSpacing")?;
    let [a, b, c, d, e, f] = numbers(&object, tags::IMAGE_ORIENTATION_PATIENT, "ImageOrientationPatient")?;
    let place_mm = numbers(&object, tags::IMAGE_POSITION_PATIENT, "ImagePositionPatient")?;
    let rescale = [(tags::RESCALE_SLOPE, 1.), (tags::RESCALE_INTERCEPT, 0.)].map(|(tag, default)| {
        let value = object.element_opt(tag).ok().flatten().and_then(|element| element.to_float64().ok());
        value.unwrap_or(default)
    });
    // A CT without rescale is not in HU (PS3.3 C.8.2.1: both are mandatory).
    if modality == Modality::Ct && object.element_opt(tags::RESCALE_INTERCEPT).ok().flatten().is_none() {
        return Err(DicomFault::Missing("RescaleIntercept"));
    }
    let (size, stored) = pixels(&object)?;
    Ok(Slice {
        size,
        spacing_mm: [column_mm, row_mm],
        rows: [a, b, c],
        columns: [d, e, f],
        place_mm,
        stored,
        slope: rescale[0],
        intercept: rescale[1],
    })
}

/// Columns, rows and stored values of the one frame.
fn pixels(object: &DefaultDicomObject) -> Result<([usize; 2], Vec<i32>), DicomFault> {
    let decoded = object.decode_pixel_data().map_err(|error| DicomFault::Unreadable(chain(&error)))?;
    let form = format!(
        "{} frames, {} with {} samples of {} bits",
        decoded.number_of_frames(),
        decoded.photometric_interpretation(),
        decoded.samples_per_pixel(),
        decoded.bits_allocated()
    );
    let one = decoded.number_of_frames() == 1 && decoded.samples_per_pixel() == 1;
    if !one || decoded.photometric_interpretation().as_str() != "MONOCHROME2" {
        return Err(DicomFault::Pixels(form));
    }
    let (stored, size) = (decoded.bits_stored(), [decoded.columns() as usize, decoded.rows() as usize]);
    let signed = decoded.pixel_representation() == PixelRepresentation::Signed;
    let words: Vec<u16> = match decoded.bits_allocated() {
        8 => decoded.data().iter().map(|&byte| byte.into()).collect(),
        16 => decoded.data_ow(),
        _ => return Err(DicomFault::Pixels(form)),
    };
    let area = size[0] * size[1];
    if words.len() < area || stored == 0 || stored > decoded.bits_allocated() || decoded.high_bit() + 1 < stored {
        return Err(DicomFault::Pixels(format!("{form}, {} values for {} x {}", words.len(), size[0], size[1])));
    }
    // What lies beside the stored bits is no part of the value (PS3.5 8.1.1).
    let (drop, keep) = (decoded.high_bit() + 1 - stored, 32 - u32::from(stored));
    let value = |word: &u16| {
        let top = u32::from(word >> drop) << keep;
        if signed { (top as i32) >> keep } else { (top >> keep) as i32 }
    };
    Ok((size, words[..area].iter().map(value).collect()))
}

/// The decoder's words with their causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn text(object: &DefaultDicomObject, tag: Tag, name: &'static str) -> Result<String, DicomFault> {
    let element = object.element_opt(tag).ok().flatten().ok_or(DicomFault::Missing(name))?;
    Ok(element.to_str().map_err(|_| DicomFault::Missing(name))?.into_owned())
}

fn numbers<const N: usize>(object: &DefaultDicomObject, tag: Tag, name: &'static str) -> Result<[f64; N], DicomFault> {
    let element = object.element_opt(tag).ok().flatten().ok_or(DicomFault::Missing(name))?;
    let values = element.to_multi_float64().map_err(|_| DicomFault::Missing(name))?;
    values.try_into().map_err(|_| DicomFault::Missing(name))
}

fn same_stack(first: &Slice, slice: &Slice, path: &Path) -> Result<(), DicomFault> {
    let differs = |what| Err(DicomFault::Differs { what, first: path.into() });
    let near = |a: &[f64], b: &[f64], tolerance: f64| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance);
    if slice.size != first.size {
        return differs(format!("size {:?} against {:?}", slice.size, first.size));
    }
    if !near(&slice.spacing_mm, &first.spacing_mm, 1e-3) {
        return differs(format!("spacing {:?} mm against {:?} mm", slice.spacing_mm, first.spacing_mm));
    }
    for (ours, theirs) in [(slice.rows, first.rows), (slice.columns, first.columns)] {
        if !near(&ours, &theirs, COSINE_TOLERANCE) {
            return differs(format!("orientation {ours:?} against {theirs:?}"));
        }
    }
    Ok(())
}

/// Slices along their normal, and the mean step between them.
fn order(slices: &[Slice], files: &[PathBuf]) -> Result<(Vec<usize>, [f64; 3]), DicomFault> {
    let normal = cross(slices[0].rows, slices[0].columns);
    let height = |index: usize| dot(slices[index].place_mm, normal);
    let mut order: Vec<usize> = (0..slices.len()).collect();
    order.sort_by(|&a, &b| height(a).total_cmp(&height(b)));
    let between =
        |below: usize, above: usize| [0, 1, 2].map(|axis| slices[above].place_mm[axis] - slices[below].place_mm[axis]);
    let steps: Vec<[f64; 3]> = order.windows(2).map(|pair| between(pair[0], pair[1])).collect();
    let mut sorted = steps.clone();
    sorted.sort_by(|a, b| dot(*a, normal).total_cmp(&dot(*b, normal)));
    let usual = sorted[sorted.len() / 2];
    let tolerance = STEP_TOLERANCE * dot(usual, usual).sqrt();
    for (pair, step) in order.windows(2).zip(&steps) {
        let off = [0, 1, 2].map(|axis| step[axis] - usual[axis]);
        // Not `>`: a step of NaN or a stack of no height is refused too.
        if !(dot(off, off).sqrt() <= tolerance && tolerance > 0.) {
            let name = |index: usize| files[index].file_name().map_or_else(PathBuf::new, PathBuf::from);
            let (below, above) = (name(pair[0]), name(pair[1]));
            return Err(DicomFault::Step { below, above, step_mm: *step, expected_mm: usual });
        }
    }
    let whole = between(order[0], order[order.len() - 1]);
    let mean = whole.map(|length| length / steps.len() as f64);
    Ok((order, mean))
}

/// Columns, rows and slices in NIfTI's world, whose x and y run against DICOM's (PS3.3 C.7.6.2.1.1).
fn geometry(first: &Slice, depth: usize, step: [f64; 3]) -> Result<Geometry, volume::Fault> {
    let [along, down] = first.spacing_mm;
    let affine = [0, 1, 2].map(|world| {
        let sign = if world < 2 { -1. } else { 1. };
        [first.rows[world] * along, first.columns[world] * down, step[world], first.place_mm[world]]
            .map(|value| sign * value)
    });
    Geometry::new([first.size[0], first.size[1], depth], affine)
}

/// Raw values in stored order, by the rule for all files.
fn raw_values(slices: &[Slice], order: &[usize], modality: Modality) -> Vec<i16> {
    let values = || {
        order
            .iter()
            .map(|&index| &slices[index])
            .flat_map(|slice| slice.stored.iter().map(move |&stored| f64::from(stored) * slice.slope + slice.intercept))
    };
    let exponent = match modality {
        Modality::Ct => 0,
        Modality::Mr => {
            let mut extent = raw::Extent::default();
            values().for_each(|value| extent.see(value));
            extent.exponent()
        }
    };
    values().map(|value| raw::raw(value, exponent)).collect()
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}
