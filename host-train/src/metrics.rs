//! `metrics.jsonl`: one JSON object per line, for plots and reports.
//!
//! `{"kind":"step","step":10,"dice_ct":..,"ce_ct":..,"dice_mr":..,"ce_mr":..,"kd":..,"l2":..,"lr":..,"seconds":..}` for a
//! logged step (losses, unweighted but for `l2`; `seconds` since the training began; `teacher_ct` and `teacher_mr` where
//! there is a teacher), and
//! `{"kind":"validation","step":..,"ct":{"liver":..,"mean":..},"mr":{..},"seconds":..}` with Dice for a validation.
//! `{"kind":"diagnosis","step":..,"classes":["background","liver",..],"q_ct":[[..],null,..],"q_mr":[..],"kl":{"background":..,
//! "liver":null,..},"cosine":..,"seconds":..}` before the first step and at every validation: see [`crate::diagnosis`].

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    time::Instant,
};

use contract::LabelMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{diagnosis::Diagnosis, objective::Terms, pace::Speed, validation::Validation};

/// What every line has.
#[derive(Serialize, Deserialize)]
struct Stamp {
    step: u64,
    seconds: f64,
}

/// The open file.
#[derive(Debug)]
pub struct Metrics {
    file: File,
    start: Instant,
    before: f64,
}

impl Metrics {
    /// Starts a file, or goes on with one after `step` steps: lines of later steps, and a line that a crash cut short,
    /// are dropped, because those steps will be made again.
    pub fn open(path: &Path, step: u64) -> io::Result<Self> {
        let old = if step > 0 && path.exists() { std::fs::read_to_string(path)? } else { String::new() };
        let mut kept = String::new();
        let mut before = 0.;
        for line in old.lines() {
            match serde_json::from_str::<Stamp>(line) {
                Ok(stamp) if stamp.step <= step => {
                    before = stamp.seconds;
                    kept.push_str(line);
                    kept.push('\n');
                }
                _ => {}
            }
        }
        volume::atomic::write_bytes(path, kept.as_bytes())?;
        let file = OpenOptions::new().append(true).open(path)?;
        Ok(Self { file, start: Instant::now(), before })
    }

    /// Seconds of training so far, those before a resume included.
    pub fn seconds(&self) -> f64 {
        self.before + self.start.elapsed().as_secs_f64()
    }

    /// Writes a step; `step` counts from 1.
    pub fn step(&mut self, step: u64, terms: &Terms, rate: f64, speed: &Speed) -> io::Result<()> {
        let Terms { dice: [dice_ct, dice_mr], ce: [ce_ct, ce_mr], kd, l2, teacher } = *terms;
        let mut line = json!({
            "kind": "step", "step": step, "dice_ct": dice_ct, "ce_ct": ce_ct, "dice_mr": dice_mr, "ce_mr": ce_mr,
            "kd": kd, "l2": l2, "lr": rate, "loader_samples_per_s": speed.loader,
            "step_samples_per_s": speed.step, "wait_ms": speed.wait_ms, "seconds": self.seconds(),
        });
        for (key, loss) in ["teacher_ct", "teacher_mr"].into_iter().zip(teacher) {
            if let Some(loss) = loss {
                line[key] = json!(loss);
            }
        }
        self.line(&line)
    }

    /// Writes a validation.
    pub fn validation(&mut self, step: u64, validation: &Validation) -> io::Result<()> {
        let mut line = Map::from_iter([("kind".into(), "validation".into()), ("step".into(), step.into())]);
        for scores in &validation.0 {
            let mut organs: Map<String, Value> =
                scores.organs.iter().map(|(organ, dice)| (organ.clone(), json!(dice))).collect();
            organs.insert("mean".into(), json!(scores.mean()));
            line.insert(scores.modality.name().into(), organs.into());
        }
        line.insert("seconds".into(), json!(self.seconds()));
        self.line(&line.into())
    }

    /// Writes a diagnosis after `step` steps.
    pub fn diagnosis(&mut self, step: u64, diagnosis: &Diagnosis, labels: &LabelMap) -> io::Result<()> {
        let Diagnosis { q: [ct, mr], kl, cosine } = diagnosis;
        let organs = labels.organs().map(|(_, label)| label.name.clone());
        let classes: Vec<String> = ["background".to_string()].into_iter().chain(organs).collect();
        let kl: Map<String, Value> = classes.iter().cloned().zip(kl.iter().map(|kl| json!(kl))).collect();
        self.line(&json!({
            "kind": "diagnosis", "step": step, "classes": classes, "q_ct": ct, "q_mr": mr, "kl": kl, "cosine": cosine,
            "seconds": self.seconds(),
        }))
    }

    fn line(&mut self, value: &Value) -> io::Result<()> {
        self.file.write_all(format!("{value}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_file_holds_every_step_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let terms = Terms { dice: [-0.5, -0.25], ce: [1., 2.], kd: 0.125, l2: 0.0625, teacher: [None, Some(0.5)] };
        let speed = Speed { loader: 300., step: 50., wait_ms: 0.25 };
        let mut first = Metrics::open(&path, 0).unwrap();
        for step in [10, 20, 30] {
            first.step(step, &terms, 1e-3, &speed).unwrap();
        }
        first.file.write_all(b"{\"kind\":\"step\",\"st").unwrap();
        let mut second = Metrics::open(&path, 20).unwrap();
        second.step(30, &terms, 1e-4, &speed).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let steps: Vec<u64> = lines.iter().map(|line| line["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [10, 20, 30]);
        assert_eq!((lines[2]["lr"].as_f64(), lines[2]["dice_mr"].as_f64()), (Some(1e-4), Some(-0.25)));
        assert_eq!((lines[2]["teacher_mr"].as_f64(), lines[2].get("teacher_ct")), (Some(0.5), None));
        assert_eq!((lines[0]["wait_ms"].as_f64(), lines[0]["step_samples_per_s"].as_f64()), (Some(0.25), Some(50.)));
        assert!(lines[2]["seconds"].as_f64() >= lines[1]["seconds"].as_f64());
    }
}
