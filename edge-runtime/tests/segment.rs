//! `gantry-edge` as a user runs it: volumes in, label maps on the same grid out, refusals with exit code 2.

mod support;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use contract::{Intake, LabelMap, Modality};
use support::{HEIGHT, Small, WIDTH};
use tempfile::TempDir;
use volume::{Geometry, LabelTable, read_image, read_labels, write_image};

const DEPTH: usize = 5;

struct Setup {
    folder: TempDir,
    small: Small,
}

impl Setup {
    fn new(slices: usize) -> Self {
        let setup = Self { folder: tempfile::tempdir().unwrap(), small: Small::new(slices) };
        std::fs::write(setup.path("model.onnx"), setup.small.file()).unwrap();
        setup
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A CT-like volume stored as `codes`; slice 1 is constant, slice 3 as `odd` says.
    fn scan(&self, name: &str, codes: &str, odd: impl Fn(usize) -> i16) -> PathBuf {
        // Canonical axes 40 x 30 x 5; the stored order follows the codes.
        let size = |letter| match letter {
            'R' | 'L' => (40, 2.2),
            'A' | 'P' => (30, 2.6),
            _ => (DEPTH, 5.),
        };
        let sizes: Vec<(usize, f64)> = codes.chars().map(size).collect();
        let dims = [0, 1, 2].map(|axis| sizes[axis].0);
        let geometry = Geometry::from_codes(codes, dims, [0, 1, 2].map(|axis| sizes[axis].1)).unwrap();
        let value = |i: usize| match i / 1200 {
            1 => -77,
            3 => odd(i),
            _ => ((i * 7919) % 900) as i16 - 500 + (i % 40) as i16 * 9,
        };
        let raw: Vec<i16> = (0..DEPTH * 1200).map(value).collect();
        write_image(self.path(name), &geometry, &raw).unwrap();
        self.path(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gantry-edge"));
        command.current_dir(self.folder.path()).args(arguments).output().unwrap()
    }

    /// The label map by the contract and the loops.
    fn expected(&self, scan: &Path, blank: &[usize]) -> Vec<u8> {
        let image = read_image(scan, Modality::Ct).unwrap();
        let spec = &self.small.spec;
        let mut intake = Intake::new(Modality::Ct, spec.intensity, image.plane(), spec.grid).unwrap();
        let coded = image.slices().map(|raw| {
            let mut codes = vec![i8::MIN; HEIGHT * WIDTH];
            let _ = intake.codes(raw, &mut codes);
            codes
        });
        let coded: Vec<Vec<i8>> = coded.collect();
        let mut classes = vec![];
        for z in 0..DEPTH {
            let mut out = vec![0; 1200];
            if !blank.contains(&z) {
                let around: Vec<i8> =
                    contract::neighbours(z, DEPTH, spec.slices()).flat_map(|from| coded[from].clone()).collect();
                let labels = self.small.labels(&self.small.logits(&around, Modality::Ct));
                intake.resampler().labels_back(&labels, &mut out);
            }
            classes.extend(out);
        }
        classes
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_label_map_sits_on_the_scans_own_grid_in_any_orientation() {
    for (slices, codes) in [(1, "LPS"), (1, "RAS"), (3, "SLA")] {
        let setup = Setup::new(slices);
        let scan = setup.scan("scan.nii.gz", codes, |i| (i % 300) as i16 - 200);
        let arguments =
            ["segment", "--model", "model.onnx", "--modality", "ct", "scan.nii.gz", "--out", "labels.nii.gz"];
        let output = setup.run(&[&arguments[..], &["--overlay", "labels.png", "--json"]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let labels = read_labels(setup.path("labels.nii.gz"), &LabelTable::identity(&LabelMap::abdomen())).unwrap();
        let image = read_image(&scan, Modality::Ct).unwrap();
        assert_eq!(labels.geometry.stored_dims(), image.geometry.stored_dims());
        assert_eq!(labels.geometry.affine(), image.geometry.affine());
        let expected = setup.expected(&scan, &[1]);
        assert_eq!(labels.classes, expected, "{codes}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let volume = &report["volumes"][0];
        assert_eq!((&volume["blank"], &volume["segmented"]), (&1.into(), &4.into()));
        assert_eq!(report["stages"]["slices"], 4);
        assert_eq!((&report["tiling"], &report["largest_component"]), (&serde_json::Value::Null, &false.into()));
        for organ in volume["organs"].as_array().unwrap() {
            let voxels = expected.iter().filter(|&&class| u64::from(class) == organ["class"]).count();
            assert_eq!(organ["voxels"], voxels);
            let ml = voxels as f64 * 2.2 * 2.6 * 5. / 1000.;
            assert!((organ["ml"].as_f64().unwrap() - ml).abs() < 1e-4 * (1. + ml));
        }
        assert!(std::fs::read(setup.path("labels.png")).unwrap().starts_with(b"\x89PNG"));
    }
}

#[test]
fn specks_are_taken_away_on_request_and_the_report_says_so() {
    let setup = Setup::new(1);
    let scan = setup.scan("scan.nii.gz", "LPS", |i| (i % 300) as i16 - 200);
    let arguments = ["segment", "--model", "model.onnx", "--modality", "ct", "scan.nii.gz", "--out", "labels.nii.gz"];
    let output = setup.run(&[&arguments[..], &["--largest-component", "--json"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut expected = setup.expected(&scan, &[1]);
    let removed = volume::components::keep_largest(&mut expected, [DEPTH, 30, 40], &LabelMap::abdomen());
    assert!(removed > 0, "random weights leave specks");
    let labels = read_labels(setup.path("labels.nii.gz"), &LabelTable::identity(&LabelMap::abdomen())).unwrap();
    assert_eq!(labels.classes, expected);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["largest_component"], &report["volumes"][0]["removed_voxels"]),
        (&true.into(), &removed.into())
    );
}

#[test]
fn a_refused_slice_refuses_the_volume_unless_told_otherwise() {
    let setup = Setup::new(1);
    // Slice 3 has no value below water: not Hounsfield units.
    let scan = setup.scan("scan.nii.gz", "LPS", |i| (i % 300) as i16 + 10);
    let arguments = ["segment", "--model", "model.onnx", "--modality", "ct", "scan.nii.gz", "--out", "labels.nii.gz"];
    let output = setup.run(&arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    for words in ["E-SEGMENT-01", "E-SLICE-02", "1 of 5 slices", "slice 3", "scan.nii.gz", "only 0 of 1200 pixels"] {
        assert!(message.contains(words), "'{message}' should contain '{words}'");
    }
    assert!(!setup.path("labels.nii.gz").exists());
    let output = setup.run(&[&arguments[..], &["--allow-partial", "--json"]].concat());
    assert!(output.status.success() && text(&output.stderr).contains("E-SLICE-02"));
    let labels = read_labels(setup.path("labels.nii.gz"), &LabelTable::identity(&LabelMap::abdomen())).unwrap();
    assert_eq!(labels.classes, setup.expected(&scan, &[1, 3]));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let refused = &report["volumes"][0]["refused"][0];
    assert_eq!((&refused["slice"], &refused["code"]), (&3.into(), &"E-SLICE-02".into()));
}

#[test]
fn one_bad_volume_does_not_harm_the_others() {
    let setup = Setup::new(1);
    std::fs::create_dir(setup.path("scans")).unwrap();
    setup.scan("scans/a.nii.gz", "LPS", |i| (i % 300) as i16 - 200);
    std::fs::write(setup.path("scans/b.nii"), b"short").unwrap();
    setup.scan("scans/c.nii", "RAS", |i| (i % 300) as i16 - 200);
    let output =
        setup.run(&["segment", "--model", "model.onnx", "--modality", "ct", "scans", "--out", "labels", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("E-VOLUME-01") && text(&output.stderr).contains("b.nii"));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["volumes"].as_array().unwrap().len(), 2);
    assert_eq!(report["refused"][0]["code"], "E-VOLUME-01");
    let mut names: Vec<_> = std::fs::read_dir(setup.path("labels")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a.nii.gz", "c.nii.gz"]);
}

#[test]
fn a_model_that_fails_its_self_test_segments_nothing() {
    let setup = Setup::new(1);
    setup.scan("scan.nii.gz", "LPS", |i| (i % 300) as i16 - 200);
    let manifest = serde_json::to_string(&setup.small.manifest()).unwrap();
    let mut other = Small::new(1);
    other.flip_weight(0);
    std::fs::write(setup.path("model.onnx"), other.file_with(&manifest)).unwrap();
    let output =
        setup.run(&["segment", "--model", "model.onnx", "--modality", "mr", "scan.nii.gz", "--out", "labels.nii.gz"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("E-SELFTEST-01"), "{}", text(&output.stderr));
    assert!(!setup.path("labels.nii.gz").exists());
    let output = setup.run(&["selftest", "--model", "model.onnx", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ct"]["pass"], false);
}

#[test]
fn reports_say_what_is_in_the_model_and_how_fast_it_is() {
    let setup = Setup::new(1);
    let json = |arguments: &[&str]| -> serde_json::Value {
        let output = setup.run(arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let inspection = json(&["inspect", "--model", "model.onnx", "--json"]);
    assert_eq!(inspection["int8_macs"], inspection["macs"]);
    assert_eq!(inspection["layers"].as_array().unwrap().len(), 7);
    let selftest = json(&["selftest", "--model", "model.onnx", "--json"]);
    let golden = &setup.small.manifest().golden;
    for golden in golden {
        let answer = &selftest[golden.modality.name()];
        assert_eq!(answer["pass"], true);
        assert_eq!(answer["logits_sha256"], golden.logits_sha256);
        assert_eq!(answer["labels_sha256"], golden.labels_sha256);
    }
    let plan = json(&["plan", "--model", "model.onnx", "--json"]);
    let (arena, alive) = (plan["arena_bytes"].as_u64().unwrap(), plan["alive_bytes"].as_u64().unwrap());
    assert!(arena >= alive && plan["steps"].as_array().unwrap().len() >= 7);
    let profile = json(&["inspect", "--model", "model.onnx", "--profile", "--roofline", "roofline.svg", "--json"]);
    let convs = profile["steps"].as_array().unwrap().iter().filter(|step| step["macs"] != 0).count();
    assert_eq!(convs, 4);
    let svg = std::fs::read_to_string(setup.path("roofline.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>") && svg.matches("<circle").count() == convs);
    let bench = json(&["bench", "--model", "model.onnx", "--runs", "4", "--json"]);
    assert_eq!(bench["first_result_ms"].as_array().unwrap().len(), 2);
    for modality in bench["modalities"].as_array().unwrap() {
        assert_eq!(modality["stages"]["slices"], 4);
        let slice = &modality["stages"]["slice"];
        assert!(slice["p50_ms"].as_f64().unwrap() > 0. && slice["p50_ms"].as_f64() <= slice["max_ms"].as_f64());
    }
    for arguments in [
        &["inspect", "--model", "model.onnx"][..],
        &["inspect", "--model", "model.onnx", "--engine", "tract"],
        &["inspect", "--model", "model.onnx", "--profile"],
        &["plan", "--model", "model.onnx", "--kernel", "generic"],
        &["codes"],
        &["bench", "--model", "model.onnx", "--runs", "1", "--threads", "2"],
    ] {
        let output = setup.run(arguments);
        assert!(output.status.success() && output.stdout.len() > 100);
    }
    for (arguments, words) in [
        (&["plan", "--model", "model.onnx", "--engine", "tract"][..], "tract was asked for"),
        (&["plan", "--model", "model.onnx", "--kernel", "amx"], "this CPU can run"),
        (&["plan", "--model", "model.onnx", "--max-arena-mb", "0"], "E-ENGINE-03"),
    ] {
        let output = setup.run(arguments);
        assert!(output.status.code() == Some(2) && text(&output.stderr).contains(words), "{}", text(&output.stderr));
    }
}
