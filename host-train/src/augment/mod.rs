//! Random variations of a training slice and its labels: codes in, codes out, so that the network only ever sees values
//! that a scanner could have given it.
//!
//! Mirrored left to right only on request: organs have sides, and a mirrored right kidney would be taught as a left one.
//! Geometry moves image (bilinear) and labels (nearest) by one map; intensity touches the image alone. CT codes at the
//! ends of the window stand for everything beyond it (air, bone), so no gain, offset or noise moves them.

mod tone;
mod warp;

use contract::{Modality, quant};
use rand::{Rng, RngCore};
use serde::{Deserialize, Serialize};

use self::{
    tone::{Tone, blur},
    warp::Map,
};

/// Largest strength of each variation; 0 switches it off. Draws are uniform up to it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Probability of the geometric map, and of each intensity variation for itself.
    pub probability: f32,
    /// Rotation either way, degrees.
    pub rotation_deg: f32,
    /// Size between `1 / (1 + scale)` and `1 + scale` times.
    pub scale: f32,
    /// Shift either way along each axis, as a part of the slice's side.
    pub translation: f32,
    /// Shear either way, as a slope.
    pub shear: f32,
    /// Amplitude of a smooth wave that shifts pixels, as a part of the slice's side; up to 0.03 it cannot fold.
    pub elastic: f32,
    /// Contrast between `1 / (1 + gain)` and `1 + gain` times, about mid-grey.
    pub gain: f32,
    /// Brightness either way, as a part of the range of codes.
    pub offset: f32,
    /// Exponent between `1 / (1 + gamma)` and `1 + gamma`.
    pub gamma: f32,
    /// Standard deviation of added noise, as a part of the range of codes.
    pub noise: f32,
    /// MR only: brightness that drifts over the slice, by a factor of up to `exp(bias)` either way.
    pub bias: f32,
    /// Standard deviation of a Gaussian blur, pixels.
    pub blur: f32,
    /// Whether every second image is mirrored left to right, whatever `probability` says.
    pub mirror: bool,
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            probability: 0.6,
            rotation_deg: 12.,
            scale: 0.12,
            translation: 0.05,
            shear: 0.05,
            elastic: 0.012,
            gain: 0.12,
            offset: 0.05,
            gamma: 0.25,
            noise: 0.04,
            bias: 0.4,
            blur: 0.8,
            mirror: false,
        }
    }
}

/// Size of an image, `[slices, height, width]`; in 3D the slices are its depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Neighbouring slices.
    pub slices: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Augment {
    /// No variation: what validation uses.
    pub fn none() -> Self {
        Self {
            probability: 0.,
            rotation_deg: 0.,
            scale: 0.,
            translation: 0.,
            shear: 0.,
            elastic: 0.,
            gain: 0.,
            offset: 0.,
            gamma: 0.,
            noise: 0.,
            bias: 0.,
            blur: 0.,
            mirror: false,
        }
    }

    /// Reads strengths from TOML, e.g. `noise = 0.02`; what is not named is as in the default.
    ///
    /// # Errors
    /// Says what is wrong: names that are none, values out of range.
    pub fn parse(text: &str) -> Result<Self, String> {
        let augment: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let Self { probability, rotation_deg, scale, translation, shear, elastic, .. } = augment;
        let Self { gain, offset, gamma, noise, bias, blur, .. } = augment;
        for (name, value, most) in [
            ("probability", probability, 1.),
            ("rotation_deg", rotation_deg, 180.),
            ("scale", scale, 1.),
            ("translation", translation, 0.5),
            ("shear", shear, 1.),
            ("elastic", elastic, 0.03),
            ("gain", gain, 4.),
            ("offset", offset, 1.),
            ("gamma", gamma, 4.),
            ("noise", noise, 1.),
            ("bias", bias, 3.),
            ("blur", blur, 10.),
        ] {
            // No number is neither.
            if !(0. ..=most).contains(&value) {
                return Err(format!("{name} = {value}: expected 0 (off) to {most}"));
            }
        }
        Ok(augment)
    }

    /// Varies `codes` `[slices, height, width]` and `labels` `[height, width]`, or of every slice `[slices, height, width]`,
    /// in place, as `rng` says. All slices are moved by one map.
    ///
    /// # Panics
    /// If a buffer is not as long as `size` says.
    pub fn apply(&self, size: Size, modality: Modality, codes: &mut [i8], labels: &mut [u8], rng: &mut impl RngCore) {
        let Size { slices, height, width } = size;
        assert_eq!(codes.len(), slices * height * width, "codes of {size:?}");
        let planes = labels.len() / (height * width);
        assert!(planes * height * width == labels.len() && [1, slices].contains(&planes), "labels of {size:?}");
        if self.probability > 0. {
            self.vary(size, modality, codes, labels, rng);
        }
        // Last, so that it leaves the other draws of an image as they were.
        if self.mirror && rng.random() {
            codes.chunks_exact_mut(width).for_each(<[i8]>::reverse);
            labels.chunks_exact_mut(width).for_each(<[u8]>::reverse);
        }
    }

    /// All but the mirror.
    fn vary(&self, size: Size, modality: Modality, codes: &mut [i8], labels: &mut [u8], rng: &mut impl RngCore) {
        let Size { height, width, .. } = size;
        let mut image: Vec<f32> = codes.iter().map(|&code| f32::from(code)).collect();
        if self.chosen(1., rng) {
            let map = Map::draw(self, size, rng);
            map.warp(size, codes, &mut image, labels);
        }
        if self.chosen(self.blur, rng) {
            let sigma = rng.random_range(0.0..=self.blur);
            image.chunks_exact_mut(height * width).for_each(|slice| blur(slice, width, sigma));
        }
        let tone = Tone::draw(self, size, modality, rng);
        for slice in image.chunks_exact_mut(height * width) {
            tone.apply(slice, rng);
        }
        for (code, value) in codes.iter_mut().zip(&image) {
            *code = quant::quantise(*value, 1., 0);
        }
    }

    fn chosen(&self, strength: f32, rng: &mut impl RngCore) -> bool {
        // The draw is made either way, so that switching one variation off leaves the others as they were.
        let draw: f32 = rng.random();
        strength > 0. && draw < self.probability
    }
}

/// Uniform in `[-strength, strength]`.
fn either_way(strength: f32, rng: &mut impl RngCore) -> f32 {
    rng.random_range(-1f32..=1.) * strength
}

/// Between `1 / (1 + strength)` and `1 + strength`, evenly in the logarithm.
fn factor(strength: f32, rng: &mut impl RngCore) -> f32 {
    (1. + strength).powf(rng.random_range(-1f32..=1.))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const SIZE: Size = Size { slices: 3, height: 48, width: 64 };

    fn picture() -> (Vec<i8>, Vec<u8>) {
        let area = SIZE.height * SIZE.width;
        // Blobs of constant code: organ k is drawn with code 40 * k - 80.
        let label = |pixel: usize| {
            let (row, column) = (pixel / SIZE.width, pixel % SIZE.width);
            let inside = |y: f32, x: f32, r: f32| (row as f32 - y).hypot(column as f32 - x) < r;
            if inside(16., 18., 9.) { 1 } else { 2 * u8::from(inside(30., 44., 11.)) }
        };
        let labels: Vec<u8> = (0..area).map(label).collect();
        let codes = (0..SIZE.slices * area).map(|index| 40 * labels[index % area] as i8 - 80).collect();
        (codes, labels)
    }

    fn geometry_only() -> Augment {
        Augment {
            gain: 0.,
            offset: 0.,
            gamma: 0.,
            noise: 0.,
            bias: 0.,
            blur: 0.,
            probability: 1.,
            ..Augment::default()
        }
    }

    #[test]
    fn none_and_zero_strength_are_the_identity() {
        let zero = Augment { probability: 1., ..Augment::none() };
        for augment in [Augment::none(), zero] {
            for modality in Modality::ALL {
                let (mut codes, mut labels) = picture();
                codes[5] = i8::MIN;
                codes[6] = i8::MAX;
                let before = (codes.clone(), labels.clone());
                augment.apply(SIZE, modality, &mut codes, &mut labels, &mut ChaCha8Rng::seed_from_u64(3));
                assert_eq!((codes, labels), before);
            }
        }
    }

    /// An image that is a function of its labels stays that function, but for the pixel on either side of an edge.
    #[test]
    fn labels_and_image_move_together() {
        let area = SIZE.height * SIZE.width;
        let mut moved = 0;
        for seed in 0..50 {
            let (mut codes, mut labels) = picture();
            let before = labels.clone();
            geometry_only().apply(SIZE, Modality::Mr, &mut codes, &mut labels, &mut ChaCha8Rng::seed_from_u64(seed));
            moved += usize::from(labels != before);
            let mut interior = 0;
            for row in 2..SIZE.height - 2 {
                for column in 2..SIZE.width - 2 {
                    let pixel = row * SIZE.width + column;
                    let around = |dy: usize, dx: usize| (row + dy - 2) * SIZE.width + column + dx - 2;
                    let alone = (0..25).all(|k| labels[around(k / 5, k % 5)] == labels[pixel]);
                    // Background beside the slice's edge is darker: there the label does not tell.
                    if !alone || labels[pixel] == 0 {
                        continue;
                    }
                    interior += 1;
                    for slice in codes.chunks_exact(area) {
                        assert_eq!(slice[pixel], 40 * labels[pixel] as i8 - 80, "seed {seed}, {row} {column}");
                    }
                }
            }
            assert!(interior > 100, "seed {seed}: {interior} pixels compared");
        }
        assert_eq!(moved, 50);
    }

    /// Half of the images, labels with them; the rest is untouched.
    #[test]
    fn a_mirror_reverses_rows_of_image_and_labels_together() {
        let augment = Augment { mirror: true, ..Augment::none() };
        let (codes, labels) = picture();
        let reversed = |row: &[u8]| row.iter().rev().copied().collect::<Vec<u8>>();
        let mirrored: Vec<u8> = labels.chunks_exact(SIZE.width).flat_map(reversed).collect();
        let mut count = 0;
        for seed in 0..400 {
            let (mut c, mut l) = (codes.clone(), labels.clone());
            augment.apply(SIZE, Modality::Ct, &mut c, &mut l, &mut ChaCha8Rng::seed_from_u64(seed));
            assert!(l == labels || l == mirrored, "seed {seed}");
            assert!(c.iter().enumerate().all(|(i, &code)| code == 40 * l[i % l.len()] as i8 - 80), "seed {seed}");
            count += usize::from(l == mirrored);
        }
        // Five standard deviations of 400 fair coins.
        assert!((150..=250).contains(&count), "{count}");
        assert!(!Augment::default().mirror);
    }

    #[test]
    fn strengths_are_read_and_checked() {
        let read = Augment::parse("noise = 0.1\nmirror = true").unwrap();
        assert_eq!(read, Augment { noise: 0.1, mirror: true, ..Augment::default() });
        let refused = |text| Augment::parse(text).unwrap_err();
        assert!(refused("noize = 0.1").contains("unknown field `noize`, expected one of"));
        assert!(refused("elastic = 0.2").contains("elastic = 0.2: expected 0 (off) to 0.03"));
        assert!(refused("blur = nan").contains("blur = NaN: expected 0 (off) to 10"));
        assert!(refused("noise = \"much\"").contains("line 1"));
    }

    #[test]
    fn ct_codes_beyond_the_window_stay_and_others_change() {
        let augment = Augment {
            noise: 0.1,
            probability: 1.,
            blur: 0.,
            rotation_deg: 0.,
            scale: 0.,
            translation: 0.,
            shear: 0.,
            elastic: 0.,
            ..Augment::default()
        };
        let area = SIZE.height * SIZE.width;
        let code = |index: usize| [i8::MIN, 0, i8::MAX][index % 3];
        let mut codes: Vec<i8> = (0..SIZE.slices * area).map(code).collect();
        augment.apply(SIZE, Modality::Ct, &mut codes, &mut vec![0; area], &mut ChaCha8Rng::seed_from_u64(1));
        let changed = codes.iter().enumerate().filter(|(index, found)| **found != code(*index)).count();
        let ends = codes.iter().enumerate().filter(|(index, found)| index % 3 != 1 && **found != code(*index)).count();
        assert_eq!(ends, 0);
        assert!(changed > area / 2, "{changed}");
    }
}
