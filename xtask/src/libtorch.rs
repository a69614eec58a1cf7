//! A libtorch for `host-train`, in `.libtorch/` of the workspace.
//!
//! PyPI's torch wheel is the only place that needs no account, no compiler and no Python of a fixed version, so pip is
//! used as a downloader of three pinned files. Of their 544 MB only what a CPU program links is unpacked, in the
//! wheels' own layout, because the libraries find each other by paths relative to it. The same program still finds
//! CUDA at run time on a machine that has a full torch of this version.
//!
//! Nothing is touched where `LIBTORCH_USE_PYTORCH` or your own `LIBTORCH` says which libtorch to use.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::shell::{command, lock, root, run};
use crate::venv;

/// The pinned wheels, in pip's own format.
const WHEELS: &str = include_str!("../libtorch.txt");
/// What torch-sys compares with the version it was generated for.
const TORCH_VERSION: &str = "2.11.0";
/// Counts up when the unpacking below changes, so that an old folder is made anew.
const LAYOUT: &str = "layout 1";

/// What of the wheels is unpacked: patterns of Python's fnmatch, where `*` crosses folders.
const KEEP: &[&str] = &[
    "torch/include/*",
    "torch/lib/libtorch_cpu.so",
    "torch/lib/libc10.so",
    "torch/lib/libgomp*",
    "torch.libs/*",
    "nvidia/cu13/lib/libcudart.so.13",
    "nvidia/cu13/lib/libcupti.so.13",
    "*.dist-info/licenses/*",
];

/// Makes `.libtorch/` unless it is there or something else is configured; the second call costs nothing.
///
/// # Errors
/// No Python with pip, no network, a wheel with another hash, a full disk, or a machine that these wheels do not fit.
pub fn setup() -> Result<()> {
    if let Some(configured) = configured_by_user() {
        eprintln!("libtorch: yours, by {configured}");
        return Ok(());
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!(
            "no pinned libtorch for this machine; install torch {TORCH_VERSION} with pip and set LIBTORCH_USE_PYTORCH=1, \
             or unzip libtorch {TORCH_VERSION} and set LIBTORCH to its folder"
        );
    }
    let _lock = lock("libtorch")?;
    let home = root().join(".libtorch");
    if fs::read_to_string(home.join("stamp")).is_ok_and(|found| found == stamp()) {
        return Ok(());
    }
    let start = Instant::now();
    let part = root().join(".libtorch.part");
    remove(&part)?;
    build(&part)?;
    remove(&home)?;
    fs::rename(&part, &home).with_context(|| format!("cannot rename {} to {}", part.display(), home.display()))?;
    eprintln!("libtorch {TORCH_VERSION} is in {} ({:.0} s)", home.display(), start.elapsed().as_secs_f32());
    Ok(())
}

/// Downloads, unpacks and finishes a whole libtorch folder; the stamp is written last.
fn build(part: &Path) -> Result<()> {
    let (wheels, unpacked) = (part.join("wheels"), part);
    fs::create_dir_all(&wheels)?;
    eprintln!("libtorch 1/2: downloading 544 MB from PyPI (once)");
    download(&wheels)?;

    eprintln!("libtorch 2/2: unpacking 499 MB");
    let python = venv::system_python()?;
    run(command(&python, ["xtask/unzip.py"]).arg(&wheels).arg(unpacked).args(KEEP))?;
    fs::remove_dir_all(&wheels)?;
    let lib = unpacked.join("torch/lib");
    // The wheel's libtorch.so holds no code, but names libtorch_cuda.so, which GNU ld then wants to see.
    fs::write(lib.join("libtorch.so"), "INPUT(libtorch_cpu.so)\n")?;
    fs::write(unpacked.join("torch/build-version"), TORCH_VERSION)?;
    fs::write(unpacked.join("stamp"), stamp())?;
    Ok(())
}

fn download(wheels: &Path) -> Result<()> {
    let mut pip = command(
        venv::system_python()?,
        [
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
            "--disable-pip-version-check",
        ],
    );
    // Fixed tags: the files are the same whatever Python runs this.
    pip.args(["--python-version", "3.12", "--implementation", "cp", "--abi", "cp312", "--abi", "none"]);
    for platform in ["manylinux_2_28", "manylinux_2_25", "manylinux_2_17", "manylinux2014", "linux"] {
        pip.args(["--platform", &format!("{platform}_x86_64")]);
    }
    run(pip.arg("--dest").arg(wheels).args(["--requirement", "xtask/libtorch.txt"]))
        .context("pip could not download libtorch (it needs pip 21 or later and a network that reaches PyPI)")
}

fn stamp() -> String {
    format!("{LAYOUT}\n{WHEELS}")
}

/// The variable by which the user has chosen a libtorch. Cargo itself sets `LIBTORCH` to ours (`.cargo/config.toml`).
fn configured_by_user() -> Option<String> {
    if std::env::var_os("LIBTORCH_USE_PYTORCH").is_some() {
        return Some("LIBTORCH_USE_PYTORCH".to_owned());
    }
    let theirs = std::env::var_os("LIBTORCH").map(PathBuf::from)?;
    let ours = root().join(".libtorch/torch");
    (theirs != ours).then(|| format!("LIBTORCH={}", theirs.display()))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
