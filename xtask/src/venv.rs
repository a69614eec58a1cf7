//! The Python environment in `.venv/` that checks our files with other people's programs: ONNX Runtime, `onnx.checker`,
//! nibabel, highdicom. No product needs it. Its packages are pinned in `tests/requirements.txt`.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::shell::{command, lock, output, root, run, succeeds};

/// A Python 3 with pip from the search path.
///
/// # Errors
/// There is none, or it has no pip.
pub fn system_python() -> Result<PathBuf> {
    let names = ["python3", "python"];
    let is_python3 = "import sys; sys.exit(sys.version_info < (3, 9))";
    let Some(name) = names.iter().find(|name| succeeds(&mut command(name, ["-c", is_python3]))) else {
        bail!(
            "no Python 3.9 or later on the search path (looked for python3 and python); it is needed to download from PyPI"
        );
    };
    if !succeeds(&mut command(name, ["-m", "pip", "--version"])) {
        bail!("{name} has no pip; install it (Debian: apt-get install python3-pip python3-venv)");
    }
    Ok(PathBuf::from(name))
}

/// Makes `.venv/` unless it already holds what `tests/requirements.txt` says; returns its Python.
///
/// # Errors
/// No Python with pip and venv, no network, or packages that do not exist for this Python.
pub fn setup() -> Result<PathBuf> {
    let _lock = lock("venv")?;
    let home = root().join(".venv");
    let python = home.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let wanted =
        fs::read_to_string(root().join("tests/requirements.txt")).context("cannot read tests/requirements.txt")?;
    let stamp = home.join("stamp");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) && succeeds(&mut command(&python, ["--version"])) {
        return Ok(python);
    }
    let start = Instant::now();
    eprintln!("venv: installing tests/requirements.txt into .venv");
    run(&mut command(system_python()?, ["-m", "venv", "--clear", ".venv"]))
        .context("cannot make a Python environment (Debian: apt-get install python3-venv)")?;
    run(&mut command(
        &python,
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", "tests/requirements.txt"],
    ))?;
    // A package that installs but cannot be loaded here should fail now and by name, not inside a test.
    output(&mut command(&python, ["-c", "import highdicom, nibabel, numpy, onnx, onnxruntime"]))?;
    fs::write(&stamp, wanted)?;
    eprintln!("venv: ready ({:.0} s)", start.elapsed().as_secs_f32());
    Ok(python)
}
