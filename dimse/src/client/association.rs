//! One association as its requestor (PS3.8 section 7.1 and 9.3): negotiation, messages, release.

use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

use dicom_ul::pdu::{
    AbortRQSource, AssociationRJResult, AssociationRQ, PDV_HEADER_SIZE, PDataValue, PDataValueType, Pdu,
    PresentationContextProposed, PresentationContextResultReason, UserVariableItem,
};

use super::{
    Error, Target,
    command::{self, Response},
    line::Line,
    object::{Object, unreadable},
};
use crate::wire::Halt;

/// PS3.8 9.3.2.2: odd numbers from 1 to 255.
pub(super) const MOST_CONTEXTS: usize = 128;
/// Of a whole response, in bytes: a few hundred are usual.
const LARGEST_RESPONSE: usize = 1 << 16;
/// All objects are acknowledged by then, so nobody has to wait long for the goodbye.
const RELEASE: Duration = Duration::from_secs(5);

/// A SOP class and a transfer syntax.
pub(super) type Context = (String, String);

/// An association that the peer accepted.
pub(super) struct Association {
    line: Line,
    /// Identifiers and what they stand for, only the accepted ones.
    accepted: Vec<(u8, Context)>,
    /// Of a presentation data value's content, in bytes, even.
    fragment: usize,
    message: u16,
    /// What a P-DATA PDU is put together in.
    buffer: Vec<u8>,
}

impl Association {
    /// Connects and proposes each of at most 128 contexts with its one transfer syntax.
    pub fn open(target: &Target, contexts: &[Context], halt: &Halt) -> Result<Self, Error> {
        assert!(contexts.len() <= MOST_CONTEXTS, "{} contexts do not fit one association", contexts.len());
        let own = target.max_pdu_bytes.clamp(super::SMALLEST_PDU, super::LARGEST_PDU);
        let mut line = Line::connect(target, halt)?;
        let ids = || (0..MOST_CONTEXTS).map(|position| (2 * position + 1) as u8);
        line.send(&Pdu::AssociationRQ(AssociationRQ {
            protocol_version: 1,
            calling_ae_title: target.calling.clone(),
            called_ae_title: target.ae_title.clone(),
            application_context_name: "1.2.840.10008.3.1.1.1".into(),
            presentation_contexts: ids()
                .zip(contexts)
                .map(|(id, (class, syntax))| PresentationContextProposed {
                    id,
                    abstract_syntax: class.clone(),
                    transfer_syntaxes: vec![syntax.clone()],
                })
                .collect(),
            user_variables: vec![
                UserVariableItem::MaxLength(own),
                UserVariableItem::ImplementationClassUID(dicom_ul::IMPLEMENTATION_CLASS_UID.into()),
                UserVariableItem::ImplementationVersionName(dicom_ul::IMPLEMENTATION_VERSION_NAME.into()),
            ],
        }))?;
        let reply = match line.receive()? {
            Pdu::AssociationAC(reply) => reply,
            Pdu::AssociationRJ(refusal) => {
                return Err(Error::Rejected {
                    permanent: refusal.result == AssociationRJResult::Permanent,
                    reason: refusal.source.to_string(),
                });
            }
            other => return Err(unexpected(&other, "an answer to the association request")),
        };
        let accepted = ids()
            .zip(contexts)
            .filter(|(id, (_, syntax))| {
                reply.presentation_contexts.iter().any(|result| {
                    result.id == *id
                        && result.reason == PresentationContextResultReason::Acceptance
                        && result.transfer_syntax.trim_end_matches('\0') == syntax
                })
            })
            .map(|(id, context)| (id, context.clone()))
            .collect();
        // PS3.8 D.1: 0 and absence mean no limit.
        let theirs = reply.user_variables.iter().find_map(|item| match item {
            UserVariableItem::MaxLength(length) if *length != 0 => Some(*length),
            _ => None,
        });
        let fragment = theirs.unwrap_or(own).min(own).saturating_sub(PDV_HEADER_SIZE) & !1;
        if fragment == 0 {
            return Err(Error::Protocol(format!("the peer takes PDUs of {} bytes at most", theirs.unwrap_or(0))));
        }
        Ok(Self { line, accepted, fragment: fragment as usize, message: 0, buffer: Vec::new() })
    }

    /// C-ECHO (PS3.7 9.1.5).
    pub fn echo(&mut self, context: &Context) -> Result<(), Error> {
        let id = self.context(context)?;
        self.message += 1;
        let set = command::echo(self.message);
        self.command(id, &set)?;
        let response = self.response(0x8030)?;
        super::judge(response.status, response.comment)
    }

    /// C-STORE (PS3.7 9.1.1). With a failure comes whether the association is still good for another object.
    pub fn store(&mut self, object: &Object) -> Result<(), Failure> {
        let keep = |error| Failure { error, usable: true };
        let lost = |error| Failure { error, usable: false };
        let id = self.context(&(object.class.clone(), object.syntax.clone())).map_err(keep)?;
        let (file, length) = object.data_set().map_err(keep)?;
        self.message = self.message.wrapping_add(1);
        let set = command::store(self.message, &object.class, &object.instance);
        self.command(id, &set).map_err(lost)?;
        let broken_off = |error: io::Error| unreadable(&object.path, &error);
        self.send(id, PDataValueType::Data, file, length, broken_off).map_err(lost)?;
        let response = self.response(0x8001).map_err(lost)?;
        super::judge(response.status, response.comment).map_err(keep)
    }

    /// Ends the association; whether the peer agrees makes no difference to what it acknowledged.
    pub fn release(mut self) {
        let deadline = Instant::now() + RELEASE;
        if self.line.send(&Pdu::ReleaseRQ).is_ok()
            && self.line.receive_by(deadline) == Ok(Pdu::ReleaseRQ)
            && self.line.send(&Pdu::ReleaseRP).is_ok()
        {
            // Both asked at once (PS3.8 9.2.3, AR-8 and AR-9): the requestor of the association answers first.
            let _ = self.line.receive_by(deadline);
        }
        self.line.close();
    }

    /// Gives the association up in the middle of a message, which the peer must not take for a whole one.
    pub fn abort(mut self) {
        let _ = self.line.send(&Pdu::AbortRQ { source: AbortRQSource::ServiceUser });
        self.line.close();
    }

    fn context(&self, wanted: &Context) -> Result<u8, Error> {
        let found = self.accepted.iter().find(|(_, context)| context == wanted).map(|(id, _)| *id);
        found.ok_or_else(|| Error::NotAccepted { class: wanted.0.clone(), syntax: wanted.1.clone() })
    }

    fn command(&mut self, id: u8, set: &[u8]) -> Result<(), Error> {
        let broken_off = |error: io::Error| Error::Protocol(format!("our own command set: {error}"));
        self.send(id, PDataValueType::Command, set, set.len() as u64, broken_off)
    }

    /// Sends `length` bytes of `source` in fragments, one presentation data value per PDU (PS3.8 9.3.5 and annex E). After an
    /// error the message is half sent, and the association of no more use.
    fn send(
        &mut self,
        id: u8,
        kind: PDataValueType,
        mut source: impl Read,
        length: u64,
        broken_off: impl Fn(io::Error) -> Error,
    ) -> Result<(), Error> {
        let mut left = length;
        while left > 0 {
            let content = left.min(self.fragment as u64) as usize;
            left -= content as u64;
            let flags = u8::from(kind == PDataValueType::Command) | (u8::from(left == 0) << 1);
            let value = content as u32 + 2;
            self.buffer.clear();
            self.buffer.extend([4, 0]);
            self.buffer.extend((value + 4).to_be_bytes());
            self.buffer.extend(value.to_be_bytes());
            self.buffer.extend([id, flags]);
            let head = self.buffer.len();
            self.buffer.resize(head + content, 0);
            source.read_exact(&mut self.buffer[head..]).map_err(&broken_off)?;
            self.line.write(&self.buffer)?;
        }
        Ok(())
    }

    fn response(&mut self, expected: u16) -> Result<Response, Error> {
        let mut set = Vec::new();
        // For all of it: fragments without content would go on for ever.
        let deadline = self.line.deadline();
        loop {
            let values = match self.line.receive_by(deadline)? {
                Pdu::PData { data } => data,
                other => return Err(unexpected(&other, "a response")),
            };
            for PDataValue { value_type, is_last, data, .. } in values {
                if value_type != PDataValueType::Command {
                    return Err(Error::Protocol("a data set where a response was expected".into()));
                }
                if set.len() + data.len() > LARGEST_RESPONSE {
                    return Err(Error::Protocol(format!("a response of more than {LARGEST_RESPONSE} bytes")));
                }
                set.extend(data);
                if !is_last {
                    continue;
                }
                let response = Response::read(&set).map_err(Error::Protocol)?;
                if response.command != expected || response.message.is_some_and(|message| message != self.message) {
                    return Err(Error::Protocol(format!(
                        "command {:04X}H to message {:?}, expected {expected:04X}H to message {}",
                        response.command, response.message, self.message
                    )));
                }
                return Ok(response);
            }
        }
    }
}

/// Why an object was not stored.
pub(super) struct Failure {
    pub error: Error,
    /// The association can take another object.
    pub usable: bool,
}

fn unexpected(pdu: &Pdu, expected: &str) -> Error {
    match pdu {
        Pdu::AbortRQ { source } => Error::Lost(format!("the peer aborted the association ({source:?})")),
        Pdu::ReleaseRQ => Error::Lost("the peer released the association".into()),
        other => Error::Protocol(format!("{:.80}, expected {expected}", other.short_description().to_string())),
    }
}
