//! One connection: whole PDUs in and out, each within its time, none longer than was announced.
//!
//! A deadline per PDU, not per read: a peer that sends a byte now and then holds a connection no longer than one that sends
//! nothing.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use dicom_ul::pdu::{AbortRQServiceProviderReason, AbortRQSource, Pdu, read_pdu, write_pdu};
use rustls::{ClientConnection, ServerConnection, StreamOwned};

/// How long a read waits at a time, so that a request to stop is heard.
const LOOK: Duration = Duration::from_millis(100);
/// Type, a reserved byte and the length (PS3.8 9.3).
const HEADER: usize = 6;
/// Largest request for an association: 128 contexts with many syntaxes and a lot of user information fit.
const MAX_ASSOCIATE_BYTES: usize = 1 << 20;
/// Bytes that are read at a time, so that memory follows what has come and not what was announced.
const CHUNK: usize = 1 << 16;
/// Least size of a PDU that the codec accepts as a limit.
const CODEC_LEAST: u32 = 4096;

/// Why nothing more comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The connection was closed.
    Lost,
    /// No whole PDU within its time.
    TimedOut,
    /// Not the protocol.
    Protocol(String),
    /// We are asked to stop.
    Stopped,
}

/// A socket whose reads and writes end at a deadline.
pub struct Timed {
    socket: TcpStream,
    deadline: Instant,
    stop: Arc<AtomicBool>,
    /// Whether a stop may interrupt what is being read.
    interruptible: bool,
}

/// Plain or encrypted.
pub enum Wire {
    /// TCP.
    Plain(Timed),
    /// TLS, as the side that was called.
    Server(Box<StreamOwned<ServerConnection, Timed>>),
    /// TLS, as the side that calls.
    Client(Box<StreamOwned<ClientConnection, Timed>>),
}

impl Timed {
    /// Takes a connected socket; `stop` is looked at now and then.
    pub fn new(socket: TcpStream, stop: Arc<AtomicBool>) -> io::Result<Self> {
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(LOOK))?;
        socket.set_write_timeout(Some(LOOK))?;
        Ok(Self { socket, deadline: Instant::now(), stop, interruptible: true })
    }

    fn patiently<T>(&mut self, mut act: impl FnMut(&mut TcpStream) -> io::Result<T>) -> io::Result<T> {
        loop {
            match act(&mut self.socket) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if self.interruptible && self.stop.load(Ordering::Acquire) {
                        return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result if Instant::now() < self.deadline || result.is_err() => return result,
                // What came came too late, or the peer drips.
                _ => return Err(io::Error::from(io::ErrorKind::TimedOut)),
            }
            if Instant::now() >= self.deadline {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.patiently(|socket| socket.read(buffer))
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.patiently(|socket| socket.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

impl Wire {
    fn timed(&mut self) -> &mut Timed {
        match self {
            Self::Plain(timed) => timed,
            Self::Server(stream) => &mut stream.sock,
            Self::Client(stream) => &mut stream.sock,
        }
    }

    /// Reads a PDU of at most `most` bytes, whole within `time`; a request to stop ends the wait if it is `interruptible`.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn read(&mut self, most: u32, time: Duration, interruptible: bool) -> Result<Pdu, Broken> {
        let timed = self.timed();
        timed.deadline = Instant::now() + time;
        timed.interruptible = interruptible;
        let mut bytes = vec![0; HEADER];
        self.fill(&mut bytes)?;
        let length = u32::from_be_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]) as usize;
        let limit = if matches!(bytes[0], 1 | 2) { MAX_ASSOCIATE_BYTES } else { most as usize };
        if !(1..=7).contains(&bytes[0]) || length > limit {
            let found = format!(
                "a PDU of type {:#04x} and {length} bytes: expected types 1 to 7 and at most {limit}",
                bytes[0]
            );
            return Err(Broken::Protocol(found));
        }
        while bytes.len() < HEADER + length {
            let start = bytes.len();
            bytes.resize((start + CHUNK).min(HEADER + length), 0);
            self.fill(&mut bytes[start..])?;
        }
        match read_pdu(bytes.as_slice(), (limit as u32).max(CODEC_LEAST), true) {
            Ok(Some(pdu)) => Ok(pdu),
            Ok(None) => Err(Broken::Protocol("a PDU that ends before its items do".into())),
            Err(error) => Err(Broken::Protocol(error.to_string())),
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Broken> {
        let result = match self {
            Self::Plain(timed) => timed.read_exact(buffer),
            Self::Server(stream) => stream.read_exact(buffer),
            Self::Client(stream) => stream.read_exact(buffer),
        };
        result.map_err(|error| broken(&error))
    }

    /// Writes a PDU within `time`.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn write(&mut self, pdu: &Pdu, time: Duration) -> Result<(), Broken> {
        let mut bytes = vec![];
        write_pdu(&mut bytes, pdu).map_err(|error| Broken::Protocol(error.to_string()))?;
        let timed = self.timed();
        timed.deadline = Instant::now() + time;
        // Half a PDU is worse than none.
        timed.interruptible = false;
        let result = match self {
            Self::Plain(timed) => timed.write_all(&bytes).and_then(|()| timed.flush()),
            Self::Server(stream) => stream.write_all(&bytes).and_then(|()| stream.flush()),
            Self::Client(stream) => stream.write_all(&bytes).and_then(|()| stream.flush()),
        };
        result.map_err(|error| broken(&error))
    }

    /// Aborts the association and closes the connection; whether the peer hears of it does not matter.
    pub fn abort(&mut self, source: AbortRQSource) {
        let _ = self.write(&Pdu::AbortRQ { source }, Duration::from_secs(1));
        self.close();
    }

    /// Aborts because of a fault of the peer's.
    pub fn abort_protocol(&mut self) {
        self.abort(AbortRQSource::ServiceProvider(AbortRQServiceProviderReason::UnexpectedPdu));
    }

    /// Closes the connection.
    pub fn close(&mut self) {
        let _ = self.timed().socket.shutdown(Shutdown::Both);
    }
}

fn broken(error: &io::Error) -> Broken {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Broken::TimedOut,
        io::ErrorKind::ConnectionAborted => Broken::Stopped,
        io::ErrorKind::InvalidData => Broken::Protocol(error.to_string()),
        _ => Broken::Lost,
    }
}
