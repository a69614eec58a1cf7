//! Reads a model file back: its manifest, its operations, and where its bytes are.

use std::{collections::BTreeMap, fmt::Write, path::Path};

use contract::manifest::{MANIFEST_KEY, Manifest, check_version};
use prost::Message;
use tract_onnx::pb::{ModelProto, TensorProto};

use crate::ExportError;

/// What a model file holds.
pub struct Summary {
    /// What it says about itself.
    pub manifest: Manifest,
    /// Number of nodes per operation.
    pub operations: BTreeMap<String, usize>,
    /// Bytes per kind of tensor (the last word of the name).
    pub tensors: BTreeMap<String, usize>,
    /// Bytes of the file.
    pub bytes: usize,
}

impl Summary {
    /// Reads a file's bytes; `path` is for messages.
    pub fn new(path: &Path, bytes: &[u8]) -> Result<Self, ExportError> {
        let refuse = |reason: String| ExportError::Model { path: path.to_path_buf(), reason };
        let model = ModelProto::decode(bytes).map_err(|error| refuse(format!("not ONNX: {error}")))?;
        let text = model.metadata_props.iter().find(|entry| entry.key == MANIFEST_KEY);
        let text = text.ok_or_else(|| refuse(format!("its metadata has no '{MANIFEST_KEY}'")))?;
        let manifest: Manifest =
            serde_json::from_str(&text.value).map_err(|error| refuse(format!("its manifest: {error}")))?;
        check_version(manifest.contract).map_err(|error| refuse(error.to_string()))?;
        manifest.spec.check().map_err(|error| refuse(error.to_string()))?;
        let graph = model.graph.ok_or_else(|| refuse("it has no graph".to_string()))?;
        let mut operations = BTreeMap::new();
        for node in &graph.node {
            *operations.entry(node.op_type.clone()).or_insert(0) += 1;
        }
        let mut tensors = BTreeMap::new();
        for tensor in &graph.initializer {
            let kind = tensor.name.rsplit('/').next().unwrap_or_default();
            *tensors.entry(kind.to_string()).or_insert(0) += TensorProto::encoded_len(tensor);
        }
        Ok(Self { manifest, operations, tensors, bytes: bytes.len() })
    }

    /// For people.
    pub fn table(&self) -> String {
        let Manifest { spec, precision, golden, provenance, .. } = &self.manifest;
        let mut text = format!("{} ({precision:?}), {} bytes\n", spec.net.name, self.bytes);
        let modalities: Vec<&str> = spec.modalities.iter().map(|modality| modality.name()).collect();
        let labels: Vec<&str> = spec.labels.iter().map(|(_, label)| label.name.as_str()).collect();
        let _ = writeln!(text, "modalities   {}", modalities.join(", "));
        let _ = writeln!(text, "labels       {}", labels.join(", "));
        let grid = spec.grid;
        let _ = writeln!(
            text,
            "grid         {} x {} pixels of {} mm, {} slice(s)",
            grid.height,
            grid.width,
            grid.spacing_mm,
            spec.slices()
        );
        let _ = writeln!(
            text,
            "intensity    ct {:?}, mr {:?}, {} per step",
            spec.intensity.ct, spec.intensity.mr, spec.intensity.scale
        );
        let _ = writeln!(
            text,
            "trained by   {} ({}, seed {}, {} steps)",
            provenance.tool, provenance.topology, provenance.seed, provenance.steps
        );
        for golden in golden {
            let _ = writeln!(text, "golden {:<6}logits {}", golden.modality.name(), golden.logits_sha256);
            let _ = writeln!(text, "{:13}labels {}", "", golden.labels_sha256);
        }
        for (operation, count) in &self.operations {
            let _ = writeln!(text, "{count:>6} x {operation}");
        }
        for (kind, bytes) in &self.tensors {
            let _ = writeln!(text, "{bytes:>12} bytes of {kind}");
        }
        text
    }
}
