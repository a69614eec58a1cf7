//! Certificates and keys from PEM files, for both roles.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Our certificate chain.
    pub certificate: PathBuf,
    /// Our private key.
    pub key: PathBuf,
    /// Authorities of the other side's certificates; a receiver asks for none if absent, a sender needs it.
    pub authorities: Option<PathBuf>,
}
