//! Segmentations, written, read back with dicom-rs and compared voxel by voxel and place by place.

mod series;

use std::collections::BTreeMap;

use contract::LabelMap;
use dicom::{DicomTime, Form, Identity, MakeFault, Plane, segmentation, write};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{DefaultDicomObject, InMemDicomObject, Tag, open_file};
use series::{Series, maker, plane, real, synthetic};

const FORMS: [Form; 2] = [Form::Binary, Form::LabelMap];

fn items(object: &InMemDicomObject, tag: Tag) -> &[InMemDicomObject] {
    object.element(tag).unwrap().items().unwrap()
}

fn item(object: &InMemDicomObject, tag: Tag) -> &InMemDicomObject {
    let items = items(object, tag);
    assert_eq!(items.len(), 1, "{tag}");
    &items[0]
}

fn text(object: &InMemDicomObject, tag: Tag) -> String {
    object.element(tag).unwrap().to_str().unwrap().trim_matches(['\0', ' ']).to_owned()
}

fn number(object: &InMemDicomObject, tag: Tag) -> usize {
    object.element(tag).unwrap().to_int().unwrap()
}

/// As a file and back.
fn reread(object: &DefaultDicomObject) -> DefaultDicomObject {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seg.dcm");
    write(object, &path).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    open_file(path).unwrap()
}

/// What frames say: the source's UID and frame number, the organ (0 in a label map), the place, and labels.
struct Read {
    source: (String, Option<u32>),
    segment: u8,
    plane: Plane,
    labels: Vec<u8>,
}

/// Reads by the standard's words alone: bits from the lowest up, one frame directly after the other.
fn read(object: &DefaultDicomObject) -> Vec<Read> {
    let size = [number(object, tags::COLUMNS), number(object, tags::ROWS)];
    let area = size[0] * size[1];
    let pixels = object.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap();
    let shared = item(object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
    let frames = items(object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
    assert_eq!(frames.len(), number(object, tags::NUMBER_OF_FRAMES));
    let binary = text(object, tags::SEGMENTATION_TYPE) == "BINARY";
    let bytes = if binary { (frames.len() * area).div_ceil(8) } else { frames.len() * area };
    assert_eq!(pixels.len(), bytes.next_multiple_of(2));
    let group = |frame: &InMemDicomObject, tag| {
        let of = if frame.get(tag).is_some() { frame } else { shared };
        assert!(frame.get(tag).is_none() || shared.get(tag).is_none(), "{tag} is shared and of a frame");
        item(of, tag).clone()
    };
    let floats = |object: &InMemDicomObject, tag| object.element(tag).unwrap().to_multi_float64().unwrap();
    let frame = |(index, frame): (usize, &InMemDicomObject)| {
        let spacing = floats(&group(frame, tags::PIXEL_MEASURES_SEQUENCE), tags::PIXEL_SPACING);
        let cosines = floats(&group(frame, tags::PLANE_ORIENTATION_SEQUENCE), tags::IMAGE_ORIENTATION_PATIENT);
        let position = floats(&group(frame, tags::PLANE_POSITION_SEQUENCE), tags::IMAGE_POSITION_PATIENT);
        let derivation = group(frame, tags::DERIVATION_IMAGE_SEQUENCE);
        let source = item(&derivation, tags::SOURCE_IMAGE_SEQUENCE);
        let frame_number = source.get(tags::REFERENCED_FRAME_NUMBER).map(|number| number.to_int().unwrap());
        let segment = match binary {
            true => number(&group(frame, tags::SEGMENT_IDENTIFICATION_SEQUENCE), tags::REFERENCED_SEGMENT_NUMBER) as u8,
            false => 0,
        };
        let label = |pixel: usize| match binary {
            true => (pixels[pixel / 8] >> (pixel % 8) & 1) * segment,
            false => pixels[pixel],
        };
        Read {
            source: (text(source, tags::REFERENCED_SOP_INSTANCE_UID), frame_number),
            segment,
            plane: Plane {
                size,
                spacing_mm: [spacing[1], spacing[0]],
                along: [cosines[0], cosines[1], cosines[2]],
                down: [cosines[3], cosines[4], cosines[5]],
                first_mm: [position[0], position[1], position[2]],
            },
            labels: (index * area..(index + 1) * area).map(label).collect(),
        }
    };
    frames.iter().enumerate().map(frame).collect()
}

/// Equal but for what 16 characters cannot hold; places read from a file must be equal.
fn same_place(found: &Plane, expected: &Plane, tolerance: f64) {
    let flat = |plane: &Plane| [&plane.spacing_mm[..], &plane.along, &plane.down, &plane.first_mm].concat();
    let near = flat(found).iter().zip(flat(expected)).all(|(a, b)| (a - b).abs() <= tolerance);
    assert!(near && found.size == expected.size, "{found:?}, expected {expected:?}");
}

fn compare(series: &Series, form: Form, tolerance: f64) -> usize {
    let object = reread(&series.segmentation(&LabelMap::abdomen(), form).unwrap());
    let mut found = BTreeMap::<(String, Option<u32>), Vec<u8>>::new();
    let by_source: BTreeMap<_, _> =
        series.slices.iter().map(|slice| ((slice.instance.clone(), slice.frame), slice)).collect();
    let frames = read(&object);
    for frame in &frames {
        let slice = by_source[&frame.source];
        same_place(&frame.plane, &slice.plane, tolerance);
        assert!(frame.labels.iter().any(|&label| label != 0), "{}: an empty frame of {}", series.name, frame.segment);
        let sum = found.entry(frame.source.clone()).or_insert_with(|| vec![0; frame.labels.len()]);
        for (sum, label) in sum.iter_mut().zip(&frame.labels) {
            assert!(*sum == 0 || *label == 0, "{}: organs overlap", series.name);
            *sum += label;
        }
    }
    for (source, slice) in &by_source {
        let empty = vec![0; slice.labels.len()];
        assert_eq!(found.get(source).unwrap_or(&empty), &slice.labels, "{}: {source:?}", series.name);
    }
    // All sources are named, also those in which nothing was found.
    let instances = items(item(&object, tags::REFERENCED_SERIES_SEQUENCE), tags::REFERENCED_INSTANCE_SEQUENCE);
    let named: Vec<_> = instances.iter().map(|instance| text(instance, tags::REFERENCED_SOP_INSTANCE_UID)).collect();
    let mut wanted: Vec<_> = series.slices.iter().map(|slice| slice.instance.clone()).collect();
    wanted.dedup();
    assert_eq!(named, wanted, "{}", series.name);
    frames.len()
}

#[test]
fn every_voxel_and_every_place_come_back() {
    for series in synthetic() {
        for form in FORMS {
            compare(&series, form, 1e-12);
        }
    }
}

#[test]
fn slices_of_scanners_come_back_exactly() {
    for series in real() {
        for form in FORMS {
            let frames = compare(&series, form, 0.);
            println!("{}: {} slices, {frames} frames as {form:?}", series.name, series.slices.len());
        }
    }
}

#[test]
fn what_slices_share_is_said_once() {
    let shared = |name: &str| {
        let all = synthetic();
        let series = all.iter().find(|series| series.name == name).unwrap();
        let object = series.segmentation(&LabelMap::abdomen(), Form::Binary).unwrap();
        item(&object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).clone()
    };
    let spacing = |groups: &InMemDicomObject| {
        let measures = item(groups, tags::PIXEL_MEASURES_SEQUENCE);
        assert_eq!(text(measures, tags::SLICE_THICKNESS), "2.5");
        measures.get(tags::SPACING_BETWEEN_SLICES).map(|element| element.to_float64().unwrap())
    };
    let (uneven, sheared, turned) = (shared("uneven"), shared("sheared"), shared("turned"));
    assert!(uneven.get(tags::PLANE_ORIENTATION_SEQUENCE).is_some());
    assert_eq!(spacing(&uneven), None);
    assert!((spacing(&sheared).unwrap() - 3.).abs() < 1e-9, "the distance is along the normal");
    assert_eq!(turned.iter().count(), 0);
}

#[test]
fn frames_are_numbered_by_organ_and_place() {
    let planes = [9., 0., 4.].map(|height| plane(0., 0., height, 0.));
    let mut series = Series::synthetic("unordered", &planes);
    series.slices.iter_mut().for_each(|slice| slice.labels.fill(2));
    let indices = |form| {
        let object = series.segmentation(&LabelMap::abdomen(), form).unwrap();
        let frames = items(&object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
        let content = frames.iter().map(|frame| item(frame, tags::FRAME_CONTENT_SEQUENCE));
        content.map(|item| item.element(tags::DIMENSION_INDEX_VALUES).unwrap().to_multi_int().unwrap()).collect()
    };
    let (binary, map): (Vec<Vec<u32>>, Vec<Vec<u32>>) = (indices(Form::Binary), indices(Form::LabelMap));
    assert_eq!(binary, [[2, 3], [2, 1], [2, 2]]);
    assert_eq!(map, [[3], [1], [2]]);
}

#[test]
fn nothing_found_is_a_result() {
    let mut series = Series::synthetic("empty", &[0., 1.].map(|height| plane(0., 0., height, 0.)));
    series.slices.iter_mut().for_each(|slice| slice.labels.fill(0));
    for (form, segment) in [(Form::Binary, 1), (Form::LabelMap, 0)] {
        let object = reread(&series.segmentation(&LabelMap::heart(), form).unwrap());
        let frames = read(&object);
        assert_eq!(frames.len(), 2);
        for frame in frames {
            assert_eq!(frame.segment, segment);
            assert!(frame.labels.iter().all(|&label| label == 0));
        }
        assert_eq!(items(&object, tags::SEGMENT_SEQUENCE).len(), 4 + usize::from(form == Form::LabelMap));
    }
}

#[test]
fn organs_are_described_by_what_they_are() {
    let all = synthetic();
    let object = reread(&all[0].segmentation(&LabelMap::abdomen(), Form::LabelMap).unwrap());
    let segments = items(&object, tags::SEGMENT_SEQUENCE);
    let kind = |segment: &InMemDicomObject| item(segment, tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE).clone();
    let described: Vec<_> = segments
        .iter()
        .map(|segment| {
            let kind = kind(segment);
            let side = kind.get(tags::SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE);
            let side = side.map(|element| text(&element.items().unwrap()[0], tags::CODE_MEANING)).unwrap_or_default();
            let label = text(segment, tags::SEGMENT_LABEL);
            (number(segment, tags::SEGMENT_NUMBER), label, text(&kind, tags::CODE_VALUE), side)
        })
        .collect();
    let expected = [
        (0, "background", "125040", ""),
        (1, "liver", "10200004", ""),
        (2, "right kidney", "64033007", "Right"),
        (3, "left kidney", "64033007", "Left"),
        (4, "spleen", "78961009", ""),
    ];
    assert_eq!(described, expected.map(|(n, label, code, side)| (n, label.into(), code.into(), side.into())));
    assert_eq!(text(&object, tags::PIXEL_PADDING_VALUE), "0");

    let own = LabelMap::new(&[("liver", [1, 2, 3]), ("tumour thrombus", [4, 5, 6]), ("a", [0; 3]), ("b", [0; 3])]);
    let object = reread(&all[0].segmentation(&own, Form::Binary).unwrap());
    let kind = kind(&items(&object, tags::SEGMENT_SEQUENCE)[1]);
    assert_eq!(text(&kind, tags::CODING_SCHEME_DESIGNATOR), "99GANTRY");
    assert_eq!(text(&kind, tags::CODE_MEANING), "tumour thrombus");
    assert!(object.get(tags::CODING_SCHEME_IDENTIFICATION_SEQUENCE).is_some());
}

#[test]
fn the_patient_is_the_sources_and_the_maker_is_gantry() {
    for series in synthetic().iter().chain(&real()) {
        let object = reread(&series.segmentation(&LabelMap::abdomen(), Form::Binary).unwrap());
        for tag in [tags::PATIENT_NAME, tags::PATIENT_ID, tags::STUDY_INSTANCE_UID, tags::STUDY_DATE] {
            let source = series.header.get(tag).map(|element| element.to_str().unwrap().trim().to_owned());
            assert_eq!(text(&object, tag), source.unwrap_or_default(), "{}: {tag}", series.name);
        }
        assert_eq!(text(&object, tags::MANUFACTURER), "Gantry");
        let scanner = item(&object, tags::CONTRIBUTING_EQUIPMENT_SEQUENCE);
        assert_eq!(text(scanner, tags::MANUFACTURER), text(&series.header, tags::MANUFACTURER), "{}", series.name);
        assert_eq!(text(&object, tags::CONTENT_DATE), "20250228");
        assert_eq!(text(&object, tags::CONTENT_TIME), "235901");
        let identity = Identity::new(&object).unwrap();
        assert_eq!(identity.sop_class, uids::SEGMENTATION_STORAGE);
        assert_ne!(identity.series, text(&series.header, tags::SERIES_INSTANCE_UID));
        match series.header.get(tags::FRAME_OF_REFERENCE_UID) {
            Some(known) => assert_eq!(identity.frame_of_reference.unwrap(), known.to_str().unwrap()),
            None => assert!(identity.frame_of_reference.unwrap().starts_with("2.25.")),
        }
    }
}

#[test]
fn the_same_result_has_the_same_uid_and_another_has_not() {
    let series = &synthetic()[0];
    let identity = |labels: &LabelMap, maker, description: &str, form| {
        let object = segmentation(&series.header, &series.slices(), labels, &maker, description, form).unwrap();
        let identity = Identity::new(&object).unwrap();
        (identity.series, identity.sop_instance)
    };
    let labels = LabelMap::abdomen();
    let first = identity(&labels, maker(), "", Form::Binary);
    let later = series::maker();
    let later = dicom::Maker { time: DicomTime::from_hms(1, 2, 3).unwrap(), ..later };
    assert_eq!(identity(&labels, later, "", Form::Binary), first);

    let partial = identity(&labels, maker(), "incomplete", Form::Binary);
    assert_eq!(partial.0, first.0);
    assert_ne!(partial.1, first.1);
    let fewer = segmentation(&series.header, &series.slices()[1..], &labels, &maker(), "", Form::Binary).unwrap();
    assert_ne!(Identity::new(&fewer).unwrap().sop_instance, first.1);
    let other = dicom::Maker { version: "2", ..maker() };
    assert_ne!(identity(&labels, other, "", Form::Binary).0, first.0);
    assert_ne!(identity(&labels, maker(), "", Form::LabelMap).0, first.0);
}

#[test]
fn what_cannot_be_said_is_refused() {
    let fault = |change: &dyn Fn(&mut Series)| {
        let mut series = Series::synthetic("bad", &[0., 1., 2.].map(|height| plane(0., 0., height, 0.)));
        change(&mut series);
        series.segmentation(&LabelMap::abdomen(), Form::Binary).unwrap_err()
    };
    assert_eq!(fault(&|series| series.slices.clear()), MakeFault::None("slices"));
    assert_eq!(
        fault(&|series| series.slices[1].plane.size = [7, 13]),
        MakeFault::Size { what: "slice", index: 1, found: [7, 13], expected: [13, 7] }
    );
    assert_eq!(
        fault(&|series| series.slices[2].labels.truncate(90)),
        MakeFault::Length { what: "slice", index: 2, found: 90, expected: 91 }
    );
    assert_eq!(fault(&|series| series.slices[2].labels[90] = 5), MakeFault::Label { index: 2, found: 5, most: 4 });
    assert_eq!(
        fault(&|series| series.slices[0].plane = series.slices[2].plane),
        MakeFault::Place { first: 0, second: 2 }
    );
    for uid in ["", "1.2.3.4.5.1"] {
        let source = fault(&|series| series.slices[1].instance = uid.to_owned());
        assert_eq!(source, MakeFault::Source { index: 1, found: uid.to_owned() });
    }
    let missing = fault(&|series| {
        series.header.remove_element(tags::STUDY_INSTANCE_UID);
    });
    assert_eq!(missing, MakeFault::Missing("StudyInstanceUID"));
    let series = &synthetic()[0];
    let long = "x".repeat(65);
    let text = segmentation(&series.header, &series.slices(), &LabelMap::heart(), &maker(), &long, Form::Binary);
    assert_eq!(text.unwrap_err(), MakeFault::Text { name: "ContentDescription", found: 65, most: 64 });
    let nobody = dicom::Maker { serial: "", ..maker() };
    let text = segmentation(&series.header, &series.slices(), &LabelMap::heart(), &nobody, "", Form::Binary);
    assert_eq!(text.unwrap_err(), MakeFault::Text { name: "DeviceSerialNumber", found: 0, most: 64 });
}
