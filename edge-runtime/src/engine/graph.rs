//! The graph of a model file by names: constants, rows of tables, and whether a node is what it is expected to be.

use std::collections::HashMap;

use contract::{Modality, ModelSpec, names};
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto, attribute_proto::AttributeType, tensor_proto::DataType};

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

    /// Second and third input of `DequantizeLinear` or `QuantizeLinear`; a scale per modality.
    pub fn scale_and_zero(&self, spec: &ModelSpec, node: &NodeProto) -> Result<(Vec<f32>, i8), Reason> {
        let scales = self.scales(spec, &node.input[1], None)?.into_iter().map(|row| row[0]).collect();
        Ok((scales, self.constant(&node.input[2], DataType::Int8, &[])?[0] as i8))
    }

    /// Positive numbers per modality.
    pub fn scales(&self, spec: &ModelSpec, name: &str, len: Option<usize>) -> Result<Vec<Vec<f32>>, Reason> {
        let rows = spec.modalities.iter().map(|&modality| {
            let scales: Vec<f32> =
                words(self.row(name, modality, DataType::Float, len)?).map(f32::from_le_bytes).collect();
            match scales.iter().position(|scale| !(scale.is_normal() && *scale > 0.)) {
                Some(at) => {
                    invalid(format!("{modality} scale {at} is {:e}, expected a positive normal number", scales[at]))
                }
                None => Ok(scales),
            }
        });
        rows.collect()
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

    /// A constant, or the modality's row of a table; `None` for a scalar.
    pub fn row(&self, name: &str, modality: Modality, kind: DataType, len: Option<usize>) -> Result<&'a [u8], Reason> {
        let shape: Vec<usize> = len.into_iter().collect();
        let Some(gather) = self.makers.get(name) else { return self.constant(name, kind, &shape) };
        if gather.op_type != "Gather" || gather.input.len() != 2 || gather.input[1] != names::MODALITY {
            return foreign(format!("'{name}' is neither a constant nor picked by '{}'", names::MODALITY));
        }
        let axis = gather.attribute.iter().any(|attribute| attribute.name != "axis" || attribute.i != 0);
        if axis {
            return foreign(format!("'{name}' is gathered along another axis than 0"));
        }
        let shape = [&[Modality::ALL.len()], shape.as_slice()].concat();
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

/// Exactly these attributes, of integers.
pub fn expect_attributes(node: &NodeProto, expected: &[(&str, Vec<usize>)]) -> Result<(), Reason> {
    let mut found: Vec<(&str, Vec<i64>)> = vec![];
    for attribute in &node.attribute {
        let list = attribute.r#type == AttributeType::Ints as i32;
        found.push((&attribute.name, if list { attribute.ints.clone() } else { vec![attribute.i] }));
    }
    let mut expected: Vec<(&str, Vec<i64>)> =
        expected.iter().map(|(name, values)| (*name, values.iter().map(|&value| value as i64).collect())).collect();
    found.sort();
    expected.sort();
    if found == expected { Ok(()) } else { foreign(format!("has {found:?}, expected {expected:?}")) }
}

/// Exactly these attributes, of text.
pub fn expect_texts(node: &NodeProto, expected: &[(&str, &str)]) -> Result<(), Reason> {
    let mut found: Vec<(&str, &[u8])> =
        node.attribute.iter().map(|attribute| (attribute.name.as_str(), attribute.s.as_slice())).collect();
    let mut expected: Vec<(&str, &[u8])> = expected.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    found.sort_unstable();
    expected.sort_unstable();
    if found == expected { Ok(()) } else { foreign(format!("has other attributes than {expected:?}")) }
}

/// Little-endian words.
pub fn words(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> {
    bytes.chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]])
}
