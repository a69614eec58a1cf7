//! Why an object cannot be made: what was found, and what would do.

/// Why no object is made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MakeFault {
    /// The header lacks what no object can do without.
    #[error("no {0} in the source: expected a header of an image of the series")]
    Missing(&'static str),
    /// A text that is missing or that its element cannot hold.
    #[error("{name} has {found} characters, or a backslash: expected some, at most {most}, and none a backslash")]
    Text {
        /// Keyword.
        name: &'static str,
        /// Characters.
        found: usize,
        /// Allowed.
        most: usize,
    },
    /// No slices, no pictures or no organs.
    #[error("no {0}: expected at least one")]
    None(&'static str),
    /// A slice or picture of another size than the first, or of a size that DICOM cannot say.
    #[error("{what} {index} has {found:?} columns and rows: expected {expected:?}, each at most 65535")]
    Size {
        /// `slice` or `picture`.
        what: &'static str,
        /// Which, from 0.
        index: usize,
        /// Its own.
        found: [usize; 2],
        /// Those of the first.
        expected: [usize; 2],
    },
    /// Not one value per pixel.
    #[error("{what} {index} has {found} values: expected {expected}")]
    Length {
        /// `slice` or `picture`.
        what: &'static str,
        /// Which, from 0.
        index: usize,
        /// Given.
        found: usize,
        /// Columns times rows, times 3 in a picture.
        expected: usize,
    },
    /// A label that is no class.
    #[error("slice {index} has label {found}: expected at most {most}, the last organ of the label map")]
    Label {
        /// Which slice, from 0.
        index: usize,
        /// The value.
        found: u8,
        /// Allowed.
        most: usize,
    },
    /// Two slices in one place.
    #[error(
        "slices {first} and {second} lie in the same place: expected one per place; make one object per phase or echo"
    )]
    Place {
        /// Which, from 0.
        first: usize,
        /// Which, from 0.
        second: usize,
    },
    /// A slice whose source has no UID, or that of another slice's.
    #[error("slice {index} has source instance '{found}': expected a UID, with a frame number where slices share one")]
    Source {
        /// Which, from 0.
        index: usize,
        /// The instance's UID.
        found: String,
    },
    /// More than an element of a data set holds.
    #[error("{found} bytes of pixels: expected less than 4 GiB")]
    Bytes {
        /// Bytes.
        found: usize,
    },
    /// The library's words.
    #[error("{0}")]
    Object(String),
}
