//! The service from sources to sinks: every slice comes out with a label map or a code, and label maps are those of
//! `segment`.

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use contract::{Modality, Plane};
use dicom_dictionary_std::tags;
use dicom_object::open_file;
use edge_runtime::{
    Code, Engine, Model, Segmenter,
    serve::{Config, Service, Snapshot},
};
use serde_json::Value;
use support::{
    Small,
    dicom::{Axes, SliceFile},
};
use volume::{LabelTable, read_labels};

const PLANE: Plane = Plane { height: 50, width: 40, row_mm: 1.5, column_mm: 2. };
const AREA: usize = 50 * 40;

/// A folder with a model, and what a service made in it.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.onnx"), Small::new(1).file()).unwrap();
        fs::create_dir(folder.path().join("in")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replays `in` as fast as it goes, or as `more` says.
    fn serve(&self, rate: &str, more: &str) -> Snapshot {
        let text = format!(
            "model = \"model.onnx\"\nstate = \"state\"\n{more}\n[[source]]\nkind = \"replay\"\npath = \"in\"\nrate = \"{rate}\"\n\
             [[sink]]\nkind = \"lines\"\npath = \"lines.json\"\n[[sink]]\nkind = \"nifti\"\nfolder = \"nifti\"\n\
             [[sink]]\nkind = \"seg\"\nfolder = \"seg\"\n"
        );
        let path = self.path("gantry.toml");
        fs::write(&path, text).unwrap();
        let service = Service::open(Config::read(&path).unwrap(), &path).unwrap();
        service.run(&AtomicBool::new(false)).unwrap()
    }

    fn lines(&self, event: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path("lines.json")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["event"] == event).collect()
    }
}

fn volume(depth: usize) -> Vec<i16> {
    (0..depth * AREA).map(|i| ((i * 37 + i / AREA * 211) % 900) as i16 - 150).collect()
}

/// What the slice loop of `segment` makes of the same slices.
fn expected(site: &Site, modality: Modality, raw: &[i16]) -> Vec<u8> {
    let model = Model::load(site.path("model.onnx")).unwrap();
    let mut engine = Engine::new(&model).unwrap();
    let mut segmenter = Segmenter::new(&model, modality, PLANE).unwrap();
    let mut classes = vec![0; raw.len()];
    for (z, out) in classes.chunks_exact_mut(AREA).enumerate() {
        segmenter.segment(&mut engine, raw, z, out).unwrap();
    }
    classes
}

#[test]
fn label_maps_are_those_of_segment_however_the_slices_lie_and_in_whatever_order_they_come() {
    for (modality, axes) in [
        (Modality::Ct, Axes::AXIAL),
        (Modality::Mr, Axes { along: [-1., 0., 0.], down: [0., -1., 0.], step: [0., 0., -4.] }),
        (Modality::Ct, Axes { along: [0., 1., 0.], down: [1., 0., 0.], step: [0., 0., 4.] }),
        // A tilted gantry: planes shifted against each other.
        (Modality::Ct, Axes { along: [1., 0., 0.], down: [0., 0.96, -0.28], step: [0., 0.9, 4.] }),
    ] {
        let site = Site::new();
        let raw = volume(6);
        for (number, z) in [3, 0, 5, 1, 4, 2].into_iter().enumerate() {
            let slice = SliceFile { modality, series: "1.2.3", z, axes, plane: PLANE };
            slice.write(&site.path(&format!("in/{number}.dcm")), &raw[z * AREA..][..AREA]);
        }
        let snapshot = site.serve("max", "");
        assert_eq!(snapshot.slices, BTreeMap::from([(format!("{modality} segmented"), 6)]), "{axes:?}");
        let labels = read_labels(site.path("nifti/1.2.3.nii.gz"), &LabelTable::identity(&Small::new(1).spec.labels));
        let labels = labels.unwrap();
        let mut wanted = expected(&site, modality, &raw);
        if axes.step[2] < 0. {
            // The volume is canonical: inferior first.
            wanted = wanted.chunks_exact(AREA).rev().flatten().copied().collect();
        }
        assert!(wanted.iter().any(|&class| class > 0), "a label map of background shows nothing");
        assert_eq!(labels.classes, wanted, "{axes:?}");
        // The segmentation lies on the source's own pixels.
        let seg = open_file(site.path("seg/1.2.3.seg.dcm")).unwrap();
        let number = |tag| seg.element(tag).unwrap().to_int::<usize>().unwrap();
        let [columns, rows] = if axes.along[1] != 0. { [50, 40] } else { [40, 50] };
        assert_eq!([number(tags::COLUMNS), number(tags::ROWS)], [columns, rows]);
        assert_eq!(site.lines("series")[0]["segmented"], 6);
    }
}

/// Large slices and a deadline of a millisecond, which is over before they are decoded.
#[test]
fn late_slices_are_dropped_flagged_or_fail_their_series() {
    let site = Site::new();
    let plane = Plane { height: 900, width: 900, row_mm: 0.5, column_mm: 0.5 };
    let raw: Vec<i16> = (0..900 * 900).map(|i| ((i * 37) % 900) as i16).collect();
    for z in 0..6 {
        let slice = SliceFile { modality: Modality::Mr, series: "1.2.4", z, axes: Axes::AXIAL, plane };
        slice.write(&site.path(&format!("in/{z}.dcm")), &raw);
    }
    for (policy, outcome, codes, wrote) in [
        ("drop-oldest", "mr dropped", [(Code::LateDropped, 6), (Code::SeriesIncomplete, 1)].as_slice(), false),
        ("stale-flag", "mr stale", &[(Code::LateStale, 6)], true),
        ("fail-closed", "mr dropped", &[(Code::LateDropped, 6), (Code::LateFailed, 1)], false),
    ] {
        fs::remove_file(site.path("lines.json")).ok();
        let late = format!("[slices]\ndeadline_ms = 1\nlate = \"{policy}\"\n");
        let snapshot = site.serve("1000/s", &late);
        assert_eq!(snapshot.slices, BTreeMap::from([(outcome.to_string(), 6)]), "{policy}");
        let codes = codes.iter().map(|&(code, count)| (code.name(), count)).collect::<BTreeMap<_, _>>();
        assert_eq!(snapshot.codes, codes, "{policy}");
        assert_eq!(site.lines("slice").len(), 6, "{policy}");
        let series = &site.lines("series")[0];
        assert_eq!(series["wrote"].as_array().unwrap().is_empty(), !wrote, "{policy}: {series}");
    }
    let seg = open_file(site.path("seg/1.2.4.seg.dcm")).unwrap();
    let words = seg.element(tags::CONTENT_DESCRIPTION).unwrap().to_str().unwrap().into_owned();
    assert_eq!(words.trim_end(), "6 of 6 slices came after their deadline");
}

#[test]
fn what_is_missing_is_said_in_the_segmentation() {
    let site = Site::new();
    let raw = volume(8);
    for z in 0..8 {
        let slice = SliceFile { modality: Modality::Ct, series: "1.2.5", z, axes: Axes::AXIAL, plane: PLANE };
        let mut pixels = raw[z * AREA..][..AREA].to_vec();
        match z {
            // No Hounsfield units.
            2 => pixels.iter_mut().for_each(|value| *value = value.abs() + 1),
            // One value: background, and nothing is missing.
            5 => pixels.fill(-1000),
            _ => {}
        }
        slice.write(&site.path(&format!("in/{z}.dcm")), &pixels);
    }
    fs::write(site.path("in/note.txt"), "no DICOM").unwrap();
    let snapshot = site.serve("max", "");
    assert_eq!(snapshot.codes[Code::SliceNotHounsfield.name()], 1);
    assert_eq!(snapshot.codes[Code::DicomUnreadable.name()], 1);
    assert_eq!(snapshot.codes[Code::SeriesIncomplete.name()], 1);
    assert!(!site.path("seg").exists(), "an incomplete series is not written");
    let snapshot = site.serve("max", "[series]\nincomplete = \"mark\"\n");
    assert_eq!(snapshot.slices["ct blank"], 1);
    let seg = open_file(site.path("seg/1.2.5.seg.dcm")).unwrap();
    let words = seg.element(tags::CONTENT_DESCRIPTION).unwrap().to_str().unwrap().into_owned();
    assert_eq!(words.trim_end(), "INCOMPLETE: 1 of 8 slices not segmented");
}

#[test]
fn instances_that_came_twice_and_slices_in_one_place_are_refused() {
    let site = Site::new();
    let raw = volume(4);
    for (number, z) in [0, 1, 1, 2, 3].into_iter().enumerate() {
        let slice = SliceFile { modality: Modality::Ct, series: "1.2.6", z, axes: Axes::AXIAL, plane: PLANE };
        slice.write(&site.path(&format!("in/{number}.dcm")), &raw[z * AREA..][..AREA]);
    }
    // Another instance where the last one lies: as of a second phase.
    let phase = SliceFile { modality: Modality::Ct, series: "1.2.6", z: 3, axes: Axes::AXIAL, plane: PLANE };
    phase.write_as(&site.path("in/5.dcm"), "1.2.6.99", &raw[..AREA]);
    let snapshot = site.serve("max", "");
    assert_eq!(snapshot.codes[Code::SeriesDuplicate.name()], 1);
    assert_eq!(snapshot.codes[Code::SeriesPlace.name()], 1);
    assert_eq!(snapshot.slices["ct segmented"], 4);
    assert_eq!(site.lines("series").len(), 1);
}

/// The table for people is the enum's.
#[test]
fn the_table_of_codes_is_complete() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/codes.md");
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_gantry-edge")).args(["codes", "--markdown"]).output();
    let made = String::from_utf8(made.unwrap().stdout).unwrap();
    assert_eq!(made.lines().filter(|line| line.starts_with("| `E-")).count(), Code::ALL.len());
    assert_eq!(fs::read_to_string(&path).unwrap(), made, "run: gantry-edge codes --markdown > docs/codes.md");
}
