//! Command sets (PS3.7): what is asked and what is answered, always in implicit VR little endian.

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{InMemDicomObject, Tag};
use dicom_transfer_syntax_registry::entries::IMPLICIT_VR_LITTLE_ENDIAN;

/// Values of CommandField (PS3.7 E.1).
pub const C_STORE: u16 = 0x0001;
/// Asks for nothing but an answer.
pub const C_ECHO: u16 = 0x0030;
/// Set in the answer to a command.
pub const RESPONSE: u16 = 0x8000;
/// Value of CommandDataSetType where no data set follows.
pub const NO_DATA_SET: u16 = 0x0101;
/// Longest comment (LO).
const COMMENT: usize = 64;

/// A command set.
#[derive(Clone, Debug, PartialEq)]
pub struct Command(InMemDicomObject);

impl Command {
    /// Reads one.
    ///
    /// # Errors
    /// Words for what is wrong.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let object = InMemDicomObject::read_dataset_with_ts(bytes, &IMPLICIT_VR_LITTLE_ENDIAN.erased());
        object.map(Self).map_err(|error| format!("a command set that cannot be read: {error}"))
    }

    /// As bytes, with its length in front.
    ///
    /// # Errors
    /// The writer's words.
    pub fn bytes(&self) -> Result<Vec<u8>, String> {
        let mut bytes = vec![];
        let written = self.0.write_dataset_with_ts(&mut bytes, &IMPLICIT_VR_LITTLE_ENDIAN.erased());
        written.map(|()| bytes).map_err(|error| error.to_string())
    }

    /// A number.
    pub fn number(&self, tag: Tag) -> Option<u16> {
        self.0.element_opt(tag).ok().flatten()?.to_int().ok()
    }

    /// A text.
    pub fn text(&self, tag: Tag) -> Option<String> {
        let text = self.0.element_opt(tag).ok().flatten()?.to_str().ok()?;
        Some(text.trim_matches(['\0', ' ']).to_owned())
    }

    /// Asks for an answer.
    pub fn echo(message: u16) -> Self {
        Self::new(&[
            (tags::AFFECTED_SOP_CLASS_UID, uids::VERIFICATION.into()),
            (tags::COMMAND_FIELD, C_ECHO.into()),
            (tags::MESSAGE_ID, message.into()),
            (tags::COMMAND_DATA_SET_TYPE, NO_DATA_SET.into()),
        ])
    }

    /// Announces an instance.
    pub fn store(message: u16, class: &str, instance: &str) -> Self {
        Self::new(&[
            (tags::AFFECTED_SOP_CLASS_UID, class.into()),
            (tags::COMMAND_FIELD, C_STORE.into()),
            (tags::MESSAGE_ID, message.into()),
            (tags::PRIORITY, 0u16.into()),
            (tags::COMMAND_DATA_SET_TYPE, 0u16.into()),
            (tags::AFFECTED_SOP_INSTANCE_UID, instance.into()),
        ])
    }

    /// The answer to this command.
    pub fn answer(&self, status: u16, comment: &str) -> Self {
        let of = |tag| self.number(tag).unwrap_or_default();
        let mut elements: Vec<(Tag, PrimitiveValue)> = vec![];
        for tag in [tags::AFFECTED_SOP_CLASS_UID, tags::AFFECTED_SOP_INSTANCE_UID] {
            elements.extend(self.text(tag).map(|text| (tag, text.into())));
        }
        elements.extend([
            (tags::COMMAND_FIELD, (of(tags::COMMAND_FIELD) | RESPONSE).into()),
            (tags::MESSAGE_ID_BEING_RESPONDED_TO, of(tags::MESSAGE_ID).into()),
            (tags::COMMAND_DATA_SET_TYPE, NO_DATA_SET.into()),
            (tags::STATUS, status.into()),
        ]);
        if !comment.is_empty() {
            // In the default character set: others cannot be announced in a command.
            let plain = comment.chars().map(|c| if (' '..='~').contains(&c) && c != '\\' { c } else { '?' });
            elements.push((tags::ERROR_COMMENT, plain.take(COMMENT).collect::<String>().into()));
        }
        Self::new(&elements)
    }

    fn new(elements: &[(Tag, PrimitiveValue)]) -> Self {
        let vr = |tag: Tag| match tag {
            tags::AFFECTED_SOP_CLASS_UID | tags::AFFECTED_SOP_INSTANCE_UID => VR::UI,
            tags::ERROR_COMMENT => VR::LO,
            _ => VR::US,
        };
        let elements = elements.iter().map(|(tag, value)| DataElement::new(*tag, vr(*tag), value.clone()));
        Self(InMemDicomObject::command_from_element_iter(elements))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_what_it_answers_and_comes_back_from_its_bytes() {
        let store = Command::store(7, "1.2.3", "1.2.3.4");
        let read = Command::read(&store.bytes().unwrap()).unwrap();
        assert_eq!(read.number(tags::COMMAND_FIELD), Some(C_STORE));
        assert_eq!(read.text(tags::AFFECTED_SOP_INSTANCE_UID).as_deref(), Some("1.2.3.4"));
        let answer = read.answer(0xa900, &format!("E-DICOM-02 Größe\\{}", "x".repeat(99)));
        let answer = Command::read(&answer.bytes().unwrap()).unwrap();
        assert_eq!(answer.number(tags::COMMAND_FIELD), Some(0x8001));
        assert_eq!(answer.number(tags::MESSAGE_ID_BEING_RESPONDED_TO), Some(7));
        assert_eq!(answer.number(tags::STATUS), Some(0xa900));
        let comment = answer.text(tags::ERROR_COMMENT).unwrap();
        assert!(comment.starts_with("E-DICOM-02 Gr??e?x") && comment.len() == 64, "{comment}");
    }

    #[test]
    fn damaged_commands_are_refused() {
        let bytes = Command::echo(1).bytes().unwrap();
        assert!(Command::read(&bytes[..bytes.len() - 1]).is_err());
        assert!(Command::read(&[0xff; 64]).is_err());
    }
}
