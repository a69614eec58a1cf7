//! Learning rate as a pure function of the step.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How the learning rate moves from its peak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Rises over the first twentieth of the steps, then half a cosine down to a hundredth (short trainings).
    Cosine,
    /// Times 0.95 every 1000 steps, as the paper's 2D network.
    Paper,
    /// Times 0.95 every 500 steps, as the paper's 3D network.
    Paper3d,
    /// Stays.
    Constant,
}

impl Schedule {
    /// Learning rate of a step, counted from 0, of a training of `steps`.
    pub fn rate(self, peak: f64, step: u64, steps: u64) -> f64 {
        match self {
            Self::Constant => peak,
            Self::Paper => peak * 0.95f64.powf((step / 1000) as f64),
            Self::Paper3d => peak * 0.95f64.powf((step / 500) as f64),
            Self::Cosine => {
                let warm = (steps / 20).max(1);
                if step < warm {
                    return peak * (step + 1) as f64 / warm as f64;
                }
                let done = (step - warm) as f64 / (steps.saturating_sub(warm)).max(1) as f64;
                let floor = 0.01;
                peak * (floor + (1. - floor) * 0.5 * (1. + (core::f64::consts::PI * done.min(1.)).cos()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_at_their_corners() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} against {b}");
        close(Schedule::Cosine.rate(1., 0, 200), 0.1);
        close(Schedule::Cosine.rate(1., 9, 200), 1.);
        close(Schedule::Cosine.rate(1., 10, 200), 1.);
        close(Schedule::Cosine.rate(1., 105, 200), 0.505);
        close(Schedule::Cosine.rate(1., 200, 200), 0.01);
        close(Schedule::Cosine.rate(1., 0, 1), 1.);
        close(Schedule::Paper.rate(1e-3, 999, 5), 1e-3);
        close(Schedule::Paper.rate(1e-3, 2500, 5), 1e-3 * 0.95 * 0.95);
        // facts of the paper's 2D training: 150,000 steps end near 4.6e-7.
        let last = Schedule::Paper.rate(1e-3, 149_999, 0);
        assert!((last / 4.6e-7 - 1.).abs() < 0.06, "{last}");
        // And of its 3D training: 50,000 steps end near 5.9e-7.
        let last = Schedule::Paper3d.rate(1e-4, 49_999, 0);
        assert!((last / 5.9e-7 - 1.).abs() < 0.06, "{last}");
    }
}
