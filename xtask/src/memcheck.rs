//! The kernels' unsafe code under valgrind's memcheck: reads and writes outside of what was taken, and decisions on
//! bytes that nobody wrote. The self-test of the shipped model, on one thread and on two, then the unit tests of the
//! kernels themselves.
//!
//! valgrind's CPU has no AVX-512, so the tests see tables up to AVX2. Leaks do not count: a program may end with memory.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::edge::{self, Build};
use crate::shell::{cargo, command, output, run};
use crate::{debian, libtorch};

/// Builds, runs, and fails at the first error that valgrind sees.
///
/// # Errors
/// valgrind is missing, a build fails, a self-test or a unit test fails, or memory was misused.
pub fn memcheck() -> Result<()> {
    edge::need_x86_64_linux("memcheck")?;
    debian::need(&[edge::VALGRIND])?;
    let program = Build::here().run()?;
    for kernels in edge::VALGRIND_KERNELS {
        for threads in ["1", "2"] {
            let mut selftest = valgrind();
            selftest.arg(&program).args(["selftest", "--threads", threads]);
            run(edge::planned(&mut selftest, kernels))?;
        }
    }
    run(valgrind().arg(unit_tests()?).arg("kernels::"))
}

/// valgrind runs one thread at a time; in fair turns, or those that spin would keep the others waiting.
fn valgrind() -> Command {
    command(edge::VALGRIND.0, ["--quiet", "--fair-sched=try", "--error-exitcode=1"])
}

/// The runtime's unit tests, with the features that `cargo test --workspace` chooses: then nothing is compiled twice,
/// although the trainer, and with it libtorch, comes along.
fn unit_tests() -> Result<PathBuf> {
    let words = ["test", "--workspace", "--lib", "--no-run", "--message-format=json"];
    libtorch::setup()?;
    let messages = output(&mut cargo(words))?;
    program_of("edge_runtime", &messages).context("cargo built no unit tests of edge-runtime")
}

/// The test program of a library in cargo's messages.
fn program_of(library: &str, messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter(|message| message["target"]["name"] == library)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_that_of_the_library() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"edge_runtime"},"executable":null}
            {"reason":"compiler-artifact","target":{"name":"export"},"executable":"target/export-1"}
            not json
            {"reason":"compiler-artifact","target":{"name":"edge_runtime"},"executable":"target/edge_runtime-2"}"#;
        assert_eq!(program_of("edge_runtime", messages), Some("target/edge_runtime-2".into()));
        assert_eq!(program_of("volume", messages), None);
    }
}
