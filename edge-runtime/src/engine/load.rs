//! One of our int8 files as the planner wants it, straight from its protobuf.
//!
//! The graph must be the manifest's network to the letter, as `gantry-export` writes it. What differs is [`Refused::Foreign`]:
//! tract's to run. What is ours but holds impossible numbers is [`Refused::Invalid`]: nobody's.

use contract::{
    ModelSpec,
    interpolate::Interpolation,
    names,
    net::{Op, Shape},
    quant::Sum,
};
use tract_onnx::pb::GraphProto;

use super::{
    graph::{File, Reason, foreign},
    read::Place,
};
use crate::kernels::{MapSpec, Table};

/// An int8 network as the planner wants it.
#[derive(Debug)]
pub struct Network<'a> {
    /// Layers, grid, modalities.
    pub spec: &'a ModelSpec,
    /// Of every value: the image, then each layer's output.
    pub shapes: Vec<Shape>,
    /// Code of real 0 of every value.
    pub zeros: Vec<i8>,
    /// In step with the layers.
    pub constants: Vec<Constants<'a>>,
}

/// What a layer computes with.
#[derive(Debug)]
pub enum Constants<'a> {
    /// A convolution's.
    Conv(ConvCodes<'a>),
    /// A residual sum's, one per modality of the spec.
    Add(Vec<Sum>),
    /// Those of a norm of its own, one per modality of the spec.
    Norm(Vec<MapSpec>),
    /// An interpolation's: the scales hold for all modalities.
    Interpolate(Interpolation),
    /// None: codes only move.
    None,
}

/// A convolution's constants.
#[derive(Debug)]
pub struct ConvCodes<'a> {
    /// `[out, in / groups, (d,) h, w]`, in [-127, 127].
    pub weights: &'a [u8],
    /// One per modality of the spec.
    pub tables: Vec<Table>,
    /// The leak behind it, one per modality; none without.
    pub leak: Vec<MapSpec>,
}

/// Why a file has no plan of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another graph than ours.
    Foreign {
        /// Where it differs.
        layer: String,
        /// How.
        reason: String,
    },
    /// Ours, with impossible numbers.
    Invalid {
        /// Where.
        layer: String,
        /// What was found and what was expected.
        reason: String,
    },
}

/// Reads a graph that belongs to `spec`.
pub fn network<'a>(spec: &'a ModelSpec, graph: &'a GraphProto) -> Result<Network<'a>, Refused> {
    let at = |layer: &str, (invalid, reason): Reason| {
        let layer = layer.to_string();
        if invalid { Refused::Invalid { layer, reason } } else { Refused::Foreign { layer, reason } }
    };
    let net = &spec.net;
    let shapes = net.shapes().map_err(|error| at(&net.name, (false, error.to_string())))?;
    let file = File::new(graph);
    let mut scales: Vec<(Vec<f32>, i8)> = vec![(vec![spec.intensity.scale; spec.modalities.len()], 0)];
    let mut constants = vec![];
    for (index, layer) in net.layers.iter().enumerate() {
        let read = || -> Result<_, Reason> {
            let place = Place {
                spec,
                node: file.maker(value_name(spec, index + 1))?,
                inputs: layer.inputs.iter().map(|&value| value_name(spec, value)).collect(),
                shapes: layer.inputs.iter().map(|&value| shapes[value]).collect(),
                made: layer.inputs.iter().map(|&value| scales[value].clone()).collect(),
            };
            match &layer.op {
                Op::Conv(conv) => file.conv(&place, conv).map(|(codes, made)| (Constants::Conv(codes), made)),
                Op::Add { activation } => {
                    file.sum(&place, *activation).map(|(sums, made)| (Constants::Add(sums), made))
                }
                Op::Norm { activation } => {
                    file.norm(&place, *activation).map(|(maps, made)| (Constants::Norm(maps), made))
                }
                Op::Interpolate { factor } => {
                    file.interpolation(&place, *factor).map(|(rule, made)| (Constants::Interpolate(rule), made))
                }
                op => {
                    file.moves(&place, op)?;
                    match place.made.iter().all(|made| *made == place.made[0]) {
                        true => Ok((Constants::None, place.made[0].clone())),
                        false => foreign("joins values of different scales"),
                    }
                }
            }
        };
        let (read, made) = read().map_err(|reason| at(&layer.name, reason))?;
        constants.push(read);
        scales.push(made);
    }
    let zeros = scales.iter().map(|&(_, zero)| zero).collect();
    Ok(Network { spec, shapes, zeros, constants })
}

/// Name of a value in the file.
fn value_name(spec: &ModelSpec, value: usize) -> &str {
    match value {
        0 => names::IMAGE,
        _ if value == spec.net.layers.len() => names::LOGITS,
        _ => &spec.net.layers[value - 1].name,
    }
}
