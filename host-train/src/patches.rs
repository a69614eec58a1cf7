//! Which patches a 3D network trains on: the sampling of the paper's 3D code.
//!
//! A case is drawn evenly, then, with a probability of one half each, one of its tiles side by side (the last flush with
//! the end), or as many slices around one that shows an organ. A patch at an end of the volume is moved inside rather than
//! filled up; only a volume of fewer slices than a patch is, by repeating its end slices as at inference (`contract::tiles`).

use contract::tiles::{Tiles, Tiling};
use rand::Rng;

use crate::data::Case;

/// The patches of all cases of a modality.
#[derive(Clone, Debug)]
pub struct Patches {
    depth: usize,
    volumes: Vec<Volume>,
}

#[derive(Clone, Debug)]
struct Volume {
    case: usize,
    /// First slices of the tiles.
    tiles: Vec<isize>,
    /// First and last slice with an organ.
    labelled: Option<[usize; 2]>,
}

/// A patch of one case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Number of the case.
    pub case: usize,
    /// First slice; negative in a volume of fewer slices than the patch.
    pub start: isize,
}

impl Patches {
    /// Patches of `depth` slices from the cases with at least one usable slice.
    pub fn new(cases: &[Case], depth: usize) -> Self {
        let volume = |(case, content): (usize, &Case)| {
            let shows = |&z: &usize| content.slice_labels(z).iter().any(|&label| label != 0);
            let (first, last) = ((0..content.depth()).find(shows), (0..content.depth()).rfind(shows));
            let tiles = Tiles::new(content.depth(), depth, Tiling::Flush).starts().to_vec();
            Volume { case, tiles, labelled: first.zip(last).map(|(first, last)| [first, last]) }
        };
        let usable = |(_, case): &(usize, &Case)| case.usable.contains(&true);
        Self { depth, volumes: cases.iter().enumerate().filter(usable).map(volume).collect() }
    }

    /// One of them.
    ///
    /// # Panics
    /// If there is none.
    pub fn draw(&self, rng: &mut impl Rng) -> Patch {
        let Volume { case, tiles, labelled } = &self.volumes[rng.random_range(0..self.volumes.len())];
        let start = match labelled {
            Some([first, last]) if rng.random_bool(0.5) => {
                let centre = rng.random_range(*first..=*last) as isize;
                // From the first tile's start to the last one's: the same number where there is but one.
                (centre - self.depth as isize / 2).clamp(tiles[0], tiles[tiles.len() - 1])
            }
            _ => tiles[rng.random_range(0..tiles.len())],
        };
        Patch { case: *case, start }
    }
}

#[cfg(test)]
mod tests {
    use contract::Modality;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::data::tests::{case_of, spec_of};

    /// A case of 8 x 8 pixels whose organs are in the given slices.
    fn case(depth: usize, organs: std::ops::Range<usize>) -> Case {
        let raw = (0..depth * 64).map(|i| (i % 61 * 7) as i16 - 200).collect();
        let labels = (0..depth * 64).map(|i| u8::from(organs.contains(&(i / 64)) && i % 64 == 9)).collect();
        case_of(Modality::Ct, [8, 8, depth], raw, labels, &spec_of(1, 8, 8, 2.))
    }

    /// 21 slices in tiles of 8 at 0, 8 and 13, organs in slices 3 to 12: a tile with 1/6 each, and starts of 3 - 4 to
    /// 12 - 4 with 1/20 each, of which the negative one is moved to 0.
    #[test]
    fn half_of_the_patches_are_tiles_and_half_lie_around_organs() {
        let patches = Patches::new(&[case(21, 3..13)], 8);
        let (mut drawn, mut rng, n) = ([0u32; 14], ChaCha8Rng::seed_from_u64(1), 20_000);
        (0..n).for_each(|_| drawn[patches.draw(&mut rng).start as usize] += 1);
        for (start, &count) in drawn.iter().enumerate() {
            let tile = if [0, 8, 13].contains(&start) { 1. / 6. } else { 0. };
            let p = tile + [0.1, 0.05, 0.][usize::from(start > 0) + usize::from(start > 8)];
            let (expected, deviation) = (f64::from(n) * p, (f64::from(n) * p * (1. - p)).sqrt());
            assert!((f64::from(count) - expected).abs() <= 5. * deviation, "{start}: {count}, expected {expected}");
        }
    }

    #[test]
    fn short_volumes_have_one_patch_and_unlabelled_ones_tiles() {
        let patches = Patches::new(&[case(5, 1..2), case(16, 0..0)], 8);
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let drawn: Vec<Patch> = (0..200).map(|_| patches.draw(&mut rng)).collect();
        for patch in &drawn {
            assert!(if patch.case == 0 { patch.start == -1 } else { [0, 8].contains(&patch.start) }, "{patch:?}");
        }
        assert!((50..150).contains(&drawn.iter().filter(|patch| patch.case == 0).count()));
        // Its slices, and the ends again.
        let (short, mut codes) = (case(5, 1..2), vec![0; 8 * 64]);
        short.patch(-1, &mut codes);
        for (plane, slice) in codes.chunks_exact(64).zip([0, 0, 1, 2, 3, 4, 4, 4]) {
            assert_eq!(plane, &short.codes[slice * 64..][..64]);
        }
    }
}
