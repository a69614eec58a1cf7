//! Why a slice, an instance or an association is not served: a stable code and the words with the numbers.

use dicom::Fault;

use crate::{Code, EdgeError};

/// A refusal that the service goes on after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its kind.
    pub code: Code,
    /// What was found and what was expected.
    pub reason: String,
}

impl Refusal {
    /// With its words.
    pub fn new(code: Code, reason: impl std::fmt::Display) -> Self {
        Self { code, reason: reason.to_string() }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.code, self.reason)
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        let code = match fault {
            Fault::Unreadable(_) => Code::DicomUnreadable,
            Fault::Kind { .. } => Code::DicomKind,
            Fault::Type(_) => Code::DicomType,
            Fault::Missing(_) => Code::DicomMissing,
            Fault::Value { .. } => Code::DicomValue,
            Fault::Pixels(_) => Code::DicomPixels,
            Fault::Size { .. } => Code::DicomSize,
            Fault::Axis { .. } => Code::GeometryAxis,
            Fault::Modality { .. } => Code::DicomModality,
        };
        Self::new(code, fault)
    }
}

impl From<EdgeError> for Refusal {
    fn from(error: EdgeError) -> Self {
        Self::new(error.code(), error)
    }
}
