//! Why the runtime refuses, with the numbers in it. Each error has a stable [`Code`].

use std::path::PathBuf;

use contract::{GridError, IntensityError, Modality, manifest::SpecError};
use volume::VolumeError;

use crate::Code;

/// A refusal.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// The model file cannot be read.
    #[error("{}: {source}", path.display())]
    ModelRead {
        /// File.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A model file of impossible size.
    #[error("{}: {bytes} bytes, expected a model of at most {max}", path.display())]
    ModelSize {
        /// File.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// Largest model.
        max: u64,
    },
    /// No protobuf, or a tensor whose data do not fill its shape.
    #[error("{}: not an ONNX file, or damaged: {reason}", path.display())]
    ModelCorrupt {
        /// File.
        path: PathBuf,
        /// What did not fit.
        reason: String,
    },
    /// ONNX of another program.
    #[error("{}: an ONNX file, but not a Gantry model: no metadata '{key}' among {found:?}", path.display())]
    ModelForeign {
        /// File.
        path: PathBuf,
        /// The key of the manifest.
        key: &'static str,
        /// Keys in the file.
        found: Vec<String>,
    },
    /// The manifest is no JSON of the expected form.
    #[error("{}: the manifest does not parse: {source}", path.display())]
    ModelJson {
        /// File.
        path: PathBuf,
        /// Where and what was expected.
        source: serde_json::Error,
    },
    /// The manifest cannot be followed.
    #[error("{}: {source}", path.display())]
    ModelSpec {
        /// File.
        path: PathBuf,
        /// What does not fit.
        source: Box<SpecError>,
    },
    /// The graph contradicts the manifest.
    #[error("{}: {what}: found {found}, expected {expected}", path.display())]
    ModelGraph {
        /// File.
        path: PathBuf,
        /// Part of the graph.
        what: String,
        /// What is there.
        found: String,
        /// What the manifest wants.
        expected: String,
    },
    /// No such branch.
    #[error("modality {wanted} is not in the model, which has {}", list(available))]
    Modality {
        /// Asked for.
        wanted: Modality,
        /// In the model.
        available: Vec<Modality>,
    },
    /// A network of other images than are segmented.
    #[error("the network '{name}' does not fit: expected {expected}")]
    Spatial {
        /// Of the network.
        name: String,
        /// What would fit, and why.
        expected: &'static str,
    },
    /// tract cannot plan the graph.
    #[error("{}: the {modality} branch cannot be planned: {reason}", path.display())]
    Plan {
        /// File.
        path: PathBuf,
        /// Branch.
        modality: Modality,
        /// tract's words.
        reason: String,
    },
    /// Numbers that no exporter of ours writes.
    #[error("{}: layer '{layer}': {reason}", path.display())]
    ModelLayer {
        /// File.
        path: PathBuf,
        /// Layer.
        layer: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// The planned engine was asked for and cannot take the file.
    #[error("{}: the planned engine cannot run it: {reason}", path.display())]
    NotPlanned {
        /// File.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Values that need more memory than allowed.
    #[error("{}: the values need {bytes} bytes, allowed are {max} (--max-arena-mb)", path.display())]
    Arena {
        /// File.
        path: PathBuf,
        /// Needed.
        bytes: usize,
        /// Allowed.
        max: usize,
    },
    /// Threads cannot be started.
    #[error("cannot start {threads} threads: {source}")]
    Threads {
        /// Asked for.
        threads: usize,
        /// The system's words.
        source: std::io::Error,
    },
    /// tract failed while running.
    #[error("the {modality} branch failed: {reason}")]
    Run {
        /// Branch.
        modality: Modality,
        /// tract's words.
        reason: String,
    },
    /// A buffer of the wrong length.
    #[error("{what} has {found} elements, expected {expected}")]
    Length {
        /// Buffer.
        what: &'static str,
        /// Its length.
        found: usize,
        /// What the model wants.
        expected: usize,
    },
    /// The self-test found other bits.
    #[error("self-test of {modality}: SHA-256 of the {what} is {found}, expected {expected}")]
    SelfTest {
        /// Branch.
        modality: Modality,
        /// `logits` or `labels`.
        what: &'static str,
        /// Computed here.
        found: String,
        /// In the manifest.
        expected: String,
    },
    /// An int8 model without a golden answer.
    #[error("the manifest has no golden digests for {modality}, expected one per modality in an int8 model")]
    NoGolden {
        /// Branch.
        modality: Modality,
    },
    /// The volume cannot be read.
    #[error(transparent)]
    Volume(Box<VolumeError>),
    /// The volume's slices fit no scanner.
    #[error("{}: {source}", path.display())]
    Grid {
        /// File.
        path: PathBuf,
        /// What is impossible.
        source: GridError,
    },
    /// A slice that must not be segmented.
    #[error(transparent)]
    Slice(#[from] IntensityError),
    /// Some slices were refused.
    #[error("{}: {refused} of {slices} slices refused, nothing written; the first is slice {first}: {reason}", path.display())]
    Partial {
        /// File.
        path: PathBuf,
        /// Slices refused for another reason than being blank.
        refused: usize,
        /// Slices of the volume.
        slices: usize,
        /// Number of the first refused slice, from 0, inferior to superior.
        first: usize,
        /// Its code and words.
        reason: String,
    },
    /// Arguments that do not fit together.
    #[error("{0}")]
    Usage(String),
    /// The configuration cannot be used.
    #[error("{}: {reason}", path.display())]
    Config {
        /// File.
        path: PathBuf,
        /// Key, what was found, what was expected.
        reason: String,
    },
    /// The state folder cannot be used.
    #[error("{}: {source}", path.display())]
    State {
        /// Folder.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A result cannot be written.
    #[error("{}: {source}", path.display())]
    Output {
        /// File.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}

impl EdgeError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::ModelRead { .. } | Self::ModelSize { .. } => Code::ModelRead,
            Self::ModelCorrupt { .. } => Code::ModelCorrupt,
            Self::ModelForeign { .. } => Code::ModelForeign,
            Self::ModelJson { .. } => Code::ModelManifest,
            Self::ModelSpec { source, .. } => match **source {
                SpecError::Version { .. } => Code::ModelVersion,
                _ => Code::ModelManifest,
            },
            Self::ModelGraph { .. } => Code::ModelGraph,
            Self::Modality { .. } => Code::ModelModality,
            Self::Spatial { .. } => Code::ModelSpatial,
            Self::ModelLayer { .. } => Code::ModelGraph,
            Self::Plan { .. } | Self::NotPlanned { .. } | Self::Threads { .. } => Code::EnginePlan,
            Self::Arena { .. } => Code::EngineMemory,
            Self::Run { .. } | Self::Length { .. } => Code::EngineRun,
            Self::SelfTest { .. } => Code::SelfTestDigest,
            Self::NoGolden { .. } => Code::SelfTestMissing,
            Self::Volume(_) => Code::Volume,
            Self::Grid { source, .. } => grid_code(source),
            Self::Slice(error) => slice_code(error),
            Self::Partial { .. } => Code::VolumePartial,
            Self::Usage(_) => Code::Usage,
            Self::Config { .. } => Code::ConfigBad,
            Self::State { .. } => Code::StateWrite,
            Self::Output { .. } => Code::Output,
        }
    }
}

impl From<VolumeError> for EdgeError {
    fn from(error: VolumeError) -> Self {
        Self::Volume(Box::new(error))
    }
}

/// The code of a slice that the contract refuses.
pub const fn slice_code(error: &IntensityError) -> Code {
    match error {
        IntensityError::Constant { .. } => Code::SliceBlank,
        IntensityError::NotHounsfield { .. } => Code::SliceNotHounsfield,
        IntensityError::LooksHounsfield { .. } => Code::SliceLooksHounsfield,
        IntensityError::Empty => Code::SliceEmpty,
    }
}

/// The code of pixels of no scanner.
pub const fn grid_code(error: &GridError) -> Code {
    match error {
        GridError::Size { .. } => Code::GeometrySize,
        GridError::Spacing { .. } => Code::GeometrySpacing,
    }
}

fn list(modalities: &[Modality]) -> String {
    modalities.iter().map(|modality| modality.name()).collect::<Vec<_>>().join(" and ")
}
