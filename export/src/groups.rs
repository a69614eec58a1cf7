//! Which values share a scale, and what the scales are.
//!
//! Pooling, up-sampling and joining move codes without changing them, so their values form one group with one scale. A
//! value that a ReLU made has zero point -128, so that saturation is the ReLU and all 256 codes serve; the others are
//! symmetric. The image's codes are the contract's. An interpolated value has a scale of its own, tied to its input's (see
//! [`crate::ties`]), and its input's zero point.

use contract::net::{Activation, Conv, Deconv, Layer, Op};

use crate::{
    ExportError,
    calibrate::Range,
    factors::Neighbours,
    fold::Folded,
    sums::{self, Tied},
    ties,
};

/// A scale that only convolutions meet moves by at most this many units in the last place (0.8 %).
const MAX_MOVES: usize = 1 << 16;

/// Values that share their scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Real per code step, one per modality of the spec.
    pub scales: Vec<f32>,
    /// Code of real 0.
    pub zero_point: i8,
}

/// Group number of each value, and the groups; `ranges[modality][value]` as [`crate::calibrate::Observed::ranges`] returns them.
pub fn plan(folded: &Folded, ranges: &[Vec<Range>]) -> Result<(Vec<usize>, Vec<Group>), ExportError> {
    let group_of = group_values(folded);
    let count = group_of.iter().max().map_or(0, |last| last + 1);
    let mut groups: Vec<Group> =
        (0..count).map(|group| plan_group(folded, &group_of, group, ranges)).collect::<Result<_, _>>()?;
    settle(folded, &group_of, &mut groups)?;
    Ok((group_of, groups))
}

/// The last step of a layer that computes; `None` where codes move or are interpolated.
pub fn activation(op: &Op) -> Option<Activation> {
    match op {
        Op::Conv(conv) => Some(conv.activation),
        Op::Deconv(deconv) => Some(deconv.activation),
        Op::Add { activation } | Op::Norm { activation } => Some(*activation),
        _ => None,
    }
}

/// Group number of each value: values whose codes are copied into one another share one.
pub fn group_values(folded: &Folded) -> Vec<usize> {
    let layers = &folded.spec.net.layers;
    let mut root: Vec<usize> = (0..=layers.len()).collect();
    for (index, layer) in layers.iter().enumerate().filter(|(_, layer)| moves(&layer.op)) {
        for &input in &layer.inputs {
            let (from, to) = (root[input].max(root[index + 1]), root[input].min(root[index + 1]));
            root.iter_mut().filter(|value| **value == from).for_each(|value| *value = to);
        }
    }
    let mut roots = root.clone();
    roots.sort_unstable();
    roots.dedup();
    root.iter().map(|value| roots.binary_search(value).expect("every value has its root")).collect()
}

/// Whether codes only move.
fn moves(op: &Op) -> bool {
    activation(op).is_none() && !matches!(op, Op::Interpolate { .. })
}

/// Whether a ReLU made a value, or what it was moved or interpolated from.
fn is_rectified(layers: &[Layer], value: usize) -> bool {
    let Some(layer) = value.checked_sub(1).map(|index| &layers[index]) else { return false };
    match activation(&layer.op) {
        Some(activation) => activation == Activation::Relu,
        None => is_rectified(layers, layer.inputs[0]),
    }
}

fn plan_group(folded: &Folded, group_of: &[usize], group: usize, ranges: &[Vec<Range>]) -> Result<Group, ExportError> {
    let layers = &folded.spec.net.layers;
    let makers: Vec<(usize, &Layer)> =
        layers.iter().enumerate().filter(|&(index, layer)| group_of[index + 1] == group && !moves(&layer.op)).collect();
    let refuse = |layer: &Layer, what, reason| {
        Err(ExportError::Unsupported { layer: layer.name.clone(), what, format: "int8", reason })
    };
    if group_of[0] == group {
        // The image's codes are fixed by the intensity rule.
        if let Some((_, layer)) = makers.first() {
            return refuse(layer, "join", "its output is joined with the image, whose scale is fixed");
        }
        let reads = |layer: &&Layer| layer.inputs.iter().any(|&value| group_of[value] == group);
        for layer in layers.iter().filter(reads) {
            let what = match layer.op {
                Op::Add { .. } => "sum",
                Op::Interpolate { .. } => "linear up-sampling",
                _ => continue,
            };
            return refuse(layer, what, "it reads the image, whose scale is fixed; put a convolution between");
        }
        return Ok(Group { scales: vec![folded.spec.intensity.scale; ranges.len()], zero_point: 0 });
    }
    let rectified = makers.iter().filter(|(index, _)| is_rectified(layers, index + 1)).count();
    if rectified != 0 && rectified != makers.len() {
        return refuse(makers[0].1, "join", "values with and without ReLU are joined");
    }
    let union = |modality: &Vec<Range>| {
        let start = Range { min: 0., max: 0. };
        makers.iter().fold(start, |range, (index, layer)| range.union(to_cover(&layer.op, modality[index + 1])))
    };
    let ranges: Vec<Range> = ranges.iter().map(union).collect();
    Ok(if rectified > 0 { rectified_group(&ranges) } else { signed_group(&ranges) })
}

/// The codes in front of a convolution's leak have the scale of those behind it, so that scale must cover what is leaked.
fn to_cover(op: &Op, range: Range) -> Range {
    match op {
        Op::Conv(Conv { activation: Activation::LeakyRelu(slope), .. })
        | Op::Deconv(Deconv { activation: Activation::LeakyRelu(slope), .. }) => {
            Range { min: range.min / slope, ..range }
        }
        _ => range,
    }
}

/// Code -128 is 0, code 127 the largest value.
fn rectified_group(ranges: &[Range]) -> Group {
    Group { scales: ranges.iter().map(|range| visible(range.max) / 255.).collect(), zero_point: -128 }
}

/// Symmetric: the same zero point for every modality, whatever their ranges.
fn signed_group(ranges: &[Range]) -> Group {
    Group { scales: ranges.iter().map(|range| visible(range.max.max(-range.min)) / 127.).collect(), zero_point: 0 }
}

/// A layer that was never active still needs a scale; any will do.
fn visible(largest: f32) -> f32 {
    if largest > 1e-6 { largest } else { 1. }
}

/// Moves scales until the factors of all convolutions can agree, and all sums and interpolations hold: first those that sums
/// tie together, which have little room, then the others, in the order in which they are first made, each with what
/// interpolations tie to it.
fn settle(folded: &Folded, group_of: &[usize], groups: &mut [Group]) -> Result<(), ExportError> {
    let layers = &folded.spec.net.layers;
    // Pairs of groups that a convolution reads and writes.
    let read_written = |(index, layer): (usize, &Layer)| (group_of[layer.inputs[0]], group_of[index + 1]);
    let convolution = |(_, layer): &(usize, &Layer)| matches!(layer.op, Op::Conv(_) | Op::Deconv(_));
    let pairs: Vec<(usize, usize)> = layers.iter().enumerate().filter(convolution).map(read_written).collect();
    let mut order: Vec<(usize, &Layer)> = vec![];
    for (index, layer) in layers.iter().enumerate() {
        let group = group_of[index + 1];
        if group != group_of[0] && order.iter().all(|(other, _)| *other != group) {
            order.push((group, layer));
        }
    }
    let components = sums::components(&tied(layers, group_of));
    let ties = ties::ties(folded, group_of);
    for (row, &modality) in folded.spec.modalities.iter().enumerate() {
        let mut wanted: Vec<f32> = groups.iter().map(|group| group.scales[row]).collect();
        ties::widen(&ties, &mut wanted);
        let mut settled: Vec<(usize, f32)> = vec![(group_of[0], wanted[group_of[0]])];
        let failed = |layer: &Layer, factor: f32| ExportError::Factor { layer: layer.name.clone(), modality, factor };
        for component in &components {
            let members: Vec<(usize, &Layer)> =
                order.iter().copied().filter(|(group, _)| component.iter().flatten().any(|g| g == group)).collect();
            let numbers: Vec<usize> = members.iter().map(|(group, _)| *group).collect();
            let meet = |group: usize, tied: &[(usize, f32)]| neighbours(&pairs, group, &[&settled, tied].concat());
            let scales = sums::settle(component, &numbers, &wanted, meet);
            settled.extend(scales.ok_or_else(|| failed(members[0].1, wanted[members[0].0]))?);
        }
        let meet = |group: usize, settled: &[(usize, f32)]| neighbours(&pairs, group, settled);
        // What is tied to scales that sums have settled has hardly any choice left.
        ties::follow(&ties, &mut settled, meet);
        for &(group, layer) in &order {
            if settled.iter().all(|(other, _)| *other != group) {
                let found = ties::settle(&ties, group, wanted[group], MAX_MOVES, &settled, meet);
                settled = found.ok_or_else(|| failed(layer, wanted[group]))?;
            }
        }
        if let Some(tie) = ties.iter().find(|tie| !tie.holds(&settled)) {
            let reason = "sums or joins ask for another scale, or the image is too large for its factors; \
                          put a convolution between, or use nearest up-sampling";
            let layer = layers[tie.layer].name.clone();
            return Err(ExportError::Unsupported { layer, what: "linear up-sampling", format: "int8", reason });
        }
        for (group, scale) in settled {
            groups[group].scales[row] = scale;
        }
    }
    Ok(())
}

fn tied(layers: &[Layer], group_of: &[usize]) -> Vec<Tied> {
    let sum = |(index, layer): (usize, &Layer)| match layer.op {
        Op::Add { .. } => Some([group_of[layer.inputs[0]], group_of[layer.inputs[1]], group_of[index + 1]]),
        _ => None,
    };
    layers.iter().enumerate().filter_map(sum).collect()
}

/// The settled scales that convolutions into and from a group read and write.
fn neighbours(pairs: &[(usize, usize)], group: usize, settled: &[(usize, f32)]) -> Neighbours {
    let scale = |wanted: usize| settled.iter().find(|(other, _)| *other == wanted).map(|(_, scale)| *scale);
    Neighbours {
        inputs: pairs.iter().filter(|pair| pair.1 == group).filter_map(|pair| scale(pair.0)).collect(),
        outputs: pairs.iter().filter(|pair| pair.0 == group).filter_map(|pair| scale(pair.1)).collect(),
    }
}
