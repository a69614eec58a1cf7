//! A [`contract::Net`] with weights: convolutions that all modalities share, one set of norms per modality.
//!
//! The variables are plain tensors that this module owns, not a `VarStore`: their names are then exactly those of the
//! contract, and the one-to-one map between a network and a checkpoint needs no translation table.

mod forward;
mod init;

use contract::{
    Modality, Net, NetError,
    names::{self, NormParam},
    net::{Layer, Op, Shape, Spatial},
};
use tch::{Device, Kind, Tensor, no_grad};

/// Whether modalities that live in one network also share their norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norms {
    /// One set for all (the `joint` baseline).
    Shared,
    /// One set each.
    PerModality,
}

/// What a variable is; the optimiser's decay and the checkpoint treat the kinds differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Weights of a convolution: the only variables under L2 decay.
    Kernel,
    /// Bias of a convolution.
    Bias,
    /// Factor of a norm, or what it is computed from.
    Gamma,
    /// Offset of a norm.
    Beta,
}

/// A trainable tensor and its name, which is unique within a network.
pub struct Variable<'a> {
    /// Name in the manner of a checkpoint.
    pub name: String,
    /// Kind.
    pub role: Role,
    /// The variable.
    pub tensor: &'a Tensor,
}

/// The factor of a norm.
#[derive(Debug)]
enum Gamma {
    /// `softplus(raw)`: positive whatever the optimiser does, so that it folds into an int8 requantisation multiplier.
    Positive(Tensor),
    /// Itself: norms that follow no convolution, and every norm of a network that was read from a file.
    Plain(Tensor),
}

/// One set of a norm layer, `[channels]` each.
#[derive(Debug)]
struct Norm {
    gamma: Gamma,
    beta: Tensor,
    mean: Tensor,
    var: Tensor,
}

/// The tensors of one layer.
#[derive(Debug, Default)]
struct Parts {
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    /// One per set of norms; empty for a layer without a norm.
    norms: Vec<Norm>,
}

/// A network with weights.
#[derive(Debug)]
pub struct Network {
    net: Net,
    shapes: Vec<Shape>,
    modalities: Vec<Modality>,
    sharing: Norms,
    device: Device,
    parts: Vec<Parts>,
}

impl Gamma {
    fn variable(&self) -> &Tensor {
        match self {
            Self::Positive(raw) => raw,
            Self::Plain(gamma) => gamma,
        }
    }

    fn value(&self) -> Tensor {
        match self {
            Self::Positive(raw) => raw.softplus(),
            Self::Plain(gamma) => gamma.shallow_clone(),
        }
    }
}

impl Norm {
    fn get(&self, param: NormParam) -> Tensor {
        match param {
            NormParam::Gamma => self.gamma.value(),
            NormParam::Beta => self.beta.shallow_clone(),
            NormParam::Mean => self.mean.shallow_clone(),
            NormParam::Var => self.var.shallow_clone(),
        }
    }
}

impl Network {
    /// A network with fresh weights for `modalities`, the same for a given seed on every device.
    pub fn new(net: &Net, modalities: &[Modality], norms: Norms, seed: u64, device: Device) -> Result<Self, NetError> {
        let shapes = net.shapes()?;
        let sets = if norms == Norms::Shared { 1 } else { modalities.len() };
        let mut source = init::Source::new(net, seed);
        let parts = (net.layers.iter().enumerate())
            .map(|(index, layer)| {
                let (input, output) = (shapes[layer.inputs[0]], shapes[index + 1]);
                let sets = if layer.has_norm() { sets } else { 0 };
                init::layer(layer, net.spatial, input.channels, output.channels, sets, &mut source, device)
            })
            .collect();
        Ok(Self { net: net.clone(), shapes, modalities: modalities.to_vec(), sharing: norms, device, parts })
    }

    /// A network for inference from the tensors of a checkpoint; `find` answers each name with a tensor of the given shape.
    pub fn from_tensors<E: From<NetError>>(
        net: &Net,
        modalities: &[Modality],
        device: Device,
        mut find: impl FnMut(&str, &[usize]) -> Result<Tensor, E>,
    ) -> Result<Self, E> {
        let mut network = Self::new(net, modalities, Norms::PerModality, 0, device)?;
        for (layer, parts) in network.net.layers.iter().zip(&mut network.parts) {
            let mut replace = |name: String, tensor: &mut Tensor| -> Result<(), E> {
                let shape: Vec<usize> = tensor.size().iter().map(|&side| side as usize).collect();
                let found = find(&name, &shape)?;
                no_grad(|| tensor.copy_(&found));
                Ok(())
            };
            parts.weight.as_mut().map_or(Ok(()), |weight| replace(names::weight(&layer.name), weight))?;
            parts.bias.as_mut().map_or(Ok(()), |bias| replace(names::bias(&layer.name), bias))?;
            for (norm, &modality) in parts.norms.iter_mut().zip(modalities) {
                norm.gamma = Gamma::Plain(no_grad(|| norm.gamma.value()));
                let Norm { gamma: Gamma::Plain(gamma) | Gamma::Positive(gamma), beta, mean, var } = norm;
                for (param, tensor) in NormParam::ALL.into_iter().zip([gamma, beta, mean, var]) {
                    replace(names::norm(&layer.name, modality, param), tensor)?;
                }
            }
        }
        Ok(network)
    }

    /// The layers.
    pub const fn net(&self) -> &Net {
        &self.net
    }

    /// The modalities it can be asked for.
    pub fn modalities(&self) -> &[Modality] {
        &self.modalities
    }

    /// Where its tensors live.
    pub const fn device(&self) -> Device {
        self.device
    }

    /// All trainable tensors, each once, in the order of the layers.
    pub fn variables(&self) -> Vec<Variable<'_>> {
        let mut variables = vec![];
        for (layer, parts) in self.net.layers.iter().zip(&self.parts) {
            let mut push = |name, role, tensor| variables.push(Variable { name, role, tensor });
            if let Some(weight) = &parts.weight {
                push(names::weight(&layer.name), Role::Kernel, weight);
            }
            if let Some(bias) = &parts.bias {
                push(names::bias(&layer.name), Role::Bias, bias);
            }
            for (norm, &modality) in parts.norms.iter().zip(&self.modalities) {
                let name = |param| names::norm(&layer.name, modality, param);
                push(name(NormParam::Gamma), Role::Gamma, norm.gamma.variable());
                push(name(NormParam::Beta), Role::Beta, &norm.beta);
            }
        }
        variables
    }

    /// Moving means and variances, named like the variables.
    pub fn running(&self) -> Vec<(String, &Tensor)> {
        let mut running = vec![];
        for (layer, parts) in self.net.layers.iter().zip(&self.parts) {
            for (norm, &modality) in parts.norms.iter().zip(&self.modalities) {
                running.push((names::norm(&layer.name, modality, NormParam::Mean), &norm.mean));
                running.push((names::norm(&layer.name, modality, NormParam::Var), &norm.var));
            }
        }
        running
    }

    /// The tensors of a checkpoint: every name of the contract for every modality, with the actual gammas. A shared norm
    /// stands in it once per modality, because readers know only norms per modality.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let mut tensors = vec![];
        for (layer, parts) in self.net.layers.iter().zip(&self.parts) {
            let shared = [(&parts.weight, names::weight(&layer.name)), (&parts.bias, names::bias(&layer.name))];
            tensors.extend(
                shared.into_iter().filter_map(|(tensor, name)| tensor.as_ref().map(|t| (name, t.shallow_clone()))),
            );
            if parts.norms.is_empty() {
                continue;
            }
            for &modality in &self.modalities {
                let norm = &parts.norms[self.set(modality)];
                tensors.extend(
                    NormParam::ALL
                        .map(|param| (names::norm(&layer.name, modality, param), no_grad(|| norm.get(param)))),
                );
            }
        }
        tensors
    }

    /// Which set of norms a modality uses.
    ///
    /// # Panics
    /// If the network does not know the modality.
    fn set(&self, modality: Modality) -> usize {
        let position = self.modalities.iter().position(|&known| known == modality);
        let position = position.unwrap_or_else(|| panic!("the network knows {:?}, not {modality}", self.modalities));
        if self.sharing == Norms::Shared { 0 } else { position }
    }

    /// Classes per pixel, `[n, (d,) h, w]`: the lowest index wins a tie, as in the exported model.
    pub fn labels(&self, image: &Tensor, modality: Modality) -> Tensor {
        no_grad(|| self.forward(image, modality, false).argmax(1, false)).to_kind(Kind::Uint8)
    }
}

/// Whether a layer's norm disappears into a convolution on export, which asks for a positive gamma.
fn folds(layer: &Layer) -> bool {
    matches!(layer.op, Op::Conv(_) | Op::Deconv(_))
}

/// The axes that a network has: `[depth, height, width]` without the depth in 2D.
pub(crate) fn axes(spatial: Spatial, sizes: [usize; 3]) -> Vec<i64> {
    let first = if spatial == Spatial::D2 { 1 } else { 0 };
    sizes[first..].iter().map(|&size| size as i64).collect()
}

/// The same values with channels innermost: the layout in which libtorch's CPU convolutions take a third less time.
///
/// The strides are set by hand, because those of a single channel could as well be the usual ones, and then every layer
/// would fall back to them.
pub fn channels_last(tensor: &Tensor) -> Tensor {
    if tensor.dim() < 4 {
        return tensor.shallow_clone();
    }
    let size = tensor.size();
    let axes: Vec<i64> = [0].into_iter().chain(2..size.len() as i64).chain([1]).collect();
    let mut strides = vec![1; size.len()];
    let mut step = size[1];
    for axis in (2..size.len()).rev().chain([0]) {
        strides[axis] = step;
        step *= size[axis];
    }
    tensor.permute(axes).contiguous().as_strided(size, strides, None)
}

#[cfg(test)]
mod tests;
