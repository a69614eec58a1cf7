//! `gantry-train`: see [`cli`] for the commands.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    host_train::device::keep_freed_memory();
    // Before anything asks libtorch whether there is CUDA: it remembers the first answer.
    host_train::device::open_cuda();
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
