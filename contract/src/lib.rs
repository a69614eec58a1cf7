//! What the trainer, the exporter and the runtime must agree on, bit for bit.
//!
//! `no_std` with `alloc`, so that the device can be anything. If a constant stands in two other packages,
//! it belongs here.
#![no_std]

extern crate alloc;

mod labels;
mod modality;

pub use labels::{Label, LabelMap};
pub use modality::{Modality, UnknownModality};

/// Version of everything in this package. A checkpoint or model of another version is refused.
pub const VERSION: u32 = 1;
