//! The slice loop: raw slice -> codes -> labels -> labels on the scanner's grid.
//!
//! A [`Segmenter`] takes all its memory when it is made. A slice that is refused becomes background and an error with its
//! reason; the slices after it are unharmed.

use std::time::Instant;

use contract::{Intake, IntensityError, Modality, Plane, neighbours, net::Spatial};

use crate::{EdgeError, Engine, Model, timing::Stages};

/// Segments slices of one geometry and modality.
#[derive(Debug)]
pub struct Segmenter {
    modality: Modality,
    intake: Intake,
    area: usize,
    model_area: usize,
    /// Codes of the last slices, one slot per channel of the model; slice `z` lies in slot `z % slots`.
    window: Vec<Slot>,
    image: Vec<i8>,
    labels: Vec<u8>,
    /// Times of the slices that were segmented.
    pub stages: Stages,
}

/// The codes of one slice, and whether it may be segmented.
#[derive(Clone, Debug)]
struct Slot {
    slice: Option<usize>,
    codes: Vec<i8>,
    result: Result<(), IntensityError>,
}

impl Segmenter {
    /// Takes the memory for slices of `plane`.
    pub fn new(model: &Model, modality: Modality, plane: Plane) -> Result<Self, EdgeError> {
        let spec = model.spec();
        if spec.net.spatial == Spatial::D3 {
            return Err(EdgeError::Spatial { name: spec.net.name.clone() });
        }
        if !spec.modalities.contains(&modality) {
            return Err(EdgeError::Modality { wanted: modality, available: spec.modalities.clone() });
        }
        let grid = |source| EdgeError::Grid { path: model.path.clone(), source };
        let intake = Intake::new(modality, spec.intensity, plane, spec.grid).map_err(grid)?;
        let model_area = spec.grid.height * spec.grid.width;
        let slot = Slot { slice: None, codes: vec![i8::MIN; model_area], result: Ok(()) };
        Ok(Self {
            modality,
            intake,
            area: plane.height * plane.width,
            model_area,
            window: vec![slot; spec.slices()],
            image: vec![0; spec.slices() * model_area],
            labels: vec![0; model_area],
            stages: Stages::default(),
        })
    }

    /// Segments slice `z` of `volume` (`[z][y][x]`) into `out` (`[y][x]`).
    ///
    /// # Errors
    /// [`EdgeError::Slice`] if the slice itself must not be segmented, [`EdgeError::Run`] if the engine fails; `out` is
    /// background then. A neighbour that must not be segmented is seen as all dark ([`Intake::codes`]).
    pub fn segment(&mut self, engine: &mut Engine, volume: &[i16], z: usize, out: &mut [u8]) -> Result<(), EdgeError> {
        out.fill(0);
        if out.len() != self.area {
            return Err(EdgeError::Length { what: "the label map", found: out.len(), expected: self.area });
        }
        let start = Instant::now();
        self.prepare(engine, volume, z)?;
        let codes = Instant::now();
        engine.run(&self.image, self.modality, &mut self.labels)?;
        let labels = Instant::now();
        self.intake.resampler().labels_back(&self.labels, out);
        self.stages.record([start, codes, labels, Instant::now()]);
        Ok(())
    }

    /// Forgets the slices seen, before another volume of the same geometry.
    pub fn restart(&mut self) {
        self.window.iter_mut().for_each(|slot| slot.slice = None);
    }

    /// Fills the model's image around slice `z`.
    fn prepare(&mut self, engine: &Engine, volume: &[i16], z: usize) -> Result<(), EdgeError> {
        let (depth, slots) = (volume.len() / self.area, self.window.len());
        for (neighbour, channel) in neighbours(z, depth, slots).zip(self.image.chunks_exact_mut(self.model_area)) {
            let Some(slot) = self.window.get_mut(neighbour % slots) else { continue };
            if slot.slice != Some(neighbour) {
                let Some(raw) = volume.chunks_exact(self.area).nth(neighbour) else {
                    let expected = (neighbour + 1) * self.area;
                    return Err(EdgeError::Length { what: "the volume", found: volume.len(), expected });
                };
                slot.result = engine.codes(&mut self.intake, raw, &mut slot.codes);
                slot.slice = Some(neighbour);
            }
            if neighbour == z {
                slot.result?;
            }
            channel.copy_from_slice(&slot.codes);
        }
        Ok(())
    }
}
