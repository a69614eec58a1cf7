//! The trainer's forward pass against nested loops in double precision, for every family and both modalities.
//!
//! The loops are those of the `tests` package, included as source: nothing may depend on that package, and it cannot depend
//! on the trainer without asking everybody for libtorch.

#[path = "../../tests"]
#[allow(dead_code, reason = "the package's other tests use the rest")]
mod loops {
    pub mod checkpoint;
    pub mod model_file;
    pub mod reference;
}
use contract::{Modality, Net, NetError};
use host_train::net::Network;
use loops::{checkpoint, model_file, reference::float};
use tch::{Device, Kind, Tensor};

fn families() -> [Net; 6] {
    [
        Net::compact(3, 5, 2, 16, 32),
        Net::compact_dilated(1, 5, 2, 16, 24),
        Net::compact3d(5, 2, 8, 8, 16),
        Net::dilated2d(5, 2, 16, 24),
        Net::unet3d(5, 2, 8, 8, 16),
        Net::unet3d_hollow(5, 2, 16, 8, 8),
    ]
}

#[test]
fn the_forward_pass_is_that_of_nested_loops() {
    for net in families() {
        let tensors = checkpoint::random(&net, &Modality::ALL, 11);
        let find = |name: &str, shape: &[usize]| -> Result<Tensor, NetError> {
            let shape: Vec<i64> = shape.iter().map(|&side| side as i64).collect();
            Ok(Tensor::from_slice(tensors.get(name)).view(shape.as_slice()))
        };
        let network = Network::from_tensors(&net, &Modality::ALL, Device::Cpu, find).unwrap();
        let image: Vec<f32> = (0..net.input.elements()).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.).collect();
        let sizes: Vec<i64> = net.input.size.iter().map(|&side| side as i64).collect();
        let axes = if net.spatial == contract::net::Spatial::D2 { &sizes[1..] } else { &sizes[..] };
        let shape = [&[1, net.input.channels as i64], axes].concat();
        for modality in Modality::ALL {
            let found = network.forward(&Tensor::from_slice(&image).view(shape.as_slice()), modality, false);
            let found = found.to_kind(Kind::Double).contiguous();
            let mut values = vec![0.; found.numel()];
            found.copy_data(&mut values, found.numel());
            let expected = float::logits(&net, &tensors, modality, &image).data;
            let size = expected.iter().fold(0f64, |size, x| size.max(x.abs()));
            let apart = values.iter().zip(&expected).fold(0f64, |apart, (a, b)| apart.max((a - b).abs()));
            // Up to 33 layers of sums in f32, each of a few hundred terms.
            assert!(
                values.len() == expected.len() && apart < 2e-5 * size,
                "{} {modality}: {apart} of {size}",
                net.name
            );
        }
    }
}
