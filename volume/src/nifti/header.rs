//! The 348 bytes in front of the voxels.
//!
//! The `nifti` crate reads the fields; the bytes themselves are kept, so that a label map can carry the input's header
//! unchanged but for the few fields that describe its own voxels. The crate's own writer would drop write errors and
//! its own affine code panics on odd headers, so both are done here. Source: nifti1.h, and nibabel where that is silent.

use nifti::{Endianness, NiftiHeader, NiftiType};

use crate::Fault;

/// Length of the header.
pub(crate) const HEADER_BYTES: usize = 348;
/// Header plus the four bytes that say "no extension": where the voxels of every file written here start.
pub(crate) const VOXELS_AT: usize = 352;

/// Offsets of the fields that are written here.
mod at {
    pub const SIZEOF_HDR: usize = 0;
    pub const DIM: usize = 40;
    pub const DATATYPE: usize = 70;
    pub const BITPIX: usize = 72;
    pub const PIXDIM: usize = 76;
    pub const VOX_OFFSET: usize = 108;
    pub const SCL_SLOPE: usize = 112;
    pub const SCL_INTER: usize = 116;
    pub const XYZT_UNITS: usize = 123;
    pub const CAL_MAX: usize = 124;
    pub const CAL_MIN: usize = 128;
    pub const SFORM_CODE: usize = 254;
    pub const SROW_X: usize = 280;
    pub const MAGIC: usize = 344;
}

/// A NIfTI-1 header of a single file, as bytes and as fields.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    bytes: [u8; HEADER_BYTES],
    fields: NiftiHeader,
}

impl PartialEq for Header {
    /// By bytes: fields may be NaN.
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Header {
    pub(crate) fn parse(bytes: [u8; HEADER_BYTES]) -> Result<Self, Fault> {
        let size = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if i32::from_le_bytes(size) == 540 || i32::from_be_bytes(size) == 540 {
            return Err(Fault::Nifti2);
        }
        let magic = &bytes[at::MAGIC..];
        let not_nifti = |size| Fault::NotNifti { size, magic: magic.escape_ascii().to_string() };
        let fields = NiftiHeader::from_reader(&bytes[..]).map_err(|_| not_nifti(i32::from_le_bytes(size)))?;
        if fields.sizeof_hdr != HEADER_BYTES as i32 {
            return Err(not_nifti(fields.sizeof_hdr));
        }
        if &fields.magic != b"n+1\0" {
            return Err(Fault::Pair);
        }
        Ok(Self { bytes, fields })
    }

    /// A little-endian header of a new 3D file in mm.
    pub(crate) fn new(dims: [usize; 3], affine: [[f64; 4]; 3]) -> Result<Self, Fault> {
        let mut header = Self { bytes: [0; HEADER_BYTES], fields: NiftiHeader::default() };
        header.fields.endianness = Endianness::Little;
        header.put(at::SIZEOF_HDR, (HEADER_BYTES as i32).to_le_bytes());
        header.put(at::MAGIC, *b"n+1\0");
        header.put_i16(at::DIM, 3);
        for axis in 1..8 {
            let size = dims.get(axis - 1).copied().unwrap_or(1);
            let stored = i16::try_from(size).ok().filter(|&size| size > 0);
            let stored = stored.ok_or(Fault::Size { axis, size: size.try_into().unwrap_or(i32::MAX) })?;
            header.put_i16(at::DIM + 2 * axis, stored);
        }
        for axis in 0..8 {
            let column = affine.map(|row| if (1..=3).contains(&axis) { row[axis - 1] } else { 0. });
            let length = column.iter().map(|value| value * value).sum::<f64>().sqrt();
            header.put_f32(at::PIXDIM + 4 * axis, if (1..=3).contains(&axis) { length as f32 } else { 1. });
        }
        header.put(at::XYZT_UNITS, [2]);
        header.put_i16(at::SFORM_CODE, 1);
        for (index, value) in affine.iter().flatten().enumerate() {
            header.put_f32(at::SROW_X + 4 * index, *value as f32);
        }
        Self::parse(header.with_voxels(NiftiType::Int16))
    }

    /// The bytes of this header in front of voxels of type `kind`, without rescale and without extensions.
    pub(crate) fn with_voxels(&self, kind: NiftiType) -> [u8; HEADER_BYTES] {
        let mut header = self.clone();
        header.put_i16(at::DATATYPE, kind as i16);
        header.put_i16(at::BITPIX, 8 * kind.size_of() as i16);
        header.put_f32(at::VOX_OFFSET, VOXELS_AT as f32);
        header.put_f32(at::SCL_SLOPE, 1.);
        for field in [at::SCL_INTER, at::CAL_MAX, at::CAL_MIN] {
            header.put_f32(field, 0.);
        }
        header.bytes
    }

    /// Byte order of header and voxels.
    pub(crate) const fn endianness(&self) -> Endianness {
        self.fields.endianness
    }

    /// Shape of the three space axes; a 2D file is one slice.
    pub(crate) fn dims(&self) -> Result<[usize; 3], Fault> {
        // The crate reads dim as unsigned; the standard's type is signed.
        let dim = self.fields.dim.map(|size| i32::from(size as i16));
        if !(2..=7).contains(&dim[0]) {
            return Err(Fault::Dimensions { count: dim[0] });
        }
        let used = &dim[1..=dim[0] as usize];
        if let Some(axis) = used.iter().position(|&size| size < 1) {
            return Err(Fault::Size { axis: axis + 1, size: used[axis] });
        }
        if used.iter().skip(3).any(|&size| size != 1) {
            return Err(Fault::Frames { shape: used.iter().map(|&size| size as usize).collect() });
        }
        Ok([0, 1, 2].map(|axis| used.get(axis).map_or(1, |&size| size as usize)))
    }

    /// Byte at which the voxels start.
    pub(crate) fn offset(&self) -> Result<u64, Fault> {
        let found = self.fields.vox_offset;
        let fits = found >= VOXELS_AT as f32 && found.fract() == 0. && found <= 2f32.powi(31);
        if fits { Ok(found as u64) } else { Err(Fault::Offset { found }) }
    }

    /// Type of the voxels, one of the ten real ones.
    pub(crate) fn kind(&self) -> Result<NiftiType, Fault> {
        use NiftiType::*;
        match self.fields.data_type() {
            Ok(kind @ (Int8 | Uint8 | Int16 | Uint16 | Int32 | Uint32 | Int64 | Uint64 | Float32 | Float64)) => {
                Ok(kind)
            }
            Ok(other) => Err(Fault::DataType { code: other as i16, name: format!("{other:?}") }),
            Err(_) => Err(Fault::DataType { code: self.fields.datatype, name: "unknown".into() }),
        }
    }

    /// Slope and intercept; a slope of 0, NaN or infinity means that values are stored as they are (as in nibabel).
    pub(crate) fn rescale(&self) -> Result<(f64, f64), Fault> {
        let (slope, inter) = (self.fields.scl_slope, self.fields.scl_inter);
        if slope == 0. || !slope.is_finite() {
            Ok((1., 0.))
        } else if inter.is_finite() {
            Ok((f64::from(slope), f64::from(inter)))
        } else {
            Err(Fault::Rescale { inter })
        }
    }

    /// Voxel to RAS+ mm by the best description in the file: sform, else qform, else spacing.
    ///
    /// `pixdim` must be positive even where the sform makes it irrelevant: such a file contradicts itself.
    pub(crate) fn affine(&self) -> Result<[[f64; 4]; 3], Fault> {
        let dims = self.dims()?;
        let zooms = self.zooms()?;
        if self.fields.sform_code != 0 {
            let rows = [self.fields.srow_x, self.fields.srow_y, self.fields.srow_z];
            return Ok(rows.map(|row| row.map(f64::from)));
        }
        if self.fields.qform_code != 0 {
            return self.qform(zooms);
        }
        // nibabel's choice for files that say nothing: x to the left, origin in the middle.
        let scale = [-zooms[0], zooms[1], zooms[2]];
        let mut affine = [[0.; 4]; 3];
        for axis in 0..3 {
            affine[axis][axis] = scale[axis];
            affine[axis][3] = -scale[axis] * (dims[axis] as f64 - 1.) / 2.;
        }
        Ok(affine)
    }

    fn zooms(&self) -> Result<[f64; 3], Fault> {
        let mut zooms = [1.; 3];
        for axis in 1..=3.min(usize::from(self.fields.dim[0])) {
            let spacing_mm = self.fields.pixdim[axis];
            if !(spacing_mm > 0. && spacing_mm.is_finite()) {
                return Err(Fault::Spacing { axis, spacing_mm });
            }
            zooms[axis - 1] = f64::from(spacing_mm);
        }
        Ok(zooms)
    }

    /// Method 2 of nifti1.h: rotation by the unit quaternion (a, b, c, d), a from the other three.
    fn qform(&self, zooms: [f64; 3]) -> Result<[[f64; 4]; 3], Fault> {
        let fields = &self.fields;
        let (b, c, d) = (fields.quatern_b, fields.quatern_c, fields.quatern_d);
        let [x, y, z] = [b, c, d].map(f64::from);
        let rest = 1. - (x * x + y * y + z * z);
        // Rounding of the file's f32 may leave a little less than nothing (nibabel's threshold).
        let rounding = 3. * f64::from(f32::EPSILON);
        if rest.is_nan() || rest < -rounding {
            return Err(Fault::Quaternion { b, c, d });
        }
        let w = if rest.abs() < rounding { 0. } else { rest.sqrt() };
        let s = 2. / (w * w + x * x + y * y + z * z);
        let rotation = [
            [1. - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y)],
            [s * (x * y + w * z), 1. - s * (x * x + z * z), s * (y * z - w * x)],
            [s * (x * z - w * y), s * (y * z + w * x), 1. - s * (x * x + y * y)],
        ];
        let qfac = if fields.pixdim[0] == -1. { -1. } else { 1. };
        let scale = [zooms[0], zooms[1], zooms[2] * qfac];
        let shift = [fields.quatern_x, fields.quatern_y, fields.quatern_z].map(f64::from);
        Ok([0, 1, 2].map(|row| {
            let [a, b, c] = [0, 1, 2].map(|column| rotation[row][column] * scale[column]);
            [a, b, c, shift[row]]
        }))
    }

    fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.bytes[at..at + N].copy_from_slice(&bytes);
    }

    fn put_i16(&mut self, at: usize, value: i16) {
        match self.endianness() {
            Endianness::Little => self.put(at, value.to_le_bytes()),
            Endianness::Big => self.put(at, value.to_be_bytes()),
        }
    }

    fn put_f32(&mut self, at: usize, value: f32) {
        match self.endianness() {
            Endianness::Little => self.put(at, value.to_le_bytes()),
            Endianness::Big => self.put(at, value.to_be_bytes()),
        }
    }
}
