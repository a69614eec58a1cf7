//! What a client is answered (PS3.7 9.3).

use dicom_ul::pdu::{PDataValue, PDataValueType, Pdu};

use super::{Status, message::C_STORE_RQ};
use crate::command::{
    Command, DATA_SET_TYPE, ERROR_COMMENT, FIELD, MESSAGE_ID, NO_DATA_SET, RESPONDED_TO, SOP_CLASS, SOP_INSTANCE,
    STATUS,
};

/// What a command field has in addition when it is that of a response (PS3.7 E.1).
pub(super) const RESPONSE: u16 = 0x8000;

/// The response to `command` (PS3.7 9.3.1.2, 9.3.5.2); `None` if it has no message ID.
pub(super) fn response(command: &Command, field: u16, status: &Status) -> Option<Command> {
    let mut answer = Command::default();
    if let Some(uid) = command.uid(SOP_CLASS) {
        answer = answer.with_uid(SOP_CLASS, uid);
    }
    answer = answer
        .with_number(FIELD, field | RESPONSE)
        .with_number(RESPONDED_TO, command.number(MESSAGE_ID)?)
        .with_number(DATA_SET_TYPE, NO_DATA_SET);
    answer = match status {
        Status::Success => answer.with_number(STATUS, 0),
        Status::Refused { code, comment } => answer.with_number(STATUS, *code).with_text(ERROR_COMMENT, comment),
    };
    match command.uid(SOP_INSTANCE) {
        Some(uid) if field == C_STORE_RQ => Some(answer.with_uid(SOP_INSTANCE, uid)),
        _ => Some(answer),
    }
}

/// A command set in P-DATA-TFs that the client can take.
pub(super) fn fragments(presentation_context_id: u8, command: &[u8], max_pdu_bytes: u32) -> Vec<Pdu> {
    let size = (max_pdu_bytes.saturating_sub(6).max(2) & !1) as usize;
    let count = command.len().div_ceil(size);
    let pdu = |(i, data): (usize, &[u8])| {
        let is_last = i + 1 == count;
        let (value_type, data) = (PDataValueType::Command, data.to_vec());
        Pdu::PData { data: vec![PDataValue { presentation_context_id, value_type, is_last, data }] }
    };
    command.chunks(size).enumerate().map(pdu).collect()
}
