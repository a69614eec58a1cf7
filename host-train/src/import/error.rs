//! Why a data set cannot be imported: the file or folder, what was found, what was expected.

use std::path::{Path, PathBuf};

use contract::Modality;
use volume::VolumeError;

use super::dicom::DicomFault;

/// Why an import stops, or leaves a case out.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A NIfTI file, a label map or a file of the data set that is written.
    #[error(transparent)]
    Volume(Box<VolumeError>),
    /// Not the layout that was named.
    #[error("{}: no {source_name} data found, expected {expected}", path.display())]
    Layout {
        /// The folder that was to be imported.
        path: PathBuf,
        /// Name of the source.
        source_name: &'static str,
        /// What its files are called.
        expected: String,
    },
    /// A modality that was asked for and is not there.
    #[error("{}: no {modality} scans with labels in it, expected at least 1", path.display())]
    Empty {
        /// The folder that was to be imported.
        path: PathBuf,
        /// The modality.
        modality: Modality,
    },
    /// A DICOM file or a folder of them.
    #[error("{}: {fault}", path.display())]
    Dicom {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        fault: DicomFault,
    },
    /// A PNG file that is no label map.
    #[error("{}: {message}", path.display())]
    Png {
        /// The file.
        path: PathBuf,
        /// The decoder's words, or the form found and the one expected.
        message: String,
    },
    /// Ground truth for fewer or more slices than there are.
    #[error("{}: {found} PNG files for {expected} DICOM slices in {}", path.display(), images.display())]
    Slices {
        /// Folder of PNG files.
        path: PathBuf,
        /// Folder of slices.
        images: PathBuf,
        /// PNG files.
        found: usize,
        /// Slices.
        expected: usize,
    },
    /// Masks that claim the same voxels.
    #[error("{}: {voxels} voxels belong to an earlier mask of another organ too, expected masks that do not overlap", path.display())]
    Overlap {
        /// The second mask.
        path: PathBuf,
        /// Shared voxels.
        voxels: usize,
    },
    /// A file of label rules that cannot be used.
    #[error("{}: {message}", path.display())]
    Labels {
        /// The file, or the name of the built-in rules.
        path: PathBuf,
        /// What was found and what was expected.
        message: String,
    },
    /// A split that the source does not have, or that does not fit what is there.
    #[error("--split {split}: {message}")]
    Split {
        /// As on the command line.
        split: String,
        /// What was found and what was expected.
        message: String,
    },
    /// Two scans that would be written under one name.
    #[error("case '{name}' is there twice: {} and {}", first.display(), second.display())]
    Twice {
        /// Name in the data set that is written.
        name: String,
        /// A scan.
        first: PathBuf,
        /// Another.
        second: PathBuf,
    },
    /// The target is there already.
    #[error("{}: exists already, expected a new folder: choose another --to, or delete it", path.display())]
    Exists {
        /// The data set that would be written.
        path: PathBuf,
    },
    /// Nothing left to write.
    #[error("{}: none of {count} cases can be used; the last: {last}", path.display())]
    AllBad {
        /// The folder that was to be imported.
        path: PathBuf,
        /// Cases left out.
        count: usize,
        /// Why the last of them was.
        last: String,
    },
}

impl ImportError {
    /// A file that the operating system refuses.
    pub fn io(path: impl AsRef<Path>, error: std::io::Error) -> Self {
        VolumeError::new(path, error).into()
    }
}

impl From<VolumeError> for ImportError {
    fn from(error: VolumeError) -> Self {
        Self::Volume(Box::new(error))
    }
}
