//! Magnetic resonance: a T2-weighted spin echo with fat suppression. Signal from relaxation times, brightness from the
//! coil, magnitude of complex noise.

use crate::{
    grid::Grid,
    random::Draw,
    scene::{Painted, Scene},
    tissue::{Palette, Shade, Tissue},
};

/// What varies between scans.
pub(crate) struct Scan {
    palette: Palette,
    /// Standard deviation of the real and of the imaginary noise, relative to fully relaxed water.
    noise: f32,
    /// Scanner units of fully relaxed water.
    gain: f32,
    /// Brightness is `exp` of a polynomial in patient coordinates: coefficients of x, y, z, xx, yy, zz, xy.
    bias: [f32; 7],
}

/// Signal of a spin echo, relative to fully relaxed water: `density (1 - exp(-TR/T1)) exp(-TE/T2)`.
fn spin_echo(density: f32, t1_ms: f32, t2_ms: f32, tr_ms: f32, te_ms: f32) -> f32 {
    density * (1.0 - libm::expf(-tr_ms / t1_ms)) * libm::expf(-te_ms / t2_ms)
}

impl Scan {
    pub(crate) fn new(draw: &mut Draw) -> Self {
        let (tr_ms, te_ms) = (draw.uniform(2200.0, 4000.0), draw.uniform(64.0, 84.0));
        let unsuppressed = draw.uniform(0.12, 0.30);
        let palette = Tissue::ALL.map(|tissue| {
            let r = tissue.relaxation();
            let (t1, t2) = (r.t1_ms * draw.around(1.0, 0.08), r.t2_ms * draw.around(1.0, 0.08));
            let density = r.density * draw.around(1.0, 0.05) * if r.fat { unsuppressed } else { 1.0 };
            let mean = spin_echo(density, t1, t2, tr_ms, te_ms);
            Shade { mean, texture: r.texture * mean }
        });
        // Surface coils: brighter towards the skin, and never quite even.
        let tilt = [0.18, 0.22, 0.10].map(|spread| draw.around(0.0, spread));
        let rim = [draw.uniform(0.05, 0.30), draw.uniform(0.05, 0.30), draw.around(-0.05, 0.1), draw.around(0.0, 0.12)];
        let bias = [tilt[0], tilt[1], tilt[2], rim[0], rim[1], rim[2], rim[3]];
        Self { palette, noise: draw.uniform(0.010, 0.017), gain: draw.uniform(700.0, 1800.0), bias }
    }

    /// Magnitude image in scanner units, and the labels.
    pub(crate) fn acquire(&self, scene: &Scene, grid: &Grid, draw: &mut Draw) -> Painted {
        let mut painted = scene.paint(grid, &self.palette, 3);
        for (voxel, value) in painted.values.iter_mut().enumerate() {
            let row = voxel / grid.dims[0];
            let index = [voxel % grid.dims[0], row % grid.dims[1], row / grid.dims[1]].map(|v| v as f32);
            let signal = value.max(0.0) * self.brightness(grid.point(index[0], index[1], index[2]));
            let (real, imaginary) = (signal + self.noise * draw.normal(), self.noise * draw.normal());
            *value = self.gain * (real * real + imaginary * imaginary).sqrt();
        }
        painted
    }

    /// Sensitivity of the receiving coils at a point (mm).
    fn brightness(&self, p: [f32; 3]) -> f32 {
        let [x, y, z] = [p[0] / 160.0, p[1] / 110.0, p[2] / 80.0];
        let terms = [x, y, z, x * x, y * y, z * z, x * y];
        libm::expf(terms.iter().zip(self.bias).map(|(term, weight)| term * weight).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spin_echo_follows_its_limits() {
        assert!((spin_echo(0.8, 500.0, 50.0, 1e9, 0.0) - 0.8).abs() < 1e-6, "relaxed and read at once: the density");
        let ratio = spin_echo(1.0, 500.0, 50.0, 1e9, 100.0) / spin_echo(1.0, 500.0, 50.0, 1e9, 50.0);
        assert!((ratio - libm::expf(-1.0)).abs() < 1e-6, "one T2 later");
        let half = spin_echo(1.0, 500.0, 50.0, 500.0 * core::f32::consts::LN_2, 0.0);
        assert!((half - 0.5).abs() < 1e-6, "half recovered after T1 ln 2");
    }

    /// Where there is no signal, the magnitude of complex noise follows Rayleigh's distribution.
    #[test]
    fn background_is_rayleigh() {
        let mut draw = Draw::new(5, 0);
        let scan = Scan { palette: [Shade::default(); Tissue::ALL.len()], noise: 0.02, gain: 1000.0, bias: [0.0; 7] };
        let scene = crate::abdomen::scene(&mut Draw::new(1, 0), false);
        let grid = Grid::new([100, 100, 1], [2.0, 2.0, 7.0], "LPS", [0.0; 3], [0.0; 3]);
        let values = scan.acquire(&scene, &grid, &mut draw).values;
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        // sigma sqrt(pi/2) = 25.066; the standard error of 10,000 draws is 0.13.
        assert!((mean - 25.066).abs() < 0.65, "{mean}");
    }
}
