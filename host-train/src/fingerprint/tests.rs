//! Facts about fingerprints: numbers that can be worked out by hand.

use volume::{DatasetWriter, Geometry, Split};

use super::*;

#[test]
fn percentiles_and_ranks_of_known_values() {
    let mut histogram = Histogram::new();
    assert_eq!((histogram.percentile(50.), histogram.intensities()), (None, Intensities::default()));
    (1..=200).for_each(|value| histogram.count(value - 100));
    let found = [0., 0.5, 50., 99.5, 100.].map(|percent| histogram.percentile(percent).unwrap());
    assert_eq!(found, [-99, -99, 0, 99, 100]);
    assert_eq!([-100, -99, 0, 100, i16::MAX].map(|value| histogram.rank(value)), [0., 0.5, 50., 100., 100.]);
    let seen = histogram.intensities();
    assert_eq!((seen.voxels, seen.mean, seen.p00_5, seen.median, seen.p99_5), (200, 0.5, -99, 0, 99));
    // Of n neighbouring whole numbers: (n^2 - 1) / 12.
    assert!((seen.deviation - (39_999f64 / 12.).sqrt()).abs() < 1e-9);
    for extreme in [i16::MIN, i16::MAX] {
        let mut histogram = Histogram::new();
        histogram.count(extreme);
        assert_eq!(histogram.percentile(50.), Some(extreme));
    }
}

#[test]
fn spreads_of_known_values() {
    let spread = Spread::of((0..=10).map(f64::from));
    assert_eq!(spread, Spread { min: 0., p10: 1., median: 5., p90: 9., max: 10. });
    assert_eq!(Spread::of([3., 1.]), Spread { min: 1., p10: 1., median: 2., p90: 3., max: 3. });
    assert_eq!(Spread::of([]).max, 0.);
}

/// Two cases of 40 x 20 x 2 voxels, one of 1 mm and one of 2 mm in the plane, with a liver of known place and values.
fn data(folder: &Path, modality: Modality) {
    let mut writer = DatasetWriter::create(folder, modality, &LabelMap::abdomen()).unwrap();
    for (name, mm) in [("a", 1.), ("b", 2.)] {
        let geometry = Geometry::from_codes("LPS", [40, 20, 2], [mm, mm, 5.]).unwrap();
        // Columns 30 to 34 and rows 10 to 13: their far edges lie 15 and 4 pixels from the middle.
        let inside = |i: usize| (30..35).contains(&(i % 40)) && (10..14).contains(&(i / 40 % 20));
        let classes: Vec<u8> = (0..1600).map(|i| u8::from(inside(i))).collect();
        let raw: Vec<i16> = (0..1600).map(|i| if inside(i) { 43 + (i % 5) as i16 } else { -1000 }).collect();
        writer.add(Split::Train, name, &geometry, &raw, &classes).unwrap();
    }
    writer.finish().unwrap();
}

fn measured(modality: Modality) -> Fingerprint {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path(), modality);
    let mut told = 0;
    let print = measure(folder.path(), modality, &LabelMap::abdomen(), &mut OnBad::Stop, &mut |_| told += 1).unwrap();
    assert_eq!(told, 2);
    print
}

#[test]
fn a_data_set_is_measured() {
    let print = measured(Modality::Ct);
    assert_eq!((print.cases, print.patients), (2, 2));
    assert_eq!(print.size.map(|size| size.median), [40., 20., 2.]);
    assert_eq!(print.spacing_mm.map(|mm| (mm.min, mm.median, mm.max)), [(1., 1.5, 2.), (1., 1.5, 2.), (5., 5., 5.)]);
    assert_eq!(print.field_mm.map(|mm| mm.max), [80., 40.]);
    assert_eq!(print.reach_mm.map(|mm| (mm.min, mm.max)), [(15., 30.), (4., 8.)]);
    assert_eq!((print.foreground.voxels, print.foreground.p00_5, print.foreground.p99_5), (80, 43, 47));
    assert_eq!((print.all.voxels, print.all.median), (3200, -1000));
    assert_eq!(print.classes["liver"], ClassShare { percent: 2.5, cases: 2 });
    assert_eq!(print.classes["spleen"], ClassShare { percent: 0., cases: 0 });
    assert_eq!(print.classes["background"].percent, 97.5);
}

#[test]
fn a_proposal_covers_what_is_labelled() {
    let prints = [measured(Modality::Ct), measured(Modality::Mr)];
    let proposal = propose(&prints, 256);
    assert_eq!(proposal.ct_window_hu, Some([40, 50]));
    // The brightest voxels of a case are its liver.
    assert_eq!(proposal.mr_percentiles, Some([0.5, 99.9]));
    // 66 mm of 1.5 mm are 44 pixels, 17.6 mm are 12.
    assert_eq!((proposal.size, proposal.spacing_mm), ([16, 48], 1.5));
    assert_eq!(proposal.options(), "--size 16x48 --spacing 1.5 --ct-window 40,50 --mr-percentiles 0.5,99.9");
    // With fewer pixels they are larger: 66 mm / 32 = 2.0625 mm, upwards.
    let small = propose(&prints, 32);
    assert_eq!((small.size, small.spacing_mm), ([16, 32], 2.1));
    let reach = small.size[1] as f64 * small.spacing_mm / 2.;
    assert!(reach >= prints[0].reach_mm[0].max);
}
