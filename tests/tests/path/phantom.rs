//! From a phantom's file to a label map's file, in int8: the loop over slices against the contract and the reference
//! network, and the repository's model against the phantom's truth.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use contract::{Intake, IntensityError, Modality, ModelSpec, neighbours};
use edge_runtime::{Engine, Model, segment};
use phantom::{Anatomy, Subject, SubjectOptions};
use tests::{
    model_file::ModelFile,
    reference,
    workspace::{self, shipped_model},
};
use volume::{Geometry, LabelTable, read_labels, write_image};

use crate::fixture::INT8;

/// Mean Dice of the organs that the repository's model must reach on a subject it has never seen. No threshold on
/// intensity reaches 0.6 (a test of `phantom`).
const MEAN_DICE: f64 = 0.75;

/// A scan in a file.
struct Scan {
    path: PathBuf,
    geometry: Geometry,
    /// Canonical `[z][y][x]`, as `truth`.
    raw: Vec<i16>,
    truth: Vec<u8>,
}

fn scan(folder: &Path, modality: Modality, seed: u64, options: SubjectOptions, blank: Option<usize>) -> Scan {
    let rendered = Subject::with_options(Anatomy::Abdomen, modality, seed, options).render();
    let geometry = Geometry::new(rendered.grid.dims, rendered.grid.ras()).unwrap();
    let (mut raw, truth) = (geometry.to_canonical(&rendered.raw), geometry.to_canonical(&rendered.labels));
    let [_, height, width] = geometry.shape();
    if let Some(z) = blank {
        raw[z * height * width..][..height * width].fill(-7);
    }
    let path = folder.join(format!("{modality}.nii.gz"));
    write_image(&path, &geometry, &raw).unwrap();
    Scan { path, geometry, raw, truth }
}

/// What the contract says the label map is: each slice's neighbours through the intake, the reference network, and back.
/// A slice of one value is background, and dark where it is a neighbour.
fn by_the_contract(file: &ModelFile, spec: &ModelSpec, modality: Modality, scan: &Scan) -> Vec<u8> {
    let [depth, height, width] = scan.geometry.shape();
    let slice = |z: usize| &scan.raw[z * height * width..][..height * width];
    let mut intake = Intake::new(modality, spec.intensity, scan.geometry.plane(), spec.grid).unwrap();
    let mut classes = vec![];
    for z in 0..depth {
        let (mut codes, mut this) = (vec![], Ok(()));
        for neighbour in neighbours(z, depth, spec.slices()) {
            let mut channel = vec![0; spec.grid.height * spec.grid.width];
            let result = intake.codes(slice(neighbour), &mut channel);
            if neighbour == z {
                this = result;
            }
            codes.extend(channel);
        }
        let mut labels = vec![0; height * width];
        match this {
            Ok(()) => {
                let logits = reference::int8::logits(file, modality, &codes).unwrap();
                intake.resampler().labels_back(&logits.values.labels(), &mut labels);
            }
            Err(IntensityError::Constant { .. }) => {}
            Err(error) => panic!("slice {z}: {error}"),
        }
        classes.extend(labels);
    }
    classes
}

#[test]
fn a_volume_is_segmented_as_the_contract_says() {
    let folder = tempfile::tempdir().unwrap();
    let coarse = SubjectOptions { coarser_pixels: 4., thicker_slices: 4. };
    for modality in Modality::ALL {
        let scan = scan(folder.path(), modality, 3, coarse, Some(2));
        // One slice and three.
        for exported in &INT8[..2] {
            let (path, spec) = (exported.int8.as_ref().unwrap(), &exported.spec);
            let model = Model::load(path).unwrap();
            let mut engine = Engine::new(&model).unwrap();
            let segmented =
                segment::volume(&model, &mut engine, modality, &scan.path, &segment::Options::default(), |_, _| ())
                    .unwrap();
            let expected = by_the_contract(&ModelFile::read(path), spec, modality, &scan);
            assert_eq!(segmented.report.blank, 1);
            assert!(segmented.classes == expected, "{} {modality}: label maps differ", spec.net.name);
            assert!(expected.iter().any(|&class| class != expected[0]), "a map of one class shows nothing");
        }
    }
}

fn shipped() -> (Model, Engine) {
    let model = Model::load(shipped_model()).unwrap();
    let engine = Engine::new(&model).unwrap();
    (model, engine)
}

#[test]
fn the_shipped_model_finds_the_organs_of_a_phantom_on_its_own_grid() {
    let (model, mut engine) = shipped();
    let folder = tempfile::tempdir().unwrap();
    let labels = &model.spec().labels;
    for modality in Modality::ALL {
        let scan = scan(folder.path(), modality, 20_261_122, SubjectOptions::default(), None);
        let segmented =
            segment::volume(&model, &mut engine, modality, &scan.path, &segment::Options::default(), |_, _| ())
                .unwrap();
        let out = folder.path().join(format!("{modality}.labels.nii.gz"));
        segmented.write(&out).unwrap();
        let read = read_labels(&out, &LabelTable::identity(labels)).unwrap();
        assert_eq!(read.classes, segmented.classes);
        assert_eq!((read.geometry.stored_dims(), read.geometry.affine()), {
            (scan.geometry.stored_dims(), scan.geometry.affine())
        });
        let dice = |class: u8| volume::metrics::dice(&read.classes, &scan.truth, class).unwrap_or(0.);
        let dice: Vec<(String, f64)> =
            labels.organs().map(|(class, label)| (label.name.clone(), dice(class))).collect();
        let mean = dice.iter().map(|(_, dice)| dice).sum::<f64>() / dice.len() as f64;
        println!("{modality}: mean Dice {mean:.3}, {dice:.3?}");
        assert!(mean >= MEAN_DICE, "{modality}: mean Dice {mean:.3}, expected {MEAN_DICE}: {dice:.3?}");
        assert_same_grid_in_nibabel(&scan.path, &out);
    }
}

/// NIfTI as somebody else reads it.
fn assert_same_grid_in_nibabel(image: &Path, labels: &Path) {
    let Some(python) = workspace::python() else { return };
    let script = "import sys, nibabel, numpy
image, labels = map(nibabel.load, sys.argv[1:])
assert image.shape == labels.shape, (image.shape, labels.shape)
assert numpy.array_equal(image.affine, labels.affine), (image.affine, labels.affine)
assert labels.get_data_dtype() == numpy.uint8, labels.get_data_dtype()";
    let output = Command::new(python).args(["-c", script]).arg(image).arg(labels).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Phantoms taught the model nothing about patients, so what it finds is not judged here; where it puts it is.
#[test]
fn real_scans_keep_their_grid_and_are_refused_under_the_wrong_modality() {
    let Some(data) = workspace::test_data() else { return };
    let (model, mut engine) = shipped();
    let folder = tempfile::tempdir().unwrap();
    for (modality, other, name) in
        [(Modality::Ct, Modality::Mr, "ct_ts_abdomen"), (Modality::Mr, Modality::Ct, "mr_ts_abdomen")]
    {
        let scan = data.join("volumes").join(name).join("image.nii.gz");
        let segmented =
            segment::volume(&model, &mut engine, modality, &scan, &segment::Options::default(), |_, _| ()).unwrap();
        assert_eq!(segmented.report.refused, []);
        let out = folder.path().join(format!("{name}.nii.gz"));
        segmented.write(&out).unwrap();
        assert_same_grid_in_nibabel(&scan, &out);
        assert!(
            segment::volume(&model, &mut engine, other, &scan, &segment::Options::default(), |_, _| ()).is_err(),
            "{name} as {other}"
        );
    }
}

#[test]
fn the_shipped_model_answers_as_the_reference_does() {
    let (model, _) = shipped();
    let (file, spec) = (ModelFile::read(&shipped_model()), model.spec());
    assert_eq!(model.manifest.golden.len(), spec.modalities.len());
    for golden in &model.manifest.golden {
        let mut codes = vec![0; spec.net.input.elements()];
        contract::golden::codes(golden.modality, spec.grid.height, spec.grid.width, &mut codes);
        let logits = reference::int8::logits(&file, golden.modality, &codes).unwrap().values;
        assert_eq!(reference::sha256(logits.data.iter().map(|&code| code as u8)), golden.logits_sha256);
        assert_eq!(reference::sha256(logits.labels()), golden.labels_sha256);
    }
}
