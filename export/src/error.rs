//! Everything that stops an export, with the numbers that explain it.

use std::path::PathBuf;

use contract::{IntensityError, Modality, manifest::SpecError, net::NormKind};

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no checkpoint.
    #[error("{path}: not a checkpoint: {reason}", path = path.display())]
    Checkpoint {
        /// File.
        path: PathBuf,
        /// What was expected.
        reason: String,
    },
    /// The checkpoint's model cannot be followed.
    #[error("{path}: {source}", path = path.display())]
    Spec {
        /// File.
        path: PathBuf,
        /// What does not fit.
        source: Box<SpecError>,
    },
    /// The checkpoint lacks a tensor of the network it names.
    #[error("tensor '{name}' is missing from the checkpoint (expected f32 {shape:?})")]
    MissingTensor {
        /// Tensor.
        name: String,
        /// Shape that the network gives it.
        shape: Vec<usize>,
    },
    /// A tensor has another shape or type than the network gives it.
    #[error("tensor '{name}' is {dtype} {found:?}, expected F32 {expected:?}")]
    Tensor {
        /// Tensor.
        name: String,
        /// Element type in the file.
        dtype: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape that the network gives it.
        expected: Vec<usize>,
    },
    /// A value that no trained network has.
    #[error("tensor '{name}' element {index} is {value}: expected {expected}")]
    Value {
        /// Tensor.
        name: String,
        /// Position.
        index: usize,
        /// Value.
        value: f32,
        /// What was expected.
        expected: &'static str,
    },
    /// Norms that no number of the file could stand for.
    #[error(
        "{net} has {kind:?} norms, whose mean and variance depend on the image: only batch norms fold into convolutions; train \
         with --norm batch"
    )]
    Norm {
        /// The network.
        net: String,
        /// Its norms.
        kind: NormKind,
    },
    /// The layer has no form in the wanted file.
    #[error("layer '{layer}' ({what}) cannot be written in {format}: {reason}")]
    Unsupported {
        /// Layer.
        layer: String,
        /// Its operation.
        what: &'static str,
        /// `int8` or `f32`.
        format: &'static str,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// An int32 bias or accumulator would overflow.
    #[error(
        "layer '{layer}' channel {channel} ({modality}): the accumulator reaches {magnitude:.3e}, above the int32 limit of {limit:.3e} \
         (shift {shift}, scale of one step {step:e}); its gamma, or the range of its values, has all but vanished"
    )]
    Overflow {
        /// Layer.
        layer: String,
        /// Output channel.
        channel: usize,
        /// Branch.
        modality: Modality,
        /// Largest magnitude that the accumulator can reach.
        magnitude: f64,
        /// Largest that is allowed.
        limit: f64,
        /// Real that the bias stands for.
        shift: f32,
        /// Real that one accumulator step stands for.
        step: f32,
    },
    /// No f32 factors near the wanted ones give the same product in every order of operations.
    #[error(
        "layer '{layer}' ({modality}): no requantisation factor near {factor:e} is the same in every order of operations"
    )]
    Factor {
        /// Layer.
        layer: String,
        /// Branch.
        modality: Modality,
        /// The factor.
        factor: f32,
    },
    /// Quantising needs slices of every modality in the model.
    #[error("no calibration slices for {modality}: name a data set with --{modality} DIR")]
    NoSlices {
        /// The modality.
        modality: Modality,
    },
    /// Slices that cannot be used.
    #[error("{path}: none of the {slices} slices looked at can be used for calibration; the last one: {source}", path = path.display())]
    Slices {
        /// Data set or volume.
        path: PathBuf,
        /// Number of slices.
        slices: usize,
        /// Why the last was refused.
        source: IntensityError,
    },
    /// A data set or volume that cannot be read.
    #[error(transparent)]
    Volume(Box<volume::VolumeError>),
    /// A data set or volume that does not fit the model.
    #[error("{path}: {reason}", path = path.display())]
    Data {
        /// Data set or volume.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// `--specialise` with a modality that has no norms in the checkpoint.
    #[error("the checkpoint has no {modality} branch: it holds {available:?}")]
    NoBranch {
        /// Wanted.
        modality: Modality,
        /// Present.
        available: Vec<Modality>,
    },
    /// An activation is not finite on a calibration slice.
    #[error("value '{value}' of the f32 network is not finite on a {modality} calibration slice")]
    NotFinite {
        /// Value.
        value: String,
        /// Branch.
        modality: Modality,
    },
    /// The inference engine refused a file that was just made.
    #[error("tract cannot run the exported graph: {0}")]
    Engine(String),
    /// The file is no Gantry model.
    #[error("{path}: not a Gantry model: {reason}", path = path.display())]
    Model {
        /// File.
        path: PathBuf,
        /// What was expected.
        reason: String,
    },
}

impl From<volume::VolumeError> for ExportError {
    fn from(error: volume::VolumeError) -> Self {
        Self::Volume(Box::new(error))
    }
}
