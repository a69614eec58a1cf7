//! Exports random networks and holds the files against nested loops: folding, sizes, bits, refusals.

mod support;

use std::path::Path;

use contract::{
    Modality,
    manifest::Precision,
    names::{self, NormParam},
    net::{Activation, Deconv, Net, NormKind, Op},
};
use export::{
    ExportError, Folded,
    calibrate::{Method, Range, observe},
    engine::{Runner, reals},
    export, export_float, export_int8,
    factors::agrees,
    inspect::Summary,
    int8::Format,
    quantise::Quantised,
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[test]
fn folded_networks_equal_unfolded_ones() {
    for (net, seed) in [(Net::compact(1, 5, 4, 32, 48), 1), (support::mixed(), 2)] {
        let spec = support::spec(net);
        let tensors = support::tensors(&spec, seed);
        let folded = Folded::new(&support::checkpoint(&spec, &tensors)).unwrap();
        let model = export_float(&folded);
        for sample in support::samples(&spec) {
            let image = reals(&sample.codes, spec.intensity.scale);
            let logits = Runner::new(&model, sample.modality, &["logits"]).unwrap().run_f32(&image).unwrap().remove(0);
            let expected = support::unfolded(&spec, &tensors, sample.modality, &image).pop().unwrap();
            let size = expected.iter().fold(0f64, |max, value| max.max(value.abs()));
            for (found, expected) in logits.iter().zip(&expected) {
                let error = (f64::from(*found) - expected).abs() / size;
                assert!(error <= 1e-4, "{} {}: {found} against {expected}", spec.net.name, sample.modality);
            }
            assert_eq!(logits.len(), expected.len());
        }
    }
}

/// Values by the one rounding rule, tract's values and tract's labels of both branches, code for code.
#[test]
fn tract_runs_the_int8_file_by_the_one_rounding_rule() {
    for (net, seeds) in [(support::mixed(), 0..6), (Net::compact(1, 5, 4, 32, 32), 6..8)] {
        for seed in seeds {
            let spec = support::spec(net.clone());
            let folded = Folded::new(&support::checkpoint(&spec, &support::tensors(&spec, seed))).unwrap();
            let samples = support::samples(&spec);
            let ranges = observe(&folded, &export_float(&folded), &samples).unwrap().ranges(Method::MinMax);
            let quantised = Quantised::new(&folded, &ranges).unwrap();
            let model = export_int8(&folded, &quantised, Format::Qoperator).unwrap();
            for sample in &samples {
                let expected = support::int8(&spec, &quantised, sample.modality.index(), &sample.codes);
                let runner = Runner::new(&model, sample.modality, &["logits", "labels"]).unwrap();
                let found = runner.run_i8(&sample.codes).unwrap();
                let logits = expected.last().unwrap();
                assert_eq!(&found[0], logits, "{} seed {seed} {}", spec.net.name, sample.modality);
                assert_eq!(found[1], support::argmax(logits, 5));
                assert!(logits.iter().any(|&code| code != logits[0]), "an image of one code would prove nothing");
            }
        }
    }
}

#[test]
fn int8_stands_close_to_f32() {
    let spec = support::compact(8, 64, 64);
    let folded = Folded::new(&support::checkpoint(&spec, &support::tensors(&spec, 5))).unwrap();
    let export = export(&folded, &support::samples(&spec), &Method::MinMax.into(), Format::Qoperator, |_| ()).unwrap();
    assert_eq!(export.report.layers.len(), 2 * spec.net.layers.len());
    for layer in &export.report.layers {
        assert!(layer.sqnr_db > 20., "{layer:?}");
        assert!(layer.scale > 0. && layer.saturated < 0.01, "{layer:?}");
    }
    // A percentile may only narrow ranges.
    let narrow =
        export::export(&folded, &support::samples(&spec), &Method::Percentile(99.).into(), Format::Qoperator, |_| ())
            .unwrap();
    assert!(narrow.report.layers.iter().zip(&export.report.layers).all(|(a, b)| a.scale <= b.scale * 1.001));
    assert!(narrow.report.layers.iter().zip(&export.report.layers).any(|(a, b)| a.scale < b.scale * 0.95));
}

#[test]
fn kernels_stand_once_and_the_second_modality_is_almost_free() {
    let spec = support::compact(16, 64, 64);
    let tensors = support::tensors(&spec, 3);
    let folded = Folded::new(&support::checkpoint(&spec, &tensors)).unwrap();
    let export = export(&folded, &support::samples(&spec), &Method::MinMax.into(), Format::Qoperator, |_| ()).unwrap();
    let weights: usize =
        tensors.iter().filter(|(name, _)| name.ends_with(".weight")).map(|(_, tensor)| tensor.1.len()).sum();
    let summary = Summary::new(Path::new("test"), &export.int8).unwrap();
    let stored = summary.tensors["weight"];
    // Names and shapes of a tensor take some 40 bytes.
    assert!((weights..weights + 60 * spec.net.layers.len()).contains(&stored), "{stored} bytes for {weights} weights");
    let sizes = export.report.sizes;
    assert_eq!((sizes.int8_bytes, sizes.f32_bytes), (export.int8.len(), export.float.len()));
    assert!(10 * sizes.int8_bytes <= 3 * sizes.f32_bytes, "{sizes:?}");
    assert!(sizes.second_modality_bytes > 0 && 100 * sizes.second_modality_bytes <= 3 * sizes.int8_bytes, "{sizes:?}");
}

#[test]
fn the_manifest_returns_from_the_file() {
    let spec = support::compact(4, 32, 32);
    let folded = Folded::new(&support::checkpoint(&spec, &support::tensors(&spec, 3))).unwrap();
    let samples = support::samples(&spec);
    let both = export(&folded, &samples, &Method::MinMax.into(), Format::Qoperator, |_| ()).unwrap();
    let summary = Summary::new(Path::new("test"), &both.int8).unwrap();
    assert_eq!((&summary.manifest.spec, summary.manifest.precision), (&spec, Precision::Int8));
    assert_eq!((summary.manifest.golden.len(), summary.manifest.provenance.seed), (2, 7));
    let golden = &summary.manifest.golden;
    assert_ne!(golden[0].logits_sha256, golden[1].logits_sha256);
    let float = Summary::new(Path::new("test"), &both.float).unwrap();
    assert_eq!((float.manifest.precision, float.manifest.golden.len()), (Precision::F32, 0));
    // One branch alone answers as it does beside the other.
    for modality in Modality::ALL {
        let single = export::export(
            &folded.specialise(modality).unwrap(),
            &samples,
            &Method::MinMax.into(),
            Format::Qoperator,
            |_| (),
        );
        let single = Summary::new(Path::new("test"), &single.unwrap().int8).unwrap();
        assert_eq!(single.manifest.golden, [golden[modality.index()].clone()]);
        assert_eq!(single.operations.get("Gather"), None);
    }
}

#[test]
fn what_int8_cannot_say_is_refused_by_name() {
    let refuse = |change: &dyn Fn(&mut Net)| {
        let mut net = support::mixed();
        change(&mut net);
        let spec = support::spec(net);
        let folded = Folded::new(&support::checkpoint(&spec, &support::tensors(&spec, 1))).unwrap();
        export(&folded, &support::samples(&spec), &Method::MinMax.into(), Format::Qoperator, |_| ())
            .err()
            .unwrap()
            .to_string()
    };
    let leaky = |net: &mut Net| match &mut net.layers[0].op {
        // A quarter of code 2 is a tie.
        Op::Conv(conv) => conv.activation = Activation::LeakyRelu(0.25),
        _ => unreachable!(),
    };
    let single = |net: &mut Net| match &mut net.layers[5].op {
        Op::Conv(conv) => conv.out_channels = 1,
        _ => unreachable!(),
    };
    let spread = |net: &mut Net| {
        let (kernel, stride) = ([1, 3, 3], [1, 2, 2]);
        let deconv = Deconv { out_channels: 1, kernel, stride, norm: true, activation: Activation::Relu };
        net.layers[6].op = Op::Deconv(deconv);
    };
    let leaky_sum = |net: &mut Net| net.layers[11].op = Op::Add { activation: Activation::LeakyRelu(0.2) };
    let image_sum = |net: &mut Net| {
        net.layers[0].op = Op::Add { activation: Activation::None };
        net.layers[0].inputs = vec![0, 0];
    };
    let mixed_join = |net: &mut Net| match &mut net.layers[5].op {
        Op::Conv(conv) => conv.activation = Activation::None,
        _ => unreachable!(),
    };
    for (message, words) in [
        (refuse(&leaky), ["'a'", "leaky ReLU"]),
        (refuse(&single), ["'d'", "one output channel"]),
        (refuse(&spread), ["'up'", "one output channel"]),
        (refuse(&leaky_sum), ["'sum'", "leaky ReLU"]),
        (refuse(&image_sum), ["'a'", "reads the image"]),
        (refuse(&mixed_join), ["join", "with and without ReLU"]),
    ] {
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
}

#[test]
fn checkpoints_that_cannot_be_right_are_refused_with_the_number() {
    let spec = support::compact(4, 32, 32);
    let tensors = support::tensors(&spec, 3);
    let gamma = names::norm("enc2a", Modality::Mr, NormParam::Gamma);
    let fold = |change: &dyn Fn(&mut support::Tensors)| {
        let mut tensors = tensors.clone();
        change(&mut tensors);
        Folded::new(&support::checkpoint(&spec, &tensors)).err()
    };
    assert!(fold(&|_| ()).is_none());
    for bad in [0., -0.5, f32::NAN] {
        let error = fold(&|tensors| tensors.get_mut(&gamma).unwrap().1[3] = bad);
        assert!(matches!(error, Some(ExportError::Value { index: 3, ref name, .. }) if *name == gamma), "{error:?}");
    }
    let missing = fold(&|tensors| drop(tensors.remove(&gamma)));
    assert!(matches!(missing, Some(ExportError::MissingTensor { ref name, .. }) if *name == gamma));
    let short = fold(&|tensors| drop(tensors.insert(gamma.clone(), (vec![2], vec![1., 1.]))));
    assert!(matches!(short, Some(ExportError::Tensor { ref found, .. }) if *found == [2]));
    // A gamma that has all but vanished leaves a bias that int32 cannot hold.
    let mut vanished = tensors.clone();
    vanished.get_mut(&gamma).unwrap().1[3] = 1e-12;
    let folded = Folded::new(&support::checkpoint(&spec, &vanished)).unwrap();
    let error =
        export(&folded, &support::samples(&spec), &Method::MinMax.into(), Format::Qoperator, |_| ()).err().unwrap();
    assert!(matches!(error, ExportError::Overflow { channel: 3, modality: Modality::Mr, .. }), "{error}");
}

/// Statistics that depend on the image are no numbers of a file.
#[test]
fn only_batch_norms_are_exported() {
    let mut spec = support::compact(4, 32, 32);
    spec.net.norm = NormKind::Instance;
    let tensors = support::tensors(&spec, 3);
    let error = Folded::new(&support::checkpoint(&spec, &tensors)).err().unwrap().to_string();
    assert!(error.contains("compact-4 has Instance norms") && error.contains("--norm batch"), "{error}");
}

#[test]
fn files_that_are_no_checkpoint_are_refused() {
    let spec = support::compact(4, 32, 32);
    let bytes = support::checkpoint_bytes(&spec, &support::tensors(&spec, 3));
    let parse =
        |bytes: &[u8]| export::Checkpoint::parse(Path::new("some.safetensors"), bytes).err().map(|e| e.to_string());
    assert_eq!(parse(&bytes), None);
    for length in [0, 7, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        let message = parse(&bytes[..length]).unwrap();
        assert!(message.contains("some.safetensors"), "{message}");
    }
    // The version stands in JSON inside the header's JSON.
    let version = br#"\"contract\":1"#;
    let at = bytes.windows(version.len()).position(|window| window == version).unwrap() + version.len() - 1;
    let mut newer = bytes.clone();
    newer[at] = b'9';
    assert!(parse(&newer).unwrap().contains("contract version 9"));
}

/// Scales are moved until requantisation is exact in every engine; that must work whatever the ranges are.
#[test]
fn any_ranges_can_be_quantised() {
    let spec = support::compact(16, 64, 64);
    let folded = Folded::new(&support::checkpoint(&spec, &support::tensors(&spec, 9))).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(10);
    for _ in 0..60 {
        let mut range = |_| {
            let max = 10f32.powf(rng.random_range(-1. ..2.));
            Range { min: -max * rng.random_range(0f32..1.), max }
        };
        let ranges: Vec<Vec<Range>> = (0..2).map(|_| (0..=spec.net.layers.len()).map(&mut range).collect()).collect();
        let quantised = Quantised::new(&folded, &ranges).unwrap();
        for (index, layer) in spec.net.layers.iter().enumerate() {
            let (Op::Conv(_), Some(conv)) = (&layer.op, &quantised.convs[index]) else { continue };
            let (x, y) = (quantised.group(layer.inputs[0]), quantised.group(index + 1));
            for (row, range) in ranges.iter().map(|branch| branch[index + 1]).enumerate() {
                let (x, y) = (x.scales[row], y.scales[row]);
                assert!(conv.scales[row].iter().all(|&w| agrees(x, w, y)));
                assert!(y >= range.max / 255. && conv.scales[row].iter().any(|&w| w != conv.scales[row][0]));
            }
        }
    }
}
