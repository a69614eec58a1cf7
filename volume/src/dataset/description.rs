//! `dataset.json`: what a folder says of itself, in the form of nnU-Net v2 or in the older one of nnU-Net v1 and the
//! Medical Segmentation Decathlon.
//!
//! The older form says `modality` for `channel_names`, turns labels round (`{"1": "liver"}`), has no `file_ending` and
//! lists its cases, which are taken from the folders here: there are lists that name files nobody has.

use std::collections::BTreeMap;

use contract::{LabelMap, Modality, UnknownModality};
use serde::{Deserialize, Serialize};

use crate::{Fault, LabelTable, Unlisted};

/// Channel names of data sets that are MR; CT has one name only.
const MR_CHANNELS: [&str; 12] = ["MR", "MRI", "T1", "T1W", "T1CE", "T1GD", "T2", "T2W", "PD", "FLAIR", "DWI", "ADC"];

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Description {
    #[serde(alias = "modality")]
    pub channel_names: BTreeMap<String, String>,
    pub labels: BTreeMap<String, Named>,
    #[serde(rename = "numTraining")]
    pub num_training: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_ending: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gantry: Option<Extras>,
}

/// What stands behind a label: an id, a region of several, or in the older form the name of an id.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Named {
    One(u32),
    Many(Vec<u32>),
    Name(String),
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Extras {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlisted: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub patients: BTreeMap<String, String>,
}

impl Description {
    /// The one modality of the channels.
    pub fn modality(&self) -> Result<Modality, Fault> {
        let found: Vec<String> = self.channel_names.values().cloned().collect();
        let [name] = found.as_slice() else {
            return Err(Fault::Channels { found });
        };
        match name.to_ascii_uppercase().as_str() {
            "CT" => Ok(Modality::Ct),
            upper if MR_CHANNELS.contains(&upper) => Ok(Modality::Mr),
            _ => Err(UnknownModality(name.clone()).into()),
        }
    }

    /// Ending of every file.
    pub fn ending(&self) -> Result<&str, Fault> {
        match self.file_ending.as_deref() {
            None => Ok(".nii.gz"),
            Some(ending @ (".nii" | ".nii.gz")) => Ok(ending),
            Some(other) => Err(Fault::Ending { found: other.into() }),
        }
    }

    /// Whether this is the older form, whose files need not carry a channel in their names.
    pub fn is_v1(&self) -> bool {
        self.file_ending.is_none()
    }

    /// Stored number and name of every label, in no order: by the extras where they list labels, else by nnU-Net's own list.
    pub fn labels(&self) -> Result<Vec<(u32, &str)>, Fault> {
        let mut pairs: Vec<(u32, &str)> = Vec::new();
        let id = |id: &str, name: &str| {
            id.parse().map_err(|_| Fault::LabelId { name: name.to_string(), found: id.to_string() })
        };
        match self.gantry.as_ref().map(|extras| &extras.labels).filter(|labels| !labels.is_empty()) {
            Some(listed) => {
                for (key, name) in listed {
                    pairs.push((id(key, name)?, name));
                }
            }
            None => {
                for (key, named) in &self.labels {
                    match named {
                        Named::One(id) => pairs.push((*id, key)),
                        Named::Many(ids) => pairs.extend(ids.iter().map(|&id| (id, key.as_str()))),
                        Named::Name(name) => pairs.push((id(key, name)?, name)),
                    }
                }
            }
        }
        Ok(pairs)
    }

    /// Stored numbers to classes.
    pub fn table(&self, labels: &LabelMap) -> Result<LabelTable, Fault> {
        let unlisted = match self.gantry.as_ref().and_then(|extras| extras.unlisted.as_deref()) {
            None | Some("error") => Unlisted::Refuse,
            Some("background") => Unlisted::Background,
            Some(other) => return Err(Fault::Unlisted { found: other.into() }),
        };
        let mut classes: BTreeMap<u32, (u8, &str)> = BTreeMap::new();
        for (id, name) in self.labels()? {
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

    /// Who a case is of: as the extras say, else a patient of its own.
    pub fn patient(&self, case: &str) -> String {
        let patients = self.gantry.as_ref().map(|extras| &extras.patients);
        patients.and_then(|patients| patients.get(case)).cloned().unwrap_or_else(|| case.to_string())
    }
}
