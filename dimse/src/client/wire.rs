//! A connection, plain or TLS, on which every PDU has a deadline: a peer that sends one byte now and then does not hold us.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use dicom_ul::pdu::{self, Pdu};
use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use super::{Error, LARGEST_PDU, Target};

/// A socket whose reads and writes end at a point in time.
struct Timed {
    socket: TcpStream,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(self.left()?))?;
        self.socket.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(self.left()?))?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

enum Stream {
    Plain(Timed),
    Tls(Box<StreamOwned<ClientConnection, Timed>>),
}

/// A connection to a peer.
pub(super) struct Wire {
    stream: Stream,
    timeout: Duration,
}

impl Wire {
    /// Connects to the first of the target's addresses that answers, and shakes hands if it is to be TLS.
    pub fn connect(target: &Target) -> Result<Self, Error> {
        let failed = |reason: String| Error::Connect { address: target.address.clone(), reason };
        // A timeout of nothing would make every call fail, and one of centuries overflow a point in time.
        let timeout = target.timeout.clamp(Duration::from_millis(1), Duration::from_secs(86_400));
        let deadline = Instant::now() + timeout;
        let addresses = target.address.to_socket_addrs().map_err(|error| failed(error.to_string()))?;
        let mut reason = String::from("the name has no address");
        let mut connected = None;
        for address in addresses {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match TcpStream::connect_timeout(&address, left) {
                Ok(socket) => {
                    connected = Some(socket);
                    break;
                }
                Err(error) => reason = format!("{address}: {}", words(&error, timeout)),
            }
        }
        let socket = connected.ok_or_else(|| failed(reason))?;
        // Every PDU is written in one piece, so holding back small ones would only cost time.
        socket.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
        let mut socket = Timed { socket, deadline };
        let stream = match &target.tls {
            None => Stream::Plain(socket),
            Some(config) => {
                let host = target.address.rsplit_once(':').map_or(target.address.as_str(), |(host, _)| host);
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let name = ServerName::try_from(host).map_err(|error| failed(error.to_string()))?;
                let mut connection =
                    ClientConnection::new(config.clone(), name).map_err(|error| failed(error.to_string()))?;
                while connection.is_handshaking() {
                    connection
                        .complete_io(&mut socket)
                        .map_err(|error| failed(format!("TLS: {}", words(&error, timeout))))?;
                }
                Stream::Tls(Box::new(StreamOwned::new(connection, socket)))
            }
        };
        Ok(Self { stream, timeout })
    }

    /// Gives the next PDU its own time.
    fn restart(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        match &mut self.stream {
            Stream::Plain(socket) => socket.deadline = deadline,
            Stream::Tls(stream) => stream.sock.deadline = deadline,
        }
    }

    /// Writes a whole PDU.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.restart(self.timeout);
        let written = match &mut self.stream {
            Stream::Plain(socket) => socket.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        };
        written.map_err(|error| Error::Lost(format!("writing: {}", words(&error, self.timeout))))
    }

    /// Encodes and writes a PDU.
    pub fn send(&mut self, pdu: &Pdu) -> Result<(), Error> {
        let mut bytes = Vec::new();
        pdu::write_pdu(&mut bytes, pdu).map_err(|error| Error::Protocol(format!("our own PDU: {}", chain(&error))))?;
        self.write(&bytes)
    }

    /// Reads a PDU within the timeout.
    pub fn receive(&mut self) -> Result<Pdu, Error> {
        self.receive_within(self.timeout)
    }

    /// Reads a PDU within `time`.
    pub fn receive_within(&mut self, time: Duration) -> Result<Pdu, Error> {
        self.restart(time);
        let lost = |error: io::Error| Error::Lost(format!("reading: {}", words(&error, time)));
        let mut bytes = vec![0; pdu::PDU_HEADER_SIZE as usize];
        self.read_exact(&mut bytes).map_err(lost)?;
        let length = u32::from_be_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]);
        if length > LARGEST_PDU {
            return Err(Error::Protocol(format!("a PDU claims {length} bytes, expected at most {LARGEST_PDU}")));
        }
        bytes.resize(bytes.len() + length as usize, 0);
        self.read_exact(&mut bytes[pdu::PDU_HEADER_SIZE as usize..]).map_err(lost)?;
        match pdu::read_pdu(bytes.as_slice(), LARGEST_PDU, true) {
            Ok(Some(pdu)) => Ok(pdu),
            Ok(None) => Err(Error::Protocol("a PDU of the peer ends too early".into())),
            Err(error) => Err(Error::Protocol(format!("a PDU of the peer: {}", chain(&error)))),
        }
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(socket) => socket.read_exact(buffer),
            Stream::Tls(stream) => stream.read_exact(buffer),
        }
    }

    /// Says goodbye to TLS, if there is TLS; whether it arrives makes no difference.
    pub fn close(mut self) {
        self.restart(self.timeout.min(Duration::from_secs(1)));
        if let Stream::Tls(stream) = &mut self.stream {
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    }
}

/// A timeout is named as such: the system calls it "resource temporarily unavailable".
fn words(error: &io::Error, timeout: Duration) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer within {:.1} s", timeout.as_secs_f64())
        }
        io::ErrorKind::UnexpectedEof => "the peer closed the connection".into(),
        _ => error.to_string(),
    }
}

/// An error with its causes, which those of dicom-ul keep apart.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
