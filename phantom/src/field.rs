//! Smooth random fields over the patient: normal draws on a lattice, joined by cubic B-splines.
//! They bend the anatomy (without creases), roughen surfaces and give tissue its texture.

use crate::random::Draw;

/// The box around the patient in which a field varies; outside it is continued by its edge. In mm.
const HALF_MM: [f32; 3] = [240.0, 180.0, 150.0];

/// Four independent fields of about unit standard deviation on one lattice: they share the weights of interpolation.
pub(crate) struct Field {
    lattice: Lattice,
}

/// Values at regular points, `x` fastest.
struct Lattice {
    step_mm: f32,
    dims: [usize; 3],
    values: Vec<[f32; 4]>,
}

impl Field {
    /// Random values every `spacing_mm`; structures come out about twice as large. The spline is tabulated at
    /// `per_cell` points per spacing and read out linearly, which costs an eighth of the spline itself.
    pub(crate) fn new(draw: &mut Draw, spacing_mm: f32, per_cell: usize) -> Self {
        let cells = HALF_MM.map(|half| (2.0 * half / spacing_mm) as usize + 1);
        let control = cells.map(|count| count + 3);
        // A cubic B-spline keeps 0.48 of the variance per axis (between 0.46 and 0.5), hence 3 = 0.48^-1.5.
        let values = (0..control.iter().product()).map(|_| [0; 4].map(|_| 3.0 * draw.normal())).collect();
        let coarse = Lattice { step_mm: spacing_mm, dims: control, values };
        let dims = cells.map(|count| count * per_cell + 1);
        let mut values = Vec::with_capacity(dims.iter().product());
        for z in 0..dims[2] {
            for y in 0..dims[1] {
                values.extend((0..dims[0]).map(|x| coarse.spline([x, y, z], per_cell)));
            }
        }
        Self { lattice: Lattice { step_mm: spacing_mm / per_cell as f32, dims, values } }
    }

    /// The four values at `p` (mm).
    pub(crate) fn at(&self, p: [f32; 3]) -> [f32; 4] {
        let Lattice { step_mm, dims, values } = &self.lattice;
        let (mut first, mut part) = ([0; 3], [0.0; 3]);
        for axis in 0..3 {
            let last = (dims[axis] - 2) as f32;
            let position = ((p[axis] + HALF_MM[axis]) / step_mm).clamp(0.0, last + 0.999);
            let whole = position as i32;
            first[axis] = whole as usize;
            part[axis] = position - whole as f32;
        }
        let row = |y: usize, z: usize| {
            let start = ((first[2] + z) * dims[1] + first[1] + y) * dims[0] + first[0];
            mix(&values[start], &values[start + 1], part[0])
        };
        mix(&mix(&row(0, 0), &row(1, 0), part[1]), &mix(&row(0, 1), &row(1, 1), part[1]), part[2])
    }
}

impl Lattice {
    /// The cubic B-spline with these values as control points, at a point counted in `per_cell`ths of the step.
    fn spline(&self, point: [usize; 3], per_cell: usize) -> [f32; 4] {
        // The last point belongs to the last cell's far end.
        let first = [0, 1, 2].map(|axis| (point[axis] / per_cell).min(self.dims[axis] - 4));
        let weights = [0, 1, 2].map(|axis| bspline((point[axis] - first[axis] * per_cell) as f32 / per_cell as f32));
        let mut sum = [0.0; 4];
        for (z, wz) in weights[2].iter().enumerate() {
            for (y, wy) in weights[1].iter().enumerate() {
                let row = ((first[2] + z) * self.dims[1] + first[1] + y) * self.dims[0] + first[0];
                for (wx, cell) in weights[0].iter().zip(&self.values[row..row + 4]) {
                    let weight = wx * (wy * wz);
                    for channel in 0..4 {
                        sum[channel] += weight * cell[channel];
                    }
                }
            }
        }
        sum
    }
}

fn mix(a: &[f32; 4], b: &[f32; 4], part: f32) -> [f32; 4] {
    [0, 1, 2, 3].map(|channel| a[channel] + part * (b[channel] - a[channel]))
}

/// Weights of the four lattice points around `t` in `[0, 1]`.
fn bspline(t: f32) -> [f32; 4] {
    let (t2, t3, s) = (t * t, t * t * t, 1.0 - t);
    [s * s * s / 6.0, (3.0 * t3 - 6.0 * t2 + 4.0) / 6.0, (-3.0 * t3 + 3.0 * t2 + 3.0 * t + 1.0) / 6.0, t3 / 6.0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_smooth_and_of_unit_spread() {
        let field = Field::new(&mut Draw::new(3, 0), 12.0, 4);
        let (mut sum, mut squares, mut steepest, mut count) = (0.0f64, 0.0f64, 0.0f32, 0.0);
        for step in 0..20_000 {
            let p = [step % 41, step / 41 % 29, step / 1189].map(|i| 7.3 * i as f32);
            let p = [p[0] - 150.0, p[1] - 105.0, p[2] - 60.0];
            let here = field.at(p)[2];
            steepest = steepest.max((field.at([p[0] + 0.1, p[1], p[2]])[2] - here).abs());
            sum += f64::from(here);
            squares += f64::from(here * here);
            count += 1.0;
        }
        assert!((sum / count).abs() < 0.1, "mean {}", sum / count);
        assert!((0.85..1.15).contains(&(squares / count)), "variance {}", squares / count);
        assert!(steepest < 0.05, "a step of 0.1 mm changed the field by {steepest}");
    }

    #[test]
    fn weights_sum_to_one() {
        for step in 0..100 {
            let sum: f32 = bspline(step as f32 / 100.0).iter().sum();
            assert!((sum - 1.0).abs() < 1e-6);
        }
    }
}
