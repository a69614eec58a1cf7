//! DICOM message exchange (PS3.7, PS3.8) over TCP or TLS: a receiver of C-STORE and C-ECHO that no client can starve, a sender,
//! and a queue on disk between a program and a destination that may be away.

pub mod client;
mod command;
pub mod queue;
pub mod server;
pub mod tls;
mod wire;
