//! Two shards of a tiny study into one folder, as two machines would do it; then the report of both.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const STUDY: &str = r#"
topologies = ["individual", "joint-msn"]
cases = [1, 2]
seeds = [0]
baseline = "individual"
train = ["--device", "cpu", "--size", "32", "--spacing", "12", "--width", "4", "--batch", "2", "--val", "1",
    "--steps", "2", "--val-every", "1", "--threads", "1"]
eval = ["--device", "cpu"]
[data]
phantom = ["--train", "3", "--test", "2", "--coarser", "4"]
"#;

/// `gantry-train` beside this package's program: `cargo test --workspace` builds it, `cargo test` alone does not.
fn trainer() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_xtask")).with_file_name("gantry-train");
    if !path.exists() {
        println!("skipped: no gantry-train beside xtask; `cargo xtask test` builds it");
        return None;
    }
    Some(path)
}

fn study(trainer: &Path, folder: &Path, further: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("study").arg("--config").arg(folder.join("tiny.toml")).arg("--out").arg(folder);
    command.arg("--program").arg(trainer).args(further).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The script of the SLURM array does a shard, with the variables that SLURM would set.
fn slurm(trainer: &Path, folder: &Path, task: &str) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host-train/cluster/slurm-array.sh");
    Command::new("bash")
        .arg(script)
        .args([folder.join("tiny.toml"), folder.into()])
        .env("GANTRY_XTASK", env!("CARGO_BIN_EXE_xtask"))
        .env("GANTRY_TRAIN", trainer)
        .envs([("SLURM_ARRAY_TASK_ID", task), ("SLURM_ARRAY_TASK_COUNT", "2"), ("SLURM_ARRAY_TASK_MIN", "0")])
        .output()
        .unwrap()
}

#[test]
fn two_shards_make_one_study() {
    let Some(trainer) = trainer() else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("tiny.toml"), STUDY).unwrap();
    let out = folder.join("tiny");

    let first = study(&trainer, folder, &["--shard", "0/2"]);
    assert!(first.status.success(), "{}", text(&first));
    assert!(text(&first).contains("missing: joint-msn-n1-s0"), "{}", text(&first));
    let second = slurm(&trainer, folder, "1");
    assert!(second.status.success(), "{}", text(&second));
    let log = fs::read_to_string(out.join("joint-msn-n1-s0/log.txt")).unwrap();
    assert!(log.contains("trains on"), "{log}");

    // An interruption between training and scores, and one in the training, as far as the folder shows it.
    let [scored, begun] = ["joint-msn-n2-s0", "individual-n1-s0"].map(|run| out.join(run));
    let before = fs::read(scored.join("scores.json")).unwrap();
    fs::remove_file(scored.join("scores.json")).unwrap();
    fs::remove_dir_all(begun.join("train")).unwrap();
    fs::remove_file(begun.join("scores.json")).unwrap();
    let merged = study(&trainer, folder, &["--report-only"]);
    assert!(text(&merged).contains("2 of 4 runs are finished"), "{}", text(&merged));
    let resumed = study(&trainer, folder, &[]);
    assert!(resumed.status.success() && text(&resumed).contains("2 of its 4 runs are left"), "{}", text(&resumed));
    assert_eq!(fs::read(scored.join("scores.json")).unwrap(), before, "the same checkpoint, the same scores");

    let merged = study(&trainer, folder, &["--report-only"]);
    assert!(text(&merged).contains("4 of 4 runs are finished"), "{}", text(&merged));
    let json: serde_json::Value = serde_json::from_slice(&fs::read(out.join("study.json")).unwrap()).unwrap();
    let rows = json["rows"].as_array().unwrap();
    // Two sizes, two modalities, four organs and their mean, two arms; a pair for each score of the second arm.
    assert_eq!((rows.len(), json["pairs"].as_array().unwrap().len()), (2 * 2 * 5 * 2, 2 * 2 * 5 * 3));
    assert!(rows.iter().all(|row| row["scored"].as_u64().unwrap() <= 2));
    for name in ["study.md", "study.html", "dice-ct-n1.svg", "hd95-mr-n2.svg"] {
        assert!(out.join(name).exists(), "{name}");
    }

    let changed = STUDY.replace("\"--steps\", \"2\"", "\"--steps\", \"3\"");
    fs::write(folder.join("tiny.toml"), changed).unwrap();
    let refused = study(&trainer, folder, &[]);
    assert!(!refused.status.success());
    let says = text(&refused);
    assert!(says.contains("--steps 2") && says.contains("--steps 3") && says.contains("another --out"), "{says}");
}
