//! NIfTI-1 files as raw images and label maps in canonical order.
//!
//! The network's intensity rule works on raw `i16`, as a scanner delivers it; a file may hold any type and a rescale.
//! Trainer, exporter and runtime all come through [`read_image`], which follows [`crate::raw`].
//!
//! Voxels are read without loss up to 2^53; NaN and infinity are refused.

mod header;
mod labels;
mod voxels;

use std::path::Path;

use contract::{Modality, Plane};
use nifti::NiftiType;

pub(crate) use header::Header;
pub use labels::{Classes, LabelTable, Labels, Unlisted, read_labels};
use voxels::Stored;

use crate::{Fault, Geometry, VolumeError, raw};

/// One scan, ready for the intensity rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Raw intensities, canonical `[z][y][x]`.
    pub raw: Vec<i16>,
    /// What the intensities mean.
    pub modality: Modality,
    /// `raw` is the file's value times two to this; 0 for CT and for MR of whole numbers.
    pub exponent: i32,
    /// The file's own grid.
    pub geometry: Geometry,
}

impl Image {
    /// Shape `[z, y, x]`.
    pub fn shape(&self) -> [usize; 3] {
        self.geometry.shape()
    }

    /// Voxel spacing along x, y, z, mm.
    pub fn spacing_mm(&self) -> [f64; 3] {
        self.geometry.spacing_mm()
    }

    /// Geometry of every axial slice.
    pub fn plane(&self) -> Plane {
        self.geometry.plane()
    }

    /// Axial slices `[y][x]` from inferior to superior.
    pub fn slices(&self) -> impl ExactSizeIterator<Item = &[i16]> {
        let [_, height, width] = self.shape();
        self.raw.chunks_exact(height * width)
    }
}

/// Reads a `.nii` or `.nii.gz` scan of known modality.
pub fn read_image(path: impl AsRef<Path>, modality: Modality) -> Result<Image, VolumeError> {
    let path = path.as_ref();
    image(path, modality).map_err(|fault| VolumeError::new(path, fault))
}

fn image(path: &Path, modality: Modality) -> Result<Image, Fault> {
    let stored = Stored::read(path)?;
    let exponent = match modality {
        Modality::Ct => 0,
        Modality::Mr => mr_exponent(&stored)?,
    };
    let mut raw = Vec::with_capacity(stored.geometry.voxels());
    stored.visit(|_, value| {
        raw.push(raw::raw(value, exponent));
        Ok(())
    })?;
    let geometry = stored.geometry;
    Ok(Image { raw: geometry.to_canonical(&raw), modality, exponent, geometry })
}

fn mr_exponent(stored: &Stored) -> Result<i32, Fault> {
    let mut extent = raw::Extent::default();
    stored.visit(|_, value| {
        extent.see(value);
        Ok(())
    })?;
    Ok(extent.exponent())
}

/// Writes raw intensities, given in canonical order, as `i16` in the grid of `geometry`, without rescale.
/// [`Geometry::to_canonical`] gives the canonical order of data that is in the file's.
pub fn write_image(path: impl AsRef<Path>, geometry: &Geometry, canonical: &[i16]) -> Result<(), VolumeError> {
    let path = path.as_ref();
    let stored = to_stored(path, geometry, canonical)?;
    voxels::write(path, geometry, NiftiType::Int16, stored.iter().map(|value| value.to_le_bytes()))
}

/// Writes a label map, given in canonical order, as `u8` in the grid of `geometry`: same shape, affine, sform, qform and
/// byte order as the file that `geometry` was read from. Extensions are not copied.
pub fn write_labels(path: impl AsRef<Path>, geometry: &Geometry, canonical: &[u8]) -> Result<(), VolumeError> {
    let path = path.as_ref();
    let stored = to_stored(path, geometry, canonical)?;
    voxels::write(path, geometry, NiftiType::Uint8, stored.iter().map(|&value| [value]))
}

fn to_stored<T: Copy>(path: &Path, geometry: &Geometry, canonical: &[T]) -> Result<Vec<T>, VolumeError> {
    if canonical.len() != geometry.voxels() {
        let fault = Fault::Length { found: canonical.len(), expected: geometry.shape() };
        return Err(VolumeError::new(path, fault));
    }
    Ok(geometry.to_stored(canonical))
}
