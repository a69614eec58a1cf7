//! What a sender says and hears (PS3.7 section 9).

use crate::command::{
    Command, DATA_SET_TYPE, ERROR_COMMENT, FIELD, MESSAGE_ID, NO_DATA_SET, PRIORITY, RESPONDED_TO, SOP_CLASS,
    SOP_INSTANCE, STATUS,
};

/// C-ECHO-RQ (PS3.7 9.3.5.1).
pub(super) fn echo(message: u16) -> Vec<u8> {
    request(0x0030, message, "1.2.840.10008.1.1").with_number(DATA_SET_TYPE, NO_DATA_SET).encode()
}

/// C-STORE-RQ (PS3.7 9.3.1.1), priority medium.
pub(super) fn store(message: u16, class: &str, instance: &str) -> Vec<u8> {
    let request = request(0x0001, message, class).with_number(PRIORITY, 0).with_number(DATA_SET_TYPE, 1);
    request.with_uid(SOP_INSTANCE, instance).encode()
}

fn request(field: u16, message: u16, class: &str) -> Command {
    Command::default().with_uid(SOP_CLASS, class).with_number(FIELD, field).with_number(MESSAGE_ID, message)
}

/// What matters of a response.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    /// (0000,0100)
    pub command: u16,
    /// (0000,0120) Message ID Being Responded To; some receivers leave it out.
    pub message: Option<u16>,
    /// (0000,0900)
    pub status: u16,
    /// (0000,0902) Error Comment, empty if absent.
    pub comment: String,
}

impl Response {
    /// Reads a command set.
    pub fn read(set: &[u8]) -> Result<Self, String> {
        let command = Command::parse(set)?;
        Ok(Self {
            command: command.number(FIELD).ok_or("a command set without Command Field (0000,0100)")?,
            message: command.number(RESPONDED_TO),
            status: command.number(STATUS).ok_or("a response without Status (0000,0900)")?,
            comment: command.text(ERROR_COMMENT).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(set: &mut Vec<u8>, element: u16, value: &[u8]) {
        set.extend([0, 0]);
        set.extend(element.to_le_bytes());
        set.extend((value.len() as u32).to_le_bytes());
        set.extend(value);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(0..16_u8, 0..80)) {
            let _ = Response::read(&bytes);
        }

        #[test]
        fn elements_are_found_among_others(status: u16, message: u16, other in 0x0903_u16.., comment in "[ -~]{0,64}") {
            let mut set = Vec::new();
            put(&mut set, 0x0000, &0_u32.to_le_bytes());
            put(&mut set, 0x0100, &0x8001_u16.to_le_bytes());
            put(&mut set, 0x0120, &message.to_le_bytes());
            put(&mut set, 0x0900, &status.to_le_bytes());
            put(&mut set, 0x0902, comment.as_bytes());
            put(&mut set, other, &[1; 10]);
            let comment = comment.trim_end().to_owned();
            let expected = Response { command: 0x8001, message: Some(message), status, comment };
            proptest::prop_assert_eq!(Response::read(&set), Ok(expected));
            for length in 0..set.len() - 18 {
                proptest::prop_assert!(Response::read(&set[..length]).is_err() || length >= 42);
            }
        }
    }

    #[test]
    fn requests_say_what_the_standard_wants() {
        // PS3.7 tables 9.3-1 and 9.3-12, with the lengths that the group must have.
        let echo = echo(3);
        assert_eq!(echo.len(), 12 + 26 + 3 * 10);
        assert_eq!(echo[8..12], 56_u32.to_le_bytes());
        let store = store(7, "1.2", "1.2.3");
        assert_eq!(store.len(), 12 + 12 + 4 * 10 + 14);
        assert_eq!(store[20..24], *b"1.2\0");
        assert_eq!(store[64..], *b"\0\0\0\x10\x06\0\0\x001.2.3\0");
    }
}
