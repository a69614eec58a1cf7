//! Facts about loading: what the trainer sees is what the scanner side sees.

use contract::{Grid, Intensity, LabelMap, Modality, ModelSpec, Net};
use volume::{DatasetWriter, Geometry};

use super::*;
use crate::{augment::Augment, sampler::Sampler};

/// A model of the abdomen that sees `slices` neighbours of `height` x `width` pixels of `spacing_mm`.
pub(crate) fn spec_of(slices: usize, height: usize, width: usize, spacing_mm: f32) -> ModelSpec {
    ModelSpec {
        net: Net::compact(slices, 5, 8, height, width),
        labels: LabelMap::abdomen(),
        grid: Grid { height, width, spacing_mm },
        intensity: Intensity::default(),
        modalities: Modality::ALL.to_vec(),
    }
}

/// A scan of `dims` voxels (x, y, z) of 2 x 2 x 5 mm that is stored in canonical order.
pub(crate) fn case_of(modality: Modality, dims: [usize; 3], raw: Vec<i16>, labels: Vec<u8>, spec: &ModelSpec) -> Case {
    Case::new(scan_of(modality, dims, raw, labels), spec).unwrap()
}

fn scan_of(modality: Modality, dims: [usize; 3], raw: Vec<i16>, labels: Vec<u8>) -> Scan {
    let geometry = Geometry::from_codes("LPS", dims, [2., 2., 5.]).unwrap();
    let (name, path) = ("made".to_string(), PathBuf::from("made_0000.nii.gz"));
    Scan { name, path, modality, geometry, raw, labels }
}

#[test]
fn a_slice_that_cannot_be_right_is_named() {
    let mut raw: Vec<i16> = (0..128).map(|index| index % 7 * 20 - 60).collect();
    raw[64..].fill(12);
    raw[70] = 900;
    let error = Case::new(scan_of(Modality::Ct, [8, 8, 2], raw, vec![0; 128]), &spec_of(1, 8, 8, 2.)).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("made_0000.nii.gz, slice 1 of 2") && text.contains("0 of 64 pixels"), "{text}");
}

#[test]
fn labels_come_to_the_models_grid_with_the_image() {
    // The model's pixels are twice as large: organ 3 covers the patient's left upper quarter of either grid.
    let quarter = |width: usize, index: usize| index % width >= width / 2 && index / width < width / 2;
    let labels: Vec<u8> = (0..256).map(|index| if quarter(16, index) { 3 } else { 0 }).collect();
    let raw = labels.iter().map(|&label| if label == 3 { 200 } else { -100 }).collect();
    let case = case_of(Modality::Ct, [16, 16, 1], raw, labels, &spec_of(1, 8, 8, 4.));
    for index in 0..64 {
        assert_eq!(case.slice_labels(0)[index], if quarter(8, index) { 3 } else { 0 }, "{index}");
    }
    // One pixel away from the organ's edge the code is that of the organ: (200 + 160) / 400 * 255 - 128, rounded.
    assert_eq!((case.codes[8 + 6], case.codes[6 * 8 + 1]), (102, -90));
}

/// From a file that holds every raw value to the trainer's reals, against the closed form of the rule and against what
/// the scanner side computes and dequantises.
#[test]
fn trainer_input_is_dequantised_runtime_input_for_every_raw_value() {
    let all: Vec<i16> = (0..65_536).map(|index: i64| (index * 40_503 % 65_536 - 32_768) as i16).collect();
    let spec = spec_of(1, 256, 256, 2.);
    let geometry = Geometry::from_codes("LPS", [256, 256, 1], [2., 2., 5.]).unwrap();
    for modality in Modality::ALL {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = DatasetWriter::create(folder.path(), modality, &spec.labels).unwrap();
        writer.add(Part::Train, "all", &geometry, &all, &vec![0; 65_536]).unwrap();
        writer.finish().unwrap();
        let cases = load(folder.path(), modality, Part::Train, &spec).unwrap();
        let trainer = Sampler::new(cases, &spec, 1, 0, Augment::none()).unwrap().batch(0).images;

        let mut intake = Intake::new(modality, spec.intensity, geometry.plane(), spec.grid).unwrap();
        let mut codes = vec![0; 65_536];
        intake.codes(&all, &mut codes).unwrap();
        // The window; or of 65,536 sorted values those at 0.5 % and 99.5 % of the way, rounded down.
        let (low, high) = match modality {
            Modality::Ct => (-160., 240.),
            Modality::Mr => (-32_768. + 327., -32_768. + 65_207.),
        };
        for ((&raw, &code), &real) in all.iter().zip(&codes).zip(&trainer) {
            let part = (f64::from(raw).clamp(low, high) - low) / (high - low);
            let exact = (part * 255. + 0.5).floor() - 128.;
            assert_eq!(real, quant::dequantise(code, spec.intensity.scale, 0), "{modality} {raw}");
            assert_eq!(f64::from(real), exact / 64., "{modality} {raw}");
        }
    }
}

#[test]
fn folders_of_another_modality_or_without_cases_are_refused() {
    let (folder, spec) = (tempfile::tempdir().unwrap(), spec_of(1, 8, 8, 2.));
    let geometry = Geometry::from_codes("RAS", [8, 8, 2], [2., 2., 5.]).unwrap();
    let raw: Vec<i16> = (0..128).map(|index| index / 2 - 80 * (index % 2)).collect();
    let mut writer = DatasetWriter::create(folder.path(), Modality::Ct, &spec.labels).unwrap();
    writer.add(Part::Train, "one", &geometry, &raw, &[1; 128]).unwrap();
    writer.finish().unwrap();
    let refused = |modality, part| load(folder.path(), modality, part, &spec).unwrap_err().to_string();
    let message = refused(Modality::Mr, Part::Train);
    assert!(message.contains("dataset.json") && message.contains("ct, expected mr"), "{message}");
    let message = refused(Modality::Ct, Part::Test);
    assert!(message.contains("no cases in imagesTs"), "{message}");
    let cases = load(folder.path(), Modality::Ct, Part::Train, &spec).unwrap();
    assert_eq!((cases.len(), cases[0].name.as_str(), cases[0].depth()), (1, "one", 2));
    assert_eq!(cases[0].raw[..], raw);
}
