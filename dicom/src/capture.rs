//! Pictures for viewers that read no segmentations: secondary captures, one by one or several in one instance.

use dicom_core::PrimitiveValue;
use dicom_dictionary_std::{tags, uids};
use dicom_object::{DefaultDicomObject, InMemDicomObject};
use volume::overlay::Picture;

use crate::{
    MakeFault,
    dataset::{MOST, decimals, put, put_items, put_pixels, texts},
    derived::{Maker, Source, finish, put_lossy, put_references, source_image, start},
};

/// Characters of a short text at most (PS3.5 6.2).
const SHORT_TEXT: usize = 1024;

/// What a secondary capture shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capture<'a> {
    /// Of one size.
    pub pictures: &'a [Picture],
    /// What the pictures were drawn from.
    pub sources: &'a [Source<'a>],
    /// How they were drawn, up to 1024 characters.
    pub derivation: &'a str,
    /// Whether words in the pictures tell the patient and the day. Gantry's own pictures have no words.
    pub burned_in_annotation: bool,
}

/// Makes a secondary capture: of one picture a Secondary Capture Image, of several a Multi-frame True Color Secondary Capture
/// Image. `header` is the data set of any instance of the source series. UIDs are derived as those of a segmentation.
///
/// # Errors
/// [`MakeFault`]: no picture, pictures of different sizes, a header without study or series, texts that are too long.
pub fn capture(header: &InMemDicomObject, shown: &Capture, maker: &Maker) -> Result<DefaultDicomObject, MakeFault> {
    let size = check(shown)?;
    let several = shown.pictures.len() > 1;
    let class = match several {
        true => uids::MULTI_FRAME_TRUE_COLOR_SECONDARY_CAPTURE_IMAGE_STORAGE,
        false => uids::SECONDARY_CAPTURE_IMAGE_STORAGE,
    };
    let frames: Vec<[u8; 4]> = shown.sources.iter().map(|source| source.frame.unwrap_or(0).to_le_bytes()).collect();
    let mut content: Vec<&[u8]> = vec![shown.derivation.as_bytes()];
    content.extend(shown.pictures.iter().map(|picture| picture.rgb.as_slice()));
    for (source, frame) in shown.sources.iter().zip(&frames) {
        content.extend([source.sop_instance.as_bytes(), frame.as_slice()]);
    }
    let mut object = start(header, maker, class, "capture", &content)?;
    put(&mut object, tags::MODALITY, "OT");
    put(&mut object, tags::CONVERSION_TYPE, "WSD");
    put(&mut object, tags::IMAGE_TYPE, texts(&["DERIVED", "SECONDARY"]));
    // Where the picture has no place in the patient, its orientation is there and empty (PS3.3 C.7.6.1).
    put(&mut object, tags::PATIENT_ORIENTATION, PrimitiveValue::Empty);
    // A side that is not known is there and empty, but not beside a body part that has none (PS3.3 C.7.3.1). Which ones
    // those are is not known here, so no body part is named.
    object.remove_element(tags::BODY_PART_EXAMINED);
    put(&mut object, tags::LATERALITY, PrimitiveValue::Empty);
    put(&mut object, tags::DERIVATION_DESCRIPTION, shown.derivation);
    put(&mut object, tags::BURNED_IN_ANNOTATION, if shown.burned_in_annotation { "YES" } else { "NO" });
    put_lossy(header, &mut object);
    put_references(header, &mut object, shown.sources)?;
    let sources = shown.sources.iter().map(|&source| source_image(source)).collect();
    put_items(&mut object, tags::SOURCE_IMAGE_SEQUENCE, sources);
    for (tag, value) in [
        (tags::SAMPLES_PER_PIXEL, 3),
        (tags::PLANAR_CONFIGURATION, 0),
        (tags::COLUMNS, size[0] as u16),
        (tags::ROWS, size[1] as u16),
        (tags::BITS_ALLOCATED, 8),
        (tags::BITS_STORED, 8),
        (tags::HIGH_BIT, 7),
        (tags::PIXEL_REPRESENTATION, 0),
    ] {
        put(&mut object, tag, value);
    }
    put(&mut object, tags::PHOTOMETRIC_INTERPRETATION, "RGB");
    if several {
        let pages: Vec<f64> = (1..=shown.pictures.len()).map(|page| page as f64).collect();
        put(&mut object, tags::NUMBER_OF_FRAMES, pages.len().to_string());
        put(&mut object, tags::FRAME_INCREMENT_POINTER, tags::PAGE_NUMBER_VECTOR);
        put(&mut object, tags::PAGE_NUMBER_VECTOR, decimals(&pages));
    }
    put_pixels(&mut object, shown.pictures.iter().flat_map(|picture| &picture.rgb).copied().collect());
    finish(object)
}

/// The size of all pictures.
fn check(shown: &Capture) -> Result<[usize; 2], MakeFault> {
    let size = |picture: &Picture| [picture.width, picture.height];
    let expected = size(shown.pictures.first().ok_or(MakeFault::None("pictures"))?);
    for (index, picture) in shown.pictures.iter().enumerate() {
        let found = size(picture);
        if found != expected || found.iter().any(|&side| side == 0 || side > usize::from(u16::MAX)) {
            return Err(MakeFault::Size { what: "picture", index, found, expected });
        }
        let (found, expected) = (picture.rgb.len(), 3 * found[0] * found[1]);
        if found != expected {
            return Err(MakeFault::Length { what: "picture", index, found, expected });
        }
    }
    let found = shown.derivation.chars().count();
    if found > SHORT_TEXT {
        return Err(MakeFault::Text { name: "DerivationDescription", found, most: SHORT_TEXT });
    }
    let found = shown.pictures.iter().map(|picture| picture.rgb.len()).sum();
    match found <= MOST {
        true => Ok(expected),
        false => Err(MakeFault::Bytes { found }),
    }
}
