//! `gantry-edge` as `cross`, `count` and `memcheck` build it, for this machine and for aarch64, and the CPUs that qemu plays.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::debian::Tool;
use crate::shell::{cargo, root, run, target_dir};
use crate::toolchain::{self, Rustc};

const AARCH64: &str = "aarch64-unknown-linux-gnu";

/// Where Debian puts aarch64's libraries.
pub const LIBRARIES: &str = "/usr/aarch64-linux-gnu";

/// The compiler of C for aarch64, which also links Rust's programs.
pub const CROSS_COMPILER: Tool = ("aarch64-linux-gnu-gcc", &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]);

/// Three generations of CPUs and the kernels that each picks: plain NEON (Cortex-A53, A72: Raspberry Pi 4), with dot
/// product and fp16 (A55, A76: Pi 5), with i8mm and bf16.
pub const CPUS: [(&str, &str); 3] =
    [("cortex-a72", "neon"), ("cortex-a76", "neon_dotprod"), ("max,sve=off", "neon_i8mm")];

/// Counts instructions and watches memory.
pub const VALGRIND: Tool = ("valgrind", &["valgrind"]);

/// Tables of x86-64 that valgrind can run: it knows no AVX-512.
pub const VALGRIND_KERNELS: [&str; 2] = ["avx2", "generic"];

/// The model that lies in the repository.
pub fn model() -> PathBuf {
    root().join("models/abdomen-compact/model.onnx")
}

/// Refuses any machine but x86-64 Linux.
///
/// # Errors
/// Always, elsewhere.
pub fn need_x86_64_linux(task: &str) -> Result<()> {
    ensure!(cfg!(all(target_os = "linux", target_arch = "x86_64")), "`{task}` needs x86-64 Linux: run it there");
    Ok(())
}

/// A way to build `gantry-edge`.
pub struct Build {
    rustc: Rustc,
    target: Option<&'static str>,
    release: bool,
    settings: &'static [&'static str],
}

impl Build {
    /// For this machine, dev profile.
    pub fn here() -> Self {
        Self { rustc: Rustc::Yours, target: None, release: false, settings: &[] }
    }

    /// For aarch64, dev profile; with Debian's rustc if asked for or if rustup cannot add the target.
    ///
    /// # Errors
    /// There is no such compiler.
    pub fn aarch64(debian_rustc: bool) -> Result<Self> {
        let yours = !debian_rustc && toolchain::add_target(AARCH64)?;
        let rustc = if yours { Rustc::Yours } else { toolchain::debian()? };
        Ok(Self { rustc, target: Some(AARCH64), release: false, settings: &[] })
    }

    /// In the release profile instead.
    pub fn release(self, release: bool) -> Self {
        Self { release, ..self }
    }

    /// With settings of cargo's configuration, `KEY=VALUE`.
    pub fn with(self, settings: &'static [&'static str]) -> Self {
        Self { settings, ..self }
    }

    /// What `rustc --version` says.
    ///
    /// # Errors
    /// The compiler cannot be started.
    pub fn rustc_version(&self) -> Result<String> {
        self.rustc.version()
    }

    /// Builds and returns the program's path.
    ///
    /// # Errors
    /// Cargo fails.
    pub fn run(&self) -> Result<PathBuf> {
        let folder = match self.rustc {
            Rustc::Yours => target_dir(),
            Rustc::Debian(_) => target_dir().join("debian"),
        };
        // `--workspace` chooses the dependencies' features as `cargo test --workspace` does, so nothing is compiled twice.
        let mut build = cargo(["build", "--workspace", "--bin", "gantry-edge"]);
        build.args(self.release.then_some("--release")).args(self.target.map(|target| format!("--target={target}")));
        build.args(self.settings.iter().flat_map(|setting| ["--config", setting]));
        run(self.rustc.drive(&mut build, &folder))?;
        let profile = if self.release { "release" } else { "debug" };
        Ok(folder.join(self.target.unwrap_or_default()).join(profile).join("gantry-edge"))
    }
}

/// Adds the shipped model, and which kernels of the planned engine run it.
pub fn planned<'a>(command: &'a mut Command, kernels: &str) -> &'a mut Command {
    command.arg("--model").arg(model()).args(["--engine", "planned", "--kernel", kernels])
}
