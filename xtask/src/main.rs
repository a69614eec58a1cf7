//! The one front door for people and CI: `cargo xtask --help`.

mod check;
mod count;
mod cross;
mod debian;
mod demo;
mod edge;
mod fuzz;
mod gpu_pack;
mod libtorch;
mod memcheck;
mod shell;
mod size;
mod study;
mod subjects;
mod test;
mod toolchain;
mod venv;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::shell::{cargo, run};

/// Sets up, tests, checks and measures Gantry.
///
/// What a task downloads stays in ignored folders of the workspace (.libtorch/, .venv/, .toolchain/) and is fetched
/// once. Nothing is installed elsewhere, but for what `cross`, `count` and `memcheck` need: the cross compiler, qemu,
/// valgrind (as root, on Debian).
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// From nothing to an int8 label map: phantoms, training, export, segmentation, report (about 10 minutes)
    #[command(after_help = "Example, a longer training:  cargo xtask demo --steps 2000")]
    Demo(demo::DemoArgs),
    /// The demo's steps on two data sets of your own (nnU-Net's raw layout)
    Chain(demo::ChainArgs),
    /// Make a synthetic CT and a synthetic MRI volume with their label maps; needs no libtorch
    #[command(after_help = "Example:  cargo xtask phantom --out target/phantom")]
    Phantom(subjects::PhantomArgs),
    /// Train with several topologies, training-set sizes and seeds, and compare them case by case
    Study(study::StudyArgs),
    /// Run every test, the trainer's and the documentation's included
    #[command(after_help = "Example, one test only:  cargo xtask test resume_equals_an_uninterrupted_run")]
    Test {
        /// Handed to `cargo test --workspace`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Check formatting, lints and documentation, and build `contract` for bare metal
    Check,
    /// Run the benchmarks (criterion, x86-64 or wherever you are)
    #[command(after_help = "Example, one benchmark only:  cargo xtask bench resample")]
    Bench {
        /// Handed to `cargo bench --package benches`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build gantry-edge for aarch64, run it under qemu, and compare its results with this machine's, bit for bit
    Cross(cross::Options),
    /// Count the instructions of one slice, per modality and kernels, and compare them with benches/instructions.json
    #[command(after_help = "After a change of kernels or compiler:  cargo xtask count --record")]
    Count(count::Options),
    /// Run the self-test and the kernels' unit tests under valgrind
    Memcheck,
    /// Fuzz everything of ours that reads bytes from outside (needs cargo-fuzz); its finds are replayed by every test
    #[command(after_help = "Example:  cargo xtask fuzz association --seconds 60")]
    Fuzz(fuzz::Options),
    /// Make target/gpu-pack: the programs and scripts for a machine with CUDA and PyTorch 2.11 from pip, and no Rust
    #[command(after_help = "There:  ./check.sh results     or     ./run.sh gantry-train train --device cuda ...")]
    GpuPack,
    /// Print the sizes of the release programs
    Size,
    /// Download libtorch into .libtorch/ (once), unless LIBTORCH or LIBTORCH_USE_PYTORCH is set
    Setup,
    /// Make .venv/ with the Python packages that check our files (once)
    Venv,
}

fn main() -> Result<()> {
    match Cli::parse().task {
        Task::Demo(args) => demo::demo(&args),
        Task::Chain(args) => demo::chain(&args),
        Task::Study(args) => study::study(&args),
        Task::Phantom(args) => subjects::phantom(&args),
        Task::Test { args } => test::test(&args),
        Task::Check => check::check(),
        Task::Bench { args } => run(cargo(["bench", "--package", "benches"]).args(args)),
        Task::Cross(options) => cross::cross(&options),
        Task::Count(options) => count::count(&options),
        Task::Memcheck => memcheck::memcheck(),
        Task::Fuzz(options) => fuzz::fuzz(&options),
        Task::GpuPack => gpu_pack::gpu_pack(),
        Task::Size => size::size(),
        Task::Setup => libtorch::setup(),
        Task::Venv => venv::setup().map(drop),
    }
}
