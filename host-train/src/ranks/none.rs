//! Stands in for MPI where the program is built without it: a world that nobody can make.

/// Has no value.
pub enum World {}

impl World {
    pub fn start() -> Option<Self> {
        None
    }

    pub fn rank(&self) -> usize {
        match *self {}
    }

    pub fn count(&self) -> usize {
        match *self {}
    }

    pub fn any(&self, _: bool) -> bool {
        match *self {}
    }

    pub fn sum(&self, _: &mut [f32]) {
        match *self {}
    }

    pub fn gather(&self, _: &[f32]) -> Vec<f32> {
        match *self {}
    }

    pub fn abort(&self, _: i32) {
        match *self {}
    }
}
