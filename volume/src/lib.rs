//! Volumes in and out: NIfTI files, nnU-Net data sets, metrics in mm, and pictures.
//!
//! Everything inside Gantry is in one orientation, `[z][y][x]` with x to the patient's left, y to posterior and
//! z to superior, and in one type, raw `i16`. This package is where files become that and label maps go back into
//! the grid they came from: a [`Geometry`] remembers the way.

pub mod atomic;
pub mod components;
pub mod dataset;
mod error;
mod geometry;
pub mod metrics;
pub mod nifti;
pub mod overlay;
pub mod raw;

pub use dataset::{Case, Dataset, DatasetWriter, Listing, Split};
pub use error::{Fault, VolumeError};
pub use geometry::Geometry;
pub use nifti::{Classes, Image, LabelTable, Labels, Unlisted, read_image, read_labels, write_image, write_labels};
