//! Command sets (PS3.7 6.3, annex E): group 0000 in implicit VR little endian. Read by our own few lines, because a parser of
//! data sets takes the lengths that it reads for memory to allocate.

/// Affected SOP class UID.
pub(crate) const SOP_CLASS: u16 = 0x0002;
/// Command field.
pub(crate) const FIELD: u16 = 0x0100;
/// Message ID.
pub(crate) const MESSAGE_ID: u16 = 0x0110;
/// Message ID being responded to.
pub(crate) const RESPONDED_TO: u16 = 0x0120;
/// Command data set type.
pub(crate) const DATA_SET_TYPE: u16 = 0x0800;
/// Status.
pub(crate) const STATUS: u16 = 0x0900;
/// Error comment.
pub(crate) const ERROR_COMMENT: u16 = 0x0902;
/// Affected SOP instance UID.
pub(crate) const SOP_INSTANCE: u16 = 0x1000;

/// Priority.
pub(crate) const PRIORITY: u16 = 0x0700;

/// The command data set type that says that no data set follows.
pub(crate) const NO_DATA_SET: u16 = 0x0101;

/// The elements of a command set in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Command(Vec<(u16, Vec<u8>)>);

impl Command {
    /// Reads a command set; the group length is not looked at.
    pub(crate) fn parse(mut bytes: &[u8]) -> Result<Self, String> {
        let mut elements = Vec::new();
        while !bytes.is_empty() {
            let Some(([g0, g1, e0, e1, l0, l1, l2, l3], rest)) = bytes.split_first_chunk() else {
                return Err(format!("a command set with {} bytes after its last element", bytes.len()));
            };
            let (group, element) = (u16::from_le_bytes([*g0, *g1]), u16::from_le_bytes([*e0, *e1]));
            let length = u32::from_le_bytes([*l0, *l1, *l2, *l3]);
            if group != 0 {
                return Err(format!("the element ({group:04x},{element:04x}) in a command set, expected group 0000"));
            }
            let Some((value, rest)) = rest.split_at_checked(length as usize) else {
                return Err(format!(
                    "(0000,{element:04x}) of {length} bytes in a command set with {} left",
                    rest.len()
                ));
            };
            elements.push((element, value.to_vec()));
            bytes = rest;
        }
        Ok(Self(elements))
    }

    /// With its group length.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for (element, value) in &self.0 {
            append(&mut body, *element, value);
        }
        let mut bytes = Vec::with_capacity(12 + body.len());
        append(&mut bytes, 0, &(body.len() as u32).to_le_bytes());
        bytes.extend(body);
        bytes
    }

    fn value(&self, element: u16) -> Option<&[u8]> {
        self.0.iter().find(|(e, _)| *e == element).map(|(_, value)| &value[..])
    }

    /// A value of VR US.
    pub(crate) fn number(&self, element: u16) -> Option<u16> {
        self.value(element)?.try_into().ok().map(u16::from_le_bytes)
    }

    /// A value of VR UI: 1 to 64 digits and dots.
    pub(crate) fn uid(&self, element: u16) -> Option<&str> {
        let text = std::str::from_utf8(self.value(element)?).ok()?.trim_end_matches(['\0', ' ']);
        let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        (plain && (1..=64).contains(&text.len())).then_some(text)
    }

    /// A value of VR LO, whatever its characters.
    pub(crate) fn text(&self, element: u16) -> Option<String> {
        Some(String::from_utf8_lossy(self.value(element)?).trim_end_matches(['\0', ' ']).to_owned())
    }

    /// Adds a value of VR US; elements must come in ascending order.
    pub(crate) fn with_number(mut self, element: u16, value: u16) -> Self {
        self.0.push((element, value.to_le_bytes().into()));
        self
    }

    /// Adds a value of VR UI.
    pub(crate) fn with_uid(mut self, element: u16, value: &str) -> Self {
        self.0.push((element, padded(value.into(), 0)));
        self
    }

    /// Adds a value of VR LO: cut to 64 characters, those that are not printable ASCII replaced.
    pub(crate) fn with_text(mut self, element: u16, value: &str) -> Self {
        let plain = |c: char| if (' '..='~').contains(&c) && c != '\\' { c as u8 } else { b'?' };
        self.0.push((element, padded(value.chars().take(64).map(plain).collect(), b' ')));
        self
    }
}

fn append(bytes: &mut Vec<u8>, element: u16, value: &[u8]) {
    bytes.extend([0, 0]);
    bytes.extend(element.to_le_bytes());
    bytes.extend((value.len() as u32).to_le_bytes());
    bytes.extend(value);
}

fn padded(mut value: Vec<u8>, pad: u8) -> Vec<u8> {
    if value.len() % 2 == 1 {
        value.push(pad);
    }
    value
}
