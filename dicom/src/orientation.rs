//! Between the pixels of an image and the canonical slice: columns to the patient's left, rows to posterior.
//!
//! Axes are only swapped and mirrored, never interpolated, so an oblique slice stays oblique and the way back is exact. The
//! rule is that of [`volume::Geometry`], so that a slice is segmented alike whether it comes as DICOM or as part of a volume.

use contract::Plane as Canonical;

use crate::{Fault, Plane};

/// How an axial image becomes canonical.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orientation {
    /// Columns and rows of the image.
    size: [usize; 2],
    /// The image's rows become columns.
    swapped: bool,
    /// Whether canonical x and y run against the image's axis.
    mirrored: [bool; 2],
}

impl Orientation {
    /// Of an axial image.
    ///
    /// # Errors
    /// [`Fault::Axis`] where sagittal or coronal is closer.
    pub fn new(plane: &Plane) -> Result<Self, Fault> {
        let axes = [plane.along, plane.down, plane.normal()];
        // [image axis of patient x, of y, of z]; the first of equals, as volumes do it.
        const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let score = |order: &[usize; 3]| (0..3).map(|patient| axes[order[patient]][patient].abs()).sum::<f64>();
        let best = ORDERS.iter().fold(&ORDERS[0], |best, order| if score(order) > score(best) { order } else { best });
        match best {
            [_, _, 2] => {}
            [2, _, _] => return Err(Fault::Axis { found: "sagittal" }),
            _ => return Err(Fault::Axis { found: "coronal" }),
        }
        let mirrored = [0, 1].map(|patient| axes[best[patient]][patient] < 0.);
        Ok(Self { size: plane.size, swapped: best[0] == 1, mirrored })
    }

    /// The canonical slice's pixels, given the image's distances between columns and between rows, mm.
    pub const fn canonical(&self, [column_mm, row_mm]: [f64; 2]) -> Canonical {
        let [columns, rows] = self.size;
        match self.swapped {
            false => Canonical { height: rows, width: columns, row_mm, column_mm },
            true => Canonical { height: columns, width: rows, row_mm: column_mm, column_mm: row_mm },
        }
    }

    /// For each canonical pixel `[y][x]`, the index of the image's.
    pub fn indices(self) -> impl Iterator<Item = usize> {
        let [columns, rows] = self.size;
        let [width, height] = if self.swapped { [rows, columns] } else { [columns, rows] };
        let [mirror_x, mirror_y] = self.mirrored;
        (0..height).flat_map(move |y| {
            let y = if mirror_y { height - 1 - y } else { y };
            (0..width).map(move |x| {
                let x = if mirror_x { width - 1 - x } else { x };
                if self.swapped { x * columns + y } else { y * columns + x }
            })
        })
    }

    /// Brings canonical values to the image's order.
    ///
    /// # Panics
    /// If `canonical` is not one value per pixel.
    pub fn to_image<T: Copy + Default>(self, canonical: &[T]) -> Vec<T> {
        assert_eq!(canonical.len(), self.size[0] * self.size[1], "one value per pixel");
        let mut image = vec![T::default(); canonical.len()];
        for (index, &value) in self.indices().zip(canonical) {
            image[index] = value;
        }
        image
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(along: [f64; 3], down: [f64; 3]) -> Plane {
        Plane { size: [3, 2], spacing_mm: [0.5, 2.], along, down, first_mm: [0.; 3] }
    }

    /// Image 0 1 2 / 3 4 5.
    fn canonical(along: [f64; 3], down: [f64; 3]) -> (Vec<usize>, Canonical) {
        let plane = plane(along, down);
        let orientation = Orientation::new(&plane).unwrap();
        let indices: Vec<usize> = orientation.indices().collect();
        assert_eq!(orientation.to_image(&indices), [0, 1, 2, 3, 4, 5], "there and back");
        (indices, orientation.canonical(plane.spacing_mm))
    }

    #[test]
    fn every_axial_image_becomes_canonical_by_swaps_and_mirrors() {
        let wide = Canonical { height: 2, width: 3, row_mm: 2., column_mm: 0.5 };
        let tall = Canonical { height: 3, width: 2, row_mm: 0.5, column_mm: 2. };
        assert_eq!(canonical([1., 0., 0.], [0., 1., 0.]), (vec![0, 1, 2, 3, 4, 5], wide));
        assert_eq!(canonical([-1., 0., 0.], [0., 1., 0.]), (vec![2, 1, 0, 5, 4, 3], wide));
        assert_eq!(canonical([1., 0., 0.], [0., -1., 0.]), (vec![3, 4, 5, 0, 1, 2], wide));
        // Columns to posterior, rows to the left.
        assert_eq!(canonical([0., 1., 0.], [1., 0., 0.]), (vec![0, 3, 1, 4, 2, 5], tall));
        assert_eq!(canonical([0., -1., 0.], [1., 0., 0.]), (vec![2, 5, 1, 4, 0, 3], tall));
        // A tilted gantry and an oblique slice are axial still.
        let (cos, sin) = (0.9, 0.19f64.sqrt());
        assert_eq!(canonical([1., 0., 0.], [0., cos, -sin]).0, [0, 1, 2, 3, 4, 5]);
        assert_eq!(canonical([cos, sin, 0.], [-sin, cos, 0.]).0, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn other_slices_are_refused_by_name() {
        let axis = |along, down| Orientation::new(&plane(along, down)).unwrap_err();
        assert_eq!(axis([0., 1., 0.], [0., 0., -1.]), Fault::Axis { found: "sagittal" });
        assert_eq!(axis([1., 0., 0.], [0., 0., -1.]), Fault::Axis { found: "coronal" });
    }
}
