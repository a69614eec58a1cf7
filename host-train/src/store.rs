//! safetensors files of f32 tensors: what a checkpoint and a training state have in common.
//!
//! Written contiguous, whole or not at all; read into plain memory and handed out once by name and shape, so that what is
//! missing, left over or misshapen is found and named before anything is believed.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensorError, SafeTensors, View};
use tch::{Device, Tensor};

/// Why a file of tensors cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk says no.
    #[error("{}: {error}", path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Not safetensors, or cut short.
    #[error("{}: not a whole safetensors file: {error}", path.display())]
    Format {
        /// File.
        path: PathBuf,
        /// Why.
        error: SafeTensorError,
    },
    /// Only f32 is written.
    #[error("{}: tensor '{name}' is {found:?}, expected F32", path.display())]
    Type {
        /// File.
        path: PathBuf,
        /// Tensor.
        name: String,
        /// Its type.
        found: Dtype,
    },
    /// A tensor that the network needs.
    #[error("{}: tensor '{name}' of shape {expected:?} is missing", path.display())]
    Missing {
        /// File.
        path: PathBuf,
        /// Tensor.
        name: String,
        /// Its shape.
        expected: Vec<usize>,
    },
    /// A tensor of another network.
    #[error("{}: tensor '{name}' has shape {found:?}, expected {expected:?}", path.display())]
    Shape {
        /// File.
        path: PathBuf,
        /// Tensor.
        name: String,
        /// In the file.
        found: Vec<usize>,
        /// Of the network.
        expected: Vec<usize>,
    },
    /// A training that diverged.
    #[error("{}: tensor '{name}' holds {value}, expected finite numbers", path.display())]
    NotFinite {
        /// File.
        path: PathBuf,
        /// Tensor.
        name: String,
        /// The first such value.
        value: f32,
    },
    /// A tensor that the network does not have.
    #[error("{}: tensor '{name}' belongs to no layer of the network", path.display())]
    LeftOver {
        /// File.
        path: PathBuf,
        /// Tensor.
        name: String,
    },
}

/// The contents of a file, minus what was taken.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    metadata: HashMap<String, String>,
}

/// A tensor as the file holds it.
struct Stored {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

impl Store {
    /// Reads a whole file.
    pub fn read(path: &Path) -> Result<Self, StoreError> {
        let bytes = fs::read(path).map_err(|error| StoreError::Io { path: path.into(), error })?;
        let format = |error| StoreError::Format { path: path.into(), error };
        let file = SafeTensors::deserialize(&bytes).map_err(format)?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(format)?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            if view.dtype() != Dtype::F32 {
                return Err(StoreError::Type { path: path.into(), name: name.into(), found: view.dtype() });
            }
            let word = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four bytes"));
            let values = view.data().chunks_exact(4).map(word).collect();
            tensors.insert(name.to_string(), (view.shape().to_vec(), values));
        }
        Ok(Self { path: path.into(), tensors, metadata: header.metadata().clone().unwrap_or_default() })
    }

    /// Text from the header.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes a tensor, on the CPU.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, StoreError> {
        let path = || self.path.clone();
        let Some((found, values)) = self.tensors.remove(name) else {
            return Err(StoreError::Missing { path: path(), name: name.into(), expected: shape.into() });
        };
        if found != shape {
            return Err(StoreError::Shape { path: path(), name: name.into(), found, expected: shape.into() });
        }
        if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
            return Err(StoreError::NotFinite { path: path(), name: name.into(), value });
        }
        let sides: Vec<i64> = shape.iter().map(|&side| side as i64).collect();
        Ok(Tensor::from_slice(&values).view(&sides[..]))
    }

    /// Says whether anything was left behind.
    pub fn finish(self) -> Result<(), StoreError> {
        match self.tensors.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(StoreError::LeftOver { path: self.path, name }),
        }
    }
}

/// Writes tensors as contiguous f32, with one text in the header.
pub fn write(path: &Path, tensors: &[(String, Tensor)], key: &str, text: String) -> Result<(), StoreError> {
    let stored = tensors.iter().map(|(name, tensor)| (name.as_str(), stored(tensor)));
    let bytes = safetensors::serialize(stored, Some(HashMap::from([(key.to_string(), text)])))
        .map_err(|error| StoreError::Format { path: path.into(), error })?;
    volume::atomic::write_bytes(path, &bytes).map_err(|error| StoreError::Io { path: path.into(), error })
}

fn stored(tensor: &Tensor) -> Stored {
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let mut values = vec![0f32; tensor.numel()];
    tensor.copy_data(&mut values, tensor.numel());
    let shape = tensor.size().iter().map(|&side| side as usize).collect();
    Stored { shape, bytes: values.into_iter().flat_map(f32::to_le_bytes).collect() }
}
