//! A queue on disk.
