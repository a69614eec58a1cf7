//! CT and MR images from DICOM, for whoever reads them: the trainer's import and the receiver beside the scanner. And what
//! Gantry makes of them, as DICOM again: a [`segmentation`], a [`capture`] of pictures.
//!
//! An [`Image`] is one instance: its identity, and its frames as the scanner stored them with their rescale and their place in
//! the patient. Nothing is guessed: an instance without a place, a localizer, colour, or another kind of object is refused with
//! what was found and what was expected. [`stack`] puts frames in order and refuses those that are no stack.

mod capture;
mod dataset;
mod derived;
mod fault;
mod image;
mod orientation;
mod pixels;
mod read;
mod seg;
pub mod stack;

pub use capture::{Capture, capture};
pub use derived::{Maker, Source, write};
pub use dicom_core::value::{DicomDate, DicomTime};
pub use fault::MakeFault;
pub use image::{Frame, Identity, Image, Plane, instance, series};
pub use orientation::Orientation;
pub use pixels::{Stored, stored};
pub use read::{data_set, open, read};
pub use seg::{Form, Slice, segmentation};

/// What is wrong with an instance or a stack.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// The reader's or decoder's words.
    #[error("{0}")]
    Unreadable(String),
    /// Not an image of CT or MR as scanners make them.
    #[error("{found}: expected a CT or MR image")]
    Kind {
        /// The kind of object, by name where it is known.
        found: String,
    },
    /// An image that shows no slice of the patient's own: a localizer, a mosaic, a projection.
    #[error("image type {0}: expected slices")]
    Type(String),
    /// An element that a slice must have.
    #[error("no {0}: expected an image with its place in the patient")]
    Missing(&'static str),
    /// An element that no slice can have.
    #[error("{name} {found}: expected {expected}")]
    Value {
        /// Keyword.
        name: &'static str,
        /// As in the file.
        found: String,
        /// What would do.
        expected: &'static str,
    },
    /// Not grey images of 8 or 16 bits.
    #[error("{0}: expected MONOCHROME2 with 8 or 16 bits")]
    Pixels(String),
    /// More pixels than any scanner's.
    #[error("{frames} frames of {columns} x {rows} pixels: expected at most {most} pixels in all")]
    Size {
        /// Frames.
        frames: u64,
        /// Columns.
        columns: u64,
        /// Rows.
        rows: u64,
        /// Allowed.
        most: u64,
    },
    /// A slice across another axis than the body's.
    #[error("a {found} slice: expected an axial one, which is what the networks know")]
    Axis {
        /// `sagittal` or `coronal`.
        found: &'static str,
    },
    /// Of another modality than was said.
    #[error("modality {found}: expected {expected}")]
    Modality {
        /// As in the file.
        found: String,
        /// What would do.
        expected: String,
    },
}

impl Fault {
    /// A reader's words with their causes.
    pub fn unreadable(error: &dyn std::error::Error) -> Self {
        Self::Unreadable(pixels::chain(error))
    }
}
