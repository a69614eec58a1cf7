//! The upper abdomen: a reference body in mm (x left, y posterior, z superior, zero between the kidneys' hila) whose
//! every measure is drawn anew for a subject. Parts are listed from the outside in; later ones are painted over earlier
//! ones, and organs come after the gut, so that their truth is never cut by a neighbour drawn too large.

use core::f32::consts::PI;

use contract::LabelMap;

use crate::{
    builder::{Builder, bed, vertebrae},
    random::Draw,
    scene::{Pose, Scene},
    shape::{Outline, Shape},
    tissue::Tissue,
};

/// The frame that everything else is fitted into.
struct Trunk {
    /// Inner face of the abdominal wall.
    cavity: Outline,
    /// Outer face of its muscles.
    wall: Outline,
    skin: Outline,
    /// Vertebrae and the muscles along them, which bulge into the cavity.
    back: Shape,
    /// What lies under the diaphragm.
    belly: Shape,
    dome: Shape,
    dome_from: f32,
}

/// Draws one patient. `couch` adds the scanner's couch top under the back.
pub(crate) fn scene(draw: &mut Draw, couch: bool) -> Scene {
    let trunk = trunk(draw);
    let mut builder = Builder::new(draw);
    shell(&mut builder, &trunk);
    spine(&mut builder);
    gut(&mut builder, &trunk);
    great_vessels(&mut builder);
    organs(&mut builder, &trunk);
    let parts = builder.parts;
    let pose = Pose {
        centre: draw.near([0.0; 3], [10.0, 8.0, 12.0]),
        angles: draw.near([0.0; 3], [0.04, 0.03, 0.06]),
        scale: draw.near([1.0; 3], [0.07, 0.07, 0.08]),
    };
    let bed = couch.then(|| bed(&pose, &trunk.skin));
    Scene::new(draw, parts, Shape::Column(trunk.skin), bed, pose)
}

fn trunk(draw: &mut Draw) -> Trunk {
    let visceral = draw.uniform(-5.0, 9.0);
    let cavity = Outline {
        centre: [0.0, -6.0],
        radii: [127.0 + visceral, 80.0 + 0.9 * visceral],
        square: draw.uniform(0.05, 0.35),
    };
    let wall = cavity.grown(draw.uniform(9.0, 13.0));
    let fat = draw.uniform(6.0, 28.0);
    let radii = [wall.radii[0] + fat, wall.radii[1] + fat * draw.uniform(0.6, 1.0)];
    let skin = Outline { radii, ..wall };
    let back = Shape::Column(Outline { centre: [0.0, 74.0], radii: [46.0, 50.0], square: 0.3 });
    let dome_from = draw.uniform(5.0, 22.0);
    let top = dome_from + draw.uniform(72.0, 90.0);
    let dome = Shape::Dome { outline: cavity, from: dome_from, top }.without(&back, 14.0);
    let belly = dome.grown(-4.0);
    Trunk { cavity, wall, skin, back, belly, dome, dome_from }
}

/// Skin, fat, muscle wall, ribs, lung bases, diaphragm, visceral fat.
fn shell(b: &mut Builder, t: &Trunk) {
    b.add(Tissue::Skin, 0, 0.0, Shape::Column(t.skin));
    b.add(Tissue::Fat, 0, 0.0, Shape::Column(t.skin.grown(-2.0)));
    b.add(Tissue::Muscle, 0, 1.2, Shape::Column(t.wall));
    // Fat planes around the erector spinae.
    for side in [-1.0, 1.0] {
        let outline = Outline { centre: [side * b.draw.around(29.0, 3.0), 76.0], radii: [25.0, 16.0], square: 0.4 };
        b.add(Tissue::Fat, 0, 0.8, Shape::Column(outline));
        b.add(Tissue::Muscle, 0, 0.8, Shape::Column(outline.grown(-1.6)));
    }
    let midline = Shape::Column(Outline { centre: [0.0, 72.0], radii: [38.0, 45.0], square: 0.0 });
    let inside = Shape::Column(t.cavity).without(&t.back, 14.0);
    let chest = Shape::Half { normal: [0.0, 0.0, -1.0], offset: -t.dome_from }.inside(&inside, 0.0);
    b.add(Tissue::Lung, 0, 0.0, chest);
    b.add(Tissue::Muscle, 0, 0.0, t.dome.clone());
    b.add(Tissue::Fat, 0, 0.0, t.dome.grown(-2.5));
    let (first, spacing) = (b.draw.around(32.0, 6.0), b.draw.around(27.0, 2.0));
    let heights = (0..6).map(|rib| first + spacing * rib as f32).collect();
    let (slope, front) = (b.draw.around(0.6, 0.1), b.draw.around(-52.0, 8.0));
    let middle = t.cavity.grown(5.0);
    let ribs = Shape::Ribs { outline: middle, slope, heights, front, radii: [4.2, 6.5] }.without(&midline, 0.0);
    b.add(Tissue::Cortical, 0, 0.5, ribs.clone());
    b.add(Tissue::Marrow, 0, 0.5, ribs.grown(-2.0));
    b.next_field();
}

/// Vertebrae with disc, canal, arch and processes; psoas and crura beside them.
fn spine(b: &mut Builder) {
    let (period, phase) = (b.draw.around(34.0, 2.0), b.draw.uniform(0.0, 34.0));
    for side in [-1.0, 1.0] {
        let psoas =
            [[side * 24.0, 46.0, 25.0, 3.0], [side * 37.0, 44.0, -40.0, 14.0], [side * 46.0, 38.0, -120.0, 22.0]];
        let psoas = b.tube(&psoas, 2.0);
        b.add(Tissue::Muscle, 0, 1.0, psoas);
        let crus = b.tube(
            &[[side * 16.0, 18.0, 80.0, 5.0], [side * 15.0, 23.0, 0.0, 4.0], [side * 13.0, 28.0, -30.0, 2.0]],
            1.5,
        );
        b.add(Tissue::Muscle, 0, 0.5, crus);
    }
    vertebrae(b, period, phase, 0.0);
}

/// A hollow organ: wall, content, and gas above a fluid level (the patient lies on the back).
fn hollow(b: &mut Builder, t: &Trunk, lumen: Shape, content: Tissue, gas_below: f32) {
    let outer = lumen.inside(&t.belly, 3.0);
    b.add(Tissue::GutWall, 0, 1.6, outer.clone());
    let inner = outer.grown(-2.6);
    b.add(content, 0, 1.6, inner.clone());
    b.add(Tissue::Air, 0, 0.8, inner.inside(&Shape::Half { normal: [0.0, 1.0, 0.0], offset: gas_below }, 0.0));
    b.next_field();
}

/// Small bowel, colon, stomach, pancreas.
fn gut(b: &mut Builder, t: &Trunk) {
    for _ in 0..12 + b.draw.below(8) {
        let start = b.draw.near([8.0, -22.0, -72.0], [78.0, 38.0, 46.0]);
        let radius = b.draw.uniform(8.0, 12.5);
        let mut joints = vec![(start, radius)];
        for _ in 0..2 {
            let end = joints[joints.len() - 1].0;
            joints.push((b.draw.near(end, [26.0, 20.0, 14.0]), radius));
        }
        let gas = if b.draw.chance(0.2) { start[1] + b.draw.around(0.0, 6.0) } else { -200.0 };
        hollow(b, t, Shape::Tube(joints), Tissue::GutContent, gas);
    }
    let colon: [&[[f32; 4]]; 3] = [
        &[[-97.0, 6.0, -130.0, 20.0], [-99.0, 6.0, -62.0, 20.0], [-90.0, -26.0, -46.0, 17.0]],
        &[
            [-90.0, -26.0, -46.0, 17.0],
            [-40.0, -56.0, -62.0, 17.0],
            [20.0, -64.0, -60.0, 16.0],
            [66.0, -54.0, -32.0, 16.0],
            [100.0, -16.0, 2.0, 15.0],
        ],
        &[[101.0, -12.0, 0.0, 15.0], [107.0, 16.0, -42.0, 14.0], [102.0, 14.0, -130.0, 14.0]],
    ];
    for piece in colon {
        let middle = piece[1][1];
        let lumen = b.tube(piece, 6.0);
        let gas = middle + b.draw.uniform(-16.0, 2.0);
        hollow(b, t, lumen, Tissue::Stool, gas);
    }
    let fundus = b.blob([54.0, 0.0, 44.0], [36.0, 40.0, 36.0], [0.2, 0.0, 0.0], 5.0);
    let body = b.blob([48.0, -38.0, 16.0], [33.0, 28.0, 34.0], [0.0, 0.2, 0.0], 5.0);
    let antrum = b.blob([6.0, -42.0, 0.0], [32.0, 16.0, 16.0], [0.0; 3], 5.0);
    let gas = b.draw.uniform(-64.0, -22.0);
    hollow(b, t, Shape::union(vec![fundus, body, antrum], 14.0), Tissue::GutContent, gas);
    let gland = [
        [-30.0, -6.0, -24.0, 13.0],
        [-16.0, -14.0, -6.0, 11.0],
        [4.0, -16.0, 2.0, 8.0],
        [30.0, -4.0, 8.0, 9.5],
        [64.0, 10.0, 18.0, 9.0],
    ];
    let pancreas = b.tube(&gland, 4.0);
    b.add(Tissue::Pancreas, 0, 2.2, pancreas);
    b.next_field();
}

/// Aorta, vena cava, renal and mesenteric vessels, splenic and portal vein.
fn great_vessels(b: &mut Builder) {
    let veins: [&[[f32; 4]]; 5] = [
        &[[-8.0, -22.0, -130.0, 4.0], [-10.0, -12.0, -20.0, 5.5], [-24.0, -6.0, 6.0, 6.5], [-46.0, -10.0, 24.0, 6.5]],
        &[[-12.0, -5.0, -4.0, 4.5], [30.0, 4.0, 10.0, 4.0], [84.0, 20.0, 24.0, 3.5]],
        &[[-21.0, 12.0, -8.0, 4.5], [-52.0, 32.0, -18.0, 4.0]],
        &[[-18.0, 8.0, -4.0, 4.0], [8.0, 0.0, -4.0, 4.0], [52.0, 30.0, -6.0, 4.0]],
        &[[-21.0, 14.0, -130.0, 10.5], [-23.0, 11.0, 0.0, 11.5], [-22.0, 0.0, 55.0, 12.0], [-20.0, -6.0, 130.0, 12.0]],
    ];
    for joints in veins {
        let vein = b.tube(joints, 2.0);
        b.add(Tissue::Vein, 0, 0.6, vein);
    }
    let arteries: [&[[f32; 4]]; 3] = [
        &[[6.0, 4.0, 6.0, 4.0], [2.0, -16.0, -30.0, 3.2], [4.0, -24.0, -130.0, 2.6]],
        &[[8.0, 13.0, -130.0, 8.5], [8.0, 13.0, 0.0, 9.5], [6.0, 15.0, 60.0, 11.0], [4.0, 17.0, 130.0, 12.0]],
        &[[5.0, 4.0, 18.0, 4.0], [0.0, -10.0, 20.0, 3.0], [-26.0, -8.0, 18.0, 2.5]],
    ];
    for joints in arteries {
        let artery = b.tube(joints, 1.5);
        b.add(Tissue::Artery, 0, 0.4, artery);
    }
    for _ in 0..14 {
        let start = b.draw.near([5.0, -30.0, -75.0], [70.0, 28.0, 40.0]);
        let end = b.draw.near(start, [18.0, 14.0, 18.0]);
        let radius = b.draw.uniform(1.2, 2.4);
        b.add(Tissue::Vein, 0, 0.0, Shape::Tube(vec![(start, radius), (end, radius)]));
    }
    b.next_field();
}

/// The labelled organs, and what is embedded in them.
fn organs(b: &mut Builder, t: &Trunk) {
    let labels = LabelMap::abdomen();
    let label = |name: &str| labels.index_of(name).expect("the abdomen's own organ names");
    // Upper poles lean to the middle and to the back; hila look to the middle and to the front.
    let right = b.blob([-66.0, 38.0, -22.0], [27.0, 24.0, 52.0], [0.14, 0.2, 0.35], 6.0);
    let left = b.blob([66.0, 38.0, -6.0], [27.0, 24.0, 54.0], [0.14, -0.2, PI - 0.35], 6.0);
    kidney(b, label("right kidney"), 1.0, &right);
    kidney(b, label("left kidney"), -1.0, &left);
    spleen(b, t, label("spleen"), &left);
    liver(b, t, label("liver"), &right);
}

fn kidney(b: &mut Builder, label: u8, medial: f32, outer: &Shape) {
    b.add(Tissue::KidneyCortex, label, 1.8, outer.clone());
    b.add(Tissue::KidneyMedulla, label, 4.0, outer.grown(-9.0));
    let Shape::Ellipsoid { centre, radii, axes } = outer else { return };
    let depth = radii[0] * b.draw.uniform(0.62, 0.85) * medial;
    // The first axis is turned towards the hilum on the right and away from it on the left.
    let toward = if axes[0][0] > 0.0 { axes[0] } else { axes[0].map(|v| -v) };
    let hilum = [0, 1, 2].map(|axis| centre[axis] + depth * toward[axis]);
    let size = b.draw.around(1.0, 0.2);
    let sinus = Shape::Ellipsoid { centre: hilum, radii: [17.0 * size, 8.0 * size, 20.0 * size], axes: *axes };
    b.add(Tissue::Fat, 0, 2.5, sinus.clone());
    b.add(Tissue::Urine, 0, 2.0, sinus.grown(-5.0));
    b.next_field();
}

fn spleen(b: &mut Builder, t: &Trunk, label: u8, left_kidney: &Shape) {
    let body = b.blob([96.0, 28.0, 26.0], [40.0, 54.0, 54.0], [0.25, 0.0, 0.1], 6.0);
    let hollow = b.blob([46.0, 4.0, 34.0], [42.0, 50.0, 62.0], [0.0; 3], 5.0);
    let spleen = body.inside(&t.belly, 6.0).without(&hollow, 10.0).without(&left_kidney.grown(4.0), 8.0);
    b.add(Tissue::Spleen, label, 1.8, spleen);
    b.next_field();
}

fn liver(b: &mut Builder, t: &Trunk, label: u8, right_kidney: &Shape) {
    let right = b.blob([-70.0, -4.0, 18.0], [62.0, 74.0, 72.0], [0.1, 0.1, 0.0], 7.0);
    let middle = b.blob([-32.0, -30.0, 34.0], [50.0, 40.0, 42.0], [0.0; 3], 5.0);
    let left = b.blob([12.0, -46.0, 38.0], [58.0, 24.0, 32.0], [0.0, 0.0, 0.12], 8.0);
    let mass = Shape::union(vec![right, middle, left], 22.0).inside(&t.belly, 8.0);
    let liver = mass.without(&right_kidney.grown(4.0), 10.0).without(&t.back.grown(3.0), 8.0);
    b.add(Tissue::Liver, label, 2.2, liver.clone());
    let vessels: [&[[f32; 4]]; 6] = [
        &[[-22.0, -4.0, 60.0, 5.5], [-60.0, 0.0, 46.0, 4.0], [-104.0, 4.0, 28.0, 2.0]],
        &[[-22.0, -6.0, 60.0, 5.0], [-50.0, -36.0, 42.0, 4.0], [-66.0, -60.0, 20.0, 2.0]],
        &[[-22.0, -8.0, 60.0, 5.0], [-4.0, -34.0, 46.0, 3.5], [14.0, -52.0, 38.0, 1.8]],
        &[[-46.0, -10.0, 24.0, 6.0], [-72.0, 4.0, 14.0, 4.5], [-98.0, 28.0, 4.0, 2.0]],
        &[[-52.0, -10.0, 22.0, 5.0], [-84.0, -24.0, 8.0, 4.0], [-104.0, -30.0, -18.0, 1.8]],
        &[[-46.0, -10.0, 24.0, 5.0], [-26.0, -40.0, 30.0, 4.0], [10.0, -50.0, 30.0, 2.0]],
    ];
    for joints in vessels {
        let vessel = b.tube(joints, 4.0).inside(&liver.grown(-3.0), 0.0);
        b.add(Tissue::LiverVessel, label, 0.8, vessel);
    }
    // The vena cava runs through a groove of the liver and belongs to nobody's label.
    let groove = b.tube(&[[-22.0, 6.0, 25.0, 11.0], [-22.0, 0.0, 55.0, 12.5], [-20.0, -6.0, 130.0, 13.0]], 1.0);
    b.add(Tissue::Vein, 0, 0.6, groove);
    if b.draw.chance(0.85) {
        let bladder = b.blob([-46.0, -50.0, -20.0], [13.0, 19.0, 20.0], [0.4, 0.0, 0.3], 5.0);
        b.add(Tissue::GutWall, 0, 0.5, bladder.clone());
        b.add(Tissue::Bile, 0, 0.5, bladder.grown(-1.5));
    }
    b.next_field();
}
