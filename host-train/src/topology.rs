//! The six ways of training that are compared: what CT and MR share.

use clap::ValueEnum;
use contract::{Modality, Net, NetError, net::Stage};
use serde::{Deserialize, Serialize};
use tch::Device;

use crate::net::{Network, Norms};

/// What CT and MR share in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// Nothing: a network per modality.
    Individual,
    /// Everything, norms included.
    Joint,
    /// Convolutions; norms per modality.
    JointMsn,
    /// Convolutions; norms per modality, with knowledge distillation between the two.
    Ummkd,
    /// Convolutions behind the encoder; each modality has an encoder of its own.
    YShape,
    /// Convolutions between encoder and decoder; each modality has its own of both.
    XShape,
}

impl Topology {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Individual, Self::Joint, Self::JointMsn, Self::Ummkd, Self::YShape, Self::XShape];

    /// Name on the command line and in provenance.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Individual => "individual",
            Self::Joint => "joint",
            Self::JointMsn => "joint-msn",
            Self::Ummkd => "ummkd",
            Self::YShape => "y-shape",
            Self::XShape => "x-shape",
        }
    }

    /// Whether the distillation is part of the objective.
    pub const fn distils(self) -> bool {
        matches!(self, Self::Ummkd)
    }

    /// Whose norms its shared layers have unless somebody asks for others.
    pub const fn norms(self) -> Norms {
        match self {
            Self::Joint => Norms::Shared,
            _ => Norms::PerModality,
        }
    }

    /// Whether the modalities have this part of the network in common.
    pub const fn shares(self, stage: Stage) -> bool {
        match self {
            Self::Individual => false,
            Self::Joint | Self::JointMsn | Self::Ummkd => true,
            Self::YShape => !matches!(stage, Stage::Encoder),
            Self::XShape => matches!(stage, Stage::Middle),
        }
    }

    /// The networks to train: one that knows both modalities, or one each, which may have tensors in common.
    pub fn networks(self, net: &Net, norms: Norms, seed: u64, device: Device) -> Result<Vec<Network>, NetError> {
        let [ct, mr] = Modality::ALL;
        match self {
            Self::Joint | Self::JointMsn | Self::Ummkd => {
                Ok(vec![Network::new(net, &Modality::ALL, norms, seed, device)?])
            }
            Self::Individual | Self::YShape | Self::XShape => {
                let common: Vec<bool> = net.stages()?.into_iter().map(|stage| self.shares(stage)).collect();
                let first = Network::new(net, &[ct], Norms::PerModality, seed, device)?;
                let second = Network::beside(&first, mr, norms, &common, seed)?;
                Ok(vec![first, second])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::net::{Role, Variable};

    fn trained(networks: &[Network], roles: &[Role]) -> usize {
        let variables = networks.iter().flat_map(Network::variables);
        variables.filter(|variable| roles.contains(&variable.role)).map(|variable| variable.tensor.numel()).sum()
    }

    /// Kernels and norms that are trained, counted from the layers' stages; no tensor is anybody's twice.
    #[test]
    fn every_topology_trains_what_its_stages_say() {
        for net in [Net::compact(1, 5, 4, 32, 32), Net::dilated2d(5, 2, 32, 32), Net::unet3d(5, 2, 8, 16, 16)] {
            let (counts, stages) = (net.layer_counts().unwrap(), net.stages().unwrap());
            for topology in Topology::ALL {
                for norms in [Norms::Shared, Norms::PerModality] {
                    let networks = topology.networks(&net, norms, 1, Device::Cpu).unwrap();
                    let copies = |stage, of_norms: bool| {
                        let shared = topology.shares(stage) && (!of_norms || norms == Norms::Shared);
                        if shared { 1 } else { 2 }
                    };
                    let layers = || counts.iter().zip(&stages);
                    let kernels: usize = layers().map(|(layer, &stage)| copies(stage, false) * layer.shared).sum();
                    let vectors: usize =
                        layers().map(|(layer, &stage)| copies(stage, true) * layer.norm_per_modality).sum();
                    let name = format!("{} {} {norms:?}", net.name, topology.name());
                    assert_eq!(trained(&networks, &[Role::Kernel, Role::Bias]), kernels, "{name}");
                    assert_eq!(trained(&networks, &[Role::Gamma, Role::Beta]), vectors, "{name}");
                    let variables: Vec<Variable<'_>> = networks.iter().flat_map(Network::variables).collect();
                    let places: HashSet<usize> = variables.iter().map(|v| v.tensor.data_ptr() as usize).collect();
                    assert_eq!(places.len(), variables.len(), "{name}");
                    let modalities: Vec<Modality> = networks.iter().flat_map(Network::modalities).copied().collect();
                    assert_eq!(modalities, Modality::ALL, "{name}");
                }
            }
        }
    }
}
