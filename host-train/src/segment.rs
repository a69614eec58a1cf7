//! A network's label map of a case, on the model's grid: slice by slice, or in 3D by the tiles of [`contract::tiles`].
//!
//! The runtime does the same with the exported network; what both do alike is in the contract.

use contract::{
    Modality, ModelSpec,
    net::Spatial,
    tiles::{Blend, Tiles, Tiling},
};
use tch::{Kind, Tensor, no_grad};

use crate::{
    data::{Case, reals},
    net::Network,
    trainer::image,
};

/// Slices per forward pass of a 2D network.
const BATCH: usize = 16;

/// Classes `[z, height, width]`; background where a slice is constant. `tiling` is for 3D networks.
///
/// # Panics
/// If the network does not know the modality.
pub fn segment(network: &Network, spec: &ModelSpec, modality: Modality, case: &Case, tiling: Tiling) -> Vec<u8> {
    let area = spec.grid.height * spec.grid.width;
    let mut labels = vec![0; case.depth() * area];
    match spec.net.spatial {
        Spatial::D2 => {
            let usable: Vec<usize> = (0..case.depth()).filter(|&z| case.usable[z]).collect();
            for chunk in usable.chunks(BATCH) {
                let found = predict(network, spec, modality, &images(case, spec, chunk), chunk.len());
                for (&z, slice) in chunk.iter().zip(found.chunks_exact(area)) {
                    labels[z * area..][..area].copy_from_slice(slice);
                }
            }
        }
        Spatial::D3 => {
            let tiles = Tiles::new(case.depth(), spec.depth(), tiling);
            let mut blend = Blend::new(tiles.clone(), spec.labels.classes(), area);
            for &start in tiles.starts() {
                blend.add(&logits(network, spec, modality, case, start), |z, slice| {
                    if case.usable[z] {
                        labels[z * area..][..area].copy_from_slice(slice);
                    }
                });
            }
        }
    }
    labels
}

/// Makes the first and the last of `depth` slices background: the paper's 2D code segments only slices with two neighbours.
pub fn blank_ends(labels: &mut [u8], depth: usize) {
    let area = labels.len() / depth.max(1);
    let last = labels.len() - area;
    labels[..area].fill(0);
    labels[last..].fill(0);
}

/// Classes `[n, h, w]` of reals `[n, slices, h, w]`, a few slices at a time.
pub fn predict(network: &Network, spec: &ModelSpec, modality: Modality, reals: &[f32], n: usize) -> Vec<u8> {
    let area = spec.grid.height * spec.grid.width;
    let mut labels = Vec::with_capacity(n * area);
    for part in reals.chunks(BATCH * spec.slices() * area) {
        let slices = part.len() / (spec.slices() * area);
        let classes: Tensor = network.labels(&image(spec, part, slices, network.device()), modality);
        let start = labels.len();
        labels.resize(start + slices * area, 0);
        classes.contiguous().copy_data(&mut labels[start..], slices * area);
    }
    labels
}

/// Logits `[classes, depth, h, w]` of the patch whose first slice is `start`.
fn logits(network: &Network, spec: &ModelSpec, modality: Modality, case: &Case, start: isize) -> Vec<f32> {
    let mut codes = vec![0; spec.net.input.elements()];
    case.patch(start, &mut codes);
    let reals: Vec<f32> = reals(&codes, spec).collect();
    let image = image(spec, &reals, 1, network.device());
    let logits = no_grad(|| network.forward(&image, modality, false)).to_kind(Kind::Float).contiguous();
    let mut values = vec![0.; spec.labels.classes() * codes.len()];
    let count = values.len();
    logits.copy_data(&mut values, count);
    values
}

/// Reals `[n, slices, h, w]` around some slices.
fn images(case: &Case, spec: &ModelSpec, slices: &[usize]) -> Vec<f32> {
    let mut codes = vec![0; spec.slices() * spec.grid.height * spec.grid.width];
    let mut images = Vec::with_capacity(slices.len() * codes.len());
    for &z in slices {
        case.image(z, spec.slices(), &mut codes);
        images.extend(reals(&codes, spec));
    }
    images
}

#[cfg(test)]
mod tests {
    use contract::Net;
    use tch::Device;

    use super::*;
    use crate::{data::tests::case_of, net::Norms, test_support::settings, topology::Topology};

    /// `depth` slices of 16 x 16 pixels, of which slice 2 is constant.
    fn case(spec: &ModelSpec, depth: usize) -> Case {
        let raw = |i: usize| if i / 256 == 2 { 12 } else { (i * 7919 % 601) as i16 - 400 };
        case_of(Modality::Ct, [16, 16, depth], (0..depth * 256).map(raw).collect(), vec![0; depth * 256], spec)
    }

    fn spec(net: Net) -> ModelSpec {
        let grid = contract::Grid { height: 16, width: 16, spacing_mm: 2. };
        ModelSpec { net, grid, ..settings(Topology::Ummkd).spec }
    }

    #[test]
    fn ends_are_blanked_and_nothing_else() {
        for (depth, expected) in [(1, "0000"), (2, "00000000"), (3, "000011110000"), (4, "0000111111110000")] {
            let mut labels = vec![1; 4 * depth];
            blank_ends(&mut labels, depth);
            let found: String = labels.iter().map(u8::to_string).collect();
            assert_eq!(found, expected);
        }
    }

    /// Every slice but the constant one, the first and the last too, is what the network says about it; slice by slice,
    /// alone, is what many at a time are.
    #[test]
    fn slices_are_segmented_alike_alone_and_together() {
        let (spec, depth) = (spec(Net::compact(3, 5, 2, 16, 16)), BATCH + 3);
        let network = Network::new(&spec.net, &[Modality::Ct], Norms::PerModality, 5, Device::Cpu).unwrap();
        let case = case(&spec, depth);
        let found = segment(&network, &spec, Modality::Ct, &case, Tiling::Gaussian);
        for (z, slice) in found.chunks_exact(256).enumerate() {
            match z {
                2 => assert!(slice.iter().all(|&label| label == 0)),
                _ => assert_eq!(slice, predict(&network, &spec, Modality::Ct, &images(&case, &spec, &[z]), 1)),
            }
        }
    }

    /// A volume of one tile is the network's answer to it; of several, the answer to the one that shows a slice alone.
    #[test]
    fn tiles_cover_volumes_of_every_length() {
        let spec = spec(Net::compact3d(5, 2, 8, 16, 16));
        let network = Network::new(&spec.net, &[Modality::Ct], Norms::PerModality, 6, Device::Cpu).unwrap();
        for depth in [5, 8, 13, 17] {
            let case = case(&spec, depth);
            for tiling in [Tiling::Gaussian, Tiling::Flush] {
                let found = segment(&network, &spec, Modality::Ct, &case, tiling);
                assert_eq!(found.len(), depth * 256);
                assert!(found[512..768].iter().all(|&label| label == 0), "a constant slice is background");
                let tiles = Tiles::new(depth, 8, tiling);
                for z in (0..depth).filter(|&z| z != 2) {
                    let shows = |&(tile, plane): &(usize, usize)| {
                        tiles.starts()[tile] + plane as isize == z as isize && tiles.weight(tile, plane) > 0
                    };
                    let all: Vec<_> =
                        (0..tiles.count()).flat_map(|tile| (0..8).map(move |plane| (tile, plane))).collect();
                    let shown: Vec<_> = all.into_iter().filter(shows).collect();
                    assert!(!shown.is_empty() && (tiling == Tiling::Gaussian || shown.len() == 1));
                    let [(tile, plane)] = shown[..] else { continue };
                    let logits = logits(&network, &spec, Modality::Ct, &case, tiles.starts()[tile]);
                    for pixel in 0..256 {
                        let of = |class: usize| logits[(class * 8 + plane) * 256 + pixel];
                        let best = (1..5).fold(0, |best, class| if of(class) > of(best) { class } else { best });
                        assert_eq!(usize::from(found[z * 256 + pixel]), best, "{depth} {tiling:?} {z}");
                    }
                }
            }
        }
    }
}
