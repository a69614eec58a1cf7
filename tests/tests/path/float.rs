//! The f32 file against the checkpoint, norms unfolded, in double precision: folding and writing must not change the network.

use contract::Modality;
use edge_runtime::{Engine, Logits, Model};
use tests::reference::{Values, float};

use crate::{
    fixture::{Exported, FLOAT, INT8, reals},
    onnx_runtime::{self, Job},
};

/// Largest difference relative to the largest logit. A sum of n products in f32 is off by some sqrt(n) * 6e-8, and the
/// deepest network here has 23 convolutions of up to 3456 products.
const TOLERANCE: f64 = 1e-5;

/// Every network that has an f32 file, with the product's among them.
fn networks() -> impl Iterator<Item = &'static Exported> {
    FLOAT.iter().chain(INT8.last())
}

fn oracle(exported: &Exported, modality: Modality, codes: &[i8]) -> Values<f64> {
    float::logits(&exported.spec.net, &exported.tensors, modality, &reals(&exported.spec, codes))
}

fn assert_close(name: &str, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let largest = expected.iter().fold(0f64, |largest, x| largest.max(x.abs()));
    let apart = found.iter().zip(expected).fold(0f64, |apart, (&x, y)| apart.max((f64::from(x) - y).abs()));
    println!("{name}: {:.1e}", apart / largest);
    assert!(apart <= TOLERANCE * largest, "{name}: {apart:e} apart, largest logit {largest:e}");
}

#[test]
fn the_runtime_gives_the_logits_of_the_checkpoint() {
    for exported in networks() {
        let mut engine = Engine::new(&Model::load(&exported.f32).unwrap()).unwrap();
        let mut labels = vec![0; engine.labels_len()];
        for modality in Modality::ALL {
            let codes = exported.image(modality, 0);
            engine.run(&codes, modality, &mut labels).unwrap();
            let Some(Logits::Reals(logits)) = engine.logits() else { panic!("no reals") };
            let name = format!("{} {modality}", exported.spec.net.name);
            assert_close(&name, logits, &oracle(exported, modality, &codes).data);
        }
    }
}

#[test]
fn onnx_runtime_gives_the_logits_of_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (mut jobs, mut expected) = (vec![], vec![]);
    for exported in networks() {
        for modality in Modality::ALL {
            let codes = exported.image(modality, 0);
            expected.push((format!("{} {modality}", exported.spec.net.name), oracle(exported, modality, &codes)));
            let image = reals(&exported.spec, &codes).iter().flat_map(|x| x.to_le_bytes()).collect();
            jobs.push(Job { model: exported.f32.clone(), modality: Some(modality), image });
        }
    }
    let Some(answers) = onnx_runtime::run(&jobs, folder.path()) else { return };
    for (answer, (name, expected)) in answers.iter().zip(expected) {
        let logits: Vec<f32> =
            answer.logits.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        assert_close(&name, &logits, &expected.data);
        assert_eq!(answer.labels, Values::new(expected.shape, logits).labels(), "{name}");
    }
}
