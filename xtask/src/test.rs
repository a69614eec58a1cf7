//! All tests of all packages, documentation tests included.

use anyhow::{Result, bail};

use crate::shell::{cargo, command, run, succeeds};
use crate::{libtorch, venv};

/// Runs `cargo test --workspace ARGS` with libtorch and the Python environment in place.
///
/// The tests find the environment's Python in `GANTRY_PYTHON`.
///
/// # Errors
/// A tool is missing, or a test fails.
pub fn test(args: &[String]) -> Result<()> {
    need_cxx_compiler()?;
    libtorch::setup()?;
    let python = venv::setup()?;
    run(cargo(["test", "--workspace"]).args(args).env("GANTRY_PYTHON", python))
}

/// Says before minutes of compiling what torch-sys would say after them.
fn need_cxx_compiler() -> Result<()> {
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    if !succeeds(&mut command(&compiler, ["--version"])) {
        bail!("no C++ compiler (`{}`), which the trainer needs; Debian: apt-get install g++", compiler.display());
    }
    Ok(())
}
