//! What the runtime must refuse, with words that help: the file, the value, what was expected.

use std::{fs, path::Path, sync::LazyLock};

use contract::{Modality, Net};
use edge_runtime::{EdgeError, Engine, Model, segment, selftest};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::fixture::Exported;

/// A model of one branch.
static CT: LazyLock<Exported> = LazyLock::new(|| Exported::new(Net::compact(1, 3, 4, 16, 16), &[Modality::Ct], 21));

fn bytes() -> Vec<u8> {
    fs::read(CT.int8.as_ref().unwrap()).unwrap()
}

/// Loads and runs bytes as a model, in the name of a file that does not exist.
fn load(bytes: &[u8]) -> Result<(Model, Engine), EdgeError> {
    let model = Model::parse(Path::new("damaged/model.onnx"), bytes)?;
    let engine = Engine::new(&model)?;
    Ok((model, engine))
}

fn assert_says(error: &EdgeError, words: &[&str]) {
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "'{message}' should contain '{word}'");
    }
}

#[test]
fn a_modality_that_the_model_lacks() {
    let (_, mut engine) = load(&bytes()).unwrap();
    let (codes, mut labels) = (vec![0; engine.image_len()], vec![7; engine.labels_len()]);
    let error = engine.run(&codes, Modality::Mr, &mut labels).unwrap_err();
    assert_says(&error, &["mr", "ct"]);
    assert!(labels.iter().all(|&label| label == 7), "nothing half-written");
    engine.run(&codes, Modality::Ct, &mut labels).unwrap();
}

#[test]
fn a_model_of_another_contract_version() {
    let (bytes, current) = (bytes(), format!("\"contract\":{},", contract::VERSION));
    let start = bytes.windows(current.len()).position(|window| window == current.as_bytes()).expect("a manifest");
    let other = [&bytes[..start], b"\"contract\":9,", &bytes[start + current.len()..]].concat();
    let error = load(&other).unwrap_err();
    assert_says(&error, &["damaged/model.onnx", "version 9", &format!("version {}", contract::VERSION)]);
}

#[test]
fn no_file_no_onnx_no_manifest() {
    let error = Model::load("nowhere/model.onnx").unwrap_err();
    assert_says(&error, &["nowhere/model.onnx"]);
    for bytes in [&b""[..], b"not a model", &[0xff; 300], &[0; 300]] {
        assert_says(&load(bytes).unwrap_err(), &["damaged/model.onnx"]);
    }
}

/// Protobuf has no length at the top, so a shorter file may well parse; it must still be refused.
#[test]
fn a_model_cut_short_anywhere() {
    let bytes = bytes();
    for length in (0..bytes.len()).step_by(bytes.len() / 150) {
        let error = load(&bytes[..length]).map(|_| ()).expect_err(&format!("{length} of {} bytes", bytes.len()));
        assert_says(&error, &["damaged/model.onnx"]);
    }
}

/// A flipped bit is refused, or changes a number: then the file still runs. It never takes the program down.
#[test]
fn a_model_with_flipped_bits() {
    let (bytes, mut rng) = (bytes(), ChaCha8Rng::seed_from_u64(5));
    let mut refused = 0;
    for _ in 0..200 {
        let mut broken = bytes.clone();
        let index = rng.random_range(0..broken.len());
        broken[index] ^= 1 << rng.random_range(0..8);
        match load(&broken) {
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
            // What loads must answer as before: the self-test is there for the rest.
            Ok((model, mut engine)) => refused += usize::from(selftest::demand(&model, &mut engine).is_err()),
        }
    }
    println!("{refused} of 200 flips refused");
    // 107 of these. The others are low bits of weights and scales that change no code of the golden picture, and words.
    assert!(refused > 50, "only {refused} of 200 flips were noticed");
}

/// A NIfTI-1 file of 4 x 4 x 2 floats: header as this project writes it, type and values by hand.
fn float_volume(path: &Path, values: &[f32; 32]) {
    let geometry = volume::Geometry::from_codes("LPS", [4, 4, 2], [1., 1., 3.]).unwrap();
    volume::write_image(path, &geometry, &[0; 32]).unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes.truncate(352);
    // NIfTI-1: datatype and bitpix lie at bytes 70 and 72; FLOAT32 is 16.
    bytes[70..74].copy_from_slice(&[16, 0, 32, 0]);
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    fs::write(path, bytes).unwrap();
}

#[test]
fn voxels_that_are_no_numbers() {
    let (model, mut engine) = load(&bytes()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scan.nii");
    let mut run = |values: &[f32; 32]| {
        float_volume(&path, values);
        segment::volume(&model, &mut engine, Modality::Ct, &path, &segment::Options::default(), |_, _| ()).map(|_| ())
    };
    let good = std::array::from_fn(|i| (i % 16) as f32 * 20. - 200.);
    run(&good).unwrap();
    for (bad, words) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let mut values = good;
        values[17] = bad;
        assert_says(&run(&values).unwrap_err(), &["scan.nii", words]);
    }
}
