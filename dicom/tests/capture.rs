//! Secondary captures, written, read back and compared; and what is refused.

mod series;

use contract::{LabelMap, Modality};
use dicom::{Capture, Identity, MakeFault, Source, capture, write};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{DefaultDicomObject, InMemDicomObject, Tag, open_file};
use series::{Series, maker, synthetic};
use volume::overlay::{Picture, Window};

fn text(object: &InMemDicomObject, tag: Tag) -> String {
    object.element(tag).unwrap().to_str().unwrap().trim_matches(['\0', ' ']).to_owned()
}

fn sources(series: &Series) -> Vec<Source<'_>> {
    series.slices().iter().map(|slice| slice.source).collect()
}

fn captured(series: &Series, pictures: &[Picture]) -> Result<DefaultDicomObject, MakeFault> {
    let (sources, derivation) = (sources(series), "Outlines of organs");
    let shown = Capture { pictures, sources: &sources, derivation, burned_in_annotation: false };
    capture(&series.header, &shown, &maker())
}

/// Overlays of slices, as Gantry draws them.
fn overlays(series: &Series) -> Vec<Picture> {
    let draw = |slice: &series::Labelled| {
        let [width, height] = slice.plane.size;
        let [column_mm, row_mm] = slice.plane.spacing_mm;
        let plane = contract::Plane { height, width, row_mm, column_mm };
        let raw = vec![40; width * height];
        let window = Window::of(Modality::Ct, &raw);
        Picture::slice(&raw, Some(&slice.labels), plane, window, &LabelMap::abdomen(), 97).unwrap()
    };
    series.slices.iter().map(draw).collect()
}

#[test]
fn every_pixel_comes_back() {
    let series = &synthetic()[0];
    let pictures = overlays(series);
    let several = uids::MULTI_FRAME_TRUE_COLOR_SECONDARY_CAPTURE_IMAGE_STORAGE;
    for (pictures, class) in [(&pictures[..1], uids::SECONDARY_CAPTURE_IMAGE_STORAGE), (&pictures[..], several)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("capture.dcm");
        write(&captured(series, pictures).unwrap(), &path).unwrap();
        let object = open_file(path).unwrap();
        assert_eq!(Identity::new(&object).unwrap().sop_class, class);
        let rgb: Vec<u8> = pictures.iter().flat_map(|picture| &picture.rgb).copied().collect();
        let bytes = object.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap();
        assert_eq!(bytes[..rgb.len()], rgb);
        assert_eq!(bytes.len(), rgb.len().next_multiple_of(2));
        let size: [usize; 2] = [tags::COLUMNS, tags::ROWS].map(|tag| text(&object, tag).parse().unwrap());
        assert_eq!(size, [pictures[0].width, pictures[0].height]);
        assert_eq!(text(&object, tags::CONVERSION_TYPE), "WSD");
        assert_eq!(text(&object, tags::BURNED_IN_ANNOTATION), "NO");
        let named = object.element(tags::SOURCE_IMAGE_SEQUENCE).unwrap().items().unwrap();
        let named: Vec<_> = named.iter().map(|item| text(item, tags::REFERENCED_SOP_INSTANCE_UID)).collect();
        assert!(named.iter().eq(sources(series).iter().map(|source| source.sop_instance)));
    }
}

#[test]
fn another_picture_is_another_instance_of_one_series() {
    let series = &synthetic()[0];
    let pictures = overlays(series);
    let identity = |pictures| Identity::new(&captured(series, pictures).unwrap()).unwrap();
    let (first, second) = (identity(&pictures[..1]), identity(&pictures[1..2]));
    assert_eq!(first, identity(&pictures[..1]));
    assert_eq!(first.series, second.series);
    assert_ne!(first.sop_instance, second.sop_instance);
}

#[test]
fn what_is_no_picture_is_refused() {
    let series = &synthetic()[0];
    let picture = |width, height, bytes| Picture { width, height, rgb: vec![0; bytes] };
    let fault = |pictures: &[Picture]| captured(series, pictures).unwrap_err();
    assert_eq!(fault(&[]), MakeFault::None("pictures"));
    let length = MakeFault::Length { what: "picture", index: 0, found: 5, expected: 6 };
    assert_eq!(fault(&[picture(2, 1, 5)]), length);
    let size = MakeFault::Size { what: "picture", index: 1, found: [1, 2], expected: [2, 1] };
    assert_eq!(fault(&[picture(2, 1, 6), picture(1, 2, 6)]), size);
    let wide = MakeFault::Size { what: "picture", index: 0, found: [65536, 0], expected: [65536, 0] };
    assert_eq!(fault(&[picture(65536, 0, 0)]), wide);
}

#[test]
fn a_file_that_cannot_be_written_leaves_nothing() {
    let series = &synthetic()[0];
    let object = captured(series, &overlays(series)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    assert!(write(&object, &taken).is_err(), "a folder stands there");
    assert!(write(&object, folder.path().join("missing/capture.dcm")).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
