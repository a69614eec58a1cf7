//! PDUs of a client, each within a deadline as a whole.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use dicom_ul::pdu::{
    AbortRQServiceProviderReason as Reason, AbortRQSource, MAXIMUM_PDU_SIZE, PDU_HEADER_SIZE, Pdu, read_pdu, write_pdu,
};
use rustls::ServerConfig;

use super::End;
use crate::wire::{Cause, Halt, Phase, Wire, after};

/// How long a client may take to close a connection that is over.
const LINGER: Duration = Duration::from_secs(1);

/// The type of a P-DATA-TF.
pub(super) const P_DATA: u8 = 4;
/// The type of an A-ABORT.
pub(super) const ABORT: u8 = 7;

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

/// A PDU and when it came.
pub(super) struct Received {
    pub(super) pdu: Pdu,
    /// When its first byte had arrived.
    pub(super) begun: Instant,
    /// When its last byte had arrived.
    pub(super) ended: Instant,
}

/// A connection.
pub(super) struct Stream {
    wire: Wire,
    /// The header and the variable field of the last PDU.
    buffer: Vec<u8>,
    idle: Duration,
}

impl Stream {
    /// Waits for nothing: a TLS handshake is made with the first PDU.
    pub(super) fn new(tcp: TcpStream, tls: Option<&Arc<ServerConfig>>, idle: Duration, halt: Halt) -> io::Result<Self> {
        Ok(Self { wire: Wire::accepted(tcp, tls, halt)?, buffer: Vec::new(), idle })
    }

    /// The next PDU, of at most `limit` bytes and one of the `expected` types; memory is taken as its bytes arrive. `message`: it
    /// goes on with a message, for which this much more time is left.
    pub(super) fn receive(
        &mut self,
        expected: &[u8],
        limit: u32,
        message: Option<Instant>,
    ) -> Result<Received, Closing> {
        let deadline = after(Instant::now(), self.idle);
        match message {
            Some(until) => self.wire.until(Phase::Busy, deadline.min(until)),
            None => self.wire.until(Phase::Idle, deadline),
        }
        self.wire.check().map_err(|e| self.lost(&e))?;
        self.fill(1)?;
        let begun = Instant::now();
        if self.buffer[..] == [P_DATA] {
            self.wire.phase(Phase::Busy);
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
        if kind == ABORT {
            // Who and why makes no difference, and some say what the standard does not know.
            return Ok(Received { pdu: Pdu::AbortRQ { source: AbortRQSource::ServiceUser }, begun, ended });
        }
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
        let result = Read::by_ref(&mut self.wire).take(count as u64).read_to_end(&mut buffer);
        self.buffer = buffer;
        match result {
            Ok(got) if got == count => Ok(()),
            Ok(_) => Err(Closing { end: End::Lost, last: None }),
            Err(e) => Err(self.lost(&e)),
        }
    }

    fn lost(&mut self, error: &io::Error) -> Closing {
        let ours = |end| Closing { end, last: Some(abort(Reason::ReasonNotSpecified)) };
        match self.wire.cause() {
            Some(Cause::TimedOut) => ours(End::TimedOut),
            Some(Cause::Halted) => ours(End::Stopped),
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
        self.wire.until(Phase::Busy, after(Instant::now(), self.idle));
        self.wire.write_all(&bytes).and_then(|()| self.wire.flush()).map_err(|e| self.lost(&e))
    }

    /// Sends what the client is still told and lets it close the connection, so that a reset does not overtake the last PDU.
    pub(super) fn close(mut self, last: Option<Box<Pdu>>) {
        let Some(last) = last else { return };
        self.wire.until(Phase::Parting, after(Instant::now(), LINGER.min(self.idle)));
        let Ok(bytes) = encode(&[*last]) else { return };
        if self.wire.write_all(&bytes).is_ok() && self.wire.notify().is_ok() {
            self.wire.linger();
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
