//! MPI's world of processes: the few collective operations that the training needs.

use mpi::{
    Threading,
    collective::SystemOperation,
    environment::Universe,
    topology::SimpleCommunicator,
    traits::{Communicator, CommunicatorCollectives},
};

/// All processes of a launcher. MPI ends when this is dropped.
pub struct World {
    // Before the universe, which must be dropped last.
    all: SimpleCommunicator,
    _universe: Universe,
}

impl World {
    /// Joins; `None` if MPI was started before or refuses.
    pub fn start() -> Option<Self> {
        // One thread of several talks.
        let (universe, _) = mpi::initialize_with_threading(Threading::Funneled)?;
        Some(Self { all: universe.world(), _universe: universe })
    }

    pub fn rank(&self) -> usize {
        self.all.rank() as usize
    }

    pub fn count(&self) -> usize {
        self.all.size() as usize
    }

    pub fn any(&self, yes: bool) -> bool {
        let mut most = 0;
        self.all.all_reduce_into(&i32::from(yes), &mut most, SystemOperation::max());
        most > 0
    }

    pub fn sum(&self, values: &mut [f32]) {
        let own = values.to_vec();
        self.all.all_reduce_into(&own[..], values, SystemOperation::sum());
    }

    /// The values of all processes, one after the other; each gives as many.
    pub fn gather(&self, own: &[f32]) -> Vec<f32> {
        let mut all = vec![0.; own.len() * self.count()];
        self.all.all_gather_into(own, &mut all[..]);
        all
    }

    pub fn abort(&self, status: i32) {
        self.all.abort(status);
    }
}
