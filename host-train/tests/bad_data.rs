//! What `gantry-train train` and `eval` say of data that cannot be used, and how they go on without it.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use contract::{LabelMap, Modality};
use tempfile::TempDir;
use volume::{DatasetWriter, Geometry, Split, write_labels};

const DIMS: [usize; 3] = [32, 32, 4];

/// Three training cases and a test case of each modality.
struct Data(TempDir);

impl Data {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for modality in Modality::ALL {
            let mut writer =
                DatasetWriter::create(folder.path().join(modality.name()), modality, &LabelMap::abdomen()).unwrap();
            for (split, name) in [(Split::Train, "a"), (Split::Train, "b"), (Split::Train, "c"), (Split::Test, "t")] {
                let (raw, labels) = scan();
                writer.add(split, name, &geometry(3.), &raw, &labels).unwrap();
            }
            writer.finish().unwrap();
        }
        Self(folder)
    }

    fn path(&self, inside: &str) -> std::path::PathBuf {
        self.0.path().join(inside)
    }

    fn gantry(&self, words: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gantry-train"));
        command.args(words.split(' ')).current_dir(self.0.path()).output().unwrap()
    }

    fn train(&self, more: &str) -> Output {
        self.gantry(&format!(
            "train --ct ct --mr mr --out run --device cpu --size 32 --width 4 --batch 2 --val 1 --steps 2 --threads 1{more}"
        ))
    }

    /// The message of a training that must not begin.
    fn refused(&self) -> String {
        let Output { status, stderr, .. } = self.train("");
        let message = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(2), "{message}");
        assert!(!self.path("run").exists(), "{message}");
        message
    }
}

fn geometry(mm: f64) -> Geometry {
    Geometry::from_codes("LPS", DIMS, [mm, mm, 5.]).unwrap()
}

/// A square of each organ, on a slice of its own.
fn scan() -> (Vec<i16>, Vec<u8>) {
    let inside = |i: usize| (8..20).contains(&(i % 32)) && (8..20).contains(&(i / 32 % 32));
    let labels: Vec<u8> = (0..32 * 32 * 4).map(|i| if inside(i) { 1 + (i / 1024) as u8 } else { 0 }).collect();
    (labels.iter().enumerate().map(|(i, &label)| i16::from(label) * 40 - 120 + (i % 7) as i16).collect(), labels)
}

fn assert_words(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "'{message}' should contain '{word}'");
    }
}

#[test]
fn a_missing_label_map_stops_training() {
    let data = Data::new();
    fs::remove_file(data.path("ct/labelsTr/b.nii.gz")).unwrap();
    assert_words(&data.refused(), &["ct/labelsTr/b.nii.gz: missing", "label map of ct/imagesTr/b_0000.nii.gz"]);
}

#[test]
fn a_label_map_of_another_grid_stops_training() {
    let data = Data::new();
    write_labels(data.path("mr/labelsTr/c.nii.gz"), &geometry(2.5), &scan().1).unwrap();
    assert_words(
        &data.refused(),
        &["mr/labelsTr/c.nii.gz: grid of 32x32x4", "2.500", "mr/imagesTr/c_0000.nii.gz", "3.000"],
    );
}

#[test]
fn labels_outside_the_map_stop_training_and_are_counted() {
    let data = Data::new();
    let mut labels = scan().1;
    (labels[0], labels[5], labels[6]) = (9, 7, 7);
    write_labels(data.path("ct/labelsTr/a.nii.gz"), &geometry(3.), &labels).unwrap();
    let words = ["ct/labelsTr/a.nii.gz: labels outside the map: 9 (1 voxel), 7 (2 voxels)", "one of 0, 1, 2, 3, 4"];
    assert_words(&data.refused(), &words);
}

#[test]
fn an_empty_modality_stops_training() {
    let data = Data::new();
    for part in ["imagesTr", "labelsTr"] {
        for file in fs::read_dir(data.path("mr").join(part)).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
    }
    edit(&data.path("mr/dataset.json"), |json| json["numTraining"] = 0.into());
    assert_words(&data.refused(), &["mr: no cases in imagesTr, expected at least 1"]);
}

#[test]
fn a_patient_in_both_parts_stops_training_even_where_bad_cases_are_skipped() {
    let data = Data::new();
    edit(&data.path("mr/dataset.json"), |json| {
        json["gantry"] = serde_json::json!({ "patients": { "b": "P3", "t": "P3" } });
    });
    let words = ["mr: patient 'P3' is in training (case 'b') and in test (case 't')"];
    assert_words(&data.refused(), &words);
    let Output { status, stderr, .. } = data.train(" --skip-bad");
    assert_eq!(status.code(), Some(2));
    assert_words(&String::from_utf8(stderr).unwrap(), &words);
}

#[test]
fn corrupt_cases_among_good_ones_are_skipped_on_request_counted_and_named() {
    let data = Data::new();
    let path = data.path("ct/imagesTr/a_0000.nii.gz");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    fs::remove_file(data.path("mr/labelsTr/b.nii.gz")).unwrap();
    assert_words(&data.refused(), &["ct/imagesTr/a_0000.nii.gz"]);

    let Output { status, stderr, stdout } = data.train(" --skip-bad");
    let message = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{message}");
    assert_words(
        &message,
        &["ct: skipped 1 bad case", "ct/imagesTr/a_0000.nii.gz", "mr: skipped 1", "mr/labelsTr/b.nii.gz"],
    );
    assert_words(&String::from_utf8(stdout).unwrap(), &["ct: trains on 4 slices, 1 cases held out"]);

    // The same cases are scored or skipped by eval.
    let eval = "eval --checkpoint run/last.safetensors --ct ct --split train";
    let Output { status, stderr, .. } = data.gantry(eval);
    assert_eq!(status.code(), Some(2));
    assert_words(&String::from_utf8(stderr).unwrap(), &["ct/imagesTr/a_0000.nii.gz"]);
    let Output { status, stderr, .. } = data.gantry(&format!("{eval} --skip-bad --json scores.json"));
    assert!(status.success());
    assert_words(&String::from_utf8(stderr).unwrap(), &["ct: skipped 1 bad case", "ct/imagesTr/a_0000.nii.gz"]);
    let scores: serde_json::Value = serde_json::from_slice(&fs::read(data.path("scores.json")).unwrap()).unwrap();
    assert_eq!(scores["cases"].as_array().unwrap().len(), 2);

    // With none left there is nothing to go on with.
    fs::remove_dir_all(data.path("run")).unwrap();
    for name in ["b", "c"] {
        fs::write(data.path(&format!("ct/imagesTr/{name}_0000.nii.gz")), "no volume").unwrap();
    }
    let Output { status, stderr, .. } = data.train(" --skip-bad");
    assert_eq!(status.code(), Some(2));
    assert_words(&String::from_utf8(stderr).unwrap(), &["ct: none of 3 cases can be used", "c_0000.nii.gz"]);
}

/// Two scans of a patient are not held out from each other.
#[test]
fn cases_are_held_out_by_patient() {
    let data = Data::new();
    edit(&data.path("mr/dataset.json"), |json| {
        json["gantry"] = serde_json::json!({ "patients": { "b": "P3", "c": "P3" } });
    });
    let Output { status, stdout, .. } = data.train("");
    assert!(status.success());
    assert_words(
        &String::from_utf8(stdout).unwrap(),
        &["ct: trains on 8 slices, 1 cases held out", "mr: trains on 4 slices, 2 cases held out"],
    );
    fs::remove_dir_all(data.path("run")).unwrap();
    edit(&data.path("mr/dataset.json"), |json| json["gantry"]["patients"]["a"] = "P3".into());
    assert_words(&data.refused(), &["mr: the 3 held-out cases are of the same patients as all others"]);
}

fn edit(path: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let mut json = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}
