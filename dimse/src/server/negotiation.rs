//! What an A-ASSOCIATE-RQ is answered with (PS3.8 7.1, 9.3.2 to 9.3.4; PS3.7 D.3).

use dicom_dictionary_std::uids;
use dicom_ul::pdu::{
    AssociationAC, AssociationRJ, AssociationRJResult as Result_, AssociationRJServiceProviderASCEReason as Acse,
    AssociationRJServiceProviderPresentationReason as Presentation, AssociationRJServiceUserReason as User,
    AssociationRJSource as Source, AssociationRQ, PresentationContextProposed, PresentationContextResult,
    PresentationContextResultReason as Answer, UserVariableItem,
};

use super::{Config, admission::Full};

/// UUID-derived (PS3.5 B.2).
const IMPLEMENTATION_CLASS: &str = "2.25.277425323252897311488681953420876402994";
const IMPLEMENTATION_VERSION: &str = concat!("GANTRY_", env!("CARGO_PKG_VERSION"));
const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";

const STORAGE: &str = "1.2.840.10008.5.1.4.1.1.";

/// Storage SOP classes with other prefixes (PS3.4 B.5, GG.3).
const OTHER_STORAGE: [&str; 8] = [
    uids::RT_BEAMS_DELIVERY_INSTRUCTION_STORAGE,
    uids::RT_BRACHY_APPLICATION_SETUP_DELIVERY_INSTRUCTION_STORAGE,
    uids::HANGING_PROTOCOL_STORAGE,
    uids::COLOR_PALETTE_STORAGE,
    uids::GENERIC_IMPLANT_TEMPLATE_STORAGE,
    uids::IMPLANT_ASSEMBLY_TEMPLATE_STORAGE,
    uids::IMPLANT_TEMPLATE_GROUP_STORAGE,
    "1.2.840.10008.5.1.4.34.1", // RT Beams Delivery Instruction Storage - Trial (retired)
];

/// A presentation context that was accepted.
pub(super) struct Context {
    pub(super) id: u8,
    pub(super) abstract_syntax: String,
    pub(super) transfer_syntax: String,
}

/// An association that can be accepted.
pub(super) struct Accepted {
    pub(super) contexts: Vec<Context>,
    /// The longest PDU that the client takes, bytes after the header; `u32::MAX` if it has no limit.
    pub(super) max_pdu_bytes: u32,
    pub(super) answer: AssociationAC,
}

/// An association that is rejected, and why.
pub(super) struct Rejected {
    pub(super) answer: AssociationRJ,
    pub(super) reason: String,
}

impl Rejected {
    fn new(result: Result_, source: Source, reason: String) -> Self {
        Self { answer: AssociationRJ { result, source }, reason }
    }

    fn by_user(reason: User, message: String) -> Self {
        Self::new(Result_::Permanent, Source::ServiceUser(reason), message)
    }

    /// As many associations as there may be.
    pub(super) fn full(full: Full) -> Self {
        let source = Source::ServiceProviderPresentation(Presentation::LocalLimitExceeded);
        let message = match full {
            Full::All(most) => format!("there are {most} associations, the most at a time"),
            Full::Host(most) => format!("there are {most} associations of this address, the most at a time"),
        };
        Self::new(Result_::Transient, source, message)
    }
}

/// Decides on everything but the number of associations.
pub(super) fn negotiate(config: &Config, request: &AssociationRQ) -> Result<Accepted, Rejected> {
    if request.protocol_version & 1 == 0 {
        let source = Source::ServiceProviderASCE(Acse::ProtocolVersionNotSupported);
        let message = format!("protocol version {:#06x}, expected bit 0", request.protocol_version);
        return Err(Rejected::new(Result_::Permanent, source, message));
    }
    let application_context = plain(&request.application_context_name);
    if application_context != APPLICATION_CONTEXT {
        let message = format!("application context {application_context:?}, expected {APPLICATION_CONTEXT}");
        return Err(Rejected::by_user(User::ApplicationContextNameNotSupported, message));
    }
    if config.check_called && request.called_ae_title != config.ae_title.trim() {
        let message = format!("called AE title {:?}, expected {:?}", request.called_ae_title, config.ae_title);
        return Err(Rejected::by_user(User::CalledAETitleNotRecognized, message));
    }
    if !config.calling.is_empty() && !config.calling.iter().any(|title| title.trim() == request.calling_ae_title) {
        let message = format!("calling AE title {:?} is not one of those allowed", request.calling_ae_title);
        return Err(Rejected::by_user(User::CallingAETitleNotRecognized, message));
    }
    let (contexts, results) = contexts(config, &request.presentation_contexts)?;
    let announced = request.user_variables.iter().find_map(|item| match item {
        UserVariableItem::MaxLength(bytes) if *bytes > 0 => Some(*bytes),
        _ => None,
    });
    let answer = AssociationAC {
        protocol_version: 1,
        calling_ae_title: request.calling_ae_title.clone(),
        called_ae_title: request.called_ae_title.clone(),
        application_context_name: APPLICATION_CONTEXT.to_owned(),
        presentation_contexts: results,
        user_variables: vec![
            UserVariableItem::MaxLength(config.max_pdu_bytes),
            UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS.to_owned()),
            UserVariableItem::ImplementationVersionName(IMPLEMENTATION_VERSION.to_owned()),
        ],
    };
    Ok(Accepted { contexts, max_pdu_bytes: announced.unwrap_or(u32::MAX), answer })
}

type Contexts = (Vec<Context>, Vec<PresentationContextResult>);

fn contexts(config: &Config, proposed: &[PresentationContextProposed]) -> Result<Contexts, Rejected> {
    let mut seen = [false; 256];
    let (mut accepted, mut results) = (Vec::new(), Vec::new());
    for context in proposed {
        let id = context.id;
        if id % 2 == 0 || std::mem::replace(&mut seen[usize::from(id)], true) {
            let message = format!("presentation context ID {id}, expected odd numbers, each once");
            return Err(Rejected::by_user(User::NoReasonGiven, message));
        }
        let abstract_syntax = plain(&context.abstract_syntax);
        let chosen = context.transfer_syntaxes.iter().map(|uid| plain(uid)).find(|uid| offered(config, uid));
        let (reason, transfer_syntax) = match chosen {
            _ if !stored(abstract_syntax) => (Answer::AbstractSyntaxNotSupported, uids::IMPLICIT_VR_LITTLE_ENDIAN),
            None => (Answer::TransferSyntaxesNotSupported, uids::IMPLICIT_VR_LITTLE_ENDIAN),
            Some(uid) => (Answer::Acceptance, uid),
        };
        if reason == Answer::Acceptance {
            let (abstract_syntax, transfer_syntax) = (abstract_syntax.to_owned(), transfer_syntax.to_owned());
            accepted.push(Context { id, abstract_syntax, transfer_syntax });
        }
        results.push(PresentationContextResult { id, reason, transfer_syntax: transfer_syntax.to_owned() });
    }
    Ok((accepted, results))
}

fn offered(config: &Config, uid: &str) -> bool {
    config.transfer_syntaxes.iter().any(|ours| ours == uid)
}

fn stored(uid: &str) -> bool {
    uid == uids::VERIFICATION || uid.starts_with(STORAGE) || OTHER_STORAGE.contains(&uid)
}

/// UIDs are not padded in PDUs, but some clients do.
fn plain(uid: &str) -> &str {
    uid.trim_matches(['\0', ' '])
}
