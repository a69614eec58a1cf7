//! What all objects that Gantry makes from a series have in common: whose they are, who made them, and from what.
//!
//! The patient and the study are those of one source instance, the header. The equipment is Gantry; the scanner is named as
//! contributing equipment. UIDs are derived from what an object says, so that a program that starts again and computes the
//! same result writes the same object, and objects of different content never share a UID. Dates and times come from the
//! caller, because a library has no clock; they are no part of a UID.

use std::{io, path::Path};

use dicom_core::{
    PrimitiveValue,
    header::Header,
    value::{DicomDate, DicomTime},
};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{DefaultDicomObject, FileMetaTableBuilder, InMemDicomObject, Tag};
use sha2::{Digest, Sha256};

use crate::{
    MakeFault,
    dataset::{Code, of, put, put_item, put_items},
    image::text,
    pixels::chain,
};

/// Groups of elements of the patient and the clinical trial: what is there is copied.
const GROUPS: [u16; 2] = [0x0010, 0x0012];
/// Elements of those groups that say something of the source series alone.
const OF_SERIES: [Tag; 2] = [tags::CLINICAL_TRIAL_SERIES_ID, tags::CLINICAL_TRIAL_SERIES_DESCRIPTION];
/// Elements of the patient and the study that every object has, empty where they are not known (PS3.3 C.7.1.1, C.7.2.1).
const ALWAYS: [Tag; 9] = [
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::PATIENT_BIRTH_DATE,
    tags::PATIENT_SEX,
    tags::STUDY_DATE,
    tags::STUDY_TIME,
    tags::REFERRING_PHYSICIAN_NAME,
    tags::STUDY_ID,
    tags::ACCESSION_NUMBER,
];
/// Elements that are copied where they are there.
const SOMETIMES: [Tag; 5] = [
    tags::ISSUER_OF_ACCESSION_NUMBER_SEQUENCE,
    tags::STUDY_DESCRIPTION,
    tags::PROCEDURE_CODE_SEQUENCE,
    tags::BODY_PART_EXAMINED,
    tags::INSTITUTION_NAME,
];
/// What is said of a scanner.
const SCANNER: [Tag; 6] = [
    tags::MANUFACTURER,
    tags::INSTITUTION_NAME,
    tags::STATION_NAME,
    tags::MANUFACTURER_MODEL_NAME,
    tags::DEVICE_SERIAL_NUMBER,
    tags::SOFTWARE_VERSIONS,
];
/// Characters of a long string at most (PS3.5 6.2).
const LONG: usize = 64;
const ACQUISITION: Code = Code { value: "109101", scheme: "DCM", meaning: "Acquisition Equipment" };
const SOURCE: Code = Code { value: "121322", scheme: "DCM", meaning: "Source image for image processing operation" };

/// Who makes an object, with what, when, and in which series.
#[derive(Clone, Debug, PartialEq)]
pub struct Maker<'a> {
    /// Manufacturer of the equipment, e.g. `Gantry`.
    pub manufacturer: &'a str,
    /// Name of the equipment.
    pub model: &'a str,
    /// Serial number of the equipment.
    pub serial: &'a str,
    /// Version of the program.
    pub software: &'a str,
    /// Name of the network.
    pub algorithm: &'a str,
    /// Its version, such as the first digits of its file's digest: it tells the results of two networks apart.
    pub version: &'a str,
    /// Number of the series that is made.
    pub series_number: u32,
    /// Description of the series that is made.
    pub series_description: &'a str,
    /// Day of the result.
    pub date: DicomDate,
    /// Time of the result, in the time zone of the scanner.
    pub time: DicomTime,
}

/// An image, or one of its frames, that a result was computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source<'a> {
    /// Kind of object (SOP class UID).
    pub sop_class: &'a str,
    /// The instance's UID.
    pub sop_instance: &'a str,
    /// Number of the frame, from 1, in a multi-frame image.
    pub frame: Option<u32>,
}

/// Writes an object as a file, whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn write(object: &DefaultDicomObject, path: impl AsRef<Path>) -> io::Result<()> {
    volume::atomic::write(path, |file| object.write_all(file).map_err(|error| io::Error::other(chain(&error))))
}

/// A UID from what it stands for: a UUID of version 8 (RFC 9562) of the SHA-256 of the parts, as PS3.5 B.2 writes UUIDs.
pub fn uid(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut uuid: [u8; 16] = std::array::from_fn(|index| digest[index]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    format!("2.25.{}", u128::from_be_bytes(uuid))
}

/// A new object of the patient and study of `header`, made by `maker`: everything but its own content. `kind` names the
/// series: one per source series, network, program, kind and number. `content` is everything that makes the object another one.
pub fn start(
    header: &InMemDicomObject,
    maker: &Maker,
    sop_class: &str,
    kind: &str,
    content: &[&[u8]],
) -> Result<InMemDicomObject, MakeFault> {
    let mut object = InMemDicomObject::new_empty();
    character_set(header, &mut object);
    for element in header.iter() {
        let tag = element.tag();
        if GROUPS.contains(&tag.group()) && tag.element() != 0 && !OF_SERIES.contains(&tag) {
            object.put(element.clone());
        }
    }
    copy(header, &mut object, &ALWAYS);
    copy(header, &mut object, &SOMETIMES);
    for tag in ALWAYS {
        if object.get(tag).is_none() {
            put(&mut object, tag, PrimitiveValue::Empty);
        }
    }
    put(&mut object, tags::STUDY_INSTANCE_UID, needed(header, tags::STUDY_INSTANCE_UID, "StudyInstanceUID")?);
    equipment(header, &mut object, maker)?;

    let source = needed(header, tags::SERIES_INSTANCE_UID, "SeriesInstanceUID")?;
    let number = maker.series_number.to_string();
    let identity = [kind, &source, maker.algorithm, maker.version, maker.software, &number].map(str::as_bytes);
    let series = uid(&[&[&b"series"[..]], &identity[..]].concat());
    let instance = uid(&[&[b"instance", series.as_bytes()], content].concat());
    put(&mut object, tags::SOP_CLASS_UID, sop_class);
    put(&mut object, tags::SOP_INSTANCE_UID, instance);
    put(&mut object, tags::SERIES_INSTANCE_UID, series);
    put(&mut object, tags::SERIES_NUMBER, maker.series_number.to_string());
    put_text(&mut object, tags::SERIES_DESCRIPTION, "SeriesDescription", maker.series_description)?;
    put(&mut object, tags::INSTANCE_NUMBER, "1");
    for (date, time) in
        [(tags::CONTENT_DATE, tags::CONTENT_TIME), (tags::INSTANCE_CREATION_DATE, tags::INSTANCE_CREATION_TIME)]
    {
        put(&mut object, date, maker.date);
        put(&mut object, time, maker.time);
    }
    Ok(object)
}

/// The object with its file's header, in explicit VR little endian.
pub fn finish(object: InMemDicomObject) -> Result<DefaultDicomObject, MakeFault> {
    let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    object.with_meta(meta).map_err(|error| MakeFault::Object(chain(&error)))
}

/// Puts a long string that must not be empty.
pub fn put_name(object: &mut InMemDicomObject, tag: Tag, name: &'static str, text: &str) -> Result<(), MakeFault> {
    match text {
        "" => Err(MakeFault::Text { name, found: 0, most: LONG }),
        text => put_text(object, tag, name, text),
    }
}

/// Puts a long string.
pub fn put_text(object: &mut InMemDicomObject, tag: Tag, name: &'static str, text: &str) -> Result<(), MakeFault> {
    let found = text.chars().count();
    if found > LONG || text.contains('\\') {
        return Err(MakeFault::Text { name, found, most: LONG });
    }
    put(object, tag, text);
    Ok(())
}

/// Names every source instance once, by series (PS3.3 C.12.2).
pub fn put_references(
    header: &InMemDicomObject,
    object: &mut InMemDicomObject,
    sources: &[Source],
) -> Result<(), MakeFault> {
    let mut series = of(tags::SERIES_INSTANCE_UID, needed(header, tags::SERIES_INSTANCE_UID, "SeriesInstanceUID")?);
    let mut seen = std::collections::HashSet::new();
    let instances = sources.iter().filter(|source| seen.insert(source.sop_instance));
    put_items(&mut series, tags::REFERENCED_INSTANCE_SEQUENCE, instances.map(|source| reference(*source)).collect());
    put_item(object, tags::REFERENCED_SERIES_SEQUENCE, series);
    Ok(())
}

/// A source image with what it was used for (PS3.3 C.7.6.16.2.6).
pub fn source_image(source: Source) -> InMemDicomObject {
    let mut item = reference(source);
    if let Some(frame) = source.frame {
        put(&mut item, tags::REFERENCED_FRAME_NUMBER, frame.to_string());
    }
    put_item(&mut item, tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, SOURCE.item());
    item
}

/// What was once compressed with loss stays so (PS3.3 C.7.6.1.1.5).
pub fn put_lossy(header: &InMemDicomObject, object: &mut InMemDicomObject) {
    let lossy = text(header, tags::LOSSY_IMAGE_COMPRESSION).is_some_and(|found| found == "01");
    put(object, tags::LOSSY_IMAGE_COMPRESSION, if lossy { "01" } else { "00" });
    if lossy {
        copy(header, object, &[tags::LOSSY_IMAGE_COMPRESSION_RATIO, tags::LOSSY_IMAGE_COMPRESSION_METHOD]);
    }
}

/// Text of an element that must not be empty.
pub fn needed(header: &InMemDicomObject, tag: Tag, name: &'static str) -> Result<String, MakeFault> {
    text(header, tag).filter(|text| !text.is_empty()).ok_or(MakeFault::Missing(name))
}

fn reference(source: Source) -> InMemDicomObject {
    let mut item = of(tags::REFERENCED_SOP_CLASS_UID, source.sop_class);
    put(&mut item, tags::REFERENCED_SOP_INSTANCE_UID, source.sop_instance);
    item
}

fn copy(header: &InMemDicomObject, object: &mut InMemDicomObject, tags: &[Tag]) {
    for element in tags.iter().filter_map(|&tag| header.get(tag)) {
        object.put(element.clone());
    }
}

/// UTF-8, which every text of a single character set becomes. Where code extensions switch between sets (PS3.3 C.12.1.1.2),
/// dicom-rs reads and writes by the first set alone: then bytes come through as they were only under the same name.
fn character_set(header: &InMemDicomObject, object: &mut InMemDicomObject) {
    match header.get(tags::SPECIFIC_CHARACTER_SET) {
        Some(element) if element.value().multiplicity() > 1 => {
            object.put(element.clone());
        }
        _ => put(object, tags::SPECIFIC_CHARACTER_SET, "ISO_IR 192"),
    }
}

/// Who made the object (PS3.3 C.7.5.2), and the scanner that made its source (C.12.1.1.5).
fn equipment(header: &InMemDicomObject, object: &mut InMemDicomObject, maker: &Maker) -> Result<(), MakeFault> {
    for (tag, name, found) in [
        (tags::MANUFACTURER, "Manufacturer", maker.manufacturer),
        (tags::MANUFACTURER_MODEL_NAME, "ManufacturerModelName", maker.model),
        (tags::DEVICE_SERIAL_NUMBER, "DeviceSerialNumber", maker.serial),
        (tags::SOFTWARE_VERSIONS, "SoftwareVersions", maker.software),
    ] {
        put_name(object, tag, name, found)?;
    }
    if text(header, tags::MANUFACTURER).is_some_and(|found| !found.is_empty()) {
        let mut scanner = InMemDicomObject::new_empty();
        copy(header, &mut scanner, &SCANNER);
        put_item(&mut scanner, tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, ACQUISITION.item());
        put_item(object, tags::CONTRIBUTING_EQUIPMENT_SEQUENCE, scanner);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_uuids_of_their_parts() {
        let one = uid(&[b"ab", b"c"]);
        assert_eq!(one, uid(&[b"ab", b"c"]));
        assert_ne!(one, uid(&[b"a", b"bc"]), "parts do not run into each other");
        let number: u128 = one.strip_prefix("2.25.").unwrap().parse().unwrap();
        assert_eq!((number >> 76 & 0xf, number >> 62 & 0b11), (8, 0b10), "version and variant");
        assert!(one.len() <= 64);
    }
}
