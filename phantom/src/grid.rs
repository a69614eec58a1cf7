//! Where the voxels of an image lie in the patient.

use crate::shape::{Point, rotation};

/// A regular grid of voxels: index `(i, j, k)` to millimetres.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Voxels along `i`, `j` (in plane) and `k` (slices). `i` varies fastest in memory.
    pub dims: [usize; 3],
    /// Distance between voxel centres along `i`, `j`, `k`, in mm.
    pub spacing_mm: [f32; 3],
    /// Rows of the affine from `(i, j, k, 1)` to DICOM's patient coordinates in mm: x left, y posterior, z superior.
    pub lps: [[f32; 4]; 3],
}

impl Grid {
    /// A grid whose axes point as the three letters say (as nibabel names them: `RAS` has `i` to the right), turned
    /// by `angles` (radians), with its middle at `centre` (mm).
    pub(crate) fn new(dims: [usize; 3], spacing_mm: [f32; 3], code: &str, angles: Point, centre: Point) -> Self {
        let turn = rotation(angles);
        let mut lps = [[0.0; 4]; 3];
        for (axis, letter) in code.bytes().enumerate() {
            let (world, sign) = match letter {
                b'L' => (0, 1.0),
                b'R' => (0, -1.0),
                b'P' => (1, 1.0),
                b'A' => (1, -1.0),
                b'S' => (2, 1.0),
                _ => (2, -1.0),
            };
            for row in 0..3 {
                lps[row][axis] = sign * turn[row][world] * spacing_mm[axis];
            }
        }
        for row in 0..3 {
            let half: f32 = (0..3).map(|axis| lps[row][axis] * (dims[axis] as f32 - 1.0) * 0.5).sum();
            lps[row][3] = centre[row] - half;
        }
        Self { dims, spacing_mm, lps }
    }

    /// Patient coordinates (mm) of a voxel position; fractions lie between voxels.
    pub(crate) fn point(&self, i: f32, j: f32, k: f32) -> Point {
        self.lps.map(|row| row[0] * i + row[1] * j + row[2] * k + row[3])
    }

    /// Number of voxels.
    pub(crate) fn len(&self) -> usize {
        self.dims[0] * self.dims[1] * self.dims[2]
    }

    /// The affine in NIfTI's coordinates, in mm: x to the right, y to anterior, z superior.
    pub fn ras(&self) -> [[f64; 4]; 3] {
        let [x, y, z] = self.lps.map(|row| row.map(f64::from));
        [x.map(|v| -v), y.map(|v| -v), z]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_give_the_directions_and_the_middle_stays() {
        let grid = Grid::new([11, 21, 5], [2.0, 1.0, 4.0], "PRI", [0.0; 3], [5.0, 6.0, 7.0]);
        let middle = grid.point(5.0, 10.0, 2.0);
        let step = |p: Point| [p[0] - middle[0], p[1] - middle[1], p[2] - middle[2]];
        assert_eq!(middle, [5.0, 6.0, 7.0]);
        assert_eq!(step(grid.point(6.0, 10.0, 2.0)), [0.0, 2.0, 0.0], "i to posterior");
        assert_eq!(step(grid.point(5.0, 11.0, 2.0)), [-1.0, 0.0, 0.0], "j to the right");
        assert_eq!(step(grid.point(5.0, 10.0, 3.0)), [0.0, 0.0, -4.0], "k to inferior");
        assert_eq!(grid.ras()[1][0], -2.0, "posterior is negative in NIfTI's coordinates");
    }
}
