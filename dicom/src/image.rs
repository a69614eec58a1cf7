//! One instance: what it is, and where its frames lie.

use std::path::Path;

use contract::Modality;
use dicom_core::dictionary::UidDictionary;
use dicom_dictionary_std::{StandardSopClassDictionary, tags, uids};
use dicom_object::{DefaultDicomObject, InMemDicomObject, Tag};

use crate::{Fault, pixels, read};

/// Kinds of object that hold slices of CT and MR.
const KINDS: [(&str, Modality); 6] = [
    (uids::CT_IMAGE_STORAGE, Modality::Ct),
    (uids::ENHANCED_CT_IMAGE_STORAGE, Modality::Ct),
    (uids::LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE, Modality::Ct),
    (uids::MR_IMAGE_STORAGE, Modality::Mr),
    (uids::ENHANCED_MR_IMAGE_STORAGE, Modality::Mr),
    (uids::LEGACY_CONVERTED_ENHANCED_MR_IMAGE_STORAGE, Modality::Mr),
];

/// Words in `ImageType` of images that are no slices: scouts, tiles of many slices in one, projections through the volume.
const NO_SLICES: [&str; 8] =
    ["LOCALIZER", "SCOUT", "MOSAIC", "MIP", "MINIP", "PROJECTION IMAGE", "VOLUME RENDERING", "SCREEN SAVE"];

/// Who an instance is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Kind of object (SOP class UID).
    pub sop_class: String,
    /// The instance's own UID.
    pub sop_instance: String,
    /// Series UID.
    pub series: String,
    /// Study UID.
    pub study: String,
    /// The patient's number within the hospital; empty where there is none.
    pub patient: String,
    /// Frame of reference, where there is one.
    pub frame_of_reference: Option<String>,
    /// Number within the series, where there is one; it orders nothing here.
    pub number: Option<i64>,
}

/// Where a frame lies in the patient (PS3.3 C.7.6.2): mm, x to the left, y to posterior, z to superior.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plane {
    /// Columns and rows.
    pub size: [usize; 2],
    /// From column to column and from row to row.
    pub spacing_mm: [f64; 2],
    /// Direction in which columns count, along a row.
    pub along: [f64; 3],
    /// Direction in which rows count, down a column.
    pub down: [f64; 3],
    /// Centre of the first pixel.
    pub first_mm: [f64; 3],
}

impl Plane {
    /// Unit vector across the plane.
    pub fn normal(&self) -> [f64; 3] {
        let ([a, b, c], [d, e, f]) = (self.along, self.down);
        [b * f - c * e, c * d - a * f, a * e - b * d]
    }

    /// How far the plane lies along `normal`, mm.
    pub fn height_mm(&self, normal: [f64; 3]) -> f64 {
        self.first_mm.iter().zip(normal).map(|(place, axis)| place * axis).sum()
    }
}

/// One slice.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Where it lies.
    pub plane: Plane,
    /// Of the modality's units to a stored value.
    pub slope: f64,
    /// The unit's value of stored 0.
    pub intercept: f64,
    /// As stored, `[row][column]`.
    pub stored: Vec<i32>,
}

impl Frame {
    /// Values after rescale: HU in CT.
    pub fn values(&self) -> impl Iterator<Item = f64> {
        self.stored.iter().map(|&stored| f64::from(stored) * self.slope + self.intercept)
    }
}

impl Identity {
    /// Reads what a scanner always sends and anonymised data sets have often lost.
    ///
    /// # Errors
    /// [`Fault::Missing`].
    pub fn new(object: &DefaultDicomObject) -> Result<Self, Fault> {
        Ok(Self {
            sop_class: class(object).to_owned(),
            sop_instance: needed(object, tags::SOP_INSTANCE_UID, "SOPInstanceUID")?,
            series: needed(object, tags::SERIES_INSTANCE_UID, "SeriesInstanceUID")?,
            study: needed(object, tags::STUDY_INSTANCE_UID, "StudyInstanceUID")?,
            patient: text(object, tags::PATIENT_ID).unwrap_or_default(),
            frame_of_reference: text(object, tags::FRAME_OF_REFERENCE_UID).filter(|uid| !uid.is_empty()),
            number: number(object, tags::INSTANCE_NUMBER).map(|number| number as i64),
        })
    }
}

/// The series of an instance of any kind.
pub fn series(object: &DefaultDicomObject) -> Option<String> {
    text(object, tags::SERIES_INSTANCE_UID).filter(|uid| !uid.is_empty())
}

/// The UID of an instance of any kind.
pub fn instance(object: &DefaultDicomObject) -> String {
    object.meta().media_storage_sop_instance_uid().trim_end_matches('\0').to_owned()
}

/// All frames of an instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// What made it.
    pub modality: Modality,
    /// In the order of the instance.
    pub frames: Vec<Frame>,
}

impl Image {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`Image::new`]; and [`Fault::Unreadable`] where the file is no DICOM.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        Self::new(&read::open(path)?)
    }

    /// Reads an instance.
    ///
    /// # Errors
    /// [`Fault`]: another kind of object, an image without its place, pixels that cannot be decoded.
    pub fn new(object: &DefaultDicomObject) -> Result<Self, Fault> {
        Self::within(object, usize::MAX, usize::MAX)
    }

    /// Reads an instance of at most so many frames of so many pixels; of a larger one nothing is decoded.
    ///
    /// # Errors
    /// See [`Image::new`]; and [`Fault::Size`].
    pub fn within(object: &DefaultDicomObject, pixels: usize, frames: usize) -> Result<Self, Fault> {
        let modality = modality(object)?;
        let kinds = text(object, tags::IMAGE_TYPE).unwrap_or_default();
        if let Some(word) = kinds.split('\\').map(str::trim).find(|word| NO_SLICES.contains(word)) {
            return Err(Fault::Type(format!("{kinds} has {word}")));
        }
        let places = places(object, modality)?;
        let extent = pixels::extent(object)?;
        if extent[0] * extent[1] > pixels || extent[2] > frames {
            let [columns, rows, found] = extent.map(|count| count as u64);
            let most = pixels.saturating_mul(frames) as u64;
            return Err(Fault::Size { frames: found, columns, rows, most });
        }
        let stored = pixels::stored(object)?;
        let area = stored.size[0] * stored.size[1];
        if stored.values.len() != area * places.len() {
            return Err(Fault::Pixels(format!("{} frames with {} places", stored.values.len() / area, places.len())));
        }
        let frames = places.into_iter().zip(stored.values.chunks_exact(area)).map(|(place, values)| {
            let plane = Plane { size: stored.size, ..place.plane };
            Frame { plane, slope: place.slope, intercept: place.intercept, stored: values.to_vec() }
        });
        Ok(Self { modality, frames: frames.collect() })
    }
}

/// Kind of object.
fn class(object: &DefaultDicomObject) -> &str {
    object.meta().media_storage_sop_class_uid().trim_end_matches('\0')
}

/// The modality that both kind and element name.
fn modality(object: &DefaultDicomObject) -> Result<Modality, Fault> {
    let class = class(object);
    let found = text(object, tags::MODALITY).ok_or(Fault::Missing("Modality"))?;
    let Some(&(_, expected)) = KINDS.iter().find(|(uid, _)| *uid == class) else {
        return Err(Fault::Kind { found: format!("{} ({found})", name(class)) });
    };
    match Modality::from_dicom(&found) {
        Ok(modality) if modality == expected => Ok(modality),
        _ => Err(Fault::Modality { found, expected: format!("{expected}, as the kind of object says").to_uppercase() }),
    }
}

/// A kind of object by name, else by number.
fn name(class: &str) -> String {
    StandardSopClassDictionary.by_uid(class).map_or_else(|| class.to_owned(), |entry| entry.name.to_owned())
}

/// Where a frame lies and what its values mean; of the size nothing is known yet.
struct Place {
    plane: Plane,
    slope: f64,
    intercept: f64,
}

/// One place per frame.
fn places(object: &InMemDicomObject, modality: Modality) -> Result<Vec<Place>, Fault> {
    let Some(frames) = items(object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE) else {
        return Ok(vec![place(&[object], modality)?]);
    };
    let shared = items(object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).and_then(<[_]>::first);
    let groups = [
        tags::PIXEL_MEASURES_SEQUENCE,
        tags::PLANE_ORIENTATION_SEQUENCE,
        tags::PLANE_POSITION_SEQUENCE,
        tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE,
    ];
    let of_frame = |frame: &InMemDicomObject| {
        let found = groups.iter().filter_map(|&group| {
            let of = |object| items(object, group).and_then(<[_]>::first);
            of(frame).or_else(|| shared.and_then(of))
        });
        place(&found.collect::<Vec<_>>(), modality)
    };
    frames.iter().map(of_frame).collect()
}

/// The place that the elements of some objects together say.
fn place(objects: &[&InMemDicomObject], modality: Modality) -> Result<Place, Fault> {
    let [row_mm, column_mm] = numbers(objects, tags::PIXEL_SPACING, "PixelSpacing")?;
    let [a, b, c, d, e, f] = numbers(objects, tags::IMAGE_ORIENTATION_PATIENT, "ImageOrientationPatient")?;
    let first_mm = numbers(objects, tags::IMAGE_POSITION_PATIENT, "ImagePositionPatient")?;
    let plane = Plane { size: [0; 2], spacing_mm: [column_mm, row_mm], along: [a, b, c], down: [d, e, f], first_mm };
    check(&plane)?;
    let rescale = |tag| objects.iter().find_map(|object| number(object, tag));
    let (slope, intercept) = (rescale(tags::RESCALE_SLOPE), rescale(tags::RESCALE_INTERCEPT));
    // A CT without rescale is not in HU (PS3.3 C.8.2.1: both are mandatory).
    if modality == Modality::Ct && intercept.is_none() {
        return Err(Fault::Missing("RescaleIntercept"));
    }
    // Unspecified is what older scanners say of HU; a density or an atomic number is no HU.
    let kind = objects.iter().find_map(|object| text(object, tags::RESCALE_TYPE)).unwrap_or_default();
    if modality == Modality::Ct && !["", "HU", "US"].contains(&kind.as_str()) {
        return Err(Fault::Value { name: "RescaleType", found: kind, expected: "HU" });
    }
    let place = Place { plane, slope: slope.unwrap_or(1.), intercept: intercept.unwrap_or(0.) };
    if !(place.slope.is_finite() && place.slope != 0. && place.intercept.is_finite()) {
        let found = format!("{} and {}", place.slope, place.intercept);
        return Err(Fault::Value {
            name: "RescaleSlope, RescaleIntercept",
            found,
            expected: "numbers, the slope not 0",
        });
    }
    Ok(place)
}

/// Pixels of a size, and two directions at a right angle (to the 4 digits that some scanners write).
fn check(plane: &Plane) -> Result<(), Fault> {
    let Plane { spacing_mm, along, down, first_mm, .. } = plane;
    if !spacing_mm.iter().all(|mm| mm.is_finite() && *mm > 0.) {
        return Err(Fault::Value { name: "PixelSpacing", found: format!("{spacing_mm:?}"), expected: "lengths" });
    }
    let dot = |a: &[f64; 3], b: &[f64; 3]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let off = [dot(along, along) - 1., dot(down, down) - 1., dot(along, down)];
    // Not `>`: NaN is refused too.
    if !off.iter().all(|off| off.abs() <= 2e-3) {
        let found = format!("{along:?} {down:?}");
        let expected = "two unit vectors at a right angle";
        return Err(Fault::Value { name: "ImageOrientationPatient", found, expected });
    }
    if !first_mm.iter().all(|mm| mm.is_finite()) {
        return Err(Fault::Value { name: "ImagePositionPatient", found: format!("{first_mm:?}"), expected: "lengths" });
    }
    Ok(())
}

/// Items of a sequence.
pub fn items(object: &InMemDicomObject, tag: Tag) -> Option<&[InMemDicomObject]> {
    object.element_opt(tag).ok().flatten().and_then(|element| element.items())
}

/// Text without the spaces that only fill it up.
pub fn text(object: &InMemDicomObject, tag: Tag) -> Option<String> {
    let element = object.element_opt(tag).ok().flatten()?;
    Some(element.to_str().ok()?.trim_matches(['\0', ' ']).to_owned())
}

fn needed(object: &InMemDicomObject, tag: Tag, name: &'static str) -> Result<String, Fault> {
    text(object, tag).filter(|text| !text.is_empty()).ok_or(Fault::Missing(name))
}

/// One number.
pub fn number(object: &InMemDicomObject, tag: Tag) -> Option<f64> {
    object.element_opt(tag).ok().flatten()?.to_float64().ok()
}

fn numbers<const N: usize>(objects: &[&InMemDicomObject], tag: Tag, name: &'static str) -> Result<[f64; N], Fault> {
    let mut elements = objects.iter().filter_map(|object| object.element_opt(tag).ok().flatten());
    let element = elements.next().ok_or(Fault::Missing(name))?;
    element.to_multi_float64().ok().and_then(|values| values.try_into().ok()).ok_or(Fault::Missing(name))
}
