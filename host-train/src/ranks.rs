//! Several processes that train one network together, each with a part of every batch: the ranks of MPI.
//!
//! What is exchanged is chosen so that the outcome does not depend on who computed what. Logits are gathered, so that every
//! rank computes the losses of the whole batch, whose sums are over the batch; the gradient of its own part is then the
//! whole gradient's share, and the shares are added. Statistics of batch norms are taken over groups of the batch, which is
//! a setting, not over whatever a rank happens to hold: see [`crate::trainer::Settings::groups`].
//!
//! Without the feature `mpi` there is one rank, and nothing here does anything.

use std::fmt;

use tch::{Device, Kind, Tensor, no_grad};

#[cfg_attr(not(feature = "mpi"), path = "ranks/none.rs")]
#[cfg_attr(feature = "mpi", path = "ranks/world.rs")]
mod world;

use world::World;

/// What launchers tell every process about the number of processes: Open MPI's, and that of others and of SLURM's PMI.
const SIZES: [&str; 2] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"];

/// Why processes cannot train together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RanksError {
    /// Started side by side by a launcher that this program cannot talk to.
    #[error("started as one of {count} processes, but built without MPI: build with `--features mpi`")]
    NoMpi {
        /// As the launcher says.
        count: usize,
    },
    /// MPI says no.
    #[error("started as one of {count} processes, but MPI cannot be initialised")]
    Refused {
        /// As the launcher says.
        count: usize,
    },
    /// A batch that does not split.
    #[error(
        "--batch {batch} in {groups} --norm-groups on {ranks} ranks: expected ranks that divide groups that divide the batch"
    )]
    Parts {
        /// Images of a batch.
        batch: usize,
        /// Parts with statistics of their own.
        groups: usize,
        /// Processes.
        ranks: usize,
    },
}

/// The processes of this training.
#[derive(Default)]
pub struct Ranks {
    world: Option<World>,
}

impl fmt::Debug for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.count())
    }
}

impl Ranks {
    /// The processes that a launcher such as `mpirun` started together with this one; this one alone otherwise.
    pub fn start() -> Result<Self, RanksError> {
        let launched = |name| std::env::var(name).ok().and_then(|count| count.parse().ok());
        match SIZES.into_iter().find_map(launched) {
            Some(count) if count > 1 && cfg!(not(feature = "mpi")) => Err(RanksError::NoMpi { count }),
            Some(count) if count > 1 => Ok(Self { world: Some(World::start().ok_or(RanksError::Refused { count })?) }),
            _ => Ok(Self::default()),
        }
    }

    /// Whether a batch can be split.
    pub fn check(&self, batch: usize, groups: usize) -> Result<(), RanksError> {
        let ranks = self.count();
        let fits = groups > 0 && groups.is_multiple_of(ranks) && batch.is_multiple_of(groups);
        if fits { Ok(()) } else { Err(RanksError::Parts { batch, groups, ranks }) }
    }

    /// Which process this is, from 0. The first one writes files and talks.
    pub fn rank(&self) -> usize {
        self.world.as_ref().map_or(0, World::rank)
    }

    /// Number of processes.
    pub fn count(&self) -> usize {
        self.world.as_ref().map_or(1, World::count)
    }

    /// Whether any process says yes. All must ask.
    pub fn any(&self, yes: bool) -> bool {
        self.world.as_ref().map_or(yes, |world| world.any(yes))
    }

    /// Adds up a contiguous f32 tensor over all processes, in place. All must call.
    pub fn sum(&self, tensor: &mut Tensor) {
        let Some(world) = &self.world else { return };
        let mut values = numbers(tensor);
        world.sum(&mut values);
        no_grad(|| tensor.data().copy_(&Tensor::from_slice(&values).view(tensor.size().as_slice())));
    }

    /// The parts `[n / count, ..]` of all processes in their order, `[n, ..]`; gradients reach the own part. All must call.
    pub fn gather(&self, own: Tensor) -> Tensor {
        let Some(world) = &self.world else { return own };
        let values = numbers(&own);
        let parts = world.gather(&values);
        let part = |(rank, part): (usize, &[f32])| match rank == world.rank() {
            true => own.to_kind(Kind::Float),
            false => Tensor::from_slice(part).view(own.size().as_slice()).to_device(own.device()),
        };
        Tensor::cat(&parts.chunks_exact(values.len()).enumerate().map(part).collect::<Vec<_>>(), 0)
    }

    /// Ends all processes with a status; an error of one would leave the others waiting.
    pub fn abort(&self, status: i32) {
        if let Some(world) = &self.world {
            world.abort(status);
        }
    }
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
    let mut values = vec![0f32; tensor.numel()];
    tensor.copy_data(&mut values, tensor.numel());
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_is_a_world_of_its_own() {
        let ranks = Ranks::default();
        let mut tensor = Tensor::from_slice(&[1f32, 2.]);
        ranks.sum(&mut tensor);
        assert!(tensor.equal(&Tensor::from_slice(&[1f32, 2.])) && ranks.gather(tensor.shallow_clone()).equal(&tensor));
        assert_eq!((ranks.rank(), ranks.count(), ranks.any(true), ranks.any(false)), (0, 1, true, false));
        assert_eq!(ranks.check(8, 4), Ok(()));
        let error = ranks.check(8, 3).unwrap_err().to_string();
        assert!(error.contains("--batch 8 in 3 --norm-groups on 1 ranks"), "{error}");
    }
}
