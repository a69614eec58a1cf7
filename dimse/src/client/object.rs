//! What a sender must know of a DICOM file (PS3.10 section 7) before the data set, which it passes on unread.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use dicom_dictionary_std::uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN;
use dicom_object::FileMetaTable;

use super::Error;

/// Preamble, `DICM`, and the element with the length of the file meta group.
const PREFIX: usize = 128 + 4 + 12;
/// More than any honest file meta group; it may hold private information (0002,0102).
const LARGEST_META: u32 = 1 << 20;

/// A DICOM file to send.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub path: PathBuf,
    pub class: String,
    pub instance: String,
    pub syntax: String,
    /// Where the data set begins, in bytes from the beginning of the file.
    start: u64,
}

impl Object {
    /// Reads the file meta group.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let wrong = |what: String| Error::File(format!("{}: {what}", path.display()));
        let mut file = File::open(path).map_err(|error| unreadable(path, &error))?;
        let mut prefix = [0; PREFIX];
        file.read_exact(&mut prefix).map_err(|error| unreadable(path, &error))?;
        if &prefix[128..136] != b"DICM\x02\0\0\0" || &prefix[136..140] != b"UL\x04\0" {
            return Err(wrong(
                "no DICOM file: expected DICM and the length of the file meta group after 128 bytes".into(),
            ));
        }
        let length = u32::from_le_bytes([prefix[140], prefix[141], prefix[142], prefix[143]]);
        if length > LARGEST_META {
            return Err(wrong(format!("its file meta group claims {length} bytes, expected at most {LARGEST_META}")));
        }
        let mut meta = prefix[128..].to_vec();
        meta.resize(meta.len() + length as usize, 0);
        file.read_exact(&mut meta[PREFIX - 128..]).map_err(|error| unreadable(path, &error))?;
        let meta = FileMetaTable::from_reader(meta.as_slice())
            .map_err(|error| wrong(format!("its file meta group cannot be read: {error}")))?;
        let uid = |name: &str, value: &str| {
            let digits = value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            if digits && (1..=64).contains(&value.len()) {
                Ok(value.to_owned())
            } else {
                Err(wrong(format!("its {name} is {value:?}, expected 1 to 64 digits and dots")))
            }
        };
        let object = Self {
            path: path.to_owned(),
            class: uid("Media Storage SOP Class UID", meta.media_storage_sop_class_uid())?,
            instance: uid("Media Storage SOP Instance UID", meta.media_storage_sop_instance_uid())?,
            syntax: uid("Transfer Syntax UID", meta.transfer_syntax())?,
            start: (PREFIX as u64) + u64::from(length),
        };
        object.data_set()?;
        Ok(object)
    }

    /// The data set and its length in bytes, which is even.
    pub fn data_set(&self) -> Result<(impl Read + use<>, u64), Error> {
        let wrong = |error| unreadable(&self.path, &error);
        let mut file = File::open(&self.path).map_err(wrong)?;
        let size = file.metadata().map_err(wrong)?.len();
        let length = size.saturating_sub(self.start);
        // PS3.5 A.5: a deflated data set is padded, and not every writer of files does that.
        let padding = if self.syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN { length % 2 } else { 0 };
        if length == 0 || (length + padding) % 2 == 1 {
            return Err(Error::File(format!(
                "{}: its data set has {length} bytes, expected an even number: it may have been cut off",
                self.path.display()
            )));
        }
        file.seek(SeekFrom::Start(self.start)).map_err(wrong)?;
        Ok((file.chain(io::repeat(0).take(padding)), length + padding))
    }
}

/// Tells a file that is not there or not whole from a system that is short of something.
pub(super) fn unreadable(path: &Path, error: &io::Error) -> Error {
    let path = path.display();
    match error.kind() {
        ErrorKind::UnexpectedEof => Error::File(format!("{path}: it ends too early for a DICOM file")),
        ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::IsADirectory => {
            Error::File(format!("{path}: {error}"))
        }
        _ => Error::System(format!("{path}: {error}")),
    }
}
