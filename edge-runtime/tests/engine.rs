//! The engine against the network as nested loops: every logit and label, both branches.

mod support;

use contract::{Modality, golden, manifest::Precision};
use edge_runtime::{
    EdgeError, Engine, Logits, Model,
    engine::{Choice, Options, Step},
    inspect,
    kernels::Kernels,
    selftest,
};
use prost::Message;
use support::{HEIGHT, Small, WIDTH};

fn load(bytes: &[u8]) -> Result<Model, EdgeError> {
    Model::parse("small.onnx".as_ref(), bytes)
}

/// tract, and ours with every table of routines and some numbers of threads.
fn every_way() -> Vec<Options> {
    let mut ways = vec![Options { choice: Choice::Tract, ..Options::default() }];
    for kernels in Kernels::available() {
        for threads in [1, 2, 5] {
            ways.push(Options { choice: Choice::Planned, kernels: Some(kernels), threads, ..Options::default() });
        }
    }
    ways
}

#[test]
fn every_code_equals_the_loops_in_both_branches() {
    for (slices, options) in [1, 3].into_iter().flat_map(|slices| every_way().into_iter().map(move |way| (slices, way)))
    {
        let small = Small::new(slices);
        let model = load(&small.file()).unwrap();
        let mut engine = Engine::with(&model, &options).unwrap();
        let mut image = vec![0; slices * HEIGHT * WIDTH];
        let mut labels = vec![9; HEIGHT * WIDTH];
        let mut seen = vec![];
        for modality in [Modality::Mr, Modality::Ct, Modality::Mr] {
            golden::codes(modality, HEIGHT, WIDTH, &mut image);
            engine.run(&image, modality, &mut labels).unwrap();
            let expected = small.logits(&image, modality);
            let saturated = expected.iter().filter(|&&code| code == i8::MIN || code == i8::MAX).count();
            assert!(saturated * 4 < expected.len(), "{saturated} of {} codes saturated: a weak test", expected.len());
            let name = format!("{engine}: {modality}, {slices} slices");
            assert_eq!(engine.logits(), Some(Logits::Codes(&expected)), "{name}");
            assert_eq!(labels, small.labels(&expected), "{name}");
            seen.push(expected);
        }
        golden::codes(Modality::Ct, HEIGHT, WIDTH, &mut image);
        assert_ne!(small.logits(&image, Modality::Ct), small.logits(&image, Modality::Mr), "branches must differ");
        assert_eq!(seen[0], seen[2], "a branch keeps no memory of the slices before");
    }
}

/// Both branches multiply with the very same bytes: packed weights have one address and are counted once.
#[test]
fn the_branches_of_a_plan_share_their_weights() {
    let model = load(&Small::new(1).file()).unwrap();
    let Engine::Planned(engine) = Engine::new(&model).unwrap() else { panic!("planned") };
    let convs: Vec<_> = engine
        .program()
        .steps
        .iter()
        .filter_map(|planned| match &planned.step {
            Step::Conv(conv) => Some((conv.weights(), conv.weight_bytes())),
            _ => None,
        })
        .collect();
    assert_eq!(convs.len(), 4, "one step per convolution, not per branch");
    assert_eq!(convs.iter().map(|conv| conv.1).sum::<usize>(), engine.memory().weight_bytes);
    assert!((1..4).all(|i| !convs[..i].iter().any(|conv| conv.0 == convs[i].0)));
}

#[test]
fn a_plan_that_needs_too_much_memory_is_refused_with_the_numbers() {
    let model = load(&Small::new(1).file()).unwrap();
    let options = Options { max_arena_bytes: 1000, ..Options::default() };
    let error = Engine::with(&model, &options).unwrap_err();
    assert!(matches!(error, EdgeError::Arena { bytes, max: 1000, .. } if bytes > 1000), "{error}");
    assert_eq!(error.code().name(), "E-ENGINE-03");
}

#[test]
fn impossible_constants_are_refused_with_layer_and_value() {
    let small = Small::new(1);
    let words = |change: &dyn Fn(&mut tract_onnx::pb::TensorProto), name: &str| {
        let mut proto = tract_onnx::pb::ModelProto::decode(small.file().as_slice()).unwrap();
        let graph = proto.graph.as_mut().unwrap();
        change(graph.initializer.iter_mut().find(|tensor| tensor.name == name).unwrap());
        let error = Engine::new(&load(&proto.encode_to_vec()).unwrap()).unwrap_err();
        assert_eq!(error.code().name(), "E-MODEL-06", "{error}");
        error.to_string()
    };
    for (scale, text) in [(0., "0e0"), (-1e-3, "-1e-3"), (f32::NAN, "NaN"), (f32::INFINITY, "inf"), (1e-40, "1e-40")] {
        let set =
            |tensor: &mut tract_onnx::pb::TensorProto| tensor.raw_data[4..8].copy_from_slice(&scale.to_le_bytes());
        let error = words(&set, "deep/steps");
        assert!(error.contains("layer 'deep'") && error.contains(text), "{error}");
    }
    let weight = |tensor: &mut tract_onnx::pb::TensorProto| tensor.raw_data[0] = 0x80;
    assert!(words(&weight, "deep/weight").contains("weight 0 is -128"));
    let bias = |tensor: &mut tract_onnx::pb::TensorProto| tensor.raw_data[..4].copy_from_slice(&i32::MAX.to_le_bytes());
    assert!(words(&bias, "deep/biases").contains("sums reach"));
    let shape = |tensor: &mut tract_onnx::pb::TensorProto| tensor.dims.swap(0, 1);
    assert!(words(&shape, "deep/weight").contains("expected [8, 6, 3, 3]"));
}

#[test]
fn every_convolution_is_proved_to_run_in_int8_and_weights_are_shared() {
    let model = load(&Small::new(1).file()).unwrap();
    let engine = Engine::with(&model, &Options { choice: Choice::Tract, ..Options::default() }).unwrap();
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
