//! The whole path behind training: a checkpoint through exporter and runtime, against the reference network and ONNX Runtime.

mod bad_input;
mod fixture;
mod float;
mod int8;
mod onnx_runtime;
mod phantom;
mod planned;
mod volumes;
