//! Checkpoint to ONNX, on the host, once: fold the norms, watch the network on real slices, quantise, write.
//!
//! ```text
//! checkpoint.safetensors -> checkpoint -> fold -> float ------------------------------> model.f32.onnx
//!                                           |       `-> (equalise) -> calibrate -> quantise -> (correct) -> int8 -> model.onnx
//!                            data sets -> samples ---------^       (histogram)    (factors)   (choose)       `-> report
//! ```
//! Everything is a function from data to data; only the program touches files.

pub mod accuracy;
pub mod branch;
pub mod calibrate;
pub mod checkpoint;
pub mod choose;
pub mod correct;
pub mod engine;
pub mod equalise;
mod error;
mod export;
pub mod factors;
pub mod float;
pub mod fold;
pub mod groups;
pub mod histogram;
pub mod inspect;
pub mod int8;
pub mod onnx;
pub mod phases;
pub mod quantise;
pub mod recipe;
pub mod report;
pub mod samples;
pub mod sums;
pub mod ties;

pub use checkpoint::Checkpoint;
pub use error::ExportError;
pub use export::{Export, export, export_float, export_int8};
pub use fold::Folded;
pub use recipe::{Calibration, Recipe};
