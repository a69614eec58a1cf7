//! Scans as the trainer and the evaluation see them: the raw volume, and beside it the codes that the scanner side would
//! compute from it.
//!
//! Codes come from [`contract::Intake`] and nothing else, once, at load: the trainer cannot see a value that a scanner
//! cannot give. A constant slice, which the scanner side refuses, is no training slice and is predicted as background;
//! as a neighbour of another slice it is all air.

mod cache;
mod load;
mod split;
mod values;

use std::path::PathBuf;

use contract::{GridError, Intake, IntensityError, Modality, ModelSpec, Resampler, neighbours, quant, tiles};
use volume::{Geometry, VolumeError};

pub use cache::Cache;
pub use load::{OnBad, Part, load, load_cached, load_with};
pub(crate) use load::{each, open};
pub use split::{draw, hold_out};
pub use values::Values;

/// A scan with its truth.
#[derive(Clone, Debug)]
pub struct Case {
    /// Name within its data set: the image's file name without channel and ending.
    pub name: String,
    /// Whose scan it is; the name where the data set does not say.
    pub patient: String,
    /// The image's file.
    pub path: PathBuf,
    /// How the image was made.
    pub modality: Modality,
    /// The file's grid.
    pub geometry: Geometry,
    /// Raw intensities on the scanner's grid, canonical `[z][y][x]`.
    pub raw: Values<i16>,
    /// Classes on the scanner's grid, canonical `[z][y][x]`.
    pub labels: Values<u8>,
    /// Codes on the model's grid, `[z, height, width]`; -128 throughout a constant slice.
    pub codes: Values<i8>,
    /// Classes on the model's grid, `[z, height, width]`.
    pub model_labels: Values<u8>,
    /// Per slice: whether it is more than one constant value, so that the scanner side takes it.
    pub usable: Vec<bool>,
}

/// Why data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file is at fault.
    #[error(transparent)]
    Volume(Box<VolumeError>),
    /// The slices do not fit the model.
    #[error("{}: {error}", path.display())]
    Grid {
        /// The image.
        path: PathBuf,
        /// Why.
        error: GridError,
    },
    /// The intensities are not those of the modality.
    #[error("{}, slice {slice} of {depth}: {error}", path.display())]
    Intensity {
        /// The image.
        path: PathBuf,
        /// From 0, the most inferior.
        slice: usize,
        /// Number of slices.
        depth: usize,
        /// Why.
        error: IntensityError,
    },
    /// The data set is of another modality than it was said to be.
    #[error("{}: channel_names says {found}, expected {expected}", path.display())]
    Modality {
        /// The description of the data set.
        path: PathBuf,
        /// Of the data set.
        found: Modality,
        /// As asked for.
        expected: Modality,
    },
    /// A part of a data set that is empty.
    #[error("{}: no cases in {part}, expected at least 1", path.display())]
    NoCases {
        /// The data set.
        path: PathBuf,
        /// Folder of images.
        part: &'static str,
    },
    /// Nothing left to go on with.
    #[error("{}: none of {count} cases can be used; the last: {last}", path.display())]
    AllBad {
        /// The data set.
        path: PathBuf,
        /// Cases left out.
        count: usize,
        /// Why the last of them was.
        last: Box<DataError>,
    },
    /// Cases that cannot be sampled or scored together.
    #[error("case '{name}' is {found}, expected {expected} like the others")]
    Mixed {
        /// The case.
        name: String,
        /// Its modality.
        found: Modality,
        /// That of the first case.
        expected: Modality,
    },
    /// Not one slice that a scanner would not refuse.
    #[error("{cases} cases without a usable slice: expected at least 1 slice with more than one value")]
    NoSlices {
        /// Number of cases.
        cases: usize,
    },
    /// A label map of another length.
    #[error("case '{name}': {found} predicted labels, expected {expected}")]
    Length {
        /// The case.
        name: String,
        /// Labels given.
        found: usize,
        /// Pixels asked for.
        expected: usize,
    },
    /// A class that the label map does not have.
    #[error("case '{name}': predicted class {found}, expected less than {classes}")]
    Class {
        /// The case.
        name: String,
        /// The class.
        found: u8,
        /// Number of classes.
        classes: usize,
    },
}

impl From<VolumeError> for DataError {
    fn from(error: VolumeError) -> Self {
        Self::Volume(Box::new(error))
    }
}

/// A scan and its truth, both canonical, before the model's grid.
#[derive(Clone, Debug)]
pub struct Scan {
    /// As [`Case::name`].
    pub name: String,
    /// As [`Case::path`].
    pub path: PathBuf,
    /// As [`Case::modality`].
    pub modality: Modality,
    /// As [`Case::geometry`].
    pub geometry: Geometry,
    /// As [`Case::raw`].
    pub raw: Vec<i16>,
    /// As [`Case::labels`].
    pub labels: Vec<u8>,
}

impl Case {
    /// Brings a scan to the model's grid and codes.
    ///
    /// # Panics
    /// If `raw` or `labels` is not one value per voxel.
    pub fn new(scan: Scan, spec: &ModelSpec) -> Result<Self, DataError> {
        let Scan { name, path, modality, geometry, raw, labels } = scan;
        assert_eq!([raw.len(), labels.len()], [geometry.voxels(); 2], "voxels of {}", path.display());
        let plane = geometry.plane();
        let grid_error = |error| DataError::Grid { path: path.clone(), error };
        let mut intake = Intake::new(modality, spec.intensity, plane, spec.grid).map_err(grid_error)?;
        let (area, depth) = (plane.height * plane.width, geometry.shape()[0]);
        let model_area = spec.grid.height * spec.grid.width;
        let mut codes = vec![i8::MIN; depth * model_area];
        let mut model_labels = vec![0; depth * model_area];
        let mut usable = vec![true; depth];
        for (slice, (raw, codes)) in raw.chunks_exact(area).zip(codes.chunks_exact_mut(model_area)).enumerate() {
            match intake.codes(raw, codes) {
                Ok(()) => {}
                Err(IntensityError::Constant { .. }) => usable[slice] = false,
                Err(error) => return Err(DataError::Intensity { path, slice, depth, error }),
            }
        }
        for (from, to) in labels.chunks_exact(area).zip(model_labels.chunks_exact_mut(model_area)) {
            intake.resampler().labels_forward(from, to);
        }
        let (raw, labels, codes, model_labels) = (raw.into(), labels.into(), codes.into(), model_labels.into());
        Ok(Self { patient: name.clone(), name, path, modality, geometry, raw, labels, codes, model_labels, usable })
    }

    /// Number of slices.
    pub fn depth(&self) -> usize {
        self.usable.len()
    }

    /// Voxel spacing along x, y, z, mm.
    pub fn spacing_mm(&self) -> [f64; 3] {
        self.geometry.spacing_mm()
    }

    /// Writes the codes that a model of `slices` channels sees around slice `z`, `[slices, height, width]`.
    pub fn image(&self, z: usize, slices: usize, codes: &mut [i8]) {
        let area = self.codes.len() / self.depth();
        for (channel, from) in codes.chunks_exact_mut(area).zip(neighbours(z, self.depth(), slices)) {
            channel.copy_from_slice(&self.codes[from * area..][..area]);
        }
    }

    /// Writes the codes of a patch whose first slice is `start`, `[depth, height, width]`; beyond the ends, the end slice.
    pub fn patch(&self, start: isize, codes: &mut [i8]) {
        let area = self.codes.len() / self.depth();
        let shown = tiles::shown(start, codes.len() / area, self.depth());
        for (plane, from) in codes.chunks_exact_mut(area).zip(shown) {
            plane.copy_from_slice(&self.codes[from * area..][..area]);
        }
    }

    /// Classes of slice `z` on the model's grid, `[height, width]`.
    pub fn slice_labels(&self, z: usize) -> &[u8] {
        let area = self.model_labels.len() / self.depth();
        &self.model_labels[z * area..][..area]
    }

    /// The way between the scanner's slices and the model's.
    pub fn resampler(&self, spec: &ModelSpec) -> Result<Resampler, DataError> {
        Resampler::new(self.geometry.plane(), spec.grid)
            .map_err(|error| DataError::Grid { path: self.path.clone(), error })
    }
}

/// The reals that codes stand for, as the network takes them.
pub fn reals<'a>(codes: &'a [i8], spec: &ModelSpec) -> impl Iterator<Item = f32> + 'a {
    let scale = spec.intensity.scale;
    codes.iter().map(move |&code| quant::dequantise(code, scale, 0))
}

/// The one modality of all cases.
pub(crate) fn one_modality(cases: &[Case]) -> Result<Modality, DataError> {
    let expected = cases.first().ok_or(DataError::NoSlices { cases: 0 })?.modality;
    match cases.iter().find(|case| case.modality != expected) {
        None => Ok(expected),
        Some(case) => Err(DataError::Mixed { name: case.name.clone(), found: case.modality, expected }),
    }
}

#[cfg(test)]
pub(crate) mod tests;
