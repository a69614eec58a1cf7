//! How well int8 stands for f32: range, scale and signal-to-noise of every layer and modality, and what the files weigh.

use std::fmt::Write;

use contract::{Modality, net::Op};
use serde::{Deserialize, Serialize};
use tract_onnx::pb::ModelProto;

use crate::{
    ExportError,
    branch::value_name,
    calibrate::{Range, Sample},
    engine::{Runner, reals},
    fold::Folded,
    quantise::Quantised,
};

/// Slices per modality that signal and noise are measured on.
const MEASURED: usize = 8;

/// The whole report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How ranges were found, e.g. `percentile=99.99`.
    pub calibration: String,
    /// Calibration slices per modality, in the order of the model's modalities.
    pub slices: Vec<usize>,
    /// Weights of the files.
    pub sizes: Sizes,
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
    /// Calibrated smallest real.
    pub min: f32,
    /// Calibrated largest real.
    pub max: f32,
    /// Real per code step.
    pub scale: f32,
    /// Code of real 0.
    pub zero_point: i8,
    /// `10 log10(sum f32^2 / sum (f32 - int8)^2)`, dB.
    pub sqnr_db: f32,
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
        let mut sums = vec![Sums::default(); names.len()];
        let all: Vec<&Sample> = samples.iter().filter(|sample| sample.modality == modality).collect();
        for sample in all.iter().step_by(all.len().div_ceil(MEASURED).max(1)) {
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
                saturated: (sums.saturated as f64 / sums.count as f64) as f32,
            });
        }
    }
    Ok(reports)
}

#[derive(Clone, Default)]
struct Sums {
    signal: f64,
    noise: f64,
    saturated: u64,
    count: u64,
}

impl Sums {
    fn add(&mut self, expected: &[f32], found: &[i8], scale: f32, zero_point: i8) {
        for (&real, &code) in expected.iter().zip(found) {
            let stood_for = contract::quant::dequantise(code, scale, zero_point);
            self.signal += f64::from(real).powi(2);
            self.noise += f64::from(real - stood_for).powi(2);
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
        Op::PixelShuffle { .. } => "shuffle",
        Op::PadChannels { .. } => "pad",
    }
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!("{:<12}{:<10}{:<4}", "layer", "kind", "");
        text += &format!("{:>10}{:>10}{:>12}{:>6}{:>10}{:>8}\n", "min", "max", "scale", "zero", "SQNR dB", "sat %");
        for row in &self.layers {
            let _ = write!(text, "{:<12}{:<10}{:<4}", row.layer, row.kind, row.modality);
            let _ = write!(text, "{:>10.3}{:>10.3}{:>12.3e}{:>6}", row.min, row.max, row.scale, row.zero_point);
            let _ = writeln!(text, "{:>10.1}{:>8.3}", row.sqnr_db, 100. * row.saturated);
        }
        let Sizes { int8_bytes, f32_bytes, second_modality_bytes } = self.sizes;
        let percent = |part: usize, whole: usize| 100. * part as f64 / whole as f64;
        let ratio = percent(int8_bytes, f32_bytes);
        let second = percent(second_modality_bytes, int8_bytes);
        let _ = writeln!(text, "int8 {int8_bytes} bytes, f32 {f32_bytes} bytes: {ratio:.1} %");
        let _ =
            writeln!(text, "the second modality adds {second_modality_bytes} bytes: {second:.2} % of the int8 file");
        text
    }
}
