//! Voxels in memory of their own, or in a file of the cache that is mapped.

use std::{fmt, fs::File, io, ops::Deref, path::Path, sync::Arc};

use bytemuck::Pod;
use memmap2::Mmap;

/// Voxels, read only.
#[derive(Clone)]
pub enum Values<T> {
    /// In memory.
    Owned(Vec<T>),
    /// In a file: the system reads pages as they are touched, and may drop them again.
    Mapped {
        /// The file, which other voxels share.
        file: Arc<Mmap>,
        /// First byte.
        start: usize,
        /// Number of voxels.
        len: usize,
    },
}

/// Maps a file of the cache.
///
/// # Errors
/// It cannot be opened or mapped; an empty file cannot.
pub fn map(path: &Path) -> io::Result<Arc<Mmap>> {
    let file = File::open(path)?;
    // SAFETY: files of the cache are written under another name and renamed, and never written to again, so the bytes stay
    // what they are. Who cuts one short by hand while a training runs ends that training (SIGBUS), as the README says.
    unsafe { Mmap::map(&file) }.map(Arc::new)
}

impl<T: Pod> Values<T> {
    /// `len` little-endian voxels from byte `start` of `file`. They are copied where the bytes are not the voxels as they are in
    /// memory: on big-endian machines, or at an odd address.
    ///
    /// # Panics
    /// If the file is shorter.
    pub fn in_file(file: &Arc<Mmap>, start: usize, len: usize) -> Self {
        let bytes = &file[start..start + len * size_of::<T>()];
        match bytemuck::try_cast_slice::<u8, T>(bytes) {
            Ok(_) if cfg!(target_endian = "little") || size_of::<T>() == 1 => {
                Self::Mapped { file: file.clone(), start, len }
            }
            _ => Self::Owned(bytes.chunks_exact(size_of::<T>()).map(from_le::<T>).collect()),
        }
    }
}

fn from_le<T: Pod>(bytes: &[u8]) -> T {
    let mut native = bytes.to_vec();
    if cfg!(target_endian = "big") {
        native.reverse();
    }
    bytemuck::pod_read_unaligned(&native)
}

impl<T: Pod> Deref for Values<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Owned(values) => values,
            Self::Mapped { file, start, len } => bytemuck::cast_slice(&file[*start..start + len * size_of::<T>()]),
        }
    }
}

impl<T> From<Vec<T>> for Values<T> {
    fn from(values: Vec<T>) -> Self {
        Self::Owned(values)
    }
}

impl<T: Pod + PartialEq> PartialEq for Values<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Values<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voxels_of_a_file_are_its_bytes_wherever_they_lie() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("voxels");
        std::fs::write(&path, [7, 0x34, 0x12, 0xff, 0xff, 9]).unwrap();
        let file = map(&path).unwrap();
        let odd = Values::<i16>::in_file(&file, 1, 2);
        assert_eq!((&odd[..], matches!(odd, Values::Owned(_))), (&[0x1234, -1][..], true));
        let even = Values::<i16>::in_file(&file, 0, 3);
        assert_eq!(even[..], [0x3407, -238, 0x9ff]);
        assert_eq!(matches!(even, Values::Mapped { .. }), cfg!(target_endian = "little"));
        assert_eq!(Values::<i8>::in_file(&file, 3, 2), vec![-1, -1].into());
        assert!(map(&folder.path().join("none")).is_err());
    }
}
