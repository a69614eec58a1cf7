//! One JSON line per slice, per refusal and per series, for whoever reads along. Lines are written by a thread of their own:
//! a reader that stops reading, or a slow disk, holds nobody up.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::Path,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread,
    time::{Duration, Instant},
};

use chrono::{SecondsFormat, Utc};
use serde::Serialize;

/// Lines that wait to be written; more are lost, and how many is said in the next that is not.
const WAITING: usize = 4096;
/// How long the end waits for what is still to be written.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks whether there is room.
const LOOK: Duration = Duration::from_millis(5);

/// All sinks of lines.
#[derive(Default)]
pub struct Lines {
    to_writer: Option<SyncSender<Message>>,
    lost: AtomicU64,
}

enum Message {
    Line(Vec<u8>),
    /// To be answered when everything before is written.
    Flush(SyncSender<()>),
}

/// A line with its time (UTC, RFC 3339).
#[derive(Serialize)]
struct Line<'a, T> {
    time: String,
    event: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    lines_lost_before: u64,
    #[serde(flatten)]
    what: &'a T,
}

impl Lines {
    /// Opens files, to be appended to, or standard output for `-`.
    ///
    /// # Errors
    /// The first that cannot be opened, with its path.
    pub fn open<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<Self, (&'a Path, io::Error)> {
        let open = |path: &'a Path| -> Result<Box<dyn Write + Send>, _> {
            let append = || OpenOptions::new().create(true).append(true).open(path).map_err(|error| (path, error));
            if path.as_os_str() == "-" { Ok(Box::new(io::stdout())) } else { Ok(Box::new(append()?)) }
        };
        let sinks = paths.map(open).collect::<Result<Vec<_>, _>>()?;
        if sinks.is_empty() {
            return Ok(Self::default());
        }
        let (to_writer, messages) = mpsc::sync_channel(WAITING);
        // Not joined: it may hang at a reader for ever.
        thread::spawn(move || write(&messages, sinks));
        Ok(Self { to_writer: Some(to_writer), lost: AtomicU64::new(0) })
    }

    /// Has a line written everywhere, soon.
    pub fn write(&self, event: &str, what: &impl Serialize) {
        let Some(to_writer) = &self.to_writer else { return };
        let time = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let lines_lost_before = self.lost.swap(0, Ordering::AcqRel);
        let line = serde_json::to_vec(&Line { time, event, lines_lost_before, what });
        let sent = line.is_ok_and(|mut line| {
            line.push(b'\n');
            to_writer.try_send(Message::Line(line)).is_ok()
        });
        if !sent {
            self.lost.fetch_add(lines_lost_before + 1, Ordering::AcqRel);
        }
    }

    /// Waits a little until everything is written; where nobody reads along, what is left is left.
    pub fn flush(&self) {
        let Some(to_writer) = &self.to_writer else { return };
        let (tell, told) = mpsc::sync_channel(1);
        let mut message = Message::Flush(tell);
        let end = Instant::now() + PATIENCE;
        while let Err(TrySendError::Full(unsent)) = to_writer.try_send(message) {
            if Instant::now() > end {
                return;
            }
            thread::sleep(LOOK);
            message = unsent;
        }
        let _ = told.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

/// Writes until there are no more senders. A sink that fails (a full disk, a closed pipe) gets the next line again.
fn write(messages: &Receiver<Message>, mut sinks: Vec<Box<dyn Write + Send>>) {
    for message in messages {
        match message {
            // Whole lines in one write, so that readers never see half of one.
            Message::Line(line) => sinks.iter_mut().for_each(|sink| {
                let _ = sink.write_all(&line).and_then(|()| sink.flush());
            }),
            Message::Flush(tell) => {
                // Who asked may have lost patience.
                let _ = tell.send(());
            }
        }
    }
}

const fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;

    /// Nothing is written until it may be.
    struct Gate(Receiver<()>, mpsc::Sender<Vec<u8>>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            let _ = self.1.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stops_holds_nobody_up_and_learns_how_much_it_lost() {
        let (open, gate) = mpsc::channel();
        let (to_reader, read) = mpsc::channel();
        let (to_writer, messages) = mpsc::sync_channel(WAITING);
        let writing = thread::spawn(move || write(&messages, vec![Box::new(Gate(gate, to_reader))]));
        let lines = Lines { to_writer: Some(to_writer), lost: AtomicU64::new(0) };
        let nothing: BTreeMap<&str, u8> = BTreeMap::new();
        let all = WAITING + 100;
        (0..all).for_each(|_| lines.write("slice", &nothing));
        // The reader goes on: every line that was not lost arrives, and the next says how many were.
        drop(open);
        lines.flush();
        lines.write("slice", &nothing);
        drop(lines);
        writing.join().unwrap();
        let read: Vec<Value> = read.iter().map(|line| serde_json::from_slice(&line).unwrap()).collect();
        let lost = read.last().unwrap()["lines_lost_before"].as_u64().unwrap() as usize;
        assert!((99..=100).contains(&lost), "{lost}: the writer may have taken one line already");
        assert_eq!(read.len(), all - lost + 1);
    }
}
