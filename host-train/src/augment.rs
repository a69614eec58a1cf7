//! Random variations of a training slice and its labels: codes in, codes out, so that the network only ever sees values
//! that a scanner could have given it.
//!
//! Never mirrored left to right: organs have sides, and a mirrored right kidney would be taught as a left one.
//! Geometry moves image (bilinear) and labels (nearest) by one map; intensity touches the image alone. CT codes at the
//! ends of the window stand for everything beyond it (air, bone), so no gain, offset or noise moves them.

use contract::{Modality, quant};
use rand::{Rng, RngCore};
use serde::{Deserialize, Serialize};

/// Largest strength of each variation; 0 switches it off. Draws are uniform up to it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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
        }
    }
}

/// Size of an image, `[slices, height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Channels: neighbouring slices.
    pub slices: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// `code + MIDDLE` lies in `[0, RANGE]`.
const MIDDLE: f32 = 128.;
const RANGE: f32 = 255.;

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
        }
    }

    /// Varies `codes` `[slices, height, width]` and `labels` `[height, width]` in place, as `rng` says.
    ///
    /// # Panics
    /// If a buffer is not as long as `size` says.
    pub fn apply(&self, size: Size, modality: Modality, codes: &mut [i8], labels: &mut [u8], rng: &mut impl RngCore) {
        let Size { slices, height, width } = size;
        assert_eq!(codes.len(), slices * height * width, "codes of {size:?}");
        assert_eq!(labels.len(), height * width, "labels of {size:?}");
        if self.probability <= 0. {
            return;
        }
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

/// Where each pixel of the varied slice comes from.
struct Map {
    /// Rows `x`, `y`: `source = matrix * (pixel - centre) + shift`.
    matrix: [[f32; 2]; 2],
    shift: [f32; 2],
    /// Waves added to x and to y, pixels.
    waves: [Wave; 2],
}

/// `amplitude * sin(row phase + column phase)`, as tables: the sine of a sum needs no sine per pixel.
struct Wave {
    amplitude: f32,
    rows: Vec<(f32, f32)>,
    columns: Vec<(f32, f32)>,
}

impl Map {
    fn draw(strength: &Augment, size: Size, rng: &mut impl RngCore) -> Self {
        let (sin, cos) = either_way(strength.rotation_deg, rng).to_radians().sin_cos();
        let (zoom, shear) = (1. / factor(strength.scale, rng), either_way(strength.shear, rng));
        let matrix = [[zoom * cos, zoom * (shear * cos - sin)], [zoom * sin, zoom * (shear * sin + cos)]];
        let sides = [size.width as f32, size.height as f32];
        let shift = sides.map(|side| (side - 1.) / 2. + either_way(strength.translation, rng) * side);
        let waves = sides.map(|side| Wave::draw(strength.elastic * side, size, rng));
        Self { matrix, shift, waves }
    }

    /// Fills `image` from `codes`, and moves `labels` likewise.
    fn warp(&self, size: Size, codes: &[i8], image: &mut [f32], labels: &mut [u8]) {
        let Size { height, width, .. } = size;
        let (area, before) = (height * width, labels.to_vec());
        let [mx, my] = self.matrix;
        for row in 0..height {
            let dy = row as f32 - (height as f32 - 1.) / 2.;
            for column in 0..width {
                let dx = column as f32 - (width as f32 - 1.) / 2.;
                let x = mx[0] * dx + mx[1] * dy + self.shift[0] + self.waves[0].at(row, column);
                let y = my[0] * dx + my[1] * dy + self.shift[1] + self.waves[1].at(row, column);
                let pixel = row * width + column;
                for (slice, target) in codes.chunks_exact(area).zip(image[pixel..].iter_mut().step_by(area)) {
                    *target = bilinear(slice, width, x, y);
                }
                let (nearest_x, nearest_y) = ((x + 0.5).floor(), (y + 0.5).floor());
                labels[pixel] = at(&before, width, nearest_x as i32, nearest_y as i32, 0);
            }
        }
    }
}

impl Wave {
    fn draw(amplitude: f32, size: Size, rng: &mut impl RngCore) -> Self {
        let (rows, columns) = (Self::phases(size.height, rng), Self::phases(size.width, rng));
        Self { amplitude: either_way(amplitude, rng), rows, columns }
    }

    /// Sine and cosine of a phase that turns up to three times.
    fn phases(length: usize, rng: &mut impl RngCore) -> Vec<(f32, f32)> {
        let (turns, start) = (either_way(3., rng), either_way(std::f32::consts::PI, rng));
        let phase = |index: usize| start + std::f32::consts::TAU * turns * index as f32 / length as f32;
        (0..length).map(|index| phase(index).sin_cos()).collect()
    }

    fn at(&self, row: usize, column: usize) -> f32 {
        let ((sin, cos), (column_sin, column_cos)) = (self.rows[row], self.columns[column]);
        self.amplitude * (sin * column_cos + cos * column_sin)
    }
}

/// Value of a pixel, or `outside`.
fn at<T: Copy>(slice: &[T], width: usize, x: i32, y: i32, outside: T) -> T {
    if x < 0 || y < 0 || x as usize >= width {
        return outside;
    }
    slice.get(y as usize * width + x as usize).copied().unwrap_or(outside)
}

/// Beyond the slice lies the darkest code, as in [`contract::Intake`].
fn bilinear(slice: &[i8], width: usize, x: f32, y: f32) -> f32 {
    let (left, top) = (x.floor(), y.floor());
    let (right_part, lower_part) = (x - left, y - top);
    let (left, top) = (left as i32, top as i32);
    let code = |x, y| f32::from(at(slice, width, x, y, i8::MIN));
    let upper = code(left, top) * (1. - right_part) + code(left + 1, top) * right_part;
    let lower = code(left, top + 1) * (1. - right_part) + code(left + 1, top + 1) * right_part;
    upper * (1. - lower_part) + lower * lower_part
}

/// Gaussian of `sigma` pixels, cut at three of them; the edge pixel repeats.
fn blur(slice: &mut [f32], width: usize, sigma: f32) {
    let radius = (3. * sigma).ceil() as usize;
    if radius == 0 {
        return;
    }
    let height = slice.len() / width;
    let bell = |index: usize| (-0.5 * ((index as f32 - radius as f32) / sigma).powi(2)).exp();
    let total: f32 = (0..=2 * radius).map(bell).sum();
    let weights: Vec<f32> = (0..=2 * radius).map(|index| bell(index) / total).collect();
    let inside = |index: usize, count: usize| index.saturating_sub(radius).min(count - 1);
    let mut across = vec![0.; slice.len()];
    for (source, target) in slice.chunks_exact(width).zip(across.chunks_exact_mut(width)) {
        for (column, value) in target.iter_mut().enumerate() {
            *value = weights.iter().enumerate().map(|(tap, w)| w * source[inside(column + tap, width)]).sum();
        }
    }
    slice.fill(0.);
    for (row, target) in slice.chunks_exact_mut(width).enumerate() {
        for (tap, weight) in weights.iter().enumerate() {
            let source = &across[inside(row + tap, height) * width..][..width];
            target.iter_mut().zip(source).for_each(|(value, source)| *value += weight * source);
        }
    }
}

/// What happens to the brightness of each pixel.
struct Tone {
    /// CT: codes at the ends of the window stay.
    pinned: bool,
    width: usize,
    /// Logarithm of the bias field per row and per column.
    bias: Option<(Vec<f32>, Vec<f32>)>,
    gamma: Option<f32>,
    gain: f32,
    offset: f32,
    noise: f32,
}

impl Tone {
    fn draw(strength: &Augment, size: Size, modality: Modality, rng: &mut impl RngCore) -> Self {
        let mr = modality == Modality::Mr;
        let bias = strength.chosen(if mr { strength.bias } else { 0. }, rng);
        let bias = bias.then(|| {
            let (rows, columns) = (parabola(size.height, rng), parabola(size.width, rng));
            // Each lies in [-1, 1], so that their sum with half the strength stays within it.
            let half = either_way(strength.bias, rng) / 2.;
            (rows.iter().map(|v| v * half).collect(), columns.iter().map(|v| v * half).collect())
        });
        let gamma = strength.chosen(strength.gamma, rng).then(|| factor(strength.gamma, rng));
        let gain = if strength.chosen(strength.gain, rng) { factor(strength.gain, rng) } else { 1. };
        let offset = if strength.chosen(strength.offset, rng) { either_way(strength.offset, rng) } else { 0. };
        let noise = strength.chosen(strength.noise, rng);
        let noise = if noise { either_way(strength.noise, rng).abs() } else { 0. };
        Self { pinned: !mr, width: size.width, bias, gamma, gain, offset, noise }
    }

    fn apply(&self, slice: &mut [f32], rng: &mut impl RngCore) {
        let plain = self.bias.is_none() && self.gamma.is_none() && self.gain == 1. && self.offset == 0.;
        if plain && self.noise == 0. {
            return;
        }
        for (row, pixels) in slice.chunks_exact_mut(self.width).enumerate() {
            for (column, value) in pixels.iter_mut().enumerate() {
                let noise = if self.noise > 0. { self.noise * normal(rng) } else { 0. };
                let mut grey = (*value + MIDDLE) / RANGE;
                if self.pinned && (grey <= 0. || grey >= 1.) {
                    continue;
                }
                if let Some((rows, columns)) = &self.bias {
                    grey *= (rows[row] + columns[column]).exp();
                }
                if let Some(gamma) = self.gamma {
                    grey = grey.clamp(0., 1.).powf(gamma);
                }
                grey = (grey - 0.5) * self.gain + 0.5 + self.offset + noise;
                *value = grey * RANGE - MIDDLE;
            }
        }
    }
}

/// A random parabola over `[-1, 1]`, itself within `[-1, 1]`.
fn parabola(length: usize, rng: &mut impl RngCore) -> Vec<f32> {
    let (slope, bend) = (either_way(0.5, rng), either_way(0.5, rng));
    let place = |index: usize| 2. * (index as f32 + 0.5) / length as f32 - 1.;
    (0..length).map(|index| slope * place(index) + bend * (2. * place(index).powi(2) - 1.)).collect()
}

/// Nearly normal, mean 0, standard deviation 1: the sum of four uniform bytes, which is fast and bounded.
fn normal(rng: &mut impl RngCore) -> f32 {
    let sum: u16 = rng.next_u32().to_le_bytes().iter().map(|&byte| u16::from(byte)).sum();
    // Variance of one uniform byte: (256^2 - 1) / 12.
    (f32::from(sum) - 510.) / (4f32 * 65_535. / 12.).sqrt()
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

    #[test]
    fn a_quarter_turn_is_exact() {
        let size = Size { slices: 1, height: 5, width: 5 };
        let map = Map {
            matrix: [[0., -1.], [1., 0.]],
            shift: [2., 2.],
            waves: [(); 2].map(|()| Wave { amplitude: 0., rows: vec![(0., 0.); 5], columns: vec![(0., 0.); 5] }),
        };
        let codes: Vec<i8> = (0..25).collect();
        let mut labels: Vec<u8> = (0..25).collect();
        let mut image = vec![0.; 25];
        map.warp(size, &codes, &mut image, &mut labels);
        for (row, column) in (0..25).map(|pixel| (pixel / 5, pixel % 5)) {
            let expected = column * 5 + (4 - row);
            assert_eq!(usize::from(labels[row * 5 + column]), expected);
            assert_eq!(image[row * 5 + column], expected as f32);
        }
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

    #[test]
    fn blur_keeps_a_constant_and_spreads_a_point_as_a_gaussian() {
        let mut flat = vec![7f32; 15 * 21];
        blur(&mut flat, 21, 0.8);
        assert!(flat.iter().all(|v| (v - 7.).abs() < 1e-5));
        let mut point = vec![0f32; 15 * 21];
        point[7 * 21 + 10] = 1.;
        blur(&mut point, 21, 0.8);
        let sum: f32 = point.iter().sum();
        let second: f32 = point.iter().enumerate().map(|(i, v)| v * ((i % 21) as f32 - 10.).powi(2)).sum::<f32>();
        assert!((sum - 1.).abs() < 1e-5, "{sum}");
        // Sampling and the cut at three sigma change the variance of 0.64 by less than 2 %.
        assert!((second - 0.64).abs() < 0.0128, "{second}");
    }

    #[test]
    fn noise_has_mean_zero_and_variance_one() {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let draws: Vec<f64> = (0..40_000).map(|_| f64::from(normal(&mut rng))).collect();
        let mean = draws.iter().sum::<f64>() / 4e4;
        let variance = draws.iter().map(|v| v * v).sum::<f64>() / 4e4;
        // Five standard errors: sqrt(1 / n), and at most sqrt(2 / n) for the variance of a bounded sum.
        assert!(mean.abs() < 0.025 && (variance - 1.).abs() < 0.036, "{mean} {variance}");
    }
}
