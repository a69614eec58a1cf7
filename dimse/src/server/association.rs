//! One connection: its association, and the messages on it (PS3.7 6.3, 9.3; PS3.8 annex E).

use std::{
    net::{SocketAddr, TcpStream},
    sync::atomic::Ordering,
    time::Instant,
};

use dicom_dictionary_std::uids;
use dicom_ul::pdu::{AbortRQServiceProviderReason as Reason, AssociationRQ, PDataValue, Pdu};

use super::{
    End, Handler, Instance, Peer, Shared, Status,
    budget::Share,
    message::{C_STORE_RQ, Message},
    negotiation::{Accepted, Context, Rejected, negotiate},
    response::{RESPONSE, fragments, response},
    stream::{ABORT, Closing, P_DATA, Received, Stream},
};
use crate::command::{Command, DATA_SET_TYPE, FIELD, NO_DATA_SET, SOP_CLASS, SOP_INSTANCE};

/// The longest A-ASSOCIATE-RQ, bytes: 128 presentation contexts with a dozen transfer syntaxes each.
const MAX_REQUEST: u32 = 128 << 10;

// Types of PDU (PS3.8 9.3.1).
const ASSOCIATE_RQ: u8 = 1;
const RELEASE_RQ: u8 = 5;

// Command fields (PS3.7 E.1).
const C_ECHO_RQ: u16 = 0x0030;
const C_CANCEL_RQ: u16 = 0x0fff;

// Statuses (PS3.7 annex C, PS3.4 table B.2-1).
const INVALID_SOP_INSTANCE: u16 = 0x0117;
const SOP_CLASS_NOT_SUPPORTED: u16 = 0x0122;
const UNRECOGNISED_OPERATION: u16 = 0x0211;
const OUT_OF_RESOURCES: u16 = 0xa700;
const CANNOT_UNDERSTAND: u16 = 0xc000;

/// Serves a connection from its first byte to its last.
pub(super) fn attend(shared: &Shared, handler: &impl Handler, tcp: TcpStream, address: SocketAddr) {
    let config = &shared.config;
    let ready = shared.admission.wait(&tcp, address).and_then(|ticket| {
        let watched = tcp.try_clone()?;
        Ok((ticket, watched, Stream::new(tcp, config.tls.as_ref(), config.idle, shared.halt.clone())?))
    });
    let (ticket, tcp, mut stream) = match ready {
        Ok(ready) => ready,
        Err(e) => return handler.refused(address, &format!("the connection could not be set up: {e}")),
    };
    let request = match request(&mut stream) {
        Ok(request) if ticket.valid() => request,
        result => {
            let evicted = !ticket.valid();
            let (reason, last) = match result {
                Err(_) | Ok(_) if evicted => ("it made way for newer connections without an association".into(), None),
                Err(closing) => (before(&closing.end), closing.last),
                Ok(_) => return,
            };
            handler.refused(address, &reason);
            return stream.close(last);
        }
    };
    let admitted = negotiate(config, &request).and_then(|accepted| {
        let slot = shared.admission.associate(address).map_err(Rejected::full)?;
        Ok((accepted, slot))
    });
    let (accepted, slot) = match admitted {
        Ok(admitted) => admitted,
        Err(Rejected { answer, reason }) => {
            handler.refused(address, &reason);
            return stream.close(Some(Box::new(answer.into())));
        }
    };
    drop(ticket);
    let id = shared.associations.fetch_add(1, Ordering::Relaxed) + 1;
    let (calling, called) = (request.calling_ae_title, request.called_ae_title);
    let peer = Peer { id, address, calling, called };
    handler.opened(&peer);
    let Accepted { contexts, max_pdu_bytes, answer } = accepted;
    let mut association = Association { shared, handler, peer: &peer, contexts, max_pdu_bytes, stream };
    let Err(Closing { end, last }) = association.run(answer.into());
    let stream = association.stream;
    handler.ended(&peer, &end);
    // The place is free before the client can know that it is, but a connection that it leaves open counts as any other.
    drop(slot);
    let _ticket = shared.admission.wait(&tcp, address);
    drop(tcp);
    stream.close(last);
}

fn request(stream: &mut Stream) -> Result<AssociationRQ, Closing> {
    match stream.receive(&[ASSOCIATE_RQ], MAX_REQUEST, None)?.pdu {
        Pdu::AssociationRQ(request) => Ok(request),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(pdu: &Pdu) -> Closing {
    Closing::protocol(Reason::UnexpectedPdu, format!("an unexpected PDU: {}", pdu.short_description()))
}

/// How a connection ended that never came to an association.
fn before(end: &End) -> String {
    match end {
        End::Protocol(message) => format!("no A-ASSOCIATE-RQ: {message}"),
        End::TimedOut => "no A-ASSOCIATE-RQ in time".to_owned(),
        End::Stopped => "the receiver stops".to_owned(),
        End::Released | End::Aborted | End::Lost => "closed before an A-ASSOCIATE-RQ".to_owned(),
    }
}

struct Association<'a, H> {
    shared: &'a Shared,
    handler: &'a H,
    peer: &'a Peer,
    contexts: Vec<Context>,
    max_pdu_bytes: u32,
    stream: Stream,
}

impl<'a, H: Handler> Association<'a, H> {
    fn run(&mut self, accept: Pdu) -> Result<std::convert::Infallible, Closing> {
        self.stream.send(&[accept])?;
        let config = &self.shared.config;
        let mut message: Option<Message> = None;
        loop {
            let expected = [P_DATA, RELEASE_RQ, ABORT];
            let until = message.as_ref().map(|message| message.until(config.idle));
            let Received { pdu, begun, ended } = self.stream.receive(&expected, config.max_pdu_bytes, until)?;
            match pdu {
                Pdu::PData { data } => {
                    for value in data {
                        message = self.fragment(message, value, begun, ended)?;
                    }
                }
                Pdu::ReleaseRQ if message.is_none() => {
                    return Err(Closing { end: End::Released, last: Some(Box::new(Pdu::ReleaseRP)) });
                }
                Pdu::AbortRQ { .. } => return Err(Closing { end: End::Aborted, last: None }),
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Adds a fragment to the message in progress, if any, and gives back the message if it is still in progress.
    fn fragment(
        &mut self,
        message: Option<Message<'a>>,
        value: PDataValue,
        begun: Instant,
        ended: Instant,
    ) -> Result<Option<Message<'a>>, Closing> {
        let out_of_order = |what: String| Closing::protocol(Reason::UnexpectedPduParameter, what);
        let id = value.presentation_context_id;
        if !self.contexts.iter().any(|context| context.id == id) {
            return Err(out_of_order(format!("data for presentation context {id}, which was not accepted")));
        }
        let mut message = message.unwrap_or_else(|| Message::new(id, begun, Share::new(&self.shared.budget)));
        if message.context != id {
            let message = format!("data for presentation context {id} amid a message of {}", message.context);
            return Err(out_of_order(message));
        }
        match message.add(value, &self.shared.config, &self.shared.halt)? {
            true => self.complete(message, ended).map(|()| None),
            false => Ok(Some(message)),
        }
    }

    /// Does what a complete message asks for.
    fn complete(&mut self, mut message: Message, ended: Instant) -> Result<(), Closing> {
        let command = message.command.take().unwrap_or_default();
        let invalid = |what: String| Closing::protocol(Reason::InvalidPduParameter, what);
        let field = command.number(FIELD).ok_or_else(|| invalid("a command set without a command field".to_owned()))?;
        if field & RESPONSE != 0 {
            return Err(invalid(format!("the response {field:#06x}, to which nothing was asked")));
        }
        if field == C_CANCEL_RQ {
            return Ok(());
        }
        let id = message.context;
        let status = match field {
            C_ECHO_RQ => Status::Success,
            C_STORE_RQ => self.store(&command, message, ended),
            _ => refused(UNRECOGNISED_OPERATION, format!("command {field:#06x}, expected C-STORE or C-ECHO")),
        };
        let answer = response(&command, field, &status)
            .ok_or_else(|| invalid("a command set without a message ID".to_owned()))?;
        let pdus = fragments(id, &answer.encode(), self.max_pdu_bytes);
        self.stream.send(&pdus)
    }

    fn store(&self, command: &Command, message: Message, received: Instant) -> Status {
        let Some(context) = self.contexts.iter().find(|context| context.id == message.context) else {
            return refused(CANNOT_UNDERSTAND, "no presentation context".to_owned());
        };
        if context.abstract_syntax == uids::VERIFICATION || command.uid(SOP_CLASS) != Some(&context.abstract_syntax) {
            return refused(SOP_CLASS_NOT_SUPPORTED, "not the SOP class of the presentation context".to_owned());
        }
        let Some(sop_instance) = command.uid(SOP_INSTANCE) else {
            return refused(INVALID_SOP_INSTANCE, "the SOP instance UID is absent or not a UID".to_owned());
        };
        if command.number(DATA_SET_TYPE) == Some(NO_DATA_SET) {
            return refused(CANNOT_UNDERSTAND, "a C-STORE without a data set".to_owned());
        }
        let Message { data, begun, share, lost, .. } = message;
        if let Some(why) = lost {
            return refused(OUT_OF_RESOURCES, why);
        }
        let instance = Instance {
            sop_class: context.abstract_syntax.clone(),
            sop_instance: sop_instance.to_owned(),
            transfer_syntax: context.transfer_syntax.clone(),
            data,
            begun,
            received,
        };
        let status = self.handler.store(self.peer, instance);
        // Only now has the handler done with the memory.
        drop(share);
        status
    }
}

fn refused(code: u16, comment: String) -> Status {
    Status::Refused { code, comment }
}
