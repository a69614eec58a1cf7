//! Kinds of norms, shared tensors and the quirks that change a network.

use contract::net::{Activation, Conv, NormKind};

use super::*;
use crate::{quirk::Quirk, topology::Topology};

const CPU: Device = Device::Cpu;

fn noise(size: &[i64]) -> Tensor {
    let count: i64 = size.iter().product();
    let values: Vec<f32> = (0..count).map(|i| ((i * 7919 % 1009) as f32 / 504.5 - 1.) * 1.5).collect();
    Tensor::from_slice(&values).view(size)
}

fn one(norm: NormKind, input: Shape, layers: Vec<Op>) -> Net {
    let layer = |(index, op)| Layer { name: format!("l{index}"), inputs: vec![index], op };
    let layers = layers.into_iter().enumerate().map(layer).collect();
    Net { name: "made".into(), spatial: Spatial::D2, norm, input, layers }
}

fn set(tensor: &Tensor, values: &Tensor) {
    no_grad(|| tensor.shallow_clone().copy_(values));
}

/// `gamma * (x - mean) / sqrt(var + epsilon) + beta`, mean and variance over all values that `together` finds alike.
fn naive(x: &Tensor, together: impl Fn(i64, i64) -> i64, gamma: &Tensor, beta: &Tensor) -> Tensor {
    let [n, c, h, w] = x.size()[..] else { panic!("four axes") };
    let at = |i: i64| x.double_value(&[i / (c * h * w), i / (h * w) % c, i / w % h, i % w]);
    let group = |i: i64| together(i / (c * h * w), i / (h * w) % c);
    let values: Vec<f32> = (0..n * c * h * w)
        .map(|i| {
            let alike: Vec<f64> = (0..n * c * h * w).filter(|&j| group(j) == group(i)).map(at).collect();
            let mean = alike.iter().sum::<f64>() / alike.len() as f64;
            let var = alike.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / alike.len() as f64;
            let channel = [i / (h * w) % c];
            let normal = (at(i) - mean) / (var + f64::from(contract::net::NORM_EPSILON)).sqrt();
            (gamma.double_value(&channel) * normal + beta.double_value(&channel)) as f32
        })
        .collect();
    Tensor::from_slice(&values).view([n, c, h, w])
}

#[test]
fn every_norm_takes_its_statistics_over_what_it_says() {
    type Together = fn(i64, i64) -> i64;
    let kinds: [(NormKind, Together); 5] = [
        (NormKind::Batch, |_, channel| channel),
        (NormKind::Instance, |image, channel| 6 * image + channel),
        (NormKind::Group(2), |image, channel| 2 * image + channel / 3),
        (NormKind::Group(6), |image, channel| 6 * image + channel),
        (NormKind::Layer, |image, _| image),
    ];
    let image = noise(&[2, 6, 3, 4]);
    for (kind, together) in kinds {
        let net = one(kind, Shape::plane(6, 3, 4), vec![Op::Norm { activation: Activation::None }]);
        let network = Network::new(&net, &Modality::ALL, Norms::PerModality, 0, CPU).unwrap();
        let norm = &network.parts[0].norms[1];
        let (gamma, beta) = (noise(&[6]), noise(&[6]) * -2);
        set(norm.gamma.variable(), &gamma);
        set(&norm.beta, &beta);
        let expected = naive(&image, together, &gamma, &beta);
        let found = network.forward(&image, Modality::Mr, true);
        assert!(found.allclose(&expected, 1e-4, 1e-5, false), "{kind:?}");
        // Outside training, only batch norms look at anything but the image.
        let alone = network.forward(&image.narrow(0, 1, 1), Modality::Mr, false);
        assert_eq!(alone.allclose(&expected.narrow(0, 1, 1), 1e-4, 1e-5, false), !kind.is_batch(), "{kind:?}");
    }
}

/// Norms without moving averages have none to save, and a file without them gives the same network.
#[test]
fn only_batch_norms_keep_moving_averages() {
    for kind in [NormKind::Instance, NormKind::Group(2), NormKind::Layer] {
        let net = Net { norm: kind, ..Net::compact(1, 5, 2, 32, 32) };
        let network = Network::new(&net, &Modality::ALL, Norms::PerModality, 4, CPU).unwrap();
        assert!(network.running().is_empty());
        let tensors = network.tensors();
        assert!(tensors.iter().all(|(name, _)| !name.ends_with(".mean") && !name.ends_with(".var")));
        let mut taken = 0;
        let again = Network::from_tensors(&net, &Modality::ALL, CPU, |name, _| -> Result<Tensor, NetError> {
            taken += 1;
            Ok(tensors.iter().find(|(found, _)| found == name).unwrap().1.copy())
        });
        assert_eq!(taken, tensors.len());
        let image = noise(&[1, 1, 32, 32]);
        let [a, b] = [&network, &again.unwrap()].map(|network| network.forward(&image, Modality::Ct, false));
        assert!(a.equal(&b), "{kind:?}");
    }
}

/// The released code's order, `out[i * r + p, j * r + q] = in[i, j, q * r + p]`, from the channels as they were drawn.
#[test]
fn a_transposed_phase_shift_fills_blocks_column_by_column() {
    let conv = Op::Conv(Conv { bias: true, ..Conv::plane(18, 3) });
    let input = Shape::plane(2, 3, 4);
    let net = one(NormKind::Batch, input, vec![conv, Op::PixelShuffle { factor: 3 }]);
    let make = || Network::new(&net, &[Modality::Ct], Norms::PerModality, 3, CPU).unwrap();
    let (drawn, mut transposed) = (make(), make());
    let Parts { bias: Some(bias), .. } = &drawn.parts[0] else { panic!("a bias") };
    set(bias, &noise(&[18]));
    let Parts { bias: Some(same), .. } = &transposed.parts[0] else { panic!("a bias") };
    set(same, &noise(&[18]));
    Quirk::TransposedPhaseShift.prepare(std::slice::from_mut(&mut transposed));
    let image = noise(&[1, 2, 3, 4]);
    let found = transposed.forward(&image, Modality::Ct, false);
    let mut before = drawn;
    before.net.layers.truncate(1);
    let channels = before.forward(&image, Modality::Ct, false);
    for i in 0..2 * 9 * 12 {
        let (block, row, column) = (i / 108, i / 12 % 9, i % 12);
        let channel = block * 9 + column % 3 * 3 + row % 3;
        let expected = channels.double_value(&[0, channel, row / 3, column / 3]);
        assert_eq!(found.double_value(&[0, block, row, column]), expected, "{block} {row} {column}");
    }
}

#[test]
fn joint_decay_forgets_half_at_every_step() {
    let net = one(NormKind::Batch, Shape::plane(2, 3, 4), vec![Op::Norm { activation: Activation::None }]);
    let mut networks = [Network::new(&net, &Modality::ALL, Norms::Shared, 0, CPU).unwrap()];
    Quirk::JointDecay.prepare(&mut networks);
    let image = noise(&[2, 2, 3, 4]);
    let _ = networks[0].forward(&image, Modality::Ct, true);
    let mean = image.mean_dim([0, 2, 3].as_slice(), false, Kind::Float);
    assert!(networks[0].running()[0].1.allclose(&(mean * 0.5), 1e-5, 1e-6, false));
}

/// What two networks have in common, both train and both see; a batch of CT moves no averages of MR's own.
#[test]
fn networks_beside_each_other_share_tensors_not_copies() {
    let net = Net::compact(1, 5, 2, 32, 32);
    let stages = net.stages().unwrap();
    for (topology, norms) in [
        (Topology::YShape, Norms::PerModality),
        (Topology::YShape, Norms::Shared),
        (Topology::XShape, Norms::PerModality),
        (Topology::XShape, Norms::Shared),
    ] {
        let networks = topology.networks(&net, norms, 5, CPU).unwrap();
        let [ct, mr] = &networks[..] else { panic!("two networks") };
        let before: Vec<Tensor> = mr.running().iter().map(|(_, tensor)| tensor.copy()).collect();
        let image = noise(&[2, 1, 32, 32]);
        ct.forward(&image, Modality::Ct, true).square().mean(Kind::Float).backward();
        let moved: Vec<bool> = mr.running().iter().zip(&before).map(|((_, tensor), old)| !tensor.equal(old)).collect();
        let normed: Vec<bool> = (net.layers.iter().zip(&stages))
            .filter(|(layer, _)| layer.has_norm())
            .flat_map(|(_, &stage)| [topology.shares(stage) && norms == Norms::Shared; 2])
            .collect();
        assert_eq!(moved, normed, "{topology:?} {norms:?}");
        for ((parts, other), &stage) in mr.parts.iter().zip(&ct.parts).zip(&stages) {
            let (Some(weight), Some(first)) = (&parts.weight, &other.weight) else { continue };
            assert_eq!(weight.grad().defined(), topology.shares(stage), "{topology:?}");
            let _ = no_grad(|| first.shallow_clone().fill_(0.5));
            assert_eq!(weight.equal(first), topology.shares(stage), "{topology:?}");
        }
    }
}
