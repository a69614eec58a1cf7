//! From bytes to an instance, without trusting a length.
//!
//! The reader of dicom-rs 0.10 takes memory by the lengths that a data set announces, and takes the items of an unknown
//! sequence (VR `UN` of undefined length) for explicit ones where they are implicit (PS3.5 6.2.2, note of CP-246). So every
//! length is held against what is there first, and such sequences, which are private, are left out.

use std::{
    fs::File,
    io::{self, Read},
    ops::Range,
    path::Path,
};

use dicom_core::{
    Tag, VR,
    dictionary::{DataDictionary, DataDictionaryEntry},
};
use dicom_dictionary_std::{StandardDataDictionary, tags, uids};
use dicom_object::{DefaultDicomObject, FileMetaTable, InMemDicomObject};
use dicom_transfer_syntax_registry::entries::{
    EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN,
};
use flate2::read::DeflateDecoder;

use crate::Fault;

/// Largest file, and largest data set after inflation: pixels of 2^29 values of 16 bits, and elements beside them.
const MOST_BYTES: u64 = (1 << 30) + (1 << 26);
/// Items and the ends of items and sequences that tell no length (PS3.5 7.5).
const ITEM: Tag = Tag(0xfffe, 0xe000);
const ITEM_END: Tag = Tag(0xfffe, 0xe00d);
const SEQUENCE_END: Tag = Tag(0xfffe, 0xe0dd);
/// Sequences within sequences.
const DEPTH: usize = 32;
/// A length that is not told.
const UNDEFINED: u32 = u32::MAX;
/// Retired in 2006, and still spoken.
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
/// Before the magic word (PS3.10 7.1).
const PREAMBLE: usize = 128;

/// Reads a file.
///
/// # Errors
/// [`Fault::Unreadable`].
pub fn open(path: &Path) -> Result<DefaultDicomObject, Fault> {
    let fault = |error: io::Error| Fault::unreadable(&error);
    let file = File::open(path).map_err(fault)?;
    let length = file.metadata().map_err(fault)?.len();
    if length > MOST_BYTES {
        return Err(Fault::Unreadable(format!("a file of {length} bytes: expected at most {MOST_BYTES}")));
    }
    let mut bytes = vec![];
    file.take(MOST_BYTES).read_to_end(&mut bytes).map_err(fault)?;
    read(&bytes)
}

/// Reads the bytes of a file.
///
/// # Errors
/// [`Fault::Unreadable`].
pub fn read(bytes: &[u8]) -> Result<DefaultDicomObject, Fault> {
    // Some programs leave the preamble out.
    let start = if bytes.starts_with(b"DICM") { 0 } else { PREAMBLE };
    let mut rest = bytes.get(start..).unwrap_or_default();
    if !rest.starts_with(b"DICM") {
        return Err(Fault::Unreadable("no DICM after a preamble of 128 bytes: expected a DICOM file".into()));
    }
    // Meta information announces its length in its first element; it is short.
    let announced = rest.get(12..16).map_or(0, |bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    if announced as usize > rest.len() {
        return Err(Fault::Unreadable(format!("meta information of {announced} bytes in {}", rest.len())));
    }
    let meta = FileMetaTable::from_reader(&mut rest).map_err(|error| Fault::unreadable(&error))?;
    data_set(rest, meta)
}

/// Reads a data set with what a file would say about it.
///
/// # Errors
/// [`Fault::Unreadable`].
pub fn data_set(bytes: &[u8], meta: FileMetaTable) -> Result<DefaultDicomObject, Fault> {
    let inflated;
    let mut bytes = bytes;
    let named = meta.transfer_syntax.trim_end_matches(['\0', ' ']);
    let (explicit, big) = (named != uids::IMPLICIT_VR_LITTLE_ENDIAN, named == BIG_ENDIAN);
    let syntax = match named {
        uids::IMPLICIT_VR_LITTLE_ENDIAN => IMPLICIT_VR_LITTLE_ENDIAN.erased(),
        BIG_ENDIAN => EXPLICIT_VR_BIG_ENDIAN.erased(),
        uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN => {
            inflated = inflate(bytes, MOST_BYTES)?;
            bytes = &inflated;
            EXPLICIT_VR_LITTLE_ENDIAN.erased()
        }
        _ => EXPLICIT_VR_LITTLE_ENDIAN.erased(),
    };
    let sieved = Sieve { bytes, big, left_out: vec![] }.run(explicit)?;
    let object = InMemDicomObject::read_dataset_with_ts(sieved.as_slice(), &syntax)
        .map_err(|error| Fault::unreadable(&error))?;
    Ok(object.with_exact_meta(meta))
}

fn inflate(bytes: &[u8], most: u64) -> Result<Vec<u8>, Fault> {
    let mut inflated = vec![];
    let read = DeflateDecoder::new(bytes).take(most + 1).read_to_end(&mut inflated);
    read.map_err(|error| Fault::unreadable(&error))?;
    match inflated.len() as u64 > most {
        false => Ok(inflated),
        true => Err(Fault::Unreadable(format!("a data set of more than {most} bytes after inflation"))),
    }
}

/// Walks through a data set.
struct Sieve<'a> {
    bytes: &'a [u8],
    big: bool,
    /// Unknown sequences.
    left_out: Vec<Range<usize>>,
}

/// Where a walk is, and what it is in.
#[derive(Clone, Copy)]
struct Within {
    end: usize,
    explicit: bool,
    /// Ends with a delimiter.
    delimited: bool,
    /// All that is around it tells no length, so that something in it can be left out.
    loose: bool,
    depth: usize,
}

impl Sieve<'_> {
    fn run(mut self, explicit: bool) -> Result<Vec<u8>, Fault> {
        let all = Within { end: self.bytes.len(), explicit, delimited: false, loose: true, depth: 0 };
        self.elements(0, all)?;
        let mut kept = Vec::with_capacity(self.bytes.len());
        let mut at = 0;
        for range in &self.left_out {
            kept.extend_from_slice(&self.bytes[at..range.start]);
            at = range.end;
        }
        kept.extend_from_slice(&self.bytes[at..]);
        Ok(kept)
    }

    /// Elements up to the end or the delimiter of their item; returns where they end.
    fn elements(&mut self, mut at: usize, within: Within) -> Result<usize, Fault> {
        loop {
            if at == within.end && !within.delimited {
                return Ok(at);
            }
            // Padding that is no element.
            let rest = &self.bytes[at..within.end];
            if within.depth == 0 && rest.len() < 8 && rest.iter().all(|&byte| byte == 0) {
                return Ok(within.end);
            }
            let start = at;
            let tag = self.tag(at, within.end)?;
            at += 4;
            if tag == ITEM_END && within.delimited {
                return self.inside(tag, at + 4, within.end);
            }
            let (vr, length, next) = self.head(tag, at, within)?;
            at = next;
            let unknown = within.explicit && vr == Some(VR::UN) && length == UNDEFINED;
            if length != UNDEFINED {
                let end = self.inside(tag, at.saturating_add(length as usize), within.end)?;
                if vr == Some(VR::SQ) {
                    let inner = Within { end, delimited: false, loose: false, depth: within.depth + 1, ..within };
                    self.items(tag, at, inner)?;
                }
                at = end;
            } else if tag == tags::PIXEL_DATA && vr != Some(VR::SQ) && within.explicit {
                at = self.fragments(tag, at, within.end)?;
            } else if unknown || vr == Some(VR::SQ) || !within.explicit {
                let inner = Within {
                    delimited: true,
                    explicit: within.explicit && !unknown,
                    // What is left out is left out whole.
                    loose: within.loose && !unknown,
                    depth: within.depth + 1,
                    ..within
                };
                at = self.items(tag, at, inner)?;
                if unknown && within.loose {
                    self.left_out.push(start..at);
                } else if unknown {
                    return Err(Fault::Unreadable(format!("{tag}: an unknown sequence in one that tells its length")));
                }
            } else {
                return Err(Fault::Unreadable(format!("{tag}: no length, and no sequence")));
            }
        }
    }

    /// Items up to the end or the delimiter of their sequence.
    fn items(&mut self, sequence: Tag, mut at: usize, within: Within) -> Result<usize, Fault> {
        if within.depth > DEPTH {
            return Err(Fault::Unreadable(format!("{sequence}: more than {DEPTH} sequences within each other")));
        }
        loop {
            if at == within.end && !within.delimited {
                return Ok(at);
            }
            let tag = self.tag(at, within.end)?;
            let length = self.u32(sequence, at + 4, within.end)?;
            at += 8;
            match tag {
                SEQUENCE_END if within.delimited => return Ok(at),
                ITEM if length == UNDEFINED => {
                    at = self.elements(at, Within { delimited: true, ..within })?;
                }
                ITEM => {
                    let end = self.inside(sequence, at.saturating_add(length as usize), within.end)?;
                    at = self.elements(at, Within { end, delimited: false, loose: false, ..within })?;
                }
                _ => return Err(Fault::Unreadable(format!("{sequence}: {tag} where an item was expected"))),
            }
        }
    }

    /// Fragments of encapsulated pixels (PS3.5 A.4).
    fn fragments(&self, pixels: Tag, mut at: usize, end: usize) -> Result<usize, Fault> {
        loop {
            let tag = self.tag(at, end)?;
            let length = self.u32(pixels, at + 4, end)?;
            at = self.inside(pixels, (at + 8).saturating_add(length as usize), end)?;
            match tag {
                SEQUENCE_END => return Ok(at),
                ITEM => {}
                _ => return Err(Fault::Unreadable(format!("{pixels}: {tag} where a fragment was expected"))),
            }
        }
    }

    /// VR where it is known, length, and where the value begins.
    fn head(&self, tag: Tag, at: usize, within: Within) -> Result<(Option<VR>, u32, usize), Fault> {
        if !within.explicit {
            let known = StandardDataDictionary.by_tag(tag).map(|entry| entry.vr().relaxed());
            return Ok((known, self.u32(tag, at, within.end)?, at + 4));
        }
        let vr = self.part(tag, at, 2, within.end)?;
        let vr = VR::from_binary([vr[0], vr[1]]);
        let long = !matches!(
            vr,
            Some(
                VR::AE
                    | VR::AS
                    | VR::AT
                    | VR::CS
                    | VR::DA
                    | VR::DS
                    | VR::DT
                    | VR::FD
                    | VR::FL
                    | VR::IS
                    | VR::LO
                    | VR::LT
                    | VR::PN
                    | VR::SH
                    | VR::SL
                    | VR::SS
                    | VR::ST
                    | VR::TM
                    | VR::UI
                    | VR::UL
                    | VR::US
            )
        );
        if long {
            return Ok((vr, self.u32(tag, at + 4, within.end)?, at + 8));
        }
        let length = self.part(tag, at + 2, 2, within.end)?;
        let length = [length[0], length[1]];
        let length = if self.big { u16::from_be_bytes(length) } else { u16::from_le_bytes(length) };
        Ok((vr, length.into(), at + 4))
    }

    fn tag(&self, at: usize, end: usize) -> Result<Tag, Fault> {
        let four = self.part(Tag(0, 0), at, 4, end)?;
        let half = |low: usize| {
            let bytes = [four[low], four[low + 1]];
            if self.big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
        };
        Ok(Tag(half(0), half(2)))
    }

    fn u32(&self, tag: Tag, at: usize, end: usize) -> Result<u32, Fault> {
        let bytes = self.part(tag, at, 4, end)?;
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        Ok(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn part(&self, tag: Tag, at: usize, length: usize, end: usize) -> Result<&[u8], Fault> {
        let next = self.inside(tag, at.saturating_add(length), end)?;
        Ok(&self.bytes[at..next])
    }

    fn inside(&self, tag: Tag, next: usize, end: usize) -> Result<usize, Fault> {
        let over = || {
            Fault::Unreadable(format!(
                "{tag} goes on to byte {next}: expected an end by byte {end}; it is cut or damaged"
            ))
        };
        (next <= end).then_some(next).ok_or_else(over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Explicit little endian, four-byte lengths.
    fn long(tag: u32, vr: &[u8; 2], length: u32, value: &[u8]) -> Vec<u8> {
        let mut bytes = [(tag >> 16) as u16, tag as u16].map(u16::to_le_bytes).concat();
        bytes.extend(vr);
        bytes.extend([0; 2]);
        bytes.extend(length.to_le_bytes());
        bytes.extend(value);
        bytes
    }

    fn item(tag: u32, length: u32, value: &[u8]) -> Vec<u8> {
        let mut bytes = [(tag >> 16) as u16, tag as u16].map(u16::to_le_bytes).concat();
        bytes.extend(length.to_le_bytes());
        bytes.extend(value);
        bytes
    }

    fn sieved(bytes: &[u8]) -> Result<Vec<u8>, String> {
        Sieve { bytes, big: false, left_out: vec![] }.run(true).map_err(|fault| fault.to_string())
    }

    #[test]
    fn unknown_sequences_are_left_out_and_the_rest_is_as_it_was() {
        let element = long(0x0008_1199, b"SQ", 0, &[]);
        // Implicit within, as it must be.
        let inner = [item(0xfffe_e000, UNDEFINED, &item(0x0008_0018, 4, b"1.2\0")), item(0xfffe_e00d, 0, &[])].concat();
        let unknown = long(0x4453_100c, b"UN", UNDEFINED, &[inner, item(0xfffe_e0dd, 0, &[])].concat());
        let whole = [element.clone(), unknown.clone(), element.clone()].concat();
        assert_eq!(sieved(&whole).unwrap(), [element.clone(), element].concat());
        // Within an item that tells its length, the length would be wrong.
        let told =
            long(0x0008_1199, b"SQ", unknown.len() as u32 + 8, &item(0xfffe_e000, unknown.len() as u32, &unknown));
        assert!(sieved(&told).unwrap_err().contains("one that tells its length"));
    }

    #[test]
    fn lengths_beyond_what_is_there_are_refused_at_any_depth() {
        let cut = long(0x7fe0_0010, b"OW", 0xffff_fff0, &[0; 8]);
        assert!(sieved(&cut).unwrap_err().contains("(7FE0,0010) goes on to byte 4294967292"));
        let nested = long(0x0008_1199, b"SQ", UNDEFINED, &item(0xfffe_e000, UNDEFINED, &cut));
        assert!(sieved(&nested).is_err());
        let fragment = long(0x7fe0_0010, b"OB", UNDEFINED, &item(0xfffe_e000, 100, &[0; 8]));
        assert!(sieved(&fragment).is_err());
        let mut deep = long(0x0008_1199, b"SQ", UNDEFINED, &[]);
        for _ in 0..100_000 {
            deep.extend(item(0xfffe_e000, UNDEFINED, &long(0x0008_1199, b"SQ", UNDEFINED, &[])));
        }
        assert!(sieved(&deep).unwrap_err().contains("within each other"));
    }

    #[test]
    fn a_bomb_is_refused() {
        use std::io::Write;
        let mut encoder = flate2::write::DeflateEncoder::new(vec![], flate2::Compression::fast());
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
        let bomb = encoder.finish().unwrap();
        assert!(bomb.len() < 1 << 14);
        assert_eq!(inflate(&bomb, 1 << 20).unwrap().len(), 1 << 20);
        let fault = inflate(&bomb, (1 << 20) - 1).unwrap_err().to_string();
        assert!(fault.contains("after inflation"), "{fault}");
    }
}
