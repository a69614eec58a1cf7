//! What travels with the weights: the same [`ModelSpec`] in a checkpoint's metadata and in a model file's manifest, as JSON.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{Grid, Intensity, LabelMap, Modality, Net, NetError, VERSION};

/// Key of [`CheckpointMeta`] in a checkpoint's safetensors metadata.
pub const CHECKPOINT_KEY: &str = "gantry";
/// Key of [`Manifest`] in a model file's ONNX metadata.
pub const MANIFEST_KEY: &str = "gantry.manifest";

/// Everything but the weights that decides a label map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// The layers.
    pub net: Net,
    /// The classes.
    pub labels: LabelMap,
    /// The pixels the network sees.
    pub grid: Grid,
    /// The values the network sees.
    pub intensity: Intensity,
    /// The modalities that have norms of their own; never empty, in table order.
    pub modalities: Vec<Modality>,
}

/// Where weights come from. Free text: for people, never read by a program.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Program and version that trained.
    pub tool: String,
    /// Its command line.
    pub command: String,
    /// Data sets it saw.
    pub data: Vec<String>,
    /// Seed.
    pub seed: u64,
    /// Optimiser steps.
    pub steps: u64,
    /// Training scheme, e.g. `ummkd`.
    pub topology: String,
}

/// Metadata of `checkpoint.safetensors`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointMeta {
    /// [`VERSION`] of the writer.
    pub contract: u32,
    /// The model.
    pub spec: ModelSpec,
    /// Its history.
    pub provenance: Provenance,
}

/// Number format of a model file's convolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// The reference.
    F32,
    /// The product.
    Int8,
}

/// What one modality must answer to [`crate::golden::codes`], on every machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Golden {
    /// The branch.
    pub modality: Modality,
    /// SHA-256 of the logit codes, hexadecimal.
    pub logits_sha256: String,
    /// SHA-256 of the labels (one byte each), hexadecimal.
    pub labels_sha256: String,
}

/// Metadata of `model.onnx`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`VERSION`] of the writer.
    pub contract: u32,
    /// The model.
    pub spec: ModelSpec,
    /// Number format.
    pub precision: Precision,
    /// One per modality in an int8 file; empty in an f32 file, whose last bits may differ between machines.
    pub golden: Vec<Golden>,
    /// Its history.
    pub provenance: Provenance,
}

/// Why a file's metadata cannot be followed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// Written by a Gantry that agreed on something else.
    #[error("written for contract version {found}, this program speaks version {VERSION}: export the model again")]
    Version {
        /// Version in the file.
        found: u32,
    },
    /// The layers are no network.
    #[error("not a network: {0}")]
    Net(#[from] NetError),
    /// One output channel per class.
    #[error("the network has {outputs} outputs but the label map {classes} classes")]
    Classes {
        /// Output channels.
        outputs: usize,
        /// Labels, background included.
        classes: usize,
    },
    /// The grid is the network's input.
    #[error(
        "the grid has {height} x {width} pixels but the network takes and gives {input:?} and {output:?} (depth, height, width)"
    )]
    Size {
        /// Rows of the grid.
        height: usize,
        /// Columns of the grid.
        width: usize,
        /// Size of the network's input.
        input: [usize; 3],
        /// Size of its logits.
        output: [usize; 3],
    },
    /// No modality, or one twice.
    #[error("modalities {0:?}: expected one or both of ct, mr, in this order")]
    Modalities(Vec<Modality>),
    /// Rules that cannot be followed.
    #[error("the intensity rules are not rising windows with a positive scale: {0:?}")]
    Intensity(Intensity),
}

impl ModelSpec {
    /// Whether the parts fit each other.
    pub fn check(&self) -> Result<(), SpecError> {
        let shapes = self.net.shapes()?;
        let logits = shapes[shapes.len() - 1];
        if logits.channels != self.labels.classes() || logits.channels > 256 {
            return Err(SpecError::Classes { outputs: logits.channels, classes: self.labels.classes() });
        }
        let (input, output) = (self.net.input.size, logits.size);
        let Grid { height, width, .. } = self.grid;
        if input[1..] != [height, width] || output != input {
            return Err(SpecError::Size { height, width, input, output });
        }
        if self.modalities.is_empty() || !self.modalities.is_sorted_by(|a, b| a < b) {
            return Err(SpecError::Modalities(self.modalities.clone()));
        }
        if !self.intensity.is_valid() {
            return Err(SpecError::Intensity(self.intensity));
        }
        Ok(())
    }

    /// Channels of the image: neighbouring slices.
    pub const fn slices(&self) -> usize {
        self.net.input.channels
    }

    /// Consecutive slices that a 3D network segments at once; 1 in 2D.
    pub const fn depth(&self) -> usize {
        self.net.input.size[0]
    }
}

/// Refuses metadata of another contract before anything in it is believed.
pub fn check_version(found: u32) -> Result<(), SpecError> {
    if found == VERSION { Ok(()) } else { Err(SpecError::Version { found }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn spec() -> ModelSpec {
        ModelSpec {
            net: Net::compact(1, 5, 8, 32, 48),
            labels: LabelMap::abdomen(),
            grid: Grid { height: 32, width: 48, spacing_mm: 3. },
            intensity: Intensity::default(),
            modalities: Modality::ALL.to_vec(),
        }
    }

    #[test]
    fn a_spec_survives_json_to_the_last_bit() {
        let text = serde_json::to_string(&spec()).unwrap();
        assert_eq!(serde_json::from_str::<ModelSpec>(&text).unwrap(), spec());
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        assert_eq!(spec().check(), Ok(()));
        let classes = ModelSpec { net: Net::compact(1, 4, 8, 32, 48), ..spec() };
        assert_eq!(classes.check(), Err(SpecError::Classes { outputs: 4, classes: 5 }));
        let size = ModelSpec { grid: Grid { height: 48, width: 48, spacing_mm: 3. }, ..spec() };
        assert!(matches!(size.check(), Err(SpecError::Size { height: 48, .. })));
        for modalities in [vec![], vec![Modality::Mr, Modality::Ct], vec![Modality::Ct; 2]] {
            let broken = ModelSpec { modalities: modalities.clone(), ..spec() };
            assert_eq!(broken.check(), Err(SpecError::Modalities(modalities)));
        }
        let scale = ModelSpec { intensity: Intensity { scale: 0., ..Intensity::default() }, ..spec() };
        assert!(matches!(scale.check(), Err(SpecError::Intensity(_))));
        assert_eq!(check_version(VERSION + 1), Err(SpecError::Version { found: VERSION + 1 }));
    }
}
