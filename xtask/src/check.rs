//! What must hold of the sources before a test runs: form, lints, documentation, and `contract` without an operating
//! system.

use anyhow::{Result, bail};

use crate::shell::{cargo, run, succeeds};
use crate::{libtorch, toolchain};

/// Bare metal first: a target without `std` proves `no_std`. The second has one, and is better than nothing.
const SMALL_TARGETS: [&str; 2] = ["thumbv7em-none-eabihf", "aarch64-unknown-linux-gnu"];

/// Runs all checks; the first that fails ends it.
///
/// # Errors
/// A check fails, or clippy or rustfmt is not installed.
pub fn check() -> Result<()> {
    for tool in ["fmt", "clippy"] {
        if !succeeds(&mut cargo([tool, "--version"])) {
            bail!("cargo {tool} is not installed: rustup component add rustfmt clippy");
        }
    }
    run(&mut cargo(["fmt", "--all", "--check"]))?;
    libtorch::setup()?;
    run(&mut cargo(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    run(cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    bare_metal()
}

fn bare_metal() -> Result<()> {
    for target in SMALL_TARGETS {
        if toolchain::add_target(target)? {
            run(&mut cargo(["build", "--package", "contract", "--target", target]))?;
            eprintln!("contract builds for {target}");
            return Ok(());
        }
    }
    eprintln!("skipped: contract on bare metal: rustup can add none of {SMALL_TARGETS:?}");
    Ok(())
}
