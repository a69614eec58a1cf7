//! A sender of C-STORE and C-ECHO.

use std::{
    fs::File,
    io::{BufReader, Read, Seek},
    net::{TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use dicom_dictionary_std::{tags, uids};
use dicom_object::FileMetaTable;
use dicom_ul::pdu::{
    AbortRQSource, AssociationRJResult, AssociationRQ, PDataValue, PDataValueType, Pdu, PresentationContextProposed,
    PresentationContextResultReason, UserVariableItem,
};
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};

use crate::{
    message::Command,
    server::{IMPLEMENTATION_CLASS, IMPLEMENTATION_NAME},
    wire::{Broken, Timed, Wire},
};

/// PS3.7 A.2.1.
const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";
/// Contexts have odd numbers of one byte (PS3.8 9.3.2.2).
const MAX_CONTEXTS: usize = 128;
/// Header of a PDV within a PDU: length, context, control.
const PDV_HEADER: usize = 6;
/// What we send at a time to a peer that has no limit.
const USUAL_PDU_BYTES: usize = 131_072;
/// Where a file's meta information begins.
const PREAMBLE: u64 = 128;

/// Where objects go.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port`, looked up at each connection.
    pub address: String,
    /// Its title.
    pub ae_title: String,
    /// Ours.
    pub calling: String,
    /// For connecting, and for each answer.
    pub timeout: Duration,
    /// Longest PDU that is taken.
    pub max_pdu_bytes: u32,
    /// Plain TCP if absent.
    pub tls: Option<Arc<ClientConfig>>,
}

/// Why an object was not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody there, or gone in the middle.
    #[error("{0}")]
    Connection(String),
    /// No association.
    #[error("the association was rejected ({reason}), {}", if *permanent { "for good" } else { "for now" })]
    Rejected {
        /// The peer says that it makes no sense to try again. It may be wrong: titles are configured on both sides.
        permanent: bool,
        /// Its reason.
        reason: String,
    },
    /// An answer that the protocol does not know.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    /// The peer does not take such objects.
    #[error("the peer takes no {class} in transfer syntax {syntax}")]
    NotAccepted {
        /// SOP class.
        class: String,
        /// Transfer syntax.
        syntax: String,
    },
    /// The peer refused the object.
    #[error("status {code:04x} {comment}")]
    Status {
        /// As in the answer.
        code: u16,
        /// Its comment.
        comment: String,
    },
    /// The file is no DICOM file, or is damaged.
    #[error("{0}")]
    File(String),
}

impl Error {
    /// Whether it makes sense to try again: everything that may be otherwise tomorrow without the object being another,
    /// which includes the configuration of the other side. Statuses are those of PS3.4 B.2.3 and PS3.7 C.
    pub const fn transient(&self) -> bool {
        match self {
            Self::Connection(_) | Self::Rejected { .. } | Self::Protocol(_) => true,
            // Out of resources; processing failure.
            Self::Status { code, .. } => *code >> 8 == 0xa7 || *code == 0x0110,
            Self::NotAccepted { .. } | Self::File(_) => false,
        }
    }
}

impl From<Broken> for Error {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Protocol(words) => Self::Protocol(words),
            Broken::Lost => Self::Connection("the connection went away".into()),
            Broken::TimedOut => Self::Connection("no answer in time".into()),
            Broken::Stopped => Self::Connection("stopped".into()),
        }
    }
}

/// A file that is to be sent: what it is, and where its data set begins.
struct Source {
    class: String,
    instance: String,
    syntax: String,
    file: BufReader<File>,
    left: u64,
}

/// Whether somebody answers.
///
/// # Errors
/// [`Error`].
pub fn echo(target: &Target) -> Result<(), Error> {
    let syntax = uids::IMPLICIT_VR_LITTLE_ENDIAN;
    let mut association = Association::open(target, &[(uids::VERIFICATION.into(), syntax.into())])?;
    let context = association.context(uids::VERIFICATION, syntax)?;
    let result = association.ask(context, &Command::echo(1), None);
    association.close();
    result
}

/// Stores files, in as few associations as possible; one result per file. Where the connection breaks, the files that were
/// not yet stored share its error.
pub fn store(target: &Target, files: &[PathBuf]) -> Vec<Result<(), Error>> {
    let mut results: Vec<Option<Result<(), Error>>> = vec![None; files.len()];
    let mut sources = vec![];
    for (index, path) in files.iter().enumerate() {
        match Source::open(path) {
            Ok(source) => sources.push((index, source)),
            Err(error) => results[index] = Some(Err(error)),
        }
    }
    while !sources.is_empty() {
        let mut kinds: Vec<(String, String)> = vec![];
        let mut count = 0;
        for (_, source) in &sources {
            let kind = (source.class.clone(), source.syntax.clone());
            if !kinds.contains(&kind) {
                if kinds.len() == MAX_CONTEXTS {
                    break;
                }
                kinds.push(kind);
            }
            count += 1;
        }
        let rest = sources.split_off(count);
        let batch = std::mem::replace(&mut sources, rest);
        match Association::open(target, &kinds) {
            Err(error) => batch.into_iter().for_each(|(index, _)| results[index] = Some(Err(error.clone()))),
            Ok(mut association) => {
                let mut broken = None;
                for (number, (index, source)) in batch.into_iter().enumerate() {
                    let result = match &broken {
                        Some(error) => Err(Error::clone(error)),
                        None => association.send(number as u16, source),
                    };
                    if let Err(error @ (Error::Connection(_) | Error::Protocol(_))) = &result {
                        broken.get_or_insert_with(|| error.clone());
                    }
                    results[index] = Some(result);
                }
                match broken {
                    None => association.close(),
                    Some(_) => association.wire.abort(AbortRQSource::ServiceUser),
                }
            }
        }
    }
    results.into_iter().map(|result| result.unwrap_or_else(|| Err(Error::File("not sent".into())))).collect()
}

impl Source {
    fn open(path: &Path) -> Result<Self, Error> {
        let fault = |error: &dyn std::fmt::Display| Error::File(format!("{}: {error}", path.display()));
        let mut file = BufReader::new(File::open(path).map_err(|error| fault(&error))?);
        file.seek_relative(PREAMBLE as i64).map_err(|error| fault(&error))?;
        let meta = FileMetaTable::from_reader(&mut file).map_err(|error| fault(&error))?;
        let start = file.stream_position().map_err(|error| fault(&error))?;
        let length = file.get_ref().metadata().map_err(|error| fault(&error))?.len();
        let trimmed = |text: &str| text.trim_end_matches(['\0', ' ']).to_owned();
        Ok(Self {
            class: trimmed(&meta.media_storage_sop_class_uid),
            instance: trimmed(&meta.media_storage_sop_instance_uid),
            syntax: trimmed(&meta.transfer_syntax),
            file,
            left: length.saturating_sub(start),
        })
    }
}

/// An agreed association.
struct Association {
    wire: Wire,
    timeout: Duration,
    max_pdu_bytes: u32,
    /// Bytes of data in one PDU to the peer.
    piece: usize,
    /// Number, SOP class and transfer syntax of what was agreed.
    contexts: Vec<(u8, String, String)>,
}

impl Association {
    fn open(target: &Target, kinds: &[(String, String)]) -> Result<Self, Error> {
        let mut wire = connect(target)?;
        let proposed = kinds.iter().zip((1..=u8::MAX).step_by(2)).map(|((class, syntax), id)| {
            let transfer_syntaxes = vec![syntax.clone()];
            PresentationContextProposed { id, abstract_syntax: class.clone(), transfer_syntaxes }
        });
        let proposed: Vec<_> = proposed.collect();
        let request = Pdu::AssociationRQ(AssociationRQ {
            protocol_version: 1,
            calling_ae_title: target.calling.clone(),
            called_ae_title: target.ae_title.clone(),
            application_context_name: APPLICATION_CONTEXT.into(),
            presentation_contexts: proposed.clone(),
            user_variables: vec![
                UserVariableItem::MaxLength(target.max_pdu_bytes),
                UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS.into()),
                UserVariableItem::ImplementationVersionName(IMPLEMENTATION_NAME.into()),
            ],
        });
        wire.write(&request, target.timeout)?;
        let accepted = match wire.read(target.max_pdu_bytes, target.timeout, true)? {
            Pdu::AssociationAC(accepted) => accepted,
            Pdu::AssociationRJ(rejection) => {
                let permanent = rejection.result == AssociationRJResult::Permanent;
                return Err(Error::Rejected { permanent, reason: format!("{:?}", rejection.source) });
            }
            Pdu::AbortRQ { .. } => return Err(Error::Connection("the peer aborted".into())),
            _ => {
                wire.abort_protocol();
                return Err(Error::Protocol("another PDU than an answer to the request".into()));
            }
        };
        let limit = accepted.user_variables.iter().find_map(|item| match item {
            UserVariableItem::MaxLength(limit) if *limit > 0 => Some(*limit as usize),
            _ => None,
        });
        // Even, as PS3.8 9.3.5.1 wants fragments.
        let piece = limit.unwrap_or(USUAL_PDU_BYTES).min(USUAL_PDU_BYTES).saturating_sub(PDV_HEADER) & !1;
        if piece == 0 {
            wire.abort_protocol();
            return Err(Error::Protocol("a largest PDU that holds nothing".into()));
        }
        let contexts = accepted.presentation_contexts.iter().filter_map(|result| {
            let context = proposed.iter().find(|context| context.id == result.id)?;
            let syntax = context.transfer_syntaxes.first()?;
            let agreed = result.reason == PresentationContextResultReason::Acceptance
                && result.transfer_syntax.trim_end_matches(['\0', ' ']) == syntax;
            agreed.then(|| (context.id, context.abstract_syntax.clone(), syntax.clone()))
        });
        let contexts = contexts.collect();
        Ok(Self { wire, timeout: target.timeout, max_pdu_bytes: target.max_pdu_bytes, piece, contexts })
    }

    fn context(&self, class: &str, syntax: &str) -> Result<u8, Error> {
        let found = self.contexts.iter().find(|(_, agreed, by)| agreed == class && by == syntax);
        let missing = || Error::NotAccepted { class: class.into(), syntax: syntax.into() };
        found.map(|(id, ..)| *id).ok_or_else(missing)
    }

    fn send(&mut self, message: u16, source: Source) -> Result<(), Error> {
        let context = self.context(&source.class, &source.syntax)?;
        let command = Command::store(message, &source.class, &source.instance);
        self.ask(context, &command, Some(source))
    }

    /// Sends a command, a data set if there is one, and waits for the status.
    fn ask(&mut self, context: u8, command: &Command, source: Option<Source>) -> Result<(), Error> {
        let bytes = command.bytes().map_err(Error::Protocol)?;
        self.write(context, PDataValueType::Command, bytes, true)?;
        if let Some(Source { mut file, mut left, .. }) = source {
            while left > 0 {
                let mut data = vec![0; left.min(self.piece as u64) as usize];
                file.read_exact(&mut data).map_err(|error| Error::Connection(format!("reading the file: {error}")))?;
                left -= data.len() as u64;
                self.write(context, PDataValueType::Data, data, left == 0)?;
            }
        }
        let mut answer = vec![];
        loop {
            let pieces = match self.wire.read(self.max_pdu_bytes, self.timeout, true)? {
                Pdu::PData { data } => data,
                Pdu::AbortRQ { .. } => return Err(Error::Connection("the peer aborted".into())),
                _ => return Err(Error::Protocol("another PDU than an answer".into())),
            };
            for piece in pieces {
                if piece.value_type != PDataValueType::Command || answer.len() + piece.data.len() > USUAL_PDU_BYTES {
                    return Err(Error::Protocol("another message than an answer".into()));
                }
                answer.extend(piece.data);
                if piece.is_last {
                    return status(&Command::read(&answer).map_err(Error::Protocol)?);
                }
            }
        }
    }

    fn write(&mut self, context: u8, value_type: PDataValueType, data: Vec<u8>, is_last: bool) -> Result<(), Error> {
        let value = PDataValue { presentation_context_id: context, value_type, is_last, data };
        Ok(self.wire.write(&Pdu::PData { data: vec![value] }, self.timeout)?)
    }

    /// Releases the association; what was stored is stored whether or not the peer answers.
    fn close(mut self) {
        if self.wire.write(&Pdu::ReleaseRQ, self.timeout).is_ok() {
            let _ = self.wire.read(self.max_pdu_bytes, self.timeout, true);
        }
        self.wire.close();
    }
}

/// Success and the warnings of C-STORE, with which an object is stored (PS3.4 B.2.3).
fn status(answer: &Command) -> Result<(), Error> {
    match answer.number(tags::STATUS) {
        Some(0 | 0xb000 | 0xb006 | 0xb007) => Ok(()),
        Some(code) => {
            let comment = answer.text(tags::ERROR_COMMENT).unwrap_or_default();
            Err(Error::Status { code, comment })
        }
        None => Err(Error::Protocol("an answer without status".into())),
    }
}

fn connect(target: &Target) -> Result<Wire, Error> {
    let fault = |error: &dyn std::fmt::Display| Error::Connection(format!("{}: {error}", target.address));
    let addresses = target.address.to_socket_addrs().map_err(|error| fault(&error))?;
    let mut last = fault(&"no address of that name");
    for address in addresses {
        match TcpStream::connect_timeout(&address, target.timeout) {
            Ok(socket) => {
                let timed = Timed::new(socket, Arc::new(AtomicBool::new(false))).map_err(|error| fault(&error))?;
                let Some(tls) = &target.tls else { return Ok(Wire::Plain(timed)) };
                let host = target.address.rsplit_once(':').map_or(target.address.as_str(), |(host, _)| host);
                let name =
                    ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|error| fault(&error))?;
                let connection = ClientConnection::new(tls.clone(), name).map_err(|error| fault(&error))?;
                return Ok(Wire::Client(Box::new(StreamOwned::new(connection, timed))));
            }
            Err(error) => last = fault(&error),
        }
    }
    Err(last)
}
