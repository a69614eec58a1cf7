//! What `gantry-train import` says of data that is not as it should be; and its words, JSON and label rules.

mod trees;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use contract::{LabelMap, Modality};
use host_train::import::{self, LabelRules, Plan, Source, Split, Summary};
use tempfile::TempDir;
use trees::{AXIAL, CORONAL, classes, geometry, raw};
use volume::{Dataset, write_image, write_labels};

fn import(root: &TempDir, words: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gantry-train"));
    command.arg("import").args(words.split(' ')).current_dir(root.path()).output().unwrap()
}

/// The same words without a program of their own, which takes long to start: `--from SOURCE DIR --to DIR` and options.
fn quick(root: &TempDir, words: &str) -> Result<Summary, String> {
    let mut words = words.split(' ');
    let mut plan = Plan {
        source: Source::NnUnet,
        from: PathBuf::new(),
        to: PathBuf::new(),
        modality: None,
        only: None,
        labels: None,
        split: Split::Own,
        seed: 0,
        skip_bad: false,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap();
        match word {
            "--from" => {
                let name = value();
                plan.source = SOURCES.into_iter().find(|source| source.name() == name).unwrap();
            }
            "--to" => plan.to = root.path().join(value()),
            "--modality" => plan.modality = Some(value().parse().unwrap()),
            "--split" => plan.split = value().parse()?,
            "--labels" => plan.labels = Some(LabelRules::read(&root.path().join(value())).map_err(|e| e.to_string())?),
            "--skip-bad" => plan.skip_bad = true,
            folder => plan.from = root.path().join(folder),
        }
    }
    import::import(&plan, &mut |_| {}).map_err(|error| error.to_string())
}

const SOURCES: [Source; 7] =
    [Source::MmWhs, Source::Chaos, Source::Btcv, Source::Amos22, Source::TotalSegmentator, Source::Msd, Source::NnUnet];

/// An import that must fail with these words and leave nothing behind.
fn refused(root: &TempDir, words: &str, expected: &[&str]) {
    let message = quick(root, words).unwrap_err();
    for expected in expected {
        assert!(message.contains(expected), "{words}: '{message}' should contain '{expected}'");
    }
    let left: Vec<PathBuf> = fs::read_dir(root.path().join("to"))
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    assert_eq!(left, Vec::<PathBuf>::new(), "{words}");
}

fn succeed(root: &TempDir, words: &str) -> String {
    let Output { status, stderr, stdout } = import(root, words);
    assert!(status.success(), "{words}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// BTCV with five cases.
fn btcv() -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    trees::btcv(&root.path().join("from"), &[1, 2, 3, 4, 5]);
    let training = root.path().join("from/RawData/Training");
    (root, training)
}

const BTCV: &str = "--from btcv from --to to";

#[test]
fn bad_cases_stop_an_import_and_are_named() {
    let (root, training) = btcv();
    fs::remove_file(training.join("label/label0004.nii.gz")).unwrap();
    refused(&root, BTCV, &["label0004.nii.gz: missing: expected the label map of", "img0004.nii.gz"]);

    let (root, training) = btcv();
    write_labels(training.join("label/label0002.nii.gz"), &geometry("SLA"), &[1; trees::VOXELS]).unwrap();
    // The same patient space in another order is the same grid; another spacing is not.
    quick(&root, "--from btcv from --to elsewhere").unwrap();
    let other = volume::Geometry::from_codes("LAS", [6, 5, 4], [1.5, 2., 3.3]).unwrap();
    write_labels(training.join("label/label0002.nii.gz"), &other, &[1; trees::VOXELS]).unwrap();
    refused(&root, BTCV, &["label0002.nii.gz: grid of 6x5x4 voxels", "3.300", "does not match", "img0002.nii.gz"]);

    let (root, training) = btcv();
    let mut numbers: Vec<i16> = classes(3, 13).into_iter().map(|class| class as i16).collect();
    numbers[7..10].fill(421);
    numbers[11] = 99;
    write_image(training.join("label/label0003.nii.gz"), &geometry("LAS"), &numbers).unwrap();
    let words =
        ["label0003.nii.gz: labels outside the map", "421 (3 voxels)", "99 (1 voxel)", "expected one of 0, 1, 2"];
    refused(&root, BTCV, &words);

    let (root, training) = btcv();
    let path = training.join("img/img0005.nii.gz");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
    refused(&root, BTCV, &["img0005.nii.gz"]);
}

#[test]
fn bad_cases_are_skipped_on_request_counted_and_named() {
    let (root, training) = btcv();
    fs::remove_file(training.join("label/label0004.nii.gz")).unwrap();
    fs::write(training.join("img/img0002.nii.gz"), "no volume").unwrap();
    let text = succeed(&root, "--from btcv from --to to --skip-bad");
    for words in
        ["3 training and 0 test cases (3 patients)", "skipped 2 bad cases", "btcv_0002: ", "btcv_0004: ", "missing"]
    {
        assert!(text.contains(words), "'{text}' should contain '{words}'");
    }
    let data = Dataset::open(root.path().join("to/Dataset031_BTCVCT"), &LabelMap::abdomen()).unwrap();
    assert_eq!(data.train.len(), 3);

    refused_again(&root);
    let json = succeed(&root, "--from btcv from --to json --skip-bad --json --split kfold:3:2 --seed 9");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["source"], &json["split"], &json["seed"]), (&"btcv".into(), &"kfold:3:2".into(), &9.into()));
    let set = &json["sets"][0];
    assert_eq!(set["modality"], "ct");
    let names = |part: &str| set[part].as_array().unwrap().iter().map(|case| case["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names("train").len() + names("test").len(), 3);
    assert_eq!(names("skipped"), ["btcv_0002", "btcv_0004"]);

    for id in [1, 3, 5] {
        fs::write(training.join(format!("img/img000{id}.nii.gz")), "no volume").unwrap();
    }
    fs::remove_dir_all(root.path().join("to")).unwrap();
    refused(&root, "--from btcv from --to to --skip-bad", &["from: none of 5 cases can be used; the last: "]);
}

/// A finished data set is never written over.
fn refused_again(root: &TempDir) {
    let Output { status, stderr, .. } = import(root, BTCV);
    let message = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(2));
    assert!(message.contains("Dataset031_BTCVCT: exists already, expected a new folder"), "{message}");
}

#[test]
fn empty_modalities_other_layouts_and_unknown_splits_are_refused() {
    let (root, _) = btcv();
    refused(
        &root,
        "--from btcv from --to to --modality mr",
        &["from: no mr scans with labels in it, expected at least 1"],
    );
    refused(&root, "--from amos22 from --to to", &["from: no amos22 data found", "imagesTr/amos_0001.nii.gz"]);
    refused(&root, "--from mm-whs nowhere --to to", &["nowhere: no mm-whs data found", "ct_train_1001_image.nii.gz"]);
    let Output { status, stderr, .. } = import(&root, "--from mm-whs nowhere --to to");
    assert_eq!(status.code(), Some(2));
    assert!(String::from_utf8(stderr).unwrap().starts_with("error: nowhere: no mm-whs data found"));
    refused(&root, "--from nnunet from --to to", &["from/dataset.json"]);
    refused(
        &root,
        "--from btcv from --to to --split sifa",
        &["--split sifa: test patients 9, 30, 32, 33, 39 of ct are not there"],
    );
    refused(&root, "--from btcv from --to to --split kfold:5:5", &["FOLD from 0 to K - 1"]);
    refused(&root, "--from btcv from --to to --split kfold:9:0", &["5 patients, expected at least one per fold"]);
}

#[test]
fn a_patient_in_training_and_test_is_named() {
    let root = tempfile::tempdir().unwrap();
    trees::amos22(&root.path().join("from"));
    // The same scan in both parts.
    let parts = [("imagesTr", "imagesVa"), ("labelsTr", "labelsVa")];
    for (from, to) in parts {
        let file = |part: &str| root.path().join("from").join(part).join("amos_0500.nii.gz");
        fs::copy(file(from), file(to)).unwrap();
    }
    refused(&root, "--from amos22 from --to to", &["case 'amos_0500' is there twice", "imagesTr", "imagesVa"]);

    // Two scans of one patient.
    let root = tempfile::tempdir().unwrap();
    trees::chaos(&root.path().join("chaos"), &[1, 2]);
    quick(&root, "--from chaos chaos --to from --split kfold:2:0").unwrap();
    let description = root.path().join("from/Dataset022_CHAOSMR/dataset.json");
    let text = fs::read_to_string(&description).unwrap().replace("\"chaos_mr_02\"", "\"chaos_mr_01\"");
    fs::write(&description, text).unwrap();
    let words = ["patient 'chaos_mr_01' is in training (case 'chaos_mr_0", "and in test (case 'chaos_mr_0"];
    refused(&root, "--from nnunet from/Dataset022_CHAOSMR --to to", &words);
}

#[test]
fn label_rules_are_printed_edited_and_used() {
    let (root, training) = btcv();
    let mut numbers: Vec<i16> = classes(3, 13).into_iter().map(|class| class as i16).collect();
    numbers[7..10].fill(421);
    write_image(training.join("label/label0003.nii.gz"), &geometry("LAS"), &numbers).unwrap();
    let rules = succeed(&root, "--from btcv --print-labels");
    let path = root.path().join("labels.toml");
    fs::write(&path, rules + "421 = \"spleen\"\n").unwrap();
    quick(&root, "--from btcv from --to to --labels labels.toml").unwrap();
    let data = Dataset::open(root.path().join("to/Dataset031_BTCVCT"), &LabelMap::abdomen()).unwrap();
    assert_eq!(data.load_labels(&data.train[2]).unwrap().classes[7..10], [4, 4, 4]);
    fs::remove_dir_all(root.path().join("to")).unwrap();
    fs::write(&path, "organs = \"abdomen\"\n[labels]\n1 = \"splen\"\n").unwrap();
    refused(
        &root,
        "--from btcv from --to to --labels labels.toml",
        &["labels.toml: label '1' = 'splen': expected one of"],
    );
}

/// One patient of CHAOS, with `change` made to the folder of its T2.
fn chaos(change: impl FnOnce(&Path)) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    trees::chaos(&root.path().join("from"), &[3]);
    change(&root.path().join("from/Train_Sets/MR/3/T2SPIR"));
    root
}

#[test]
fn stacks_that_are_none_are_refused() {
    let words = "--from chaos from --to to";
    let dicom = |number: usize| format!("DICOM_anon/IMG-0002-{number:05}.dcm");
    let [second, third] = [2, 3].map(dicom);

    // A coronal stack of five slices lacks the third: a step of twice the length.
    let root = chaos(|t2| {
        fs::remove_file(t2.join(&third)).unwrap();
        fs::remove_file(t2.join("Ground/IMG-0002-00003.png")).unwrap();
    });
    refused(&root, words, &["T2SPIR/DICOM_anon: the step from", "4.000", "is a file missing, or there twice?"]);

    let root = chaos(|t2| {
        fs::copy(t2.join(&second), t2.join("DICOM_anon/IMG-0002-00009.dcm")).unwrap();
    });
    refused(&root, words, &["T2SPIR/DICOM_anon: the step from", "0.000"]);

    let root = chaos(|t2| trees::dicom(&t2.join(&second), Modality::Mr, &AXIAL, 1, &raw(0)));
    refused(
        &root,
        words,
        &["IMG-0002-00002.dcm: size [6, 5] against [6, 4] differs from that of", "IMG-0002-00001.dcm"],
    );

    let root = chaos(|t2| trees::dicom(&t2.join(&second), Modality::Ct, &CORONAL, 1, &raw(0)));
    refused(&root, words, &["IMG-0002-00002.dcm: modality ct: expected mr"]);

    let root = chaos(|t2| fs::write(t2.join(&second), "no DICOM").unwrap());
    refused(&root, words, &["IMG-0002-00002.dcm: "]);

    let root = chaos(|t2| fs::remove_dir_all(t2.join("DICOM_anon")).unwrap());
    assert_eq!(quick(&root, words).unwrap().sets[0].train.len(), 2, "a sequence that is not there is none");
}

#[test]
fn truth_that_does_not_fit_its_slices_is_refused() {
    let words = "--from chaos from --to to";
    let root = chaos(|t2| fs::remove_file(t2.join("Ground/IMG-0002-00003.png")).unwrap());
    refused(&root, words, &["T2SPIR/Ground: 4 PNG files for 5 DICOM slices in"]);

    let truth = "Ground/IMG-0002-00003.png";
    let root = chaos(|t2| trees::png(&t2.join(truth), [6, 5], &[0; 30]));
    refused(&root, words, &["IMG-0002-00003.png: 6x5 pixels, expected 6x4"]);

    let root = chaos(|t2| trees::png(&t2.join(truth), [6, 4], &[&[0; 20][..], &[100; 4]].concat()));
    refused(
        &root,
        words,
        &["IMG-0002-00003.png: labels outside the map: 100 (4 voxels); the first at voxel [2, 3, 0]"],
    );

    let root = chaos(|t2| fs::write(t2.join(truth), "no PNG").unwrap());
    refused(&root, words, &["IMG-0002-00003.png: "]);

    let root = chaos(|t2| fs::remove_dir_all(t2.join("Ground")).unwrap());
    refused(&root, words, &["T2SPIR/Ground: missing: expected the label map of"]);
}

#[test]
fn masks_that_are_missing_or_overlap_are_refused() {
    let words = "--from totalsegmentator from --to to";
    let subjects = [("s0001", "train"), ("s0002", "train")];
    let tree = |change: &dyn Fn(&Path)| {
        let root = tempfile::tempdir().unwrap();
        trees::totalsegmentator(&root.path().join("from"), "ct.nii.gz", &subjects);
        change(&root.path().join("from/s0002/segmentations"));
        root
    };
    let root = tree(&|masks| fs::remove_file(masks.join("spleen.nii.gz")).unwrap());
    refused(&root, words, &["s0002/segmentations/spleen.nii.gz: missing: expected the label map of"]);
    let root = tree(&|masks| {
        fs::copy(masks.join("kidney_left.nii.gz"), masks.join("spleen.nii.gz")).unwrap();
    });
    refused(&root, words, &["s0002/segmentations/spleen.nii.gz: ", "voxels belong to an earlier mask"]);
    let root = tree(&|masks| fs::write(masks.parent().unwrap().parent().unwrap().join("meta.csv"), "a;b\n").unwrap());
    refused(&root, words, &["meta.csv: columns [\"a\", \"b\"]: expected image_id and split"]);
}

#[test]
fn help_shows_an_example_of_every_source() {
    let root = tempfile::tempdir().unwrap();
    let help = succeed(&root, "--help");
    for source in ["mm-whs", "chaos", "btcv", "amos22", "totalsegmentator", "msd", "nnunet"] {
        assert!(help.contains(&format!("gantry-train import --from {source} ")), "{source}: {help}");
    }
}
