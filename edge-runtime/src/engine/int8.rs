//! Where a plan of tract computes in int8 and where it does not: read from the optimised graph, not from the file.
//!
//! tract replaces a convolution by several nodes whose names begin with the layer's. The one that multiplies tells
//! the truth: its kernel accumulates in i32 (int8) or in f32.

use contract::{
    names,
    net::{Net, Op},
};
use tract_onnx::{
    prelude::{DatumType, Tensor, TypedModel},
    tract_core::{ops::matmul::optimized::OptMatMul, tract_linalg::mmm::PackedMatrixStorage},
};

/// How a layer runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerRun {
    /// Name of the layer.
    pub name: String,
    /// Whether it multiplies in int8; `None` for layers that do not multiply.
    pub int8: Option<bool>,
    /// Nodes of the plan that belong to it, the kernel of a multiplication in brackets.
    pub ops: Vec<String>,
}

/// How each layer of `net` runs in `plan`.
pub fn layers(net: &Net, plan: &TypedModel) -> Vec<LayerRun> {
    let last = net.layers.len().saturating_sub(1);
    let run = |(index, layer): (usize, &contract::net::Layer)| {
        // The file calls the last value by its role.
        let name = if index == last { names::LOGITS } else { &layer.name };
        let multiplies = matches!(layer.op, Op::Conv(_) | Op::Deconv(_));
        let (mut ops, mut int8, mut float) = (vec![], false, false);
        for node in plan.nodes.iter().filter(|node| belongs(&node.name, name)) {
            let op = node.op.name();
            if matches!(&*op, "Const" | "Source") {
                continue;
            }
            match node.op_as::<OptMatMul>().and_then(|product| product.mmm.first()) {
                Some(kernel) => {
                    int8 |= kernel.internal_type() == DatumType::I32;
                    float |= kernel.internal_type() != DatumType::I32;
                    ops.push(format!("{op}[{}]", kernel.name()));
                }
                None => {
                    float |= op.contains("Conv") || op.contains("DepthWise") || op.contains("EinSum");
                    ops.push(op.to_string());
                }
            }
        }
        LayerRun { name: layer.name.clone(), int8: multiplies.then_some(int8 && !float), ops }
    };
    net.layers.iter().enumerate().map(run).collect()
}

/// Whether a node's name is the layer's or begins with it and a separator.
fn belongs(node: &str, layer: &str) -> bool {
    node.strip_prefix(layer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '_', '-', '#', '/']))
}

/// Bytes that a constant holds; tract does not count packed ones itself.
pub fn bytes(value: &Tensor) -> usize {
    match value.storage_as::<PackedMatrixStorage>() {
        None => value.len() * value.datum_type().size_of(),
        Some(packed) => {
            packed
                .values()
                .iter()
                .map(|value| value.mn().next_multiple_of(value.format().r()) * value.k())
                .sum::<usize>()
                * value.datum_type().size_of()
        }
    }
}
