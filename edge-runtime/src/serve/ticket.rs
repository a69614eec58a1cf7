//! Whose slice a frame holds: everything that the sinks need to know and the loop does not.

use std::{
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use contract::{Modality, Plane};
use dicom::{Identity, Orientation};
use dicom_object::InMemDicomObject;
use volume::Geometry;

use super::{refusal::Refusal, spool::Kept};
use crate::Code;

/// Goes with a slice from its source to the last sink.
#[derive(Debug)]
pub struct Ticket {
    /// The association or replay that brought it; 0 for what has no end.
    pub source: u64,
    /// The series it belongs to: a UID, or a NIfTI file's path.
    pub series: Arc<str>,
    /// Branch of the network.
    pub modality: Modality,
    /// Its pixels, canonical.
    pub plane: Plane,
    /// What it is.
    pub origin: Origin,
    /// The file that keeps it until the series is written.
    pub kept: Option<Arc<Kept>>,
    /// Who waits for its label map.
    pub waiter: Option<Arc<Waiter>>,
}

/// What a slice is part of.
#[derive(Debug)]
pub enum Origin {
    /// A frame of a DICOM instance.
    Dicom {
        /// The instance.
        identity: Arc<Identity>,
        /// Its elements without the pixels.
        header: Arc<InMemDicomObject>,
        /// Where the frame lies.
        place: dicom::Plane,
        /// How it becomes canonical.
        orientation: Orientation,
        /// Number of the frame, from 1, in an instance of several.
        frame: Option<u32>,
    },
    /// A slice of a NIfTI volume.
    Nifti {
        /// The file.
        path: Arc<PathBuf>,
        /// Its grid.
        geometry: Arc<Geometry>,
        /// Number of the slice, from 0, inferior to superior.
        z: usize,
    },
}

impl Ticket {
    /// The slice in words: instance and frame, or file and slice.
    pub fn name(&self) -> String {
        match &self.origin {
            Origin::Dicom { identity, frame: None, .. } => identity.sop_instance.clone(),
            Origin::Dicom { identity, frame: Some(frame), .. } => format!("{}#{frame}", identity.sop_instance),
            Origin::Nifti { path, z, .. } => format!("{}#{}", path.display(), z + 1),
        }
    }
}

/// Waits until all frames of an instance are through the loop.
#[derive(Debug)]
pub struct Waiter {
    left: Mutex<Left>,
    changed: Condvar,
}

#[derive(Debug)]
struct Left {
    frames: usize,
    refusal: Option<Refusal>,
}

impl Waiter {
    /// For so many frames.
    pub const fn new(frames: usize) -> Self {
        Self { left: Mutex::new(Left { frames, refusal: None }), changed: Condvar::new() }
    }

    /// One is through; with the reason where it has no label map.
    pub fn through(&self, refusal: Option<Refusal>) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.frames -= 1;
        left.refusal = left.refusal.take().or(refusal);
        self.changed.notify_all();
    }

    /// Waits for the rest, at most so long.
    ///
    /// # Errors
    /// Why the first frame without a label map has none; [`Code::LateDropped`] if frames are still missing.
    pub fn wait(&self, most: Duration) -> Result<(), Refusal> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(left, most, |left| left.frames > 0);
        let left = &*waited.unwrap_or_else(PoisonError::into_inner).0;
        match (left.frames, &left.refusal) {
            (0, None) => Ok(()),
            (0, Some(refusal)) => Err(refusal.clone()),
            _ => Err(Refusal::new(Code::LateDropped, format!("no label map within {} s", most.as_secs()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_hears_of_the_first_frame_without_a_label_map() {
        let waiter = Waiter::new(3);
        waiter.through(None);
        waiter.through(Some(Refusal::new(Code::LateOverflow, "second")));
        assert_eq!(waiter.wait(Duration::ZERO).unwrap_err().code, Code::LateDropped);
        waiter.through(Some(Refusal::new(Code::LateDropped, "third")));
        assert_eq!(waiter.wait(Duration::ZERO).unwrap_err().reason, "second");
        let waiter = Waiter::new(1);
        waiter.through(None);
        assert_eq!(waiter.wait(Duration::ZERO), Ok(()));
    }
}
