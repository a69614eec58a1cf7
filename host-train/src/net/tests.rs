//! Counts, sharing and the operations that libtorch does not have under their own name.

use std::sync::PoisonError;

use contract::net::{Activation, Conv, Deconv, Padding};

use super::*;
use crate::trainer::GENERATOR;

const CPU: Device = Device::Cpu;

fn network(net: &Net, norms: Norms) -> Network {
    Network::new(net, &Modality::ALL, norms, 3, CPU).unwrap()
}

fn noise(size: &[i64]) -> Tensor {
    let count: i64 = size.iter().product();
    // Any values without a pattern will do, and libtorch's generator belongs to the trainings of other tests.
    let values: Vec<f32> = (0..count).map(|i| ((i * 7919 % 1009) as f32 / 504.5 - 1.) * 1.5).collect();
    Tensor::from_slice(&values).view(size)
}

/// The start of the paper's 2D network: pre-activation blocks without the millions of weights that follow.
fn start_of_dilated2d() -> Net {
    let mut net = Net::dilated2d(5, 16, 32, 32);
    net.layers.truncate(20);
    net
}

fn elements(variables: &[Variable<'_>], roles: &[Role]) -> usize {
    variables.iter().filter(|variable| roles.contains(&variable.role)).map(|variable| variable.tensor.numel()).sum()
}

#[test]
fn built_networks_have_the_counts_and_shapes_of_the_contract() {
    let compact = Net::compact(1, 5, 4, 32, 48);
    let unet3d = Net::unet3d(5, 16, 8, 16, 32);
    let built = [
        (compact.clone(), Norms::Shared, 1),
        (compact, Norms::PerModality, 2),
        (Net::compact_dilated(1, 5, 4, 32, 48), Norms::PerModality, 2),
        (Net::compact3d(5, 2, 8, 16, 32), Norms::PerModality, 2),
        (Net::dilated2d(5, 16, 32, 32), Norms::PerModality, 2),
        (unet3d, Norms::PerModality, 2),
    ];
    for (net, norms, sets) in built {
        let (counts, network) = (net.counts().unwrap(), network(&net, norms));
        let variables = network.variables();
        assert_eq!(elements(&variables, &[Role::Kernel, Role::Bias]), counts.shared, "{}", net.name);
        assert_eq!(elements(&variables, &[Role::Gamma, Role::Beta]), sets * counts.norm_per_modality);
        let running: usize = network.running().iter().map(|(_, tensor)| tensor.numel()).sum();
        assert_eq!(running, sets * counts.norm_per_modality);
        let file: usize = network.tensors().iter().map(|(_, tensor)| tensor.numel()).sum();
        assert_eq!(file, counts.shared + 4 * counts.norm_per_modality, "a file always has both modalities");

        let sizes = |channels: usize| [vec![2, channels as i64], axes(net.spatial, net.input.size)].concat();
        let image = noise(&sizes(net.input.channels));
        // Dropout draws from the generator that the trainers of other tests have seeded.
        let alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(network.forward(&image, Modality::Ct, true).size(), sizes(5), "{}", net.name);
        drop(alone);
        let labels = network.labels(&image, Modality::Mr);
        assert_eq!(labels.size()[1..], axes(net.spatial, net.input.size));
        assert!(labels.max().int64_value(&[]) < 5);
    }
}

/// A fresh norm is the identity on normalised values: gamma is 1 whichever way it is parametrised.
#[test]
fn gammas_start_at_one_and_stay_positive_behind_convolutions() {
    for net in [Net::compact(1, 5, 4, 32, 48), start_of_dilated2d(), Net::unet3d(5, 16, 8, 16, 32)] {
        let network = network(&net, Norms::PerModality);
        for (name, tensor) in network.tensors().iter().filter(|(name, _)| name.ends_with(".gamma")) {
            assert!(tensor.allclose(&tensor.ones_like(), 1e-6, 0., false), "{name}");
        }
        for Variable { tensor, role, .. } in network.variables() {
            if role == Role::Gamma {
                let _ = no_grad(|| tensor.shallow_clone().fill_(-7.));
            }
        }
        let folded: Vec<&str> =
            network.net.layers.iter().filter(|layer| folds(layer)).map(|layer| layer.name.as_str()).collect();
        for (name, tensor) in network.tensors().iter().filter(|(name, _)| name.ends_with(".gamma")) {
            let folds = folded.iter().any(|layer| name.starts_with(&format!("{layer}.norm")));
            assert_eq!(tensor.min().double_value(&[]) > 0., folds, "{name}");
        }
    }
}

fn statistics(network: &Network, modality: Modality) -> Vec<(String, Tensor)> {
    let of = format!(".norm.{modality}.");
    let tensors = network.tensors().into_iter();
    tensors
        .filter(|(name, _)| name.contains(&of) && (name.ends_with("mean") || name.ends_with("var")))
        .map(|(name, tensor)| (name, tensor.copy()))
        .collect()
}

/// CT batches move CT's statistics and, with norms of its own, none of MR's.
#[test]
fn a_forward_pass_of_ct_leaves_the_statistics_of_mr_alone() {
    let net = Net::compact(1, 5, 4, 32, 32);
    for (norms, moves) in [(Norms::PerModality, false), (Norms::Shared, true)] {
        let network = network(&net, norms);
        let before = Modality::ALL.map(|modality| statistics(&network, modality));
        let _ = network.forward(&noise(&[2, 1, 32, 32]), Modality::Ct, true);
        let after = Modality::ALL.map(|modality| statistics(&network, modality));
        for (index, expected) in [true, moves].into_iter().enumerate() {
            for ((name, a), (_, b)) in before[index].iter().zip(&after[index]) {
                assert_eq!(!a.equal(b), expected, "{norms:?} {name}");
            }
        }
        let _ = network.forward(&noise(&[2, 1, 32, 32]), Modality::Ct, false);
        let still = statistics(&network, Modality::Ct);
        assert!(after[0].iter().zip(&still).all(|((_, a), (_, b))| a.equal(b)), "inference moves nothing");
    }
}

/// CT and MR see the same kernels; gradients of both add up in them, while each norm hears of its own modality only.
#[test]
fn gradients_meet_in_the_kernels_and_part_in_the_norms() {
    for norms in [Norms::PerModality, Norms::Shared] {
        let network = network(&Net::compact(1, 5, 4, 32, 32), norms);
        network.forward(&noise(&[2, 1, 32, 32]), Modality::Mr, true).square().mean(Kind::Float).backward();
        for Variable { name, role, tensor } in network.variables() {
            let reached = tensor.grad().defined();
            let of_ct = name.contains(".norm.ct.");
            let expected = role == Role::Kernel || role == Role::Bias || norms == Norms::Shared || !of_ct;
            assert_eq!(reached, expected, "{norms:?} {name}");
        }
    }
}

#[test]
fn fresh_weights_have_the_spread_they_should() {
    let spread = |net: &Net, layer: &str| {
        let network = network(net, Norms::Shared);
        let name = names::weight(layer);
        let (_, weight) = network.tensors().into_iter().find(|(found, _)| *found == name).unwrap();
        let [std, top] = [weight.std(false), weight.abs().max()].map(|value| value.double_value(&[]));
        (std, top, weight.numel() as f64)
    };
    // The standard error of a standard deviation is 1 / sqrt(2 n); five of them.
    let (std, _, n) = spread(&Net::compact(1, 5, 16, 32, 32), "enc4b");
    assert!((std / (2f64 / (9. * 64.)).sqrt() - 1.).abs() < 5. / (2. * n).sqrt(), "{std}");
    // A normal cut at two sigma has 0.8796 of its standard deviation.
    let (std, top, n) = spread(&start_of_dilated2d(), "g3.rb1.b");
    assert!((std / 0.008_796 - 1.).abs() < 5. / (2. * n).sqrt() && top <= 0.02, "{std} {top}");
    let (std, top, n) = spread(&Net::unet3d(5, 16, 8, 16, 16), "deconv2");
    assert!((std / 0.01 - 1.).abs() < 5. / (2. * n).sqrt() && top > 0.03, "{std} {top}");
}

/// One layer on an image, its weights set to `weights`.
fn apply(op: Op, image: &Tensor, weights: &[f32]) -> Tensor {
    let size = image.size();
    let spatial = if size.len() == 4 { Spatial::D2 } else { Spatial::D3 };
    let mut sides = [1; 3];
    for (side, &length) in sides.iter_mut().rev().zip(size[2..].iter().rev()) {
        *side = length as usize;
    }
    let input = Shape { channels: size[1] as usize, size: sides };
    let net = Net {
        name: "one".into(),
        spatial,
        norm: NormKind::Batch,
        input,
        layers: vec![Layer { name: "a".into(), inputs: vec![0; if matches!(op, Op::Add { .. }) { 2 } else { 1 }], op }],
    };
    let network = network(&net, Norms::PerModality);
    if let Some(weight) = &network.parts[0].weight {
        let values = Tensor::from_slice(weights).view(&weight.size()[..]);
        no_grad(|| weight.shallow_clone().copy_(&values));
    }
    network.forward(image, Modality::Ct, false)
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.detach().contiguous().flatten(0, -1)).unwrap()
}

/// Transposed convolution by its definition, cropped to the first samples: kernel 3 and kernel 1, stride 2.
#[test]
fn transposed_convolutions_keep_their_first_samples() {
    for (depth_kernel, depth) in [(1, 2), (3, 2)] {
        let kernel = [depth_kernel, 3, 3];
        let deconv = Deconv { out_channels: 1, kernel, stride: [2; 3], norm: false, activation: Activation::None };
        let image = noise(&[1, 1, depth, 3, 4]);
        let weights: Vec<f32> = (0..9 * depth_kernel).map(|i| i as f32 - 3.5).collect();
        let found = values(&apply(Op::Deconv(deconv), &image, &weights));
        let (x, mut expected) = (values(&image), vec![0f32; 4 * 6 * 8]);
        for (i, &x) in x.iter().enumerate() {
            let (z, row, column) = (i / 12, i / 4 % 3, i % 4);
            for (tap, &weight) in weights.iter().enumerate() {
                let at = [2 * z + tap / 9, 2 * row + tap / 3 % 3, 2 * column + tap % 3];
                if at[0] < 4 && at[1] < 6 && at[2] < 8 {
                    expected[(at[0] * 6 + at[1]) * 8 + at[2]] += x * weight;
                }
            }
        }
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?} {expected:?}");
    }
}

/// `x1 x0 | x0 x1 x2 | x2 x1`, in both axes, seen through the corner tap of a 5x5 kernel.
#[test]
fn symmetric_padding_repeats_the_edge() {
    let conv = Conv { padding: Padding::Symmetric, norm: false, activation: Activation::None, ..Conv::plane(1, 5) };
    let image = noise(&[1, 1, 3, 4]);
    for corner in [0, 4, 20, 24] {
        let mut weights = [0.; 25];
        weights[corner] = 1.;
        let found = values(&apply(Op::Conv(conv.clone()), &image, &weights));
        let mirrored = |at: i64, n: i64| if at < 0 { -1 - at } else { at.min(2 * n - 1 - at) };
        for (i, found) in (0..).zip(found) {
            let (row, column) = (i / 4 + corner as i64 / 5 - 2, i % 4 + corner as i64 % 5 - 2);
            let expected = image.double_value(&[0, 0, mirrored(row, 3), mirrored(column, 4)]);
            assert_eq!(f64::from(found), expected);
        }
    }
}

/// Half-pixel centres, ends repeated: a quarter from one neighbour where rows double, a third where columns triple.
#[test]
fn linear_up_sampling_weighs_neighbours() {
    let image = noise(&[1, 2, 2, 3]);
    let found = apply(Op::Interpolate { factor: [1, 2, 3] }, &image, &[]);
    assert_eq!(found.size(), [1, 2, 4, 9]);
    let split = |at: i64, factor: i64, n: i64| {
        let position = (at as f64 + 0.5) / factor as f64 - 0.5;
        let below = position.floor();
        let end = |end: f64| (end as i64).clamp(0, n - 1);
        [(end(below), 1. - position + below), (end(below + 1.), position - below)]
    };
    for (channel, row, column) in (0..72).map(|i| (i / 36, i / 9 % 4, i % 9)) {
        let mut expected = 0.;
        for (y, row_share) in split(row, 2, 2) {
            for (x, column_share) in split(column, 3, 3) {
                expected += row_share * column_share * image.double_value(&[0, channel, y, x]);
            }
        }
        let apart = (found.double_value(&[0, channel, row, column]) - expected).abs();
        assert!(apart < 1e-5, "{channel} {row} {column}: {apart}");
    }
}

#[test]
fn small_operations_move_values_where_they_should() {
    let image = noise(&[1, 4, 2, 2]);
    let x = |channel: i64, row: i64, column: i64| image.double_value(&[0, channel, row, column]);
    let shuffled = apply(Op::PixelShuffle { factor: 2 }, &image, &[]);
    let padded = apply(Op::PadChannels { front: 2, back: 1 }, &image, &[]);
    let upsampled = apply(Op::Upsample { factor: [1, 3, 2] }, &image, &[]);
    let pooled = apply(Op::MaxPool { size: [1, 2, 1] }, &image, &[]);
    let leaky = apply(Op::Norm { activation: Activation::LeakyRelu(0.2) }, &image, &[]);
    let doubled = apply(Op::Add { activation: Activation::None }, &image, &[]);
    let rectified = apply(Op::Add { activation: Activation::Relu }, &image, &[]);
    assert_eq!(padded.size(), [1, 7, 2, 2]);
    assert_eq!(values(&padded.narrow(1, 1, 1)), [0.; 4]);
    assert_eq!(values(&padded.narrow(1, 6, 1)), [0.; 4]);
    for row in 0..2 {
        for column in 0..2 {
            assert_eq!(shuffled.double_value(&[0, 0, row, column]), x(2 * row + column, 0, 0));
            assert_eq!(shuffled.double_value(&[0, 0, 2 + row, 2 + column]), x(2 * row + column, 1, 1));
            for channel in 0..4 {
                let value = x(channel, row, column);
                assert_eq!(padded.double_value(&[0, channel + 2, row, column]), value);
                assert_eq!(upsampled.double_value(&[0, channel, 3 * row + 2, 2 * column + 1]), value);
                assert_eq!(doubled.double_value(&[0, channel, row, column]), 2. * value);
                assert_eq!(rectified.double_value(&[0, channel, row, column]), (2. * value).max(0.));
                assert_eq!(
                    pooled.double_value(&[0, channel, 0, column]),
                    x(channel, 0, column).max(x(channel, 1, column))
                );
                // A fresh norm divides by sqrt(1 + epsilon).
                let normal = value / f64::from(1. + contract::net::NORM_EPSILON).sqrt();
                let expected = if normal > 0. { normal } else { 0.2 * normal };
                assert!((leaky.double_value(&[0, channel, row, column]) - expected).abs() < 1e-6);
            }
        }
    }
}

/// Depth goes through the batch and comes back.
#[test]
fn pixel_shuffle_in_3d_works_slice_by_slice() {
    let image = noise(&[2, 8, 3, 2, 2]);
    let found = apply(Op::PixelShuffle { factor: 2 }, &image, &[]);
    for slice in 0..3 {
        let plane = image.select(2, slice).pixel_shuffle(2);
        assert!(found.select(2, slice).equal(&plane));
    }
}

#[test]
#[should_panic(expected = "knows [Ct], not mr")]
fn a_modality_without_norms_is_no_default() {
    let network = Network::new(&Net::compact(1, 5, 2, 32, 32), &[Modality::Ct], Norms::PerModality, 0, CPU).unwrap();
    let _ = network.forward(&noise(&[2, 1, 32, 32]), Modality::Mr, false);
}
