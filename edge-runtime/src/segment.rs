//! Whole volumes: every slice through the loop, or tiles of slices through a 3D network, label maps on exactly the input's grid, and a report of what was found and
//! what was refused.

use std::path::{Path, PathBuf};

use contract::{IntensityError, LabelMap, Modality, net::Spatial, tiles::Tiling};
use serde::Serialize;
use volume::{Image, VolumeError, components::keep_largest, overlay};

use crate::{EdgeError, Engine, Model, Segmenter, TileSegmenter, slice_code, timing::Stages};

/// Panels of an overlay, and the longer side of each, pixels.
const PANELS: usize = 6;
const PANEL_COLUMNS: usize = 3;
const PANEL_SIDE: usize = 384;

/// A segmented volume.
#[derive(Debug)]
pub struct Segmented {
    /// The input.
    pub image: Image,
    /// Classes, canonical `[z][y][x]` as the image.
    pub classes: Vec<u8>,
    /// Slices and organs.
    pub report: VolumeReport,
    /// Times.
    pub stages: Stages,
}

/// What was found in a volume.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VolumeReport {
    /// File.
    pub input: PathBuf,
    /// Shape `[z, y, x]` in canonical order.
    pub shape: [usize; 3],
    /// Spacing along x, y, z, mm.
    pub spacing_mm: [f64; 3],
    /// Slices that were segmented.
    pub segmented: usize,
    /// Slices of one value, which are background.
    pub blank: usize,
    /// Slices refused for another reason; background if the volume was written at all.
    pub refused: Vec<Refusal>,
    /// Voxels that were an organ's but not of its largest connected part; 0 unless those are taken away.
    pub removed_voxels: usize,
    /// Organs, in class order.
    pub organs: Vec<Organ>,
}

/// What a volume's label map is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Make slices background that are refused, rather than refusing the volume.
    pub allow_partial: bool,
    /// How the tiles of a 3D network lie on each other.
    pub tiling: Tiling,
    /// Keep of each organ only its largest connected part.
    pub largest_component: bool,
}

/// A slice that was not segmented.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// From 0, inferior to superior.
    pub slice: usize,
    /// Stable code.
    pub code: &'static str,
    /// The reason, with its numbers.
    pub reason: String,
}

/// An organ's size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Organ {
    /// Value in the label map.
    pub class: u8,
    /// Name.
    pub name: String,
    /// Voxels of the input's grid.
    pub voxels: u64,
    /// Volume, ml.
    pub ml: f64,
}

/// Reads and segments a volume; `progress` hears each finished slice. Nothing is written.
///
/// # Errors
/// [`EdgeError::Partial`] if a slice that is not blank was refused, unless `options.allow_partial`.
pub fn volume(
    model: &Model,
    engine: &mut Engine,
    modality: Modality,
    input: &Path,
    options: &Options,
    progress: impl FnMut(usize, usize),
) -> Result<Segmented, EdgeError> {
    let image = volume::read_image(input, modality)?;
    let depth = image.shape()[0];
    let mut classes = vec![0; image.raw.len()];
    let labelled = match model.spec().net.spatial {
        Spatial::D2 => by_slices(model, engine, &image, &mut classes, progress),
        Spatial::D3 => by_tiles(model, engine, &image, options.tiling, &mut classes, progress),
    };
    let (results, stages) = labelled.map_err(|error| match error {
        EdgeError::Grid { source, .. } => EdgeError::Grid { path: input.to_path_buf(), source },
        other => other,
    })?;
    let (mut segmented, mut blank, mut refused) = (0, 0, vec![]);
    for (z, result) in results.into_iter().enumerate() {
        match result {
            Ok(()) => segmented += 1,
            Err(IntensityError::Constant { .. }) => blank += 1,
            Err(error) => refused.push((z, error)),
        }
    }
    if let Some((first, error)) = refused.first().filter(|_| !options.allow_partial) {
        return Err(EdgeError::Partial {
            path: input.to_path_buf(),
            refused: refused.len(),
            slices: depth,
            first: *first,
            reason: format!("{}: {error}", slice_code(error)),
        });
    }
    let refusal = |&(slice, error): &(usize, IntensityError)| Refusal {
        slice,
        code: slice_code(&error).name(),
        reason: error.to_string(),
    };
    let labels = &model.spec().labels;
    let removed_voxels = match options.largest_component {
        true => keep_largest(&mut classes, image.shape(), labels),
        false => 0,
    };
    let report = VolumeReport {
        input: input.to_path_buf(),
        shape: image.shape(),
        spacing_mm: image.spacing_mm(),
        segmented,
        blank,
        refused: refused.iter().map(refusal).collect(),
        removed_voxels,
        organs: organs(labels, &classes, image.spacing_mm()),
    };
    Ok(Segmented { image, classes, report, stages })
}

/// Slice by slice whether it was segmented, and the times.
type Labelled = (Vec<Result<(), IntensityError>>, Stages);

fn by_slices(
    model: &Model,
    engine: &mut Engine,
    image: &Image,
    classes: &mut [u8],
    mut progress: impl FnMut(usize, usize),
) -> Result<Labelled, EdgeError> {
    let mut segmenter = Segmenter::new(model, image.modality, image.plane())?;
    let [depth, height, width] = image.shape();
    let mut results = Vec::with_capacity(depth);
    for (z, out) in classes.chunks_exact_mut(height * width).enumerate() {
        results.push(match segmenter.segment(engine, &image.raw, z, out) {
            Ok(()) => Ok(()),
            Err(EdgeError::Slice(error)) => Err(error),
            Err(error) => return Err(error),
        });
        progress(z + 1, depth);
    }
    Ok((results, segmenter.stages))
}

fn by_tiles(
    model: &Model,
    engine: &mut Engine,
    image: &Image,
    tiling: Tiling,
    classes: &mut [u8],
    progress: impl FnMut(usize, usize),
) -> Result<Labelled, EdgeError> {
    let mut segmenter = TileSegmenter::new(model, image.modality, image.plane())?;
    let results = segmenter.segment(engine, &image.raw, tiling, classes, progress)?;
    Ok((results, segmenter.stages))
}

impl Segmented {
    /// Writes the label map in the input's grid, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), EdgeError> {
        Ok(volume::write_labels(path, &self.image.geometry, &self.classes)?)
    }

    /// Writes a PNG with slices spread over the organs.
    pub fn write_overlay(&self, path: &Path, labels: &LabelMap) -> Result<(), EdgeError> {
        let (plane, shape) = (self.image.plane(), self.image.shape());
        let window = overlay::Window::of(self.image.modality, &self.image.raw);
        let area = plane.height * plane.width;
        let fault = |fault| EdgeError::from(VolumeError::new(path, fault));
        let panel = |z: usize| {
            let pixels = z * area..(z + 1) * area;
            let (raw, classes) = (&self.image.raw[pixels.clone()], &self.classes[pixels]);
            overlay::Picture::slice(raw, Some(classes), plane, window, labels, PANEL_SIDE).map_err(fault)
        };
        let slices = overlay::spread(&self.classes, shape, PANELS);
        let panels = slices.into_iter().map(panel).collect::<Result<Vec<_>, _>>()?;
        let montage = overlay::Picture::montage(&panels, PANEL_COLUMNS).map_err(fault)?;
        Ok(montage.write_png(path)?)
    }
}

fn organs(labels: &LabelMap, classes: &[u8], spacing_mm: [f64; 3]) -> Vec<Organ> {
    let mut counts = [0u64; 256];
    for &class in classes {
        counts[usize::from(class)] += 1;
    }
    let voxel_ml = spacing_mm.iter().product::<f64>() / 1000.;
    let organ = |(class, label): (u8, &contract::Label)| {
        let voxels = counts[usize::from(class)];
        Organ { class, name: label.name.clone(), voxels, ml: voxels as f64 * voxel_ml }
    };
    labels.organs().map(organ).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_litre_is_a_litre() {
        let classes: Vec<u8> = (0..2000).map(|i| if i < 1000 { 3 } else { 0 }).collect();
        let organs = organs(&LabelMap::abdomen(), &classes, [10., 10., 10.]);
        assert_eq!((organs[2].name.as_str(), organs[2].voxels, organs[2].ml), ("left kidney", 1000, 1000.));
        assert_eq!((organs[0].voxels, organs.len()), (0, 4));
    }
}
