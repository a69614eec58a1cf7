//! The fuzzers of `tests/fuzz`, by cargo-fuzz.
//!
//! cargo-fuzz asks for options of the compiler that only nightly ones take; `RUSTC_BOOTSTRAP` lets this one take them. That is
//! for fuzzing alone: nothing that is built here is used.

use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::shell::{cargo, output, run};

#[derive(Args)]
pub struct Options {
    /// Fuzzers by name; all of them if none is given
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Time for each, seconds
    #[arg(long, default_value_t = 600)]
    seconds: u32,
    /// Keep of the corpus only what reaches different code
    #[arg(long)]
    minimise: bool,
}

/// Runs fuzzers one after the other; ends at the first input that breaks something, which then lies in
/// `tests/fuzz/artifacts`.
///
/// # Errors
/// cargo-fuzz is missing, a name is unknown, a fuzzer does not build, or it found something.
pub fn fuzz(options: &Options) -> Result<()> {
    let known = output(&mut cargo_fuzz(&["list"])).context("no cargo-fuzz: cargo install cargo-fuzz --locked")?;
    let known: Vec<&str> = known.lines().collect();
    let targets: Vec<&str> = match options.targets.as_slice() {
        [] => known.clone(),
        named => named.iter().map(String::as_str).collect(),
    };
    for target in targets {
        if !known.contains(&target) {
            bail!("no fuzzer '{target}': expected one of {}", known.join(", "));
        }
        if options.minimise {
            run(&mut cargo_fuzz(&["cmin", target, "--sanitizer", "none"]))?;
            continue;
        }
        let time = format!("-max_total_time={}", options.seconds);
        // Sanitizers look for what safe code cannot do; valgrind looks at the unsafe code (`cargo xtask memcheck`).
        run(&mut cargo_fuzz(&[
            "run",
            target,
            "--sanitizer",
            "none",
            "--",
            &time,
            "-timeout=20",
            "-rss_limit_mb=4096",
            "-print_final_stats=1",
        ]))?;
    }
    Ok(())
}

fn cargo_fuzz(words: &[&str]) -> Command {
    let (subcommand, rest) = words.split_first().expect("a subcommand");
    let mut cargo = cargo(["fuzz", subcommand, "--fuzz-dir", "tests/fuzz"]);
    cargo.args(rest).env("RUSTC_BOOTSTRAP", "1");
    cargo
}
