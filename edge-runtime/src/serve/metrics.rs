//! What the service counts and times, for people and monitors. Written by collectors and sources, never by the loop.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contract::Modality;
use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use serde::Serialize;

use super::frame::Stamps;
use crate::{
    Code,
    timing::{Stage, Summary},
};

/// Where a slice's time goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// First to last byte.
    Receive,
    /// Last byte to raw values.
    Decode,
    /// Waiting for the loop.
    Queue,
    /// Intensity rule and model grid.
    Preprocess,
    /// The network.
    Infer,
    /// Labels back to the scanner's grid.
    Postprocess,
    /// Making a file of a slice or a series.
    Encode,
    /// Sending an object.
    Send,
    /// Last byte to label map.
    GlassToMask,
}

impl Step {
    /// All, in the order in which a slice passes them.
    pub const ALL: [Self; 9] = [
        Self::Receive,
        Self::Decode,
        Self::Queue,
        Self::Preprocess,
        Self::Infer,
        Self::Postprocess,
        Self::Encode,
        Self::Send,
        Self::GlassToMask,
    ];

    /// Name in metrics and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Decode => "decode",
            Self::Queue => "queue",
            Self::Preprocess => "preprocess",
            Self::Infer => "infer",
            Self::Postprocess => "postprocess",
            Self::Encode => "encode",
            Self::Send => "send",
            Self::GlassToMask => "glass_to_mask",
        }
    }
}

/// What became of a slice, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It has a label map in time.
    Segmented,
    /// It has a label map after its deadline.
    Stale,
    /// A slice of one value: background.
    Blank,
    /// It must not be segmented.
    Refused,
    /// It missed its deadline, or too many waited.
    Dropped,
}

impl Outcome {
    /// Whether there is a label map: a blank slice's is background.
    pub const fn has_labels(self) -> bool {
        matches!(self, Self::Segmented | Self::Stale | Self::Blank)
    }

    /// Name in metrics and lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Segmented => "segmented",
            Self::Stale => "stale",
            Self::Blank => "blank",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
        }
    }
}

/// Counts and times since the start.
#[derive(Default)]
pub struct Metrics(Mutex<Numbers>);

#[derive(Default)]
struct Numbers {
    received: u64,
    slices: BTreeMap<(Modality, Outcome), u64>,
    refusals: BTreeMap<Code, u64>,
    series: BTreeMap<&'static str, u64>,
    associations: BTreeMap<&'static str, u64>,
    sent: u64,
    steps: [[Stage; Step::ALL.len()]; 2],
}

/// Everything at one moment, for reports.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Instances and volumes that came.
    pub received: u64,
    /// Slices by `modality outcome`.
    pub slices: BTreeMap<String, u64>,
    /// Refusals, misses and failures by code.
    pub codes: BTreeMap<&'static str, u64>,
    /// Series by what became of them.
    pub series: BTreeMap<&'static str, u64>,
    /// Times by `modality step`.
    pub times: BTreeMap<String, Summary>,
}

impl Metrics {
    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instance or volume came.
    pub fn received(&self) {
        self.numbers().received += 1;
    }

    /// A slice left the loop; its times count if the network ran.
    pub fn slice(&self, modality: Modality, outcome: Outcome, stamps: &Stamps) {
        let mut numbers = self.numbers();
        *numbers.slices.entry((modality, outcome)).or_default() += 1;
        if !matches!(outcome, Outcome::Segmented | Outcome::Stale) {
            return;
        }
        let Stamps { begun, received, decoded, started, prepared, inferred, finished } = *stamps;
        let steps = &mut numbers.steps[modality.index()];
        let mut time = |step: Step, from: std::time::Instant, to: std::time::Instant| {
            steps[step as usize].record(to.saturating_duration_since(from));
        };
        time(Step::Receive, begun, received);
        time(Step::Decode, received, decoded);
        time(Step::Queue, decoded, started);
        time(Step::Preprocess, started, prepared);
        time(Step::Infer, prepared, inferred);
        time(Step::Postprocess, inferred, finished);
        time(Step::GlassToMask, received, finished);
    }

    /// A step outside the loop took so long.
    pub fn time(&self, modality: Modality, step: Step, took: Duration) {
        self.numbers().steps[modality.index()][step as usize].record(took);
    }

    /// Something was refused, missed or failed.
    pub fn refusal(&self, code: Code) {
        *self.numbers().refusals.entry(code).or_default() += 1;
    }

    /// A series is over.
    pub fn series(&self, what: &'static str) {
        *self.numbers().series.entry(what).or_default() += 1;
    }

    /// An association began or ended.
    pub fn association(&self, what: &'static str) {
        *self.numbers().associations.entry(what).or_default() += 1;
    }

    /// An object was sent.
    pub fn sent(&self) {
        self.numbers().sent += 1;
    }

    /// Everything now.
    pub fn snapshot(&self) -> Snapshot {
        let numbers = self.numbers();
        let pair = |modality: Modality, name: &str| format!("{modality} {name}");
        let times = Modality::ALL.into_iter().flat_map(|modality| {
            let steps = &numbers.steps[modality.index()];
            Step::ALL.map(|step| (pair(modality, step.name()), &steps[step as usize]))
        });
        let slices =
            numbers.slices.iter().map(|((modality, outcome), count)| (pair(*modality, outcome.name()), *count));
        Snapshot {
            received: numbers.received,
            slices: slices.collect(),
            codes: numbers.refusals.iter().map(|(code, count)| (code.name(), *count)).collect(),
            series: numbers.series.clone(),
            times: times.filter(|(_, stage)| stage.count() > 0).map(|(name, stage)| (name, stage.summary())).collect(),
        }
    }

    /// Everything now as OpenMetrics text.
    pub fn text(&self, ready: bool, under_way: usize, objects_waiting: &BTreeMap<String, u64>) -> String {
        let numbers = self.numbers();
        let mut registry = Registry::with_prefix("gantry");
        let gauge = |value: i64| {
            let gauge: Gauge = Gauge::default();
            gauge.set(value);
            gauge
        };
        let count = |value: u64| {
            let counter: Counter = Counter::default();
            counter.inc_by(value);
            counter
        };
        registry.register("ready", "Whether slices are taken", gauge(ready.into()));
        registry.register("slices_under_way", "Slices in the loop or before it", gauge(under_way as i64));
        registry.register("instances", "Instances and volumes that came", count(numbers.received));
        registry.register("objects_sent", "Objects that destinations took", count(numbers.sent));
        let slices = numbers.slices.iter().map(|((modality, outcome), value)| {
            (vec![("modality", modality.name().into()), ("outcome", outcome.name().into())], *value)
        });
        counters(&mut registry, "slices", "Slices by what became of them", slices);
        let one = |label, name: &str, value: &u64| (vec![(label, name.to_owned())], *value);
        let codes = numbers.refusals.iter().map(|(code, value)| one("code", code.name(), value));
        counters(&mut registry, "refusals", "Refusals, misses and failures by stable code", codes);
        let series = numbers.series.iter().map(|(what, value)| one("what", what, value));
        counters(&mut registry, "series", "Series by what became of them", series);
        let associations = numbers.associations.iter().map(|(what, value)| one("what", what, value));
        counters(&mut registry, "associations", "Associations that began, by how they ended", associations);
        let waiting = Family::<Labels, Gauge>::default();
        for (destination, value) in objects_waiting {
            waiting.get_or_create(&vec![("destination", destination.clone())]).set(*value as i64);
        }
        registry.register("objects_waiting", "Objects that wait for a destination", waiting);
        let quantiles = Family::<Labels, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
        let timed = Modality::ALL.into_iter().flat_map(|modality| {
            Step::ALL.map(|step| (modality, step, &numbers.steps[modality.index()][step as usize]))
        });
        for (modality, step, stage) in timed.filter(|(.., stage)| stage.count() > 0) {
            let Summary { p50_ms, p90_ms, p99_ms, p999_ms, max_ms } = stage.summary();
            for (quantile, ms) in
                [("0.5", p50_ms), ("0.9", p90_ms), ("0.99", p99_ms), ("0.999", p999_ms), ("1", max_ms)]
            {
                let labels = [("modality", modality.name()), ("step", step.name()), ("rank", quantile)];
                let labels = labels.map(|(name, value)| (name, value.to_owned())).to_vec();
                quantiles.get_or_create(&labels).set(ms / 1e3);
            }
        }
        registry.register_with_unit("step", "Time of each step since the start, by rank", Unit::Seconds, quantiles);
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut out, &registry);
        out
    }
}

/// Names and values of labels.
type Labels = Vec<(&'static str, String)>;

fn counters(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    values: impl Iterator<Item = (Labels, u64)>,
) {
    let family = Family::<Labels, Counter>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).inc_by(value);
    }
    registry.register(name, help, family);
}
