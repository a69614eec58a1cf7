//! ONNX Runtime, which knows nothing of us, as a third opinion: one process for a list of jobs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use contract::Modality;
use serde_json::json;
use tests::workspace;

/// One image through one file.
pub struct Job {
    pub model: PathBuf,
    /// `None` where the file has one branch.
    pub modality: Option<Modality>,
    /// Raw values: int8 codes or little-endian f32.
    pub image: Vec<u8>,
}

/// What came out.
pub struct Answer {
    /// Raw values of the type of the image.
    pub logits: Vec<u8>,
    /// One per pixel.
    pub labels: Vec<u8>,
}

/// Checks every file with `onnx.checker` (shapes inferred) and runs the jobs; `None`, with the reason printed, where there is
/// no Python for it.
pub fn run(jobs: &[Job], folder: &Path) -> Option<Vec<Answer>> {
    let python = workspace::python()?;
    let file = |index: usize, what: &str| folder.join(format!("{index}.{what}"));
    let mut list = vec![];
    for (index, job) in jobs.iter().enumerate() {
        fs::write(file(index, "image"), &job.image).unwrap();
        list.push(json!({
            "model": job.model,
            "modality": job.modality.map(Modality::index),
            "image": file(index, "image"),
            "logits": file(index, "logits"),
            "labels": file(index, "labels"),
        }));
    }
    let path = folder.join("jobs.json");
    fs::write(&path, serde_json::to_string(&list).unwrap()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/path/onnx_runtime.py");
    let output = Command::new(python).arg(script).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |index: usize, what: &str| fs::read(file(index, what)).unwrap();
    let answer = |index| Answer { logits: read(index, "logits"), labels: read(index, "labels") };
    Some((0..jobs.len()).map(answer).collect())
}
