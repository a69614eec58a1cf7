//! Files that are no models: each is refused with its own code, and none can make the runtime panic.

mod support;

use contract::{Modality, VERSION, manifest::Manifest};
use edge_runtime::{EdgeError, Engine, Model, selftest};
use prost::Message;
use support::Small;

/// All that `segment` does before the first slice.
fn start(bytes: &[u8]) -> Result<(), EdgeError> {
    let model = Model::parse("broken.onnx".as_ref(), bytes)?;
    let mut engine = Engine::new(&model)?;
    selftest::demand(&model, &mut engine)
}

fn code(bytes: &[u8]) -> &'static str {
    match start(bytes) {
        Ok(()) => "started",
        Err(error) => {
            assert!(!error.to_string().is_empty());
            error.code().name()
        }
    }
}

fn with_manifest(change: impl FnOnce(&mut Manifest)) -> Vec<u8> {
    let small = Small::new(1);
    let mut manifest = small.manifest();
    change(&mut manifest);
    small.file_with(&serde_json::to_string(&manifest).unwrap())
}

#[test]
fn each_kind_of_wrong_file_has_its_code() {
    let small = Small::new(1);
    assert_eq!(code(&small.file()), "started");
    assert_eq!(code(b"not a protobuf at all"), "E-MODEL-02");
    assert_eq!(code(&small.bare().encode_to_vec()), "E-MODEL-03");
    assert_eq!(code(b""), "E-MODEL-03");
    assert_eq!(code(&with_manifest(|manifest| manifest.contract = VERSION + 1)), "E-MODEL-04");
    assert_eq!(code(&small.file_with("{\"contract\": 2}")), "E-MODEL-04", "the version is read before the rest");
    assert_eq!(code(&small.file_with("{")), "E-MODEL-05");
    assert_eq!(code(&small.file_with("{\"contract\": 1}")), "E-MODEL-05");
    assert_eq!(code(&with_manifest(|manifest| manifest.spec.modalities.clear())), "E-MODEL-05");
    assert_eq!(code(&with_manifest(|manifest| manifest.spec.modalities.truncate(1))), "E-MODEL-06");
    assert_eq!(code(&with_manifest(|manifest| manifest.spec.net.input.channels = 2)), "E-MODEL-06");
    assert_eq!(code(&with_manifest(|manifest| manifest.golden.clear())), "E-SELFTEST-02");
    let missing = Model::load("no/such/model.onnx").unwrap_err();
    assert_eq!(missing.code().name(), "E-MODEL-01");
    assert!(missing.to_string().contains("no/such/model.onnx"));
}

#[test]
fn tensors_that_promise_more_than_they_hold_are_refused_before_memory_is_taken() {
    let small = Small::new(1);
    let manifest = serde_json::to_string(&small.manifest()).unwrap();
    let mut broken = tract_onnx::pb::ModelProto::decode(small.file_with(&manifest).as_slice()).unwrap();
    let graph = broken.graph.as_mut().unwrap();
    let weight = graph.initializer.iter_mut().find(|tensor| tensor.name == "deep/weight").unwrap();
    weight.dims = vec![1 << 40, 6, 3, 3];
    assert_eq!(code(&broken.encode_to_vec()), "E-MODEL-02");
    let graph = broken.graph.as_mut().unwrap();
    let weight = graph.initializer.iter_mut().find(|tensor| tensor.name == "deep/weight").unwrap();
    weight.dims = vec![8, 6, 3, 3];
    assert_eq!(code(&broken.encode_to_vec()), "started");
    let pads = graph_attribute(&mut broken, "deep", "pads");
    pads.ints[0] = 1 << 40;
    assert_eq!(code(&broken.encode_to_vec()), "E-MODEL-06");
}

fn graph_attribute<'a>(
    model: &'a mut tract_onnx::pb::ModelProto,
    node: &str,
    name: &str,
) -> &'a mut tract_onnx::pb::AttributeProto {
    let nodes = &mut model.graph.as_mut().unwrap().node;
    let node = nodes.iter_mut().find(|other| other.name == node).unwrap();
    node.attribute.iter_mut().find(|other| other.name == name).unwrap()
}

/// A truncated file may lose only what nothing reads (names at the end); otherwise it is refused.
#[test]
fn a_file_cut_at_every_97th_byte_is_refused() {
    let file = Small::new(1).file();
    for length in (0..file.len()).step_by(97) {
        assert_ne!(code(&file[..length]), "started", "{length} of {} bytes", file.len());
    }
}

/// Names and colours may change without harm to a start; numbers may not.
#[test]
fn a_flipped_byte_never_panics_and_a_changed_weight_is_always_found() {
    let small = Small::new(1);
    let file = small.file();
    for at in (0..file.len()).step_by(13) {
        let mut broken = file.clone();
        broken[at] ^= 1 << (at % 8);
        code(&broken);
    }
    let weights: Vec<u8> = small.weight_codes(2).iter().map(|&code| code as u8).collect();
    let at = file.windows(weights.len()).position(|bytes| bytes == weights).unwrap();
    for at in (at..at + weights.len()).step_by(29) {
        let mut broken = file.clone();
        broken[at] ^= 1 << 6;
        assert_eq!(code(&broken), "E-SELFTEST-01", "byte {at}");
    }
}

#[test]
fn a_modality_that_the_model_lacks_is_named() {
    let small = Small::new(1);
    let model = Model::parse("small.onnx".as_ref(), &small.file()).unwrap();
    let mut single = model.clone();
    single.manifest.spec.modalities = vec![Modality::Ct];
    let plane = contract::Plane { height: 9, width: 9, row_mm: 1., column_mm: 1. };
    let error = edge_runtime::Segmenter::new(&single, Modality::Mr, plane).unwrap_err();
    assert_eq!(error.code().name(), "E-MODEL-07");
    assert_eq!(error.to_string(), "modality mr is not in the model, which has ct");
}
