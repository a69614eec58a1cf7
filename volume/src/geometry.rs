//! Where the voxels of a file lie in the patient, and the way between the file's order and the canonical one.
//!
//! Canonical is how DICOM shows an axial slice: x to the patient's left, y to posterior, z to superior. Axes are only
//! permuted and flipped, never interpolated, so an oblique volume stays oblique and the way back is exact. NIfTI's world
//! is RAS+ (x to the right, y to anterior), so two of the three world axes change their sign here.

use std::path::Path;

use contract::Plane;
use ndarray::{ArrayView3, Axis};

use crate::{Fault, nifti::Header};

/// World direction of growing canonical x, y, z, as signs of RAS+ axes.
const CANONICAL_SIGNS: [f64; 3] = [-1., -1., 1.];
/// Volume of the unit axes (1 = orthogonal) under which an affine counts as singular.
const SMALLEST_DETERMINANT: f64 = 1e-6;

/// Grid of a file: stored shape, affine and header, and the permutation and flips that make it canonical.
#[derive(Clone, Debug, PartialEq)]
pub struct Geometry {
    pub(crate) header: Header,
    dims: [usize; 3],
    affine: [[f64; 4]; 3],
    /// Stored axis that each canonical axis (x, y, z) runs along.
    axes: [usize; 3],
    /// Whether it runs against it.
    flipped: [bool; 3],
}

impl Geometry {
    /// A grid of `dims` voxels (stored order, first axis fastest) with `affine` from voxel to RAS+ mm, rounded to `f32`
    /// as the file will hold it. The file gets an sform with code 1 (scanner).
    pub fn new(dims: [usize; 3], affine: [[f64; 4]; 3]) -> Result<Self, Fault> {
        Self::from_header(Header::new(dims, affine)?)
    }

    /// A grid whose stored axes run in the directions of `codes`, like `RAS`, `LPS` or `SLA`; the world's origin is
    /// the middle of the volume. `dims` and `spacing_mm` are in stored order.
    ///
    /// # Panics
    /// If `codes` does not name each of the three axes once.
    pub fn from_codes(codes: &str, dims: [usize; 3], spacing_mm: [f64; 3]) -> Result<Self, Fault> {
        let mut affine = [[0.; 4]; 3];
        let mut used = [false; 3];
        assert_eq!(codes.len(), 3, "orientation '{codes}': expected three letters");
        for (stored, code) in codes.bytes().enumerate() {
            let (world, sign) = match code {
                b'R' => (0, 1.),
                b'L' => (0, -1.),
                b'A' => (1, 1.),
                b'P' => (1, -1.),
                b'S' => (2, 1.),
                b'I' => (2, -1.),
                _ => panic!("orientation '{codes}': expected letters of RLAPSI"),
            };
            assert!(!used[world], "orientation '{codes}' names an axis twice");
            used[world] = true;
            affine[world][stored] = sign * spacing_mm[stored];
            affine[world][3] = -affine[world][stored] * (dims[stored] as f64 - 1.) / 2.;
        }
        Self::new(dims, affine)
    }

    pub(crate) fn from_header(header: Header) -> Result<Self, Fault> {
        let (dims, affine) = (header.dims()?, header.affine()?);
        let cosines = cosines(&affine)?;
        let axes = closest_axes(&cosines);
        let flipped = [0, 1, 2].map(|world| cosines[world][axes[world]] * CANONICAL_SIGNS[world] < 0.);
        Ok(Self { header, dims, affine, axes, flipped })
    }

    /// Number of voxels along the file's own axes, fastest first.
    pub const fn stored_dims(&self) -> [usize; 3] {
        self.dims
    }

    /// From the file's voxel indices to RAS+ mm: the sform if its code is set, else the qform, else the spacing alone
    /// with x flipped and the origin in the middle, as nibabel does.
    pub const fn affine(&self) -> [[f64; 4]; 3] {
        self.affine
    }

    /// Directions of the stored axes, like `RAS`; the closest ones where the volume is oblique.
    pub fn codes(&self) -> String {
        let mut codes = ['?'; 3];
        for world in 0..3 {
            let letters = [['L', 'R'], ['P', 'A'], ['S', 'I']][world];
            codes[self.axes[world]] = letters[usize::from(self.flipped[world])];
        }
        codes.into_iter().collect()
    }

    /// Canonical shape `[z, y, x]`.
    pub fn shape(&self) -> [usize; 3] {
        [2, 1, 0].map(|canonical| self.dims[self.axes[canonical]])
    }

    /// Number of voxels.
    pub fn voxels(&self) -> usize {
        self.dims.iter().product()
    }

    /// Distance of neighbouring voxels along canonical x, y, z in mm: the lengths of the affine's columns.
    pub fn spacing_mm(&self) -> [f64; 3] {
        self.axes.map(|stored| column_length(&self.affine, stored))
    }

    /// The canonical axial slice.
    pub fn plane(&self) -> Plane {
        let ([_, height, width], [column_mm, row_mm, _]) = (self.shape(), self.spacing_mm());
        Plane { height, width, row_mm, column_mm }
    }

    /// From canonical voxel indices (x, y, z) to RAS+ mm.
    pub fn canonical_affine(&self) -> [[f64; 4]; 3] {
        self.affine.map(|row| {
            let mut out = [0., 0., 0., row[3]];
            for canonical in 0..3 {
                let stored = self.axes[canonical];
                out[canonical] = if self.flipped[canonical] { -row[stored] } else { row[stored] };
                if self.flipped[canonical] {
                    out[3] += row[stored] * (self.dims[stored] as f64 - 1.);
                }
            }
            out
        })
    }

    /// Whether both grids, brought to the canonical order, have the same shape and lie within a tenth of a voxel of
    /// each other at every corner. Headers are written with different rounding by different tools.
    pub fn matches(&self, other: &Self) -> bool {
        let (shape, mine, theirs) = (self.shape(), self.canonical_affine(), other.canonical_affine());
        let tolerance_mm = self.spacing_mm().into_iter().fold(f64::INFINITY, f64::min) / 10.;
        shape == other.shape()
            && (0..8).all(|corner| {
                let voxel = [0, 1, 2].map(|axis| f64::from(corner >> axis & 1) * (shape[2 - axis] as f64 - 1.));
                (0..3).all(|row| (apply(mine[row], voxel) - apply(theirs[row], voxel)).abs() <= tolerance_mm)
            })
    }

    /// [`matches`](Self::matches), or the fault that says how this grid and that of the file `image` differ.
    pub fn expect_match(&self, other: &Self, image: &Path) -> Result<(), Fault> {
        let differ = || Fault::Mismatch { other: image.into(), found: self.describe(), expected: other.describe() };
        self.matches(other).then_some(()).ok_or_else(differ)
    }

    /// Size, spacing and corner in words.
    fn describe(&self) -> String {
        let ([z, y, x], spacing) = (self.shape(), self.spacing_mm());
        let corner = self.canonical_affine().map(|row| row[3]);
        format!("{x}x{y}x{z} voxels of {spacing:.3?} mm, first at {corner:.3?} mm")
    }

    /// Brings voxels from the file's order (first axis fastest) to canonical `[z][y][x]`.
    ///
    /// # Panics
    /// If `stored` is not one value per voxel.
    pub fn to_canonical<T: Copy>(&self, stored: &[T]) -> Vec<T> {
        let [x, y, z] = self.dims;
        let mut view = ArrayView3::from_shape([z, y, x], stored)
            .expect("one value per voxel")
            .permuted_axes([2, 1, 0].map(|canonical| 2 - self.axes[canonical]));
        for canonical in (0..3).filter(|&canonical| self.flipped[canonical]) {
            view.invert_axis(Axis(2 - canonical));
        }
        view.iter().copied().collect()
    }

    /// The way back of [`to_canonical`](Self::to_canonical).
    ///
    /// # Panics
    /// If `canonical` is not one value per voxel.
    pub fn to_stored<T: Copy>(&self, canonical: &[T]) -> Vec<T> {
        let mut view = ArrayView3::from_shape(self.shape(), canonical).expect("one value per voxel");
        for canonical in (0..3).filter(|&canonical| self.flipped[canonical]) {
            view.invert_axis(Axis(2 - canonical));
        }
        let mut order = [0; 3];
        for canonical in 0..3 {
            order[2 - self.axes[canonical]] = 2 - canonical;
        }
        view.permuted_axes(order).iter().copied().collect()
    }
}

fn apply(row: [f64; 4], voxel: [f64; 3]) -> f64 {
    row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3]
}

fn column_length(affine: &[[f64; 4]; 3], column: usize) -> f64 {
    affine.iter().map(|row| row[column] * row[column]).sum::<f64>().sqrt()
}

/// Direction cosines `[world][stored]` of an affine that spans space.
fn cosines(affine: &[[f64; 4]; 3]) -> Result<[[f64; 3]; 3], Fault> {
    let lengths = [0, 1, 2].map(|column| column_length(affine, column));
    let cosines = affine.map(|row| [0, 1, 2].map(|column| row[column] / lengths[column]));
    let [a, b, c] = cosines;
    let determinant =
        a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0]);
    let finite = affine.iter().flatten().all(|value| value.is_finite());
    // A NaN determinant (a column of zeros) fails the comparison too.
    if finite && determinant.abs() >= SMALLEST_DETERMINANT {
        Ok(cosines)
    } else {
        Err(Fault::Singular { rows: affine.map(|row| row.map(|value| value as f32)) })
    }
}

/// The stored axis of each world axis: the permutation with the largest sum of cosines.
fn closest_axes(cosines: &[[f64; 3]; 3]) -> [usize; 3] {
    const PERMUTATIONS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let score = |axes: &[usize; 3]| (0..3).map(|world| cosines[world][axes[world]].abs()).sum::<f64>();
    let mut best = PERMUTATIONS[0];
    for axes in &PERMUTATIONS[1..] {
        // Strictly better, so that ties go to the order of the file.
        if score(axes) > score(&best) {
            best = *axes;
        }
    }
    best
}
