//! From the scanner's pixels to the model's and back: the two grids share their centre.
//!
//! Down-sampling averages (a triangle as wide as the model's pixel), so that noise of a fine scanner grid does not alias;
//! weights are integers that sum to one exactly, so a resampled slice has the same bits on every machine. Columns are
//! averaged first, then rows, each to whole raw values: 16-bit products and sums are what every CPU does fastest.

use alloc::{vec, vec::Vec};

use serde::{Deserialize, Serialize};

/// The model's pixels: square, `height` rows of `width`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Edge of a pixel, mm.
    pub spacing_mm: f32,
}

/// The pixels of a slice as the scanner made it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plane {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Distance of neighbouring rows, mm.
    pub row_mm: f64,
    /// Distance of neighbouring columns, mm.
    pub column_mm: f64,
}

impl Plane {
    /// Refuses pixels of no scanner.
    ///
    /// # Errors
    /// [`GridError`].
    pub fn check(&self) -> Result<(), GridError> {
        let Self { height, width, row_mm, column_mm } = *self;
        if !(1..=MAX_SIDE).contains(&height) || !(1..=MAX_SIDE).contains(&width) {
            return Err(GridError::Size { height, width });
        }
        for spacing_mm in [row_mm, column_mm] {
            if !(MIN_SPACING_MM..=MAX_SPACING_MM).contains(&spacing_mm) {
                return Err(GridError::Spacing { spacing_mm });
            }
        }
        Ok(())
    }
}

/// Why a slice does not fit the model.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum GridError {
    /// Beyond any scanner.
    #[error("a slice of {height} x {width} pixels: expected 1 to {max} each way", max = MAX_SIDE)]
    Size {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// Not a distance between pixels.
    #[error("pixel spacing {spacing_mm} mm: expected {MIN_SPACING_MM} to {MAX_SPACING_MM}")]
    Spacing {
        /// The value, mm.
        spacing_mm: f64,
    },
}

/// Longest side of a slice, pixels.
pub const MAX_SIDE: usize = 8192;
/// Smallest distance between pixels, mm.
pub const MIN_SPACING_MM: f64 = 0.01;
/// Largest distance between pixels, mm.
pub const MAX_SPACING_MM: f64 = 100.;

/// Weights are multiples of 2^-14.
const WEIGHT_BITS: u32 = 14;
/// Weights that are multiplied at a time.
const LANES: usize = 8;

/// Moves slices between one scanner grid and the model's. Made once per geometry; its methods do not allocate.
#[derive(Clone, Debug)]
pub struct Resampler {
    plane: Plane,
    grid: Grid,
    rows: Axis,
    columns: Axis,
}

/// One axis of a resampler.
#[derive(Clone, Debug)]
struct Axis {
    /// One per model pixel.
    taps: Vec<Taps>,
    /// Groups of weights of every model pixel.
    chunks: usize,
    /// `[model pixel][chunk]`, filled up with zeros.
    weights: Vec<[i16; LANES]>,
    /// Nearest model pixel of each source pixel.
    back: Nearest,
    /// Nearest source pixel of each model pixel.
    forth: Nearest,
}

/// The source pixels that one model pixel averages.
#[derive(Clone, Debug)]
struct Taps {
    start: usize,
    count: usize,
    /// Weight of what lies outside the source.
    outside: i32,
}

/// The nearest pixel of another axis for each pixel of one: there is one from pixel `first` on, for as many as are listed.
#[derive(Clone, Debug)]
struct Nearest {
    len: usize,
    first: usize,
    indices: Vec<u16>,
}

impl Resampler {
    /// Plans both directions.
    pub fn new(plane: Plane, grid: Grid) -> Result<Self, GridError> {
        let model_mm = f64::from(grid.spacing_mm);
        plane.check()?;
        Plane { height: grid.height, width: grid.width, row_mm: model_mm, column_mm: model_mm }.check()?;
        let rows = Axis::new(plane.height, plane.row_mm, grid.height, model_mm);
        let columns = Axis::new(plane.width, plane.column_mm, grid.width, model_mm);
        Ok(Self { plane, grid, rows, columns })
    }

    /// The scanner's grid.
    pub const fn plane(&self) -> Plane {
        self.plane
    }

    /// The model's grid.
    pub const fn grid(&self) -> Grid {
        self.grid
    }

    /// Length of the scratch that [`Self::forward`] needs.
    pub fn scratch_len(&self) -> usize {
        self.plane.width + self.columns.chunks * LANES
    }

    /// Raw slice `[height, width]` of the scanner to the model's grid; `outside` stands where the scanner saw nothing.
    ///
    /// # Panics
    /// If a slice is shorter than its grid says.
    #[inline(always)] // for callers that are compiled for a CPU's own instructions
    pub fn forward(&self, raw: &[i16], outside: i16, scratch: &mut [i16], out: &mut [i16]) {
        let width = self.plane.width;
        let outside = i32::from(outside);
        let weights = self.rows.weights.chunks_exact(self.rows.chunks);
        for ((taps, weights), target) in self.rows.taps.iter().zip(weights).zip(out.chunks_exact_mut(self.grid.width)) {
            let rows = &raw[taps.start * width..][..taps.count * width];
            average_rows(rows, weights.as_flattened(), taps.outside * outside, &mut scratch[..width]);
            match self.columns.chunks {
                1 => self.columns.average::<1>(scratch, outside, target),
                2 => self.columns.average::<2>(scratch, outside, target),
                _ => self.columns.average_any(scratch, outside, target),
            }
        }
    }

    /// Label map of the model `[height, width]` to the scanner's pixels, nearest neighbour; 0 where the model saw nothing.
    pub fn labels_back(&self, model: &[u8], out: &mut [u8]) {
        nearest(&self.rows.back, &self.columns.back, model, self.grid.width, out);
    }

    /// Label map of the scanner's pixels to the model's (training only), nearest neighbour; 0 outside.
    pub fn labels_forward(&self, labels: &[u8], out: &mut [u8]) {
        nearest(&self.rows.forth, &self.columns.forth, labels, self.plane.width, out);
    }
}

/// Weighted mean of rows as wide as `out`; `sum` is what lies outside.
#[inline(always)]
fn average_rows(rows: &[i16], weights: &[i16], sum: i32, out: &mut [i16]) {
    /// Columns whose sums stay in registers or the first cache.
    const BLOCK: usize = 64;
    let width = out.len();
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let mut sums = [sum; BLOCK];
        for (row, &weight) in rows.chunks_exact(width).zip(weights) {
            // Weights are not negative. Saying so lets the compiler multiply in 16 bits.
            let weight = i32::from(weight & i16::MAX);
            for (sum, &raw) in sums.iter_mut().zip(&row[block * BLOCK..][..out.len()]) {
                *sum += weight * i32::from(raw);
            }
        }
        for (out, &sum) in out.iter_mut().zip(&sums) {
            *out = average(sum);
        }
    }
}

#[inline(always)]
fn dot(weights: &[[i16; LANES]], source: &[i16]) -> i32 {
    let pairs = |(weights, source): (&[i16; LANES], &[i16; LANES])| -> [i32; LANES / 2] {
        let product = |at: usize| i32::from(weights[at]) * i32::from(source[at]);
        core::array::from_fn(|pair| product(2 * pair) + product(2 * pair + 1))
    };
    weights.iter().zip(source.as_chunks().0).flat_map(pairs).sum()
}

/// A sum of weighted raw values to a raw value, halves upwards. Weights are positive and sum to one: it fits.
#[inline]
const fn average(sum: i32) -> i16 {
    ((sum + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS) as i16
}

fn nearest(rows: &Nearest, columns: &Nearest, from: &[u8], from_width: usize, out: &mut [u8]) {
    let width = columns.len;
    let out = &mut out[..rows.len * width];
    let (above, rest) = out.split_at_mut(rows.first * width);
    let (seen, below) = rest.split_at_mut(rows.indices.len() * width);
    above.fill(0);
    below.fill(0);
    for (index, row) in rows.indices.iter().enumerate() {
        let (before, target) = seen.split_at_mut(index * width);
        let target = &mut target[..width];
        // Neighbouring rows often have the same source.
        if index > 0 && rows.indices[index - 1] == *row {
            target.copy_from_slice(&before[(index - 1) * width..]);
            continue;
        }
        let source = &from[usize::from(*row) * from_width..][..from_width];
        let (left, rest) = target.split_at_mut(columns.first);
        let (middle, right) = rest.split_at_mut(columns.indices.len());
        left.fill(0);
        right.fill(0);
        for (value, &column) in middle.iter_mut().zip(&columns.indices) {
            *value = source[usize::from(column)];
        }
    }
}

impl Nearest {
    /// Of `len` pixels of which `nearest` tells the index among `n` others; those without one lie at the ends.
    fn new(len: usize, n: usize, nearest: impl Fn(usize) -> i64) -> Self {
        let index = |pixel| u16::try_from(nearest(pixel)).ok().filter(|&index| usize::from(index) < n);
        let first = (0..len).find(|&pixel| index(pixel).is_some()).unwrap_or(len);
        Self { len, first, indices: (first..len).map_while(index).collect() }
    }
}

impl Axis {
    fn new(source: usize, source_mm: f64, model: usize, model_mm: f64) -> Self {
        let ratio = model_mm / source_mm;
        let centre = |index| across(index, model, ratio, source);
        let (taps, inside): (Vec<_>, Vec<_>) =
            (0..model).map(|index| triangle(centre(index), ratio.max(1.), source)).unzip();
        let chunks = taps.iter().map(|taps| taps.count.div_ceil(LANES)).max().unwrap_or(0).max(1);
        let mut weights = vec![[0; LANES]; model * chunks];
        for (weights, inside) in weights.chunks_exact_mut(chunks).zip(&inside) {
            weights.as_flattened_mut()[..inside.len()].copy_from_slice(inside);
        }
        // Where a centre lies halfway between two pixels, one direction takes the upper and the other the lower one: a label
        // map that goes to the model's grid and comes back has not moved.
        let back = Nearest::new(source, model, |index| -floor(0.5 - across(index, source, 1. / ratio, model)));
        let forth = Nearest::new(model, source, |index| floor(centre(index) + 0.5));
        Self { taps, chunks, weights, back, forth }
    }

    /// Weighted means of a row, `CHUNKS` groups of weights each.
    #[inline(always)]
    fn average<const CHUNKS: usize>(&self, row: &[i16], outside: i32, out: &mut [i16]) {
        let weights = self.weights.as_chunks::<CHUNKS>().0;
        for ((taps, weights), value) in self.taps.iter().zip(weights).zip(out) {
            let source = &row[taps.start..][..CHUNKS * LANES];
            *value = average(dot(weights, source) + taps.outside * outside);
        }
    }

    /// As [`Self::average`], however many groups there are.
    fn average_any(&self, row: &[i16], outside: i32, out: &mut [i16]) {
        let weights = self.weights.chunks_exact(self.chunks);
        for ((taps, weights), value) in self.taps.iter().zip(weights).zip(out) {
            *value = average(dot(weights, &row[taps.start..]) + taps.outside * outside);
        }
    }
}

/// Taps of a triangle of half-width `radius` source pixels around `centre`, and their weights.
fn triangle(centre: f64, radius: f64, source: usize) -> (Taps, Vec<i16>) {
    let (first, last) = (floor(centre - radius) + 1, floor(centre + radius));
    let height = |index: i64| (1. - (index as f64 - centre).abs() / radius).max(0.);
    let total: f64 = (first..=last).map(height).sum();
    let one = 1i32 << WEIGHT_BITS;
    let share = |index: i64| (height(index) / total * f64::from(one)) as i32;
    // Truncation leaves a remainder of less than one step per tap; the middle tap takes it, so that a constant stays constant.
    let remainder = one - (first..=last).map(share).sum::<i32>();
    let middle = floor(centre + 0.5).clamp(first, last);
    let weight = |index: i64| share(index) + if index == middle { remainder } else { 0 };
    let (from, to) = (first.clamp(0, source as i64), (last + 1).clamp(0, source as i64));
    let inside: Vec<i16> = (from..to).map(|index| weight(index) as i16).collect();
    let taps = Taps {
        start: (from as usize).min(source - 1),
        count: inside.len(),
        outside: one - inside.iter().map(|&weight| i32::from(weight)).sum::<i32>(),
    };
    (taps, inside)
}

/// Where the centre of pixel `index` of `n` lies among `other` pixels that are `1 / ratio` as large.
fn across(index: usize, n: usize, ratio: f64, other: usize) -> f64 {
    (index as f64 + 0.5 - n as f64 / 2.) * ratio + other as f64 / 2. - 0.5
}

fn floor(x: f64) -> i64 {
    let truncated = x as i64;
    truncated - i64::from(truncated as f64 > x)
}

/// Slices that a model of `slices` input channels sees around slice `z` of `depth`: neighbours, the ends repeated.
pub fn neighbours(z: usize, depth: usize, slices: usize) -> impl Iterator<Item = usize> {
    (0..slices).map(move |channel| (z + channel).saturating_sub(slices / 2).min(depth.saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: Grid = Grid { height: 40, width: 48, spacing_mm: 3. };

    fn plane(height: usize, width: usize, mm: f64) -> Plane {
        Plane { height, width, row_mm: mm, column_mm: mm }
    }

    fn forward(resampler: &Resampler, raw: &[i16], outside: i16) -> Vec<i16> {
        let mut scratch = vec![0; resampler.scratch_len()];
        let mut out = vec![0; resampler.grid.height * resampler.grid.width];
        resampler.forward(raw, outside, &mut scratch, &mut out);
        out
    }

    #[test]
    fn the_same_grid_is_the_identity() {
        let resampler = Resampler::new(plane(40, 48, 3.), GRID).unwrap();
        let raw: Vec<i16> = (0..40 * 48).map(|i| (i * 31 % 65_536 - 32_768) as i16).collect();
        assert_eq!(forward(&resampler, &raw, 0), raw);
        let labels: Vec<u8> = (0..40 * 48).map(|i| (i % 5) as u8).collect();
        let mut back = vec![9; labels.len()];
        resampler.labels_back(&labels, &mut back);
        assert_eq!(back, labels);
        resampler.labels_forward(&labels, &mut back);
        assert_eq!(back, labels);
    }

    #[test]
    fn constants_stay_constant_at_both_ends_of_the_range() {
        for (height, width, mm) in [(33, 57, 1.7), (512, 512, 0.7), (9, 9, 11.), (1, 1, 100.)] {
            let resampler = Resampler::new(plane(height, width, mm), GRID).unwrap();
            for value in [i16::MIN, -1, 0, 1, 777, i16::MAX] {
                let out = forward(&resampler, &vec![value; height * width], value);
                assert!(out.iter().all(|&v| v == value), "{height}x{width} at {mm} mm, {value}");
            }
        }
    }

    /// A plane wave slower than the model's grid is reproduced; a ramp keeps its value at the model's pixel centres.
    #[test]
    fn a_ramp_in_mm_keeps_its_value() {
        let fine = plane(256, 256, 0.8);
        let resampler = Resampler::new(fine, GRID).unwrap();
        let mm = |i: usize, n: usize, spacing: f64| (i as f64 + 0.5 - n as f64 / 2.) * spacing;
        let raw: Vec<i16> =
            (0..256 * 256).map(|i| (10. * mm(i % 256, 256, 0.8) - 4. * mm(i / 256, 256, 0.8)).round() as i16).collect();
        let out = forward(&resampler, &raw, 0);
        for row in 4..36 {
            for column in 4..44 {
                let expected = 10. * mm(column, 48, 3.) - 4. * mm(row, 40, 3.);
                let got = f64::from(out[row * 48 + column]);
                assert!((got - expected).abs() <= 1.5, "{row} {column}: {got} against {expected}");
            }
        }
    }

    #[test]
    fn labels_return_within_half_a_model_pixel() {
        let fine = Plane { height: 200, width: 120, row_mm: 0.6, column_mm: 1.2 };
        let resampler = Resampler::new(fine, GRID).unwrap();
        let model: Vec<u8> = (0..40 * 48).map(|i| u8::from(i / 48 >= 20) + 2 * u8::from(i % 48 >= 24)).collect();
        let mut back = vec![0; 200 * 120];
        resampler.labels_back(&model, &mut back);
        // Both halves meet at the common centre.
        for (i, &label) in back.iter().enumerate() {
            assert_eq!(label, u8::from(i / 120 >= 100) + 2 * u8::from(i % 120 >= 60), "{i}");
        }
    }

    /// Odd and even sides put every centre halfway between two pixels of the other grid.
    #[test]
    fn labels_of_equal_spacing_return_unmoved_whatever_the_parity() {
        for (height, width) in [(39, 47), (40, 47), (33, 21), (8, 8)] {
            let resampler = Resampler::new(plane(height, width, 3.), GRID).unwrap();
            let labels: Vec<u8> = (0..height * width).map(|i| (i * i % 251) as u8).collect();
            let (mut model, mut back) = (vec![0; 40 * 48], vec![0; height * width]);
            resampler.labels_forward(&labels, &mut model);
            resampler.labels_back(&model, &mut back);
            assert_eq!(back, labels, "{height} x {width}");
        }
    }

    #[test]
    fn what_the_model_does_not_see_is_background() {
        let wide = plane(100, 100, 3.);
        let resampler = Resampler::new(wide, GRID).unwrap();
        let mut back = vec![7; 100 * 100];
        resampler.labels_back(&[1; 40 * 48], &mut back);
        assert_eq!(back.iter().filter(|&&label| label == 1).count(), 40 * 48);
        assert_eq!(back.iter().filter(|&&label| label == 0).count(), 100 * 100 - 40 * 48);
        let small = Resampler::new(plane(10, 10, 3.), GRID).unwrap();
        let out = forward(&small, &[500; 100], -160);
        assert_eq!(out.iter().filter(|&&v| v == 500).count(), 100);
        assert_eq!(out.iter().filter(|&&v| v == -160).count(), 40 * 48 - 100);
    }

    #[test]
    fn impossible_geometry_is_refused() {
        assert!(matches!(Resampler::new(plane(0, 5, 1.), GRID), Err(GridError::Size { .. })));
        assert!(matches!(Resampler::new(plane(9000, 5, 1.), GRID), Err(GridError::Size { .. })));
        for mm in [0., -1., f64::NAN, f64::INFINITY, 1e-9, 1e9] {
            assert!(matches!(Resampler::new(plane(5, 5, mm), GRID), Err(GridError::Spacing { .. })), "{mm}");
        }
    }

    #[test]
    fn ends_repeat_their_neighbours() {
        assert_eq!(neighbours(0, 9, 1).collect::<Vec<_>>(), [0]);
        assert_eq!(neighbours(0, 9, 3).collect::<Vec<_>>(), [0, 0, 1]);
        assert_eq!(neighbours(4, 9, 5).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
        assert_eq!(neighbours(8, 9, 3).collect::<Vec<_>>(), [7, 8, 8]);
    }
}
