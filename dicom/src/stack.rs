//! Planes of one series as a stack: which lies on which, and how far apart.
//!
//! Where slices lie is taken from the image plane, never from names or instance numbers. Planes of a tilted gantry are shifted
//! against each other: the step between them is a vector, and the stack is sheared rather than straightened.

use volume::Geometry;

use crate::Plane;

/// Steps between neighbouring planes may differ by this part of a step.
const STEP_TOLERANCE: f64 = 0.05;
/// Direction cosines of neighbouring planes may differ by this.
const COSINE_TOLERANCE: f64 = 1e-3;
/// Spacings may differ by this, mm.
const SPACING_TOLERANCE_MM: f64 = 1e-3;

/// Planes that make no stack. Indices are those of the planes as they were given.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StackFault {
    /// Too few.
    #[error("{0} slices, expected at least 2")]
    Few(usize),
    /// Another size, spacing or orientation than the first.
    #[error("{what} differs from that of the first slice: expected slices of one stack")]
    Differs {
        /// The plane.
        index: usize,
        /// Size, spacing or orientation, with both values.
        what: String,
    },
    /// Neighbours too far apart, too close or out of line.
    #[error("the step is {step_mm:.3?} mm, others are {usual_mm:.3?} mm: is a slice missing, or there twice?")]
    Step {
        /// The lower plane.
        below: usize,
        /// The upper plane.
        above: usize,
        /// Patient x, y, z (to left, posterior, superior).
        step_mm: [f64; 3],
        /// The median step.
        usual_mm: [f64; 3],
    },
}

/// Planes in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Stack {
    /// Which of the given planes lies where, along their normal.
    pub order: Vec<usize>,
    /// The mean step from one to the next, mm.
    pub step_mm: [f64; 3],
}

impl Stack {
    /// Puts planes in order.
    ///
    /// # Errors
    /// [`StackFault`].
    pub fn new(planes: &[Plane]) -> Result<Self, StackFault> {
        if planes.len() < 2 {
            return Err(StackFault::Few(planes.len()));
        }
        for (index, plane) in planes.iter().enumerate() {
            alike(&planes[0], plane).map_err(|what| StackFault::Differs { index, what })?;
        }
        let normal = planes[0].normal();
        let mut order: Vec<usize> = (0..planes.len()).collect();
        order.sort_by(|&a, &b| planes[a].height_mm(normal).total_cmp(&planes[b].height_mm(normal)));
        let between = |below: usize, above: usize| {
            [0, 1, 2].map(|axis| planes[above].first_mm[axis] - planes[below].first_mm[axis])
        };
        let steps: Vec<[f64; 3]> = order.windows(2).map(|pair| between(pair[0], pair[1])).collect();
        let mut sorted = steps.clone();
        sorted.sort_by(|a, b| dot(*a, normal).total_cmp(&dot(*b, normal)));
        let usual_mm = sorted[sorted.len() / 2];
        let tolerance = STEP_TOLERANCE * dot(usual_mm, usual_mm).sqrt();
        for (pair, &step_mm) in order.windows(2).zip(&steps) {
            let off = [0, 1, 2].map(|axis| step_mm[axis] - usual_mm[axis]);
            // Not `>`: a step of NaN or a stack of no height is refused too.
            if !(dot(off, off).sqrt() <= tolerance && tolerance > 0.) {
                return Err(StackFault::Step { below: pair[0], above: pair[1], step_mm, usual_mm });
            }
        }
        let whole = between(order[0], order[order.len() - 1]);
        Ok(Self { step_mm: whole.map(|length| length / steps.len() as f64), order })
    }

    /// The grid of the stack in NIfTI's world, whose x and y run against DICOM's (PS3.3 C.7.6.2.1.1): columns, rows, planes.
    ///
    /// # Errors
    /// Sizes or spacings that no volume has.
    pub fn geometry(&self, planes: &[Plane]) -> Result<Geometry, volume::Fault> {
        let first = &planes[self.order[0]];
        let [along, down] = first.spacing_mm;
        let affine = [0, 1, 2].map(|world| {
            let sign = if world < 2 { -1. } else { 1. };
            [first.along[world] * along, first.down[world] * down, self.step_mm[world], first.first_mm[world]]
                .map(|value| sign * value)
        });
        Geometry::new([first.size[0], first.size[1], self.order.len()], affine)
    }
}

/// What differs between two planes that should be parallel, of one size.
pub fn alike(first: &Plane, plane: &Plane) -> Result<(), String> {
    let near = |a: &[f64], b: &[f64], tolerance: f64| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance);
    if plane.size != first.size {
        return Err(format!("size {:?} against {:?}", plane.size, first.size));
    }
    if !near(&plane.spacing_mm, &first.spacing_mm, SPACING_TOLERANCE_MM) {
        return Err(format!("spacing {:?} mm against {:?} mm", plane.spacing_mm, first.spacing_mm));
    }
    for (ours, theirs) in [(plane.along, first.along), (plane.down, first.down)] {
        if !near(&ours, &theirs, COSINE_TOLERANCE) {
            return Err(format!("orientation {ours:?} against {theirs:?}"));
        }
    }
    Ok(())
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}
