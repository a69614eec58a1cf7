//! What the tests of the whole path compare with: the network as nested loops, and the two files it meets in.
//!
//! Depends on the contract alone and on no product, so that a mistake of the exporter or the runtime cannot repeat itself here.
//! The facts themselves stand in `tests/`.

pub mod checkpoint;
pub mod model_file;
pub mod reference;
pub mod workspace;
