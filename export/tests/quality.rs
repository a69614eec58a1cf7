//! What makes int8 better must do so, and must leave alone what it says it does: bias correction, equalisation, `auto`.

mod support;

use contract::{
    Modality, ModelSpec, Net,
    manifest::Precision,
    names::{self, NormParam},
    net::{Activation, Op},
};
use export::{
    Calibration, ExportError, Folded, Recipe, accuracy,
    calibrate::{Method, Sample, observe},
    correct::correct,
    engine::{Runner, reals},
    equalise::{equalise, peaks},
    export, export_float, export_int8,
    factors::agrees,
    int8::Format,
    quantise::Quantised,
    report::Report,
    samples,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use volume::{DatasetWriter, Geometry, Split};

fn fold(spec: &ModelSpec, seed: u64) -> Folded {
    Folded::new(&support::checkpoint(spec, &support::tensors(spec, seed))).unwrap()
}

/// As a trainer may leave it: channels of one value that differ by a factor of up to 250; on the whole values neither grow nor
/// fade from layer to layer.
fn fold_uneven(spec: &ModelSpec, seed: u64) -> Folded {
    let mut tensors = support::tensors(spec, seed);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for (layer, shape) in spec.net.layers.iter().zip(&spec.net.shapes().unwrap()[1..]) {
        for channel in (0..shape.channels).filter(|_| layer.has_norm()) {
            let factor = 10f32.powf(rng.random_range(-2f32..0.4));
            for &modality in &spec.modalities {
                for param in [NormParam::Gamma, NormParam::Beta] {
                    tensors.get_mut(&names::norm(&layer.name, modality, param)).unwrap().1[channel] *= factor;
                }
            }
        }
    }
    Folded::new(&support::checkpoint(spec, &tensors)).unwrap()
}

fn report(folded: &Folded, samples: &[Sample], recipe: Recipe) -> Report {
    export(folded, samples, &recipe, Format::Qoperator, |_| ()).unwrap().report
}

#[test]
fn bias_correction_shrinks_the_mean_error_of_every_convolution() {
    let spec = support::compact(8, 64, 64);
    let (folded, samples) = (fold(&spec, 5), support::samples(&spec));
    let plain = Recipe::from(Method::Percentile(99.5));
    let before = report(&folded, &samples, plain);
    let after = report(&folded, &samples, Recipe { bias_correction: true, ..plain });
    assert!(after.bias_correction && !before.bias_correction);
    let convs = before.layers.iter().zip(&after.layers).filter(|(layer, _)| layer.kind == "conv");
    let (mut error_before, mut error_after) = (0., 0.);
    for (before, after) in convs {
        assert_eq!((before.scale, before.min, before.max), (after.scale, after.min, after.max), "{}", after.layer);
        assert!(after.channel_error < 0.25, "{after:?}");
        assert!(after.channel_error < before.channel_error, "{before:?}\n{after:?}");
        assert!(after.mean_error.abs() <= after.channel_error, "{after:?}");
        error_before += before.channel_error;
        error_after += after.channel_error;
    }
    assert!(error_after < 0.2 * error_before, "{error_after} after {error_before}");
}

/// Only biases move; and the bits of both branches are still those of the one rounding rule.
#[test]
fn bias_correction_and_equalisation_keep_every_guarantee() {
    for (net, seed) in [(support::mixed(), 3), (Net::compact(1, 5, 4, 32, 32), 4)] {
        let spec = support::spec(net);
        let samples = support::samples(&spec);
        let folded = fold_uneven(&spec, seed);
        let folded = equalise(&folded, &peaks(&folded, &export_float(&folded), &samples).unwrap());
        let float = export_float(&folded);
        let ranges = observe(&folded, &float, &samples).unwrap().ranges(Method::Mse);
        let plain = Quantised::new(&folded, &ranges).unwrap();
        let mut quantised = Quantised::new(&folded, &ranges).unwrap();
        correct(&folded, &float, &mut quantised, &samples).unwrap();
        let mut moved = 0;
        for (index, layer) in spec.net.layers.iter().enumerate() {
            let (Some(before), Some(after)) = (&plain.convs[index], &quantised.convs[index]) else { continue };
            assert_eq!((&before.weights, &before.scales), (&after.weights, &after.scales), "{}", layer.name);
            moved += before.biases.iter().flatten().zip(after.biases.iter().flatten()).filter(|(a, b)| a != b).count();
            let (x, y) = (quantised.group(layer.inputs[0]), quantised.group(index + 1));
            for (row, scales) in after.scales.iter().enumerate() {
                assert!(scales.iter().all(|&w| agrees(x.scales[row], w, y.scales[row])), "{}", layer.name);
            }
        }
        assert!(moved > 50, "{moved} biases moved");
        let model = export_int8(&folded, &quantised, Format::Qoperator).unwrap();
        for sample in &samples {
            let expected = support::int8(&spec, &quantised, sample.modality.index(), &sample.codes);
            let found = Runner::new(&model, sample.modality, &["logits"]).unwrap().run_i8(&sample.codes).unwrap();
            assert_eq!(&found[0], expected.last().unwrap(), "{} {}", spec.net.name, sample.modality);
        }
    }
}

/// The paper's network, whose norms stand alone: their tables have been moved off ties and must stay so.
#[test]
fn bias_correction_leaves_norm_tables_alone() {
    let spec = support::spec(Net::dilated2d(5, 2, 32, 32));
    let (folded, samples) = (fold(&spec, 6), support::samples(&spec));
    let float = export_float(&folded);
    let ranges = observe(&folded, &float, &samples).unwrap().ranges(Method::MinMax);
    let plain = Quantised::new(&folded, &ranges).unwrap();
    let mut quantised = Quantised::new(&folded, &ranges).unwrap();
    correct(&folded, &float, &mut quantised, &samples).unwrap();
    assert!(plain.norms.iter().any(|norm| !norm.is_empty()));
    assert_eq!(plain.norms, quantised.norms);
    assert_eq!(plain.groups, quantised.groups);
}

#[test]
fn a_bias_that_could_overflow_is_refused() {
    let spec = support::compact(4, 32, 32);
    let (folded, samples) = (fold(&spec, 7), support::samples(&spec));
    let ranges = observe(&folded, &export_float(&folded), &samples).unwrap().ranges(Method::MinMax);
    let quantised = Quantised::new(&folded, &ranges).unwrap();
    let conv = quantised.convs[1].as_ref().unwrap();
    let scales = [quantised.group(1).scales[1], quantised.group(2).scales[1]];
    let mut biases: Vec<f64> = conv.biases[1].iter().map(|&bias| bias.into()).collect();
    assert_eq!(conv.settle_biases(&folded, 1, 1, scales, &biases).unwrap(), conv.biases[1]);
    biases[2] = 1.1e9;
    let error = conv.settle_biases(&folded, 1, 1, scales, &biases).err().unwrap();
    assert!(matches!(error, ExportError::Overflow { channel: 2, modality: Modality::Mr, .. }), "{error}");
}

/// Ratio of the largest to the smallest peak of a value's channels that are alive, each the larger of both modalities'.
fn spread(peaks: &[Vec<Vec<f32>>], value: usize) -> f32 {
    let largest = |branch: &Vec<Vec<f32>>| branch[value].iter().copied().fold(0., f32::max);
    let joined =
        |channel: usize| peaks.iter().map(|branch| branch[value][channel] / largest(branch)).fold(0., f32::max);
    let alive: Vec<f32> = (0..peaks[0][value].len()).map(joined).filter(|peak| *peak > 0.).collect();
    alive.iter().copied().fold(0., f32::max) / alive.iter().copied().fold(f32::INFINITY, f32::min)
}

#[test]
fn equalisation_changes_ranges_and_not_the_function() {
    let mut leaky = support::mixed();
    let Op::Conv(first) = &mut leaky.layers[0].op else { unreachable!() };
    first.activation = Activation::LeakyRelu(0.2);
    let nets = [Net::compact(1, 5, 8, 32, 48), support::mixed(), leaky, Net::compact_dilated(1, 5, 4, 32, 32)];
    for (net, seed) in nets.into_iter().zip(31..) {
        let spec = support::spec(net);
        let samples = support::samples(&spec);
        let folded = fold_uneven(&spec, seed);
        let float = export_float(&folded);
        let before = peaks(&folded, &float, &samples).unwrap();
        let equal = equalise(&folded, &before);
        let equal_float = export_float(&equal);
        let after = peaks(&equal, &equal_float, &samples).unwrap();
        for sample in &samples {
            let image = reals(&sample.codes, spec.intensity.scale);
            let logits =
                |model| Runner::new(model, sample.modality, &["logits"]).unwrap().run_f32(&image).unwrap().remove(0);
            let (found, expected) = (logits(&equal_float), logits(&float));
            let size = expected.iter().fold(0f32, |max, value| max.max(value.abs()));
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() <= 2e-5 * size, "{}: {found} against {expected}", spec.net.name);
            }
        }
        let sums: Vec<usize> = spec
            .net
            .layers
            .iter()
            .filter(|layer| matches!(layer.op, Op::Add { .. }))
            .flat_map(|layer| layer.inputs.clone())
            .collect();
        for (index, layer) in spec.net.layers.iter().enumerate() {
            let (Op::Conv(conv), value) = (&layer.op, index + 1) else { continue };
            let (was, is) = (spread(&before, value), spread(&after, value));
            if sums.contains(&value) || value == spec.net.layers.len() {
                assert!((is / was - 1.).abs() < 1e-4, "{}: {was} became {is}", layer.name);
            } else if conv.norm && !reads_into_a_sum(&spec, value) {
                assert!(is < 0.7 * was, "{} {}: a spread of {was} became {is}", spec.net.name, layer.name);
            }
        }
    }
}

/// Whether pools and the like hand a value on to a sum.
fn reads_into_a_sum(spec: &ModelSpec, value: usize) -> bool {
    let layers = spec.net.layers.iter().enumerate().filter(|(_, layer)| layer.inputs.contains(&value));
    layers.into_iter().any(|(index, layer)| match layer.op {
        Op::Add { .. } => true,
        Op::Conv(_) => false,
        _ => reads_into_a_sum(spec, index + 1),
    })
}

/// A network whose first convolutions of each level have channels of very different ranges, and second ones weights that make
/// up for it.
fn fold_lopsided(spec: &ModelSpec, seed: u64) -> Folded {
    let mut tensors = support::tensors(spec, seed);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for level in ["enc1", "enc2", "enc3", "enc4", "enc5", "dec4", "dec3", "dec2", "dec1"] {
        let (shape, weights) = tensors.get_mut(&names::weight(&format!("{level}b"))).unwrap();
        let (inputs, taps) = (shape[1], shape[2] * shape[3]);
        let factors: Vec<f32> = (0..inputs).map(|_| 10f32.powf(rng.random_range(-1f32..1.))).collect();
        weights.iter_mut().enumerate().for_each(|(index, weight)| *weight /= factors[index / taps % inputs]);
        for (modality, param) in Modality::ALL.into_iter().flat_map(|m| [(m, NormParam::Gamma), (m, NormParam::Beta)]) {
            let values = &mut tensors.get_mut(&names::norm(&format!("{level}a"), modality, param)).unwrap().1;
            values.iter_mut().zip(&factors).for_each(|(value, factor)| *value *= factor);
        }
    }
    Folded::new(&support::checkpoint(spec, &tensors)).unwrap()
}

#[test]
fn equalisation_helps_uneven_channels() {
    let spec = support::compact(8, 64, 64);
    let (folded, samples) = (fold_lopsided(&spec, 8), support::samples(&spec));
    let plain = Recipe::from(Method::MinMax);
    let before = report(&folded, &samples, plain);
    let after = report(&folded, &samples, Recipe { equalise: true, ..plain });
    let logits = |report: &Report| -> Vec<f32> {
        report.layers.iter().filter(|layer| layer.layer == "head").map(|layer| layer.sqnr_db).collect()
    };
    for (before, after) in logits(&before).iter().zip(logits(&after)) {
        assert!(after > before + 3., "{after} dB after {before} dB");
    }
    // The f32 file is the reference: it is what was trained, whatever was done for int8.
    let file = |recipe| export(&folded, &samples, &recipe, Format::Qoperator, |_| ()).unwrap().float;
    assert!(file(plain) == file(Recipe { equalise: true, ..plain }));
}

/// The candidate whose label maps, made here step by step, agree best with f32's; labels have no say.
#[test]
fn auto_chooses_the_candidate_whose_label_maps_are_nearest_to_f32() {
    let spec = support::compact(6, 48, 48);
    let mut winners = vec![];
    for seed in 12..18 {
        let (folded, mut samples) = (fold(&spec, seed), support::samples(&spec));
        let float = accuracy::segment(&spec, &export_float(&folded), Precision::F32, &samples).unwrap();
        let scores: Vec<f64> = Calibration::CANDIDATES
            .iter()
            .map(|&method| {
                let maps = label_maps(&folded, &samples, method);
                let branch = |modality: &Modality| {
                    let own = (0..samples.len()).filter(|&index| samples[index].modality == *modality);
                    let pairs = own.map(|index| (&maps[index][..], &float[index][..]));
                    let dices: Vec<f64> = accuracy::organs(&spec, pairs).into_iter().flatten().collect();
                    dices.iter().sum::<f64>() / dices.len() as f64
                };
                spec.modalities.iter().map(branch).sum::<f64>() / spec.modalities.len() as f64
            })
            .collect();
        let best = (0..scores.len()).rev().max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap();
        // Labels that only the last candidate has right.
        let last = label_maps(&folded, &samples, Calibration::CANDIDATES[3]);
        for (sample, labels) in samples.iter_mut().zip(last) {
            sample.labels = Some(labels);
        }
        let found = report(&folded, &samples, Recipe { calibration: Calibration::Auto, ..Method::MinMax.into() });
        assert_eq!(found.calibration, Calibration::CANDIDATES[best].to_string(), "{scores:?}");
        let chosen: Vec<&str> = found.candidates.iter().filter(|c| c.chosen).map(|c| c.calibration.as_str()).collect();
        assert_eq!((found.candidates.len(), chosen), (4, vec![found.calibration.as_str()]));
        assert!(found.accuracy.iter().all(|branch| (branch.slices, branch.labelled) == (2, 2)));
        winners.push(best);
    }
    winners.dedup();
    assert!(winners.len() > 2, "winners must differ for this to prove anything: {winners:?}");
}

fn label_maps(folded: &Folded, samples: &[Sample], method: Method) -> Vec<Vec<u8>> {
    let ranges = observe(folded, &export_float(folded), samples).unwrap().ranges(method);
    let model = export_int8(folded, &Quantised::new(folded, &ranges).unwrap(), Format::Qoperator).unwrap();
    let map =
        |sample: &Sample| Runner::new(&model, sample.modality, &["labels"]).unwrap().run_labels(&sample.codes).unwrap();
    samples.iter().map(map).collect()
}

#[test]
fn without_labels_the_report_says_so() {
    let spec = support::compact(6, 48, 48);
    let (folded, samples) = (fold(&spec, 13), support::samples(&spec));
    let recipe = Recipe { calibration: Calibration::Auto, ..Recipe::from(Method::MinMax) };
    let found = report(&folded, &samples, recipe);
    let chosen = found.candidates.iter().find(|candidate| candidate.chosen).unwrap();
    for (branch, score) in found.accuracy.iter().zip(&chosen.scores) {
        assert_eq!(branch.labelled, 0);
        assert!(branch.agreement > 0.9 && branch.agreement < 1., "{branch:?}");
        assert!(branch.organs.iter().all(|organ| organ.f32_labels.is_none() && organ.int8_labels.is_none()));
        let dices: Vec<f64> = branch.organs.iter().filter_map(|organ| organ.int8_f32).collect();
        assert!((dices.iter().sum::<f64>() / dices.len() as f64 - score.mean).abs() < 1e-12);
        assert_eq!(dices.iter().copied().fold(f64::INFINITY, f64::min), score.worst);
    }
    assert!(report(&folded, &samples, Recipe::from(Method::Mse)).candidates.is_empty());
}

/// Slice z is all of class z; and each sample has the labels of its own slice.
#[test]
fn samples_bring_their_labels() {
    let spec = support::compact(4, 32, 48);
    let folder = tempfile::tempdir().unwrap();
    let geometry = Geometry::new([48, 32, 5], [[3., 0., 0., 0.], [0., 3., 0., 0.], [0., 0., 5., 0.]]).unwrap();
    let mut writer = DatasetWriter::create(folder.path(), Modality::Ct, &spec.labels).unwrap();
    let raw: Vec<i16> = (0..48 * 32 * 5).map(|i| (i * 7919 % 1009) as i16 - 500).collect();
    let labels: Vec<u8> = (0..48 * 32 * 5).map(|i| (i / (48 * 32)) as u8).collect();
    writer.add(Split::Train, "one", &geometry, &raw, &labels).unwrap();
    writer.finish().unwrap();
    let found = samples::read(folder.path(), Modality::Ct, &spec, 5).unwrap();
    let labels: Vec<&[u8]> = found.iter().map(|sample| sample.labels.as_deref().unwrap()).collect();
    assert_eq!(labels, (0..5).map(|class| vec![class; 32 * 48]).collect::<Vec<_>>());
}
