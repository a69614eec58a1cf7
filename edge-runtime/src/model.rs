//! A model file, read once and believed only after it was checked: protobuf, version, manifest, then the graph against
//! the manifest. Weights that were changed afterwards are the self-test's to find.

use std::path::{Path, PathBuf};

use contract::{
    ModelSpec, VERSION,
    manifest::{MANIFEST_KEY, Manifest, Precision, SpecError, check_version},
    names,
    net::Spatial,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tract_onnx::{
    pb::{GraphProto, ModelProto, TensorProto, tensor_proto::DataType, tensor_shape_proto::dimension, type_proto},
    prelude::Framework,
};

use crate::EdgeError;

/// Largest model file: far above any network for a device, far below what would exhaust one.
const MAX_BYTES: u64 = 1 << 30;
/// Largest integer of a node's attributes (kernel, stride, padding, axis). A damaged one could ask for any amount of memory.
const MAX_ATTRIBUTE: u64 = 4096;

/// A checked model file.
#[derive(Clone, Debug)]
pub struct Model {
    /// Where it came from, for messages.
    pub path: PathBuf,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// What the exporter says about it.
    pub manifest: Manifest,
    /// The graph; its outputs are [`names::LOGITS`] alone.
    pub(crate) proto: ModelProto,
}

/// The one field that is read before the rest is believed.
#[derive(Deserialize)]
struct Version {
    contract: u32,
}

impl Model {
    /// Reads and checks a file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, EdgeError> {
        let path = path.as_ref();
        let read = |source| EdgeError::ModelRead { path: path.to_path_buf(), source };
        let bytes = std::fs::metadata(path).map_err(read)?.len();
        if bytes > MAX_BYTES {
            return Err(EdgeError::ModelSize { path: path.to_path_buf(), bytes, max: MAX_BYTES });
        }
        Self::parse(path, &std::fs::read(path).map_err(read)?)
    }

    /// Checks the bytes of a file; `path` is for messages.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, EdgeError> {
        let corrupt = |reason: String| EdgeError::ModelCorrupt { path: path.to_path_buf(), reason };
        let decode = tract_onnx::onnx().proto_model_for_read(&mut &*bytes);
        let mut proto = decode.map_err(|error| corrupt(error.root_cause().to_string()))?;
        let manifest = manifest(path, &proto)?;
        let graph = proto.graph.as_mut().ok_or_else(|| corrupt("no graph".to_string()))?;
        for tensor in &graph.initializer {
            check_tensor(tensor).map_err(corrupt)?;
        }
        check_graph(path, graph, &manifest)?;
        graph.output.retain(|output| output.name == names::LOGITS);
        let sha256 = hex(&Sha256::digest(bytes));
        Ok(Self { path: path.to_path_buf(), bytes: bytes.len() as u64, sha256, manifest, proto })
    }

    /// The model without its weights.
    pub const fn spec(&self) -> &ModelSpec {
        &self.manifest.spec
    }

    /// Whether the file holds int8 convolutions.
    pub fn is_int8(&self) -> bool {
        self.manifest.precision == Precision::Int8
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Shape of a value in the file: `[1, channels, (depth,) height, width]`.
pub(crate) fn dims(spec: &ModelSpec, channels: usize) -> Vec<usize> {
    let [depth, height, width] = spec.net.input.size;
    match spec.net.spatial {
        Spatial::D2 => vec![1, channels, height, width],
        Spatial::D3 => vec![1, channels, depth, height, width],
    }
}

fn manifest(path: &Path, proto: &ModelProto) -> Result<Manifest, EdgeError> {
    let entry = proto.metadata_props.iter().find(|entry| entry.key == MANIFEST_KEY);
    let text = &entry.ok_or_else(|| EdgeError::ModelForeign {
        path: path.to_path_buf(),
        key: MANIFEST_KEY,
        found: proto.metadata_props.iter().map(|entry| entry.key.clone()).collect(),
    })?;
    let json = |source| EdgeError::ModelJson { path: path.to_path_buf(), source };
    let spec = |source: SpecError| EdgeError::ModelSpec { path: path.to_path_buf(), source: Box::new(source) };
    // The version first: another contract's manifest need not even parse.
    let version: Version = serde_json::from_str(&text.value).map_err(json)?;
    check_version(version.contract).map_err(spec)?;
    let manifest: Manifest = serde_json::from_str(&text.value).map_err(json)?;
    debug_assert_eq!(manifest.contract, VERSION);
    manifest.spec.check().map_err(spec)?;
    Ok(manifest)
}

/// A tensor's data must fill its shape: the engine takes memory by the shape.
fn check_tensor(tensor: &TensorProto) -> Result<(), String> {
    let name = &tensor.name;
    let bytes = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Int8 | DataType::Uint8) => 1,
        Ok(DataType::Int32 | DataType::Float) => 4,
        Ok(DataType::Int64) => 8,
        _ => {
            return Err(format!(
                "tensor '{name}' has element type {}, expected a type of the exporter's",
                tensor.data_type
            ));
        }
    };
    if !tensor.external_data.is_empty() || tensor.data_location.is_some_and(|location| location != 0) {
        return Err(format!("tensor '{name}' lies in another file, expected one file"));
    }
    let elements = tensor.dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(usize::try_from(dim).ok()?));
    if elements.and_then(|elements| elements.checked_mul(bytes)) != Some(tensor.raw_data.len()) {
        let (dims, found) = (&tensor.dims, tensor.raw_data.len());
        return Err(format!("tensor '{name}' of {dims:?} elements of {bytes} bytes has {found} bytes of data"));
    }
    Ok(())
}

fn check_graph(path: &Path, graph: &GraphProto, manifest: &Manifest) -> Result<(), EdgeError> {
    let wrong = |what: String, found: String, expected: String| EdgeError::ModelGraph {
        path: path.to_path_buf(),
        what,
        found,
        expected,
    };
    let spec = &manifest.spec;
    let element = match manifest.precision {
        Precision::Int8 => DataType::Int8,
        Precision::F32 => DataType::Float,
    };
    let mut expected = vec![format!("{} {element:?} {:?}", names::IMAGE, dims(spec, spec.slices()))];
    if spec.modalities.len() > 1 {
        expected.push(format!("{} {:?} []", names::MODALITY, DataType::Int64));
    }
    let found: Vec<String> = graph.input.iter().map(describe).collect();
    if found != expected {
        return Err(wrong("inputs".into(), format!("{found:?}"), format!("{expected:?}")));
    }
    let outputs: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    for name in [names::LOGITS, names::LABELS] {
        if !outputs.contains(&name) || !graph.node.iter().any(|node| node.output.iter().any(|output| output == name)) {
            return Err(wrong("outputs".into(), format!("{outputs:?}"), format!("a node that makes '{name}'")));
        }
    }
    for node in &graph.node {
        let numbers = node.attribute.iter().flat_map(|attribute| attribute.ints.iter().chain([&attribute.i]));
        if let Some(number) = numbers.into_iter().find(|number| number.unsigned_abs() > MAX_ATTRIBUTE) {
            let what = format!("attribute of node '{}'", node.name);
            return Err(wrong(what, number.to_string(), format!("at most {MAX_ATTRIBUTE}")));
        }
    }
    Ok(())
}

/// Name, element type and shape of a graph input.
fn describe(info: &tract_onnx::pb::ValueInfoProto) -> String {
    let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref().and_then(|kind| kind.value.as_ref()) else {
        return format!("{} without a type", info.name);
    };
    let element = DataType::try_from(tensor.elem_type).map_or_else(|_| "?".to_string(), |kind| format!("{kind:?}"));
    let dims = tensor.shape.iter().flat_map(|shape| &shape.dim).map(|dim| match &dim.value {
        Some(dimension::Value::DimValue(value)) => value.to_string(),
        Some(dimension::Value::DimParam(name)) => name.clone(),
        None => "?".to_string(),
    });
    format!("{} {element} [{}]", info.name, dims.collect::<Vec<_>>().join(", "))
}
