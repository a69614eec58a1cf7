//! One JSON line per slice, per refusal and per series, for whoever reads along.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::Path,
    sync::{Mutex, PoisonError},
};

use chrono::{SecondsFormat, Utc};
use serde::Serialize;

/// All sinks of lines.
#[derive(Default)]
pub struct Lines(Mutex<Vec<Box<dyn Write + Send>>>);

/// A line with its time (UTC, RFC 3339).
#[derive(Serialize)]
struct Line<'a, T> {
    time: String,
    event: &'a str,
    #[serde(flatten)]
    what: &'a T,
}

impl Lines {
    /// Adds a file that is appended to, or standard output for `-`.
    pub fn add(&mut self, path: &Path) -> io::Result<()> {
        let out: Box<dyn Write + Send> = match path.as_os_str() == "-" {
            true => Box::new(io::stdout()),
            false => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
        };
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).push(out);
        Ok(())
    }

    /// Writes a line everywhere. A sink that fails (a full disk, a closed pipe) gets the next line again.
    pub fn write(&self, event: &str, what: &impl Serialize) {
        let mut sinks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sinks.is_empty() {
            return;
        }
        let time = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let Ok(mut line) = serde_json::to_vec(&Line { time, event, what }) else { return };
        line.push(b'\n');
        for sink in &mut *sinks {
            // Whole lines in one write, so that readers never see half of one.
            let _ = sink.write_all(&line).and_then(|()| sink.flush());
        }
    }
}
