//! What can be wrong with a file of a data set: always the file, the value found and what was expected.
//!
//! The file stands outside the enum, so that the code which finds a fault need not know where its bytes came from.

use std::{
    io,
    path::{Path, PathBuf},
};

use contract::UnknownModality;

/// A file that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct VolumeError {
    /// The file or folder at fault.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: Fault,
}

impl VolumeError {
    /// `fault` of `path`.
    pub fn new(path: impl AsRef<Path>, fault: impl Into<Fault>) -> Self {
        Self { path: path.as_ref().to_path_buf(), fault: fault.into() }
    }
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// The operating system or the gzip decoder says no.
    #[error("{message}")]
    Io {
        /// Its class.
        kind: io::ErrorKind,
        /// Its words.
        message: String,
    },
    /// Too short for a header.
    #[error("{found} bytes: a NIfTI-1 file has at least {expected}")]
    TooShort {
        /// Bytes found, after decompression.
        found: usize,
        /// Bytes of the shortest header.
        expected: usize,
    },
    /// Neither magic nor header size fit.
    #[error("not a NIfTI-1 file: header size {size} and magic \"{magic}\", expected 348 and \"n+1\"")]
    NotNifti {
        /// The first field of the header.
        size: i32,
        /// The last field of the header, unprintable bytes escaped.
        magic: String,
    },
    /// A header whose voxels lie in another file.
    #[error("half of a .hdr/.img pair: expected a single .nii or .nii.gz file")]
    Pair,
    /// The second version of the format.
    #[error("a NIfTI-2 file (header size 540): expected NIfTI-1")]
    Nifti2,
    /// `dim[0]` out of range.
    #[error("{count} dimensions: expected 2 to 7")]
    Dimensions {
        /// `dim[0]` as stored.
        count: i32,
    },
    /// An axis without voxels.
    #[error("dim[{axis}] is {size}: expected 1 to 32767")]
    Size {
        /// 1 is the first axis, as in the header.
        axis: usize,
        /// `dim[axis]` as stored.
        size: i32,
    },
    /// More than one volume.
    #[error("shape {shape:?}: expected one 3D volume, every dimension after the third 1")]
    Frames {
        /// All dimensions.
        shape: Vec<usize>,
    },
    /// RGB, complex, long double, or no type at all.
    #[error("data type {code} ({name}): expected a real type of 8 to 64 bits")]
    DataType {
        /// `datatype` as stored.
        code: i16,
        /// Its name in the standard.
        name: String,
    },
    /// Voxels inside the header, or nowhere.
    #[error("vox_offset {found}: expected a whole number of at least 352")]
    Offset {
        /// As stored.
        found: f32,
    },
    /// Voxels missing.
    #[error("{found} bytes of voxels: a volume of {dims:?} needs {expected}")]
    Truncated {
        /// Stored axes.
        dims: [usize; 3],
        /// Bytes there, or the most that a compressed file of this length can hold.
        found: u64,
        /// Bytes that the header promises.
        expected: u64,
    },
    /// A slope whose intercept is not a number.
    #[error("scl_inter {inter}: expected a finite number")]
    Rescale {
        /// As stored.
        inter: f32,
    },
    /// `pixdim` is no distance.
    #[error("spacing pixdim[{axis}] is {spacing_mm} mm: expected more than 0")]
    Spacing {
        /// 1 is the first axis, as in the header.
        axis: usize,
        /// As stored.
        spacing_mm: f32,
    },
    /// A quaternion longer than 1.
    #[error("qform quaternion ({b}, {c}, {d}) is longer than 1")]
    Quaternion {
        /// `quatern_b`.
        b: f32,
        /// `quatern_c`.
        c: f32,
        /// `quatern_d`.
        d: f32,
    },
    /// The axes do not span space.
    #[error("affine {rows:?} is singular or not finite: expected three independent axes")]
    Singular {
        /// Voxel to RAS+ mm, in the file's own precision.
        rows: [[f32; 4]; 3],
    },
    /// NaN or infinite.
    #[error("voxel {voxel:?} is {value}: expected a finite number")]
    NotFinite {
        /// Stored position.
        voxel: [usize; 3],
        /// After rescale.
        value: f64,
    },
    /// Labels that the label table does not have.
    #[error("labels outside the map: {}; the first at voxel {voxel:?}; expected {expected}", counted(found))]
    Label {
        /// Stored position of the first.
        voxel: [usize; 3],
        /// Values after rescale and how many voxels hold each, in order of appearance.
        found: Vec<(f64, u64)>,
        /// The labels that may occur.
        expected: String,
    },
    /// A buffer of another length than the grid.
    #[error("{found} voxels for a grid of {expected:?}")]
    Length {
        /// Voxels given.
        found: usize,
        /// Grid, `[z, y, x]`.
        expected: [usize; 3],
    },
    /// Image and label map do not lie on each other.
    #[error("grid of {found} does not match that of {other}: {expected}", other = other.display())]
    Mismatch {
        /// The file it should match.
        other: PathBuf,
        /// Grid of this file.
        found: String,
        /// Grid of the other.
        expected: String,
    },
    /// `dataset.json` is no JSON or lacks a field.
    #[error("{message}")]
    Json {
        /// The parser's words, with line and column.
        message: String,
    },
    /// Not one channel that is CT or MR.
    #[error("channels {found:?}: expected exactly one, CT or MR")]
    Channels {
        /// As in `channel_names`.
        found: Vec<String>,
    },
    /// The name of a file ending that cannot be read.
    #[error("file_ending '{found}': expected .nii or .nii.gz")]
    Ending {
        /// As in `dataset.json`.
        found: String,
    },
    /// An organ that the label map does not know.
    #[error("label '{name}': expected one of {expected}: is the data of another task?")]
    Organ {
        /// As in `dataset.json`.
        name: String,
        /// The names of the label map.
        expected: String,
    },
    /// A label id that cannot be one.
    #[error("label '{name}' has id {found}: expected a whole number of 0 to 4294967295")]
    LabelId {
        /// As in `dataset.json`.
        name: String,
        /// As in `dataset.json`.
        found: String,
    },
    /// One stored id for two classes.
    #[error("label id {id} stands for both '{first}' and '{second}'")]
    SharedId {
        /// The id.
        id: u32,
        /// A class.
        first: String,
        /// Another class.
        second: String,
    },
    /// A word for unlisted ids that means nothing.
    #[error("gantry.unlisted is '{found}': expected error or background")]
    Unlisted {
        /// As in `dataset.json`.
        found: String,
    },
    /// No case at all, or fewer or more than promised.
    #[error("{found} training cases: expected {expected}")]
    Cases {
        /// Images in `imagesTr`.
        found: usize,
        /// `numTraining`, or `at least 1`.
        expected: String,
    },
    /// An image without its label map.
    #[error("missing: expected the label map of {}", image.display())]
    NoLabels {
        /// The image.
        image: PathBuf,
    },
    /// Training and test share a patient.
    #[error(
        "patient '{patient}' is in training (case '{train}') and in test (case '{test}'): expected every patient in one \
         of them, or the scores say nothing; move or delete one of the cases"
    )]
    SamePatient {
        /// The patient.
        patient: String,
        /// A case of theirs in `imagesTr`.
        train: String,
        /// A case of theirs in `imagesTs`.
        test: String,
    },
    /// A picture that cannot be drawn.
    #[error("{message}")]
    Picture {
        /// Sizes found and expected.
        message: String,
    },
    /// A modality that Gantry does not know.
    #[error(transparent)]
    Modality(#[from] UnknownModality),
}

/// Values with their counts, the first eight in words.
fn counted(found: &[(f64, u64)]) -> String {
    const SHOWN: usize = 8;
    let voxels = |count: u64| if count == 1 { "voxel" } else { "voxels" };
    let mut words: Vec<String> =
        found.iter().take(SHOWN).map(|&(value, count)| format!("{value} ({count} {})", voxels(count))).collect();
    if found.len() > SHOWN {
        words.push(format!("and {} other values", found.len() - SHOWN));
    }
    words.join(", ")
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io { kind: error.kind(), message: error.to_string() }
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Self::Json { message: error.to_string() }
    }
}
