//! Command sets (PS3.7 section 6.3): implicit VR little endian, always.

/// PS3.7 E.1: no data set follows.
const NO_DATA_SET: u16 = 0x0101;

/// C-ECHO-RQ (PS3.7 9.3.5.1).
pub(super) fn echo(message: u16) -> Vec<u8> {
    request(0x0030, message, "1.2.840.10008.1.1", None)
}

/// C-STORE-RQ (PS3.7 9.3.1.1), priority medium.
pub(super) fn store(message: u16, class: &str, instance: &str) -> Vec<u8> {
    request(0x0001, message, class, Some(instance))
}

fn request(command: u16, message: u16, class: &str, instance: Option<&str>) -> Vec<u8> {
    let mut rest = Vec::new();
    put(&mut rest, 0x0002, &padded(class));
    put(&mut rest, 0x0100, &command.to_le_bytes());
    put(&mut rest, 0x0110, &message.to_le_bytes());
    if let Some(instance) = instance {
        put(&mut rest, 0x0700, &0_u16.to_le_bytes());
        put(&mut rest, 0x0800, &1_u16.to_le_bytes());
        put(&mut rest, 0x1000, &padded(instance));
    } else {
        put(&mut rest, 0x0800, &NO_DATA_SET.to_le_bytes());
    }
    let mut set = Vec::with_capacity(rest.len() + 12);
    put(&mut set, 0x0000, &(rest.len() as u32).to_le_bytes());
    set.extend(rest);
    set
}

fn put(set: &mut Vec<u8>, element: u16, value: &[u8]) {
    set.extend([0, 0]);
    set.extend(element.to_le_bytes());
    set.extend((value.len() as u32).to_le_bytes());
    set.extend(value);
}

fn padded(uid: &str) -> Vec<u8> {
    let mut value = uid.as_bytes().to_vec();
    if value.len() % 2 == 1 {
        value.push(0);
    }
    value
}

/// What matters of a response.
#[derive(Debug, Default, PartialEq, Eq)]
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
    pub fn read(mut set: &[u8]) -> Result<Self, String> {
        let mut found = Self::default();
        let (mut command, mut status) = (None, None);
        while !set.is_empty() {
            let Some((head, rest)) = set.split_at_checked(8) else {
                return Err(format!("a command set ends in {} bytes, expected 8 bytes for an element", set.len()));
            };
            let group = u16::from_le_bytes([head[0], head[1]]);
            let element = u16::from_le_bytes([head[2], head[3]]);
            let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            let Some((value, rest)) = rest.split_at_checked(length) else {
                return Err(format!(
                    "element ({group:04X},{element:04X}) of a command set claims {length} bytes where {} are left",
                    rest.len()
                ));
            };
            set = rest;
            let number = value.first_chunk().map(|bytes| u16::from_le_bytes(*bytes));
            match (group, element) {
                (0, 0x0100) => command = number,
                (0, 0x0120) => found.message = number,
                (0, 0x0900) => status = number,
                (0, 0x0902) => {
                    found.comment = String::from_utf8_lossy(value).trim_end_matches(['\0', ' ']).to_owned();
                }
                _ => {}
            }
        }
        found.command = command.ok_or("a command set without Command Field (0000,0100)")?;
        found.status = status.ok_or("a response without Status (0000,0900)")?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
