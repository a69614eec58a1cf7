//! A folder that runs on a machine with CUDA, PyTorch 2.11 from pip, and no Rust.
//!
//! The trainer links libtorch's CPU library alone and opens the CUDA part beside it at run time, so the folder holds our
//! programs and no libtorch: `run.sh` finds the one of the machine's PyTorch.

use std::fs;

use anyhow::{Context, Result};

use crate::libtorch;
use crate::shell::{cargo, command, root, run, succeeds, target_dir};
use crate::size::PROGRAMS;

/// What goes with the programs: from, to.
const FILES: [(&str, &str); 5] = [
    ("xtask/gpu-pack/run.sh", "run.sh"),
    ("xtask/gpu-pack/check.sh", "check.sh"),
    ("benches/peers/common.py", "peers/common.py"),
    ("benches/peers/torch_net.py", "peers/torch_net.py"),
    ("benches/peers/train.py", "peers/train.py"),
];

/// Builds the programs and fills `gpu-pack` in the target folder.
///
/// # Errors
/// A build fails, libtorch cannot be set up, or the folder cannot be written.
pub fn gpu_pack() -> Result<()> {
    libtorch::setup()?;
    let packages = PROGRAMS.iter().flat_map(|(package, _)| ["--package", package]);
    run(cargo(["build", "--release", "--bins"]).args(packages))?;
    let folder = target_dir().join("gpu-pack");
    fs::create_dir_all(folder.join("peers")).with_context(|| format!("{}", folder.display()))?;
    for (_, program) in PROGRAMS {
        let (from, to) = (target_dir().join("release").join(program), folder.join(program));
        // Symbols are most of the bytes that would travel.
        if !succeeds(command("strip", ["-o"]).args([&to, &from])) {
            fs::copy(&from, &to).with_context(|| format!("{}", to.display()))?;
        }
    }
    for (from, to) in FILES {
        fs::copy(root().join(from), folder.join(to)).with_context(|| from.to_string())?;
    }
    println!("{}: copy it to the machine, then ./check.sh there", folder.display());
    Ok(())
}
