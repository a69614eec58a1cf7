//! A patient as a painter would do it: parts in order, each over what was there before, with an edge as soft as a pixel.
//! The soft edge is the partial-volume effect in plane; through the plane several layers are averaged.

use crate::{
    field::Field,
    grid::Grid,
    random::Draw,
    shape::{Point, Shape, dot, rotation},
    tissue::{Palette, Tissue},
};

/// One thing in the patient.
pub(crate) struct Part {
    pub(crate) tissue: Tissue,
    /// Value in the label map where this part is on top.
    pub(crate) label: u8,
    pub(crate) shape: Shape,
    /// How far the surface wanders from the shape (standard deviation, mm), and which of the four random fields moves it.
    pub(crate) rough_mm: f32,
    pub(crate) channel: usize,
}

/// How the patient lies in the scanner, and how large they are against the reference body.
pub(crate) struct Pose {
    pub(crate) centre: Point,
    pub(crate) angles: Point,
    pub(crate) scale: Point,
}

/// Parts, deformation and texture of one patient.
pub(crate) struct Scene {
    parts: Vec<(Part, Point, Point)>,
    skin: Shape,
    couch: Option<Shape>,
    pose: Pose,
    turn: [Point; 3],
    warp: Field,
    rough: Field,
    texture: Field,
    warp_mm: f32,
}

/// The painted image before noise, and its label map; both in the grid's order.
pub(crate) struct Painted {
    pub(crate) values: Vec<f32>,
    pub(crate) labels: Vec<u8>,
}

impl Scene {
    /// `skin` bounds everything in `parts`; `couch` is fixed to the scanner and drawn as foam.
    pub(crate) fn new(draw: &mut Draw, parts: Vec<Part>, skin: Shape, couch: Option<Shape>, pose: Pose) -> Self {
        let boxed = |part: Part| {
            let margin = 4.0 * part.rough_mm + 4.0;
            let (low, high) = part.shape.bounds();
            (part, low.map(|v| v - margin), high.map(|v| v + margin))
        };
        Self {
            parts: parts.into_iter().map(boxed).collect(),
            skin,
            couch,
            turn: rotation(pose.angles),
            pose,
            warp: Field::new(draw, 55.0, 6),
            rough: Field::new(draw, 22.0, 4),
            texture: Field::new(draw, 4.0, 1),
            warp_mm: 5.0,
        }
    }

    /// Paints the scene on a grid. Every slice is the mean of `layers` (odd) layers through its thickness;
    /// the label is that of the voxel's centre.
    pub(crate) fn paint(&self, grid: &Grid, palette: &Palette, layers: usize) -> Painted {
        let [width, height, slices] = grid.dims;
        let edge = 1.1 * grid.spacing_mm[0].max(grid.spacing_mm[1]);
        let mut painted = Painted { values: vec![0.0; grid.len()], labels: vec![0; grid.len()] };
        for k in 0..slices {
            for layer in 0..layers {
                let offset = (layer as f32 + 0.5) / layers as f32 - 0.5;
                for j in 0..height {
                    let (y, z) = (j as f32, k as f32 + offset);
                    let nearby = self.nearby(grid.point(0.0, y, z), grid.point(width as f32 - 1.0, y, z));
                    for i in 0..width {
                        let (value, label) = self.sample(&nearby, grid.point(i as f32, y, z), edge, palette);
                        let voxel = (k * height + j) * width + i;
                        painted.values[voxel] += value / layers as f32;
                        if layer == layers / 2 {
                            painted.labels[voxel] = label;
                        }
                    }
                }
            }
        }
        painted
    }

    /// From the scanner's coordinates to the reference body's, before the random deformation.
    fn reference(&self, p: Point) -> Point {
        let moved = [0, 1, 2].map(|axis| p[axis] - self.pose.centre[axis]);
        // The rotation's transpose is its inverse.
        [0, 1, 2].map(|axis| {
            let column = [self.turn[0][axis], self.turn[1][axis], self.turn[2][axis]];
            dot(column, moved) / self.pose.scale[axis]
        })
    }

    /// The parts that a row of voxels from `a` to `b` can meet.
    fn nearby(&self, a: Point, b: Point) -> Vec<usize> {
        let (a, b) = (self.reference(a), self.reference(b));
        let reach = 5.0 * self.warp_mm;
        let meets = |low: &Point, high: &Point| {
            (0..3).all(|axis| a[axis].min(b[axis]) - reach < high[axis] && a[axis].max(b[axis]) + reach > low[axis])
        };
        (0..self.parts.len()).filter(|&index| meets(&self.parts[index].1, &self.parts[index].2)).collect()
    }

    fn sample(&self, nearby: &[usize], p: Point, edge: f32, palette: &Palette) -> (f32, u8) {
        let mut value = palette[Tissue::Air as usize].mean;
        if let Some(couch) = &self.couch {
            value += coverage(couch.distance(p), edge) * (palette[Tissue::Couch as usize].mean - value);
        }
        let straight = self.reference(p);
        // Far outside the body no deformation reaches.
        if self.skin.distance(straight) > 5.0 * self.warp_mm + edge {
            return (value, 0);
        }
        let shift = self.warp.at(straight);
        let q = [0, 1, 2].map(|axis| straight[axis] + self.warp_mm * shift[axis]);
        if self.skin.distance(q) > edge {
            return (value, 0);
        }
        let (rough, texture) = (self.rough.at(q), self.texture.at(q));
        let mut label = 0;
        for &index in nearby {
            let (part, low, high) = &self.parts[index];
            if (0..3).any(|axis| q[axis] < low[axis] || q[axis] > high[axis]) {
                continue;
            }
            let distance = part.shape.distance(q) + part.rough_mm * rough[part.channel];
            let cover = coverage(distance, edge);
            if cover > 0.0 {
                let shade = &palette[part.tissue as usize];
                // Coarse and fine structure in equal parts; 0.7^2 + 0.7^2 is about one.
                let structure = 0.7 * (rough[(part.channel + 2) % 4] + texture[part.channel]);
                value += cover * (shade.mean + shade.texture * structure - value);
            }
            if distance < 0.0 {
                label = part.label;
            }
        }
        (value, label)
    }
}

/// How much of a pixel `edge` mm wide lies inside a surface at this distance from its middle.
fn coverage(distance: f32, edge: f32) -> f32 {
    (0.5 - distance / edge).clamp(0.0, 1.0)
}
