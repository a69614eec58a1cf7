//! The four ways of training that are compared: what CT and MR share.

use contract::{Modality, Net, NetError};
use serde::{Deserialize, Serialize};
use tch::Device;

use crate::net::{Network, Norms};

/// What CT and MR share in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// Nothing: a network each.
    Individual,
    /// Everything.
    Joint,
    /// Convolutions; a set of norms each.
    JointMsn,
    /// Convolutions, and distillation between the two.
    Ummkd,
}

impl Topology {
    /// Name on the command line and in provenance.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Individual => "individual",
            Self::Joint => "joint",
            Self::JointMsn => "joint-msn",
            Self::Ummkd => "ummkd",
        }
    }

    /// Whether the distillation is part of the objective.
    pub const fn distils(self) -> bool {
        matches!(self, Self::Ummkd)
    }

    /// The networks to train: one, or one per modality.
    pub fn networks(self, net: &Net, seed: u64, device: Device) -> Result<Vec<Network>, NetError> {
        let both = |norms| Ok(vec![Network::new(net, &Modality::ALL, norms, seed, device)?]);
        match self {
            Self::Individual => (Modality::ALL.iter())
                .map(|&modality| Network::new(net, &[modality], Norms::PerModality, seed, device))
                .collect(),
            Self::Joint => both(Norms::Shared),
            Self::JointMsn | Self::Ummkd => both(Norms::PerModality),
        }
    }
}
