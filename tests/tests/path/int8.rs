//! Codes are compared bit for bit: there is one rounding rule, so there is one answer.

use std::sync::LazyLock;

use contract::Modality;
use edge_runtime::{
    Engine, Logits, Model,
    engine::{Choice, Options},
};
use tests::{
    model_file::ModelFile,
    reference::{self, float},
};

use crate::{
    fixture::{self, Exported, INT8, reals},
    onnx_runtime::{self, Job},
};

/// Logit codes and labels of the reference network.
fn oracle(file: &ModelFile, modality: Modality, codes: &[i8]) -> (Vec<i8>, Vec<u8>) {
    let logits = reference::int8::logits(file, modality, codes).unwrap();
    (logits.values.data.clone(), logits.values.labels())
}

fn int8_file(exported: &Exported) -> ModelFile {
    ModelFile::read(exported.int8.as_ref().unwrap())
}

/// Factors that are exact in f32 and factors that are not, in 2D and 3D.
static INTERPOLATED: LazyLock<Vec<Exported>> = LazyLock::new(|| {
    let factors = [[1, 2, 2], [1, 3, 3], [1, 2, 3], [1, 8, 4], [1, 5, 1], [1, 7, 7], [2, 2, 2], [3, 3, 3], [2, 3, 1]];
    let exported = |(seed, factor)| Exported::new(fixture::interpolated_by(factor), &Modality::ALL, seed);
    (40..).zip(factors).map(exported).collect()
});

/// Every int8 network of these tests.
fn networks() -> impl Iterator<Item = &'static Exported> {
    INT8.iter().chain(INTERPOLATED.iter())
}

/// tract by name: the planned engine would take most of these files, and `planned.rs` tests it with every table.
#[test]
fn tract_equals_the_reference_in_every_code() {
    for exported in networks() {
        let (file, name) = (int8_file(exported), &exported.spec.net.name);
        let model = Model::load(exported.int8.as_ref().unwrap()).unwrap();
        let mut engine = Engine::with(&model, &Options { choice: Choice::Tract, ..Options::default() }).unwrap();
        let mut labels = vec![0; engine.labels_len()];
        for modality in Modality::ALL {
            let codes = exported.image(modality, 0);
            engine.run(&codes, modality, &mut labels).unwrap();
            let expected = oracle(&file, modality, &codes);
            let Some(Logits::Codes(logits)) = engine.logits() else { panic!("{name}: no codes") };
            let apart = logits.iter().zip(&expected.0).filter(|(a, b)| a != b).count();
            assert_eq!(apart, 0, "{name} {modality}: of {} codes", logits.len());
            assert_eq!(labels, expected.1, "{name} {modality}");
        }
    }
}

#[test]
fn onnx_runtime_equals_the_reference_in_every_code() {
    let folder = tempfile::tempdir().unwrap();
    let (mut jobs, mut expected) = (vec![], vec![]);
    for exported in networks() {
        let file = int8_file(exported);
        for modality in Modality::ALL {
            let codes = exported.image(modality, 0);
            expected.push((format!("{} {modality}", exported.spec.net.name), oracle(&file, modality, &codes)));
            let image = codes.iter().map(|&code| code as u8).collect();
            jobs.push(Job { model: exported.int8.clone().unwrap(), modality: Some(modality), image });
        }
    }
    let Some(answers) = onnx_runtime::run(&jobs, folder.path()) else { return };
    for (answer, (name, (logits, labels))) in answers.iter().zip(expected) {
        let apart = answer.logits.iter().zip(&logits).filter(|(a, b)| **a as i8 != **b).count();
        assert_eq!((answer.logits.len(), apart), (logits.len(), 0), "{name}");
        assert_eq!(answer.labels, labels, "{name}");
    }
}

#[test]
fn golden_digests_are_those_of_the_reference() {
    for exported in INT8.iter() {
        let file = int8_file(exported);
        let (spec, golden) = (&exported.spec, file.manifest().golden);
        assert_eq!(golden.iter().map(|golden| golden.modality).collect::<Vec<_>>(), spec.modalities);
        for golden in golden {
            let mut codes = vec![0; spec.net.input.elements()];
            contract::golden::codes(golden.modality, spec.grid.height, spec.grid.width, &mut codes);
            let (logits, labels) = oracle(&file, golden.modality, &codes);
            let name = format!("{} {}", spec.net.name, golden.modality);
            assert_eq!(reference::sha256(logits.iter().map(|&code| code as u8)), golden.logits_sha256, "{name}");
            assert_eq!(reference::sha256(labels), golden.labels_sha256, "{name}");
        }
    }
}

/// Ties the int8 reference to the f32 one: what the codes stand for is what the checkpoint computes, up to rounding.
#[test]
fn codes_stand_for_the_logits_of_the_checkpoint() {
    for exported in INT8.iter() {
        let file = int8_file(exported);
        for modality in Modality::ALL {
            let codes = exported.image(modality, 0);
            let int8 = reference::int8::logits(&file, modality, &codes).unwrap();
            let exact = float::logits(&exported.spec.net, &exported.tensors, modality, &reals(&exported.spec, &codes));
            let mean = exact.data.iter().sum::<f64>() / exact.data.len() as f64;
            let (mut signal, mut noise) = (0., 0.);
            for (&code, &real) in int8.values.data.iter().zip(&exact.data) {
                let stands_for = f64::from(i32::from(code) - i32::from(int8.zero_point)) * f64::from(int8.scale);
                signal += (real - mean).powi(2);
                noise += (real - stands_for).powi(2);
            }
            let decibel = 10. * (signal / noise).log10();
            println!("{} {modality}: {decibel:.1} dB", exported.spec.net.name);
            // Noise adds up over the paper's 33 convolutions.
            let least = if exported.spec.net.layers.len() > 60 { 15. } else { 20. };
            assert!(decibel > least, "{} {modality}: {decibel:.1} dB", exported.spec.net.name);
        }
    }
}
