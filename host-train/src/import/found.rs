//! What a layout offers: scans, where their truth lies, and whose they are; and how to list folders.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use contract::Modality;

use super::ImportError;

/// One scan of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Name of the case in the data set that is written.
    pub name: String,
    /// Whose scan it is: all scans of a patient go to the same side of a split.
    pub patient: String,
    /// Number by which published splits name the patient.
    pub id: Option<u32>,
    /// How the scan was made.
    pub modality: Modality,
    /// The scan.
    pub image: Pixels,
    /// Its truth.
    pub truth: Truth,
    /// Whether the source itself keeps it for testing.
    pub test: bool,
}

/// Where the voxels of a scan lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// A NIfTI file.
    Nifti(PathBuf),
    /// A folder with one DICOM file per slice.
    Dicom(PathBuf),
}

/// Where the truth of a scan lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Truth {
    /// A NIfTI label map.
    Nifti(PathBuf),
    /// A folder with one PNG label map per slice.
    Pngs(PathBuf),
    /// A folder with one NIfTI mask per organ.
    Masks(PathBuf),
}

impl Pixels {
    /// File or folder.
    pub fn path(&self) -> &Path {
        let (Self::Nifti(path) | Self::Dicom(path)) = self;
        path
    }
}

impl Truth {
    /// File or folder.
    pub fn path(&self) -> &Path {
        let (Self::Nifti(path) | Self::Pngs(path) | Self::Masks(path)) = self;
        path
    }
}

/// Names in a folder in order, without hidden ones; none if it is not there.
pub fn names(folder: &Path) -> Result<Vec<String>, ImportError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(ImportError::io(folder, error)),
    };
    let mut names = vec![];
    for entry in entries {
        let name = entry.map_err(|error| ImportError::io(folder, error))?.file_name();
        names.extend(name.into_string().ok().filter(|name| !name.starts_with('.')));
    }
    names.sort();
    Ok(names)
}

/// Files of a folder whose name ends so, in order of name.
pub fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, ImportError> {
    let ends = |name: &String| name.to_ascii_lowercase().ends_with(ending);
    Ok(names(folder)?.into_iter().filter(ends).map(|name| folder.join(name)).collect())
}

/// A NIfTI name without its ending, and the ending.
pub fn stem(name: &str) -> Option<(&str, &'static str)> {
    [".nii.gz", ".nii"].into_iter().find_map(|ending| Some((name.strip_suffix(ending)?, ending)))
}

/// The first of `inside` that is a folder in `folder`; `""` is `folder` itself.
pub fn first_folder(folder: &Path, inside: &[&str]) -> Option<PathBuf> {
    inside.iter().map(|name| folder.join(name)).find(|path| path.is_dir())
}
