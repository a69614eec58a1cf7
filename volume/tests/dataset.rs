//! Data sets: what is written is read back, and what is wrong is named.

use std::{fs, path::Path};

use contract::{LabelMap, Modality};
use volume::{Dataset, DatasetWriter, Fault, Geometry, Split, VolumeError, write_labels};

const SHAPE: [usize; 3] = [3, 4, 5];

fn voxels() -> (Vec<i16>, Vec<u8>) {
    ((0..60).map(|value| 20 * value - 500).collect(), (0..60).map(|value| value % 5).collect())
}

fn write(folder: &Path, modality: Modality, codes: &str) {
    let [z, y, x] = SHAPE;
    let dims = if codes == "SAR" { [z, y, x] } else { [x, y, z] };
    let geometry = Geometry::from_codes(codes, dims, [2.; 3]).unwrap();
    let (raw, classes) = voxels();
    let mut writer = DatasetWriter::create(folder, modality, &LabelMap::abdomen()).unwrap();
    // Not in the order of names.
    for name in ["b", "a"] {
        writer.add(Split::Train, name, &geometry, &raw, &classes).unwrap();
    }
    writer.add(Split::Test, "c", &geometry, &raw, &classes).unwrap();
    writer.finish().unwrap();
}

/// Rewrites `dataset.json`.
fn edit(folder: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let path = folder.join("dataset.json");
    let mut json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    fs::write(&path, json.to_string()).unwrap();
}

fn open(folder: &Path) -> Result<Dataset, VolumeError> {
    Dataset::open(folder, &LabelMap::abdomen())
}

fn fault(folder: &Path) -> Fault {
    open(folder).unwrap_err().fault
}

#[test]
fn a_written_data_set_is_read_back() {
    for (modality, codes) in [(Modality::Ct, "LPS"), (Modality::Mr, "SAR")] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), modality, codes);
        let dataset = open(folder.path()).unwrap();
        assert_eq!(dataset.modality(), modality);
        let names = |cases: &[volume::Case]| cases.iter().map(|case| case.name.clone()).collect::<Vec<_>>();
        assert_eq!((names(&dataset.train), names(&dataset.test)), (vec!["a".into(), "b".into()], vec!["c".into()]));
        for case in dataset.train.iter().chain(&dataset.test) {
            let (image, labels) = dataset.load(case).unwrap();
            assert_eq!((image.shape(), image.modality), (SHAPE, modality));
            assert_eq!((image.raw, labels.classes), voxels());
        }
    }
}

#[test]
fn channels_decide_the_modality_and_unknown_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), Modality::Ct, "RAS");
    for (name, modality) in [("CT", Modality::Ct), ("T1", Modality::Mr), ("t2w", Modality::Mr), ("MR", Modality::Mr)] {
        edit(folder.path(), |json| json["channel_names"] = serde_json::json!({ "0": name }));
        assert_eq!(open(folder.path()).unwrap().modality(), modality);
    }
    edit(folder.path(), |json| json["channel_names"] = serde_json::json!({ "0": "PET" }));
    assert!(matches!(fault(folder.path()), Fault::Modality(_)));
    edit(folder.path(), |json| json["channel_names"] = serde_json::json!({ "0": "CT", "1": "T1" }));
    assert_eq!(fault(folder.path()), Fault::Channels { found: vec!["CT".into(), "T1".into()] });
}

#[test]
fn labels_of_other_conventions_come_in_by_the_extras() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), Modality::Ct, "RAS");
    let gantry = serde_json::json!({ "labels": { "1": "spleen", "4": "kidney_right" }, "unlisted": "background" });
    edit(folder.path(), |json| json["gantry"] = gantry);
    let dataset = open(folder.path()).unwrap();
    let expected: Vec<u8> = voxels().1.iter().map(|&id| [0, 4, 0, 0, 2][usize::from(id)]).collect();
    assert_eq!(dataset.load_labels(&dataset.train[0]).unwrap().classes, expected);

    // Without the word, what is not listed is refused.
    edit(folder.path(), |json| json["gantry"]["unlisted"] = "error".into());
    let dataset = open(folder.path()).unwrap();
    let error = dataset.load_labels(&dataset.train[0]).unwrap_err();
    assert_eq!(error.path, *dataset.train[0].labels.as_ref().unwrap());
    let Fault::Label { found, expected, .. } = &error.fault else { panic!("{error}") };
    // The file runs from the other end than the canonical order.
    assert_eq!((found.as_slice(), expected.as_str()), (&[(3., 12), (2., 12)][..], "one of 0, 1, 4"));
    assert!(error.to_string().contains("labels outside the map: 3 (12 voxels), 2 (12 voxels)"), "{error}");
}

#[test]
fn regions_of_several_ids_are_one_class() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), Modality::Ct, "RAS");
    edit(folder.path(), |json| {
        json["labels"] = serde_json::json!({ "background": 0, "liver": [1, 2, 3], "spleen": 4 })
    });
    let dataset = open(folder.path()).unwrap();
    let expected: Vec<u8> = voxels().1.iter().map(|&id| [0, 1, 1, 1, 4][usize::from(id)]).collect();
    assert_eq!(dataset.load_labels(&dataset.train[0]).unwrap().classes, expected);

    edit(folder.path(), |json| json["labels"] = serde_json::json!({ "liver": [1, 2], "spleen": 2 }));
    assert!(matches!(fault(folder.path()), Fault::SharedId { id: 2, .. }));
    edit(folder.path(), |json| json["labels"] = serde_json::json!({ "pancreas": 1 }));
    assert!(matches!(fault(folder.path()), Fault::Organ { name, .. } if name == "pancreas"));
}

#[test]
fn what_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(fault(folder.path()), Fault::Io { kind: std::io::ErrorKind::NotFound, .. }));
    write(folder.path(), Modality::Ct, "RAS");

    edit(folder.path(), |json| json["numTraining"] = 3.into());
    assert!(matches!(fault(folder.path()), Fault::Cases { found: 2, .. }));
    edit(folder.path(), |json| json["numTraining"] = 2.into());

    let labels = folder.path().join("labelsTr/b.nii.gz");
    fs::remove_file(&labels).unwrap();
    let image = folder.path().join("imagesTr/b_0000.nii.gz");
    assert_eq!(open(folder.path()).unwrap_err(), VolumeError::new(&labels, Fault::NoLabels { image }));

    edit(folder.path(), |json| json["file_ending"] = ".nrrd".into());
    assert_eq!(fault(folder.path()), Fault::Ending { found: ".nrrd".into() });
    edit(folder.path(), |json| json["file_ending"] = ".nii".into());
    assert!(matches!(fault(folder.path()), Fault::Cases { found: 0, .. }));
    fs::write(folder.path().join("dataset.json"), "{").unwrap();
    assert!(matches!(fault(folder.path()), Fault::Json { .. }));
}

#[test]
fn a_label_map_of_another_grid_is_refused_and_so_is_a_missing_test_label() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), Modality::Ct, "RAS");
    let shifted = Geometry::from_codes("RAS", [5, 4, 3], [2., 2., 2.5]).unwrap();
    write_labels(folder.path().join("labelsTr/a.nii.gz"), &shifted, &voxels().1).unwrap();
    let dataset = open(folder.path()).unwrap();
    let error = dataset.load(&dataset.train[0]).unwrap_err();
    assert!(matches!(&error.fault, Fault::Mismatch { .. }));
    assert!(error.to_string().contains("2.500"), "{error}");

    fs::remove_dir_all(folder.path().join("labelsTs")).unwrap();
    let dataset = open(folder.path()).unwrap();
    assert!(matches!(dataset.load_labels(&dataset.test[0]).unwrap_err().fault, Fault::NoLabels { .. }));
}

/// The older description, with and without the channel in the names of files.
#[test]
fn version_1_and_decathlon_descriptions_are_read() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), Modality::Mr, "LPS");
    let v1 = serde_json::json!({
        "name": "Abdomen", "tensorImageSize": "3D", "modality": { "0": "MRI" }, "numTraining": 2, "numTest": 1,
        "labels": { "0": "background", "1": "spleen", "2": "right_kidney", "3": "left_kidney", "4": "liver" },
        "training": [{ "image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz" }], "test": ["./imagesTs/c.nii.gz"],
    });
    fs::write(folder.path().join("dataset.json"), v1.to_string()).unwrap();
    let expected: Vec<u8> = voxels().1.iter().map(|&id| [0, 4, 2, 3, 1][usize::from(id)]).collect();
    for bare in [false, true] {
        if bare {
            for (part, name) in [("Tr", "a"), ("Tr", "b"), ("Ts", "c")] {
                let images = folder.path().join(format!("images{part}"));
                fs::rename(images.join(format!("{name}_0000.nii.gz")), images.join(format!("{name}.nii.gz"))).unwrap();
            }
            fs::write(folder.path().join("imagesTr/._a.nii.gz"), "left by macOS").unwrap();
        }
        let dataset = open(folder.path()).unwrap();
        assert_eq!((dataset.modality(), dataset.train.len(), dataset.test.len()), (Modality::Mr, 2, 1), "{bare}");
        assert_eq!(dataset.load(&dataset.train[0]).unwrap().1.classes, expected, "{bare}");
    }
}

#[test]
fn a_patient_in_both_parts_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), Modality::Ct, "RAS");
    edit(folder.path(), |json| json["gantry"] = serde_json::json!({ "patients": { "b": "17", "c": "17" } }));
    let error = open(folder.path()).unwrap_err();
    let same = Fault::SamePatient { patient: "17".into(), train: "b".into(), test: "c".into() };
    assert_eq!(error, VolumeError::new(folder.path(), same));
    let message = error.to_string();
    assert!(message.contains("patient '17' is in training (case 'b') and in test (case 'c')"), "{message}");

    edit(folder.path(), |json| json["gantry"]["patients"]["c"] = "18".into());
    let dataset = open(folder.path()).unwrap();
    let patients: Vec<&str> = dataset.train.iter().chain(&dataset.test).map(|case| case.patient.as_str()).collect();
    assert_eq!(patients, ["a", "17", "18"]);

    // Without the extras a case is its own patient, and the same file in both parts is the same one.
    edit(folder.path(), |json| json["gantry"] = serde_json::json!({}));
    for (from, to) in [("imagesTr/b_0000.nii.gz", "imagesTs/b_0000.nii.gz"), ("labelsTr/b.nii.gz", "labelsTs/b.nii.gz")]
    {
        fs::copy(folder.path().join(from), folder.path().join(to)).unwrap();
    }
    assert!(matches!(fault(folder.path()), Fault::SamePatient { patient, .. } if patient == "b"));
}

#[test]
fn cases_without_labels_can_be_left_out_and_are_named() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), Modality::Ct, "RAS");
    fs::remove_file(folder.path().join("labelsTr/a.nii.gz")).unwrap();
    assert!(open(folder.path()).is_err());
    let dataset = Dataset::open_skipping(folder.path(), &LabelMap::abdomen()).unwrap();
    let names: Vec<&str> = dataset.train.iter().map(|case| case.name.as_str()).collect();
    assert_eq!((names, dataset.faulty.len()), (vec!["b"], 1));
    assert!(dataset.faulty[0].to_string().contains("labelsTr/a.nii.gz: missing"), "{}", dataset.faulty[0]);
}

#[test]
fn a_written_data_set_remembers_its_patients() {
    let folder = tempfile::tempdir().unwrap();
    let geometry = Geometry::from_codes("LPS", [5, 4, 3], [2.; 3]).unwrap();
    let (raw, classes) = voxels();
    let mut writer = DatasetWriter::create(folder.path(), Modality::Mr, &LabelMap::abdomen()).unwrap();
    for name in ["7_t1", "7_t2"] {
        writer.write(Split::Train, name, &geometry, &raw, &classes).unwrap();
        writer.count(Split::Train, name, "7");
    }
    writer.finish().unwrap();
    assert!(open(folder.path()).unwrap().train.iter().all(|case| case.patient == "7"));
}
