//! A norm that follows its convolution disappears into it: `gamma * (conv(x) + bias - mean) / sqrt(var + eps) + beta`
//! is `scale * conv(x) + shift`, with two numbers per channel and modality. The kernels stay shared and untouched.

use contract::{
    Modality, ModelSpec,
    manifest::Provenance,
    names::{self, NormParam},
    net::{Layer, NORM_EPSILON, Op, Shape, Spatial},
};

use crate::{
    ExportError,
    checkpoint::{Checkpoint, expect},
};

/// `scale * x + shift` per channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    /// Positive.
    pub scale: Vec<f32>,
    /// Any sign.
    pub shift: Vec<f32>,
}

/// What a layer computes with, norms folded.
#[derive(Clone, Debug, Default)]
pub struct FoldedLayer {
    /// Weights of a convolution as the checkpoint has them; empty for other layers.
    pub weights: Vec<f32>,
    /// Shape of `weights`.
    pub weight_shape: Vec<usize>,
    /// One per modality of the spec, for layers with weights or a norm.
    pub affine: Vec<Affine>,
}

/// A network without norms: one set of kernels, an [`Affine`] per layer and modality.
#[derive(Clone)]
pub struct Folded {
    /// The model.
    pub spec: ModelSpec,
    /// Shape of every value, image first.
    pub shapes: Vec<Shape>,
    /// In step with `spec.net.layers`.
    pub layers: Vec<FoldedLayer>,
    /// The checkpoint's history.
    pub provenance: Provenance,
}

impl Folded {
    /// Folds a checkpoint.
    pub fn new(checkpoint: &Checkpoint) -> Result<Self, ExportError> {
        let spec = checkpoint.meta.spec.clone();
        if !spec.net.norm.is_batch() {
            return Err(ExportError::Norm { net: spec.net.name, kind: spec.net.norm });
        }
        let shapes = spec.net.shapes().expect("the checkpoint's spec has been checked");
        let fold_layer = |(index, layer): (usize, &Layer)| {
            let (input, output) = (shapes[layer.inputs[0]], shapes[index + 1]);
            fold_layer(checkpoint, layer, input.channels, output.channels)
        };
        let layers = spec.net.layers.iter().enumerate().map(fold_layer).collect::<Result<_, _>>()?;
        Ok(Self { shapes, layers, provenance: checkpoint.meta.provenance.clone(), spec })
    }

    /// The same network with one of its branches.
    pub fn specialise(&self, modality: Modality) -> Result<Self, ExportError> {
        let available = self.spec.modalities.clone();
        let row = available.iter().position(|&other| other == modality);
        let row = row.ok_or(ExportError::NoBranch { modality, available })?;
        let one = |layer: &FoldedLayer| FoldedLayer {
            affine: layer.affine.get(row).cloned().into_iter().collect(),
            ..layer.clone()
        };
        Ok(Self {
            spec: ModelSpec { modalities: vec![modality], ..self.spec.clone() },
            shapes: self.shapes.clone(),
            layers: self.layers.iter().map(one).collect(),
            provenance: self.provenance.clone(),
        })
    }
}

fn fold_layer(
    checkpoint: &Checkpoint,
    layer: &Layer,
    in_channels: usize,
    channels: usize,
) -> Result<FoldedLayer, ExportError> {
    let spec = &checkpoint.meta.spec;
    let spatial = |kernel: [usize; 3]| match spec.net.spatial {
        Spatial::D2 => kernel[1..].to_vec(),
        Spatial::D3 => kernel.to_vec(),
    };
    let (weight_shape, has_bias) = match &layer.op {
        Op::Conv(conv) => ([vec![channels, in_channels / conv.groups], spatial(conv.kernel)].concat(), conv.bias),
        Op::Deconv(deconv) => ([vec![in_channels, channels], spatial(deconv.kernel)].concat(), false),
        Op::Norm { .. } => (vec![], false),
        _ => return Ok(FoldedLayer::default()),
    };
    let weights = match weight_shape.is_empty() {
        true => vec![],
        false => checkpoint.tensor(&names::weight(&layer.name), &weight_shape)?.to_vec(),
    };
    let bias = match has_bias {
        true => checkpoint.tensor(&names::bias(&layer.name), &[channels])?.to_vec(),
        false => vec![0.; channels],
    };
    let affine = |&modality| match layer.has_norm() {
        true => fold_norm(checkpoint, &layer.name, modality, &bias),
        false => Ok(Affine { scale: vec![1.; channels], shift: bias.clone() }),
    };
    let affine = spec.modalities.iter().map(affine).collect::<Result<_, _>>()?;
    Ok(FoldedLayer { weights, weight_shape, affine })
}

fn fold_norm(checkpoint: &Checkpoint, layer: &str, modality: Modality, bias: &[f32]) -> Result<Affine, ExportError> {
    let vector = |param| checkpoint.tensor(&names::norm(layer, modality, param), &[bias.len()]);
    let [gamma, beta, mean, var] = NormParam::ALL.map(vector);
    let (gamma, beta, mean, var) = (gamma?, beta?, mean?, var?);
    let name = |param| names::norm(layer, modality, param);
    // Every int8 engine needs a positive factor, and some drop a negative one's sign without a word.
    expect(&name(NormParam::Gamma), gamma, "a positive factor", |value| value > 0.)?;
    expect(&name(NormParam::Var), var, "a variance of 0 or more", |value| value >= 0.)?;
    let fold = |channel: usize| {
        let scale = f64::from(gamma[channel]) / (f64::from(var[channel]) + f64::from(NORM_EPSILON)).sqrt();
        let centre = f64::from(bias[channel]) - f64::from(mean[channel]);
        (scale as f32, (f64::from(beta[channel]) + centre * scale) as f32)
    };
    let (scale, shift) = (0..bias.len()).map(fold).unzip();
    Ok(Affine { scale, shift })
}
