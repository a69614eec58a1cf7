//! The front desk: every source hands its instances in here. An instance is decoded in its source's own thread, refused with
//! a code or turned into slices, and those are given to the dispatcher.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::SyncSender,
    },
    thread,
    time::{Duration, Instant},
};

use contract::{Modality, ModelSpec, Plane};
use dicom::{Frame, Identity, Image, Orientation};
use dicom_dictionary_std::tags;
use dicom_object::DefaultDicomObject;
use volume::raw;

use super::{
    book::{Book, Held},
    config::Config,
    dispatch::{Item, Slice},
    refusal::Refusal,
    rings::Bell,
    sources::guarded,
    spool::Kept,
    ticket::{Origin, Ticket, Waiter},
};
use crate::{Code, error::grid_code};

/// How often a patient source looks whether there is room.
const LOOK: Duration = Duration::from_millis(1);

/// Where all sources meet.
pub struct Desk {
    spec: ModelSpec,
    max_pixels: usize,
    max_slices: usize,
    /// Slices that may be under way for a patient source to go on.
    room: usize,
    inbox: SyncSender<Item>,
    bell: Arc<Bell>,
    /// Series that are not yet written.
    pub book: Book,
    under_way: AtomicUsize,
    next_source: AtomicU64,
    stopping: AtomicBool,
}

/// How an instance came.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// By which association, folder or replay.
    pub source: u64,
    /// Its first byte.
    pub begun: Instant,
    /// Its last byte.
    pub received: Instant,
    /// The file that keeps it.
    pub kept: Option<Arc<Kept>>,
    /// Whether the source waits until there is room, rather than having slices dropped.
    pub patient: bool,
}

impl Desk {
    /// Opens it.
    pub fn new(config: &Config, spec: &ModelSpec, inbox: SyncSender<Item>, bell: Arc<Bell>) -> Self {
        Self {
            spec: spec.clone(),
            max_pixels: config.slices.max_pixels,
            max_slices: config.series.max_slices,
            room: config.slices.frames.min(config.slices.backlog),
            inbox,
            bell,
            book: Book::new(&config.series),
            under_way: AtomicUsize::new(0),
            next_source: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
        }
    }

    /// A number for an association, folder or replay.
    pub fn source(&self) -> u64 {
        self.next_source.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes a DICOM instance. The waiter, where one is wanted, ends when all its label maps exist.
    ///
    /// # Errors
    /// [`Refusal`] of the whole instance.
    pub fn dicom(
        &self,
        object: DefaultDicomObject,
        arrival: &Arrival,
        wait: bool,
    ) -> Result<Option<Arc<Waiter>>, Refusal> {
        let image = guarded(|| Image::within(&object, self.max_pixels, self.max_slices))?;
        let identity = Arc::new(Identity::new(&object)?);
        self.serves(image.modality)?;
        let orient = |frame: &Frame| -> Result<_, Refusal> {
            let orientation = Orientation::new(&frame.plane)?;
            let plane = orientation.canonical(frame.plane.spacing_mm);
            self.fits(&plane)?;
            Ok((orientation, plane))
        };
        let orientations = image.frames.iter().map(orient).collect::<Result<Vec<_>, _>>()?;
        let series: Arc<str> = identity.series.as_str().into();
        let waiter = wait.then(|| Arc::new(Waiter::new(image.frames.len())));
        let held = Held { kept: arrival.kept.clone(), waiter: waiter.clone() };
        let header = self.book.enter(&identity, image.modality, &image.frames, header(object), held)?;
        let exponent = raw::exponent(image.modality, image.frames.iter().flat_map(Frame::values));
        let several = image.frames.len() > 1;
        for (index, (frame, (orientation, plane))) in image.frames.into_iter().zip(orientations).enumerate() {
            let ticket = Ticket {
                source: arrival.source,
                series: series.clone(),
                modality: image.modality,
                plane,
                origin: Origin::Dicom {
                    identity: identity.clone(),
                    header: header.clone(),
                    place: frame.plane,
                    orientation,
                    frame: several.then_some(index as u32 + 1),
                },
                kept: arrival.kept.clone(),
                waiter: waiter.clone(),
            };
            let values: Vec<i16> = frame.values().map(|value| raw::raw(value, exponent)).collect();
            let raw = orientation.indices().map(|index| values[index]).collect();
            // The frames of one instance come all at once: they have to wait for each other.
            self.hand_in(ticket, raw, arrival, arrival.patient || several)?;
        }
        Ok(waiter)
    }

    /// Takes a NIfTI volume, slice by slice.
    ///
    /// # Errors
    /// [`Refusal`] of the whole volume.
    pub fn nifti(&self, path: PathBuf, modality: Modality, arrival: &Arrival) -> Result<(), Refusal> {
        self.serves(modality)?;
        let image = volume::read_image(&path, modality).map_err(|error| Refusal::new(Code::Volume, error))?;
        let plane = image.plane();
        self.fits(&plane)?;
        let (path, geometry) = (Arc::new(path), Arc::new(image.geometry.clone()));
        for (z, raw) in image.raw.chunks_exact(plane.height * plane.width).enumerate() {
            let ticket = Ticket {
                source: arrival.source,
                series: path.to_string_lossy().as_ref().into(),
                modality,
                plane,
                origin: Origin::Nifti { path: path.clone(), geometry: geometry.clone(), z },
                kept: arrival.kept.clone(),
                waiter: None,
            };
            self.hand_in(ticket, raw.to_vec(), arrival, true)?;
        }
        Ok(())
    }

    /// Says that a source will bring nothing more, and whether it has brought all that it meant to.
    pub fn closed(&self, source: u64, whole: bool) {
        // The dispatcher ends after all sources, so this arrives.
        let _ = self.inbox.send(Item::Closed { source, whole });
        self.bell.ring();
    }

    /// A slice has left the loop.
    pub fn left(&self) {
        self.under_way.fetch_sub(1, Ordering::AcqRel);
    }

    /// Slices in the loop or before it.
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Acquire)
    }

    /// Takes nothing more.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether nothing more is taken.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn serves(&self, modality: Modality) -> Result<(), Refusal> {
        match self.spec.modalities.contains(&modality) {
            true => Ok(()),
            false => Err(Refusal::new(Code::ModelModality, format!("the model has no branch for {modality}"))),
        }
    }

    fn fits(&self, plane: &Plane) -> Result<(), Refusal> {
        plane.check().map_err(|error| Refusal::new(grid_code(&error), error))?;
        let (Plane { height, width, .. }, most) = (plane, self.max_pixels);
        match height * width <= most {
            true => Ok(()),
            false => {
                let found = format!("{width} x {height} pixels: expected at most {most} (slices.max_pixels)");
                Err(Refusal::new(Code::DicomSize, found))
            }
        }
    }

    fn hand_in(&self, ticket: Ticket, raw: Vec<i16>, arrival: &Arrival, patient: bool) -> Result<(), Refusal> {
        let stopped = || Refusal::new(Code::Stopping, "the service is ending");
        let (mut begun, mut received) = (arrival.begun, arrival.received);
        if patient {
            while self.under_way() >= self.room {
                if self.stopping() && ticket.kept.is_none() && ticket.waiter.is_none() {
                    return Err(stopped());
                }
                thread::sleep(LOOK);
            }
            // It could have come now: a patient source's slices do not age before they are let in.
            begun = Instant::now().max(begun);
            received = begun;
        }
        self.under_way.fetch_add(1, Ordering::AcqRel);
        let slice = Slice { ticket: Arc::new(ticket), raw, begun, received, decoded: Instant::now() };
        if self.inbox.send(Item::Slice(Box::new(slice))).is_err() {
            self.left();
            return Err(stopped());
        }
        self.bell.ring();
        Ok(())
    }
}

/// The elements beside the pixels.
fn header(object: DefaultDicomObject) -> dicom_object::InMemDicomObject {
    let mut header = object.into_inner();
    // Large, and of no use to what is made of it.
    for tag in [tags::PIXEL_DATA, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE] {
        header.remove_element(tag);
    }
    header
}
