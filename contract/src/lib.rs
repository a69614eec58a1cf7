//! What the trainer, the exporter and the runtime must agree on, bit for bit.
//!
//! `no_std` with `alloc`, so that the device can be anything. If a constant stands in two other packages,
//! it belongs here.
#![no_std]

extern crate alloc;

pub mod golden;
mod grid;
mod intake;
mod intensity;
pub mod interpolate;
mod labels;
pub mod manifest;
mod modality;
pub mod names;
pub mod net;
pub mod quant;
pub mod tiles;

pub use grid::{Grid, GridError, MAX_SIDE, MAX_SPACING_MM, MIN_SPACING_MM, Plane, Resampler, neighbours};
pub use intake::Intake;
pub use intensity::{Intensity, IntensityError, Lut, Rule};
pub use labels::{Label, LabelMap};
pub use manifest::ModelSpec;
pub use modality::{Modality, UnknownModality};
pub use net::{Net, NetError};

/// Version of everything in this package. A checkpoint or model of another version is refused.
pub const VERSION: u32 = 1;
