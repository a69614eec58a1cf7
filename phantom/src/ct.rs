//! Computed tomography: attenuation of every tissue, then the errors of a scan added the way they arise.
//! A slice is projected, each ray gets photon noise and the beam hardening that bone causes, and only these *errors* are
//! filtered and projected back. So the noise has the band-pass spectrum of a filtered back-projection, is worst along
//! the rays that lose most photons, and streaks run between bones without anybody drawing them.

use core::f32::consts::PI;

use crate::{
    grid::Grid,
    random::Draw,
    scene::{Painted, Scene},
    subject::Anatomy,
    tissue::{Palette, Shade, Tissue},
};

/// Attenuation of water at a diagnostic beam's mean energy, per mm (typical value).
const WATER_PER_MM: f32 = 0.02;

/// What varies between scans.
pub(crate) struct Scan {
    palette: Palette,
    /// Root mean square of the noise inside the body, HU; the scanner's exposure control holds it.
    noise_hu: f32,
    /// Share of a ray's attenuation that is lost per unit of attenuation in bone.
    hardening: f32,
}

impl Scan {
    /// In the portal-venous phase for the abdomen; when the bolus fills the left heart, for the heart.
    pub(crate) fn new(anatomy: Anatomy, draw: &mut Draw) -> Self {
        // Organs have taken up little when the bolus is in the left heart.
        let (dose, uptake) = match anatomy {
            Anatomy::Abdomen => (draw.uniform(0.65, 1.1), 1.0),
            Anatomy::Heart => (draw.uniform(0.82, 1.08), 0.35),
        };
        // A fatty liver is common, and darker than the spleen.
        let fatty = if draw.chance(0.25) { draw.uniform(-25.0, -8.0) } else { 0.0 };
        let palette = Tissue::ALL.map(|tissue| {
            if tissue.of_the_heart() && anatomy != Anatomy::Heart {
                return Shade::default();
            }
            let a = tissue.attenuation();
            let share = if tissue.of_the_heart() { dose } else { dose * uptake };
            let mean = draw.around(a.native_hu + share * a.enhancement_hu, a.spread_hu);
            let shift = if matches!(tissue, Tissue::Liver | Tissue::LiverVessel) { fatty } else { 0.0 };
            Shade { mean: mean + shift, texture: a.texture_hu }
        });
        Self { palette, noise_hu: draw.uniform(9.0, 16.0), hardening: draw.uniform(0.010, 0.022) }
    }

    /// HU of a scan, and the labels.
    pub(crate) fn acquire(&self, scene: &Scene, grid: &Grid, draw: &mut Draw) -> Painted {
        let mut painted = scene.paint(grid, &self.palette, 3);
        let beams = Beams::new(grid);
        let slices = painted.values.chunks_exact(grid.dims[0] * grid.dims[1]);
        let errors: Vec<[f32; 2]> = slices.flat_map(|slice| beams.errors(slice, draw)).collect();
        let gain = self.noise_hu / body_rms(&painted.values, &errors).max(1e-6);
        for (value, [noise, streak]) in painted.values.iter_mut().zip(&errors) {
            *value += gain * noise + self.hardening * streak;
        }
        painted
    }
}

/// Root mean square of the noise over everything denser than lung.
fn body_rms(values: &[f32], errors: &[[f32; 2]]) -> f32 {
    let (mut sum, mut count) = (0.0, 0.0);
    for (value, [noise, _]) in values.iter().zip(errors) {
        if *value > -300.0 {
            sum += f64::from(noise * noise);
            count += 1.0;
        }
    }
    (sum / f64::max(count, 1.0)).sqrt() as f32
}

/// Parallel rays in many directions through one slice of square pixels.
struct Beams {
    width: usize,
    height: usize,
    pixel_mm: f32,
    /// Detector elements per direction; one pixel wide.
    bins: usize,
    /// Cosine and sine of each direction, over half a turn.
    directions: Vec<(f32, f32)>,
    /// The ramp filter of Ramachandran and Lakshminarayanan, smoothed by a Hann window; distance zero at index `bins`.
    filter: Vec<f32>,
}

impl Beams {
    fn new(grid: &Grid) -> Self {
        let [width, height, _] = grid.dims;
        let bins = ((width * width + height * height) as f32).sqrt() as usize + 4;
        let count = width.max(height) * 3 / 8;
        let directions = (0..count).map(|n| {
            let (sin, cos) = libm::sincosf(PI * n as f32 / count as f32);
            (cos, sin)
        });
        let ramp = |n: usize| match n {
            0 => 0.25,
            n if n % 2 == 1 => -1.0 / (PI * PI * (n * n) as f32),
            _ => 0.0,
        };
        let hann = |n: usize| 0.5 * ramp(n) + 0.25 * (ramp(n + 1) + ramp(n.abs_diff(1)));
        let filter = (0..2 * bins).map(|n| hann(n.abs_diff(bins))).collect();
        Self { width, height, pixel_mm: grid.spacing_mm[0], bins, directions: directions.collect(), filter }
    }

    /// Errors of every pixel of a slice in HU: photon noise of arbitrary size, and the streaks of full hardening.
    fn errors(&self, slice: &[f32], draw: &mut Draw) -> Vec<[f32; 2]> {
        let mut image = vec![[0.0; 2]; slice.len()];
        let solid = self.solid(slice);
        for &direction in &self.directions {
            let mut rays = self.project(&solid, direction);
            for [all, bone] in &mut rays {
                let noise = draw.normal() * libm::expf(0.5 * all.min(9.0));
                [*all, *bone] = [noise, -*all * *bone];
            }
            self.back_project(&self.filtered(&rays), direction, &mut image);
        }
        image
    }

    /// Pixels that attenuate: position from the middle, attenuation over one pixel, and the part of it due to bone.
    fn solid(&self, slice: &[f32]) -> Vec<([f32; 2], [f32; 2])> {
        let per_hu = WATER_PER_MM * self.pixel_mm / 1000.0;
        let mut solid = Vec::new();
        for (pixel, hu) in slice.iter().enumerate().filter(|(_, hu)| **hu > -950.0) {
            let (x, y) = ((pixel % self.width) as f32, (pixel / self.width) as f32);
            let from_middle = [x - 0.5 * (self.width - 1) as f32, y - 0.5 * (self.height - 1) as f32];
            solid.push((from_middle, [per_hu * (hu + 1000.0), per_hu * (hu - 200.0).max(0.0)]));
        }
        solid
    }

    /// Line integrals: each pixel is shared between the two rays next to its centre.
    fn project(&self, solid: &[([f32; 2], [f32; 2])], (cos, sin): (f32, f32)) -> Vec<[f32; 2]> {
        let mut paths = vec![[0.0; 2]; self.bins];
        let middle = 0.5 * (self.bins - 1) as f32;
        for ([x, y], [all, bone]) in solid {
            let position = x * cos + y * sin + middle;
            let bin = position as i32;
            let right = position - bin as f32;
            let bin = bin as usize;
            let left = 1.0 - right;
            paths[bin][0] += left * all;
            paths[bin][1] += left * bone;
            paths[bin + 1][0] += right * all;
            paths[bin + 1][1] += right * bone;
        }
        paths
    }

    fn filtered(&self, rays: &[[f32; 2]]) -> Vec<[f32; 2]> {
        let mut out = vec![[0.0; 2]; self.bins];
        for (n, ray) in rays.iter().enumerate().filter(|(_, ray)| **ray != [0.0; 2]) {
            for (sum, weight) in out.iter_mut().zip(&self.filter[self.bins - n..]) {
                sum[0] += weight * ray[0];
                sum[1] += weight * ray[1];
            }
        }
        out
    }

    /// Adds one direction's filtered rays to the image, in HU.
    fn back_project(&self, rays: &[[f32; 2]], (cos, sin): (f32, f32), image: &mut [[f32; 2]]) {
        let scale = PI / self.directions.len() as f32 / self.pixel_mm * 1000.0 / WATER_PER_MM;
        // Positions on the detector count 65,536ths of an element: one integer addition per pixel.
        let fixed = |position: f32| (position * 65536.0).round() as i32;
        let (middle, step) = (0.5 * (self.bins - 1) as f32, fixed(cos));
        // Value of each element, and the way to the next one.
        let slopes: Vec<[f32; 4]> = (rays.windows(2))
            .map(|pair| [pair[0][0], pair[0][1], pair[1][0] - pair[0][0], pair[1][1] - pair[0][1]])
            .map(|ray| ray.map(|value| scale * value))
            .collect();
        for (y, row) in image.chunks_exact_mut(self.width).enumerate() {
            let left = 0.5 * (self.width - 1) as f32 * cos;
            let mut position = fixed((y as f32 - 0.5 * (self.height - 1) as f32) * sin + middle - left);
            for value in row {
                let [a, b, to_c, to_d] = slopes[(position >> 16) as usize];
                let right = (position & 0xffff) as f32 / 65536.0;
                value[0] += a + right * to_c;
                value[1] += b + right * to_d;
                position += step;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beams(width: usize) -> Beams {
        Beams::new(&Grid::new([width, width, 1], [2.0, 2.0, 5.0], "LPS", [0.0; 3], [0.0; 3]))
    }

    /// Projecting a disc, filtering and projecting back gives the disc again: geometry and scale of the chain.
    #[test]
    fn back_projection_inverts_projection() {
        let beams = beams(96);
        let inside = |pixel: usize, radius: f32| {
            let (x, y) = ((pixel % 96) as f32 - 47.5, (pixel / 96) as f32 - 47.5);
            (x - 8.0) * (x - 8.0) + y * y < radius * radius
        };
        let disc: Vec<f32> = (0..96 * 96).map(|p| if inside(p, 25.0) { 0.0 } else { -1000.0 }).collect();
        let solid = beams.solid(&disc);
        let mut image = vec![[0.0; 2]; disc.len()];
        for &direction in &beams.directions {
            beams.back_project(&beams.filtered(&beams.project(&solid, direction)), direction, &mut image);
        }
        let core: Vec<f32> = (0..disc.len()).filter(|p| inside(*p, 20.0)).map(|p| image[p][0]).collect();
        let mean = core.iter().sum::<f32>() / core.len() as f32;
        // 48 directions are few: streaks are expected, a wrong scale is not. Water is 1000 above air.
        assert!((mean - 1000.0).abs() < 30.0, "mean {mean}");
    }

    /// Power of the noise grows from low to middle frequencies (the ramp) and falls to high ones (the window).
    /// Expected of `f (1 + cos 2 pi f)^2` at 1/32, 1/8 and 7/16 cycles per pixel: 0.12, 0.36, 0.003.
    #[test]
    fn noise_has_the_spectrum_of_a_reconstruction() {
        let beams = beams(96);
        let mut power = [0.0f64; 3];
        for seed in 0..30 {
            let noise = beams.errors(&[-1000.0; 96 * 96], &mut Draw::new(seed, 0));
            for (sum, cycles) in power.iter_mut().zip([2, 8, 28]) {
                for (fx, fy) in [(cycles, 0), (0, cycles)] {
                    *sum += power_at(&noise, fx, fy);
                }
            }
        }
        let [low, middle, high] = power;
        assert!(middle > 1.5 * low, "{power:?}");
        assert!(middle > 10.0 * high, "{power:?}");
    }

    /// Power of the middle 64x64 pixels, faded out to the border, at so many cycles in 64 pixels.
    fn power_at(noise: &[[f32; 2]], fx: usize, fy: usize) -> f64 {
        let (mut real, mut imaginary) = (0.0, 0.0);
        for pixel in 0..64 * 64 {
            let (x, y) = (pixel % 64, pixel / 64);
            let (sin, cos) = libm::sincos(core::f64::consts::TAU * ((fx * x + fy * y) % 64) as f64 / 64.0);
            let fade = |n: usize| 0.5 - 0.5 * libm::cos(core::f64::consts::TAU * n as f64 / 64.0);
            let value = fade(x) * fade(y) * f64::from(noise[(y + 16) * 96 + x + 16][0]);
            real += value * cos;
            imaginary += value * sin;
        }
        real * real + imaginary * imaginary
    }
}
