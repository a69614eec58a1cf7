//! The graph of a model file by names: constants, rows of tables, and whether a node is what it is expected to be.

use std::collections::HashMap;

use contract::{Modality, ModelSpec, names};
use tract_onnx::pb::{
    AttributeProto, GraphProto, NodeProto, TensorProto, attribute_proto::AttributeType, tensor_proto::DataType,
};

/// A reason without its layer yet: `Err((invalid, words))`.
pub type Reason = (bool, String);

/// The file is another's.
pub fn foreign<T>(words: impl Into<String>) -> Result<T, Reason> {
    Err((false, words.into()))
}

/// The file is ours, with impossible numbers.
pub fn invalid<T>(words: impl Into<String>) -> Result<T, Reason> {
    Err((true, words.into()))
}

/// A graph by names.
pub struct File<'a> {
    tensors: HashMap<&'a str, &'a TensorProto>,
    makers: HashMap<&'a str, &'a NodeProto>,
}

impl<'a> File<'a> {
    /// Of a graph.
    pub fn new(graph: &'a GraphProto) -> Self {
        let tensors = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let makers = graph.node.iter().flat_map(|node| node.output.iter().map(move |output| (output.as_str(), node)));
        Self { tensors, makers: makers.collect() }
    }

    /// Positive numbers per modality.
    pub fn scales(&self, spec: &ModelSpec, name: &str, shape: &[usize]) -> Result<Vec<Vec<f32>>, Reason> {
        let rows = self.reals(spec, name, shape)?.into_iter().zip(&spec.modalities).map(|(scales, modality)| {
            match scales.iter().position(|scale| !(scale.is_normal() && *scale > 0.)) {
                Some(at) => {
                    invalid(format!("{modality} scale {at} is {:e}, expected a positive normal number", scales[at]))
                }
                None => Ok(scales),
            }
        });
        rows.collect()
    }

    /// Numbers per modality.
    pub fn reals(&self, spec: &ModelSpec, name: &str, shape: &[usize]) -> Result<Vec<Vec<f32>>, Reason> {
        let row = |&modality| {
            let bytes = self.row(name, modality, DataType::Float, shape)?;
            Ok(words(bytes).map(f32::from_le_bytes).collect())
        };
        spec.modalities.iter().map(row).collect()
    }

    /// The node that makes a value inside of a layer.
    pub fn maker(&self, name: &str) -> Result<&'a NodeProto, Reason> {
        match self.makers.get(name) {
            Some(node) if node.domain.is_empty() => Ok(node),
            _ => foreign(format!("no standard operation makes '{name}'")),
        }
    }

    /// Bytes of a constant of that type and shape.
    pub fn constant(&self, name: &str, kind: DataType, shape: &[usize]) -> Result<&'a [u8], Reason> {
        let Some(tensor) = self.tensors.get(name) else { return foreign(format!("'{name}' is no constant")) };
        let dims = tensor.dims.iter().map(|&dim| dim as usize);
        if tensor.data_type != kind as i32 || !dims.eq(shape.iter().copied()) {
            let found = &tensor.dims;
            return invalid(format!(
                "'{name}' is {found:?} of type {}, expected {shape:?} of {kind:?}",
                tensor.data_type
            ));
        }
        // Its length fits its shape: checked when the file was read.
        Ok(&tensor.raw_data)
    }

    /// A constant of that shape, or the modality's row of a table of such.
    pub fn row(&self, name: &str, modality: Modality, kind: DataType, shape: &[usize]) -> Result<&'a [u8], Reason> {
        let Some(gather) = self.makers.get(name) else { return self.constant(name, kind, shape) };
        if gather.op_type != "Gather" || gather.input.len() != 2 || gather.input[1] != names::MODALITY {
            return foreign(format!("'{name}' is neither a constant nor picked by '{}'", names::MODALITY));
        }
        let axis = gather.attribute.iter().any(|attribute| attribute.name != "axis" || attribute.i != 0);
        if axis {
            return foreign(format!("'{name}' is gathered along another axis than 0"));
        }
        let shape = [&[Modality::ALL.len()], shape].concat();
        let table = self.constant(&gather.input[0], kind, &shape)?;
        let bytes = table.len() / Modality::ALL.len();
        Ok(&table[modality.index() * bytes..][..bytes])
    }
}

/// This operation with so many inputs, of which these are the first.
pub fn expect_op(node: &NodeProto, op: &str, inputs: usize, first: &[&str]) -> Result<(), Reason> {
    let fits = node.op_type == op && node.input.len() == inputs && node.output.len() == 1;
    if fits && node.input.iter().zip(first).all(|(found, expected)| found == expected) {
        return Ok(());
    }
    foreign(format!("found {} of {:?}, expected {op} of {first:?}", node.op_type, node.input))
}

/// An attribute's value.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
pub enum Value {
    /// One or several integers.
    Numbers(Vec<i64>),
    /// A real.
    Real(f32),
    /// Anything else: text.
    Text(Vec<u8>),
}

impl From<&[usize]> for Value {
    fn from(numbers: &[usize]) -> Self {
        Self::Numbers(numbers.iter().map(|&number| number as i64).collect())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.as_bytes().to_vec())
    }
}

/// Exactly these attributes.
pub fn expect_attributes(node: &NodeProto, expected: &[(&str, Value)]) -> Result<(), Reason> {
    let value = |attribute: &AttributeProto| match AttributeType::try_from(attribute.r#type) {
        Ok(AttributeType::Ints) => Value::Numbers(attribute.ints.clone()),
        Ok(AttributeType::Int) => Value::Numbers(vec![attribute.i]),
        Ok(AttributeType::Float) => Value::Real(attribute.f),
        _ => Value::Text(attribute.s.clone()),
    };
    let found: Vec<(&str, Value)> =
        node.attribute.iter().map(|attribute| (attribute.name.as_str(), value(attribute))).collect();
    let same = found.len() == expected.len() && expected.iter().all(|wanted| found.contains(wanted));
    if same { Ok(()) } else { foreign(format!("has {found:?}, expected {expected:?}")) }
}

/// Little-endian words.
pub fn words(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> {
    bytes.chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]])
}
