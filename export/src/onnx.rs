//! Builds ONNX protobufs: initialisers, nodes, inputs, outputs.
//!
//! The messages are those of `tract_onnx::pb`, because the same structs then write and read every file
//! and no second copy of `onnx.proto` can drift from the first. This module knows the format and nothing
//! about networks. Every value is named by the node or initialiser that makes it.

use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_proto::DataType,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};

/// Opset of every file: the first with all that is needed here and the one that most toolchains read.
pub const OPSET: i64 = 17;
/// IR version that belongs to opset 17 (ONNX 1.12).
const IR_VERSION: i64 = 8;

/// Element type of a graph input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32-bit float.
    F32,
    /// 8-bit signed integer.
    I8,
    /// 64-bit signed integer.
    I64,
}

impl Element {
    fn data_type(self) -> DataType {
        match self {
            Self::F32 => DataType::Float,
            Self::I8 => DataType::Int8,
            Self::I64 => DataType::Int64,
        }
    }
}

/// A graph under construction. Methods that add a value return its name.
#[derive(Default)]
pub struct Graph {
    proto: GraphProto,
}

impl Graph {
    /// An empty graph with a name.
    pub fn new(name: &str) -> Self {
        Self { proto: GraphProto { name: name.to_string(), ..GraphProto::default() } }
    }

    /// Adds a graph input; `dims` empty for a scalar.
    pub fn input(&mut self, name: &str, element: Element, dims: &[usize]) -> String {
        self.proto.input.push(value_info(name, element, dims));
        name.to_string()
    }

    /// Declares a value that a node makes as a graph output.
    pub fn output(&mut self, name: &str, element: Element, dims: &[usize]) {
        self.proto.output.push(value_info(name, element, dims));
    }

    /// Adds a float initialiser.
    pub fn f32s(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        self.tensor(name, dims, DataType::Float, values.len(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// Adds an int8 initialiser.
    pub fn i8s(&mut self, name: &str, dims: &[usize], values: &[i8]) -> String {
        self.tensor(name, dims, DataType::Int8, values.len(), values.iter().map(|&v| v as u8).collect())
    }

    /// Adds an int32 initialiser.
    pub fn i32s(&mut self, name: &str, dims: &[usize], values: &[i32]) -> String {
        self.tensor(name, dims, DataType::Int32, values.len(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// Adds an int64 initialiser.
    pub fn i64s(&mut self, name: &str, dims: &[usize], values: &[i64]) -> String {
        self.tensor(name, dims, DataType::Int64, values.len(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn tensor(&mut self, name: &str, dims: &[usize], kind: DataType, len: usize, raw_data: Vec<u8>) -> String {
        assert_eq!(dims.iter().product::<usize>(), len, "{name}: dims {dims:?} do not hold {len} values");
        self.proto.initializer.push(TensorProto {
            dims: dims.iter().map(|&d| d as i64).collect(),
            data_type: kind as i32,
            name: name.to_string(),
            raw_data,
            ..TensorProto::default()
        });
        name.to_string()
    }

    /// Adds a node with one output, which bears the node's name.
    pub fn node(&mut self, op: &str, name: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        self.proto.node.push(NodeProto {
            input: inputs.iter().map(|&input| input.to_string()).collect(),
            output: vec![name.to_string()],
            name: name.to_string(),
            op_type: op.to_string(),
            attribute: attributes,
            ..NodeProto::default()
        });
        name.to_string()
    }

    /// The finished model with its metadata.
    pub fn finish(self, metadata: &[(&str, String)]) -> ModelProto {
        let entry =
            |(key, value): &(&str, String)| StringStringEntryProto { key: key.to_string(), value: value.clone() };
        ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            producer_name: "gantry-export".to_string(),
            producer_version: env!("CARGO_PKG_VERSION").to_string(),
            graph: Some(self.proto),
            metadata_props: metadata.iter().map(entry).collect(),
            ..ModelProto::default()
        }
    }
}

/// The bytes of a model file.
pub fn encode(model: &ModelProto) -> Vec<u8> {
    model.encode_to_vec()
}

/// Attribute of integers, such as `pads`.
pub fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto {
        name: name.to_string(),
        r#type: AttributeType::Ints as i32,
        ints: values.iter().map(|&v| v as i64).collect(),
        ..AttributeProto::default()
    }
}

/// Attribute of one integer, such as `axis`.
pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.to_string(), r#type: AttributeType::Int as i32, i: value, ..AttributeProto::default() }
}

/// Attribute of one float, such as `alpha`.
pub fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: name.to_string(),
        r#type: AttributeType::Float as i32,
        f: value,
        ..AttributeProto::default()
    }
}

/// Attribute of text, such as `mode`.
pub fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto {
        name: name.to_string(),
        r#type: AttributeType::String as i32,
        s: value.as_bytes().to_vec(),
        ..AttributeProto::default()
    }
}

fn value_info(name: &str, element: Element, dims: &[usize]) -> ValueInfoProto {
    let dim = |&d: &usize| Dimension { value: Some(dimension::Value::DimValue(d as i64)), ..Dimension::default() };
    let tensor = type_proto::Tensor {
        elem_type: element.data_type() as i32,
        shape: Some(TensorShapeProto { dim: dims.iter().map(dim).collect() }),
    };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.to_string(), r#type: Some(r#type), ..ValueInfoProto::default() }
}
