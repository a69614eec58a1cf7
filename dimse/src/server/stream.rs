//! PDUs over TCP or TLS, each within a deadline as a whole.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use dicom_ul::pdu::{
    AbortRQServiceProviderReason as Reason, AbortRQSource, MAXIMUM_PDU_SIZE, PDU_HEADER_SIZE, Pdu, read_pdu, write_pdu,
};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::End;

/// How long a thread may take to see that the receiver stops.
pub(super) const POLL: Duration = Duration::from_millis(100);

/// How long a client may take to close a connection that is over.
const LINGER: Duration = Duration::from_secs(1);

/// The type of a P-DATA-TF.
pub(super) const P_DATA: u8 = 4;

const HEADER: usize = PDU_HEADER_SIZE as usize;

/// Why a connection is over, and what the client is told.
pub(super) struct Closing {
    pub(super) end: End,
    /// Boxed because PDUs are large and this is an error.
    pub(super) last: Option<Box<Pdu>>,
}

impl Closing {
    /// The client has broken the protocol.
    pub(super) fn protocol(reason: Reason, message: impl Into<String>) -> Self {
        Self { end: End::Protocol(message.into()), last: Some(abort(reason)) }
    }
}

fn abort(reason: Reason) -> Box<Pdu> {
    Box::new(Pdu::AbortRQ { source: AbortRQSource::ServiceProvider(reason) })
}

/// What happens to a read or a write when the receiver stops.
#[derive(Clone, Copy)]
enum Phase {
    /// Ends at once.
    Idle,
    /// Ends with the grace.
    Busy,
    /// Has only its own deadline.
    Parting,
}

/// A socket on which all reads and writes fail at one deadline, or when the receiver stops.
struct Timed<'a> {
    tcp: TcpStream,
    halt: &'a OnceLock<Instant>,
    deadline: Instant,
    phase: Phase,
    /// `TimedOut` or `Stopped`, once that has happened.
    cause: Option<End>,
}

impl Timed<'_> {
    /// How long to block in one call.
    fn slice(&mut self) -> io::Result<Duration> {
        let now = Instant::now();
        let stopped = match (self.phase, self.halt.get()) {
            (Phase::Idle, Some(_)) => true,
            (Phase::Busy, Some(last)) => now >= *last,
            _ => false,
        };
        if stopped {
            self.cause = Some(End::Stopped);
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the receiver stops"));
        }
        let left = self.deadline.saturating_duration_since(now);
        if left.is_zero() {
            self.cause = Some(End::TimedOut);
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(left.clamp(Duration::from_millis(1), POLL))
    }

    /// Calls `io` until it has done something.
    fn persist<T>(
        &mut self,
        limit: fn(&TcpStream, Option<Duration>) -> io::Result<()>,
        mut io: impl FnMut(&mut TcpStream) -> io::Result<T>,
    ) -> io::Result<T> {
        use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
        loop {
            let slice = self.slice()?;
            limit(&self.tcp, Some(slice))?;
            match io(&mut self.tcp) {
                Err(e) if matches!(e.kind(), WouldBlock | TimedOut | Interrupted) => {}
                done => return done,
            }
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.persist(TcpStream::set_read_timeout, |tcp| tcp.read(buffer))
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.persist(TcpStream::set_write_timeout, |tcp| tcp.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Transport<'a> {
    Plain(Timed<'a>),
    // The deadline lies below TLS, so it holds for handshakes and for records sent byte by byte.
    Tls(Box<StreamOwned<ServerConnection, Timed<'a>>>),
}

/// A PDU and when it came.
pub(super) struct Received {
    pub(super) pdu: Pdu,
    /// When its first byte had arrived.
    pub(super) begun: Instant,
    /// When its last byte had arrived.
    pub(super) ended: Instant,
}

/// A connection.
pub(super) struct Stream<'a> {
    transport: Transport<'a>,
    /// The header and the variable field of the last PDU.
    buffer: Vec<u8>,
    idle: Duration,
}

impl<'a> Stream<'a> {
    /// Waits for nothing: a TLS handshake is made with the first PDU.
    pub(super) fn new(
        tcp: TcpStream,
        tls: Option<&Arc<ServerConfig>>,
        idle: Duration,
        halt: &'a OnceLock<Instant>,
    ) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        let timed = Timed { tcp, halt, deadline: Instant::now(), phase: Phase::Idle, cause: None };
        let transport = match tls {
            None => Transport::Plain(timed),
            Some(config) => {
                let tls = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
                Transport::Tls(Box::new(StreamOwned::new(tls, timed)))
            }
        };
        Ok(Self { transport, buffer: Vec::new(), idle })
    }

    fn timed(&mut self) -> &mut Timed<'a> {
        match &mut self.transport {
            Transport::Plain(timed) => timed,
            Transport::Tls(tls) => &mut tls.sock,
        }
    }

    fn begin(&mut self, phase: Phase, time: Duration) {
        let timed = self.timed();
        let now = Instant::now();
        timed.deadline = now.checked_add(time).unwrap_or(now + Duration::from_secs(86_400));
        timed.phase = phase;
    }

    /// The next PDU, of at most `limit` bytes and one of the `expected` types; memory is taken as its bytes arrive. `busy`: it
    /// goes on with a message.
    pub(super) fn receive(&mut self, expected: &[u8], limit: u32, busy: bool) -> Result<Received, Closing> {
        self.begin(if busy { Phase::Busy } else { Phase::Idle }, self.idle);
        self.timed().slice().map_err(|e| self.lost(&e))?;
        self.fill(1)?;
        let begun = Instant::now();
        if self.buffer[..] == [P_DATA] {
            self.timed().phase = Phase::Busy;
        }
        self.more(HEADER - 1)?;
        let [kind, _, a, b, c, d] = self.buffer[..] else {
            return Err(Closing { end: End::Lost, last: None });
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        if !expected.contains(&kind) {
            let reason = if (1..=7).contains(&kind) { Reason::UnexpectedPdu } else { Reason::UnrecognizedPdu };
            return Err(Closing::protocol(
                reason,
                format!("a PDU of type {kind:#04x}, expected one of {expected:02x?}"),
            ));
        }
        if length > limit {
            let message = format!("a PDU of type {kind:#04x} of {length} bytes, expected at most {limit}");
            return Err(Closing::protocol(Reason::InvalidPduParameter, message));
        }
        self.more(length as usize)?;
        let ended = Instant::now();
        let malformed = |what: String| {
            let message = format!("a PDU of type {kind:#04x} that cannot be decoded: {what}");
            Closing::protocol(Reason::InvalidPduParameter, message)
        };
        match read_pdu(&self.buffer[..], MAXIMUM_PDU_SIZE, false) {
            Ok(Some(pdu)) => Ok(Received { pdu, begun, ended }),
            Ok(None) => Err(malformed("an item is longer than the PDU".to_owned())),
            Err(e) => Err(malformed(e.to_string())),
        }
    }

    fn fill(&mut self, count: usize) -> Result<(), Closing> {
        self.buffer.clear();
        self.more(count)
    }

    /// Appends `count` bytes to the buffer.
    fn more(&mut self, count: usize) -> Result<(), Closing> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = Read::by_ref(self).take(count as u64).read_to_end(&mut buffer);
        self.buffer = buffer;
        match result {
            Ok(got) if got == count => Ok(()),
            Ok(_) => Err(Closing { end: End::Lost, last: None }),
            Err(e) => Err(self.lost(&e)),
        }
    }

    fn lost(&mut self, error: &io::Error) -> Closing {
        match self.timed().cause.take() {
            Some(end) => Closing { end, last: Some(abort(Reason::ReasonNotSpecified)) },
            // What rustls found wrong; it has sent its alert.
            None if error.kind() == io::ErrorKind::InvalidData => {
                Closing { end: End::Protocol(format!("TLS: {error}")), last: None }
            }
            None => Closing { end: End::Lost, last: None },
        }
    }

    /// Sends PDUs.
    pub(super) fn send(&mut self, pdus: &[Pdu]) -> Result<(), Closing> {
        let bytes = encode(pdus)?;
        self.begin(Phase::Busy, self.idle);
        self.write_all(&bytes).and_then(|()| self.flush()).map_err(|e| self.lost(&e))
    }

    /// Sends what the client is still told and lets it close the connection, so that a reset does not overtake the last PDU.
    pub(super) fn close(mut self, last: Option<Box<Pdu>>) {
        let Some(last) = last else { return };
        self.begin(Phase::Parting, LINGER.min(self.idle));
        let Ok(bytes) = encode(&[*last]) else { return };
        if self.write_all(&bytes).is_err() {
            return;
        }
        if let Transport::Tls(tls) = &mut self.transport {
            tls.conn.send_close_notify();
        }
        if self.flush().is_err() {
            return;
        }
        let timed = self.timed();
        timed.phase = Phase::Idle;
        if timed.tcp.shutdown(Shutdown::Write).is_ok() {
            let mut waste = [0; 8192];
            while timed.read(&mut waste).is_ok_and(|n| n > 0) {}
        }
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.transport {
            Transport::Plain(timed) => timed.read(buffer),
            Transport::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.transport {
            Transport::Plain(timed) => timed.write(bytes),
            Transport::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.transport {
            Transport::Plain(timed) => timed.flush(),
            Transport::Tls(tls) => tls.flush(),
        }
    }
}

/// Fails only if the client gave a title that cannot be said back.
fn encode(pdus: &[Pdu]) -> Result<Vec<u8>, Closing> {
    let mut bytes = Vec::new();
    for pdu in pdus {
        write_pdu(&mut bytes, pdu)
            .map_err(|e| Closing::protocol(Reason::ReasonNotSpecified, format!("no answer can be made: {e}")))?;
    }
    Ok(bytes)
}
