//! Training: one network, unpaired CT and MRI, knowledge distillation between the two.

pub mod adam;
pub mod augment;
pub mod checkpoint;
pub mod data;
pub mod device;
pub mod diagnosis;
pub mod eval;
pub mod fingerprint;
pub mod import;
pub mod keep;
pub mod loader;
pub mod loss;
pub mod metrics;
pub mod net;
pub mod objective;
pub mod pace;
pub mod patches;
pub mod quirk;
pub mod ranks;
pub mod run;
pub mod running;
pub mod sampler;
pub mod schedule;
pub mod segment;
pub mod state;
pub mod store;
pub mod teacher;
pub mod throughput;
pub mod topology;
pub mod trainer;
pub mod validation;

#[cfg(test)]
mod test_support;
