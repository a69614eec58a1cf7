//! How a volume's slices pass through a 3D network: which slices each tile shows, and how much each tile's logits weigh.
//!
//! A tile shows as many consecutive slices as the network is deep. Tiles overlap by half, and where they do, logits are
//! averaged with a Gaussian over the tile's depth: a network knows least at its ends. [`Tiling::Flush`] is what the paper's
//! code does instead: tiles side by side, the last one flush with the end of the volume.
//!
//! The weights are whole numbers, so that the weighted sum of int8 codes is a whole number below 2^24, exact in f32: the
//! label map of an int8 model has the same bits on every machine. All codes of a model's logits have one scale and zero
//! point and the weights of a voxel are those of all its classes, so the largest sum is the largest mean logit.

use alloc::{vec, vec::Vec};

use serde::{Deserialize, Serialize};

/// How tiles lie on each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tiling {
    /// Half a tile apart, logits weighted by a Gaussian over the depth.
    #[default]
    Gaussian,
    /// Side by side, the last flush with the end; a slice that two of them show has the later one's labels.
    Flush,
}

impl Tiling {
    /// `gaussian` or `flush`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gaussian => "gaussian",
            Self::Flush => "flush",
        }
    }
}

/// Weight in the middle of a tile.
const PEAK: f64 = 4096.;
/// Standard deviation of the Gaussian, as a part of the depth.
const SIGMA: f64 = 0.125;

/// The tiles of a volume.
///
/// Every slice is shown by a tile that does not repeat it. A volume of fewer slices than a tile has one tile, with the volume
/// in its middle and the volume's first and last slice repeated before and behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiles {
    slices: usize,
    depth: usize,
    tiling: Tiling,
    starts: Vec<isize>,
}

impl Tiles {
    /// Tiles of `depth` slices over a volume of `slices`.
    ///
    /// # Panics
    /// If either is 0.
    pub fn new(slices: usize, depth: usize, tiling: Tiling) -> Self {
        assert!(slices > 0 && depth > 0, "{slices} slices in tiles of {depth}");
        let stride = if tiling == Tiling::Gaussian { (depth / 2).max(1) } else { depth };
        let starts = match slices.checked_sub(depth) {
            None => vec![-((depth - slices) as isize / 2)],
            Some(last) => (0..last).step_by(stride).chain([last]).map(|start| start as isize).collect(),
        };
        Self { slices, depth, tiling, starts }
    }

    /// Number of tiles.
    pub fn count(&self) -> usize {
        self.starts.len()
    }

    /// First slice of each tile, rising; negative only for the one tile of a volume of fewer slices than it.
    pub fn starts(&self) -> &[isize] {
        &self.starts
    }

    /// The slice of the volume that each plane of a tile shows.
    pub fn shown(&self, tile: usize) -> impl Iterator<Item = usize> + use<> {
        shown(self.starts[tile], self.depth, self.slices)
    }

    /// What plane `plane` of a tile adds to its slice: 0 where it only repeats an end of the volume.
    pub fn weight(&self, tile: usize, plane: usize) -> u16 {
        let slice = self.starts[tile] + plane as isize;
        let later = || self.starts.get(tile + 1).is_some_and(|&next| slice >= next);
        match self.tiling {
            _ if slice < 0 || slice as usize >= self.slices => 0,
            Tiling::Gaussian => gaussian(plane, self.depth),
            Tiling::Flush => u16::from(!later()),
        }
    }

    /// Slices that no tile behind this one shows.
    fn finished(&self, tile: usize) -> usize {
        self.starts.get(tile + 1).map_or(self.slices, |&next| next.max(0) as usize)
    }
}

/// The slices, of `slices` in all, in a patch of `depth` planes whose first is slice `start`: beyond the ends, the end slice.
pub fn shown(start: isize, depth: usize, slices: usize) -> impl Iterator<Item = usize> + use<> {
    (start..start + depth as isize).map(move |slice| slice.clamp(0, slices as isize - 1) as usize)
}

/// A whole number from 1 to 4096. From the four basic operations alone, which every machine rounds alike.
fn gaussian(plane: usize, depth: usize) -> u16 {
    let from_centre = (plane as f64 - (depth as f64 - 1.) / 2.) / (SIGMA * depth as f64);
    let exponent = from_centre * from_centre / 2.;
    // exp by its series, from the small end; the exponent is below 8.
    let exp = (1..=64).rev().fold(1., |sum, n| 1. + sum * exponent / f64::from(n));
    ((PEAK / exp + 0.5) as u16).max(1)
}

/// Adds up the logits of a volume's tiles, in order, and tells the labels of each slice as soon as no later tile shows it.
/// All memory, 4 bytes per class and voxel of one tile, is taken when it is made.
#[derive(Clone, Debug)]
pub struct Blend {
    tiles: Tiles,
    area: usize,
    next: usize,
    /// Slices whose labels have been told.
    told: usize,
    /// `[classes][depth][area]`, from slice `told` on.
    sums: Vec<f32>,
    labels: Vec<u8>,
}

impl Blend {
    /// For logits `[classes][depth][area]` per tile.
    pub fn new(tiles: Tiles, classes: usize, area: usize) -> Self {
        let sums = vec![0.; classes * tiles.depth * area];
        Self { tiles, area, next: 0, told: 0, sums, labels: vec![0; area] }
    }

    /// Adds the logits of the next tile, int8 codes or reals, and tells the slices that are finished: number and labels
    /// `[area]`. The lowest class wins a tie.
    ///
    /// # Panics
    /// If there is no next tile or the logits are of another size.
    pub fn add<T: Copy + Into<f32>>(&mut self, logits: &[T], mut tell: impl FnMut(usize, &[u8])) {
        assert_eq!(logits.len(), self.sums.len(), "logits of a tile");
        let (area, depth, tile) = (self.area, self.tiles.depth, self.next);
        let start = self.tiles.starts[tile];
        for (plane, logits) in logits.chunks_exact(area).enumerate() {
            let (class, plane) = (plane / depth, plane % depth);
            let weight = f32::from(self.tiles.weight(tile, plane));
            if weight > 0. {
                // Not negative: a tile starts where the one before it was finished.
                let at = (start + plane as isize) as usize - self.told;
                let sums = &mut self.sums[(class * depth + at) * area..][..area];
                sums.iter_mut().zip(logits).for_each(|(sum, &logit)| *sum += weight * logit.into());
            }
        }
        let finished = self.tiles.finished(tile);
        for slice in self.told..finished {
            self.choose(slice - self.told);
            tell(slice, &self.labels);
        }
        self.forget(finished - self.told);
        (self.told, self.next) = (finished, tile + 1);
    }

    /// Fills `labels` with the best class of each pixel of a plane.
    fn choose(&mut self, plane: usize) {
        let (area, volume) = (self.area, self.tiles.depth * self.area);
        for (pixel, label) in self.labels.iter_mut().enumerate() {
            let sums = self.sums[plane * area + pixel..].iter().step_by(volume).copied();
            let best = sums.enumerate().reduce(|best, other| if other.1 > best.1 { other } else { best });
            *label = best.map_or(0, |(class, _)| class as u8);
        }
    }

    /// Makes room for as many new planes.
    fn forget(&mut self, planes: usize) {
        for class in self.sums.chunks_exact_mut(self.tiles.depth * self.area) {
            class.copy_within(planes.min(self.tiles.depth) * self.area.., 0);
            let kept = class.len() - planes.min(self.tiles.depth) * self.area;
            class[kept..].fill(0.);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(slices: usize, depth: usize, tiling: Tiling) -> Vec<isize> {
        Tiles::new(slices, depth, tiling).starts
    }

    #[test]
    fn tiles_lie_as_they_should() {
        assert_eq!(starts(20, 8, Tiling::Gaussian), [0, 4, 8, 12]);
        assert_eq!(starts(21, 8, Tiling::Gaussian), [0, 4, 8, 12, 13]);
        assert_eq!(starts(21, 8, Tiling::Flush), [0, 8, 13]);
        assert_eq!(starts(16, 8, Tiling::Flush), [0, 8]);
        assert_eq!(starts(8, 8, Tiling::Gaussian), [0]);
        assert_eq!(starts(5, 8, Tiling::Flush), [-1]);
        assert_eq!(Tiles::new(5, 8, Tiling::Flush).shown(0).collect::<Vec<_>>(), [0, 0, 1, 2, 3, 4, 4, 4]);
        assert_eq!(starts(4, 1, Tiling::Gaussian), [0, 1, 2, 3]);
    }

    /// `4096 exp(-d^2 / 2)` for d of 0.5, 1.5, 2.5 and 3.5, rounded by hand.
    #[test]
    fn weights_are_a_gaussian_of_an_eighth_of_the_depth() {
        let weights: Vec<u16> = (0..8).map(|plane| gaussian(plane, 8)).collect();
        assert_eq!(weights, [9, 180, 1330, 3615, 3615, 1330, 180, 9]);
        assert!((0..64).all(|plane| gaussian(plane, 64) > 0));
    }

    /// Every slice of every length is told once, in order, and a code sums to less than 2^24 in magnitude.
    #[test]
    fn no_slice_is_left_out_or_told_twice() {
        for tiling in [Tiling::Gaussian, Tiling::Flush] {
            for (slices, depth) in (1..40).flat_map(|slices| [1, 2, 3, 8, 16].map(|depth| (slices, depth))) {
                let tiles = Tiles::new(slices, depth, tiling);
                let mut sums = vec![0; slices];
                for (tile, plane) in (0..tiles.count()).flat_map(|tile| (0..depth).map(move |plane| (tile, plane))) {
                    let weight = u32::from(tiles.weight(tile, plane));
                    sums[tiles.shown(tile).nth(plane).unwrap()] += weight;
                }
                assert!(sums.iter().all(|&sum| sum > 0 && sum * 128 < 1 << 24), "{slices} {depth} {sums:?}");
                let (mut blend, mut told) = (Blend::new(tiles.clone(), 2, 1), vec![]);
                (0..tiles.count()).for_each(|_| blend.add(&vec![0i8; 2 * depth], |slice, _| told.push(slice)));
                assert_eq!(told, (0..slices).collect::<Vec<_>>(), "{tiling:?} {slices} {depth}");
            }
        }
    }

    /// Against sums over the whole volume at once, in integers.
    #[test]
    fn labels_are_those_of_the_weighted_sums() {
        for (tiling, slices) in [(Tiling::Gaussian, 21), (Tiling::Flush, 21), (Tiling::Gaussian, 5), (Tiling::Flush, 8)]
        {
            let (classes, depth, area) = (3, 8, 4);
            let tiles = Tiles::new(slices, depth, tiling);
            let code = |tile: usize, at: usize| ((tile * 7919 + at * 104_729) % 251) as i32 - 125;
            let mut sums = vec![0i32; classes * slices * area];
            let (mut blend, mut labels) = (Blend::new(tiles.clone(), classes, area), vec![9; slices * area]);
            for tile in 0..tiles.count() {
                let logits: Vec<i8> = (0..classes * depth * area).map(|at| code(tile, at) as i8).collect();
                blend.add(&logits, |slice, found| labels[slice * area..][..area].copy_from_slice(found));
                for (at, &logit) in logits.iter().enumerate() {
                    let (class, plane, pixel) = (at / depth / area, at / area % depth, at % area);
                    let slice = tiles.shown(tile).nth(plane).unwrap();
                    let weight = i32::from(tiles.weight(tile, plane));
                    sums[(class * slices + slice) * area + pixel] += weight * i32::from(logit);
                }
            }
            for (voxel, &label) in labels.iter().enumerate() {
                let of = |class: usize| sums[class * slices * area + voxel];
                let expected = (1..classes).fold(0, |best, class| if of(class) > of(best) { class } else { best });
                assert_eq!(usize::from(label), expected, "{tiling:?} {slices} {voxel}");
            }
        }
    }
}
