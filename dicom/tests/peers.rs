//! Our objects before programs that nobody here wrote: highdicom and pydicom compare pixels and places, dciodvfy compares the
//! data sets with the standard's definitions. Skipped where a program is not installed.

mod series;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use contract::LabelMap;
use dicom::{Capture, Form, capture, write};
use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, open_file};
use serde_json::{Value, json};
use series::{Series, maker, real, synthetic};
use volume::overlay::Picture;

/// A label map with an organ that no scheme of the standard names.
fn label_maps() -> [LabelMap; 3] {
    let own = [("liver", [1, 2, 3]), ("tumour thrombus", [200, 0, 90]), ("spleen", [4, 5, 6]), ("aorta", [255; 3])];
    [LabelMap::abdomen(), LabelMap::heart(), LabelMap::new(&own)]
}

fn all() -> Vec<Series> {
    let mut all = synthetic();
    let mut empty = synthetic().swap_remove(0);
    empty.name = "empty".to_owned();
    empty.slices.iter_mut().for_each(|slice| slice.labels.fill(0));
    all.push(empty);
    all.extend(real());
    all
}

fn file(folder: &Path, series: &Series, kind: &str) -> PathBuf {
    folder.join(format!("{}-{kind}", series.name.replace(' ', "-")))
}

/// Writes the source's own header.
fn header(folder: &Path, series: &Series) -> PathBuf {
    let path = file(folder, series, "header.dcm");
    if !path.exists() {
        let meta = FileMetaTableBuilder::new()
            .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
            .media_storage_sop_class_uid(&*series.slices[0].class)
            .media_storage_sop_instance_uid(&*series.slices[0].instance);
        let header = series.header.clone().with_exact_meta(meta.build().unwrap());
        write(&header, &path).unwrap();
    }
    path
}

/// Writes the segmentations of all series; what must be in them.
fn segmentations(folder: &Path) -> Vec<Value> {
    let mut entries = vec![];
    for (series, labels) in all().iter().zip(label_maps().iter().cycle()) {
        let raw = file(folder, series, "labels.raw");
        fs::write(&raw, series.slices.iter().flat_map(|slice| &slice.labels).copied().collect::<Vec<_>>()).unwrap();
        let slice = |slice: &series::Labelled| {
            let plane = slice.plane;
            let orientation = [plane.along, plane.down].concat();
            json!({
                "instance": slice.instance,
                "frame": slice.frame,
                "spacing": [plane.spacing_mm[1], plane.spacing_mm[0]],
                "orientation": orientation,
                "position": plane.first_mm,
            })
        };
        let slices: Vec<Value> = series.slices.iter().map(slice).collect();
        for form in [Form::Binary, Form::LabelMap] {
            let path = file(folder, series, &format!("{form:?}.dcm"));
            write(&series.segmentation(labels, form).unwrap(), &path).unwrap();
            let names: Vec<_> = labels.organs().map(|(_, label)| &label.name).collect();
            let colors: Vec<_> = labels.organs().map(|(_, label)| label.color).collect();
            let header = header(folder, series);
            entries.push(json!({
                "path": path, "patient": series.patient, "header": header, "labels": raw, "slices": slices, "names": names, "colors": colors,
            }));
        }
    }
    entries
}

/// Writes captures of one picture and of several for all series.
fn captures(folder: &Path) -> Vec<Value> {
    let mut entries = vec![];
    for series in all() {
        for (count, kind) in [(1, "one"), (3, "three")] {
            // An odd number of bytes.
            let picture = |number: usize| Picture {
                width: 5,
                height: 3,
                rgb: (0..45).map(|byte| (byte * 5 + number) as u8).collect(),
            };
            let pictures: Vec<Picture> = (0..count).map(picture).collect();
            let sources: Vec<_> = series.slices().iter().map(|slice| slice.source).collect();
            let shown = Capture {
                pictures: &pictures,
                sources: &sources,
                derivation: "Outlines of organs over the slice",
                burned_in_annotation: false,
            };
            let (path, raw) = (file(folder, &series, &format!("{kind}.dcm")), file(folder, &series, kind));
            write(&capture(&series.header, &shown, &maker()).unwrap(), &path).unwrap();
            fs::write(&raw, pictures.iter().flat_map(|picture| &picture.rgb).copied().collect::<Vec<_>>()).unwrap();
            entries.push(json!({
                "path": path, "patient": series.patient, "header": header(folder, &series), "pixels": raw,
            }));
        }
    }
    entries
}

/// A Python with highdicom: `GANTRY_PYTHON`, or what `cargo xtask venv` made.
fn python() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = env::var_os("GANTRY_PYTHON").map_or_else(|| root.join(".venv/bin/python"), PathBuf::from);
    match Command::new(&python).args(["-c", "import highdicom"]).output() {
        Ok(output) if output.status.success() => Some(python),
        Ok(_) => {
            println!("skipped: {} has no highdicom (tests/requirements.txt)", python.display());
            None
        }
        Err(error) => {
            println!("skipped: no Python at {}: {error} (`cargo xtask venv` makes one)", python.display());
            None
        }
    }
}

#[test]
fn highdicom_reads_what_we_wrote() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.json");
    let entries = json!({"segmentations": segmentations(folder.path()), "captures": captures(folder.path())});
    fs::write(&list, entries.to_string()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/seg_peers.py");
    let output = Command::new(python).arg(script).arg(&list).output().unwrap();
    let words = String::from_utf8_lossy(&output.stdout);
    println!("{words}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files = entries["segmentations"].as_array().unwrap().len() + entries["captures"].as_array().unwrap().len();
    assert_eq!(words.lines().count(), files);
}

#[test]
fn dciodvfy_finds_no_error() {
    if let Err(error) = Command::new("dciodvfy").arg("-version").output() {
        println!("skipped: no dciodvfy (package dicom3tools): {error}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let entries = [segmentations(folder.path()), captures(folder.path())].concat();
    let mut unknown = 0;
    for entry in &entries {
        let path = entry["path"].as_str().unwrap();
        let mut words = dciodvfy(path);
        let known = !words.contains("Information Object Not found");
        if !known {
            assert!(path.contains("LabelMap"), "{path}: {words}");
            unknown += 1;
            words = as_older_kind(path);
        }
        let expected = |line: &str| !known && OF_LABEL_MAPS.iter().any(|own| line.contains(own));
        // Who the patient is and which study it is are copied as they are, faults included.
        let of_source = dciodvfy(entry["header"].as_str().unwrap());
        let is_ours = |line: &&str| line.contains("Error") && !of_source.lines().any(|source| source == *line);
        let errors: Vec<&str> = words.lines().filter(|line| is_ours(line) && !expected(line)).collect();
        assert!(errors.is_empty(), "{path}: {errors:#?}");
    }
    println!("{} files without an error, {unknown} of them label maps, looked at as segmentations", entries.len());
}

/// In what label maps differ from other segmentations (PS3.3 C.8.20.2.3, C.8.20.3.1).
const OF_LABEL_MAPS: [&str; 4] = [
    "Unrecognized enumerated value <LABELMAP> for value 1 of attribute <Segmentation Type>",
    "Value is zero for value 1 of attribute <Segment Number>",
    "with SegmentNumber of 0",
    "Missing attribute Type 1 Required Element=<SegmentIdentificationSequence>",
];

/// What a dciodvfy from before 2024, which does not know label maps, says of one as a segmentation.
fn as_older_kind(path: &str) -> String {
    let mut object = open_file(path).unwrap().into_inner();
    object.put_str(tags::SOP_CLASS_UID, VR::UI, uids::SEGMENTATION_STORAGE);
    let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let older = format!("{path}.older.dcm");
    write(&object.with_meta(meta).unwrap(), &older).unwrap();
    dciodvfy(&older)
}

/// What dciodvfy says of a file.
fn dciodvfy(path: &str) -> String {
    let output = Command::new("dciodvfy").arg(path).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}
