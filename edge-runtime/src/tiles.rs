//! Whole volumes through a 3D network, tile by tile: raw slices -> codes -> logits -> one label map.
//!
//! Which slices a tile shows and how much its logits weigh is the contract's ([`contract::tiles`]), so that label maps of an
//! int8 model have the same bits on every machine. Memory: the codes of a tile, its logits as the engine has them, and one
//! sum per class and voxel of a tile, whatever the length of the volume.

use std::time::Instant;

use contract::{
    Intake, IntensityError, Modality, Plane,
    net::Spatial,
    tiles::{Blend, Tiles, Tiling},
};

use crate::{EdgeError, Engine, Logits, Model, timing::Stages, window::Window};

/// Segments volumes of one geometry and modality.
#[derive(Debug)]
pub struct TileSegmenter {
    modality: Modality,
    window: Window,
    classes: usize,
    depth: usize,
    model_area: usize,
    image: Vec<i8>,
    /// The engine's own labels of a tile, which nobody needs.
    labels: Vec<u8>,
    /// Times of the tiles.
    pub stages: Stages,
}

impl TileSegmenter {
    /// Takes the memory for volumes of slices of `plane`.
    ///
    /// # Errors
    /// If the model is not a 3D network of one channel, lacks the modality, or the slices are impossible.
    pub fn new(model: &Model, modality: Modality, plane: Plane) -> Result<Self, EdgeError> {
        let spec = model.spec();
        if spec.net.spatial != Spatial::D3 || spec.slices() != 1 {
            let expected = "a 3D network of one channel, for volumes are segmented by tiles";
            return Err(EdgeError::Spatial { name: spec.net.name.clone(), expected });
        }
        if !spec.modalities.contains(&modality) {
            return Err(EdgeError::Modality { wanted: modality, available: spec.modalities.clone() });
        }
        let grid = |source| EdgeError::Grid { path: model.path.clone(), source };
        let intake = Intake::new(modality, spec.intensity, plane, spec.grid).map_err(grid)?;
        let (depth, model_area) = (spec.depth(), spec.grid.height * spec.grid.width);
        Ok(Self {
            modality,
            window: Window::new(intake, depth, model_area),
            classes: spec.labels.classes(),
            depth,
            model_area,
            image: vec![0; depth * model_area],
            labels: vec![0; depth * model_area],
            stages: Stages::default(),
        })
    }

    /// Segments `volume` (`[z][y][x]`) into `out`, of the same shape. Returns for every slice whether it was segmented; one that
    /// must not be is background, and all dark to the network.
    ///
    /// # Errors
    /// If the engine fails, or the volume is not of whole slices.
    pub fn segment(
        &mut self,
        engine: &mut Engine,
        volume: &[i16],
        tiling: Tiling,
        out: &mut [u8],
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Vec<Result<(), IntensityError>>, EdgeError> {
        let area = self.window.area();
        let slices = volume.len() / area;
        if slices == 0 || out.len() != slices * area || volume.len() != out.len() {
            let expected = slices.max(1) * area;
            return Err(EdgeError::Length { what: "the volume or its label map", found: out.len(), expected });
        }
        self.window.restart();
        let tiles = Tiles::new(slices, self.depth, tiling);
        let mut blend = Blend::new(tiles.clone(), self.classes, self.model_area);
        let mut results = vec![Ok(()); slices];
        for tile in 0..tiles.count() {
            let start = Instant::now();
            for (plane, z) in self.image.chunks_exact_mut(self.model_area).zip(tiles.shown(tile)) {
                let (codes, result) = self.window.codes(engine, volume, z)?;
                plane.copy_from_slice(codes);
                results[z] = result;
            }
            let codes = Instant::now();
            engine.run(&self.image, self.modality, &mut self.labels)?;
            let labels = Instant::now();
            let resampler = self.window.intake().resampler();
            let told = |z: usize, labels: &[u8]| {
                let out = &mut out[z * area..][..area];
                match results[z] {
                    Ok(()) => resampler.labels_back(labels, out),
                    Err(_) => out.fill(0),
                }
                progress(z + 1, slices);
            };
            match engine.logits() {
                Some(Logits::Codes(logits)) => blend.add(logits, told),
                Some(Logits::Reals(logits)) => blend.add(logits, told),
                None => return Err(EdgeError::Run { modality: self.modality, reason: "no logits".to_string() }),
            }
            self.stages.record([start, codes, labels, Instant::now()]);
        }
        Ok(results)
    }
}
