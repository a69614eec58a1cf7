//! Facts about scoring: perfect label maps score perfectly, whoever made them.

use contract::Modality;
use volume::{DatasetWriter, Geometry, read_labels};

use super::*;
use crate::data::{Part, load, tests::spec_of};

/// Two boxes and a slice of air, 2 x 2 x 5 mm, 24 x 20 x 6 voxels.
const DIMS: [usize; 3] = [24, 20, 6];

fn scan() -> (Vec<i16>, Vec<u8>) {
    let inside = |at: [usize; 3], from: [usize; 3], to: [usize; 3]| (0..3).all(|i| (from[i]..to[i]).contains(&at[i]));
    let class = |index: usize| {
        let at = [index % 24, index / 24 % 20, index / 480];
        if inside(at, [3, 4, 1], [11, 12, 4]) { 1 } else { 4 * u8::from(inside(at, [14, 6, 2], [20, 15, 5])) }
    };
    let labels: Vec<u8> = (0..24 * 20 * 6).map(class).collect();
    let raw = |(index, &label): (usize, &u8)| match index / 480 {
        5 => -1000,
        _ => [-100, 60, 0, 0, 120][usize::from(label)] + (index % 3) as i16,
    };
    (labels.iter().enumerate().map(raw).collect(), labels)
}

/// A CT data set of one test case, stored the other way round.
fn data_set(folder: &Path) {
    let geometry = Geometry::from_codes("RAS", DIMS, [2., 2., 5.]).unwrap();
    let ((raw, labels), spec) = (scan(), spec_of(1, 32, 32, 2.));
    let mut writer = DatasetWriter::create(folder, Modality::Ct, &spec.labels).unwrap();
    writer.add(Part::Test, "boxes", &geometry, &raw, &labels).unwrap();
    writer.finish().unwrap();
}

/// Answers with the truth, and with nonsense where nobody must look.
fn perfect() -> impl FnMut(&Case) -> Vec<u8> {
    |case| {
        (0..case.depth())
            .flat_map(|z| if case.usable[z] { case.slice_labels(z).to_vec() } else { vec![3; 1024] })
            .collect()
    }
}

fn dices(scores: &Scores) -> Vec<Option<f64>> {
    scores.cases[0].organs.iter().map(|organ| organ.dice).collect()
}

#[test]
fn a_perfect_network_is_perfect_where_the_grids_coincide() {
    let folder = tempfile::tempdir().unwrap();
    data_set(folder.path());
    let spec = spec_of(1, 32, 32, 2.);
    let cases = load(folder.path(), Modality::Ct, Part::Test, &spec).unwrap();
    assert_eq!(cases[0].usable, [true, true, true, true, true, false]);
    let scores = evaluate(&cases, &spec, &mut perfect()).unwrap();
    assert_eq!(dices(&scores), [Some(1.), None, None, Some(1.)]);
    let liver = &scores.cases[0].organs[0];
    assert_eq!((liver.hd95_mm, liver.assd_mm), (Some(0.), Some(0.)));
    assert_eq!(scores.mean_dice(Modality::Ct), Some(1.));
}

/// A model pixel of 3.6 mm on scanner pixels of 2 mm: a straight edge is off by at most half of each pixel, 2.8 mm, in
/// plane. With every edge off by less than 1.4 pixels, a box of a x b loses or gains at most 2 * 1.4 * (a + b) pixels.
#[test]
fn a_perfect_network_is_limited_by_resampling_alone() {
    let folder = tempfile::tempdir().unwrap();
    data_set(folder.path());
    let spec = spec_of(1, 32, 32, 3.6);
    let cases = load(folder.path(), Modality::Ct, Part::Test, &spec).unwrap();
    let scores = evaluate(&cases, &spec, &mut perfect()).unwrap();
    for (organ, [a, b]) in [(0, [8., 8.]), (3, [6., 9.])] {
        let score = &scores.cases[0].organs[organ];
        let worst = 1. - 2.8 * (a + b) / (2. * a * b);
        assert!(score.dice.unwrap() > worst, "{score:?}, expected over {worst}");
        assert!(score.hd95_mm.unwrap() <= 2.8 * 2f64.sqrt(), "{score:?}");
    }
    assert!(dices(&scores).iter().flatten().any(|&dice| dice < 1.), "some edge lies between the model's pixels");
}

/// A liver with a speck beside it: without the speck it is perfect again.
#[test]
fn the_largest_part_of_an_organ_can_be_all_that_counts() {
    let folder = tempfile::tempdir().unwrap();
    data_set(folder.path());
    let spec = spec_of(1, 32, 32, 2.);
    let cases = load(folder.path(), Modality::Ct, Part::Test, &spec).unwrap();
    let mut speckled = |case: &Case| {
        let mut labels = case.model_labels.to_vec();
        labels[2 * 1024 + 22 * 32 + 24] = 1;
        labels
    };
    let plain = evaluate(&cases, &spec, &mut speckled).unwrap();
    let handling = Handling { largest_component: true, out: None };
    let cleaned = evaluate_with(&cases, &spec, handling, &mut speckled).unwrap();
    assert!(dices(&plain)[0].unwrap() < 1.);
    assert_eq!(dices(&cleaned), [Some(1.), None, None, Some(1.)]);
}

#[test]
fn label_maps_come_back_from_files_with_the_same_scores() {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    data_set(folder.path());
    let spec = spec_of(1, 32, 32, 3.);
    let cases = load(folder.path(), Modality::Ct, Part::Test, &spec).unwrap();
    let direct =
        evaluate_with(&cases, &spec, Handling { out: Some(out.path()), ..Handling::default() }, &mut perfect())
            .unwrap();
    let again = score_files(folder.path(), Modality::Ct, Part::Test, &spec.labels, out.path()).unwrap();
    assert_eq!(direct, again);
    let labels = predict_case(&cases[0], &spec, &mut perfect()).unwrap();
    let table = volume::LabelTable::identity(&spec.labels);
    let file = read_labels(out.path().join("boxes.nii.gz"), &table).unwrap();
    assert_eq!(file.classes, labels);
    assert_eq!(file.geometry.affine(), cases[0].geometry.affine());
    assert_eq!(file.geometry.codes(), "RAS");
}

#[test]
fn missing_and_misplaced_files_are_named() {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    data_set(folder.path());
    let spec = spec_of(1, 32, 32, 2.);
    let score = || score_files(folder.path(), Modality::Ct, Part::Test, &spec.labels, out.path());
    assert!(score().unwrap_err().to_string().contains("boxes.nii.gz"));
    let shifted = Geometry::from_codes("RAS", DIMS, [2., 2., 4.]).unwrap();
    volume::write_labels(out.path().join("boxes.nii.gz"), &shifted, &scan().1).unwrap();
    let message = score().unwrap_err().to_string();
    assert!(message.contains("24x20x6 voxels") && message.contains("4.000"), "{message}");
}

#[test]
fn a_network_that_answers_nonsense_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    data_set(folder.path());
    let spec = spec_of(1, 32, 32, 2.);
    let cases = load(folder.path(), Modality::Ct, Part::Test, &spec).unwrap();
    let short = evaluate(&cases, &spec, &mut |_| vec![0; 7]).unwrap_err().to_string();
    assert!(short.contains("7 predicted labels, expected 6144"), "{short}");
    let class = evaluate(&cases, &spec, &mut |case| vec![5; case.depth() * 1024]).unwrap_err().to_string();
    assert!(class.contains("predicted class 5, expected less than 5"), "{class}");
}
