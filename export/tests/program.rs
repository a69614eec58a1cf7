//! `gantry-export` as a user meets it: files that appear whole, messages that name what is wrong, exit code 2.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use contract::manifest::Manifest;
use export::report::Report;

fn program(arguments: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gantry-export")).args(arguments).output().unwrap()
}

#[test]
fn both_files_and_the_report_appear_and_speak_for_themselves() {
    let folder = support::workplace(&support::compact(4, 32, 32));
    let at = |name: &str| folder.path().join(name);
    let (checkpoint, ct, mr, out, report) =
        (at("checkpoint.safetensors"), at("ct"), at("mr"), at("m.onnx"), at("r.json"));
    let [ct_flag, mr_flag, out_flag, report_flag] = ["--ct", "--mr", "--out", "--report"].map(Path::new);
    let onnx = Path::new("onnx");
    let arguments = [onnx, &checkpoint, ct_flag, &ct, mr_flag, &mr, out_flag, &out, report_flag, &report];
    let output = program(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("SQNR") && table.contains("the second modality adds"), "{table}");
    let parsed: Report = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!(parsed.slices, [6, 6]);
    assert_eq!(parsed.sizes.int8_bytes as u64, fs::metadata(&out).unwrap().len());
    assert_eq!(parsed.sizes.f32_bytes as u64, fs::metadata(at("m.f32.onnx")).unwrap().len());

    let inspected = program(&[Path::new("inspect"), &out, Path::new("--json")]);
    let manifest: Manifest = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(manifest.golden.len(), 2);
    let text = program(&[Path::new("inspect"), &at("m.f32.onnx")]).stdout;
    assert!(String::from_utf8(text).unwrap().contains("bytes of weight"));

    let [only, format] = ["--specialise=mr", "--format=qdq"].map(Path::new);
    let single = at("mr.onnx");
    let output = program(&[onnx, &checkpoint, mr_flag, &mr, out_flag, &single, only, format]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(program(&[Path::new("inspect"), &single]).stdout).unwrap();
    assert!(text.contains("modalities   mr\n") && text.contains("QuantizeLinear"), "{text}");
}

/// The same quantisation as `onnx`, without its files.
#[test]
fn the_report_stands_alone() {
    let folder = support::workplace(&support::compact(4, 32, 32));
    let at = |name: &str| folder.path().join(name);
    let before = files(folder.path());
    let (checkpoint, ct, mr) = (at("checkpoint.safetensors"), at("ct"), at("mr"));
    let [report, ct_flag, mr_flag, auto, correction, equalise, json] =
        ["report", "--ct", "--mr", "--calibration=auto", "--bias-correction", "--equalise", "--json"].map(Path::new);
    let table = program(&[report, &checkpoint, ct_flag, &ct, mr_flag, &mr, auto, equalise]);
    assert!(table.status.success(), "{}", String::from_utf8_lossy(&table.stderr));
    let table = String::from_utf8(table.stdout).unwrap();
    for words in ["SQNR", "channel", "int8 to labels", "mse ", "<- chosen", "bias correction off, equalisation on"] {
        assert!(table.contains(words), "no '{words}' in\n{table}");
    }
    let output = program(&[report, &checkpoint, ct_flag, &ct, mr_flag, &mr, correction, json]);
    let found: Report = serde_json::from_slice(&output.stdout).unwrap();
    assert!(found.candidates.is_empty() && found.bias_correction && !found.equalise);
    assert_eq!(files(folder.path()), before);
    let (onnx, report_flag, out_flag) = (Path::new("onnx"), Path::new("--report"), Path::new("--out"));
    let (kept, out) = (at("r.json"), at("m.onnx"));
    program(&[onnx, &checkpoint, ct_flag, &ct, mr_flag, &mr, correction, report_flag, &kept, out_flag, &out]);
    assert_eq!(serde_json::from_slice::<Report>(&fs::read(&kept).unwrap()).unwrap(), found);
}

#[test]
fn what_is_wrong_is_named_and_nothing_is_left_behind() {
    let folder = support::workplace(&support::compact(4, 32, 32));
    let at = |name: &str| folder.path().join(name);
    let checkpoint = at("checkpoint.safetensors");
    fs::write(at("noise"), [7; 100]).unwrap();
    let whole = fs::read(&checkpoint).unwrap();
    fs::write(at("short"), &whole[..whole.len() - 9]).unwrap();
    let path = |path: &Path| path.display().to_string();
    let [given, ct, mr, noise, short, absent] =
        [&checkpoint, &at("ct"), &at("mr"), &at("noise"), &at("short"), &at("absent")].map(|name| path(name));
    let out = path(&at("out.onnx"));
    let unwritable = path(&at("no/such/folder/out.onnx"));
    let cases: [(&[&str], &str); 12] = [
        (&["onnx", &absent, "--ct", &ct, "--mr", &mr, "--out", &out], "absent"),
        (&["onnx", &noise, "--ct", &ct, "--mr", &mr, "--out", &out], "not a checkpoint"),
        (&["onnx", &short, "--ct", &ct, "--mr", &mr, "--out", &out], "short"),
        (&["onnx", &given, "--ct", &ct, "--out", &out], "--mr DIR"),
        (&["onnx", &given, "--ct", &mr, "--mr", &mr, "--out", &out], "expected ct"),
        (&["onnx", &given, "--ct", &absent, "--mr", &mr, "--out", &out], "absent"),
        (&["onnx", &given, "--ct", &ct, "--mr", &mr, "--out", &out, "--calibration", "best"], "minmax"),
        (&["onnx", &given, "--ct", &ct, "--mr", &mr, "--out", &out, "--format", "qdq"], "--specialise"),
        (&["onnx", &given, "--ct", &ct, "--mr", &mr, "--out", &out, "--specialise", "pet"], "ct or mr"),
        (&["onnx", &given, "--ct", &ct, "--mr", &mr, "--out", &unwritable], "no/such/folder"),
        (&["float", &noise, "--out", &out], "noise"),
        (&["inspect", &noise], "noise"),
    ];
    let before = files(folder.path());
    for (arguments, words) in cases {
        let paths: Vec<&Path> = arguments.iter().map(Path::new).collect();
        let output = program(&paths);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(words), "{arguments:?}: {message}");
    }
    assert_eq!(files(folder.path()), before);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}
