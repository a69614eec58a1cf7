//! How well int8 stands for f32: range, scale, signal-to-noise and mean error of every layer and modality, label maps, and
//! what the files weigh.

use std::fmt::Write;

use contract::{Modality, net::Op};
use serde::{Deserialize, Serialize};
use tract_onnx::pb::ModelProto;

use crate::{
    ExportError,
    accuracy::Accuracy,
    branch::value_name,
    calibrate::{Range, Sample},
    choose::{Candidate, Score},
    engine::{Runner, reals},
    fold::Folded,
    quantise::Quantised,
    samples::thin,
};

/// Slices per modality that signal and noise are measured on.
const MEASURED: usize = 8;

/// The whole report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How ranges were found, e.g. `percentile=99.99`; with `auto`, the method that it chose.
    pub calibration: String,
    /// Whether biases were corrected.
    pub bias_correction: bool,
    /// Whether channels were equalised.
    pub equalise: bool,
    /// Calibration slices per modality, in the order of the model's modalities.
    pub slices: Vec<usize>,
    /// Weights of the files.
    pub sizes: Sizes,
    /// What `auto` tried, in order; empty where the method was given.
    pub candidates: Vec<Candidate>,
    /// Label maps of the calibration slices, one per modality.
    pub accuracy: Vec<Accuracy>,
    /// One per layer and modality.
    pub layers: Vec<LayerReport>,
}

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// The int8 file.
    pub int8_bytes: usize,
    /// The f32 file.
    pub f32_bytes: usize,
    /// What the int8 file holds more than one with the first modality only; 0 with one modality.
    pub second_modality_bytes: usize,
}

/// One layer in one branch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerReport {
    /// Layer.
    pub layer: String,
    /// `conv`, `pool`, ...
    pub kind: String,
    /// Branch.
    pub modality: Modality,
    /// Calibrated smallest real; reals are those of the network that was quantised, equalised or not.
    pub min: f32,
    /// Calibrated largest real.
    pub max: f32,
    /// Real per code step.
    pub scale: f32,
    /// Code of real 0.
    pub zero_point: i8,
    /// `10 log10(sum f32^2 / sum (f32 - int8)^2)`, dB.
    pub sqnr_db: f32,
    /// Mean of int8 - f32, in steps of `scale`.
    pub mean_error: f32,
    /// Mean over channels of the magnitude of each channel's mean of int8 - f32, in steps of `scale`: what bias correction
    /// takes away, and what signs do not hide.
    pub channel_error: f32,
    /// Share of codes at either end of the range; at -128 only where that is not real 0.
    pub saturated: f32,
}

/// Runs both files on the first samples of each modality and compares every value.
pub fn measure(
    folded: &Folded,
    quantised: &Quantised,
    files: [&ModelProto; 2],
    ranges: &[Vec<Range>],
    samples: &[Sample],
) -> Result<Vec<LayerReport>, ExportError> {
    let spec = &folded.spec;
    let names: Vec<&str> = (1..=spec.net.layers.len()).map(|value| value_name(spec, value)).collect();
    let mut reports = vec![];
    for (row, &modality) in spec.modalities.iter().enumerate() {
        let [float, int8] = files;
        let (float, int8) = (Runner::new(float, modality, &names)?, Runner::new(int8, modality, &names)?);
        let mut sums: Vec<Sums> = folded.shapes[1..].iter().map(|shape| Sums::new(shape.channels)).collect();
        for sample in thin(samples, modality, MEASURED) {
            let expected = float.run_f32(&reals(&sample.codes, spec.intensity.scale))?;
            let found = int8.run_i8(&sample.codes)?;
            for (index, (expected, found)) in expected.iter().zip(&found).enumerate() {
                let group = quantised.group(index + 1);
                sums[index].add(expected, found, group.scales[row], group.zero_point);
            }
        }
        for (index, sums) in sums.iter().enumerate() {
            let group = quantised.group(index + 1);
            reports.push(LayerReport {
                layer: spec.net.layers[index].name.clone(),
                kind: kind(&spec.net.layers[index].op).to_string(),
                modality,
                min: ranges[row][index + 1].min,
                max: ranges[row][index + 1].max,
                scale: group.scales[row],
                zero_point: group.zero_point,
                sqnr_db: (10. * (sums.signal / sums.noise).log10()) as f32,
                mean_error: (sums.errors.iter().sum::<f64>() / sums.count as f64) as f32,
                channel_error: (sums.errors.iter().map(|error| error.abs()).sum::<f64>() / sums.count as f64) as f32,
                saturated: (sums.saturated as f64 / sums.count as f64) as f32,
            });
        }
    }
    Ok(reports)
}

struct Sums {
    signal: f64,
    noise: f64,
    /// Of int8 - f32 in code steps, per channel.
    errors: Vec<f64>,
    saturated: u64,
    count: u64,
}

impl Sums {
    fn new(channels: usize) -> Self {
        Self { signal: 0., noise: 0., errors: vec![0.; channels], saturated: 0, count: 0 }
    }

    fn add(&mut self, expected: &[f32], found: &[i8], scale: f32, zero_point: i8) {
        let pixels = found.len() / self.errors.len();
        for (index, (&real, &code)) in expected.iter().zip(found).enumerate() {
            let error = f64::from(contract::quant::dequantise(code, scale, zero_point) - real);
            self.signal += f64::from(real).powi(2);
            self.noise += error.powi(2);
            self.errors[index / pixels] += error / f64::from(scale);
            self.saturated += u64::from(code == i8::MAX || code == i8::MIN && zero_point != i8::MIN);
        }
        self.count += found.len() as u64;
    }
}

fn kind(op: &Op) -> &'static str {
    match op {
        Op::Conv(_) => "conv",
        Op::Deconv(_) => "deconv",
        Op::Norm { .. } => "norm",
        Op::Add { .. } => "add",
        Op::Concat => "concat",
        Op::MaxPool { .. } => "pool",
        Op::Upsample { .. } => "upsample",
        Op::Interpolate { .. } => "interpolate",
        Op::PixelShuffle { .. } => "shuffle",
        Op::PadChannels { .. } => "pad",
    }
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        let mut text = self.layer_table();
        text += &self.candidate_table();
        text += &self.accuracy_table();
        let on_off = |on: bool| if on { "on" } else { "off" };
        let (correction, equalise) = (on_off(self.bias_correction), on_off(self.equalise));
        let _ = writeln!(text, "ranges {}, bias correction {correction}, equalisation {equalise}", self.calibration);
        let Sizes { int8_bytes, f32_bytes, second_modality_bytes } = self.sizes;
        let percent = |part: usize, whole: usize| 100. * part as f64 / whole as f64;
        let ratio = percent(int8_bytes, f32_bytes);
        let second = percent(second_modality_bytes, int8_bytes);
        let _ = writeln!(text, "int8 {int8_bytes} bytes, f32 {f32_bytes} bytes: {ratio:.1} %");
        let _ =
            writeln!(text, "the second modality adds {second_modality_bytes} bytes: {second:.2} % of the int8 file");
        text
    }

    /// Errors in code steps: the mean, and the mean magnitude of the channels' means.
    fn layer_table(&self) -> String {
        let mut text = format!("{:<12}{:<10}{:<4}{:>10}{:>10}{:>12}", "layer", "kind", "", "min", "max", "scale");
        let _ = writeln!(text, "{:>6}{:>10}{:>9}{:>9}{:>8}", "zero", "SQNR dB", "error", "channel", "sat %");
        for row in &self.layers {
            let _ = write!(text, "{:<12}{:<10}{:<4}", row.layer, row.kind, row.modality);
            let _ = write!(text, "{:>10.3}{:>10.3}{:>12.3e}{:>6}", row.min, row.max, row.scale, row.zero_point);
            let _ = write!(text, "{:>10.1}{:>9.3}{:>9.3}", row.sqnr_db, row.mean_error, row.channel_error);
            let _ = writeln!(text, "{:>8.3}", 100. * row.saturated);
        }
        text
    }

    fn candidate_table(&self) -> String {
        let mut text = String::new();
        for candidate in &self.candidates {
            let _ = write!(text, "{:<18}Dice", candidate.calibration);
            for score in &candidate.scores {
                let Score { modality, mean, worst, worst_organ } = score;
                let _ = write!(text, "  {modality} {mean:.4}, worst {worst:.4} ({worst_organ})");
            }
            text += if candidate.chosen { "  <- chosen\n" } else { "\n" };
        }
        text
    }

    fn accuracy_table(&self) -> String {
        let mut text = String::new();
        let shown = |dice: Option<f64>| dice.map_or("none".to_string(), |dice| format!("{dice:.4}"));
        for Accuracy { modality, slices, labelled, agreement, organs } in &self.accuracy {
            let percent = 100. * agreement;
            let _ =
                writeln!(text, "{modality}: int8 gives {percent:.3} % of the pixels of {slices} slices f32's label");
            let _ = write!(text, "{:<16}{:>14}", "Dice", "int8 to f32");
            let _ = writeln!(text, "{:>16}{:>16}   ({labelled} labelled slices)", "f32 to labels", "int8 to labels");
            for organ in organs {
                let _ = write!(text, "{:<16}{:>14}", organ.organ, shown(organ.int8_f32));
                let _ = writeln!(text, "{:>16}{:>16}", shown(organ.f32_labels), shown(organ.int8_labels));
            }
        }
        text
    }
}
