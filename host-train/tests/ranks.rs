//! `mpirun -n 2 gantry-train train`: two ranks with half the batch each are one process with the whole batch.
//!
//! Compared at a low learning rate: Adam divides by the root of tiny second moments, so at higher rates rounding alone parts
//! two trainings within 20 steps, more so between one thread and two than between one rank and two.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_gantry-train");
const TERMS: [&str; 5] = ["dice_ct", "dice_mr", "ce_ct", "ce_mr", "kd"];

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn alone(arguments: &str) -> Output {
    Command::new(BINARY).args(words(arguments)).output().unwrap()
}

/// Two ranks on this machine, which may have fewer cores, and whose user may be root.
fn together(arguments: &str) -> Output {
    let mut command = Command::new("mpirun");
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.args(["--oversubscribe", "-n", "2", BINARY]).args(words(arguments)).output().unwrap()
}

/// Why two ranks cannot be tried, if so.
fn missing() -> Option<&'static str> {
    if cfg!(not(feature = "mpi")) {
        return Some("built without the feature mpi");
    }
    Command::new("mpirun").arg("--version").output().is_err().then_some("there is no mpirun")
}

fn patients(folder: &Path) -> String {
    let data = folder.join("data").display().to_string();
    assert!(alone(&format!("phantom --out {data} --train 3 --test 1 --coarser 4")).status.success());
    format!("--ct {data}/Dataset001_PhantomCT --mr {data}/Dataset002_PhantomMR")
}

/// Losses of all steps.
fn losses(out: &Path) -> Vec<[f64; 5]> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["kind"] == "step").map(|line| TERMS.map(|term| line[term].as_f64().unwrap())).collect()
}

/// The largest difference between two trainings' losses at any step.
fn apart(a: &[[f64; 5]], b: &[[f64; 5]]) -> f64 {
    assert_eq!((a.len(), b.len()), (20, 20));
    a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0., f64::max)
}

/// The trained networks' tensors, running statistics relative to their size.
fn weights_apart(a: &Path, b: &Path) -> f64 {
    let [(a, _), (b, _)] =
        [a, b].map(|out| host_train::checkpoint::load(&out.join("last.safetensors"), tch::Device::Cpu).unwrap());
    let pairs = a.tensors().into_iter().zip(b.tensors());
    let worst = pairs.map(|((_, a), (_, b))| ((&a - b).abs() / a.abs().clamp_min(1.)).max().double_value(&[]));
    worst.fold(0., f64::max)
}

#[test]
fn two_ranks_with_half_the_batch_are_one_with_the_whole() {
    if let Some(reason) = missing() {
        println!("skipped: {reason}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = patients(folder.path());
    let options = "--device cpu --size 32 --spacing 12 --width 4 --batch 4 --val 1 --threads 1 --steps 20 --log-every 1 \
                   --val-every 20 --schedule constant --lr 3e-5";
    for topology in ["ummkd", "joint"] {
        let [one, two, whole] = ["one", "two", "whole"].map(|name| folder.path().join(format!("{topology}-{name}")));
        let line = |out: &Path, more: &str| {
            format!("train {data} --out {} --topology {topology} {options} {more}", out.display())
        };
        for (out, output) in [
            (&one, alone(&line(&one, "--norm-groups 2"))),
            (&two, together(&line(&two, ""))),
            (&whole, alone(&line(&whole, ""))),
        ] {
            assert!(output.status.success(), "{}: {}", out.display(), stderr(&output));
        }
        let [one_losses, two_losses, whole_losses] = [&one, &two, &whole].map(|out| losses(out));
        assert!(apart(&one_losses, &two_losses) <= 1e-5, "{topology}: {}", apart(&one_losses, &two_losses));
        assert!(weights_apart(&one, &two) <= 1e-5, "{topology}: {}", weights_apart(&one, &two));
        // What would be seen if it were not so: statistics of the norms over the whole batch, and no training at all.
        assert!(apart(&whole_losses, &two_losses) > 1e-3);
        assert!((0..5).any(|term| (two_losses[0][term] - two_losses[19][term]).abs() > 1e-3));
    }
}

#[test]
fn ranks_that_cannot_share_a_batch_say_so() {
    if let Some(reason) = missing() {
        println!("skipped: {reason}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let sets = "--ct nowhere --mr nowhere --device cpu --size 32 --width 4";
    let output = together(&format!("train {sets} --batch 3 --out {}", folder.path().join("out").display()));
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("--batch 3 in 2 --norm-groups on 2 ranks"), "{}", stderr(&output));
}

/// Without MPI, processes side by side would each train alone, into the same folder.
#[test]
fn a_program_without_mpi_refuses_to_be_one_of_several() {
    if cfg!(feature = "mpi") {
        println!("skipped: built with the feature mpi");
        return;
    }
    let output = Command::new(BINARY)
        .args(words("train --ct a --mr b --out c"))
        .env("OMPI_COMM_WORLD_SIZE", "4")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("one of 4 processes, but built without MPI"), "{}", stderr(&output));
}
