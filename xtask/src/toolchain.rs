//! A rustc that can build for another machine: rustup's where rustup reaches its server, else Debian's.
//!
//! Debian packs one rustc with its standard library for amd64 and for arm64. They are unpacked side by side into
//! `.toolchain/debian/` without touching the system (apt keeps its lists there too), and a wrapper script stands in as
//! `RUSTC`; cargo stays the one you have. Standard libraries of another rustc version cannot be mixed in (E0514),
//! which is why the compiler comes along.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{command, lock, output, root, run};

/// Which rustc builds for the other machine.
pub enum Rustc {
    /// The one cargo finds by itself.
    Yours,
    /// The wrapper around Debian's, unpacked into `.toolchain/debian/`.
    Debian(PathBuf),
}

impl Rustc {
    /// Makes a cargo command use this rustc; Debian's builds into a folder of its own.
    pub fn drive<'a>(&self, cargo: &'a mut Command, target_dir: &Path) -> &'a mut Command {
        match self {
            Rustc::Yours => cargo,
            Rustc::Debian(wrapper) => cargo.env("RUSTC", wrapper).arg("--target-dir").arg(target_dir),
        }
    }

    /// What `rustc --version` says.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn version(&self) -> Result<String> {
        let rustc = match self {
            Rustc::Yours => yours(),
            Rustc::Debian(wrapper) => wrapper.clone().into(),
        };
        Ok(output(&mut command(rustc, ["--version"]))?.trim().to_owned())
    }
}

/// The rustc that cargo finds by itself.
fn yours() -> OsString {
    std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

/// Whether your rustc has the standard library of `target`, after asking rustup for it where it has not.
pub fn add_target(target: &str) -> Result<bool> {
    if has_target(target)? {
        return Ok(true);
    }
    let added = run(&mut command("rustup", ["target", "add", target]));
    if let Err(error) = &added {
        eprintln!("{error:#}");
    }
    Ok(added.is_ok() && has_target(target)?)
}

fn has_target(target: &str) -> Result<bool> {
    let sysroot = output(&mut command(yours(), ["--print", "sysroot"]))?;
    Ok(Path::new(sysroot.trim()).join("lib/rustlib").join(target).join("lib").is_dir())
}

/// Debian's rustc for this machine with the standard libraries of amd64 and arm64; made once.
///
/// # Errors
/// Not an x86-64 Debian, no network, or a Debian that packs no `rustc-web`.
pub fn debian() -> Result<Rustc> {
    let _lock = lock("toolchain")?;
    let home = root().join(".toolchain/debian");
    let wrapper = home.join("rustc");
    if wrapper.is_file() {
        return Ok(Rustc::Debian(wrapper));
    }
    if !cfg!(target_arch = "x86_64") || !Path::new("/etc/debian_version").is_file() {
        bail!("rustup could not add the target, and the fallback, Debian's rustc, is for x86-64 Debian only");
    }
    eprintln!("rustup could not add the target; unpacking Debian's rustc into .toolchain/debian (about 120 MB, once)");
    let part = root().join(".toolchain/debian.part");
    for old in [&part, &home] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
    }
    unpack(&part)?;
    fs::rename(&part, &home).with_context(|| format!("cannot rename {}", part.display()))?;
    write_wrapper(&home, &wrapper)?;
    output(command(&wrapper, ["--version"]).stdin(std::process::Stdio::null()))?;
    Ok(Rustc::Debian(wrapper))
}

/// Downloads the packages with apt's state kept in `part` and unpacks them there.
fn unpack(part: &Path) -> Result<()> {
    for folder in ["lists/partial", "cache/archives/partial", "debs"] {
        fs::create_dir_all(part.join(folder))?;
    }
    let apt = |program: &str, words: &[&str]| {
        let mut apt = command(program, ["-o", "APT::Architectures::=amd64", "-o", "APT::Architectures::=arm64"]);
        for (key, folder) in [("Dir::State::lists", "lists"), ("Dir::Cache", "cache")] {
            apt.arg("-o").arg(format!("{key}={}", part.join(folder).display()));
        }
        apt.args(["-o", "APT::Sandbox::User=root", "-q"]).args(words).current_dir(part.join("debs"));
        apt
    };
    run(&mut apt("apt-get", &["update"]))?;
    let depends = |package: &str, prefix: &str| -> Result<String> {
        let listed = output(&mut apt("apt-cache", &["depends", package]))?;
        let mut found = listed.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        let found = found.find(|name| name.starts_with(prefix));
        found.map(str::to_owned).with_context(|| format!("Debian's {package} depends on no {prefix}*"))
    };
    let std = depends("libstd-rust-web-dev", "libstd-rust-web-")?;
    let llvm = depends(&std, "libllvm")?;
    let packages = ["rustc-web", &std, &llvm, "libstd-rust-web-dev", "libstd-rust-web-dev:arm64"];
    run(apt("apt-get", &["download"]).args(packages))?;
    for deb in fs::read_dir(part.join("debs"))? {
        run(command("dpkg-deb", ["-x"]).arg(deb?.path()).arg(part))?;
    }
    for folder in ["lists", "cache", "debs"] {
        fs::remove_dir_all(part.join(folder))?;
    }
    Ok(())
}

/// Debian's rustc finds its own libraries only in /usr/lib, so a script tells it where they are.
fn write_wrapper(home: &Path, wrapper: &Path) -> Result<()> {
    let home = home.display();
    let script = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH='{home}/usr/lib/x86_64-linux-gnu:{home}/usr/lib'\nexport LD_LIBRARY_PATH\n\
         exec '{home}/usr/bin/rustc' --sysroot '{home}/usr' \"$@\"\n"
    );
    let part = wrapper.with_extension("part");
    fs::write(&part, script)?;
    #[cfg(unix)]
    fs::set_permissions(&part, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    fs::rename(&part, wrapper).with_context(|| format!("cannot write {}", wrapper.display()))
}
