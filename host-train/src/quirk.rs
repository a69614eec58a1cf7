//! What the authors' released code does and its description does not say, each behind a switch of its own and off unless
//! asked for. Others of the kind have older names: `--kd-absent original`, and `--tiling flush` and
//! `--edge-slices-background` of the evaluation.

use contract::{Net, net::Op};
use serde::{Deserialize, Serialize};

use crate::net::Network;

/// A trait of the released code that trains another network than one would think.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Quirk {
    /// dilated2d: channels go to the pixels of each 8 x 8 block column by column, as TensorFlow's code did in batches. The
    /// checkpoint has the usual order, its kernels sorted to fit
    TransposedPhaseShift,
    /// unet3d: the two deeper transposed convolutions have one tap along z for a stride of 2, so that every second slice
    /// of theirs is zero
    HollowDeconv,
    /// The decay (--l2) counts twice, and for gammas, betas and biases too, as in the 3D code
    L2Everything,
    /// Moving averages of the joint topology's batch norms keep half of their past at every step instead of 0.9
    JointDecay,
}

/// Decay of the joint topology's moving averages in the released 3D code.
const JOINT_MOMENTUM: f64 = 0.5;

impl Quirk {
    /// Name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TransposedPhaseShift => "transposed-phase-shift",
            Self::HollowDeconv => "hollow-deconv",
            Self::L2Everything => "l2-everything",
            Self::JointDecay => "joint-decay",
        }
    }

    /// Whether a network's layers leave it something to change.
    pub fn concerns(self, net: &Net) -> bool {
        match self {
            Self::TransposedPhaseShift => {
                net.layers.iter().any(|layer| matches!(layer.op, Op::PixelShuffle { factor } if factor > 1))
            }
            Self::HollowDeconv => net.layers.iter().any(|layer| {
                matches!(&layer.op, Op::Deconv(deconv) if (0..3).any(|axis| deconv.kernel[axis] < deconv.stride[axis]))
            }),
            Self::L2Everything => true,
            Self::JointDecay => net.norm.is_batch(),
        }
    }

    /// Changes fresh networks; what changes their layers or the objective is done there.
    pub fn prepare(self, networks: &mut [Network]) {
        for network in networks {
            match self {
                Self::TransposedPhaseShift => network.transpose_phase_shifts(),
                Self::JointDecay => network.set_momentum(JOINT_MOMENTUM),
                Self::HollowDeconv | Self::L2Everything => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use contract::Modality;
    use tch::Device;

    use super::*;
    use crate::{
        net::Role,
        objective::Objective,
        test_support::{batch, settings},
        topology::Topology,
        trainer::{Amp, Settings, Trainer},
    };

    /// With nothing to learn but to be small: kernels shrink either way, gammas with the quirk only, and the objective says
    /// `l2` times the sum of squares, of which half would be usual.
    #[test]
    fn the_decay_reaches_everything_twice() {
        for quirks in [vec![], vec![Quirk::L2Everything]] {
            let everything = !quirks.is_empty();
            let objective = Objective { dice: 0., ce: 0., l2: 0.25, ..Objective::default() };
            let settings = Settings { quirks, objective, ..settings(Topology::JointMsn) };
            let mut trainer = Trainer::new(settings, Device::Cpu, Amp::Off).unwrap();
            let tensors = trainer.networks()[0].tensors();
            let trained = |name: &str| !name.ends_with(".mean") && !name.ends_with(".var");
            let counts = |name: &str| if everything { trained(name) } else { name.ends_with(".weight") };
            let squares = tensors.iter().filter(|(name, _)| counts(name));
            let squares: f64 =
                squares.map(|(_, tensor)| tensor.square().sum(tch::Kind::Double).double_value(&[])).sum();
            let before: Vec<_> = trainer.networks()[0].variables().iter().map(|v| v.tensor.copy()).collect();
            let terms = trainer.step([&batch(Modality::Ct, 0), &batch(Modality::Mr, 0)], true).unwrap();
            let expected = squares * 0.25 * if everything { 1. } else { 0.5 };
            assert!((terms.l2 / expected - 1.).abs() < 1e-5, "{} {expected}", terms.l2);
            for (variable, old) in trainer.networks()[0].variables().iter().zip(&before) {
                let moved = !variable.tensor.equal(old);
                // Biases and betas start at 0, which is as small as can be.
                let shrinks = variable.role == Role::Kernel || (everything && variable.role == Role::Gamma);
                assert_eq!(moved, shrinks, "{}", variable.name);
            }
        }
    }

    #[test]
    fn quirks_know_their_networks() {
        let concerned = |quirk: Quirk| {
            let nets = [
                Net::compact(1, 5, 2, 32, 32),
                Net::dilated2d(5, 2, 32, 32),
                Net::unet3d(5, 2, 8, 16, 16),
                Net::unet3d_hollow(5, 2, 8, 16, 16),
            ];
            nets.map(|net| quirk.concerns(&net))
        };
        assert_eq!(concerned(Quirk::TransposedPhaseShift), [false, true, false, false]);
        assert_eq!(concerned(Quirk::HollowDeconv), [false, false, false, true]);
        assert_eq!(concerned(Quirk::JointDecay), [true; 4]);
    }
}
