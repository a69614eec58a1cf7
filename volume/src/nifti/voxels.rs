//! Bytes of a file to numbers and back.
//!
//! Nothing is taken on the header's word: a plain file is measured first, a compressed one is inflated piece by piece,
//! so memory follows the bytes that are really there.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
};

use flate2::{Compression, bufread::MultiGzDecoder, write::GzEncoder};
use nifti::{Endianness, NiftiType};

use super::header::{HEADER_BYTES, Header, VOXELS_AT};
use crate::{Fault, Geometry, VolumeError, atomic};

/// No deflate stream grows more than this when inflated (zlib's technical details: 1032:1).
const LARGEST_INFLATION: u64 = 1032;
/// Level of files written here: noise compresses no better at higher ones, only slower.
const LEVEL: Compression = Compression::new(4);

/// A file with its voxels as stored.
#[derive(Debug)]
pub(super) struct Stored {
    pub geometry: Geometry,
    bytes: Vec<u8>,
    kind: NiftiType,
    slope: f64,
    inter: f64,
}

impl Stored {
    pub fn read(path: &Path) -> Result<Self, Fault> {
        let file = File::open(path)?;
        let file_bytes = file.metadata()?.len();
        let mut file = BufReader::new(file);
        // By content, not by name: the name is often wrong.
        if file.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
            let capacity = file_bytes.saturating_mul(LARGEST_INFLATION);
            Self::read_from(&mut MultiGzDecoder::new(file), capacity)
        } else {
            Self::read_from(&mut file, file_bytes)
        }
    }

    /// Reads from a source that can give at most `capacity` bytes.
    fn read_from(source: &mut impl Read, capacity: u64) -> Result<Self, Fault> {
        let mut header = Vec::new();
        source.take(HEADER_BYTES as u64).read_to_end(&mut header)?;
        let header: [u8; HEADER_BYTES] = header
            .try_into()
            .map_err(|short: Vec<u8>| Fault::TooShort { found: short.len(), expected: HEADER_BYTES })?;
        let header = Header::parse(header)?;
        let dims = header.dims()?;
        let (kind, offset, (slope, inter)) = (header.kind()?, header.offset()?, header.rescale()?);
        let geometry = Geometry::from_header(header)?;
        // Three factors under 2^15 and one of at most 8: no overflow.
        let expected = dims.iter().map(|&size| size as u64).product::<u64>() * kind.size_of() as u64;
        if offset.saturating_add(expected) > capacity {
            return Err(Fault::Truncated { dims, found: capacity.saturating_sub(offset), expected });
        }
        io::copy(&mut source.take(offset - HEADER_BYTES as u64), &mut io::sink())?;
        let mut bytes = Vec::new();
        source.take(expected).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < expected {
            return Err(Fault::Truncated { dims, found: bytes.len() as u64, expected });
        }
        // To the end, because the checksum of a gzip member is checked only there.
        io::copy(source, &mut io::sink())?;
        Ok(Self { geometry, bytes, kind, slope, inter })
    }

    /// Calls `visit` with every voxel in stored order, after rescale, until it fails or a voxel is not finite.
    pub fn visit(&self, mut visit: impl FnMut(usize, f64) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut each = |index, stored: f64| {
            let value = stored * self.slope + self.inter;
            if value.is_finite() {
                visit(index, value)
            } else {
                Err(Fault::NotFinite { voxel: self.position(index), value })
            }
        };
        let big = self.geometry.header.endianness() == Endianness::Big;
        let bytes = &self.bytes;
        match self.kind {
            NiftiType::Uint8 => walk(bytes, big, |b: [u8; 1]| f64::from(b[0]), &mut each),
            NiftiType::Int8 => walk(bytes, big, |b| f64::from(i8::from_le_bytes(b)), &mut each),
            NiftiType::Uint16 => walk(bytes, big, |b| f64::from(u16::from_le_bytes(b)), &mut each),
            NiftiType::Int16 => walk(bytes, big, |b| f64::from(i16::from_le_bytes(b)), &mut each),
            NiftiType::Uint32 => walk(bytes, big, |b| f64::from(u32::from_le_bytes(b)), &mut each),
            NiftiType::Int32 => walk(bytes, big, |b| f64::from(i32::from_le_bytes(b)), &mut each),
            NiftiType::Float32 => walk(bytes, big, |b| f64::from(f32::from_le_bytes(b)), &mut each),
            NiftiType::Float64 => walk(bytes, big, f64::from_le_bytes, &mut each),
            NiftiType::Uint64 => walk(bytes, big, |b| u64::from_le_bytes(b) as f64, &mut each),
            NiftiType::Int64 => walk(bytes, big, |b| i64::from_le_bytes(b) as f64, &mut each),
            other => Err(Fault::DataType { code: other as i16, name: format!("{other:?}") }),
        }
    }

    /// Stored position of a voxel.
    pub fn position(&self, index: usize) -> [usize; 3] {
        let [x, y, _] = self.geometry.stored_dims();
        [index % x, index / x % y, index / (x * y)]
    }
}

fn walk<const N: usize>(
    bytes: &[u8],
    big: bool,
    read: impl Fn([u8; N]) -> f64,
    each: &mut impl FnMut(usize, f64) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let (voxels, _) = bytes.as_chunks::<N>();
    for (index, voxel) in voxels.iter().enumerate() {
        let mut voxel = *voxel;
        if big {
            voxel.reverse();
        }
        each(index, read(voxel))?;
    }
    Ok(())
}

/// Writes voxels in stored order, compressed where the name ends with `gz`.
pub(super) fn write<const N: usize>(
    path: &Path,
    geometry: &Geometry,
    kind: NiftiType,
    little_endian: impl Iterator<Item = [u8; N]>,
) -> Result<(), VolumeError> {
    let header = &geometry.header;
    let mut bytes = Vec::with_capacity(VOXELS_AT + N * geometry.voxels());
    bytes.extend(header.with_voxels(kind));
    bytes.resize(VOXELS_AT, 0);
    for mut voxel in little_endian {
        if header.endianness() == Endianness::Big {
            voxel.reverse();
        }
        bytes.extend(voxel);
    }
    let gzip = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    let written = if gzip {
        atomic::write(path, |file| {
            let mut encoder = GzEncoder::new(file, LEVEL);
            encoder.write_all(&bytes)?;
            encoder.finish().map(|_| ())
        })
    } else {
        atomic::write_bytes(path, &bytes)
    };
    written.map_err(|error| VolumeError::new(path, error))
}
