//! A connection, plain or TLS, on which a deadline holds for whatever is read and written until the next one is set, and which a
//! `halt` ends early: a deadline per call would not stop a peer that sends a byte at a time.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::ServerName;

/// How long a thread may take to see that it is to end.
pub(crate) const POLL: Duration = Duration::from_millis(100);

/// Longer than anybody waits, and never too much for a point in time.
const FOREVER: Duration = Duration::from_secs(86_400);

/// Set when everything is to end: until when a message in progress may still go on.
pub(crate) type Halt = Arc<OnceLock<Instant>>;

/// Sets it.
pub(crate) fn halt(halt: &Halt, grace: Duration) {
    let _ = halt.set(after(Instant::now(), grace));
}

/// A point in time.
pub(crate) fn after(begun: Instant, time: Duration) -> Instant {
    begun + time.min(FOREVER)
}

/// What happens to a read or a write on a halt.
#[derive(Clone, Copy)]
pub(crate) enum Phase {
    /// Ends at once.
    Idle,
    /// Ends with the grace.
    Busy,
    /// Has only its own deadline.
    Parting,
}

/// Why reads and writes fail that could have succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The deadline.
    TimedOut,
    /// The halt.
    Halted,
}

/// The socket, below TLS: so the deadline also holds for handshakes and for records that come byte by byte.
struct Timed {
    tcp: TcpStream,
    halt: Halt,
    deadline: Instant,
    phase: Phase,
    cause: Option<Cause>,
}

impl Timed {
    /// How long to block in one call.
    fn slice(&mut self) -> io::Result<Duration> {
        let now = Instant::now();
        let halted = match (self.phase, self.halt.get()) {
            (Phase::Idle, Some(_)) => true,
            (Phase::Busy, Some(last)) => now >= *last,
            _ => false,
        };
        if halted {
            self.cause = Some(Cause::Halted);
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "this side stops"));
        }
        let left = self.deadline.saturating_duration_since(now);
        if left.is_zero() {
            self.cause = Some(Cause::TimedOut);
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

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.persist(TcpStream::set_read_timeout, |tcp| tcp.read(buffer))
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.persist(TcpStream::set_write_timeout, |tcp| tcp.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Transport {
    Plain(Timed),
    Accepted(Box<StreamOwned<ServerConnection, Timed>>),
    Made(Box<StreamOwned<ClientConnection, Timed>>),
}

/// The connection.
pub(crate) struct Wire(Transport);

impl Wire {
    /// Of a receiver. Nothing is waited for: a TLS handshake is made with the first read.
    pub fn accepted(tcp: TcpStream, tls: Option<&Arc<ServerConfig>>, halt: Halt) -> io::Result<Self> {
        let timed = Self::timed(tcp, halt)?;
        Ok(Self(match tls {
            None => Transport::Plain(timed),
            Some(config) => {
                let tls = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
                Transport::Accepted(Box::new(StreamOwned::new(tls, timed)))
            }
        }))
    }

    /// Of a sender to the host of this name. Nothing is waited for, as above.
    pub fn made(
        tcp: TcpStream,
        tls: Option<(&Arc<ClientConfig>, ServerName<'static>)>,
        halt: Halt,
    ) -> io::Result<Self> {
        let timed = Self::timed(tcp, halt)?;
        Ok(Self(match tls {
            None => Transport::Plain(timed),
            Some((config, host)) => {
                let tls = ClientConnection::new(config.clone(), host).map_err(io::Error::other)?;
                Transport::Made(Box::new(StreamOwned::new(tls, timed)))
            }
        }))
    }

    fn timed(tcp: TcpStream, halt: Halt) -> io::Result<Timed> {
        // Every PDU is written in one piece, so holding back small ones would only cost time.
        tcp.set_nodelay(true)?;
        Ok(Timed { tcp, halt, deadline: Instant::now(), phase: Phase::Busy, cause: None })
    }

    /// Makes a sender's TLS handshake, if there is TLS.
    pub fn shake_hands(&mut self) -> io::Result<()> {
        if let Transport::Made(tls) = &mut self.0 {
            while tls.conn.is_handshaking() {
                tls.conn.complete_io(&mut tls.sock)?;
            }
        }
        Ok(())
    }

    /// Until when reads and writes may go on from here.
    pub fn until(&mut self, phase: Phase, deadline: Instant) {
        let socket = self.socket();
        (socket.phase, socket.deadline) = (phase, deadline);
    }

    /// Changes only what a halt means.
    pub fn phase(&mut self, phase: Phase) {
        self.socket().phase = phase;
    }

    /// Fails if a read would, although there may be something to read.
    pub fn check(&mut self) -> io::Result<()> {
        self.socket().slice().map(drop)
    }

    /// Why the last read or write failed, if it was for time.
    pub fn cause(&mut self) -> Option<Cause> {
        self.socket().cause.take()
    }

    /// Says goodbye to TLS, if there is TLS.
    pub fn notify(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Transport::Plain(_) => {}
            Transport::Accepted(tls) => tls.conn.send_close_notify(),
            Transport::Made(tls) => tls.conn.send_close_notify(),
        }
        self.flush()
    }

    /// Says that nothing more comes, and reads until nothing more comes, so that a reset does not overtake what was said last.
    pub fn linger(&mut self) {
        let socket = self.socket();
        socket.phase = Phase::Idle;
        if socket.tcp.shutdown(Shutdown::Write).is_ok() {
            let mut waste = [0; 8192];
            while socket.read(&mut waste).is_ok_and(|n| n > 0) {}
        }
    }

    fn socket(&mut self) -> &mut Timed {
        match &mut self.0 {
            Transport::Plain(timed) => timed,
            Transport::Accepted(tls) => &mut tls.sock,
            Transport::Made(tls) => &mut tls.sock,
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Transport::Plain(timed) => timed.read(buffer),
            Transport::Accepted(tls) => tls.read(buffer),
            Transport::Made(tls) => tls.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Transport::Plain(timed) => timed.write(bytes),
            Transport::Accepted(tls) => tls.write(bytes),
            Transport::Made(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Transport::Plain(timed) => timed.flush(),
            Transport::Accepted(tls) => tls.flush(),
            Transport::Made(tls) => tls.flush(),
        }
    }
}
