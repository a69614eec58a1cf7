//! DICOM Segmentations from label maps: as bits per organ, which every viewer reads, or as the label map itself.
//!
//! Every frame lies exactly on the pixels of one source frame: it has its size, spacing, orientation and position, so that
//! oblique, tilted and unevenly spaced slices are as good as any other. Segment numbers are class indices; all organs of the
//! label map are described, found or not. Stored are the frames with a pixel of their organ (of any organ, in a label map).
//! Where nothing is found at all, which is a result too and not a fault, the first organ's frames (all frames, in a label
//! map) are stored empty, because the standard wants at least one.
//!
//! A source without a frame of reference, which CT and MR images must have, gets one derived from its series: it relates the
//! results from one series to each other, and to nothing else.

mod codes;
mod color;
mod frames;

use std::collections::HashSet;

use contract::{Label, LabelMap};
use dicom_core::PrimitiveValue;
use dicom_dictionary_std::{tags, uids};
use dicom_object::{DefaultDicomObject, InMemDicomObject};

use crate::{
    MakeFault, Plane,
    dataset::{Code, MOST, of, put, put_item, put_items, put_pixels, texts},
    derived::{Maker, Source, finish, needed, put_lossy, put_name, put_references, put_text, start, uid},
    image::text,
};
use codes::{BACKGROUND, Organ, PRIVATE, STRUCTURE};
use frames::{Frame, Places};

/// How networks are called among algorithms.
const FAMILY: Code = Code { value: "123110", scheme: "DCM", meaning: "Artificial Intelligence" };

/// How labels are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One bit per pixel and organ (SOP class Segmentation, type `BINARY`): read by every viewer that reads segmentations.
    Binary,
    /// One byte per pixel (SOP class Label Map Segmentation of 2024): smaller from nine organs per slice on, and not
    /// yet widely read.
    LabelMap,
}

impl Form {
    /// The kind of object.
    pub const fn sop_class(self) -> &'static str {
        match self {
            Self::Binary => uids::SEGMENTATION_STORAGE,
            Self::LabelMap => uids::LABEL_MAP_SEGMENTATION_STORAGE,
        }
    }

    /// The defined term of SegmentationType.
    const fn term(self) -> &'static str {
        match self {
            Self::Binary => "BINARY",
            Self::LabelMap => "LABELMAP",
        }
    }
}

/// One labelled slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slice<'a> {
    /// Where it lies.
    pub plane: Plane,
    /// The image it labels.
    pub source: Source<'a>,
    /// Class indices `[row][column]`, in the source's own order of pixels.
    pub labels: &'a [u8],
}

/// Makes a segmentation of the slices of one series. `header` is the data set of any of its instances, with or without
/// pixels; `description` is the content's (up to 64 characters), such as `incomplete: 3 of 40 slices not segmented`.
///
/// The instance's UID is derived from the sources, the labels, the description, the network, the program and the form: the same
/// result has the same UID, whenever it is made.
///
/// # Errors
/// [`MakeFault`]: slices of different sizes or in one place, labels that are no class, a header without study or series, texts
/// that are too long.
pub fn segmentation(
    header: &InMemDicomObject,
    slices: &[Slice],
    labels: &LabelMap,
    maker: &Maker,
    description: &str,
    form: Form,
) -> Result<DefaultDicomObject, MakeFault> {
    check(slices, labels)?;
    let places = Places::new(header, slices)?;
    let frames = frames::stored(slices, form);
    let bytes = frames::bytes(slices, &frames, form);
    if bytes.len() > MOST {
        return Err(MakeFault::Bytes { found: bytes.len() });
    }

    let content = content(slices, &frames, labels, description);
    let content: Vec<&[u8]> = content.iter().map(Vec::as_slice).chain([bytes.as_slice()]).collect();
    let mut object = start(header, maker, form.sop_class(), form.term(), &content)?;
    put(&mut object, tags::MODALITY, "SEG");
    frame_of_reference(header, &mut object)?;
    let sources: Vec<Source> = slices.iter().map(|slice| slice.source).collect();
    put_references(header, &mut object, &sources)?;
    put_text(&mut object, tags::CONTENT_DESCRIPTION, "ContentDescription", description)?;
    image(header, &mut object, slices[0].plane.size, frames.len(), form);
    segments(&mut object, labels, maker, form)?;
    dimensions(&mut object, form);
    places.put(&mut object, slices, &frames);
    put_pixels(&mut object, bytes);
    finish(object)
}

/// Slices of one size, each of a source of its own, with a class in every pixel.
fn check(slices: &[Slice], labels: &LabelMap) -> Result<(), MakeFault> {
    let expected = slices.first().ok_or(MakeFault::None("slices"))?.plane.size;
    let most = labels.classes() - 1;
    if most == 0 {
        return Err(MakeFault::None("organs"));
    }
    let mut seen = HashSet::new();
    for (index, slice) in slices.iter().enumerate() {
        let Source { sop_instance, frame, .. } = slice.source;
        if sop_instance.is_empty() || !seen.insert((sop_instance, frame)) {
            return Err(MakeFault::Source { index, found: sop_instance.to_owned() });
        }
        let size = slice.plane.size;
        if size != expected || size.iter().any(|&side| side == 0 || side > usize::from(u16::MAX)) {
            return Err(MakeFault::Size { what: "slice", index, found: size, expected });
        }
        let (found, expected) = (slice.labels.len(), size[0] * size[1]);
        if found != expected {
            return Err(MakeFault::Length { what: "slice", index, found, expected });
        }
        if let Some(&found) = slice.labels.iter().find(|&&label| usize::from(label) > most) {
            return Err(MakeFault::Label { index, found, most });
        }
    }
    Ok(())
}

/// What makes this segmentation another one than any other of the series, but for its pixels.
fn content(slices: &[Slice], frames: &[Frame], labels: &LabelMap, description: &str) -> Vec<Vec<u8>> {
    let mut parts = vec![description.as_bytes().to_vec()];
    parts.extend(labels.organs().map(|(_, label)| label.name.clone().into_bytes()));
    for slice in slices {
        parts.push(slice.source.sop_instance.as_bytes().to_vec());
        parts.push(slice.source.frame.unwrap_or(0).to_le_bytes().to_vec());
    }
    for frame in frames {
        parts.push(vec![frame.segment.unwrap_or(0)]);
        parts.push((frame.slice as u64).to_le_bytes().to_vec());
    }
    parts
}

/// PS3.3 C.7.4.1.
fn frame_of_reference(header: &InMemDicomObject, object: &mut InMemDicomObject) -> Result<(), MakeFault> {
    let known = text(header, tags::FRAME_OF_REFERENCE_UID).filter(|uid| !uid.is_empty());
    let series = needed(header, tags::SERIES_INSTANCE_UID, "SeriesInstanceUID")?;
    let frame = known.unwrap_or_else(|| uid(&[b"frame of reference", series.as_bytes()]));
    put(object, tags::FRAME_OF_REFERENCE_UID, frame);
    let indicator = text(header, tags::POSITION_REFERENCE_INDICATOR).unwrap_or_default();
    put(object, tags::POSITION_REFERENCE_INDICATOR, indicator);
    Ok(())
}

/// The image itself (PS3.3 C.8.20.2).
fn image(header: &InMemDicomObject, object: &mut InMemDicomObject, size: [usize; 2], frames: usize, form: Form) {
    put(object, tags::IMAGE_TYPE, texts(&["DERIVED", "PRIMARY"]));
    put(object, tags::CONTENT_LABEL, "SEGMENTATION");
    put(object, tags::CONTENT_CREATOR_NAME, PrimitiveValue::Empty);
    put(object, tags::NUMBER_OF_FRAMES, frames.to_string());
    let bits: u16 = match form {
        Form::Binary => 1,
        Form::LabelMap => 8,
    };
    for (tag, value) in [
        (tags::SAMPLES_PER_PIXEL, 1),
        (tags::COLUMNS, size[0] as u16),
        (tags::ROWS, size[1] as u16),
        (tags::BITS_ALLOCATED, bits),
        (tags::BITS_STORED, bits),
        (tags::HIGH_BIT, bits - 1),
        (tags::PIXEL_REPRESENTATION, 0),
    ] {
        put(object, tag, value);
    }
    put(object, tags::PHOTOMETRIC_INTERPRETATION, "MONOCHROME2");
    if form == Form::LabelMap {
        put(object, tags::PIXEL_PADDING_VALUE, 0u16);
    }
    put_lossy(header, object);
    put(object, tags::SEGMENTATION_TYPE, form.term());
    put(object, tags::SEGMENTS_OVERLAP, "NO");
}

/// What every segment is, and who found it (PS3.3 C.8.20.4). A label map describes its background too (C.8.20.2.3).
fn segments(object: &mut InMemDicomObject, labels: &LabelMap, maker: &Maker, form: Form) -> Result<(), MakeFault> {
    let first = if form == Form::LabelMap { 0 } else { 1 };
    let items: Result<Vec<_>, _> =
        labels.iter().skip(first).map(|(number, label)| segment(number, label, maker)).collect();
    put_items(object, tags::SEGMENT_SEQUENCE, items?);
    if labels.organs().any(|(_, label)| Organ::new(&label.name).is_private()) {
        let mut scheme = of(tags::CODING_SCHEME_DESIGNATOR, PRIVATE);
        put(&mut scheme, tags::CODING_SCHEME_NAME, "Names of organs in Gantry's label maps");
        put_item(object, tags::CODING_SCHEME_IDENTIFICATION_SEQUENCE, scheme);
    }
    Ok(())
}

fn segment(number: u8, label: &Label, maker: &Maker) -> Result<InMemDicomObject, MakeFault> {
    let mut item = of(tags::SEGMENT_NUMBER, u16::from(number));
    put_name(&mut item, tags::SEGMENT_LABEL, "SegmentLabel", &label.name)?;
    put(&mut item, tags::SEGMENT_ALGORITHM_TYPE, "AUTOMATIC");
    put_name(&mut item, tags::SEGMENT_ALGORITHM_NAME, "SegmentAlgorithmName", maker.algorithm)?;
    put(&mut item, tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE, color::cielab(label.color));
    let organ = Organ::new(&label.name);
    let [category, mut kind] = match number {
        0 => BACKGROUND.map(Code::item),
        _ => [STRUCTURE.item(), organ.code().item()],
    };
    if let Some(side) = organ.side {
        put_item(&mut kind, tags::SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE, side.code().item());
    }
    put_item(&mut item, tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE, category);
    put_item(&mut item, tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, kind);
    if number != 0 {
        let mut algorithm = InMemDicomObject::new_empty();
        put_item(&mut algorithm, tags::ALGORITHM_FAMILY_CODE_SEQUENCE, FAMILY.item());
        put_name(&mut algorithm, tags::ALGORITHM_NAME, "AlgorithmName", maker.algorithm)?;
        put_name(&mut algorithm, tags::ALGORITHM_VERSION, "AlgorithmVersion", maker.version)?;
        put_item(&mut item, tags::SEGMENTATION_ALGORITHM_IDENTIFICATION_SEQUENCE, algorithm);
    }
    Ok(item)
}

/// Frames are ordered by organ and then by place (PS3.3 C.7.6.17); those of a label map by place alone.
fn dimensions(object: &mut InMemDicomObject, form: Form) {
    let instance = text(object, tags::SOP_INSTANCE_UID).unwrap_or_default();
    let organization = uid(&[b"dimension organization", instance.as_bytes()]);
    put_item(
        object,
        tags::DIMENSION_ORGANIZATION_SEQUENCE,
        of(tags::DIMENSION_ORGANIZATION_UID, organization.as_str()),
    );
    let dimension = |pointer, group, label: &str| {
        let mut item = of(tags::DIMENSION_ORGANIZATION_UID, organization.as_str());
        put(&mut item, tags::DIMENSION_INDEX_POINTER, pointer);
        put(&mut item, tags::FUNCTIONAL_GROUP_POINTER, group);
        put(&mut item, tags::DIMENSION_DESCRIPTION_LABEL, label);
        item
    };
    let organ = dimension(tags::REFERENCED_SEGMENT_NUMBER, tags::SEGMENT_IDENTIFICATION_SEQUENCE, "Segment Number");
    let place = dimension(tags::IMAGE_POSITION_PATIENT, tags::PLANE_POSITION_SEQUENCE, "Image Position Patient");
    let items = match form {
        Form::Binary => vec![organ, place],
        Form::LabelMap => vec![place],
    };
    put_items(object, tags::DIMENSION_INDEX_SEQUENCE, items);
}
