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
//! `background`.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use contract::{LabelMap, Modality, UnknownModality};
use serde::{Deserialize, Serialize};

use crate::{
    Fault, Geometry, Image, LabelTable, Labels, VolumeError, atomic,
    nifti::{Unlisted, read_image, read_labels, write_image, write_labels},
};

/// Name of the description.
pub const DESCRIPTION: &str = "dataset.json";

/// Channel names of data sets that are MR; CT has one name only.
const MR_CHANNELS: [&str; 12] = ["MR", "MRI", "T1", "T1W", "T1CE", "T1GD", "T2", "T2W", "PD", "FLAIR", "DWI", "ADC"];

#[derive(Debug, Serialize, Deserialize)]
struct Description {
    channel_names: BTreeMap<String, String>,
    labels: BTreeMap<String, Ids>,
    #[serde(rename = "numTraining")]
    num_training: usize,
    file_ending: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gantry: Option<Extras>,
}

/// One id, or a region of several.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Extras {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    unlisted: Option<String>,
}

/// Which half of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// `imagesTr`, `labelsTr`.
    Train,
    /// `imagesTs`, `labelsTs`.
    Test,
}

impl Split {
    const fn folders(self) -> [&'static str; 2] {
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
    /// The scan.
    pub image: PathBuf,
    /// Its label map; every training case has one.
    pub labels: Option<PathBuf>,
}

/// A data set on disk: described, complete, and of one known modality.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Training cases by name.
    pub train: Vec<Case>,
    /// Test cases by name.
    pub test: Vec<Case>,
    modality: Modality,
    table: LabelTable,
}

impl Dataset {
    /// Opens `folder` for a model with these `labels`. Reads the description and the names of files, no voxels.
    pub fn open(folder: impl AsRef<Path>, labels: &LabelMap) -> Result<Self, VolumeError> {
        let folder = folder.as_ref();
        let path = folder.join(DESCRIPTION);
        let at_description = |fault| VolumeError::new(&path, fault);
        let text = fs::read(&path).map_err(|error| VolumeError::new(&path, error))?;
        let description: Description = serde_json::from_slice(&text).map_err(|error| VolumeError::new(&path, error))?;
        let modality = modality(&description.channel_names).map_err(at_description)?;
        let table = table(&description, labels).map_err(at_description)?;
        let ending = description.file_ending.as_str();
        if !matches!(ending, ".nii" | ".nii.gz") {
            return Err(at_description(Fault::Ending { found: ending.into() }));
        }
        let train = cases(folder, Split::Train, ending)?;
        let test = cases(folder, Split::Test, ending)?;
        if train.is_empty() && test.is_empty() {
            return Err(VolumeError::new(folder, Fault::Cases { found: 0, expected: "at least 1".into() }));
        }
        if train.len() != description.num_training {
            let expected = format!("{} (numTraining of {DESCRIPTION})", description.num_training);
            return Err(VolumeError::new(folder, Fault::Cases { found: train.len(), expected }));
        }
        Ok(Self { train, test, modality, table })
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
        if labels.geometry.matches(&image.geometry) {
            return Ok((image, labels));
        }
        let fault = Fault::Mismatch {
            other: case.image.clone(),
            found: describe(&labels.geometry),
            expected: describe(&image.geometry),
        };
        Err(VolumeError::new(case.labels.as_ref().unwrap_or(&case.image), fault))
    }
}

fn describe(geometry: &Geometry) -> String {
    let ([z, y, x], spacing) = (geometry.shape(), geometry.spacing_mm());
    let corner = geometry.canonical_affine().map(|row| row[3]);
    format!("{x}x{y}x{z} voxels of {spacing:.3?} mm, first at {corner:.3?} mm")
}

fn modality(channels: &BTreeMap<String, String>) -> Result<Modality, Fault> {
    let found: Vec<String> = channels.values().cloned().collect();
    let [name] = found.as_slice() else {
        return Err(Fault::Channels { found });
    };
    match name.to_ascii_uppercase().as_str() {
        "CT" => Ok(Modality::Ct),
        upper if MR_CHANNELS.contains(&upper) => Ok(Modality::Mr),
        _ => Err(UnknownModality(name.clone()).into()),
    }
}

/// Stored numbers to classes: by the extras where they list labels, else by nnU-Net's own list.
fn table(description: &Description, labels: &LabelMap) -> Result<LabelTable, Fault> {
    let extras = description.gantry.as_ref();
    let unlisted = match extras.and_then(|extras| extras.unlisted.as_deref()) {
        None | Some("error") => Unlisted::Refuse,
        Some("background") => Unlisted::Background,
        Some(other) => return Err(Fault::Unlisted { found: other.into() }),
    };
    let mut pairs: Vec<(u32, &str)> = Vec::new();
    match extras.map(|extras| &extras.labels).filter(|labels| !labels.is_empty()) {
        Some(listed) => {
            for (id, name) in listed {
                let wrong = |_| Fault::LabelId { name: name.clone(), found: id.clone() };
                pairs.push((id.parse().map_err(wrong)?, name));
            }
        }
        None => {
            for (name, ids) in &description.labels {
                let ids = match ids {
                    Ids::One(id) => std::slice::from_ref(id),
                    Ids::Many(ids) => ids,
                };
                pairs.extend(ids.iter().map(|&id| (id, name.as_str())));
            }
        }
    }
    let mut classes: BTreeMap<u32, (u8, &str)> = BTreeMap::new();
    for (id, name) in pairs {
        let expected = || labels.iter().map(|(_, label)| label.name.clone()).collect::<Vec<_>>().join(", ");
        let unknown = || Fault::Organ { name: name.into(), expected: expected() };
        let class = labels.index_of(name).ok_or_else(unknown)?;
        match classes.insert(id, (class, name)) {
            Some((other, first)) if other != class => {
                return Err(Fault::SharedId { id, first: first.into(), second: name.into() });
            }
            _ => {}
        }
    }
    Ok(LabelTable::new(classes.into_iter().map(|(id, (class, _))| (id, class)), unlisted))
}

fn cases(folder: &Path, split: Split, ending: &str) -> Result<Vec<Case>, VolumeError> {
    let [images, labels] = split.folders().map(|name| folder.join(name));
    let entries = match fs::read_dir(&images) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(VolumeError::new(&images, error)),
    };
    // A test set may come without any labels, but not with some.
    let labelled = split == Split::Train || labels.is_dir();
    let suffix = format!("_0000{ending}");
    let mut cases = Vec::new();
    for entry in entries {
        let image = entry.map_err(|error| VolumeError::new(&images, error))?.path();
        let name = image.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(&suffix));
        let Some(name) = name.map(str::to_string) else { continue };
        let labels = labelled.then(|| labels.join(format!("{name}{ending}")));
        if let Some(labels) = labels.as_ref().filter(|labels| !labels.is_file()) {
            return Err(VolumeError::new(labels, Fault::NoLabels { image }));
        }
        cases.push(Case { name, image, labels });
    }
    // The order of a folder is the file system's; training must not depend on it.
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}

/// Writes a data set, case by case; the description comes last, when the number of cases is known.
#[derive(Debug)]
pub struct DatasetWriter {
    folder: PathBuf,
    description: Description,
}

impl DatasetWriter {
    /// Makes the folders.
    pub fn create(folder: impl AsRef<Path>, modality: Modality, labels: &LabelMap) -> Result<Self, VolumeError> {
        let folder = folder.as_ref().to_path_buf();
        for name in [Split::Train, Split::Test].into_iter().flat_map(Split::folders) {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(|error| VolumeError::new(&path, error))?;
        }
        let channel = match modality {
            Modality::Ct => "CT",
            Modality::Mr => "MRI",
        };
        let ids = labels.iter().map(|(class, label)| (label.name.clone(), Ids::One(class.into())));
        let description = Description {
            channel_names: BTreeMap::from([("0".into(), channel.into())]),
            labels: ids.collect(),
            num_training: 0,
            file_ending: ".nii.gz".into(),
            gantry: None,
        };
        Ok(Self { folder, description })
    }

    /// Writes a scan and its label map, both in canonical order on the grid of `geometry`.
    pub fn add(
        &mut self,
        split: Split,
        name: &str,
        geometry: &Geometry,
        raw: &[i16],
        classes: &[u8],
    ) -> Result<(), VolumeError> {
        let [images, labels] = split.folders().map(|folder| self.folder.join(folder));
        write_image(images.join(format!("{name}_0000.nii.gz")), geometry, raw)?;
        write_labels(labels.join(format!("{name}.nii.gz")), geometry, classes)?;
        if split == Split::Train {
            self.description.num_training += 1;
        }
        Ok(())
    }

    /// Writes `dataset.json`.
    pub fn finish(self) -> Result<(), VolumeError> {
        let path = self.folder.join(DESCRIPTION);
        let text = serde_json::to_vec_pretty(&self.description).map_err(|error| VolumeError::new(&path, error))?;
        atomic::write_bytes(&path, &text).map_err(|error| VolumeError::new(&path, error))
    }
}
