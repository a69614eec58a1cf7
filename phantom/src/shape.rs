//! Shapes as implicit surfaces: one number per point, negative inside, about the distance to the surface in mm.
//! Unions and cuts of such numbers stay smooth when they are blended, which is how ellipsoids become organs.

/// A point or a vector in patient coordinates, mm: x to the left, y to posterior, z to superior.
pub(crate) type Point = [f32; 3];

/// An implicit surface.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// `axes` are unit rows: the body's own axes in patient coordinates.
    Ellipsoid { centre: Point, radii: Point, axes: [Point; 3] },
    /// A chain of straight pieces with a radius at every joint.
    Tube(Vec<(Point, f32)>),
    /// An upright column without ends; `square` as in [`Outline`].
    Column(Outline),
    /// A column that closes as a dome: full section below `from`, nothing left at `top`.
    Dome { outline: Outline, from: f32, top: f32 },
    /// Layers of half thickness `half` that repeat along z every `period`, one of them at `phase`.
    Layers { period: f32, phase: f32, half: f32 },
    /// The points with `normal . p < offset`.
    Half { normal: Point, offset: f32 },
    /// Ribs in the wall along `outline`: each falls to the front by `slope` mm per mm, to the side by half of that, and ends at `front`.
    Ribs { outline: Outline, slope: f32, heights: Vec<f32>, front: f32, radii: [f32; 2] },
    /// Smooth union; edges round off over about `blend` mm.
    Union { parts: Vec<Shape>, blend: f32 },
    /// Smooth intersection of the two.
    Inside(Box<Shape>, Box<Shape>, f32),
    /// The first without the second.
    Without(Box<Shape>, Box<Shape>, f32),
    /// Grown by this many mm (shrunk when negative).
    Grown(Box<Shape>, f32),
}

/// A closed curve in the axial plane between an ellipse (`square` 0) and a rounded box (`square` 1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outline {
    pub(crate) centre: [f32; 2],
    pub(crate) radii: [f32; 2],
    pub(crate) square: f32,
}

impl Outline {
    /// Signed distance along the ray from the centre, mm.
    fn distance(&self, x: f32, y: f32, scale: f32) -> f32 {
        let (dx, dy) = (x - self.centre[0], y - self.centre[1]);
        let (u, v) = (dx / (self.radii[0] * scale), dy / (self.radii[1] * scale));
        let (u2, v2) = (u * u, v * v);
        let norm = (1.0 - self.square) * (u2 + v2).sqrt() + self.square * (u2 * u2 + v2 * v2).sqrt().sqrt();
        if norm < 1e-3 {
            return -scale * self.radii[0].min(self.radii[1]);
        }
        (dx * dx + dy * dy).sqrt() * (1.0 - 1.0 / norm)
    }

    pub(crate) fn grown(&self, mm: f32) -> Self {
        Self { radii: self.radii.map(|radius| radius + mm), ..*self }
    }
}

impl Shape {
    /// An ellipsoid turned by angles (radians) about x, then y, then z.
    pub(crate) fn turned(centre: Point, radii: Point, angles: Point) -> Self {
        let matrix = rotation(angles);
        // Columns of the matrix are the turned axes.
        let axes = [0, 1, 2].map(|column| [matrix[0][column], matrix[1][column], matrix[2][column]]);
        Self::Ellipsoid { centre, radii, axes }
    }

    pub(crate) fn union(parts: Vec<Shape>, blend: f32) -> Self {
        Self::Union { parts, blend }
    }

    pub(crate) fn inside(self, other: &Shape, blend: f32) -> Self {
        Self::Inside(Box::new(self), Box::new(other.clone()), blend)
    }

    pub(crate) fn without(self, other: &Shape, blend: f32) -> Self {
        Self::Without(Box::new(self), Box::new(other.clone()), blend)
    }

    pub(crate) fn grown(&self, mm: f32) -> Self {
        Self::Grown(Box::new(self.clone()), mm)
    }

    /// About the distance from `p` to the surface, mm; negative inside.
    pub(crate) fn distance(&self, p: Point) -> f32 {
        match self {
            Self::Ellipsoid { centre, radii, axes } => ellipsoid(p, centre, radii, axes),
            Self::Tube(joints) => tube(p, joints),
            Self::Column(outline) => outline.distance(p[0], p[1], 1.0),
            Self::Dome { outline, from, top } => dome(p, outline, *from, *top),
            Self::Layers { period, phase, half } => {
                let turns = (p[2] - phase) / period;
                (turns - turns.round()).abs() * period - half
            }
            Self::Half { normal, offset } => dot(*normal, p) - offset,
            Self::Ribs { outline, slope, heights, front, radii } => {
                ribs(p, outline, *slope, heights, radii).max(front - p[1])
            }
            Self::Union { parts, blend } => {
                parts.iter().map(|part| part.distance(p)).fold(f32::INFINITY, |a, b| smooth_min(a, b, *blend))
            }
            Self::Inside(a, b, blend) => cut(a.distance(p), *blend, || -b.distance(p)),
            Self::Without(a, b, blend) => cut(a.distance(p), *blend, || b.distance(p)),
            Self::Grown(shape, mm) => shape.distance(p) - mm,
        }
    }

    /// A box that holds the shape: low and high corner. Infinite where the shape is.
    pub(crate) fn bounds(&self) -> (Point, Point) {
        const ALL: (Point, Point) = ([f32::NEG_INFINITY; 3], [f32::INFINITY; 3]);
        match self {
            Self::Ellipsoid { centre, radii, .. } => {
                let reach = radii[0].max(radii[1]).max(radii[2]);
                (centre.map(|c| c - reach), centre.map(|c| c + reach))
            }
            Self::Tube(joints) => hull(joints.iter().map(|(c, r)| (c.map(|v| v - r), c.map(|v| v + r)))),
            Self::Column(o) | Self::Dome { outline: o, .. } | Self::Ribs { outline: o, .. } => {
                let margin = 10.0;
                let side = |axis: usize, sign: f32| o.centre[axis] + sign * (o.radii[axis] + margin);
                ([side(0, -1.0), side(1, -1.0), ALL.0[2]], [side(0, 1.0), side(1, 1.0), ALL.1[2]])
            }
            Self::Layers { .. } | Self::Half { .. } => ALL,
            Self::Union { parts, blend } => widen(hull(parts.iter().map(Shape::bounds)), blend * 0.25),
            Self::Inside(a, ..) | Self::Without(a, ..) => a.bounds(),
            Self::Grown(shape, mm) => widen(shape.bounds(), mm.max(0.0)),
        }
    }
}

fn hull(boxes: impl Iterator<Item = (Point, Point)>) -> (Point, Point) {
    boxes.fold(([f32::INFINITY; 3], [f32::NEG_INFINITY; 3]), |(low, high), (l, h)| {
        ([0, 1, 2].map(|axis| low[axis].min(l[axis])), [0, 1, 2].map(|axis| high[axis].max(h[axis])))
    })
}

fn widen((low, high): (Point, Point), mm: f32) -> (Point, Point) {
    (low.map(|v| v - mm), high.map(|v| v + mm))
}

/// Cuts a shape at distance `a` by another; far outside, where a cut moves nothing nearer, the other is not asked.
fn cut(a: f32, blend: f32, other: impl FnOnce() -> f32) -> f32 {
    const FAR_MM: f32 = 20.0;
    if a > FAR_MM { a } else { -smooth_min(-a, other(), blend) }
}

fn ellipsoid(p: Point, centre: &Point, radii: &Point, axes: &[Point; 3]) -> f32 {
    let d = sub(p, *centre);
    let (mut k0, mut k1) = (0.0, 0.0);
    for axis in 0..3 {
        let along = dot(axes[axis], d) / radii[axis];
        k0 += along * along;
        k1 += along * along / (radii[axis] * radii[axis]);
    }
    // The norm over its gradient: exact on the surface, and of the right sign everywhere.
    if k1 < 1e-9 { -radii[0].min(radii[1]).min(radii[2]) } else { k0.sqrt() * (k0.sqrt() - 1.0) / k1.sqrt() }
}

fn tube(p: Point, joints: &[(Point, f32)]) -> f32 {
    joints.windows(2).fold(f32::INFINITY, |least, pair| {
        let ((a, ra), (b, rb)) = (pair[0], pair[1]);
        let (along, to_p) = (sub(b, a), sub(p, a));
        let t = (dot(to_p, along) / dot(along, along).max(1e-6)).clamp(0.0, 1.0);
        let off = [0, 1, 2].map(|axis| to_p[axis] - t * along[axis]);
        least.min(dot(off, off).sqrt() - (ra + t * (rb - ra)))
    })
}

fn dome(p: Point, outline: &Outline, from: f32, top: f32) -> f32 {
    let height = ((p[2] - from) / (top - from)).max(0.0);
    if height >= 0.999 {
        return (p[2] - top).max(1.0);
    }
    outline.distance(p[0], p[1], (1.0 - height * height).sqrt())
}

fn ribs(p: Point, outline: &Outline, slope: f32, heights: &[f32], radii: &[f32; 2]) -> f32 {
    // From the spine a rib falls to the side and to the front.
    let along = p[2] - slope * (p[1] - 0.5 * p[0].abs());
    let nearest = heights.iter().map(|height| (along - height).abs()).fold(f32::INFINITY, f32::min);
    // `along` is measured upright; the rib leans, so its section is thinner by the cosine.
    let across = nearest / (1.0 + slope * slope).sqrt() / radii[1];
    let depth = outline.distance(p[0], p[1], 1.0) / radii[0];
    ((depth * depth + across * across).sqrt() - 1.0) * radii[0]
}

/// Minimum whose corner is rounded over `blend` (polynomial of second degree).
fn smooth_min(a: f32, b: f32, blend: f32) -> f32 {
    let overlap = (blend - (a - b).abs()).max(0.0);
    a.min(b) - if blend > 0.0 { overlap * overlap * 0.25 / blend } else { 0.0 }
}

pub(crate) fn dot(a: Point, b: Point) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn sub(a: Point, b: Point) -> Point {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

/// Rotation about x, then y, then z; rows of the matrix.
pub(crate) fn rotation(angles: Point) -> [Point; 3] {
    let [(sx, cx), (sy, cy), (sz, cz)] = angles.map(libm::sincosf);
    [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_zero_on_the_surface_and_grow_like_mm() {
        let ball = Shape::turned([10.0, 0.0, 0.0], [20.0; 3], [0.3, 0.2, 0.1]);
        for (x, expected) in [(30.0, 0.0), (35.0, 5.0), (25.0, -5.0)] {
            assert!((ball.distance([x, 0.0, 0.0]) - expected).abs() < 1e-3);
        }
        let organ = Shape::turned([0.0; 3], [50.0, 30.0, 20.0], [0.0, 0.0, core::f32::consts::FRAC_PI_2]);
        assert!(organ.distance([0.0, 50.0, 0.0]).abs() < 1e-3, "turned by 90 degrees, x lies along y");
        assert!((organ.distance([0.0, 52.0, 0.0]) - 2.0).abs() < 0.1);
    }

    #[test]
    fn set_operations_follow_their_names() {
        let a = Shape::turned([0.0; 3], [10.0; 3], [0.0; 3]);
        let b = Shape::turned([8.0, 0.0, 0.0], [10.0; 3], [0.0; 3]);
        for x in [-9.0, -3.0, 4.0, 9.0, 15.0, 19.0] {
            let p = [x, 0.0, 0.0];
            let (in_a, in_b) = (a.distance(p) < 0.0, b.distance(p) < 0.0);
            assert_eq!(Shape::union(vec![a.clone(), b.clone()], 0.0).distance(p) < 0.0, in_a || in_b);
            assert_eq!(a.clone().inside(&b, 0.0).distance(p) < 0.0, in_a && in_b);
            assert_eq!(a.clone().without(&b, 0.0).distance(p) < 0.0, in_a && !in_b);
        }
    }

    #[test]
    fn bounds_hold_the_shape() {
        let tube = Shape::Tube(vec![([0.0; 3], 4.0), ([10.0, 20.0, 5.0], 6.0), ([30.0, 20.0, -5.0], 2.0)]);
        let shape = Shape::union(vec![tube, Shape::turned([5.0; 3], [12.0, 6.0, 3.0], [0.5; 3])], 8.0);
        let (low, high) = shape.bounds();
        for step in 0..64_000 {
            let p = [step % 40, step / 40 % 40, step / 1600].map(|i| 2.0 * i as f32 - 30.0);
            let outside = (0..3).any(|axis| p[axis] < low[axis] || p[axis] > high[axis]);
            assert!(!(outside && shape.distance(p) < 0.0), "{p:?}");
        }
    }
}
