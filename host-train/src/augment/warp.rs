//! The geometric map: rotation, size, shift, shear and a smooth wave, from each pixel back to where it comes from.

use rand::RngCore;

use super::{Augment, Size, either_way, factor};

/// Where each pixel of the varied slice comes from.
pub(super) struct Map {
    /// Rows `x`, `y`: `source = matrix * (pixel - centre) + shift`.
    matrix: [[f32; 2]; 2],
    shift: [f32; 2],
    /// Waves added to x and to y, pixels.
    waves: [Wave; 2],
}

/// `amplitude * sin(row phase + column phase)`, as tables: the sine of a sum needs no sine per pixel.
struct Wave {
    amplitude: f32,
    rows: Vec<(f32, f32)>,
    columns: Vec<(f32, f32)>,
}

impl Map {
    pub(super) fn draw(strength: &Augment, size: Size, rng: &mut impl RngCore) -> Self {
        let (sin, cos) = either_way(strength.rotation_deg, rng).to_radians().sin_cos();
        let (zoom, shear) = (1. / factor(strength.scale, rng), either_way(strength.shear, rng));
        let matrix = [[zoom * cos, zoom * (shear * cos - sin)], [zoom * sin, zoom * (shear * sin + cos)]];
        let sides = [size.width as f32, size.height as f32];
        let shift = sides.map(|side| (side - 1.) / 2. + either_way(strength.translation, rng) * side);
        let waves = sides.map(|side| Wave::draw(strength.elastic * side, size, rng));
        Self { matrix, shift, waves }
    }

    /// Fills `image` from `codes`, and moves each slice of `labels` likewise.
    pub(super) fn warp(&self, size: Size, codes: &[i8], image: &mut [f32], labels: &mut [u8]) {
        let Size { height, width, .. } = size;
        let (area, before) = (height * width, labels.to_vec());
        let [mx, my] = self.matrix;
        for row in 0..height {
            let dy = row as f32 - (height as f32 - 1.) / 2.;
            for column in 0..width {
                let dx = column as f32 - (width as f32 - 1.) / 2.;
                let x = mx[0] * dx + mx[1] * dy + self.shift[0] + self.waves[0].at(row, column);
                let y = my[0] * dx + my[1] * dy + self.shift[1] + self.waves[1].at(row, column);
                let pixel = row * width + column;
                for (slice, target) in codes.chunks_exact(area).zip(image[pixel..].iter_mut().step_by(area)) {
                    *target = bilinear(slice, width, x, y);
                }
                let (nearest_x, nearest_y) = ((x + 0.5).floor(), (y + 0.5).floor());
                for (slice, target) in before.chunks_exact(area).zip(labels[pixel..].iter_mut().step_by(area)) {
                    *target = at(slice, width, nearest_x as i32, nearest_y as i32, 0);
                }
            }
        }
    }
}

impl Wave {
    fn draw(amplitude: f32, size: Size, rng: &mut impl RngCore) -> Self {
        let (rows, columns) = (Self::phases(size.height, rng), Self::phases(size.width, rng));
        Self { amplitude: either_way(amplitude, rng), rows, columns }
    }

    /// Sine and cosine of a phase that turns up to three times.
    fn phases(length: usize, rng: &mut impl RngCore) -> Vec<(f32, f32)> {
        let (turns, start) = (either_way(3., rng), either_way(std::f32::consts::PI, rng));
        let phase = |index: usize| start + std::f32::consts::TAU * turns * index as f32 / length as f32;
        (0..length).map(|index| phase(index).sin_cos()).collect()
    }

    fn at(&self, row: usize, column: usize) -> f32 {
        let ((sin, cos), (column_sin, column_cos)) = (self.rows[row], self.columns[column]);
        self.amplitude * (sin * column_cos + cos * column_sin)
    }
}

/// Value of a pixel, or `outside`.
fn at<T: Copy>(slice: &[T], width: usize, x: i32, y: i32, outside: T) -> T {
    if x < 0 || y < 0 || x as usize >= width {
        return outside;
    }
    slice.get(y as usize * width + x as usize).copied().unwrap_or(outside)
}

/// Beyond the slice lies the darkest code, as in [`contract::Intake`].
fn bilinear(slice: &[i8], width: usize, x: f32, y: f32) -> f32 {
    let (left, top) = (x.floor(), y.floor());
    let (right_part, lower_part) = (x - left, y - top);
    let (left, top) = (left as i32, top as i32);
    let first = (top * width as i32 + left) as usize;
    if left >= 0 && top >= 0 && left as usize + 1 < width && first + width + 1 < slice.len() {
        let row = |first: usize| mix(f32::from(slice[first]), f32::from(slice[first + 1]), right_part);
        return mix(row(first), row(first + width), lower_part);
    }
    let code = |x, y| f32::from(at(slice, width, x, y, i8::MIN));
    let row = |y| mix(code(left, y), code(left + 1, y), right_part);
    mix(row(top), row(top + 1), lower_part)
}

/// `part` of the way from `a` to `b`.
fn mix(a: f32, b: f32, part: f32) -> f32 {
    a * (1. - part) + b * part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_is_exact() {
        let size = Size { slices: 1, height: 5, width: 5 };
        let map = Map {
            matrix: [[0., -1.], [1., 0.]],
            shift: [2., 2.],
            waves: [(); 2].map(|()| Wave { amplitude: 0., rows: vec![(0., 0.); 5], columns: vec![(0., 0.); 5] }),
        };
        let codes: Vec<i8> = (0..25).collect();
        let mut labels: Vec<u8> = (0..25).collect();
        let mut image = vec![0.; 25];
        map.warp(size, &codes, &mut image, &mut labels);
        for (row, column) in (0..25).map(|pixel| (pixel / 5, pixel % 5)) {
            let expected = column * 5 + (4 - row);
            assert_eq!(usize::from(labels[row * 5 + column]), expected);
            assert_eq!(image[row * 5 + column], expected as f32);
        }
    }
}
