//! How large the release programs are.

use std::fs;

use anyhow::{Context, Result};

use crate::libtorch;
use crate::shell::{cargo, command, run, succeeds, target_dir};

pub const PROGRAMS: [(&str, &str); 3] =
    [("edge-runtime", "gantry-edge"), ("export", "gantry-export"), ("host-train", "gantry-train")];

/// Builds the three products' programs in the release profile and prints a table of their sizes.
///
/// # Errors
/// A build fails, or libtorch cannot be set up.
pub fn size() -> Result<()> {
    libtorch::setup()?;
    let packages = PROGRAMS.iter().flat_map(|(package, _)| ["--package", package]);
    run(cargo(["build", "--release", "--bins"]).args(packages))?;
    let folder = tempfile::tempdir()?;
    println!("{:<16}{:>14}{:>20}", "program", "bytes", "without symbols");
    for (_, program) in PROGRAMS {
        let path = target_dir().join("release").join(program);
        let bytes = fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?.len();
        let small = folder.path().join(program);
        let stripped = succeeds(command("strip", ["-o"]).args([&small, &path]));
        let stripped = if stripped { fs::metadata(&small)?.len().to_string() } else { "no `strip` here".to_owned() };
        println!("{program:<16}{bytes:>14}{stripped:>20}");
    }
    Ok(())
}
