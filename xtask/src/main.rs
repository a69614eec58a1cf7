//! The one front door for people and CI: `cargo xtask --help`.

mod libtorch;
mod shell;
mod venv;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Sets up, tests, checks and measures Gantry.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Download libtorch into .libtorch/ (once), unless LIBTORCH or LIBTORCH_USE_PYTORCH is set
    Setup,
    /// Make .venv/ with the Python packages that check our files (once)
    Venv,
}

fn main() -> Result<()> {
    match Cli::parse().task {
        Task::Setup => libtorch::setup(),
        Task::Venv => venv::setup().map(drop),
    }
}
