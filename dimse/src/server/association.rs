//! One association from the request to its end.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use dicom_dictionary_std::{tags, uids};
use dicom_ul::pdu::{
    AbortRQSource, AssociationAC, AssociationRJ, AssociationRJResult, AssociationRJServiceProviderPresentationReason,
    AssociationRJServiceUserReason, AssociationRJSource, AssociationRQ, PDataValue, PDataValueType, Pdu,
    PresentationContextProposed, PresentationContextResult, PresentationContextResultReason, UserVariableItem,
};

use super::{Config, End, Handler, Instance, Peer, Status};
use crate::{
    message::{C_ECHO, C_STORE, Command, NO_DATA_SET},
    wire::{Broken, Wire},
};

/// PS3.7 A.2.1.
const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";
/// All storage SOP classes of the standard begin with it; so do a few that store nothing, which no scanner proposes.
const STORAGE: &str = "1.2.840.10008.5.1.4.1.1.";
/// Ours: `2.25.` and a UUID made once.
pub const IMPLEMENTATION_CLASS: &str = "2.25.309411284471586437741034862340953162017";
/// And its name.
pub const IMPLEMENTATION_NAME: &str = "GANTRY";
/// Statuses (PS3.7 C).
const UNRECOGNIZED_OPERATION: u16 = 0x0211;
const OUT_OF_RESOURCES: u16 = 0xa700;
/// Longest command set: a handful of UIDs and numbers.
const MAX_COMMAND_BYTES: usize = 16_384;

/// Agreed contexts: abstract and transfer syntax by number.
type Contexts = BTreeMap<u8, (String, String)>;

/// What the request is answered with.
pub enum Request {
    /// Accepted.
    Accepted(Contexts),
    /// Refused, in words.
    Refused(AssociationRJ, String),
}

impl From<Broken> for End {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Lost => Self::Lost,
            Broken::TimedOut => Self::TimedOut,
            Broken::Protocol(words) => Self::Protocol(words),
            Broken::Stopped => Self::Stopped,
        }
    }
}

/// Reads the request.
pub fn request(wire: &mut Wire, config: &Config) -> Result<AssociationRQ, End> {
    match wire.read(config.max_pdu_bytes, config.idle, true)? {
        Pdu::AssociationRQ(request) => Ok(request),
        _ => Err(End::Protocol("another PDU than A-ASSOCIATE-RQ at the beginning".into())),
    }
}

/// Judges the request by titles and contexts.
pub fn judge(request: &AssociationRQ, config: &Config) -> Request {
    let refuse = |reason, words: String| {
        let source = AssociationRJSource::ServiceUser(reason);
        Request::Refused(AssociationRJ { result: AssociationRJResult::Permanent, source }, words)
    };
    let (calling, called) = (request.calling_ae_title.trim(), request.called_ae_title.trim());
    if request.application_context_name.trim_end_matches('\0') != APPLICATION_CONTEXT {
        let found = format!("application context '{}'", request.application_context_name);
        return refuse(AssociationRJServiceUserReason::ApplicationContextNameNotSupported, found);
    }
    if config.check_called && called != config.ae_title.trim() {
        let found = format!("called title '{called}': expected '{}'", config.ae_title);
        return refuse(AssociationRJServiceUserReason::CalledAETitleNotRecognized, found);
    }
    if !config.calling.is_empty() && !config.calling.iter().any(|title| title.trim() == calling) {
        let found = format!("calling title '{calling}' is not on the list");
        return refuse(AssociationRJServiceUserReason::CallingAETitleNotRecognized, found);
    }
    let agreed = request.presentation_contexts.iter().filter_map(|context| {
        let (abstract_syntax, transfer_syntax) = agree(context, config).ok()?;
        Some((context.id, (abstract_syntax, transfer_syntax)))
    });
    Request::Accepted(agreed.collect())
}

/// More associations than allowed.
pub const fn too_many() -> AssociationRJ {
    AssociationRJ {
        result: AssociationRJResult::Transient,
        source: AssociationRJSource::ServiceProviderPresentation(
            AssociationRJServiceProviderPresentationReason::LocalLimitExceeded,
        ),
    }
}

/// The transfer syntax that a proposed context gets: the first proposed one that is taken.
fn agree(
    context: &PresentationContextProposed,
    config: &Config,
) -> Result<(String, String), PresentationContextResultReason> {
    let abstract_syntax = context.abstract_syntax.trim_end_matches(['\0', ' ']);
    if abstract_syntax != uids::VERIFICATION && !abstract_syntax.starts_with(STORAGE) {
        return Err(PresentationContextResultReason::AbstractSyntaxNotSupported);
    }
    let proposed = context.transfer_syntaxes.iter().map(|syntax| syntax.trim_end_matches(['\0', ' ']));
    let taken = proposed.into_iter().find(|syntax| config.transfer_syntaxes.iter().any(|ours| ours == syntax));
    let taken = taken.ok_or(PresentationContextResultReason::TransferSyntaxesNotSupported)?;
    Ok((abstract_syntax.into(), taken.into()))
}

/// Accepts the request.
pub fn accept(wire: &mut Wire, request: &AssociationRQ, config: &Config) -> Result<(), Broken> {
    let result = |context: &PresentationContextProposed| {
        let (reason, transfer_syntax) = match agree(context, config) {
            Ok((_, transfer_syntax)) => (PresentationContextResultReason::Acceptance, transfer_syntax),
            // The field must be there and means nothing.
            Err(reason) => (reason, uids::IMPLICIT_VR_LITTLE_ENDIAN.to_owned()),
        };
        PresentationContextResult { id: context.id, reason, transfer_syntax }
    };
    let answer = Pdu::AssociationAC(AssociationAC {
        protocol_version: 1,
        calling_ae_title: request.calling_ae_title.clone(),
        called_ae_title: request.called_ae_title.clone(),
        application_context_name: APPLICATION_CONTEXT.into(),
        presentation_contexts: request.presentation_contexts.iter().map(result).collect(),
        user_variables: vec![
            UserVariableItem::MaxLength(config.max_pdu_bytes),
            UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS.into()),
            UserVariableItem::ImplementationVersionName(IMPLEMENTATION_NAME.into()),
        ],
    });
    wire.write(&answer, config.idle)
}

/// A message that is coming in.
#[derive(Default)]
struct Incoming {
    context: u8,
    begun: Option<Instant>,
    command: Vec<u8>,
    /// Once it is whole.
    asked: Option<Command>,
    data: Vec<u8>,
    /// The data set is longer than allowed; the rest is thrown away.
    too_long: bool,
}

/// What a piece of a message completes.
enum Progress {
    /// Nothing yet.
    More,
    /// A command without a data set.
    Command(u8, Command),
    /// A command with its data set, or without where it was too long.
    Whole(u8, Command, Instant, Option<Vec<u8>>),
}

impl Incoming {
    fn take(&mut self, piece: PDataValue, contexts: &Contexts, most: usize) -> Result<Progress, String> {
        let id = piece.presentation_context_id;
        if !contexts.contains_key(&id) {
            return Err(format!("presentation context {id}, which was not agreed"));
        }
        let begun = *self.begun.get_or_insert_with(Instant::now);
        match (piece.value_type, self.asked.take()) {
            (PDataValueType::Command, None) => {
                if !self.command.is_empty() && id != self.context {
                    return Err("a command in two contexts".into());
                }
                self.context = id;
                self.command.extend(piece.data);
                if self.command.len() > MAX_COMMAND_BYTES {
                    return Err(format!("a command of more than {MAX_COMMAND_BYTES} bytes"));
                }
                if !piece.is_last {
                    return Ok(Progress::More);
                }
                let command = Command::read(&self.command)?;
                if command.number(tags::COMMAND_DATA_SET_TYPE).unwrap_or(NO_DATA_SET) == NO_DATA_SET {
                    *self = Self::default();
                    return Ok(Progress::Command(id, command));
                }
                self.asked = Some(command);
                Ok(Progress::More)
            }
            (PDataValueType::Data, Some(command)) if id == self.context => {
                self.too_long |= self.data.len() + piece.data.len() > most;
                if self.too_long {
                    self.data = vec![];
                } else {
                    self.data.extend(piece.data);
                }
                if !piece.is_last {
                    self.asked = Some(command);
                    return Ok(Progress::More);
                }
                let Self { data, too_long, .. } = std::mem::take(self);
                Ok(Progress::Whole(id, command, begun, (!too_long).then_some(data)))
            }
            (PDataValueType::Data, _) => Err("a data set without its command".into()),
            (PDataValueType::Command, Some(_)) => Err("a command where a data set was announced".into()),
        }
    }
}

/// Serves an accepted association until its end.
pub fn serve(wire: &mut Wire, contexts: &Contexts, peer: &Peer, config: &Config, handler: &impl Handler) -> End {
    let mut incoming = Incoming::default();
    loop {
        let pieces = match wire.read(config.max_pdu_bytes, config.idle, incoming.begun.is_none()) {
            Ok(Pdu::PData { data }) => data,
            Ok(Pdu::ReleaseRQ) => {
                // The peer may not wait for it.
                let _ = wire.write(&Pdu::ReleaseRP, config.idle);
                return match incoming.begun {
                    None => End::Released,
                    Some(_) => End::Protocol("a release in the middle of a message".into()),
                };
            }
            Ok(Pdu::AbortRQ { .. }) => return End::Aborted,
            Ok(_) => {
                wire.abort_protocol();
                return End::Protocol("a PDU that has no place in an association".into());
            }
            Err(broken) => {
                match broken {
                    Broken::Protocol(_) => wire.abort_protocol(),
                    _ => wire.abort(AbortRQSource::ServiceUser),
                }
                return broken.into();
            }
        };
        for piece in pieces {
            let answered = match incoming.take(piece, contexts, config.max_instance_bytes) {
                Ok(Progress::More) => continue,
                Ok(Progress::Command(id, command)) => {
                    let status = match command.number(tags::COMMAND_FIELD) {
                        Some(C_ECHO) => 0,
                        _ => UNRECOGNIZED_OPERATION,
                    };
                    answer(wire, id, &command, status, "", config.idle)
                }
                Ok(Progress::Whole(id, command, begun, data)) => {
                    let (status, comment) = match (command.number(tags::COMMAND_FIELD), data) {
                        (Some(C_STORE), Some(data)) => {
                            let syntax = contexts.get(&id).map(|(_, syntax)| syntax.clone()).unwrap_or_default();
                            let text = |tag| command.text(tag).unwrap_or_default();
                            let instance = Instance {
                                sop_class: text(tags::AFFECTED_SOP_CLASS_UID),
                                sop_instance: text(tags::AFFECTED_SOP_INSTANCE_UID),
                                transfer_syntax: syntax,
                                data,
                                begun,
                                received: Instant::now(),
                            };
                            match handler.store(peer, instance) {
                                Status::Success => (0, String::new()),
                                Status::Refused { code, comment } => (code, comment),
                            }
                        }
                        (Some(C_STORE), None) => {
                            (OUT_OF_RESOURCES, format!("more than {} bytes", config.max_instance_bytes))
                        }
                        _ => (UNRECOGNIZED_OPERATION, String::new()),
                    };
                    answer(wire, id, &command, status, &comment, config.idle)
                }
                Err(words) => {
                    wire.abort_protocol();
                    return End::Protocol(words);
                }
            };
            if let Err(broken) = answered {
                return broken.into();
            }
        }
    }
}

fn answer(
    wire: &mut Wire,
    context: u8,
    command: &Command,
    status: u16,
    comment: &str,
    time: Duration,
) -> Result<(), Broken> {
    let data = command.answer(status, comment).bytes().map_err(Broken::Protocol)?;
    let value =
        PDataValue { presentation_context_id: context, value_type: PDataValueType::Command, is_last: true, data };
    wire.write(&Pdu::PData { data: vec![value] }, time)
}
