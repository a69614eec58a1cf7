//! Data sets out, in the form of nnU-Net v2.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use contract::{LabelMap, Modality};

use super::{
    DESCRIPTION, Split,
    description::{Description, Named},
};
use crate::{Geometry, VolumeError, atomic, write_image, write_labels};

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
        let ids = labels.iter().map(|(class, label)| (label.name.clone(), Named::One(class.into())));
        let description = Description {
            channel_names: BTreeMap::from([("0".into(), channel.into())]),
            labels: ids.collect(),
            num_training: 0,
            file_ending: Some(".nii.gz".into()),
            gantry: None,
        };
        Ok(Self { folder, description })
    }

    /// Writes a scan and its label map, both in canonical order on the grid of `geometry`, and counts the case.
    pub fn add(
        &mut self,
        split: Split,
        name: &str,
        geometry: &Geometry,
        raw: &[i16],
        classes: &[u8],
    ) -> Result<(), VolumeError> {
        self.write(split, name, geometry, raw, classes)?;
        self.count(split, name, name);
        Ok(())
    }

    /// Writes the files of a case, from any thread; [`count`](Self::count) must follow.
    pub fn write(
        &self,
        split: Split,
        name: &str,
        geometry: &Geometry,
        raw: &[i16],
        classes: &[u8],
    ) -> Result<(), VolumeError> {
        let [images, labels] = split.folders().map(|folder| self.folder.join(folder));
        write_image(images.join(format!("{name}_0000.nii.gz")), geometry, raw)?;
        write_labels(labels.join(format!("{name}.nii.gz")), geometry, classes)
    }

    /// Counts a case that is written, and remembers whose it is.
    pub fn count(&mut self, split: Split, name: &str, patient: &str) {
        if split == Split::Train {
            self.description.num_training += 1;
        }
        if patient != name {
            let extras = self.description.gantry.get_or_insert_default();
            extras.patients.insert(name.to_string(), patient.to_string());
        }
    }

    /// Writes `dataset.json`.
    pub fn finish(self) -> Result<(), VolumeError> {
        let path = self.folder.join(DESCRIPTION);
        let text = serde_json::to_vec_pretty(&self.description).map_err(|error| VolumeError::new(&path, error))?;
        atomic::write_bytes(&path, &text).map_err(|error| VolumeError::new(&path, error))
    }
}
