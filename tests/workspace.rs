//! Where things lie: the workspace, its Python, test data.

use std::path::{Path, PathBuf};

/// The workspace's root.
///
/// # Panics
/// Never: this package lies in one.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_path_buf()
}

/// A Python with the packages of `requirements.txt`: `GANTRY_PYTHON`, or what `cargo xtask venv` made. Prints why there
/// is none.
pub fn python() -> Option<PathBuf> {
    let chosen = std::env::var_os("GANTRY_PYTHON").map(PathBuf::from);
    let python = chosen.unwrap_or_else(|| root().join(".venv/bin/python"));
    if !python.exists() {
        println!(
            "skipped: no Python at {} (`cargo xtask venv` makes one, GANTRY_PYTHON names another)",
            python.display()
        );
        return None;
    }
    Some(python)
}

/// The small model of the repository.
pub fn shipped_model() -> PathBuf {
    root().join("models/abdomen-compact/model.onnx")
}

/// Real scans for tests: `GANTRY_TEST_DATA`, or `shared/data` beside the workspace. Prints why there are none.
pub fn test_data() -> Option<PathBuf> {
    let chosen = std::env::var_os("GANTRY_TEST_DATA").map(PathBuf::from);
    let data = chosen.unwrap_or_else(|| root().join("../shared/data"));
    if !data.is_dir() {
        println!("skipped: no test data at {} (GANTRY_TEST_DATA names another folder)", data.display());
        return None;
    }
    Some(data)
}
