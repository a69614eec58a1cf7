//! The engine against the network as nested loops: every logit and label, both branches.

mod support;

use contract::{Modality, golden, manifest::Precision};
use edge_runtime::{EdgeError, Engine, Logits, Model, inspect, selftest};
use support::{HEIGHT, Small, WIDTH};

fn load(bytes: &[u8]) -> Result<Model, EdgeError> {
    Model::parse("small.onnx".as_ref(), bytes)
}

#[test]
fn every_code_equals_the_loops_in_both_branches() {
    for slices in [1, 3] {
        let small = Small::new(slices);
        let model = load(&small.file()).unwrap();
        let mut engine = Engine::new(&model).unwrap();
        let mut image = vec![0; slices * HEIGHT * WIDTH];
        let mut labels = vec![9; HEIGHT * WIDTH];
        let mut seen = vec![];
        for modality in [Modality::Mr, Modality::Ct, Modality::Mr] {
            golden::codes(modality, HEIGHT, WIDTH, &mut image);
            engine.run(&image, modality, &mut labels).unwrap();
            let expected = small.logits(&image, modality);
            let saturated = expected.iter().filter(|&&code| code == i8::MIN || code == i8::MAX).count();
            assert!(saturated * 4 < expected.len(), "{saturated} of {} codes saturated: a weak test", expected.len());
            assert_eq!(engine.logits(), Some(Logits::Codes(&expected)), "{modality}, {slices} slices");
            assert_eq!(labels, small.labels(&expected));
            seen.push(expected);
        }
        golden::codes(Modality::Ct, HEIGHT, WIDTH, &mut image);
        assert_ne!(small.logits(&image, Modality::Ct), small.logits(&image, Modality::Mr), "branches must differ");
        assert_eq!(seen[0], seen[2], "a branch keeps no memory of the slices before");
    }
}

#[test]
fn every_convolution_is_proved_to_run_in_int8_and_weights_are_shared() {
    let model = load(&Small::new(1).file()).unwrap();
    let engine = Engine::new(&model).unwrap();
    let runs: Vec<_> = engine.layers().iter().map(|layer| (layer.name.as_str(), layer.int8)).collect();
    let (yes, no) = (Some(true), None);
    assert_eq!(
        runs,
        [("enc", yes), ("pool", no), ("deep", yes), ("narrow", yes), ("up", no), ("join", no), ("head", yes)],
        "{:?}",
        engine.layers()
    );
    assert_eq!(engine.float_convolutions().count(), 0);
    let inspection = inspect::inspect(&model, &engine).unwrap();
    assert_eq!(inspection.int8_macs, inspection.macs);
    assert_eq!(inspection.macs, inspection.layers.iter().map(|layer| layer.macs).sum::<u64>());
    // The small network's weights are 6*9 + 8*6*9 + 6*8 + 5*12 codes; packed, they take at least that.
    assert!(engine.constants().shared_bytes >= 594, "{:?}", engine.constants());
}

#[test]
fn the_self_test_passes_here_and_finds_one_changed_weight() {
    let small = Small::new(1);
    let model = load(&small.file()).unwrap();
    let mut engine = Engine::new(&model).unwrap();
    selftest::demand(&model, &mut engine).unwrap();
    let answers = selftest::answers(&model, &mut engine).unwrap();
    assert!(answers.len() == 2 && answers.iter().all(|answer| answer.pass() == Some(true)));

    let mut other = Small::new(1);
    other.flip_weight(2);
    let changed = other.file_with(&serde_json::to_string(&small.manifest()).unwrap());
    let model = load(&changed).unwrap();
    let error = selftest::demand(&model, &mut Engine::new(&model).unwrap()).unwrap_err();
    assert_eq!(error.code().name(), "E-SELFTEST-01", "{error}");
}

#[test]
fn an_int8_model_without_digests_is_not_trusted() {
    let small = Small::new(1);
    let mut manifest = small.manifest();
    manifest.golden.truncate(1);
    let model = load(&small.file_with(&serde_json::to_string(&manifest).unwrap())).unwrap();
    let error = selftest::demand(&model, &mut Engine::new(&model).unwrap()).unwrap_err();
    assert!(matches!(error, EdgeError::NoGolden { modality: Modality::Mr }), "{error}");
}

#[test]
fn wrong_lengths_and_precisions_are_errors() {
    let small = Small::new(1);
    let model = load(&small.file()).unwrap();
    let mut engine = Engine::new(&model).unwrap();
    let mut labels = vec![0; HEIGHT * WIDTH];
    let short = engine.run(&[0; 7], Modality::Ct, &mut labels).unwrap_err();
    assert!(matches!(short, EdgeError::Length { found: 7, expected, .. } if expected == HEIGHT * WIDTH), "{short}");
    let few = engine.run(&vec![0; HEIGHT * WIDTH], Modality::Ct, &mut labels[1..]).unwrap_err();
    assert!(matches!(few, EdgeError::Length { .. }), "{few}");
    let float = contract::manifest::Manifest { precision: Precision::F32, ..small.manifest() };
    let error = load(&small.file_with(&serde_json::to_string(&float).unwrap())).unwrap_err();
    assert_eq!(error.code().name(), "E-MODEL-06", "{error}");
}
