//! Latency under steady load: a device that is fast in the first minute and slow in the thirtieth, because it grows hot, is
//! found out before it stands beside a scanner.

use std::{
    fmt::Write,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use contract::Modality;
use serde::Serialize;

use crate::{
    EdgeError, Engine, Model,
    bench::{Lane, cpu_name},
    engine::Options,
    selftest,
    timing::{Stages, Summary},
};

/// Times are summed up over so long.
const MINUTE: Duration = Duration::from_secs(60);

/// Everything that `gantry-edge bench --sustained` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Sustained {
    /// Network.
    pub name: String,
    /// CPU as the system names it.
    pub cpu: String,
    /// Who executed, with what.
    pub engine: String,
    /// Whether this program was built with optimisation.
    pub optimised: bool,
    /// Minute by minute.
    pub minutes: Vec<Minute>,
}

/// One minute, or what was left of the time.
#[derive(Clone, Debug, Serialize)]
pub struct Minute {
    /// From 1.
    pub minute: usize,
    /// Mean clock of all cores at its end, MHz; `None` where the system does not say.
    pub cpu_mhz: Option<f64>,
    /// Hottest sensor at its end, degrees Celsius; `None` where the system does not say.
    pub hottest_c: Option<f64>,
    /// Whole slices.
    pub modalities: Vec<Times>,
}

/// Times of one modality in one minute.
#[derive(Clone, Debug, Serialize)]
pub struct Times {
    /// Branch.
    pub modality: Modality,
    /// Slices.
    pub slices: u64,
    /// Of whole slices.
    pub slice: Summary,
}

/// Segments without a pause, the modalities in turn; `progress` hears the part of the time that is over.
pub fn run(
    path: &Path,
    options: &Options,
    length: Duration,
    mut progress: impl FnMut(f64),
) -> Result<Sustained, EdgeError> {
    let model = Model::load(path)?;
    let mut engine = Engine::with(&model, options)?;
    selftest::demand(&model, &mut engine)?;
    let lane = |&modality| Lane::new(&model, &engine, modality);
    let mut lanes = model.spec().modalities.iter().map(lane).collect::<Result<Vec<_>, _>>()?;
    let (start, mut minutes) = (Instant::now(), vec![]);
    while start.elapsed() < length {
        let end = (start + MINUTE * (minutes.len() as u32 + 1)).min(start + length);
        while Instant::now() < end {
            for lane in &mut lanes {
                lane.run(&mut engine)?;
            }
            progress(start.elapsed().as_secs_f64() / length.as_secs_f64());
        }
        let times = |lane: &mut Lane| {
            let stages = std::mem::take::<Stages>(lane.stages()).summary();
            Times { modality: lane.modality(), slices: stages.slices, slice: stages.slice }
        };
        minutes.push(Minute {
            minute: minutes.len() + 1,
            cpu_mhz: cpu_mhz(),
            hottest_c: hottest_c(),
            modalities: lanes.iter_mut().map(times).collect(),
        });
    }
    Ok(Sustained {
        name: model.spec().net.name.clone(),
        cpu: cpu_name(),
        engine: engine.to_string(),
        optimised: !cfg!(debug_assertions),
        minutes,
    })
}

impl Sustained {
    /// The last minute's median over the first one's, per modality.
    pub fn drift(&self) -> Vec<(Modality, f64)> {
        let (Some(first), Some(last)) = (self.minutes.first(), self.minutes.last()) else { return vec![] };
        let pairs = first.modalities.iter().zip(&last.modalities);
        pairs.map(|(first, last)| (first.modality, last.slice.p50_ms / first.slice.p50_ms)).collect()
    }

    /// Median and 99th percentile over the minutes as an SVG picture.
    pub fn svg(&self) -> String {
        const LEFT: f64 = 60.;
        const BOTTOM: f64 = 350.;
        const COLORS: [&str; 2] = ["#c2571a", "#2a6fb0"];
        let most = self.minutes.iter().flat_map(|minute| &minute.modalities).map(|times| times.slice.p99_ms);
        let most = most.fold(1e-3, f64::max) * 1.1;
        let last = self.minutes.len().max(2) as f64;
        let x = |minute: usize| LEFT + 560. * (minute as f64 - 1.) / (last - 1.);
        let y = |ms: f64| BOTTOM - 310. * ms / most;
        let mut svg = String::from(crate::profile::SVG_HEAD);
        let _ = write!(
            svg,
            r#"<text x="{LEFT}" y="24">{} on {}, steady load</text><path d="M{LEFT} 40V{BOTTOM}H620" fill="none" stroke="currentColor"/>"#,
            escaped(&self.name),
            escaped(&self.cpu)
        );
        for part in 0..=4 {
            let ms = most * f64::from(part) / 4.;
            let _ = write!(svg, r#"<text x="30" y="{:.0}" class="axis">{ms:.2} ms</text>"#, y(ms) + 4.);
        }
        let _ = write!(svg, r#"<text x="300" y="386" class="axis">minute 1 to {}</text>"#, self.minutes.len());
        let modalities = self.minutes.first().map_or(0, |minute| minute.modalities.len());
        for (index, color) in (0..modalities).zip(COLORS) {
            for (rank, dash) in [("p50", ""), ("p99", r#" stroke-dasharray="5 4""#)] {
                let ms = |minute: &Minute| {
                    let slice = &minute.modalities[index].slice;
                    if rank == "p50" { slice.p50_ms } else { slice.p99_ms }
                };
                let points: Vec<String> =
                    self.minutes.iter().map(|minute| format!("{:.1},{:.1}", x(minute.minute), y(ms(minute)))).collect();
                let name = self.minutes[0].modalities[index].modality;
                let end = self.minutes.last().map_or(0., &ms);
                let _ = write!(
                    svg,
                    r#"<polyline points="{}" fill="none" stroke="{color}" stroke-width="2"{dash}/><text x="590" y="{:.0}" class="axis" fill="{color}">{name} {rank}</text>"#,
                    points.join(" "),
                    y(end) - 6.
                );
            }
        }
        svg.push_str("</svg>");
        svg
    }
}

/// Text for XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Mean clock of the cores.
fn cpu_mhz() -> Option<f64> {
    let cores = fs::read_dir("/sys/devices/system/cpu").ok()?.flatten();
    let khz = |core: fs::DirEntry| number(&core.path().join("cpufreq/scaling_cur_freq"));
    let scaling: Vec<f64> = cores.filter_map(khz).map(|khz| khz / 1e3).collect();
    let mhz = match scaling.is_empty() {
        false => scaling,
        true => {
            let info = fs::read_to_string("/proc/cpuinfo").ok()?;
            let clocks = info.lines().filter(|line| line.starts_with("cpu MHz"));
            clocks.filter_map(|line| line.split(':').nth(1)?.trim().parse().ok()).collect()
        }
    };
    (!mhz.is_empty()).then(|| mhz.iter().sum::<f64>() / mhz.len() as f64)
}

/// The hottest of the kernel's sensors.
fn hottest_c() -> Option<f64> {
    let zones = fs::read_dir("/sys/class/thermal").ok()?.flatten();
    let milli = zones.filter_map(|zone| number(&zone.path().join("temp")));
    milli
        .map(|milli| milli / 1e3)
        .fold(None, |hottest: Option<f64>, c| Some(hottest.map_or(c, |hottest| hottest.max(c))))
}

fn number(path: &Path) -> Option<f64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_and_picture_are_of_the_first_and_last_minute() {
        let minute = |minute, p50_ms: f64| {
            let slice = Summary { p50_ms, p90_ms: p50_ms, p99_ms: 2. * p50_ms, p999_ms: 9., max_ms: 9. };
            let times = Times { modality: Modality::Mr, slices: 7, slice };
            Minute { minute, cpu_mhz: None, hottest_c: None, modalities: vec![times] }
        };
        let (name, cpu, engine) = ("a<b".to_string(), "c".to_string(), "e".to_string());
        let report = Sustained {
            name,
            cpu,
            engine,
            optimised: true,
            minutes: vec![minute(1, 2.), minute(2, 5.), minute(3, 3.)],
        };
        assert_eq!(report.drift(), [(Modality::Mr, 1.5)]);
        let svg = report.svg();
        assert!(svg.contains("a&lt;b on c") && svg.contains("minute 1 to 3") && svg.contains("mr p99"));
        // The largest time, 10 ms, is below the top; 2 ms in the first minute.
        assert!(svg.contains("points=\"60.0,293.6 340.0,209.1 620.0,265.5\""), "{svg}");
    }
}
