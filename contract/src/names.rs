//! Names of the tensors in a checkpoint and in a model file. Nothing else may spell them.

use alloc::{format, string::String};

use crate::Modality;

/// ONNX input: int8 codes (int8 file) or the reals they stand for (f32 file), `[1, slices, h, w]`.
pub const IMAGE: &str = "image";
/// ONNX input: int64 scalar, [`Modality::index`]; absent from single-modality files.
pub const MODALITY: &str = "modality";
/// ONNX output: `[1, classes, h, w]`, codes or reals as the image.
pub const LOGITS: &str = "logits";
/// ONNX output: int64 class per pixel, `[1, h, w]`; the lowest index wins a tie.
pub const LABELS: &str = "labels";

/// A vector that a norm owns per modality, one value per channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormParam {
    /// Factor; positive.
    Gamma,
    /// Offset.
    Beta,
    /// Moving mean.
    Mean,
    /// Moving variance.
    Var,
}

impl NormParam {
    /// All four, in the order of the tensors in a file.
    pub const ALL: [Self; 4] = [Self::Gamma, Self::Beta, Self::Mean, Self::Var];

    /// Last word of the tensor's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gamma => "gamma",
            Self::Beta => "beta",
            Self::Mean => "mean",
            Self::Var => "var",
        }
    }
}

/// Weights of a layer's (transposed) convolution: `enc2a.conv.weight`.
pub fn weight(layer: &str) -> String {
    format!("{layer}.conv.weight")
}

/// Bias of a layer's convolution: `head.conv.bias`.
pub fn bias(layer: &str) -> String {
    format!("{layer}.conv.bias")
}

/// A vector of a layer's norm: `enc2a.norm.mr.gamma`.
pub fn norm(layer: &str, modality: Modality, param: NormParam) -> String {
    format!("{layer}.norm.{modality}.{}", param.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_file_format() {
        assert_eq!(weight("enc2a"), "enc2a.conv.weight");
        assert_eq!(bias("head"), "head.conv.bias");
        assert_eq!(norm("enc2a", Modality::Mr, NormParam::Gamma), "enc2a.norm.mr.gamma");
    }
}
