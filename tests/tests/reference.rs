//! The reference network itself: every family is walked, and a checkpoint survives its file.

use contract::{Modality, Net, net::Op};
use tests::{checkpoint, reference::float};

fn image(net: &Net) -> Vec<f32> {
    (0..net.input.elements()).map(|i| ((i * 37 + i / 11) % 255) as f32 / 64. - 2.).collect()
}

fn families() -> [Net; 6] {
    [
        Net::compact(3, 5, 4, 16, 32),
        Net::compact_dilated(3, 5, 4, 16, 24),
        Net::compact3d(5, 4, 8, 16, 24),
        Net::dilated2d(5, 4, 16, 24),
        Net::unet3d(5, 4, 8, 16, 24),
        interpolated(Net::compact(1, 5, 4, 16, 16)),
    ]
}

/// The same network with linear up-sampling.
fn interpolated(mut net: Net) -> Net {
    for layer in &mut net.layers {
        if let Op::Upsample { factor } = layer.op {
            layer.op = Op::Interpolate { factor };
        }
    }
    net
}

#[test]
fn every_operation_of_the_contract_is_walked() {
    let mut seen = std::collections::BTreeSet::new();
    for net in families() {
        let tensors = checkpoint::random(&net, &Modality::ALL, 1);
        let [ct, mr] = Modality::ALL.map(|modality| float::logits(&net, &tensors, modality, &image(&net)));
        assert_eq!(Some(&ct.shape), net.shapes().unwrap().last(), "{}", net.name);
        assert!(ct.data.iter().chain(&mr.data).all(|x| x.is_finite()), "{}", net.name);
        assert_ne!(ct, mr, "{}: the norms make the difference", net.name);
        seen.extend(
            net.layers.iter().map(|layer| format!("{:?}", layer.op).split([' ', '(']).next().unwrap().to_string()),
        );
    }
    let all = [
        "Add",
        "Concat",
        "Conv",
        "Deconv",
        "Interpolate",
        "MaxPool",
        "Norm",
        "PadChannels",
        "PixelShuffle",
        "Upsample",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
}

/// Doubling a kernel together with the mean, and its variance fourfold, changes nothing but the share of epsilon.
#[test]
fn a_norm_undoes_the_scale_of_its_convolution() {
    let net = Net::compact(1, 5, 4, 16, 16);
    let tensors = checkpoint::random(&net, &[Modality::Ct], 2);
    let mut doubled = tensors.clone();
    for layer in net.layers.iter().filter(|layer| matches!(&layer.op, Op::Conv(conv) if conv.norm)) {
        let mut scale = |name: String, factor: f32| doubled.get_mut(&name).iter_mut().for_each(|x| *x *= factor);
        scale(contract::names::weight(&layer.name), 2.);
        scale(contract::names::norm(&layer.name, Modality::Ct, contract::names::NormParam::Mean), 2.);
        scale(contract::names::norm(&layer.name, Modality::Ct, contract::names::NormParam::Var), 4.);
    }
    let [a, b] = [&tensors, &doubled].map(|tensors| float::logits(&net, tensors, Modality::Ct, &image(&net)));
    let largest = a.data.iter().fold(0f64, |largest, x| largest.max(x.abs()));
    let apart = a.data.iter().zip(&b.data).fold(0f64, |apart, (x, y)| apart.max((x - y).abs()));
    // Epsilon is 1e-3 of variances from 0.5 up: at most 0.075 % per norm, of which this network has 22.
    assert!(apart > 0. && apart < 0.02 * largest, "{apart} of {largest}");
}

#[test]
fn a_checkpoint_survives_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    for net in [Net::compact(3, 5, 4, 16, 32), Net::unet3d(5, 4, 8, 16, 24)] {
        let (tensors, spec) = (checkpoint::random(&net, &Modality::ALL, 3), checkpoint::spec(net, &Modality::ALL));
        spec.check().unwrap();
        tensors.write(&spec, &path).unwrap();
        let (meta, read) = checkpoint::Tensors::read(&path).unwrap();
        assert_eq!((meta.contract, meta.spec), (contract::VERSION, spec));
        assert_eq!(read, tensors);
    }
}
