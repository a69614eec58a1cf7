//! Programs that Debian packs: found, or installed as root on Debian, or named together with what to install.

use std::path::Path;

use anyhow::{Result, bail};

use crate::shell::{command, output, run, succeeds};

/// A program and the packages that it takes.
pub type Tool = (&'static str, &'static [&'static str]);

/// Makes sure that every tool can be started.
///
/// # Errors
/// One is missing and this is not root on Debian, or apt-get fails.
pub fn need(tools: &[Tool]) -> Result<()> {
    let missing = |tool: &Tool| !succeeds(&mut command(tool.0, ["--version"]));
    let missing: Vec<Tool> = tools.iter().copied().filter(missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().flat_map(|tool| tool.1).copied().collect();
    let is_root = output(&mut command("id", ["-u"])).is_ok_and(|id| id.trim() == "0");
    if !is_root || !Path::new("/etc/debian_version").is_file() {
        let names: Vec<&str> = missing.iter().map(|tool| tool.0).collect();
        bail!("{} not found; Debian and Ubuntu: apt-get install {}", names.join(" and "), packages.join(" "));
    }
    run(&mut command("apt-get", ["-q", "update"]))?;
    let install = ["-q", "install", "--yes", "--no-install-recommends"];
    run(command("apt-get", install).args(packages).env("DEBIAN_FRONTEND", "noninteractive"))
}
