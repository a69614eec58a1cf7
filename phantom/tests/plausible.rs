//! A phantom is of use if it is like a patient where it matters: organs of a patient's size in a patient's places, at the
//! values that their scanner shows, and not to be had by looking at the values alone.

use contract::Modality;
use phantom::{Anatomy, Rendered, Subject, SubjectOptions};

const COARSE: SubjectOptions = SubjectOptions { coarser_pixels: 2.0, thicker_slices: 2.0 };

fn scan(modality: Modality, seed: u64) -> Rendered {
    scan_of(Anatomy::Abdomen, modality, seed)
}

fn scan_of(anatomy: Anatomy, modality: Modality, seed: u64) -> Rendered {
    Subject::with_options(anatomy, modality, seed, COARSE).render()
}

/// Position of a voxel in patient coordinates, mm.
fn place(rendered: &Rendered, voxel: usize) -> [f32; 3] {
    let [width, height, _] = rendered.grid.dims;
    let index = [voxel % width, voxel / width % height, voxel / width / height].map(|v| v as f32);
    rendered.grid.lps.map(|row| row[0] * index[0] + row[1] * index[1] + row[2] * index[2] + row[3])
}

/// Volume (ml), centre (mm) and median of a label.
fn organ(rendered: &Rendered, label: u8) -> (f32, [f32; 3], i16) {
    let voxels: Vec<usize> = (0..rendered.raw.len()).filter(|&voxel| rendered.labels[voxel] == label).collect();
    let mut values: Vec<i16> = voxels.iter().map(|&voxel| rendered.raw[voxel]).collect();
    values.sort_unstable();
    let centre = [0, 1, 2].map(|axis| {
        voxels.iter().map(|&voxel| f64::from(place(rendered, voxel)[axis])).sum::<f64>() as f32 / voxels.len() as f32
    });
    let ml = rendered.grid.spacing_mm.iter().product::<f32>() / 1000.0;
    (voxels.len() as f32 * ml, centre, values[values.len() / 2])
}

/// The highest Dice that any interval of values reaches for a label on this very scan.
fn best_interval(rendered: &Rendered, label: u8) -> f64 {
    // Above the values of air and lung, in steps of at most 0.3 % of the range: finer than the noise of either modality.
    let (least, most) = (-300.0, f64::from(*rendered.raw.iter().max().expect("voxels")));
    let mut counts = vec![[0.0f64; 2]; 501];
    for (value, found) in rendered.raw.iter().zip(&rendered.labels) {
        let bin = (f64::from(*value) - least).max(0.0) / (most - least) * 500.0;
        counts[bin as usize][usize::from(*found == label)] += 1.0;
    }
    let size: f64 = counts.iter().map(|[_, inside]| inside).sum();
    let mut best = 0.0f64;
    for low in 0..counts.len() {
        let (mut hits, mut marked) = (0.0, 0.0);
        for [outside, inside] in &counts[low..] {
            hits += inside;
            marked += inside + outside;
            best = best.max(2.0 * hits / (size + marked));
        }
    }
    best
}

#[test]
fn no_intensity_threshold_segments_the_organs() {
    for (anatomy, modality) in
        [Anatomy::Abdomen, Anatomy::Heart].into_iter().flat_map(|a| Modality::ALL.map(|m| (a, m)))
    {
        let mut dice = [0.0; 4];
        for seed in 0..3 {
            let rendered = scan_of(anatomy, modality, seed);
            for label in 1..=4 {
                dice[label - 1] += best_interval(&rendered, label as u8) / 3.0;
            }
        }
        let mean = dice.iter().sum::<f64>() / 4.0;
        println!("{anatomy:?} {modality}: Dice of the best threshold {dice:.3?}, mean {mean:.3}");
        assert!(mean < 0.6, "{anatomy:?} {modality}: {dice:?}");
        assert!(mean > 0.1, "{anatomy:?} {modality}: the threshold itself seems broken: {dice:?}");
    }
}

#[test]
fn organs_lie_where_they_belong_and_have_a_patients_size() {
    for modality in Modality::ALL {
        for seed in 10..13 {
            let rendered = scan(modality, seed);
            let [liver, right, left, spleen] = [1, 2, 3, 4].map(|label| organ(&rendered, label));
            let about = format!("{modality} {seed}: {liver:?} {right:?} {left:?} {spleen:?}");
            assert!((700.0..2500.0).contains(&liver.0), "{about}");
            assert!((60.0..280.0).contains(&right.0) && (60.0..280.0).contains(&left.0), "{about}");
            assert!((40.0..500.0).contains(&spleen.0), "{about}");
            assert!(liver.1[0] < -20.0 && right.1[0] < -30.0, "right is negative: {about}");
            assert!(spleen.1[0] > 50.0 && left.1[0] > 30.0, "left is positive: {about}");
            assert!(spleen.1[0] > left.1[0] && spleen.1[2] > left.1[2], "spleen: {about}");
            assert!(liver.1[1] < right.1[1] && liver.1[2] > right.1[2], "liver: {about}");
        }
    }
}

#[test]
fn ct_shows_hounsfield_units() {
    for seed in 20..22 {
        let rendered = scan(Modality::Ct, seed);
        let [liver, right, _, spleen] = [1, 2, 3, 4].map(|label| organ(&rendered, label).2);
        assert!((50..150).contains(&liver), "liver {liver} HU");
        assert!((80..150).contains(&spleen), "spleen {spleen} HU");
        assert!((100..230).contains(&right), "kidney {right} HU");
        let corner = rendered.raw[0];
        assert!((-1024..-900).contains(&corner), "air {corner} HU");
    }
}

#[test]
fn mri_shows_a_t2_contrast() {
    for seed in 20..22 {
        let rendered = scan(Modality::Mr, seed);
        let [liver, _, _, spleen] = [1, 2, 3, 4].map(|label| organ(&rendered, label).2);
        assert!(f32::from(spleen) > 1.3 * f32::from(liver), "long T2 is bright: spleen {spleen}, liver {liver}");
        assert!(rendered.raw.iter().all(|value| *value >= 0), "a magnitude is never negative");
    }
}

#[test]
fn scanners_differ_and_patients_too() {
    let (ct, mr) = (scan(Modality::Ct, 1).grid, scan(Modality::Mr, 1).grid);
    assert!(mr.spacing_mm[2] > ct.spacing_mm[2] && mr.spacing_mm[0] > ct.spacing_mm[0]);
    assert!(ct.lps[2][2] > 0.0 && mr.lps[2][2] < 0.0, "CT is stored from the feet, MRI from the head");
    let volumes: Vec<f32> = (30..33).map(|seed| organ(&scan(Modality::Ct, seed), 1).0).collect();
    let spread = volumes.iter().fold(0.0f32, |a, b| a.max(*b)) / volumes.iter().fold(f32::MAX, |a, b| a.min(*b));
    assert!(spread > 1.05, "livers of {volumes:?} ml");
}

#[test]
fn the_parts_of_the_heart_lie_where_they_belong_and_have_a_patients_size() {
    for modality in Modality::ALL {
        for seed in 40..43 {
            let rendered = scan_of(Anatomy::Heart, modality, seed);
            let [wall, atrium, ventricle, aorta] = [1, 2, 3, 4].map(|label| organ(&rendered, label));
            let about = format!("{modality} {seed}: {wall:?} {atrium:?} {ventricle:?} {aorta:?}");
            assert!((80.0..230.0).contains(&wall.0) && (40.0..160.0).contains(&atrium.0), "ml: {about}");
            assert!((60.0..220.0).contains(&ventricle.0) && (25.0..140.0).contains(&aorta.0), "ml: {about}");
            assert!(ventricle.1[0] > aorta.1[0] && ventricle.1[2] < aorta.1[2], "left of and below the aorta: {about}");
            assert!(atrium.1[1] > ventricle.1[1] && atrium.1[1] > aorta.1[1], "the atrium is at the back: {about}");
            let apart = (0..3).map(|axis| (wall.1[axis] - ventricle.1[axis]).powi(2)).sum::<f32>().sqrt();
            assert!(apart < 20.0, "the wall surrounds the blood: {about}");
        }
    }
}

/// Blood of one voxel of the left ventricle seldom touches anything but blood and its own wall.
#[test]
fn the_myocardium_encloses_the_left_ventricle() {
    for modality in Modality::ALL {
        let rendered = scan_of(Anatomy::Heart, modality, 3);
        let [width, height, _] = rendered.grid.dims;
        let (mut wall, mut outside) = (0u32, 0u32);
        for (voxel, _) in rendered.labels.iter().enumerate().filter(|(_, label)| **label == 3) {
            for next in
                [voxel - 1, voxel + 1, voxel - width, voxel + width, voxel - width * height, voxel + width * height]
            {
                wall += u32::from(rendered.labels[next] == 1);
                outside += u32::from(rendered.labels[next] == 0);
            }
        }
        assert!(wall > 4 * outside, "{modality}: {wall} neighbours are wall, {outside} are nothing");
    }
}

#[test]
fn an_angiography_fills_the_left_heart() {
    for seed in 20..23 {
        let rendered = scan_of(Anatomy::Heart, Modality::Ct, seed);
        let [wall, atrium, ventricle, aorta] = [1, 2, 3, 4].map(|label| organ(&rendered, label).2);
        assert!((60..150).contains(&wall), "myocardium {wall} HU");
        for blood in [atrium, ventricle, aorta] {
            assert!((280..460).contains(&blood) && (blood - ventricle).abs() < 40, "blood {blood} HU");
        }
    }
}

#[test]
fn a_balanced_steady_state_shows_bright_blood_and_dark_myocardium() {
    for seed in 20..23 {
        let rendered = scan_of(Anatomy::Heart, Modality::Mr, seed);
        let [wall, atrium, ventricle, aorta] = [1, 2, 3, 4].map(|label| f32::from(organ(&rendered, label).2));
        assert!(
            ventricle > 1.7 * wall && atrium > 1.4 * wall && aorta > 1.4 * wall,
            "{wall} {atrium} {ventricle} {aorta}"
        );
    }
}
