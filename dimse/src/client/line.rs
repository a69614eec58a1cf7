//! Whole PDUs to and from a receiver, each within a deadline: one that sends a byte now and then does not hold us.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use dicom_ul::pdu::{self, Pdu};
use rustls_pki_types::ServerName;

use super::{Error, LARGEST_PDU, Target};
use crate::wire::{Halt, Phase, Wire, after};

/// A connection to a peer.
pub(super) struct Line {
    wire: Wire,
    timeout: Duration,
}

impl Line {
    /// Connects to the first of the target's addresses that answers, and shakes hands if it is to be TLS.
    pub fn connect(target: &Target, halt: &Halt) -> Result<Self, Error> {
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
        let host = || {
            let host = target.address.rsplit_once(':').map_or(target.address.as_str(), |(host, _)| host);
            ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']').to_owned())
        };
        let tls = target.tls.as_ref().map(|config| Ok((config, host()?))).transpose();
        let tls = tls.map_err(|error: rustls_pki_types::InvalidDnsNameError| failed(error.to_string()))?;
        let mut wire = Wire::made(socket, tls, halt.clone()).map_err(|error| failed(error.to_string()))?;
        wire.until(Phase::Busy, deadline);
        wire.shake_hands().map_err(|error| failed(format!("TLS: {}", words(&error, timeout))))?;
        Ok(Self { wire, timeout })
    }

    /// Writes a whole PDU.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.wire.until(Phase::Busy, after(Instant::now(), self.timeout));
        let written = self.wire.write_all(bytes).and_then(|()| self.wire.flush());
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
        self.receive_by(self.deadline())
    }

    /// When an answer that is waited for from now on has to be there.
    pub fn deadline(&self) -> Instant {
        after(Instant::now(), self.timeout)
    }

    /// Reads a PDU that is there whole at `deadline`.
    pub fn receive_by(&mut self, deadline: Instant) -> Result<Pdu, Error> {
        let time = deadline.saturating_duration_since(Instant::now());
        self.wire.until(Phase::Busy, deadline);
        let lost = |error: io::Error| Error::Lost(format!("reading: {}", words(&error, time)));
        let mut bytes = vec![0; pdu::PDU_HEADER_SIZE as usize];
        self.wire.read_exact(&mut bytes).map_err(lost)?;
        let length = u32::from_be_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]);
        if length > LARGEST_PDU {
            return Err(Error::Protocol(format!("a PDU claims {length} bytes, expected at most {LARGEST_PDU}")));
        }
        bytes.resize(bytes.len() + length as usize, 0);
        self.wire.read_exact(&mut bytes[pdu::PDU_HEADER_SIZE as usize..]).map_err(lost)?;
        match pdu::read_pdu(bytes.as_slice(), LARGEST_PDU, true) {
            Ok(Some(pdu)) => Ok(pdu),
            Ok(None) => Err(Error::Protocol("a PDU of the peer ends too early".into())),
            Err(error) => Err(Error::Protocol(format!("a PDU of the peer: {}", chain(&error)))),
        }
    }

    /// Says goodbye to TLS, if there is TLS; whether it arrives makes no difference.
    pub fn close(mut self) {
        self.wire.until(Phase::Parting, after(Instant::now(), self.timeout.min(Duration::from_secs(1))));
        let _ = self.wire.notify();
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
