//! The layouts by name: how each finds its scans, what its labels mean, what is written for it.

use std::path::Path;

use contract::Modality;
use volume::Listing;

use super::{Found, ImportError, labels, layouts};

/// A layout that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// MM-WHS 2017, heart, CT and MRI.
    MmWhs,
    /// CHAOS, abdomen, CT and MRI.
    Chaos,
    /// BTCV ("Synapse"), abdomen, CT.
    Btcv,
    /// AMOS 2022, abdomen, CT and MRI.
    Amos22,
    /// TotalSegmentator v2, CT or MRI.
    TotalSegmentator,
    /// A task of the Medical Segmentation Decathlon.
    Msd,
    /// nnU-Net's raw layout, version 1 or 2.
    NnUnet,
}

impl Source {
    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MmWhs => "mm-whs",
            Self::Chaos => "chaos",
            Self::Btcv => "btcv",
            Self::Amos22 => "amos22",
            Self::TotalSegmentator => "totalsegmentator",
            Self::Msd => "msd",
            Self::NnUnet => "nnunet",
        }
    }

    /// Folder of the data set of a modality. nnU-Net wants a number that no other data set beside it has.
    pub(super) fn folder(self, modality: Modality) -> String {
        let (number, name) = match self {
            Self::MmWhs => (11, "MMWHS"),
            Self::Chaos => (21, "CHAOS"),
            Self::Btcv => (31, "BTCV"),
            Self::Amos22 => (41, "AMOS22"),
            Self::TotalSegmentator => (51, "TotalSegmentator"),
            Self::Msd => (61, "MSD"),
            Self::NnUnet => (71, "Imported"),
        };
        format!("Dataset{:03}_{name}{}", number + modality.index(), modality.name().to_ascii_uppercase())
    }

    /// Modalities that are imported unless others are asked for. The CT of CHAOS has one organ of four.
    pub(super) fn usual(self) -> &'static [Modality] {
        match self {
            Self::Chaos => &[Modality::Mr],
            _ => &Modality::ALL,
        }
    }

    /// What its files are called.
    const fn example(self) -> &'static str {
        match self {
            Self::MmWhs => {
                "files like ct_train_1001_image.nii.gz and ct_train_1001_label.nii.gz, there or one folder deeper"
            }
            Self::Chaos => "folders like Train_Sets/MR/1/T2SPIR/DICOM_anon and Train_Sets/MR/1/T2SPIR/Ground",
            Self::Btcv => "files like RawData/Training/img/img0001.nii.gz and RawData/Training/label/label0001.nii.gz",
            Self::Amos22 => "files like imagesTr/amos_0001.nii.gz and labelsTr/amos_0001.nii.gz",
            Self::TotalSegmentator => "files like s0001/ct.nii.gz and s0001/segmentations/liver.nii.gz",
            Self::Msd | Self::NnUnet => "dataset.json, imagesTr and labelsTr",
        }
    }

    /// All labelled scans in a folder, in order of name.
    pub fn find(self, folder: &Path) -> Result<Vec<Found>, ImportError> {
        let mut found = match self {
            Self::MmWhs => layouts::mm_whs(folder),
            Self::Chaos => layouts::chaos(folder),
            Self::Btcv => layouts::btcv(folder),
            Self::Amos22 => layouts::amos22(folder),
            Self::TotalSegmentator => layouts::totalsegmentator(folder),
            Self::Msd | Self::NnUnet => layouts::described(folder),
        }?;
        if found.is_empty() {
            let (path, expected) = (folder.into(), self.example().into());
            return Err(ImportError::Layout { path, source_name: self.name(), expected });
        }
        found.sort_by(|a, b| (a.modality, &a.name).cmp(&(b.modality, &b.name)));
        let twice = found.windows(2).find(|pair| {
            let [a, b] = [&pair[0], &pair[1]];
            (a.modality, &a.name) == (b.modality, &b.name)
        });
        if let Some([a, b]) = twice {
            let [first, second] = [a, b].map(|case| case.image.path().to_path_buf());
            return Err(ImportError::Twice { name: a.name.clone(), first, second });
        }
        Ok(found)
    }

    /// The label rules that come with Gantry, as text: those of the source, or for a described data set those that its own
    /// names suggest.
    pub fn label_text(self, folder: Option<&Path>) -> Result<String, ImportError> {
        let text = match self {
            Self::MmWhs => include_str!("labels/heart-mm-whs.toml"),
            Self::Chaos => include_str!("labels/abdomen-chaos.toml"),
            Self::Btcv => include_str!("labels/abdomen-btcv.toml"),
            Self::Amos22 => include_str!("labels/abdomen-amos22.toml"),
            Self::TotalSegmentator => include_str!("labels/abdomen-totalsegmentator.toml"),
            Self::Msd | Self::NnUnet => {
                let labels = folder.map(|folder| Listing::read(folder)?.labels()).transpose()?.unwrap_or_default();
                return Ok(labels::proposal(&labels));
            }
        };
        Ok(text.to_string())
    }
}
