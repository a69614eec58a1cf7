//! The import on scans of real machines: DICOM series whose voxels and places other readers have measured, and NIfTI scans
//! laid out as TotalSegmentator has them. Skipped where the test data are absent.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use contract::{LabelMap, Modality};
use host_train::import::{Plan, Source, Split, dicom, import};
use serde_json::Value;
use volume::{Dataset, LabelTable, Unlisted, read_image, read_labels, write_labels};

fn test_data() -> Option<PathBuf> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let root = env::var_os("GANTRY_TEST_DATA").map_or_else(default, PathBuf::from);
    if root.join("dicom/expected.json").is_file() {
        return Some(root);
    }
    println!("skipped: no test data in {}", root.display());
    None
}

/// What pydicom says of a series.
fn expected(root: &Path, series: &str) -> Value {
    let text = fs::read(root.join("dicom/expected.json")).unwrap();
    let all: Value = serde_json::from_slice(&text).unwrap();
    all["series"][series].clone()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// Reads a folder and compares it with what is expected of it.
fn check(folder: &Path, modality: Modality, expected: &Value) -> dicom::Stack {
    let stack = dicom::read_stack(folder, modality).unwrap();
    let number = |key: &str| expected[key].as_f64().unwrap();
    let [columns, rows, depth] = stack.geometry.stored_dims();
    assert_eq!([columns, rows, depth].map(|n| n as f64), [number("cols"), number("rows"), number("n_images")]);
    let (low, high) = (stack.raw.iter().min().unwrap(), stack.raw.iter().max().unwrap());
    assert_eq!([*low, *high].map(f64::from), [number("value_min"), number("value_max")]);
    let mean = stack.raw.iter().map(|&value| f64::from(value)).sum::<f64>() / stack.raw.len() as f64;
    assert!((mean - number("value_mean")).abs() < 6e-4, "{mean}");

    // The affine takes the first and the last voxel of the first column and row to the places in the headers; NIfTI's x and
    // y run against DICOM's. Headers are in f32.
    let affine = stack.geometry.affine();
    let ends = [0., depth as f64 - 1.].map(|k| [0, 1, 2].map(|row| affine[row][2] * k + affine[row][3]));
    let places = ["first_ipp", "last_ipp"].map(|key| {
        let place = floats(&expected[key]);
        [-place[0], -place[1], place[2]]
    });
    let near = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-3);
    let upright = near(ends[0], places[0]) && near(ends[1], places[1]);
    let reversed = near(ends[0], places[1]) && near(ends[1], places[0]);
    assert!(upright || reversed, "{ends:?} against {places:?}");
    let (pixel, columns) = (floats(&expected["pixel_spacing"]), floats(&expected["iop"]));
    for (row, sign) in [-1., -1., 1.].into_iter().enumerate() {
        assert!((affine[row][0] - sign * columns[row] * pixel[1]).abs() < 1e-5, "{affine:?}");
        assert!((affine[row][1] - sign * columns[3 + row] * pixel[0]).abs() < 1e-5, "{affine:?}");
    }
    stack
}

/// JPEG 2000 from a Siemens CT, and a segmentation of it that another tool wrote on the same grid.
#[test]
fn a_compressed_ct_series_lies_under_its_segmentation() {
    let Some(root) = test_data() else { return };
    let folder = root.join("dicom/series/ct_ts_siemens20");
    let stack = check(&folder, Modality::Ct, &expected(&root, "ct_ts_siemens20/"));
    // Not only the grids: what is labelled 5 there (the liver) has the HU of a liver here.
    let table = LabelTable::new([(5, 1)], Unlisted::Background);
    let labels = read_labels(root.join("dicom/series/ct_ts_siemens20_label_native.nii.gz"), &table).unwrap();
    assert!(labels.geometry.matches(&stack.geometry));
    let inside: Vec<f64> =
        stack.raw.iter().zip(&labels.classes).filter(|(_, class)| **class == 1).map(|(&hu, _)| f64::from(hu)).collect();
    let mean = inside.iter().sum::<f64>() / inside.len() as f64;
    assert!(inside.len() > 100_000 && (30. ..200.).contains(&mean), "{mean} HU in {} voxels", inside.len());
}

/// Axial, sagittal and tilted; implicit and explicit; one of them with an object among the slices that is no slice.
#[test]
fn uncompressed_series_of_three_machines() {
    let Some(root) = test_data() else { return };
    for (name, modality) in [
        ("ct_philips_tilt_phantom10", Modality::Ct),
        ("mr_sag_siemens192", Modality::Mr),
        ("ct_ibsi_STS_002", Modality::Ct),
    ] {
        let archive = format!("{name}.tar.gz");
        let folder = tempfile::tempdir().unwrap();
        let unpacked = Command::new("tar")
            .args(["xzf", root.join("dicom/series").join(&archive).to_str().unwrap(), "-C"])
            .arg(folder.path())
            .status();
        if !unpacked.is_ok_and(|status| status.success()) {
            println!("skipped: tar cannot unpack {archive}");
            continue;
        }
        let slices = folder.path().join(name);
        let facts = expected(&root, &archive);
        if facts["n_files"] != facts["n_images"] {
            let error = dicom::read_stack(&slices, modality).unwrap_err().to_string();
            assert!(error.contains("expected a CT or MR image"), "{error}");
            let other = fs::read_dir(&slices).unwrap().map(|entry| entry.unwrap().path());
            other
                .filter(|path| error.starts_with(&path.display().to_string()))
                .for_each(|path| fs::remove_file(path).unwrap());
        }
        check(&slices, modality, &facts);
    }
}

#[test]
fn a_localizer_is_no_volume() {
    let Some(root) = test_data() else { return };
    let error = dicom::read_stack(&root.join("dicom/series/ct_philips_localizer"), Modality::Ct).unwrap_err();
    assert!(error.to_string().ends_with("1 DICOM slices, expected at least 2"), "{error}");
}

#[test]
fn real_scans_laid_out_as_totalsegmentator_has_them() {
    let Some(root) = test_data() else { return };
    let organs = [("liver", 5, 1), ("kidney_right", 2, 2), ("kidney_left", 3, 3), ("spleen", 1, 4)];
    for (modality, scan, labels, file) in [
        (Modality::Ct, "ct_ts_abdomen", "label_ts_v1.nii.gz", "ct.nii.gz"),
        (Modality::Mr, "mr_ts_abdomen", "label_ts_mr.nii.gz", "mri.nii.gz"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (scan, subject) = (root.join("volumes").join(scan), folder.path().join("from/s0001"));
        let masks = subject.join("segmentations");
        fs::create_dir_all(&masks).unwrap();
        fs::copy(scan.join("image.nii.gz"), subject.join(file)).unwrap();
        for (organ, number, _) in organs {
            let mask = read_labels(scan.join(labels), &LabelTable::new([(number, 1)], Unlisted::Background)).unwrap();
            write_labels(masks.join(format!("{organ}.nii.gz")), &mask.geometry, &mask.classes).unwrap();
        }
        let plan = Plan {
            source: Source::TotalSegmentator,
            from: folder.path().join("from"),
            to: folder.path().join("to"),
            modality: Some(modality),
            only: None,
            labels: None,
            split: Split::Own,
            seed: 0,
            skip_bad: false,
        };
        let summary = import(&plan, &mut |_| {}).unwrap();
        let data = Dataset::open(&summary.sets[0].folder, &LabelMap::abdomen()).unwrap();
        let (image, truth) = data.load(&data.train[0]).unwrap();
        let direct = read_image(scan.join("image.nii.gz"), modality).unwrap();
        assert!(image.raw == direct.raw && image.geometry.matches(&direct.geometry));
        let table = LabelTable::new(organs.map(|(_, number, class)| (number, class)), Unlisted::Background);
        assert!(truth.classes == read_labels(scan.join(labels), &table).unwrap().classes);
        assert!(summary.sets[0].train[0].voxels.values().all(|&voxels| voxels > 0), "{:?}", summary.sets[0].train[0]);
    }
}

/// Files that other readers keep as regressions: each twice in a folder, so that no stack can come of it. All that is asked
/// is an answer in words.
#[test]
fn broken_dicom_files_are_refused_in_words() {
    let Some(root) = test_data() else { return };
    let mut seen = 0;
    for source in ["dicom-rs", "nibabel", "pydicom"] {
        let Ok(files) = fs::read_dir(root.join("malformed/dicom").join(source)) else { continue };
        for path in files.map(|entry| entry.unwrap().path()) {
            let folder = tempfile::tempdir().unwrap();
            for name in ["a.dcm", "b.dcm"] {
                fs::copy(&path, folder.path().join(name)).unwrap();
            }
            for modality in Modality::ALL {
                let error = dicom::read_stack(folder.path(), modality).unwrap_err().to_string();
                assert!(error.starts_with(&folder.path().display().to_string()), "{}: {error}", path.display());
            }
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen} files in malformed/dicom");
}
