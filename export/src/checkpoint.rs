//! Reads `checkpoint.safetensors`: f32 tensors under the contract's names, and the model in the metadata.
//!
//! Nothing is believed before it is checked: version, model, and each tensor's type, shape and values when it is asked for.

use std::{collections::BTreeMap, fs, path::Path};

use contract::manifest::{CHECKPOINT_KEY, CheckpointMeta, check_version};
use safetensors::{Dtype, SafeTensors};

use crate::ExportError;

/// Files above this size are no checkpoint of a network for devices.
const MAX_BYTES: u64 = 4 << 30;

/// A trained network.
pub struct Checkpoint {
    /// Model and history.
    pub meta: CheckpointMeta,
    tensors: BTreeMap<String, Stored>,
}

struct Stored {
    dtype: String,
    shape: Vec<usize>,
    /// Empty unless the type is f32.
    values: Vec<f32>,
}

impl Checkpoint {
    /// Reads and checks a file; tensors of other names (an optimiser's) are left alone.
    pub fn read(path: &Path) -> Result<Self, ExportError> {
        let io = |source| ExportError::Io { path: path.to_path_buf(), source };
        let size = fs::metadata(path).map_err(io)?.len();
        if size > MAX_BYTES {
            return Err(refuse(path, format!("{size} bytes, expected at most {MAX_BYTES}")));
        }
        Self::parse(path, &fs::read(path).map_err(io)?)
    }

    /// As [`Self::read`], from bytes; `path` is for messages.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, ExportError> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| refuse(path, error.to_string()))?;
        let text = header.metadata().as_ref().and_then(|map| map.get(CHECKPOINT_KEY));
        let text = text.ok_or_else(|| refuse(path, format!("its metadata has no '{CHECKPOINT_KEY}'")))?;
        // The version first: the rest of another contract's metadata may not even parse.
        #[derive(serde::Deserialize)]
        struct Version {
            contract: u32,
        }
        let json = |error: serde_json::Error| refuse(path, format!("its '{CHECKPOINT_KEY}' metadata: {error}"));
        let spec = |error| ExportError::Spec { path: path.to_path_buf(), source: Box::new(error) };
        check_version(serde_json::from_str::<Version>(text).map_err(json)?.contract).map_err(spec)?;
        let meta: CheckpointMeta = serde_json::from_str(text).map_err(json)?;
        meta.spec.check().map_err(spec)?;
        let file = SafeTensors::deserialize(bytes).map_err(|error| refuse(path, error.to_string()))?;
        let stored = |view: &safetensors::tensor::TensorView| Stored {
            dtype: format!("{:?}", view.dtype()),
            shape: view.shape().to_vec(),
            values: if view.dtype() == Dtype::F32 { floats(view.data()) } else { vec![] },
        };
        let tensors = file.iter().map(|(name, view)| (name.to_string(), stored(&view))).collect();
        Ok(Self { meta, tensors })
    }

    /// The values of a tensor of known shape, all finite.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<&[f32], ExportError> {
        let missing = || ExportError::MissingTensor { name: name.to_string(), shape: shape.to_vec() };
        let stored = self.tensors.get(name).ok_or_else(missing)?;
        if stored.dtype != "F32" || stored.shape != shape {
            return Err(ExportError::Tensor {
                name: name.to_string(),
                dtype: stored.dtype.clone(),
                found: stored.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        expect(name, &stored.values, "a finite number", |value| value.is_finite())?;
        Ok(&stored.values)
    }
}

/// Refuses a tensor by its first value that does not hold.
pub fn expect(
    name: &str,
    values: &[f32],
    expected: &'static str,
    holds: impl Fn(f32) -> bool,
) -> Result<(), ExportError> {
    match values.iter().position(|&value| !holds(value)) {
        None => Ok(()),
        Some(index) => Err(ExportError::Value { name: name.to_string(), index, value: values[index], expected }),
    }
}

fn refuse(path: &Path, reason: String) -> ExportError {
    ExportError::Checkpoint { path: path.to_path_buf(), reason }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
}
