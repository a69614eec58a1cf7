//! The running statistics of a network's norms, remembered and put back.
//!
//! Written through `data()`, which a gradient that is yet to be computed does not notice: in training it does not need them.

use tch::{Kind, Tensor, no_grad};

use crate::net::Network;

/// Means and variances at one moment.
#[derive(Debug)]
pub struct Running(Vec<Tensor>);

impl Running {
    /// Those of a network now.
    pub fn of(network: &Network) -> Self {
        Self(no_grad(|| network.running().into_iter().map(|(_, tensor)| tensor.copy()).collect()))
    }

    /// Makes them those of a network again.
    pub fn put_back(&self, network: &Network) {
        no_grad(|| network.running().iter().zip(&self.0).for_each(|((_, tensor), old)| tensor.data().copy_(old)));
    }

    /// What a network's statistics have moved by since, in one flat tensor.
    pub fn moved(&self, network: &Network) -> Tensor {
        let moved = |((_, now), old): ((String, &Tensor), &Tensor)| now.detach().flatten(0, -1) - old.flatten(0, -1);
        let moved: Vec<Tensor> = no_grad(|| network.running().into_iter().zip(&self.0).map(moved).collect());
        match moved[..] {
            // Norms that are not batch norms have none.
            [] => Tensor::zeros([0], (Kind::Float, network.device())),
            _ => Tensor::cat(&moved, 0),
        }
    }

    /// Moves a network's statistics from here by what [`Self::moved`] has answered, or a mean of such answers. What none has
    /// moved keeps its bits.
    pub fn move_by(&self, network: &Network, moved: &Tensor) {
        let mut start = 0;
        for ((_, tensor), old) in network.running().iter().zip(&self.0) {
            let length = old.numel() as i64;
            let by = moved.narrow(0, start, length).view(old.size().as_slice());
            no_grad(|| tensor.data().copy_(&(old + by)));
            start += length;
        }
    }
}
