//! `gantry-edge` on aarch64 without ARM hardware: the same program, the same model, the same input must give the same
//! logits and the same label map as on this machine, bit for bit.
//!
//! qemu's user mode stands in for three generations of CPUs. The oldest matters most: it dies on an instruction that
//! was not asked for, so a wrong dispatch cannot pass. The dev profile is enough (and shares its dependencies with the
//! tests); `--release` compares what ships.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use contract::Modality;
use phantom::SubjectOptions;
use serde_json::Value;

use crate::debian::{self, Tool};
use crate::edge::{self, Build};
use crate::shell::{command, output, run, target_dir};
use crate::subjects;

const QEMU: Tool = ("qemu-aarch64-static", &["qemu-user-static"]);

#[derive(clap::Args)]
pub struct Options {
    /// Build and compare the release profile
    #[arg(long)]
    release: bool,
    /// The model to run [default: models/abdomen-compact/model.onnx]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Use Debian's rustc, as happens by itself when rustup cannot add the target
    #[arg(long)]
    debian_rustc: bool,
}

/// Builds both programs, runs both, compares.
///
/// # Errors
/// A missing tool, a failed build, a program that fails under qemu, or results that differ.
pub fn cross(options: &Options) -> Result<()> {
    edge::need_x86_64_linux("cross")?;
    let model = match &options.model {
        Some(path) => std::path::absolute(path)?,
        None => edge::model(),
    };
    ensure!(model.is_file(), "no model at {}", model.display());
    debian::need(&[edge::CROSS_COMPILER, QEMU])?;
    let here = Build::here().release(options.release).run()?;
    let here = Machine { name: "x86-64".to_owned(), cpu: None, program: here };
    let there = Build::aarch64(options.debian_rustc)?.release(options.release).run()?;

    let work = target_dir().join("cross");
    fs::create_dir_all(&work)?;
    let inputs = phantom_volumes(&work)?;
    let expected = here.results(&model, &inputs, &work)?;
    for (cpu, _) in edge::CPUS {
        let machine = Machine { name: format!("aarch64 {cpu}"), cpu: Some(cpu), program: there.clone() };
        let found = machine.results(&model, &inputs, &work)?;
        compare(&machine.name, &expected, &found)?;
    }
    eprintln!(
        "\naarch64 equals x86-64 bit for bit on {}: {} results each",
        edge::CPUS.map(|(cpu, _)| cpu).join("; "),
        expected.len()
    );
    Ok(())
}

/// A short CT and a short MRI phantom, written once, here: both machines read the same files.
fn phantom_volumes(work: &Path) -> Result<Vec<(Modality, PathBuf)>> {
    let few_slices = SubjectOptions { thicker_slices: 6.0, ..SubjectOptions::default() };
    let write = |modality: Modality| {
        let path = work.join(format!("{modality}.nii"));
        subjects::write(modality, 1, few_slices, &path, None)?;
        Ok((modality, path))
    };
    Modality::ALL.into_iter().map(write).collect()
}

/// What a machine computed: a name and the bytes, in a fixed order.
type Results = Vec<(String, Vec<u8>)>;

/// A program and the CPU that runs it: this machine's, or one that qemu plays.
struct Machine {
    name: String,
    cpu: Option<&'static str>,
    program: PathBuf,
}

impl Machine {
    fn command(&self) -> Command {
        match self.cpu {
            None => command(&self.program, [""; 0]),
            Some(cpu) => {
                let mut qemu = command(QEMU.0, ["-L", edge::LIBRARIES]);
                qemu.env("QEMU_CPU", cpu).arg(&self.program);
                qemu
            }
        }
    }

    /// The self-test's digests (logits and labels per modality), then the label map of each volume.
    fn results(&self, model: &Path, inputs: &[(Modality, PathBuf)], work: &Path) -> Result<Results> {
        let printed = output(self.command().args(["selftest", "--json", "--model"]).arg(model))?;
        let printed = serde_json::from_str(&printed).context("`gantry-edge selftest --json` printed no JSON")?;
        let mut results = Results::new();
        digests("selftest", &printed, &mut results);
        ensure!(!results.is_empty(), "`gantry-edge selftest --json` on {} printed no SHA-256: {printed}", self.name);
        for (modality, input) in inputs {
            let modality = modality.name();
            let out = work.join(format!("{modality}-labels.nii"));
            let mut segment = self.command();
            segment.args(["segment", "--modality", modality, "--model"]).arg(model);
            run(segment.arg(input).arg("--out").arg(&out))?;
            results.push((format!("label map of the {modality} volume"), fs::read(&out)?));
        }
        Ok(results)
    }
}

/// Collects every SHA-256 in the JSON with the path that leads to it.
fn digests(path: &str, value: &Value, results: &mut Results) {
    match value {
        Value::String(text) if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            results.push((path.to_owned(), text.clone().into_bytes()));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| digests(&format!("{path}.{index}"), item, results));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, item)| digests(&format!("{path}.{name}"), item, results));
        }
        _ => {}
    }
}

fn compare(machine: &str, expected: &Results, found: &Results) -> Result<()> {
    ensure!(expected.len() == found.len(), "{machine}: {} results, x86-64 has {}", found.len(), expected.len());
    for ((name, ours), (other, theirs)) in expected.iter().zip(found) {
        ensure!(name == other, "{machine}: result {other:?} where x86-64 has {name:?}");
        if ours != theirs {
            let differ = ours.iter().zip(theirs).filter(|(a, b)| a != b).count();
            bail!(
                "{machine}: {name} differs from x86-64 ({} and {} bytes, {differ} of them unequal)",
                ours.len(),
                theirs.len()
            );
        }
        eprintln!("{machine}: {name}: equal ({} bytes)", ours.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn digests_are_found_at_any_depth_and_nothing_else_is() {
        let (logits, labels) = ("a1".repeat(32), "0F".repeat(32));
        let printed =
            json!({ "cpu": "x".repeat(64), "ms": 3, "ct": { "logits": logits }, "rest": [1, { "labels": labels }] });
        let mut found = Results::new();
        digests("selftest", &printed, &mut found);
        let expected = [("selftest.ct.logits", logits), ("selftest.rest.1.labels", labels)];
        assert_eq!(found, expected.map(|(name, digest)| (name.to_owned(), digest.into_bytes())));
    }

    #[test]
    fn one_byte_a_missing_result_or_a_longer_one_is_a_difference() {
        let expected = vec![("labels".to_owned(), vec![1, 2, 3])];
        assert!(compare("aarch64", &expected, &expected.clone()).is_ok());
        for found in [vec![1, 2, 4], vec![1, 2], vec![1, 2, 3, 0]] {
            assert!(compare("aarch64", &expected, &vec![("labels".to_owned(), found)]).is_err());
        }
        assert!(compare("aarch64", &expected, &vec![("logits".to_owned(), vec![1, 2, 3])]).is_err());
        assert!(compare("aarch64", &expected, &Vec::new()).is_err());
    }
}
