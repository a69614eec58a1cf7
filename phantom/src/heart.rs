//! The heart in its chest: a reference body in mm (x left, y posterior, z superior, zero near the middle of the heart) whose
//! every measure is drawn anew for a subject. The left ventricle is an ellipsoid cut off at the mitral valve; the heart as a
//! whole is turned and scaled about its middle, so that its long axis varies as it does between patients.
//!
//! Parts are listed from the outside in, labelled ones last: their truth is never cut by a neighbour drawn too large.

use contract::LabelMap;

use crate::{
    builder::{Builder, bed, vertebrae},
    random::Draw,
    scene::{Pose, Scene},
    shape::{Outline, Point, Shape, dot, rotation},
    tissue::Tissue,
};

/// Middle of the heart, about which it turns.
const MIDDLE: Point = [20.0, -30.0, 0.0];

/// The chest's wall, from the inside out.
struct Chest {
    cavity: Outline,
    wall: Outline,
    skin: Outline,
}

/// How this patient's heart lies.
struct Heart {
    turn: [Point; 3],
    size: f32,
    /// From the mitral valve to the apex, after turning.
    long: Point,
    /// Middle of the mitral valve, after turning.
    base: Point,
    /// The left ventricle with its wall, closed at the base.
    left: Shape,
    cavity: Shape,
}

/// Draws one patient. `couch` adds the scanner's couch top under the back.
pub(crate) fn scene(draw: &mut Draw, couch: bool) -> Scene {
    let mut builder = Builder::new(draw);
    let b = &mut builder;
    let chest = chest(b);
    shell(b, &chest);
    below(b, &chest);
    let heart = Heart::new(b);
    mediastinum(b, &heart, &chest);
    right_heart(b, &heart);
    great_vessels(b, &heart);
    left_heart(b, &heart);
    let parts = builder.parts;
    let pose = Pose {
        centre: draw.near([0.0; 3], [10.0, 8.0, 10.0]),
        angles: draw.near([0.0; 3], [0.05, 0.03, 0.06]),
        scale: draw.near([1.0; 3], [0.06, 0.06, 0.07]),
    };
    let bed = couch.then(|| bed(&pose, &chest.skin));
    Scene::new(draw, parts, Shape::Column(chest.skin), bed, pose)
}

fn chest(b: &mut Builder) -> Chest {
    let radii = [b.draw.around(128.0, 7.0), b.draw.around(88.0, 5.0)];
    let cavity = Outline { centre: [0.0, -12.0], radii, square: b.draw.uniform(0.15, 0.35) };
    let [side, back] = [b.draw.uniform(10.0, 14.0), b.draw.uniform(13.0, 17.0)];
    let wall = Outline { centre: [0.0, -7.0], radii: [radii[0] + side, radii[1] + back], ..cavity };
    let fat = b.draw.uniform(6.0, 22.0);
    let skin = Outline { radii: [wall.radii[0] + fat, wall.radii[1] + fat * b.draw.uniform(0.5, 0.9)], ..wall };
    Chest { cavity, wall, skin }
}

/// Skin, fat, muscle, ribs, breastbone, spine, and the lungs with their vessels.
fn shell(b: &mut Builder, chest: &Chest) {
    b.add(Tissue::Skin, 0, 0.0, Shape::Column(chest.skin));
    b.add(Tissue::Fat, 0, 0.0, Shape::Column(chest.skin.grown(-2.0)));
    b.add(Tissue::Muscle, 0, 1.2, Shape::Column(chest.wall));
    for side in [-1.0, 1.0] {
        let back = Outline { centre: [side * b.draw.around(30.0, 3.0), 83.0], radii: [26.0, 13.0], square: 0.4 };
        b.add(Tissue::Fat, 0, 0.8, Shape::Column(back));
        b.add(Tissue::Muscle, 0, 0.8, Shape::Column(back.grown(-1.6)));
    }
    b.add(Tissue::Fat, 0, 0.6, Shape::Column(chest.cavity.grown(2.0)));
    let (first, spacing) = (b.draw.around(-120.0, 10.0), b.draw.around(25.0, 2.0));
    let heights = (0..14).map(|rib| first + spacing * rib as f32).collect();
    let (slope, front) = (b.draw.around(0.5, 0.1), chest.cavity.centre[1] - chest.cavity.radii[1] * 0.8);
    let midline = Shape::Column(Outline { centre: [0.0, 80.0], radii: [30.0, 40.0], square: 0.0 });
    let ribs = Shape::Ribs { outline: chest.cavity.grown(5.5), slope, heights, front, radii: [4.2, 6.5] };
    let ribs = ribs.without(&midline, 0.0);
    b.add(Tissue::Cortical, 0, 0.5, ribs.clone());
    b.add(Tissue::Marrow, 0, 0.5, ribs.grown(-2.0));
    let front = chest.cavity.centre[1] - chest.cavity.radii[1];
    let bone = Outline { centre: [0.0, front - 4.0], radii: [b.draw.around(17.0, 2.0), 6.0], square: 0.7 };
    b.add(Tissue::Cortical, 0, 0.4, Shape::Column(bone));
    b.add(Tissue::Marrow, 0, 0.4, Shape::Column(bone.grown(-1.6)));
    b.next_field();
    for side in [-1.0, 1.0] {
        let half = Shape::Half { normal: [side, 0.0, 0.0], offset: -3.0 };
        b.add(Tissue::Lung, 0, 0.0, Shape::Column(chest.cavity).inside(&half, 10.0));
        for _ in 0..26 {
            let hilum = [side * -42.0, b.draw.around(0.0, 12.0), b.draw.around(30.0, 30.0)];
            let far = [side * -b.draw.uniform(70.0, 112.0), b.draw.uniform(-70.0, 55.0), b.draw.uniform(-60.0, 100.0)];
            let radius = b.draw.uniform(1.8, 3.2);
            let vessel = Shape::Tube(vec![(hilum, radius + 1.2), (far, 0.4 * radius)]);
            b.add(Tissue::RightBlood, 0, 0.4, vessel.inside(&Shape::Column(chest.cavity.grown(-4.0)), 0.0));
        }
    }
    let (period, phase) = (b.draw.around(28.0, 2.0), b.draw.uniform(0.0, 28.0));
    let bed = Shape::Column(Outline { centre: [0.0, 62.0], radii: [30.0, 30.0], square: 0.2 });
    b.add(Tissue::Fat, 0, 0.6, bed);
    vertebrae(b, period, phase, 8.0);
}

/// What lies under the diaphragm: liver, stomach, spleen.
fn below(b: &mut Builder, chest: &Chest) {
    let inside = Shape::Column(chest.cavity.grown(-1.0));
    let top = b.draw.around(0.0, 8.0);
    let spine = Shape::Column(Outline { centre: [0.0, 62.0], radii: [32.0, 32.0], square: 0.2 });
    let right = b.blob([-62.0, -4.0, -118.0 + top], [84.0, 88.0, 66.0], [0.0; 3], 4.0);
    let middle = b.blob([10.0, -46.0, -112.0 + top], [74.0, 44.0, 44.0], [0.0; 3], 4.0);
    let liver = Shape::union(vec![right, middle], 12.0).inside(&inside, 6.0).without(&spine, 6.0);
    b.add(Tissue::Muscle, 0, 0.0, liver.grown(2.5));
    b.add(Tissue::Liver, 0, 0.0, liver);
    let fundus = b.blob([66.0, 0.0, -122.0 + top], [56.0, 66.0, 62.0], [0.0; 3], 4.0);
    let fundus = fundus.inside(&inside, 6.0).without(&spine, 6.0);
    b.add(Tissue::Muscle, 0, 0.0, fundus.grown(2.5));
    b.add(Tissue::Fat, 0, 0.0, fundus.clone());
    b.add(Tissue::GutWall, 0, 1.2, fundus.grown(-4.0));
    b.add(Tissue::GutContent, 0, 1.2, fundus.grown(-8.0));
    let spleen = b.blob([100.0, 38.0, -112.0 + top], [32.0, 38.0, 44.0], [0.0; 3], 4.0).inside(&inside, 4.0);
    b.add(Tissue::Spleen, 0, 1.2, spleen);
    b.next_field();
}

impl Heart {
    fn new(b: &mut Builder) -> Self {
        let turn = rotation(b.draw.near([0.0; 3], [0.14, 0.14, 0.20]));
        let size = b.draw.around(1.0, 0.07);
        let mut heart = Self {
            turn,
            size,
            long: unit(turn.map(|row| dot(row, [0.68, -0.58, -0.44]))),
            base: [0.0; 3],
            left: Shape::union(vec![], 0.0),
            cavity: Shape::union(vec![], 0.0),
        };
        heart.base = heart.place([30.0, -16.0, 4.0]);
        let (length, width) = (b.draw.around(54.0, 4.0) * size, b.draw.around(23.0, 2.5) * size);
        let wall = b.draw.uniform(8.5, 12.0);
        let round = b.draw.around(1.0, 0.06);
        let radii = [width * round, width / round, length];
        heart.cavity = heart.ventricle(radii, 26.0 * size, 0.0);
        heart.left = heart.ventricle(radii.map(|radius| radius + wall), 26.0 * size, -1.0);
        heart
    }

    /// A point of the textbook's heart in this one.
    fn place(&self, p: Point) -> Point {
        let from = [0, 1, 2].map(|axis| self.size * (p[axis] - MIDDLE[axis]));
        [0, 1, 2].map(|axis| MIDDLE[axis] + dot(self.turn[axis], from))
    }

    /// A tube through points (x, y, z, radius) of the textbook's heart, each moved by up to `spread` mm.
    fn tube(&self, b: &mut Builder, joints: &[[f32; 4]], spread: f32) -> Shape {
        let placed: Vec<[f32; 4]> = joints
            .iter()
            .map(|joint| {
                let [x, y, z] = self.place([joint[0], joint[1], joint[2]]);
                [x, y, z, self.size * joint[3]]
            })
            .collect();
        b.tube(&placed, spread)
    }

    fn blob(&self, b: &mut Builder, centre: Point, radii: Point, spread: f32) -> Shape {
        b.blob(self.place(centre), radii.map(|radius| self.size * radius), [0.0; 3], spread)
    }

    /// The half of space on the apex' side of the mitral valve, from `beyond` mm on.
    fn below_base(&self, beyond: f32) -> Shape {
        Shape::Half { normal: self.long.map(|v| -v), offset: -dot(self.long, self.base) - beyond }
    }

    /// An ellipsoid along the long axis, `down` mm from the base, cut at the base.
    fn ventricle(&self, radii: Point, down: f32, beyond: f32) -> Shape {
        let centre = [0, 1, 2].map(|axis| self.base[axis] + down * self.long[axis]);
        self.along(centre, radii).inside(&self.below_base(beyond), 5.0)
    }

    /// An ellipsoid whose first axis points to the right ventricle, and whose last lies along the heart.
    fn along(&self, centre: Point, radii: Point) -> Shape {
        let across = self.across();
        Shape::Ellipsoid { centre, radii, axes: [across, cross(self.long, across), self.long] }
    }

    /// From the left ventricle to the right one.
    fn across(&self) -> Point {
        let toward = self.turn.map(|row| dot(row, [-0.62, -0.72, -0.12]));
        let along = dot(toward, self.long);
        unit([0, 1, 2].map(|axis| toward[axis] - along * self.long[axis]))
    }
}

/// Pericardial fat, hila, oesophagus, airways.
fn mediastinum(b: &mut Builder, h: &Heart, chest: &Chest) {
    let inside = Shape::Column(chest.cavity.grown(-0.5));
    let sac = b.draw.uniform(3.0, 7.0);
    let right = h.blob(b, [-14.0, -34.0, -2.0], [46.0, 42.0, 50.0], 2.0);
    let front = h.blob(b, [22.0, -58.0, -4.0], [44.0, 36.0, 46.0], 2.0);
    let upper = h.blob(b, [2.0, -34.0, 56.0], [46.0, 38.0, 44.0], 2.0);
    let thymus = h.blob(b, [2.0, -62.0, 70.0], [28.0, 34.0, 60.0], 2.0);
    let back = Shape::Column(Outline { centre: [8.0, 26.0], radii: [32.0, 22.0], square: 0.2 });
    let heart = Shape::union(vec![h.left.grown(sac), right, front, upper, thymus, back], 14.0).inside(&inside, 4.0);
    b.add(Tissue::Muscle, 0, 1.2, heart.grown(1.2));
    b.add(Tissue::Fat, 0, 1.2, heart);
    let gullet = b.tube(&[[6.0, 26.0, 130.0, 7.0], [4.0, 27.0, 20.0, 7.5], [16.0, 18.0, -130.0, 7.0]], 2.0);
    b.add(Tissue::GutWall, 0, 0.8, gullet);
    let z = b.draw.around(56.0, 4.0);
    let airways: [&[[f32; 4]]; 3] = [
        &[[-2.0, 14.0, 140.0, 9.0], [-2.0, 14.0, z, 9.0]],
        &[[-2.0, 14.0, z, 7.5], [-34.0, 14.0, z - 26.0, 6.5], [-60.0, 16.0, z - 40.0, 4.0]],
        &[[-2.0, 14.0, z, 7.0], [38.0, 18.0, z - 24.0, 5.5], [62.0, 22.0, z - 36.0, 4.0]],
    ];
    for joints in airways {
        let airway = b.tube(joints, 1.0);
        b.add(Tissue::Muscle, 0, 0.4, airway.grown(1.5));
        b.add(Tissue::Air, 0, 0.4, airway);
    }
    b.next_field();
}

/// Right atrium and ventricle, the great veins and the pulmonary artery.
fn right_heart(b: &mut Builder, h: &Heart) {
    let middle = [0, 1, 2].map(|axis| h.base[axis] + h.size * (24.0 * h.long[axis] + 40.0 * h.across()[axis]));
    let radii = [22.0, 35.0, 44.0].map(|radius| radius * h.size * b.draw.around(1.0, 0.08));
    let body = h.along(middle, radii);
    let outflow = h.tube(b, &[[24.0, -66.0, 4.0, 19.0], [24.0, -66.0, 28.0, 15.0], [21.0, -58.0, 46.0, 13.5]], 1.5);
    let ventricle = Shape::union(vec![body, outflow], 10.0).without(&h.left, 2.0);
    b.add(Tissue::Myocardium, 0, 1.2, ventricle.grown(3.0));
    let atrium = h.blob(b, [-30.0, -36.0, -6.0], [26.0, 28.0, 34.0], 2.0);
    let valve = h.tube(b, &[[-28.0, -38.0, -8.0, 18.0], [-4.0, -48.0, -10.0, 16.0]], 1.0);
    let atrium = Shape::union(vec![atrium, valve], 8.0);
    b.add(Tissue::Myocardium, 0, 1.0, atrium.grown(2.0));
    b.add(Tissue::RightBlood, 0, 1.4, ventricle);
    b.add(Tissue::RightBlood, 0, 1.2, atrium);
    let vessels: [&[[f32; 4]]; 4] = [
        &[[-34.0, -22.0, 14.0, 10.0], [-38.0, -20.0, 46.0, 9.5], [-36.0, -20.0, 140.0, 9.0]],
        &[[21.0, -58.0, 44.0, 13.5], [18.0, -36.0, 58.0, 12.5], [13.0, -17.0, 60.0, 11.5]],
        &[[13.0, -17.0, 60.0, 11.0], [-16.0, -8.0, 52.0, 9.5], [-56.0, -4.0, 44.0, 7.0]],
        &[[13.0, -17.0, 60.0, 11.0], [38.0, 2.0, 58.0, 9.5], [62.0, 12.0, 44.0, 6.5]],
    ];
    for joints in vessels {
        let vessel = h.tube(b, joints, 1.5);
        b.add(Tissue::Muscle, 0, 0.5, vessel.grown(1.0));
        b.add(Tissue::RightBlood, 0, 0.5, vessel);
    }
    let cava = h.tube(b, &[[-28.0, -18.0, -24.0, 12.0], [-24.0, -2.0, -56.0, 12.0], [-24.0, 4.0, -150.0, 12.0]], 1.5);
    b.add(Tissue::RightBlood, 0, 0.5, cava);
    b.next_field();
}

/// Arch and descending aorta with the vessels of the head, pulmonary veins, coronary arteries.
fn great_vessels(b: &mut Builder, h: &Heart) {
    let veins: [&[[f32; 4]]; 4] = [
        &[[-12.0, 0.0, 24.0, 8.0], [-38.0, 10.0, 26.0, 7.0], [-66.0, 10.0, 34.0, 4.5]],
        &[[-12.0, 2.0, 10.0, 8.0], [-36.0, 14.0, 4.0, 7.0], [-62.0, 26.0, -6.0, 4.5]],
        &[[24.0, 0.0, 26.0, 7.5], [46.0, 4.0, 30.0, 6.5], [70.0, 2.0, 40.0, 4.0]],
        &[[24.0, 2.0, 12.0, 7.5], [44.0, 14.0, 6.0, 6.5], [66.0, 28.0, -4.0, 4.0]],
    ];
    for joints in veins {
        let vein = h.tube(b, joints, 1.5);
        b.add(Tissue::LeftBlood, 0, 0.5, vein);
    }
    let tip = [0, 1, 2].map(|axis| h.base[axis] + h.size * (74.0 * h.long[axis] + 17.0 * h.across()[axis]));
    let groove = [0, 1, 2].map(|axis| h.base[axis] + h.size * (10.0 * h.long[axis] + 26.0 * h.across()[axis]));
    let anterior = [groove[0] + 16.0 * h.size, groove[1], groove[2] + 26.0 * h.size];
    let descending = Shape::Tube(vec![(h.place([16.0, -40.0, 27.0]), 2.2), (anterior, 2.0), (tip, 1.2)]);
    b.add(Tissue::LeftBlood, 0, 0.0, descending);
    let right = h.tube(b, &[[-6.0, -52.0, 28.0, 2.0], [-14.0, -70.0, 8.0, 1.8], [-8.0, -62.0, -26.0, 1.6]], 1.5);
    b.add(Tissue::LeftBlood, 0, 0.0, right);
    let arteries: [&[[f32; 4]]; 4] = [
        &[[-9.0, -36.0, 78.0, 14.0], [4.0, -14.0, 92.0, 13.0], [22.0, 12.0, 84.0, 12.0], [26.0, 26.0, 64.0, 11.5]],
        &[[26.0, 26.0, 64.0, 11.5], [25.0, 30.0, 0.0, 11.0], [20.0, 30.0, -150.0, 10.5]],
        &[[-6.0, -24.0, 92.0, 6.0], [-16.0, -22.0, 140.0, 5.5]],
        &[[12.0, -2.0, 92.0, 4.5], [20.0, -4.0, 140.0, 4.0]],
    ];
    for joints in arteries {
        let artery = h.tube(b, joints, 1.0);
        b.add(Tissue::Muscle, 0, 0.4, artery.grown(1.4));
        b.add(Tissue::LeftBlood, 0, 0.4, artery);
    }
    b.next_field();
}

/// The labelled parts: left atrium, myocardium and blood of the left ventricle, ascending aorta.
fn left_heart(b: &mut Builder, h: &Heart) {
    let labels = LabelMap::heart();
    let label = |name: &str| labels.index_of(name).expect("the heart's own names");
    let rise =
        [[1.0, -38.0, 25.0, 15.5], [-7.0, -44.0, 42.0, 15.5], [-13.0, -44.0, 62.0, 15.0], [-9.0, -36.0, 78.0, 14.0]];
    let aorta = h.tube(b, &rise, 1.0);
    let body = h.blob(b, [4.0, -5.0, 15.0], [32.0, 20.0, 25.0], 2.0);
    let funnel = h.tube(b, &[[12.0, -6.0, 12.0, 16.0], [32.0, -17.0, 3.0, 16.0]], 0.5);
    let ear = h.tube(b, &[[24.0, -10.0, 26.0, 9.0], [38.0, -26.0, 30.0, 8.0], [44.0, -38.0, 28.0, 5.5]], 1.5);
    let away = Shape::Half { normal: h.long, offset: dot(h.long, h.base) - 1.2 };
    let atrium = Shape::union(vec![body, funnel], 8.0).inside(&away, 1.0);
    let atrium = Shape::union(vec![atrium, ear.without(&h.left.grown(2.0), 2.0)], 5.0);
    let atrium = atrium.without(&aorta.grown(2.5), 3.0);
    b.add(Tissue::Myocardium, 0, 0.8, atrium.grown(1.8));
    b.add(Tissue::LeftBlood, label("left atrium"), 1.0, atrium);
    b.next_field();
    b.add(Tissue::Myocardium, label("left ventricular myocardium"), 1.1, h.left.clone());
    let outflow = h.tube(b, &[[34.0, -28.0, 0.0, 12.0], [16.0, -34.0, 13.0, 11.5], [2.0, -38.0, 25.0, 12.5]], 0.5);
    b.add(Tissue::Myocardium, 0, 0.6, outflow.grown(2.2).without(&h.left, 0.0));
    let blood = Shape::union(vec![h.cavity.clone(), outflow], 6.0);
    b.add(Tissue::LeftBlood, label("left ventricle"), 1.4, blood.clone());
    // Papillary muscles stand in the blood and belong to its label, as readers draw it.
    for side in [-0.55, 0.75] {
        let from = [0, 1, 2].map(|axis| {
            let round = cross(h.long, h.across())[axis];
            h.base[axis] + h.size * (52.0 * h.long[axis] - 5.0 * h.across()[axis] + 22.0 * side * round)
        });
        let to = [0, 1, 2].map(|axis| 0.6 * from[axis] + 0.4 * h.base[axis]);
        let muscle = Shape::Tube(vec![(from, b.draw.uniform(3.8, 5.2)), (to, 2.4)]);
        b.add(Tissue::Myocardium, label("left ventricle"), 0.5, muscle.inside(&h.cavity, 0.0));
    }
    b.next_field();
    b.add(Tissue::Muscle, 0, 0.5, aorta.grown(1.4).without(&blood, 0.0));
    b.add(Tissue::LeftBlood, label("ascending aorta"), 0.5, aorta);
}

fn unit(v: Point) -> Point {
    let length = dot(v, v).sqrt();
    v.map(|value| value / length)
}

fn cross(a: Point, b: Point) -> Point {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}
