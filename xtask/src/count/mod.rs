//! How many instructions one slice takes: a performance test without noise, on any machine, for CPUs that are not here.
//!
//! Instructions are not time, but a kernel that lost its vectors, a copy too many or a loop that was not unrolled shows
//! in them at once. callgrind counts on x86-64 (it knows no AVX-512, so tables up to AVX2), qemu with a plugin on aarch64.
//!
//! Counts repeat to the last instruction, because in the process no random number and no clock differs from run to run
//! (`still.c`). One slice is the difference of a process that does two and one that does one.
//!
//! The dev profile shares its dependencies with the tests and with `cross`. What runs per slice, `edge-runtime` and
//! `contract`, is built as in the release profile: optimised, and without the checks of the dev profile, which would
//! be most of what is counted.

mod baseline;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail};
use contract::Modality;

use crate::debian::{self, Tool};
use crate::edge::{self, Build};
use crate::shell::{command, output, root, run, target_dir};
use baseline::{Baseline, Counts, Row, TOLERANCE_PERCENT, Verdict};

/// The record.
const BASELINE: &str = "benches/instructions.json";

const COMPILER: Tool = ("cc", &["gcc", "libc6-dev"]);
/// Not the static one of `cross`, which loads no plugins.
const QEMU: Tool = ("qemu-aarch64", &["qemu-user"]);

const PROFILE: &str = "dev; edge-runtime and contract without checks";
const SETTINGS: &[&str] = &[
    "build.incremental=false", // it changes what is inlined
    "profile.dev.package.edge-runtime.debug-assertions=false",
    "profile.dev.package.edge-runtime.overflow-checks=false",
    "profile.dev.package.contract.debug-assertions=false",
    "profile.dev.package.contract.overflow-checks=false",
];

/// Slices of the two processes: the first of each may do what later ones need not.
const SLICES: [u8; 2] = [1, 2];

#[derive(clap::Args)]
pub struct Options {
    /// Write the counts to benches/instructions.json instead of judging them
    #[arg(long)]
    record: bool,
}

/// Counts, prints a table, and judges the counts by the record or writes it anew.
///
/// # Errors
/// A missing tool, a failed build or run; counts that are above their record by more than the tolerance, or not in it.
pub fn count(options: &Options) -> Result<()> {
    edge::need_x86_64_linux("count")?;
    debian::need(&[COMPILER, edge::CROSS_COMPILER, edge::VALGRIND, QEMU])?;
    let work = target_dir().join("count");
    fs::create_dir_all(&work)?;
    let counted = BTreeMap::from([x86_64(&work)?, aarch64(&work)?]);
    let recorded = read()?;
    let judged = judge(&counted, recorded.as_ref());
    if options.record {
        return write(counted);
    }
    judged
}

fn x86_64(work: &Path) -> Result<(String, Counts)> {
    let build = Build::here().with(SETTINGS);
    let program = build.run()?;
    let still = library(COMPILER.0, "benches/still.c", &work.join("still-x86-64.so"))?;
    let count = |_: &str, out: &Path| {
        let mut valgrind = command(edge::VALGRIND.0, ["--quiet", "--tool=callgrind"]);
        valgrind.arg(format!("--callgrind-out-file={}", out.display())).arg(&program).env("LD_PRELOAD", &still);
        valgrind
    };
    counts("x86-64", &build, work, edge::VALGRIND_KERNELS.map(|kernels| (kernels, kernels)), count)
}

fn aarch64(work: &Path) -> Result<(String, Counts)> {
    let build = Build::aarch64(false)?.with(SETTINGS);
    let program = build.run()?;
    let still = library(edge::CROSS_COMPILER.0, "benches/still.c", &work.join("still-aarch64.so"))?;
    let plugin = library(COMPILER.0, "benches/peers/count.c", &work.join("count.so"))?;
    let count = |cpu: &str, out: &Path| {
        let mut qemu = command(QEMU.0, ["-cpu", cpu, "-seed", "1", "-L", edge::LIBRARIES, "-E"]);
        qemu.arg(format!("LD_PRELOAD={}", still.display()));
        qemu.arg("-plugin").arg(format!("{},out={}", plugin.display(), out.display())).arg(&program);
        qemu
    };
    counts("aarch64", &build, work, edge::CPUS, count)
}

fn library(compiler: &str, source: &str, out: &Path) -> Result<PathBuf> {
    run(command(compiler, ["-O2", "-shared", "-fPIC", source, "-o"]).arg(out))?;
    Ok(out.to_owned())
}

/// Counts every modality on every pair of CPU and kernels. `count(cpu, out)` is a command that takes the arguments of
/// `gantry-edge` and leaves the instructions of the process in the file `out`.
fn counts<const N: usize>(
    architecture: &str,
    build: &Build,
    work: &Path,
    cpus: [(&str, &str); N],
    count: impl Fn(&str, &Path) -> Command + Sync,
) -> Result<(String, Counts)> {
    let mut instructions = BTreeMap::new();
    for (cpu, kernels) in cpus {
        for modality in Modality::ALL {
            let name = format!("{kernels} {modality}");
            let process = |slices: u8| {
                let out = work.join(format!("{architecture}-{slices}.txt"));
                let mut counted = count(cpu, &out);
                counted.args(["first-slice", "--modality", modality.name(), "--slices", &slices.to_string()]);
                output(edge::planned(&mut counted, kernels))?;
                total(&fs::read_to_string(&out)?).with_context(|| format!("no count in {}", out.display()))
            };
            // At the same time: two cores halve the wait, and counts do not feel it.
            let [one, two] = thread::scope(|scope| {
                let threads = SLICES.map(|slices| scope.spawn(move || process(slices)));
                threads.map(|thread| thread.join().expect("a count does not panic"))
            });
            let slice = two? - one?;
            eprintln!("{architecture} {name}: {slice}");
            instructions.insert(name, slice);
        }
    }
    let counts = Counts { rustc: build.rustc_version()?, profile: PROFILE.to_owned(), instructions };
    Ok((architecture.to_owned(), counts))
}

/// The count in callgrind's file, or in the plugin's, which holds nothing else.
fn total(file: &str) -> Result<u64> {
    let summary = file.lines().find_map(|line| line.strip_prefix("summary: "));
    Ok(summary.unwrap_or(file).trim().parse()?)
}

/// Prints the table. An error if a count that can be judged is too high, or is not in the record, or only there.
fn judge(counted: &BTreeMap<String, Counts>, recorded: Option<&Baseline>) -> Result<()> {
    println!("\n{:<28}{:>14}{:>14}{:>9}", "instructions per slice", "now", "recorded", "ratio");
    let (mut failed, mut fewer) = (vec![], false);
    for (architecture, now) in counted {
        let recorded = recorded.and_then(|file| file.architectures.get(architecture));
        let rows = baseline::rows(architecture, now, recorded);
        rows.iter().for_each(|row| println!("{row}"));
        if let Some(reason) = baseline::incomparable(now, recorded) {
            println!("{architecture} is not judged: {reason}");
            continue;
        }
        fewer |= rows.iter().any(|row| row.verdict() == Verdict::Fewer);
        let fails = |row: &Row| matches!(row.verdict(), Verdict::More | Verdict::Unrecorded | Verdict::Gone);
        failed.extend(rows.into_iter().filter(fails));
    }
    if fewer {
        println!("some counts fell by more than {TOLERANCE_PERCENT} %: keep that with `cargo xtask count --record`");
    }
    if !failed.is_empty() {
        let lines: Vec<String> = failed.iter().map(ToString::to_string).collect();
        bail!(
            "these counts are more than {TOLERANCE_PERCENT} % above {BASELINE}, or only in one of both:\n{}\n\
             Find the change that costs (`valgrind --tool=callgrind`, `gantry-edge inspect --profile`) and undo it. If it is worth \
             its price, or the list of kernels changed, run `cargo xtask count --record` and commit the file with the reason.",
            lines.join("\n")
        );
    }
    Ok(())
}

fn read() -> Result<Option<Baseline>> {
    let path = root().join(BASELINE);
    if !path.is_file() {
        return Ok(None);
    }
    serde_json::from_str(&fs::read_to_string(&path)?).with_context(|| format!("{BASELINE} is not a record")).map(Some)
}

fn write(architectures: BTreeMap<String, Counts>) -> Result<()> {
    let date = output(&mut command("date", ["-u", "+%F"]))?.trim().to_owned();
    let record = serde_json::to_string_pretty(&Baseline { date, architectures })?;
    fs::write(root().join(BASELINE), record + "\n").with_context(|| format!("cannot write {BASELINE}"))?;
    println!("recorded in {BASELINE}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_files_hold_a_total() {
        assert_eq!(total("version: 1\nevents: Ir\nsummary: 4711\n\nfn=(1)\n3 5\n").unwrap(), 4711);
        assert_eq!(total("42\n").unwrap(), 42);
        assert!(total("").is_err() && total("summary: x").is_err());
    }

    fn counted(rustc: &str, count: u64) -> BTreeMap<String, Counts> {
        let instructions = BTreeMap::from([("avx2 ct".to_owned(), count)]);
        let counts = Counts { rustc: rustc.to_owned(), profile: PROFILE.to_owned(), instructions };
        BTreeMap::from([("x86-64".to_owned(), counts)])
    }

    #[test]
    fn too_many_instructions_fail_unless_another_compiler_made_them() {
        let record = Baseline { date: "2026-11-22".to_owned(), architectures: counted("1.91.0", 1000) };
        for (rustc, count, passes) in
            [("1.91.0", 1020, true), ("1.91.0", 1021, false), ("1.91.0", 10, true), ("1.99.0", 9000, true)]
        {
            assert_eq!(judge(&counted(rustc, count), Some(&record)).is_ok(), passes, "{rustc} {count}");
        }
        let said = judge(&counted("1.91.0", 1021), Some(&record)).unwrap_err().to_string();
        assert!(said.contains("x86-64 avx2 ct") && said.contains("--record"), "{said}");
        assert!(judge(&counted("1.91.0", 1000), None).is_err());
    }

    #[test]
    fn the_record_in_the_repository_can_be_read() {
        let record = read().unwrap().expect("a record");
        let names: Vec<&str> = record.architectures.keys().map(String::as_str).collect();
        assert_eq!(names, ["aarch64", "x86-64"]);
    }
}
