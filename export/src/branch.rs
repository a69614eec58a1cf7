//! What both file formats share: the `modality` input, tables with a row per modality, names of values.

use contract::{
    ModelSpec,
    names::{IMAGE, LOGITS, MODALITY},
    net::Spatial,
};

use crate::onnx::{Element, Graph};

/// Name of value `index` in a file: image, layer names, and `logits` for the last.
pub fn value_name(spec: &ModelSpec, index: usize) -> &str {
    match index {
        0 => IMAGE,
        _ if index == spec.net.layers.len() => LOGITS,
        _ => &spec.net.layers[index - 1].name,
    }
}

/// The image axes of a size.
pub fn spatial<'s>(spec: &ModelSpec, size: &'s [usize; 3]) -> &'s [usize] {
    match spec.net.spatial {
        Spatial::D2 => &size[1..],
        Spatial::D3 => size,
    }
}

/// `[1, channels, (d,) h, w]` of a value.
pub fn dims(spec: &ModelSpec, shape: &contract::net::Shape) -> Vec<usize> {
    [&[1, shape.channels], spatial(spec, &shape.size)].concat()
}

/// Declares the modality input where the model has both branches. A model with one branch has no such input.
pub fn declare_modality(graph: &mut Graph, spec: &ModelSpec) {
    if spec.modalities.len() > 1 {
        graph.input(MODALITY, Element::I64, &[]);
    }
}

/// A constant with a row per modality: stored as one table and picked by `Gather(table, modality)`, or plainly where
/// there is nothing to pick. `dims` is the shape of a row. Returns the name of the picked row.
pub fn row_f32(graph: &mut Graph, name: &str, dims: &[usize], rows: &[Vec<f32>]) -> String {
    if rows.iter().all(|row| *row == rows[0]) {
        return graph.f32s(name, dims, &rows[0]);
    }
    let table = graph.f32s(&format!("{name}s"), &[&[rows.len()], dims].concat(), &rows.concat());
    graph.node("Gather", name, &[&table, MODALITY], vec![])
}

/// As [`row_f32`], of int32.
pub fn row_i32(graph: &mut Graph, name: &str, dims: &[usize], rows: &[Vec<i32>]) -> String {
    if rows.iter().all(|row| *row == rows[0]) {
        return graph.i32s(name, dims, &rows[0]);
    }
    let table = graph.i32s(&format!("{name}es"), &[&[rows.len()], dims].concat(), &rows.concat());
    graph.node("Gather", name, &[&table, MODALITY], vec![])
}
