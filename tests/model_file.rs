//! Reads `model.onnx` without the programs that write or run it: protobuf's wire format, and of ONNX the few fields
//! that the reference network and the tests of a file's contents need.
//!
//! Field numbers are those of `onnx.proto` (IR version 8).

use std::{collections::BTreeMap, path::Path};

use contract::manifest::{MANIFEST_KEY, Manifest};

/// A model file.
#[derive(Clone, Debug, Default)]
pub struct ModelFile {
    /// Constants by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// In the file's order.
    pub nodes: Vec<Node>,
    /// Names of the graph's inputs.
    pub inputs: Vec<String>,
    /// Names of the graph's outputs.
    pub outputs: Vec<String>,
    metadata: BTreeMap<String, String>,
}

/// A constant of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tensor {
    /// Sizes; empty for a scalar.
    pub dims: Vec<usize>,
    /// ONNX `TensorProto.DataType`.
    pub data_type: u64,
    /// Values, little endian.
    pub bytes: Vec<u8>,
}

/// An operation of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Name.
    pub name: String,
    /// ONNX operator, such as `QLinearConv`.
    pub op: String,
    /// ONNX operator set; empty for the standard one.
    pub domain: String,
    /// Names of the values it reads; empty where an optional one is left out.
    pub inputs: Vec<String>,
    /// Names of the values it makes.
    pub outputs: Vec<String>,
}

impl Tensor {
    /// The values of a FLOAT tensor.
    ///
    /// # Panics
    /// If it is of another type.
    pub fn f32s(&self) -> Vec<f32> {
        assert_eq!(self.data_type, 1, "FLOAT");
        self.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    /// The values of an INT8 tensor.
    ///
    /// # Panics
    /// If it is of another type.
    pub fn i8s(&self) -> Vec<i8> {
        assert_eq!(self.data_type, 3, "INT8");
        self.bytes.iter().map(|&b| b as i8).collect()
    }

    /// The values of an INT32 tensor.
    ///
    /// # Panics
    /// If it is of another type.
    pub fn i32s(&self) -> Vec<i32> {
        assert_eq!(self.data_type, 6, "INT32");
        self.bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    /// One row of a table whose first axis is the modality.
    pub fn row(&self, index: usize) -> Self {
        assert!(index < self.dims[0], "row {index} of {:?}", self.dims);
        let length = self.bytes.len() / self.dims[0];
        let bytes = self.bytes[index * length..][..length].to_vec();
        Self { dims: self.dims[1..].to_vec(), bytes, ..*self }
    }
}

impl ModelFile {
    /// Reads a file.
    ///
    /// # Panics
    /// If it is no ONNX file: a test's own files are.
    pub fn read(path: &Path) -> Self {
        Self::parse(&std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    fn parse(bytes: &[u8]) -> Self {
        let mut file = Self::default();
        for (number, field) in fields(bytes) {
            match number {
                7 => file.parse_graph(field.bytes()),
                14 => {
                    let words: BTreeMap<u64, Field> = fields(field.bytes()).collect();
                    file.metadata.insert(words[&1].text(), words[&2].text());
                }
                _ => {}
            }
        }
        file
    }

    fn parse_graph(&mut self, bytes: &[u8]) {
        let first_text = |field: Field| fields(field.bytes()).find(|(number, _)| *number == 1).map(|(_, f)| f.text());
        for (number, field) in fields(bytes) {
            match number {
                1 => self.nodes.push(parse_node(field.bytes())),
                5 => {
                    let (name, tensor) = parse_tensor(field.bytes());
                    self.tensors.insert(name, tensor);
                }
                11 => self.inputs.extend(first_text(field)),
                12 => self.outputs.extend(first_text(field)),
                _ => {}
            }
        }
    }

    /// What the file says about itself.
    ///
    /// # Panics
    /// If it says nothing or nothing readable.
    pub fn manifest(&self) -> Manifest {
        serde_json::from_str(&self.metadata[MANIFEST_KEY]).expect("a manifest")
    }

    /// The node that makes a value.
    pub fn maker(&self, value: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.outputs.iter().any(|output| output == value))
    }
}

fn parse_node(bytes: &[u8]) -> Node {
    let mut node = Node::default();
    for (number, field) in fields(bytes) {
        match number {
            1 => node.inputs.push(field.text()),
            2 => node.outputs.push(field.text()),
            3 => node.name = field.text(),
            4 => node.op = field.text(),
            7 => node.domain = field.text(),
            _ => {}
        }
    }
    node
}

fn parse_tensor(bytes: &[u8]) -> (String, Tensor) {
    let (mut name, mut tensor) = (String::new(), Tensor::default());
    for (number, field) in fields(bytes) {
        match (number, field) {
            (1, Field::Number(dim)) => tensor.dims.push(dim as usize),
            (1, Field::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    tensor.dims.push(varint(&mut packed) as usize);
                }
            }
            (2, Field::Number(data_type)) => tensor.data_type = data_type,
            (8, field) => name = field.text(),
            (9, field) => tensor.bytes = field.bytes().to_vec(),
            (4 | 5 | 7 | 13 | 14, _) => panic!("'{name}' does not keep its values in raw_data"),
            _ => {}
        }
    }
    (name, tensor)
}

/// A field of a protobuf message.
#[derive(Clone, Copy)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(number) => panic!("expected a message, got {number}"),
        }
    }

    fn text(self) -> String {
        String::from_utf8(self.bytes().to_vec()).expect("UTF-8")
    }
}

/// Field numbers and fields of a message, in the file's order.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = (u64, Field<'_>)> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let tag = varint(&mut rest);
        let mut take = |length: usize| {
            let (head, tail) = rest.split_at(length);
            rest = tail;
            head
        };
        let field = match tag & 7 {
            1 => Field::Bytes(take(8)),
            5 => Field::Bytes(take(4)),
            0 => Field::Number(varint(&mut rest)),
            2 => {
                let length = varint(&mut rest) as usize;
                let (head, tail) = rest.split_at(length);
                rest = tail;
                Field::Bytes(head)
            }
            wire => panic!("wire type {wire}"),
        };
        Some((tag >> 3, field))
    })
}

/// Seven bits per byte, lowest first, the top bit of all but the last set.
fn varint(rest: &mut &[u8]) -> u64 {
    let length = rest.iter().position(|byte| byte & 0x80 == 0).expect("a whole number") + 1;
    let (head, tail) = rest.split_at(length);
    *rest = tail;
    head.iter().rev().fold(0, |number, &byte| number << 7 | u64::from(byte & 0x7f))
}
