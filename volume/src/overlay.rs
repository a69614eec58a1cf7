//! Pictures of slices: grey values in a window, classes as outlines with a light fill, millimetres to scale.
//!
//! Grey is interpolated, and a class boundary runs where the interpolated vote of the neighbouring voxels changes, so
//! that a 3 mm grid does not look like stairs. Nothing here is used for measuring.

use std::path::Path;

use contract::{LabelMap, Modality, Plane};

use crate::{Fault, VolumeError, atomic};

/// Part of the class colour inside an outline, of 256.
const FILL: u32 = 56;
/// Width of an outline, pixels of the picture.
const OUTLINE: usize = 2;
/// Between the panels of a montage and around it.
const GAP: usize = 6;
const BACKGROUND: [u8; 3] = [16, 18, 22];
/// Soft tissue: level 40 HU, width 400 HU.
const CT_WINDOW: Window = Window { low: -160, high: 240 };

/// Raw values that are black and white.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Black.
    pub low: i16,
    /// White.
    pub high: i16,
}

impl Window {
    /// Soft tissue for CT; for MR the 1st to the 99.5th percentile of `raw`.
    pub fn of(modality: Modality, raw: &[i16]) -> Self {
        let mut sorted = raw.to_vec();
        match (modality, sorted.len()) {
            (Modality::Ct, _) | (Modality::Mr, 0) => CT_WINDOW,
            (Modality::Mr, count) => {
                let mut rank = |per_mille: usize| *sorted.select_nth_unstable((count - 1) * per_mille / 1000).1;
                Self { low: rank(10), high: rank(995) }
            }
        }
    }

    fn grey(self, raw: f64) -> u8 {
        let width = (f64::from(self.high) - f64::from(self.low)).max(1.);
        // `as` saturates.
        ((raw - f64::from(self.low)) / width * 255.).round() as u8
    }
}

/// An sRGB picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[height][width][3]`.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// A slice `[y][x]` of `plane`, its longer side `side` pixels long, with `classes` (same shape) drawn over it in the
    /// colours of `labels`.
    pub fn slice(
        raw: &[i16],
        classes: Option<&[u8]>,
        plane: Plane,
        window: Window,
        labels: &LabelMap,
        side: usize,
    ) -> Result<Self, Fault> {
        let pixels = plane.height * plane.width;
        if raw.len() != pixels || classes.is_some_and(|classes| classes.len() != pixels) {
            let found = classes.map_or(raw.len(), |classes| classes.len().min(raw.len()));
            return Err(Fault::Length { found, expected: [1, plane.height, plane.width] });
        }
        let size_mm = [plane.height as f64 * plane.row_mm, plane.width as f64 * plane.column_mm];
        let pixel_mm = size_mm[0].max(size_mm[1]) / side as f64;
        if pixels == 0 || side == 0 || !(pixel_mm.is_finite() && size_mm[0] > 0. && size_mm[1] > 0.) {
            return Err(Fault::Picture { message: format!("a picture of {side} pixels for {size_mm:?} mm") });
        }
        let [height, width] = size_mm.map(|mm| ((mm / pixel_mm).round() as usize).max(1));
        let rows = taps(height, plane.height);
        let columns = taps(width, plane.width);
        let mut rgb = Vec::with_capacity(3 * width * height);
        let mut drawn = Vec::with_capacity(width * height);
        for row in &rows {
            for column in &columns {
                let corners = corners(*row, *column, plane.width);
                let value = corners.iter().map(|&(index, weight)| f64::from(raw[index]) * weight).sum();
                rgb.extend([window.grey(value); 3]);
                drawn.push(classes.map_or(0, |classes| vote(classes, &corners)));
            }
        }
        let mut picture = Self { width, height, rgb };
        picture.paint(&drawn, labels);
        Ok(picture)
    }

    /// Draws outlines and fills of `classes`, one per pixel.
    fn paint(&mut self, classes: &[u8], labels: &LabelMap) {
        for (index, &class) in classes.iter().enumerate() {
            if class == 0 {
                continue;
            }
            // A class that the map does not have is loud, not invisible.
            let color = labels.get(class).map_or([255, 0, 255], |label| label.color);
            let share = if self.on_outline(classes, index) { 256 } else { FILL };
            for (channel, &wanted) in self.rgb[3 * index..3 * index + 3].iter_mut().zip(&color) {
                let mixed = u32::from(*channel) * (256 - share) + u32::from(wanted) * share;
                *channel = (mixed / 256) as u8;
            }
        }
    }

    fn on_outline(&self, classes: &[u8], index: usize) -> bool {
        let (row, column) = (index / self.width, index % self.width);
        (1..=OUTLINE).any(|step| {
            let differs = |inside: bool, other: usize| !inside || classes[other] != classes[index];
            differs(row >= step, index.wrapping_sub(step * self.width))
                || differs(row + step < self.height, index + step * self.width)
                || differs(column >= step, index.wrapping_sub(step))
                || differs(column + step < self.width, index + step)
        })
    }

    /// Panels in rows of `columns`, each centred in a cell as large as the largest.
    pub fn montage(panels: &[Self], columns: usize) -> Result<Self, Fault> {
        if panels.is_empty() || columns == 0 {
            let message = format!("a montage of {} panels in {columns} columns", panels.len());
            return Err(Fault::Picture { message });
        }
        let columns = columns.min(panels.len());
        let cell_width = GAP + panels.iter().map(|panel| panel.width).max().unwrap_or(0);
        let cell_height = GAP + panels.iter().map(|panel| panel.height).max().unwrap_or(0);
        let width = GAP + columns * cell_width;
        let height = GAP + panels.len().div_ceil(columns) * cell_height;
        let mut montage = Self { width, height, rgb: BACKGROUND.repeat(width * height) };
        for (number, panel) in panels.iter().enumerate() {
            let left = GAP + number % columns * cell_width + (cell_width - GAP - panel.width) / 2;
            let top = GAP + number / columns * cell_height + (cell_height - GAP - panel.height) / 2;
            for (row, pixels) in panel.rgb.chunks_exact(3 * panel.width).enumerate() {
                let start = 3 * ((top + row) * width + left);
                montage.rgb[start..start + pixels.len()].copy_from_slice(pixels);
            }
        }
        Ok(montage)
    }

    /// The picture as the bytes of a PNG file.
    pub fn png(&self) -> Result<Vec<u8>, Fault> {
        let broken = |error: png::EncodingError| Fault::Picture { message: error.to_string() };
        let too_large = |_| Fault::Picture { message: format!("{} x {} pixels in a PNG", self.width, self.height) };
        let width = self.width.try_into().map_err(too_large)?;
        let height = self.height.try_into().map_err(too_large)?;
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_source_srgb(png::SrgbRenderingIntent::Perceptual);
        let mut writer = encoder.write_header().map_err(broken)?;
        writer.write_image_data(&self.rgb).map_err(broken)?;
        writer.finish().map_err(broken)?;
        Ok(bytes)
    }

    /// Writes a PNG file.
    pub fn write_png(&self, path: impl AsRef<Path>) -> Result<(), VolumeError> {
        let path = path.as_ref();
        let bytes = self.png().map_err(|fault| VolumeError::new(path, fault))?;
        atomic::write_bytes(path, &bytes).map_err(|error| VolumeError::new(path, error))
    }
}

/// `count` slices of a canonical label map, spread evenly over the part that has any class; the whole volume if none has.
pub fn spread(classes: &[u8], shape: [usize; 3], count: usize) -> Vec<usize> {
    let [depth, height, width] = shape;
    let labelled = |slice: &[u8]| slice.iter().any(|&class| class != 0);
    let mut with_classes =
        classes.chunks_exact((height * width).max(1)).enumerate().filter(|(_, slice)| labelled(slice)).map(|(z, _)| z);
    let first = with_classes.next();
    let (low, high) = (first.unwrap_or(0), with_classes.next_back().or(first).unwrap_or(depth.saturating_sub(1)));
    // In the middle of equal parts, because organs are small at their ends.
    let mut slices: Vec<usize> = (0..count).map(|part| low + (high - low + 1) * (2 * part + 1) / (2 * count)).collect();
    slices.dedup();
    slices
}

/// For each of `out` pixels, the two of `from` around its centre and the weight of the second.
fn taps(out: usize, from: usize) -> Vec<(usize, usize, f64)> {
    let tap = |index: usize| {
        let centre = (index as f64 + 0.5) * from as f64 / out as f64 - 0.5;
        let centre = centre.clamp(0., (from - 1) as f64);
        let low = centre as usize;
        (low, (low + 1).min(from - 1), centre.fract())
    };
    (0..out).map(tap).collect()
}

/// The four source pixels of a picture's pixel, and their weights.
fn corners(row: (usize, usize, f64), column: (usize, usize, f64), width: usize) -> [(usize, f64); 4] {
    let (top, bottom, down) = row;
    let (left, right, across) = column;
    [
        (top * width + left, (1. - down) * (1. - across)),
        (top * width + right, (1. - down) * across),
        (bottom * width + left, down * (1. - across)),
        (bottom * width + right, down * across),
    ]
}

/// The class with the largest weight; the first of equals.
fn vote(classes: &[u8], corners: &[(usize, f64); 4]) -> u8 {
    let weight = |class: u8| corners.iter().filter(|c| classes[c.0] == class).map(|c| c.1).sum::<f64>();
    let mut best = classes[corners[0].0];
    for &(index, _) in &corners[1..] {
        let class = classes[index];
        if class != best && weight(class) > weight(best) {
            best = class;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLANE: Plane = Plane { height: 4, width: 8, row_mm: 2., column_mm: 1. };
    const WINDOW: Window = Window { low: 0, high: 100 };

    #[test]
    fn a_slice_keeps_its_proportions_and_its_window() {
        let mut raw = [0; 32];
        raw[31] = 200;
        let picture = Picture::slice(&raw, None, PLANE, WINDOW, &LabelMap::abdomen(), 400).unwrap();
        assert_eq!((picture.width, picture.height), (400, 400));
        assert_eq!(picture.rgb[..3], [0; 3]);
        assert_eq!(picture.rgb[picture.rgb.len() - 3..], [255; 3]);
    }

    #[test]
    fn a_class_is_outlined_in_its_colour_and_lightly_filled() {
        let labels = LabelMap::abdomen();
        let classes: [u8; 32] = core::array::from_fn(|index| u8::from(index % 8 >= 4));
        let picture = Picture::slice(&[50; 32], Some(&classes), PLANE, WINDOW, &labels, 80).unwrap();
        let pixel = |row: usize, column: usize| &picture.rgb[3 * (row * 80 + column)..][..3];
        assert_eq!(pixel(40, 10), [128; 3]);
        assert_eq!(pixel(40, 40), labels.get(1).unwrap().color);
        assert_eq!(pixel(40, 38), [128; 3]);
        let fill = labels.get(1).unwrap().color.map(|c| ((128 * (256 - FILL) + u32::from(c) * FILL) / 256) as u8);
        assert_eq!(pixel(40, 60), fill);
    }

    #[test]
    fn a_png_gives_the_picture_back() {
        let picture = Picture { width: 3, height: 2, rgb: (0..18).collect() };
        let bytes = picture.png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut rgb).unwrap();
        assert_eq!((info.width, info.height, rgb), (3, 2, picture.rgb));
    }

    #[test]
    fn a_montage_holds_every_panel_once() {
        let panel = |value, width| Picture { width, height: 2, rgb: vec![value; 6 * width] };
        let montage = Picture::montage(&[panel(200, 4), panel(201, 2), panel(202, 4)], 2).unwrap();
        assert_eq!((montage.width, montage.height), (3 * GAP + 8, 3 * GAP + 4));
        for (value, pixels) in [(200, 8), (201, 4), (202, 8)] {
            assert_eq!(montage.rgb.iter().filter(|&&channel| channel == value).count(), 3 * pixels);
        }
        assert!(Picture::montage(&[], 2).is_err());
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let refused = Picture::slice(&[0; 31], None, PLANE, WINDOW, &LabelMap::abdomen(), 80);
        assert_eq!(refused, Err(Fault::Length { found: 31, expected: [1, 4, 8] }));
    }

    #[test]
    fn slices_spread_over_the_labelled_part() {
        let classes: Vec<u8> = (0..10).flat_map(|z| [0, u8::from((2..8).contains(&z))]).collect();
        assert_eq!(spread(&classes, [10, 1, 2], 3), [3, 5, 7]);
        assert_eq!(spread(&classes, [10, 1, 2], 1), [5]);
        assert_eq!(spread(&[0; 20], [10, 1, 2], 2), [2, 7]);
    }

    #[test]
    fn an_mr_window_is_made_of_percentiles() {
        let raw: Vec<i16> = (0..1001).rev().collect();
        assert_eq!(Window::of(Modality::Mr, &raw), Window { low: 10, high: 995 });
        assert_eq!(Window::of(Modality::Ct, &raw), CT_WINDOW);
    }
}
