//! Ctrl-C and `kill`: the first asks for an orderly end, the second is obeyed at once.

use std::{
    io,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

/// What signals have asked for.
pub struct Signals {
    /// Set by the first.
    pub stop: Arc<AtomicBool>,
    number: Arc<AtomicUsize>,
}

impl Signals {
    /// Listens from now on.
    pub fn listen() -> io::Result<Self> {
        let (stop, number) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag unset, sets it, and the second one ends the process.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))?;
            flag::register_usize(signal, Arc::clone(&number), signal as usize)?;
            flag::register(signal, Arc::clone(&stop))?;
        }
        Ok(Self { stop, number })
    }

    /// The shell's status of a program that a signal ended: 130 after Ctrl-C, 143 after `kill`. A process that stops because
    /// another one of its training was asked to has had no signal: as after Ctrl-C.
    pub fn status(&self) -> ExitCode {
        match self.number.load(Ordering::Relaxed) {
            0 => ExitCode::from(128 + SIGINT as u8),
            number => ExitCode::from(128 + number as u8),
        }
    }
}
