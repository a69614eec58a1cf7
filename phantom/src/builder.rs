//! What all regions of the body are put together with: parts in order, each measure drawn anew; a spine, and a couch.

use crate::{
    random::Draw,
    scene::{Part, Pose},
    shape::{Outline, Point, Shape},
    tissue::Tissue,
};

/// The parts of one patient so far.
pub(crate) struct Builder<'a> {
    pub(crate) draw: &'a mut Draw,
    pub(crate) parts: Vec<Part>,
    channel: usize,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(draw: &'a mut Draw) -> Self {
        Self { draw, parts: Vec::new(), channel: 0 }
    }

    pub(crate) fn add(&mut self, tissue: Tissue, label: u8, rough_mm: f32, shape: Shape) {
        self.parts.push(Part { tissue, label, shape, rough_mm, channel: self.channel % 4 });
    }

    /// From here on surfaces wander by another random field.
    pub(crate) fn next_field(&mut self) {
        self.channel += 1;
    }

    /// A point within `spread` mm of where the textbook has it.
    pub(crate) fn point(&mut self, x: f32, y: f32, z: f32, spread: f32) -> Point {
        self.draw.near([x, y, z], [spread; 3])
    }

    /// An ellipsoid somewhat larger or smaller, off its place and turned against the textbook's.
    pub(crate) fn blob(&mut self, centre: Point, radii: Point, angles: Point, spread: f32) -> Shape {
        let centre = self.draw.near(centre, [spread; 3]);
        let size = self.draw.around(1.0, 0.08);
        let radii = radii.map(|radius| radius * size * self.draw.around(1.0, 0.06));
        let angles = self.draw.near(angles, [0.1; 3]);
        Shape::turned(centre, radii, angles)
    }

    /// A tube through points (x, y, z, radius), each moved by up to `spread` mm.
    pub(crate) fn tube(&mut self, joints: &[[f32; 4]], spread: f32) -> Shape {
        let size = self.draw.around(1.0, 0.12);
        Shape::Tube(joints.iter().map(|j| (self.point(j[0], j[1], j[2], spread), j[3] * size)).collect())
    }
}

/// The couch top under a patient whose back is where `skin` ends.
pub(crate) fn bed(pose: &Pose, skin: &Outline) -> Shape {
    let back = pose.centre[1] + pose.scale[1] * (skin.centre[1] + skin.radii[1]);
    let top = Outline { centre: [0.0, back - 120.0], radii: [330.0, 148.0], square: 0.0 };
    let foam = Shape::Column(top).without(&Shape::Column(top.grown(-22.0)), 0.0);
    foam.inside(&Shape::Half { normal: [0.0, -1.0, 0.0], offset: -(back - 22.0) }, 0.0)
}

/// A spine whose vertebrae repeat every `period` mm, a disc at `phase`, all of it `back_mm` further back than in the
/// abdomen: bodies with discs, canal, arch and processes.
pub(crate) fn vertebrae(b: &mut Builder, period: f32, phase: f32, back_mm: f32) {
    let column =
        |x: f32, y: f32, rx: f32, ry: f32| Shape::Column(Outline { centre: [x, y], radii: [rx, ry], square: 0.25 });
    let (rx, ry) = (b.draw.around(22.5, 2.0), b.draw.around(16.5, 1.5));
    let body = column(0.0, back_mm + 42.0, rx, ry);
    b.add(Tissue::Cortical, 0, 0.5, body.clone());
    b.add(Tissue::Marrow, 0, 0.5, body.grown(-1.8));
    let layers = |phase: f32, half: f32| Shape::Layers { period, phase, half };
    b.add(Tissue::Cortical, 0, 0.4, body.clone().inside(&layers(phase, 5.5), 0.0));
    b.add(Tissue::Disc, 0, 0.4, body.grown(1.0).inside(&layers(phase, 4.0), 0.0));
    let arch = column(0.0, back_mm + 66.0, 15.0, 11.5);
    let spinous = column(0.0, back_mm + 82.0, 3.2, 11.0).inside(&layers(phase + 0.5 * period, 10.0), 2.0);
    let wings = column(0.0, back_mm + 66.0, 40.0, 3.6).inside(&layers(phase + 0.6 * period, 5.0), 2.0);
    let arch = Shape::union(vec![arch.inside(&layers(phase + 0.5 * period, 13.0), 3.0), spinous, wings], 5.0);
    b.add(Tissue::Cortical, 0, 0.5, arch.clone());
    b.add(Tissue::Marrow, 0, 0.5, arch.grown(-2.2));
    b.add(Tissue::Fat, 0, 0.0, column(0.0, back_mm + 66.0, 10.0, 8.0));
    b.add(Tissue::Csf, 0, 0.0, column(0.0, back_mm + 65.5, 8.0, 6.5));
    b.add(Tissue::Disc, 0, 0.0, column(0.0, back_mm + 65.5, 3.5, 3.0));
    b.next_field();
}
