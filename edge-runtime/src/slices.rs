//! The slice loop: raw slice -> codes -> labels -> labels on the scanner's grid.
//!
//! A [`Segmenter`] takes all its memory when it is made. A slice that is refused becomes background and an error with its
//! reason; the slices after it are unharmed.

use std::time::Instant;

use contract::{Intake, Modality, Plane, neighbours, net::Spatial};

use crate::{EdgeError, Engine, Model, timing::Stages, window::Window};

/// Segments slices of one geometry and modality.
#[derive(Debug)]
pub struct Segmenter {
    modality: Modality,
    /// As many slices as the model has channels.
    window: Window,
    slices: usize,
    model_area: usize,
    image: Vec<i8>,
    labels: Vec<u8>,
    /// Times of the slices that were segmented.
    pub stages: Stages,
}

impl Segmenter {
    /// Takes the memory for slices of `plane`.
    pub fn new(model: &Model, modality: Modality, plane: Plane) -> Result<Self, EdgeError> {
        let spec = model.spec();
        if spec.net.spatial == Spatial::D3 {
            let expected = "a 2D network, for slices are segmented one by one";
            return Err(EdgeError::Spatial { name: spec.net.name.clone(), expected });
        }
        if !spec.modalities.contains(&modality) {
            return Err(EdgeError::Modality { wanted: modality, available: spec.modalities.clone() });
        }
        let grid = |source| EdgeError::Grid { path: model.path.clone(), source };
        let intake = Intake::new(modality, spec.intensity, plane, spec.grid).map_err(grid)?;
        let model_area = spec.grid.height * spec.grid.width;
        Ok(Self {
            modality,
            window: Window::new(intake, spec.slices(), model_area),
            slices: spec.slices(),
            model_area,
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
        if out.len() != self.window.area() {
            return Err(EdgeError::Length { what: "the label map", found: out.len(), expected: self.window.area() });
        }
        let start = Instant::now();
        self.prepare(engine, volume, z)?;
        let codes = Instant::now();
        engine.run(&self.image, self.modality, &mut self.labels)?;
        let labels = Instant::now();
        self.window.intake().resampler().labels_back(&self.labels, out);
        self.stages.record([start, codes, labels, Instant::now()]);
        Ok(())
    }

    /// Forgets the slices seen, before another volume of the same geometry.
    pub fn restart(&mut self) {
        self.window.restart();
    }

    /// Fills the model's image around slice `z`.
    fn prepare(&mut self, engine: &Engine, volume: &[i16], z: usize) -> Result<(), EdgeError> {
        let depth = volume.len() / self.window.area();
        for (neighbour, channel) in neighbours(z, depth, self.slices).zip(self.image.chunks_exact_mut(self.model_area))
        {
            let (codes, result) = self.window.codes(engine, volume, neighbour)?;
            if neighbour == z {
                result?;
            }
            channel.copy_from_slice(codes);
        }
        Ok(())
    }
}
