//! Where a slice's time goes, step by step, against what this machine can do: `gantry-edge inspect --profile`.

use std::{
    fmt::Write,
    hint::black_box,
    time::{Duration, Instant},
};

use contract::golden;
use serde::Serialize;

use crate::{
    EdgeError, Engine, Model,
    engine::{Planned, PlannedEngine, Step},
    kernels,
};

/// Steps of one slice with their times.
#[derive(Clone, Debug, Serialize)]
pub struct Profile {
    /// Network.
    pub name: String,
    /// Name of the table of routines.
    pub kernel: &'static str,
    /// Threads: always one here.
    pub threads: usize,
    /// Slices timed.
    pub runs: usize,
    /// The kernel's own speed on data in the first cache, 10^9 multiply-accumulates per second.
    pub peak_gmacs: f64,
    /// Copying memory far larger than the caches, 10^9 bytes per second.
    pub memory_gbytes: f64,
    /// In order.
    pub steps: Vec<StepProfile>,
    /// Sum of the medians, ms.
    pub total_ms: f64,
    /// Of all steps together, padding channels not counted.
    pub percent_of_peak: f64,
}

/// One step.
#[derive(Clone, Debug, Serialize)]
pub struct StepProfile {
    /// Layer that it belongs to, or `image`; of steps that are done together, the first one's.
    pub layer: String,
    /// What it does, step by step.
    pub step: String,
    /// Multiply-accumulates of the layer.
    pub macs: u64,
    /// Bytes of input, weights and output, each once.
    pub bytes: usize,
    /// Median, ms.
    pub ms: f64,
    /// 10^9 multiply-accumulates per second.
    pub gmacs: f64,
    /// Of the measured peak.
    pub percent_of_peak: f64,
}

impl Profile {
    /// The roofline: speed over work per byte, both axes logarithmic, a circle per convolution as large as its time.
    pub fn svg(&self) -> String {
        let convs: Vec<&StepProfile> = self.steps.iter().filter(|step| step.macs > 0).collect();
        let intensity = |step: &StepProfile| step.macs as f64 / step.bytes as f64;
        let most = convs.iter().map(|step| intensity(step)).fold(1., f64::max) * 2.;
        let least = convs.iter().map(|step| intensity(step)).fold(1., f64::min) / 2.;
        let slowest = convs.iter().map(|step| step.gmacs).fold(self.peak_gmacs, f64::min) / 2.;
        let share = |value: f64, low: f64, high: f64| (value / low).ln() / (high / low).ln();
        let x = |value: f64| 70. + 540. * share(value, least, most);
        let y = |value: f64| 350. - 310. * share(value, slowest, self.peak_gmacs * 1.5);
        let mut svg = String::from(SVG_HEAD);
        let corner = (self.peak_gmacs / self.memory_gbytes).clamp(least, most);
        let _ = write!(
            svg,
            r#"<path class="roof" d="M{:.1},{:.1} L{:.1},{:.1} L{:.1},{:.1}"/>"#,
            x(least),
            y((least * self.memory_gbytes).clamp(slowest, self.peak_gmacs)),
            x(corner),
            y(self.peak_gmacs),
            x(most),
            y(self.peak_gmacs)
        );
        for step in convs {
            let (cx, cy, r) = (x(intensity(step)), y(step.gmacs), 3. + 40. * (step.ms / self.total_ms).sqrt());
            let _ = write!(
                svg,
                r#"<circle cx="{cx:.1}" cy="{cy:.1}" r="{r:.1}"><title>{}: {:.1} GMAC/s, {:.0} % of peak, {:.3} ms</title></circle><text x="{cx:.1}" y="{:.1}" class="name">{}</text>"#,
                step.layer,
                step.gmacs,
                step.percent_of_peak,
                step.ms,
                cy + 3.,
                step.layer
            );
        }
        let _ = write!(
            svg,
            r#"<text x="70" y="24">{} on {}: {:.2} ms, {:.0} % of {:.0} GMAC/s</text><text x="340" y="386" class="axis">multiply-accumulates per byte of input, weights and output ({least:.1} to {most:.0})</text><text x="20" y="195" class="axis" transform="rotate(-90 20 195)">GMAC/s ({slowest:.0} to {:.0})</text></svg>"#,
            self.name,
            self.kernel,
            self.total_ms,
            self.percent_of_peak,
            self.peak_gmacs,
            1.5 * self.peak_gmacs
        );
        svg
    }
}

/// Colours that can be read on light and dark ground.
pub(crate) const SVG_HEAD: &str = r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 400" font-family="sans-serif" font-size="14"><style>
text{fill:#222}.axis{font-size:12px;text-anchor:middle}.name{font-size:10px;text-anchor:middle}
circle{fill:#2a7fba;fill-opacity:.35;stroke:#2a7fba}.roof{fill:none;stroke:#c0392b;stroke-width:2}
@media (prefers-color-scheme:dark){svg{background:#111}text{fill:#eee}}
</style>"#;

/// Times every step of the planned engine, `runs` slices of the golden picture.
///
/// # Errors
/// If another engine runs the model.
pub fn profile(model: &Model, engine: &mut Engine, runs: usize) -> Result<Profile, EdgeError> {
    let engine = match engine {
        Engine::Planned(engine) => engine,
        Engine::Tract { why, .. } => {
            return Err(EdgeError::NotPlanned { path: model.path.clone(), reason: why.clone() });
        }
    };
    let spec = model.spec();
    let mut codes = vec![0; engine.image_len()];
    golden::codes(spec.modalities[0], spec.grid.height, spec.grid.width, &mut codes);
    let peak_gmacs = peak(engine) / 1e9;
    let medians = medians(engine, &codes, runs);
    let counts = spec.net.layer_counts().unwrap_or_default();
    let step = |(group, &ms): (&[Planned], &f64)| {
        let macs = match (&group[0].step, group[0].layer) {
            (Step::Conv(_), Some(layer)) => counts[layer].macs,
            _ => 0,
        };
        let gmacs = macs as f64 / (ms * 1e6);
        let layer = |planned: &Planned| planned.layer.map_or("image", |layer| spec.net.layers[layer].name.as_str());
        StepProfile {
            layer: layer(&group[0]).to_string(),
            step: group.iter().map(Planned::words).collect::<Vec<_>>().join(" + "),
            macs,
            bytes: group.iter().map(Planned::bytes).sum(),
            ms,
            gmacs,
            percent_of_peak: 100. * gmacs / peak_gmacs,
        }
    };
    let steps: Vec<StepProfile> = engine.program().grouped().zip(&medians).map(step).collect();
    let total_ms: f64 = medians.iter().sum();
    let macs: u64 = steps.iter().map(|step| step.macs).sum();
    Ok(Profile {
        name: spec.net.name.clone(),
        kernel: engine.kernels().name(),
        threads: 1,
        runs,
        peak_gmacs,
        memory_gbytes: memory() / 1e9,
        steps,
        total_ms,
        percent_of_peak: 100. * macs as f64 / (total_ms * 1e6) / peak_gmacs,
    })
}

/// Median time of each group of steps, ms.
fn medians(engine: &PlannedEngine, codes: &[i8], runs: usize) -> Vec<f64> {
    let program = engine.program();
    let mut times: Vec<Vec<Duration>> = vec![Vec::with_capacity(runs); program.grouped().count()];
    for _ in 0..runs + 1 {
        for (group, times) in program.grouped().zip(&mut times) {
            let start = Instant::now();
            program.run_group(group, codes, 0, None, [0, 1]);
            times.push(start.elapsed());
        }
    }
    times
        .into_iter()
        .map(|mut times| {
            times.remove(0); // Cold.
            times.sort_unstable();
            times[times.len() / 2].as_secs_f64() * 1e3
        })
        .collect()
}

/// Multiply-accumulates per second of the kernel's best tile over few weights and pixels: the best of several tries.
fn peak(engine: &PlannedEngine) -> f64 {
    let best = |tile: kernels::PeakTile| {
        let mut best = 0f64;
        for _ in 0..20 {
            let start = Instant::now();
            black_box(tile.run(200));
            best = best.max(200. * tile.macs() as f64 / start.elapsed().as_secs_f64());
        }
        best
    };
    kernels::PeakTile::all(engine.kernels()).into_iter().map(best).fold(0., f64::max)
}

/// Bytes per second of copying 64 MiB: read and written.
fn memory() -> f64 {
    let from = vec![1u64; 8 << 20];
    let mut to = vec![0u64; 8 << 20];
    let mut best = 0f64;
    for _ in 0..5 {
        let start = Instant::now();
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
        best = best.max(2. * 8. * from.len() as f64 / start.elapsed().as_secs_f64());
    }
    best
}
