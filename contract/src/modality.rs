//! The two ways of making an image that the network knows. Unknown is an error, never a default:
//! the modality picks the normalisation tables, and the wrong tables give a plausible wrong answer.

use core::{fmt, str::FromStr};

use alloc::string::{String, ToString};
use serde::{Deserialize, Serialize};

/// Imaging modality. `as usize` order is the index into every per-modality table: 0 = CT, 1 = MR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Modality {
    /// Computed tomography; intensities are Hounsfield units.
    Ct,
    /// Magnetic resonance; intensities are in arbitrary units.
    Mr,
}

/// A modality that Gantry does not know, with the text that named it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown modality '{0}': expected ct or mr")]
pub struct UnknownModality(pub String);

impl Modality {
    /// Both modalities, in table order.
    pub const ALL: [Self; 2] = [Self::Ct, Self::Mr];

    /// Row of this modality in every per-modality table, and its code in the ONNX `modality` input.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The modality of a table row.
    pub fn from_index(index: usize) -> Option<Self> {
        Self::ALL.get(index).copied()
    }

    /// Lower-case name, as in tensor names and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ct => "ct",
            Self::Mr => "mr",
        }
    }

    /// Reads the value of DICOM (0008,0060) Modality, a code string (PS3.5 section 6.2: upper case,
    /// padded with spaces to even length).
    pub fn from_dicom(value: &str) -> Result<Self, UnknownModality> {
        match value.trim_matches(' ') {
            "CT" => Ok(Self::Ct),
            "MR" => Ok(Self::Mr),
            _ => Err(UnknownModality(value.to_string())),
        }
    }
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Modality {
    type Err = UnknownModality;

    /// Reads `ct`, `mr` or `mri`, in any case.
    fn from_str(text: &str) -> Result<Self, UnknownModality> {
        match text.to_ascii_lowercase().as_str() {
            "ct" => Ok(Self::Ct),
            "mr" | "mri" => Ok(Self::Mr),
            _ => Err(UnknownModality(text.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dicom_text_is_read_by_the_standard_and_nothing_else_is() {
        assert_eq!(Modality::from_dicom("CT"), Ok(Modality::Ct));
        assert_eq!(Modality::from_dicom("MR "), Ok(Modality::Mr));
        for other in ["", "PT", "ct", "MRI", "CR", "SEG", "OT", "C T"] {
            assert_eq!(Modality::from_dicom(other), Err(UnknownModality(other.into())));
        }
    }

    #[test]
    fn rows_and_names_go_there_and_back() {
        for modality in Modality::ALL {
            assert_eq!(Modality::from_index(modality.index()), Some(modality));
            assert_eq!(modality.name().parse(), Ok(modality));
        }
        assert_eq!(Modality::from_index(2), None);
        assert!("pet".parse::<Modality>().is_err());
    }
}
