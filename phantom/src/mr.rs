//! Magnetic resonance: a T2-weighted spin echo with fat suppression for the abdomen, a balanced steady state (bSSFP) for the
//! heart. Signal from relaxation times, brightness from the coil, bands where the field is off, magnitude of complex noise.

use core::f32::consts::PI;

use crate::{
    grid::Grid,
    random::Draw,
    scene::{Painted, Scene},
    subject::Anatomy,
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
    /// Of a balanced steady state.
    bands: Option<Bands>,
}

/// Where the field is off resonance: the phase that spins gain from pulse to pulse (radians) as a polynomial in patient
/// coordinates, coefficients of 1, x, y, z, xx, yy, zz. Near odd multiples of pi the signal breaks down.
struct Bands {
    phase: [f32; 7],
}

impl Bands {
    fn new(draw: &mut Draw) -> Self {
        let tilt = [0.35, 0.45, 0.35].map(|spread| draw.around(0.0, spread));
        // Shimmed in the middle, off towards the lungs' bases and the skin.
        let away = [draw.uniform(0.7, 1.5), draw.uniform(0.5, 1.4), draw.uniform(0.2, 0.8)];
        let sign = if draw.chance(0.5) { 1.0 } else { -1.0 };
        let [xx, yy, zz] = away.map(|value| sign * value);
        Self { phase: [draw.around(0.0, 0.4), tilt[0], tilt[1], tilt[2], xx, yy, zz] }
    }

    /// What is left of the signal at a point in units of the body's half-widths: 1 on resonance.
    fn pass(&self, [x, y, z]: [f32; 3]) -> f32 {
        let terms = [1.0, x, y, z, x * x, y * y, z * z];
        let phase: f32 = terms.iter().zip(self.phase).map(|(term, weight)| term * weight).sum();
        // One shape for all tissues: that of a mean one, at a mean pulse.
        let signal = |phase| steady_state(1.0, 1000.0, 80.0, 3.2, 55.0, phase);
        signal(phase) / signal(0.0)
    }
}

/// Signal of a balanced steady state with alternating pulses of `flip_deg` every `tr_ms`, whose spins turn by `phase`
/// radians between pulses (Freeman and Hill), read at half the time between pulses.
fn steady_state(density: f32, t1_ms: f32, t2_ms: f32, tr_ms: f32, flip_deg: f32, phase: f32) -> f32 {
    let (e1, e2) = (libm::expf(-tr_ms / t1_ms), libm::expf(-tr_ms / t2_ms));
    let (sin, cos) = libm::sincosf(flip_deg.to_radians());
    // Alternation moves the resonance to half a turn.
    let turned = libm::cosf(phase + PI);
    let above = (1.0 - e1) * sin * (1.0 - 2.0 * e2 * turned + e2 * e2).max(0.0).sqrt();
    let below = (1.0 - e1 * cos) * (1.0 - e2 * turned) - (e1 - cos) * (e2 - turned) * e2;
    density * above / below * libm::expf(-0.5 * tr_ms / t2_ms)
}

/// Signal of a spin echo, relative to fully relaxed water: `density (1 - exp(-TR/T1)) exp(-TE/T2)`.
fn spin_echo(density: f32, t1_ms: f32, t2_ms: f32, tr_ms: f32, te_ms: f32) -> f32 {
    density * (1.0 - libm::expf(-tr_ms / t1_ms)) * libm::expf(-te_ms / t2_ms)
}

impl Scan {
    pub(crate) fn new(anatomy: Anatomy, draw: &mut Draw) -> Self {
        let (tr_ms, te_ms) = (draw.uniform(2200.0, 4000.0), draw.uniform(64.0, 84.0));
        // In the heart fat is suppressed weakly or not at all.
        let unsuppressed = match anatomy {
            Anatomy::Abdomen => draw.uniform(0.12, 0.30),
            Anatomy::Heart => draw.uniform(0.55, 1.0),
        };
        let flip_deg = if anatomy == Anatomy::Heart { draw.uniform(48.0, 65.0) } else { 0.0 };
        let palette = Tissue::ALL.map(|tissue| {
            if tissue.of_the_heart() && anatomy != Anatomy::Heart {
                return Shade::default();
            }
            let r = tissue.relaxation();
            let (t1, t2) = (r.t1_ms * draw.around(1.0, 0.08), r.t2_ms * draw.around(1.0, 0.08));
            let density = r.density * draw.around(1.0, 0.05) * if r.fat { unsuppressed } else { 1.0 };
            let mean = match anatomy {
                Anatomy::Abdomen => spin_echo(density, t1, t2, tr_ms, te_ms),
                // Half of the density is the most that a steady state gives: scaled to the same range.
                Anatomy::Heart => 2.0 * steady_state(density, t1, t2, 3.2, flip_deg, 0.0),
            };
            Shade { mean, texture: r.texture * mean }
        });
        // Surface coils: brighter towards the skin, and never quite even.
        let tilt = [0.18, 0.22, 0.10].map(|spread| draw.around(0.0, spread));
        let rim = [draw.uniform(0.05, 0.30), draw.uniform(0.05, 0.30), draw.around(-0.05, 0.1), draw.around(0.0, 0.12)];
        let bias = [tilt[0], tilt[1], tilt[2], rim[0], rim[1], rim[2], rim[3]];
        let (noise, gain) = (draw.uniform(0.010, 0.017), draw.uniform(700.0, 1800.0));
        let bands = (anatomy == Anatomy::Heart).then(|| Bands::new(draw));
        Self { palette, noise, gain, bias, bands }
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

    /// Sensitivity of the receiving coils at a point (mm), and what the bands leave of the signal.
    fn brightness(&self, p: [f32; 3]) -> f32 {
        let [x, y, z] = [p[0] / 160.0, p[1] / 110.0, p[2] / 80.0];
        let terms = [x, y, z, x * x, y * y, z * z, x * y];
        let coil = libm::expf(terms.iter().zip(self.bias).map(|(term, weight)| term * weight).sum());
        self.bands.as_ref().map_or(coil, |bands| coil * bands.pass([x, y, z]))
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

    /// With pulses much closer than T1 and T2, on resonance: `density sin a / (1 + cos a + (1 - cos a) T1 / T2)`; half a turn
    /// between pulses leaves almost nothing.
    #[test]
    fn a_steady_state_follows_its_limits() {
        for (t1, t2) in [(1450.0, 240.0), (1000.0, 46.0), (340.0, 60.0)] {
            let (sin, cos) = libm::sincosf(55f32.to_radians());
            let expected = 0.9 * sin / (1.0 + cos + (1.0 - cos) * t1 / t2);
            let found = steady_state(0.9, t1, t2, 0.1, 55.0, 0.0);
            assert!((found / expected - 1.0).abs() < 0.01, "{found}, expected {expected}");
            assert!(steady_state(0.9, t1, t2, 3.2, 55.0, PI) < 0.35 * expected);
        }
    }

    /// Where there is no signal, the magnitude of complex noise follows Rayleigh's distribution.
    #[test]
    fn background_is_rayleigh() {
        let mut draw = Draw::new(5, 0);
        let scan = Scan {
            palette: [Shade::default(); Tissue::ALL.len()],
            noise: 0.02,
            gain: 1000.0,
            bias: [0.0; 7],
            bands: None,
        };
        let scene = crate::abdomen::scene(&mut Draw::new(1, 0), false);
        let grid = Grid::new([100, 100, 1], [2.0, 2.0, 7.0], "LPS", [0.0; 3], [0.0; 3]);
        let values = scan.acquire(&scene, &grid, &mut draw).values;
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        // sigma sqrt(pi/2) = 25.066; the standard error of 10,000 draws is 0.13.
        assert!((mean - 25.066).abs() < 0.65, "{mean}");
    }
}
