//! The product on the edge: loads one `model.onnx`, fixes the modality, and segments slices.
//!
//! Start-up may parse, allocate and refuse with many words; the slice loop does none of the three. A library as well as a
//! program, so that tests and benches run what the device runs.

pub mod bench;
mod codes;
pub mod engine;
mod error;
pub mod inspect;
pub mod kernels;
mod model;
pub mod profile;
pub mod segment;
pub mod selftest;
pub mod serve;
mod slices;
pub mod sustained;
mod tiles;
pub mod timing;
mod window;

pub use codes::Code;
pub use engine::{Engine, Logits};
pub use error::{EdgeError, slice_code};
pub use model::Model;
pub use slices::Segmenter;
pub use tiles::TileSegmenter;
