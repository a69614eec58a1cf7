//! A [`contract::Net`] with weights: convolutions that all modalities share, one set of norms per modality.
//!
//! The variables are plain tensors that this module owns, not a `VarStore`: their names are then exactly those of the
//! contract, and the one-to-one map between a network and a checkpoint needs no translation table.

mod forward;
mod init;

use contract::{
    Modality, Net, NetError,
    names::{self, NormParam},
    net::{Layer, NormKind, Op, Shape, Spatial},
};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

/// Whether modalities that live in one network also share their norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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

/// Weight of the newest batch in the moving mean and variance (the paper's decay of 0.9, seen from the other side).
const MOMENTUM: f64 = 0.1;

/// The tensors of one layer.
#[derive(Debug, Default)]
struct Parts {
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    /// One per set of norms; empty for a layer without a norm.
    norms: Vec<Norm>,
    /// Weights and bias belong to another network, which counts them among its variables.
    borrows_kernels: bool,
    /// So do the norms.
    borrows_norms: bool,
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
    momentum: f64,
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
    /// The same tensors once more.
    fn shallow_clone(&self) -> Self {
        let gamma = match &self.gamma {
            Gamma::Positive(raw) => Gamma::Positive(raw.shallow_clone()),
            Gamma::Plain(gamma) => Gamma::Plain(gamma.shallow_clone()),
        };
        let [beta, mean, var] = [&self.beta, &self.mean, &self.var].map(Tensor::shallow_clone);
        Self { gamma, beta, mean, var }
    }

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
        Ok(Self {
            net: net.clone(),
            shapes,
            modalities: modalities.to_vec(),
            sharing: norms,
            device,
            parts,
            momentum: MOMENTUM,
        })
    }

    /// A network for another modality that has the convolutions of the layers in `common` together with `first`, and with
    /// shared norms those layers' norms as well: the same tensors, not copies.
    pub fn beside(
        first: &Self,
        modality: Modality,
        norms: Norms,
        common: &[bool],
        seed: u64,
    ) -> Result<Self, NetError> {
        let mut network = Self::new(&first.net, &[modality], Norms::PerModality, seed, first.device)?;
        let layers = network.parts.iter_mut().zip(&first.parts).zip(common);
        for (parts, lender) in layers.filter_map(|(pair, &shared)| shared.then_some(pair)) {
            parts.weight = lender.weight.as_ref().map(Tensor::shallow_clone);
            parts.bias = lender.bias.as_ref().map(Tensor::shallow_clone);
            parts.borrows_kernels = true;
            if norms == Norms::Shared {
                parts.norms = lender.norms.iter().map(Norm::shallow_clone).collect();
                parts.borrows_norms = true;
            }
        }
        Ok(network)
    }

    /// Sets the weight of the newest batch in the moving mean and variance.
    pub fn set_momentum(&mut self, momentum: f64) {
        self.momentum = momentum;
    }

    /// Sorts the channels in front of every pixel shuffle so that channel `q * factor + p` of a block, as drawn, goes to row
    /// `p` and column `q`, rather than channel `p * factor + q`.
    ///
    /// # Panics
    /// If a pixel shuffle does not stand right behind a convolution.
    pub fn transpose_phase_shifts(&mut self) {
        for layer in &self.net.layers {
            let Op::PixelShuffle { factor } = layer.op else { continue };
            let parts = &self.parts[layer.inputs[0].checked_sub(1).expect("a layer in front of the shuffle")];
            let factor = factor as i64;
            let source = |to: i64| {
                let (block, p, q) = (to / factor.pow(2), to / factor % factor, to % factor);
                block * factor.pow(2) + q * factor + p
            };
            let weight = parts.weight.as_ref().expect("a convolution in front of the shuffle");
            let order: Vec<i64> = (0..weight.size()[0]).map(source).collect();
            let order = Tensor::from_slice(&order).to_device(self.device);
            let sort = |tensor: &Tensor| no_grad(|| tensor.shallow_clone().copy_(&tensor.index_select(0, &order)));
            if !parts.borrows_kernels {
                parts.weight.iter().chain(&parts.bias).for_each(sort);
            }
            if !parts.borrows_norms {
                for norm in &parts.norms {
                    [norm.gamma.variable(), &norm.beta, &norm.mean, &norm.var].into_iter().for_each(sort);
                }
            }
        }
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
                let stored = params(net.norm);
                norm.gamma = Gamma::Plain(no_grad(|| norm.gamma.value()));
                let Norm { gamma: Gamma::Plain(gamma) | Gamma::Positive(gamma), beta, mean, var } = norm;
                for (param, tensor) in stored.iter().zip([gamma, beta, mean, var]) {
                    replace(names::norm(&layer.name, modality, *param), tensor)?;
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

    /// All trainable tensors that are the network's own, each once, in the order of the layers.
    pub fn variables(&self) -> Vec<Variable<'_>> {
        let mut variables = vec![];
        for (layer, parts) in self.net.layers.iter().zip(&self.parts) {
            let mut push = |name, role, tensor| variables.push(Variable { name, role, tensor });
            if let (Some(weight), false) = (&parts.weight, parts.borrows_kernels) {
                push(names::weight(&layer.name), Role::Kernel, weight);
            }
            if let (Some(bias), false) = (&parts.bias, parts.borrows_kernels) {
                push(names::bias(&layer.name), Role::Bias, bias);
            }
            for (norm, &modality) in parts.norms.iter().zip(&self.modalities).filter(|_| !parts.borrows_norms) {
                let name = |param| names::norm(&layer.name, modality, param);
                push(name(NormParam::Gamma), Role::Gamma, norm.gamma.variable());
                push(name(NormParam::Beta), Role::Beta, &norm.beta);
            }
        }
        variables
    }

    /// What the variables stand for, in their order: each as the network computes with it, and gammas rather than what they
    /// are computed from.
    pub fn values(&self) -> Vec<Tensor> {
        let mut values = vec![];
        for parts in &self.parts {
            if !parts.borrows_kernels {
                values.extend(parts.weight.iter().chain(&parts.bias).map(Tensor::shallow_clone));
            }
            for norm in parts.norms.iter().filter(|_| !parts.borrows_norms) {
                values.extend([norm.gamma.value(), norm.beta.shallow_clone()]);
            }
        }
        values
    }

    /// Moving means and variances of batch norms, named like the variables; those of borrowed norms too.
    pub fn running(&self) -> Vec<(String, &Tensor)> {
        let mut running = vec![];
        if !self.net.norm.is_batch() {
            return running;
        }
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
                    params(self.net.norm)
                        .iter()
                        .map(|&param| (names::norm(&layer.name, modality, param), no_grad(|| norm.get(param)))),
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

/// The vectors of a norm that a checkpoint holds: moving averages are of batch norms alone.
fn params(kind: NormKind) -> &'static [NormParam] {
    if kind.is_batch() { &NormParam::ALL } else { &NormParam::ALL[..2] }
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
mod form_tests;
#[cfg(test)]
mod tests;
