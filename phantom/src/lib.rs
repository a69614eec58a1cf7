//! Synthetic patients with exact labels, so that everything else can be trained, tested and shown without anybody's data.
//!
//! A subject is drawn from a seed in three steps that know nothing of one another: an anatomy of smooth implicit shapes
//! in patient coordinates, painted onto the voxels of a scanner, and the physics of that scanner (CT: attenuation, photon
//! noise and beam hardening through a back-projection; MRI: a spin echo from relaxation times, coil sensitivity, Rician
//! noise). Organs share their intensities with their neighbours on purpose: where they lie and what shape they have tells
//! them apart, not how bright they are.
//!
//! What it is not: a model of disease, of motion, of metal, of a particular scanner, or a replacement for real scans.

#![forbid(unsafe_code)]

mod abdomen;
mod builder;
mod ct;
mod field;
mod grid;
mod heart;
mod mr;
mod random;
mod scene;
mod shape;
mod subject;
mod tissue;

pub use grid::Grid;
pub use subject::{Anatomy, Rendered, Subject, SubjectOptions};
