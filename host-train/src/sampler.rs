//! Which slices make a training batch: a pure function of seed, modality and step, so that a resumed run draws what an
//! uninterrupted one would have drawn, and nothing about the sampler needs saving.
//!
//! Slices are balanced by class: a small organ is in few slices, and drawing slices evenly would hardly show it. A 3D
//! network's patches are drawn as [`Patches`] says.

use contract::{Modality, ModelSpec, net::Spatial, tiles};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    augment::{Augment, Size},
    data::{self, Case, DataError},
    patches::{Patch, Patches},
};

/// Images and labels of one modality.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// `[n, slices, (depth,) height, width]`, reals: `scale * code`.
    pub images: Vec<f32>,
    /// `[n, (depth,) height, width]`.
    pub labels: Vec<u8>,
    /// Number of slices drawn, or of patches in 3D.
    pub n: usize,
}

/// One slice of one case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slice {
    case: usize,
    z: usize,
}

/// Draws batches of one modality.
#[derive(Clone, Debug)]
pub struct Sampler {
    cases: Vec<Case>,
    spec: ModelSpec,
    modality: Modality,
    batch: usize,
    seed: u64,
    augment: Augment,
    /// All usable slices first, then per organ that occurs those that show it.
    choices: Vec<Vec<Slice>>,
    /// Of a 3D network, instead of single slices.
    patches: Option<Patches>,
}

impl Sampler {
    /// A sampler of `batch` slices, or patches in 3D, at a time from cases of one modality.
    pub fn new(
        cases: Vec<Case>,
        spec: &ModelSpec,
        batch: usize,
        seed: u64,
        augment: Augment,
    ) -> Result<Self, DataError> {
        let modality = data::one_modality(&cases)?;
        let any: Vec<Slice> = cases
            .iter()
            .enumerate()
            .flat_map(|(case, content)| (0..content.depth()).map(move |z| Slice { case, z }))
            .filter(|slice| cases[slice.case].usable[slice.z])
            .collect();
        if any.is_empty() {
            return Err(DataError::NoSlices { cases: cases.len() });
        }
        let with = |class: u8| -> Vec<Slice> {
            any.iter().filter(|slice| cases[slice.case].slice_labels(slice.z).contains(&class)).copied().collect()
        };
        let organs: Vec<Vec<Slice>> = spec.labels.organs().map(|(class, _)| with(class)).collect();
        let choices = [any.clone()].into_iter().chain(organs).filter(|slices| !slices.is_empty()).collect();
        let patches = (spec.net.spatial == Spatial::D3).then(|| Patches::new(&cases, spec.depth()));
        Ok(Self { cases, spec: spec.clone(), modality, batch, seed, augment, choices, patches })
    }

    /// Of the cases.
    pub fn modality(&self) -> Modality {
        self.modality
    }

    /// Number of slices that can be drawn, alone or in patches.
    pub fn slices(&self) -> usize {
        self.choices[0].len()
    }

    /// The batch of a step. Equal steps give equal batches.
    pub fn batch(&self, step: u64) -> Batch {
        self.make(step).0
    }

    /// Which slices of which cases the batch of a step holds, in words.
    pub fn contents(&self, step: u64) -> String {
        let name = |(case, first): (usize, isize)| {
            let name = &self.cases[case].name;
            match self.spec.depth() {
                1 => format!("{name} slice {first}"),
                depth => format!("{name} slices {first} to {}", first + depth as isize - 1),
            }
        };
        self.make(step).1.into_iter().map(name).collect::<Vec<_>>().join(", ")
    }

    /// The batch of a step, and for each image its case and first slice.
    fn make(&self, step: u64) -> (Batch, Vec<(usize, isize)>) {
        let (depth, grid) = (self.spec.depth(), self.spec.grid);
        let size = Size { slices: self.spec.slices() * depth, height: grid.height, width: grid.width };
        let area = grid.height * grid.width;
        let mut rng = self.rng(step);
        let mut codes = vec![0; size.slices * area];
        let mut images = Vec::with_capacity(self.batch * codes.len());
        let mut labels = Vec::with_capacity(self.batch * depth * area);
        let mut places = Vec::with_capacity(self.batch);
        for _ in 0..self.batch {
            let drawn = labels.len();
            places.push(self.sample(&mut codes, &mut labels, &mut rng));
            self.augment.apply(size, self.modality, &mut codes, &mut labels[drawn..], &mut rng);
            images.extend(data::reals(&codes, &self.spec));
        }
        (Batch { images, labels, n: self.batch }, places)
    }

    /// Draws a slice or a patch: fills its codes, appends its labels, answers its case and first slice.
    fn sample(&self, codes: &mut [i8], labels: &mut Vec<u8>, rng: &mut ChaCha8Rng) -> (usize, isize) {
        match &self.patches {
            None => {
                let Slice { case, z } = self.draw(rng);
                self.cases[case].image(z, self.spec.slices(), codes);
                labels.extend_from_slice(self.cases[case].slice_labels(z));
                (case, z as isize)
            }
            Some(patches) => {
                let Patch { case: index, start } = patches.draw(rng);
                let case = &self.cases[index];
                case.patch(start, codes);
                let shown = tiles::shown(start, self.spec.depth(), case.depth());
                shown.for_each(|z| labels.extend_from_slice(case.slice_labels(z)));
                (index, start)
            }
        }
    }

    /// First what to show (an organ, or anything), then a slice that shows it.
    fn draw(&self, rng: &mut ChaCha8Rng) -> Slice {
        let slices = &self.choices[rng.random_range(0..self.choices.len())];
        slices[rng.random_range(0..slices.len())]
    }

    /// A generator of its own for every seed, modality and step: 2^64 steps fit beside each other.
    fn rng(&self, step: u64) -> ChaCha8Rng {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..16].copy_from_slice(&step.to_le_bytes());
        key[16] = self.modality.index() as u8;
        ChaCha8Rng::from_seed(key)
    }
}

#[cfg(test)]
mod tests {
    use contract::Net;

    use super::*;
    use crate::data::tests::{case_of, spec_of};

    /// Ten slices of 8 x 8: organ 1 in all, organ 2 in slice 3 alone, organs 3 and 4 nowhere; slice 9 is constant.
    fn cases() -> Vec<Case> {
        let mut raw: Vec<i16> = (0..640).map(|index| (index / 64 * 5 - 100 + index % 64 % 3) as i16).collect();
        raw[576..].fill(-50);
        let labels = (0..640).map(|index| if index == 3 * 64 + 20 { 2 } else { u8::from(index % 64 == 9) }).collect();
        vec![case_of(Modality::Ct, [8, 8, 10], raw, labels, &spec_of(1, 8, 8, 2.))]
    }

    fn sampler(seed: u64, augment: Augment) -> Sampler {
        Sampler::new(cases(), &spec_of(1, 8, 8, 2.), 16, seed, augment).unwrap()
    }

    #[test]
    fn a_batch_depends_on_seed_and_step_alone() {
        let (one, other) = (sampler(1, Augment::default()), sampler(1, Augment::default()));
        let forwards: Vec<Batch> = (0..6).map(|step| one.batch(step)).collect();
        let backwards: Vec<Batch> = (0..6).rev().map(|step| other.batch(step)).collect();
        assert!(forwards.iter().eq(backwards.iter().rev()));
        assert!((1..6).all(|step| forwards[step] != forwards[0]));
        assert_ne!(sampler(2, Augment::default()).batch(0), forwards[0]);
    }

    /// Three equal choices (any, organ 1, organ 2) over nine usable slices: slice 3 is drawn with probability
    /// 1/3 + 2/3 * 1/9 = 11/27, any other usable one with 2/27, slice 9 never.
    #[test]
    fn rare_organs_are_drawn_as_often_as_common_ones() {
        let sampler = sampler(7, Augment::none());
        assert_eq!((sampler.slices(), sampler.modality()), (9, Modality::Ct));
        let (mut drawn, n) = ([0u32; 10], 16 * 1000);
        for step in 0..1000 {
            let mut rng = sampler.rng(step);
            (0..16).for_each(|_| drawn[sampler.draw(&mut rng).z] += 1);
        }
        for (z, &count) in drawn.iter().enumerate() {
            let p = [2. / 27., 11. / 27., 0.][if z == 3 { 1 } else { 2 * usize::from(z == 9) }];
            let (expected, deviation) = (f64::from(n) * p, (f64::from(n) * p * (1. - p)).sqrt());
            assert!((f64::from(count) - expected).abs() <= 5. * deviation, "slice {z}: {count}, expected {expected}");
        }
    }

    #[test]
    fn a_plain_batch_holds_slices_of_the_case_with_their_labels() {
        let (spec, case) = (spec_of(3, 8, 8, 2.), cases().remove(0));
        let sampler = Sampler::new(vec![case.clone()], &spec, 16, 5, Augment::none()).unwrap();
        let batch = sampler.batch(0);
        assert_eq!((batch.n, batch.images.len(), batch.labels.len()), (16, 16 * 3 * 64, 16 * 64));
        let mut codes = vec![0; 3 * 64];
        for (image, labels) in batch.images.chunks_exact(3 * 64).zip(batch.labels.chunks_exact(64)) {
            let same = (0..9).find(|&z| {
                case.image(z, 3, &mut codes);
                image.iter().zip(&codes).all(|(real, &code)| *real == spec.intensity.scale * f32::from(code))
            });
            assert_eq!(case.slice_labels(same.expect("a slice of the case")), labels);
        }
        case.image(8, 3, &mut codes);
        assert!(codes[128..].iter().all(|&code| code == i8::MIN), "the constant neighbour is air");
    }

    /// Codes, labels and their order in a patch, with variations: what a slice's labels are, its codes are.
    #[test]
    fn a_patch_holds_consecutive_slices_with_the_labels_of_each() {
        let spec = ModelSpec { net: Net::compact3d(5, 2, 8, 16, 16), ..spec_of(1, 16, 16, 2.) };
        // Of every slice, the code tells the number: one value but for a corner, which makes it no constant.
        let raw = (0..12 * 256).map(|i| if i % 256 == 0 { 200 } else { -150 + (i / 256 * 10) as i16 }).collect();
        let labels = (0..12 * 256).map(|i| (i / 256 % 5) as u8).collect();
        let case = case_of(Modality::Ct, [16, 16, 12], raw, labels, &spec);
        let centre = |z: usize| f32::from(case.codes[z * 256 + 136]) * spec.intensity.scale;
        let none = Sampler::new(vec![case.clone()], &spec, 4, 3, Augment::none()).unwrap();
        // Geometry alone: nothing in the middle of a plane changes but through the map that all planes share.
        let tone = Augment { gain: 0., offset: 0., gamma: 0., noise: 0., bias: 0., blur: 0., ..Augment::default() };
        let moved = Sampler::new(vec![case.clone()], &spec, 4, 3, tone).unwrap();
        for sampler in [none, moved] {
            let batch = sampler.batch(0);
            assert_eq!((batch.n, batch.images.len(), batch.labels.len()), (4, 4 * 8 * 256, 4 * 8 * 256));
            for (image, labels) in batch.images.chunks_exact(8 * 256).zip(batch.labels.chunks_exact(8 * 256)) {
                let start = (0..12).find(|&z| image[136] == centre(z)).expect("a slice of the case");
                for plane in 0..8 {
                    assert_eq!(image[plane * 256 + 136], centre(start + plane));
                    assert_eq!(usize::from(labels[plane * 256 + 136]), (start + plane) % 5);
                }
            }
        }
    }

    #[test]
    fn nothing_to_draw_and_mixed_modalities_are_refused() {
        let spec = spec_of(1, 8, 8, 2.);
        let refused = |cases| Sampler::new(cases, &spec, 4, 0, Augment::none()).unwrap_err().to_string();
        assert!(refused(vec![]).contains("0 cases"));
        let empty = case_of(Modality::Ct, [8, 8, 2], vec![-7; 128], vec![0; 128], &spec);
        assert!(refused(vec![empty]).contains("1 cases without a usable slice"));
        let mr = case_of(Modality::Mr, [8, 8, 1], (0..64).collect(), vec![0; 64], &spec);
        assert!(refused([cases(), vec![mr]].concat()).contains("is mr, expected ct"));
    }
}
