//! nnU-Net's raw layout, read and written: one folder per data set, one modality per data set.
//!
//! ```text
//! dataset.json
//! imagesTr/liver01_0000.nii.gz    labelsTr/liver01.nii.gz    training
//! imagesTs/liver09_0000.nii.gz    labelsTs/liver09.nii.gz    test (labels optional)
//! ```
//! Organs are matched by name with the model's label map. A data set that numbers or names them otherwise adds to its
//! `dataset.json` an object that nnU-Net ignores:
//! ```json
//! "gantry": { "labels": { "5": "liver", "1": "spleen" }, "unlisted": "background" }
//! ```
//! `labels` there replaces the list of nnU-Net; `unlisted` says what other numbers mean: `error` (the default) or
//! `background`. A third entry, `patients`, says whose a case is (`"patients": { "liver01_t2": "01" }`); without it every
//! case is a patient of its own. A patient in training and in test at once is refused.
//!
//! The older form of nnU-Net v1 and the Medical Segmentation Decathlon (`modality`, `"labels": { "1": "liver" }`) is read
//! as well, with or without the channel in the names of files.

mod description;
mod writer;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use contract::{LabelMap, Modality};

pub use writer::DatasetWriter;

use crate::{
    Fault, Image, LabelTable, Labels, VolumeError,
    nifti::{read_image, read_labels},
};
use description::Description;

/// Name of the description.
pub const DESCRIPTION: &str = "dataset.json";

/// Which half of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// `imagesTr`, `labelsTr`.
    Train,
    /// `imagesTs`, `labelsTs`.
    Test,
}

impl Split {
    /// Folder of images and folder of label maps.
    pub const fn folders(self) -> [&'static str; 2] {
        match self {
            Self::Train => ["imagesTr", "labelsTr"],
            Self::Test => ["imagesTs", "labelsTs"],
        }
    }
}

/// One scan of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// File name without channel and ending.
    pub name: String,
    /// Whose scan it is; the name itself where the data set does not say.
    pub patient: String,
    /// The scan.
    pub image: PathBuf,
    /// Its label map; every training case has one.
    pub labels: Option<PathBuf>,
}

/// What a folder holds, before anybody asks what its labels mean.
#[derive(Debug)]
pub struct Listing {
    /// Training cases by name.
    pub train: Vec<Case>,
    /// Test cases by name.
    pub test: Vec<Case>,
    /// Images that lack their label map.
    pub faulty: Vec<VolumeError>,
    path: PathBuf,
    description: Description,
    modality: Modality,
}

impl Listing {
    /// Reads the description and the names of files.
    ///
    /// # Errors
    /// If the description cannot be used, the number of training cases is not what it says, or a patient is in both parts.
    /// Single cases without label map are no error but [`faulty`](Self::faulty).
    pub fn read(folder: impl AsRef<Path>) -> Result<Self, VolumeError> {
        let folder = folder.as_ref();
        let path = folder.join(DESCRIPTION);
        let text = fs::read(&path).map_err(|error| VolumeError::new(&path, error))?;
        let description: Description = serde_json::from_slice(&text).map_err(|error| VolumeError::new(&path, error))?;
        let modality = description.modality().map_err(|fault| VolumeError::new(&path, fault))?;
        description.ending().map_err(|fault| VolumeError::new(&path, fault))?;
        let mut faulty = Vec::new();
        let train = cases(folder, Split::Train, &description, &mut faulty)?;
        let found = train.len() + faulty.len();
        let test = cases(folder, Split::Test, &description, &mut faulty)?;
        if found + test.len() + faulty.len() == 0 {
            return Err(VolumeError::new(folder, Fault::Cases { found: 0, expected: "at least 1".into() }));
        }
        if found != description.num_training {
            let expected = format!("{} (numTraining of {DESCRIPTION})", description.num_training);
            return Err(VolumeError::new(folder, Fault::Cases { found, expected }));
        }
        for case in &train {
            if let Some(other) = test.iter().find(|other| other.patient == case.patient) {
                let (patient, train, test) = (case.patient.clone(), case.name.clone(), other.name.clone());
                return Err(VolumeError::new(folder, Fault::SamePatient { patient, train, test }));
            }
        }
        Ok(Self { train, test, faulty, path, description, modality })
    }

    /// Modality of every image.
    pub const fn modality(&self) -> Modality {
        self.modality
    }

    /// Stored number and name of every label, background included, by number.
    pub fn labels(&self) -> Result<Vec<(u32, String)>, VolumeError> {
        let labels = self.description.labels().map_err(|fault| VolumeError::new(&self.path, fault))?;
        let mut labels: Vec<_> = labels.into_iter().map(|(id, name)| (id, name.to_string())).collect();
        labels.sort();
        Ok(labels)
    }
}

/// A data set on disk: described, complete, and of one known modality.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Training cases by name.
    pub train: Vec<Case>,
    /// Test cases by name.
    pub test: Vec<Case>,
    /// Cases that were left out because their label map is missing; none if the data set was [opened](Self::open) whole.
    pub faulty: Vec<VolumeError>,
    modality: Modality,
    table: LabelTable,
}

impl Dataset {
    /// Opens `folder` for a model with these `labels`. Reads the description and the names of files, no voxels.
    pub fn open(folder: impl AsRef<Path>, labels: &LabelMap) -> Result<Self, VolumeError> {
        let data = Self::open_skipping(folder, labels)?;
        match data.faulty.first() {
            None => Ok(data),
            Some(error) => Err(error.clone()),
        }
    }

    /// As [`open`](Self::open), without the cases whose label map is missing.
    pub fn open_skipping(folder: impl AsRef<Path>, labels: &LabelMap) -> Result<Self, VolumeError> {
        let Listing { train, test, faulty, path, description, modality } = Listing::read(folder)?;
        let table = description.table(labels).map_err(|fault| VolumeError::new(&path, fault))?;
        Ok(Self { train, test, faulty, modality, table })
    }

    /// Modality of every image.
    pub const fn modality(&self) -> Modality {
        self.modality
    }

    /// What the numbers in the label maps mean.
    pub const fn table(&self) -> &LabelTable {
        &self.table
    }

    /// Reads the scan of a case.
    pub fn load_image(&self, case: &Case) -> Result<Image, VolumeError> {
        read_image(&case.image, self.modality)
    }

    /// Reads the label map of a case, in classes of the model.
    pub fn load_labels(&self, case: &Case) -> Result<Labels, VolumeError> {
        match &case.labels {
            Some(labels) => read_labels(labels, &self.table),
            None => Err(VolumeError::new(&case.name, Fault::NoLabels { image: case.image.clone() })),
        }
    }

    /// Reads both, and makes sure that they lie on each other.
    pub fn load(&self, case: &Case) -> Result<(Image, Labels), VolumeError> {
        let (image, labels) = (self.load_image(case)?, self.load_labels(case)?);
        let path = case.labels.as_ref().unwrap_or(&case.image);
        labels.geometry.expect_match(&image.geometry, &case.image).map_err(|fault| VolumeError::new(path, fault))?;
        Ok((image, labels))
    }
}

/// The cases of a half; those that lack their label map are left out, and said so.
fn cases(
    folder: &Path,
    split: Split,
    description: &Description,
    faulty: &mut Vec<VolumeError>,
) -> Result<Vec<Case>, VolumeError> {
    let [images, labels] = split.folders().map(|name| folder.join(name));
    let ending = description.ending().unwrap_or(".nii.gz");
    // A test set may come without any labels, but not with some.
    let labelled = split == Split::Train || labels.is_dir();
    let files = files(&images).map_err(|error| VolumeError::new(&images, error))?;
    let channel = format!("_0000{ending}");
    // Decathlon files have no channel in their names.
    let bare = description.is_v1() && !files.iter().any(|name| name.ends_with(&channel));
    let suffix = if bare { ending } else { &channel };
    let mut cases = Vec::new();
    for file in files {
        let Some(name) = file.strip_suffix(suffix).map(str::to_string) else { continue };
        let image = images.join(&file);
        let labels = labelled.then(|| labels.join(format!("{name}{ending}")));
        match labels.as_ref().filter(|labels| !labels.is_file()) {
            Some(missing) => faulty.push(VolumeError::new(missing, Fault::NoLabels { image })),
            None => cases.push(Case { patient: description.patient(&name), name, image, labels }),
        }
    }
    // The order of a folder is the file system's; training must not depend on it.
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}

/// Names in a folder, none if it is not there, without hidden ones (archives from macOS are full of `._liver_0.nii.gz`).
fn files(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok().filter(|name| !name.starts_with('.')));
    }
    Ok(names)
}
