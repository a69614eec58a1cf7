//! Other people's programs read our files: `onnx.checker` with full shape inference, and ONNX Runtime on both branches.
//! Needs a Python with onnx and onnxruntime (`cargo xtask venv`, or `GANTRY_PYTHON`); prints why when there is none.

mod support;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use contract::{Modality, ModelSpec, Net};
use export::{
    Folded,
    calibrate::{Method, observe},
    engine::reals,
    export_float, export_int8,
    inspect::Summary,
    int8::Format,
    onnx::encode,
    quantise::Quantised,
};
use sha2::{Digest, Sha256};

/// The Python that has ONNX Runtime, if there is one.
fn python() -> Option<PathBuf> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/python");
    let python = std::env::var_os("GANTRY_PYTHON").map_or_else(default, PathBuf::from);
    let ready = Command::new(&python).args(["-c", "import numpy, onnx, onnxruntime"]).output();
    if ready.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    println!("skipped: {} cannot import numpy, onnx and onnxruntime (cargo xtask venv)", python.display());
    None
}

/// One run: model bytes, whether the image is int8, the branch (None where the file has one only), raw image.
struct Run {
    model: Vec<u8>,
    kind: &'static str,
    modality: Option<Modality>,
    image: Vec<u8>,
}

/// Raw logits and labels of each run.
fn onnx_runtime(python: &Path, runs: &[Run]) -> Vec<(Vec<u8>, Vec<i64>)> {
    let folder = tempfile::tempdir().unwrap();
    let at = |index: usize, name: &str| folder.path().join(format!("{index}.{name}"));
    let mut lines = String::new();
    for (index, run) in runs.iter().enumerate() {
        fs::write(at(index, "onnx"), &run.model).unwrap();
        fs::write(at(index, "image"), &run.image).unwrap();
        let modality = run.modality.map_or("-".to_string(), |modality| modality.index().to_string());
        let (model, image, out) = (at(index, "onnx"), at(index, "image"), folder.path().join(index.to_string()));
        let [model, image, out] = [model, image, out].map(|path| path.display().to_string());
        lines += &format!("{model} {} {modality} {image} {out}\n", run.kind);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run_onnx.py");
    let mut child = Command::new(python).arg(script).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "run_onnx.py failed; its reason stands above");
    let labels = |bytes: Vec<u8>| bytes.chunks_exact(8).map(|c| i64::from_le_bytes(c.try_into().unwrap())).collect();
    let result = |index| (fs::read(at(index, "logits")).unwrap(), labels(fs::read(at(index, "labels")).unwrap()));
    (0..runs.len()).map(result).collect()
}

fn bytes_of(codes: &[i8]) -> Vec<u8> {
    codes.iter().map(|&code| code as u8).collect()
}

fn fold(spec: &ModelSpec, seed: u64) -> (support::Tensors, Folded) {
    let tensors = support::tensors(spec, seed);
    let folded = Folded::new(&support::checkpoint(spec, &tensors)).unwrap();
    (tensors, folded)
}

#[test]
fn int8_has_the_same_bits_in_onnx_runtime_and_in_nested_loops() {
    let Some(python) = python() else { return };
    let (mut runs, mut expected) = (vec![], vec![]);
    for (net, seed) in
        [(Net::compact(1, 5, 4, 32, 48), 21), (Net::compact_dilated(3, 5, 6, 48, 32), 22), (support::mixed(), 23)]
    {
        let spec = support::spec(net);
        let (_, folded) = fold(&spec, seed);
        let samples = support::samples(&spec);
        let ranges = observe(&folded, &export_float(&folded), &samples).unwrap().ranges(Method::MinMax);
        let quantised = Quantised::new(&folded, &ranges).unwrap();
        let model = encode(&export_int8(&folded, &quantised, Format::Qoperator).unwrap());
        for sample in &samples {
            let row = sample.modality.index();
            let values = support::int8(&spec, &quantised, row, &sample.codes);
            let image = bytes_of(&sample.codes);
            runs.push(Run { model: model.clone(), kind: "int8", modality: Some(sample.modality), image });
            expected.push(values.into_iter().next_back().unwrap());
        }
    }
    for ((logits, labels), expected) in onnx_runtime(&python, &runs).into_iter().zip(expected) {
        assert_eq!(logits, bytes_of(&expected));
        let argmax = support::argmax(&expected, 5);
        assert_eq!(labels, argmax.iter().map(|&label| i64::from(label)).collect::<Vec<_>>());
    }
}

/// A single branch, as `QLinearConv` and as QDQ. ONNX Runtime fuses QDQ back, with its own bias rounding: one step at most.
#[test]
fn single_branches_run_in_both_spellings() {
    let Some(python) = python() else { return };
    let spec = support::spec(support::mixed());
    let (_, both) = fold(&spec, 31);
    let (mut runs, mut expected) = (vec![], vec![]);
    for modality in Modality::ALL {
        let folded = both.specialise(modality).unwrap();
        let samples: Vec<_> =
            support::samples(&spec).into_iter().filter(|sample| sample.modality == modality).collect();
        let ranges = observe(&folded, &export_float(&folded), &samples).unwrap().ranges(Method::MinMax);
        let quantised = Quantised::new(&folded, &ranges).unwrap();
        for format in [Format::Qoperator, Format::Qdq] {
            let model = encode(&export_int8(&folded, &quantised, format).unwrap());
            let image = bytes_of(&samples[0].codes);
            runs.push(Run { model, kind: "int8", modality: None, image });
            let values = support::int8(&folded.spec, &quantised, 0, &samples[0].codes);
            expected.push((format, values.into_iter().next_back().unwrap()));
        }
    }
    for ((logits, _), (format, expected)) in onnx_runtime(&python, &runs).into_iter().zip(expected) {
        let allowed = if format == Format::Qoperator { 0 } else { 1 };
        for (&found, &expected) in logits.iter().zip(&expected) {
            assert!((found as i8).abs_diff(expected) <= allowed, "{format:?}: {} against {expected}", found as i8);
        }
    }
}

/// What the program writes for other toolchains: one branch, in both spellings, with residual sums in it, and with norms
/// and leaks of their own.
#[test]
fn the_programs_single_branches_run_and_answer_their_golden_image() {
    let Some(python) = python() else { return };
    for net in [Net::compact_dilated(1, 5, 4, 32, 32), Net::dilated2d(5, 2, 32, 32)] {
        golden_images_of_single_branches(&python, &support::spec(net));
    }
}

fn golden_images_of_single_branches(python: &Path, spec: &ModelSpec) {
    let folder = support::workplace(spec);
    let (mut runs, mut digests) = (vec![], vec![]);
    for modality in Modality::ALL {
        for format in ["qoperator", "qdq"] {
            let out = folder.path().join(format!("{modality}.{format}.onnx"));
            let data = folder.path().join(modality.name());
            let mut program = Command::new(env!("CARGO_BIN_EXE_gantry-export"));
            program.arg("onnx").arg(folder.path().join("checkpoint.safetensors")).arg("--out").arg(&out);
            program.arg(format!("--{modality}")).arg(data);
            let output = program.args(["--specialise", modality.name(), "--format", format]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let model = fs::read(&out).unwrap();
            digests.extend(Summary::new(&out, &model).unwrap().manifest.golden);
            let mut image = vec![0; spec.net.input.elements()];
            contract::golden::codes(modality, spec.grid.height, spec.grid.width, &mut image);
            runs.push(Run { model, kind: "int8", modality: None, image: bytes_of(&image) });
        }
    }
    let answers = onnx_runtime(python, &runs);
    for (pair, golden) in answers.chunks_exact(2).zip(&digests) {
        let digest: String = Sha256::digest(&pair[0].0).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, golden.logits_sha256, "{}", golden.modality);
        // QDQ is float arithmetic between codes that ONNX Runtime fuses as it likes, with one rounding in front of a leak
        // instead of two: close, not equal, and the 33 convolutions of the deeper network add up their differences.
        let apart = |(&a, &b): (&u8, &u8)| f64::from((a as i8).abs_diff(b as i8));
        let mean = pair[0].0.iter().zip(&pair[1].0).map(apart).sum::<f64>() / pair[0].0.len() as f64;
        println!("{} {}: QDQ is {mean:.3} steps from QLinearConv", spec.net.name, golden.modality);
        assert!(mean < 3., "{}: QDQ is {mean} steps from QLinearConv", golden.modality);
    }
    assert_eq!(digests.len(), 2, "a QDQ file has no digests");
}

/// The f32 file of every family, with its own operations, against nested loops in f64.
#[test]
fn f32_files_of_all_families_equal_the_trained_networks() {
    let Some(python) = python() else { return };
    let nets = [
        Net::compact(3, 5, 4, 32, 48),
        Net::compact_dilated(3, 5, 4, 32, 48),
        Net::compact3d(5, 4, 8, 16, 24),
        support::mixed(),
        Net::dilated2d(5, 2, 32, 40),
        Net::unet3d(5, 2, 8, 16, 24),
        Net::unet3d_hollow(5, 2, 8, 16, 24),
    ];
    let (mut runs, mut expected) = (vec![], vec![]);
    for (seed, net) in nets.into_iter().enumerate() {
        let spec = support::spec(net);
        let (tensors, folded) = fold(&spec, seed as u64 + 41);
        let model = encode(&export_float(&folded));
        for sample in support::samples(&spec).into_iter().step_by(2) {
            let image = reals(&sample.codes, spec.intensity.scale);
            let values = support::unfolded(&spec, &tensors, sample.modality, &image);
            expected.push((spec.net.name.clone(), values.into_iter().next_back().unwrap()));
            let image = image.iter().flat_map(|value| value.to_le_bytes()).collect();
            runs.push(Run { model: model.clone(), kind: "float32", modality: Some(sample.modality), image });
        }
    }
    for ((logits, labels), (name, expected)) in onnx_runtime(&python, &runs).into_iter().zip(expected) {
        let size = expected.iter().fold(0f64, |max, value| max.max(value.abs()));
        let found: Vec<f32> = logits.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
        assert_eq!((found.len(), labels.len()), (expected.len(), expected.len() / 5));
        for (found, expected) in found.iter().zip(&expected) {
            let error = (f64::from(*found) - expected).abs() / size;
            assert!(error <= 1e-4, "{name}: {found} against {expected}");
        }
    }
}
