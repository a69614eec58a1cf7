//! Series for tests, with labels that every pixel's place decides.
#![allow(dead_code)] // no test uses all of it

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use contract::LabelMap;
use dicom::{DicomDate, DicomTime, Form, Image, MakeFault, Maker, Plane, Slice, Source, segmentation};
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{DefaultDicomObject, InMemDicomObject, open_file};

pub struct Series {
    pub name: String,
    /// The patient, as other readers show the name.
    pub patient: String,
    pub header: InMemDicomObject,
    pub slices: Vec<Labelled>,
}

pub struct Labelled {
    pub plane: Plane,
    pub class: String,
    pub instance: String,
    pub frame: Option<u32>,
    pub labels: Vec<u8>,
}

pub fn maker() -> Maker<'static> {
    Maker {
        manufacturer: "Gantry",
        model: "gantry-edge",
        serial: "1",
        software: "0.1.0",
        algorithm: "abdomen-compact",
        version: "0123456789ab",
        series_number: 901,
        series_description: "Gantry organs",
        date: DicomDate::from_ymd(2025, 2, 28).unwrap(),
        time: DicomTime::from_hms(23, 59, 1).unwrap(),
    }
}

impl Series {
    pub fn slices<'a>(&'a self) -> Vec<Slice<'a>> {
        let slice = |Labelled { plane, class, instance, frame, labels }: &'a Labelled| {
            let source = Source { sop_class: class, sop_instance: instance, frame: *frame };
            Slice { plane: *plane, source, labels }
        };
        self.slices.iter().map(slice).collect()
    }

    pub fn segmentation(&self, labels: &LabelMap, form: Form) -> Result<DefaultDicomObject, MakeFault> {
        segmentation(&self.header, &self.slices(), labels, &maker(), "incomplete: 3 of 40 slices not segmented", form)
    }

    /// Every class but the third in stripes and dots, nothing in every third slice.
    fn label(mut self) -> Self {
        for (number, slice) in self.slices.iter_mut().enumerate() {
            let [columns, rows] = slice.plane.size;
            let label = |pixel: usize| {
                let (row, column) = (pixel / columns, pixel % columns);
                let found = (3 * row + 7 * column * column + 5 * number) % 11;
                if number % 3 == 2 || found == 3 || found > 4 { 0 } else { found as u8 }
            };
            slice.labels = (0..columns * rows).map(label).collect();
        }
        self
    }

    /// Instances of a folder, backwards, which must not matter.
    fn of_files(name: &str, mut paths: Vec<PathBuf>) -> Self {
        paths.sort();
        paths.reverse();
        let name = name.to_owned();
        let mut series = Self { name, patient: String::new(), header: InMemDicomObject::new_empty(), slices: vec![] };
        for path in paths {
            let object = open_file(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let Ok(image) = Image::new(&object) else { continue };
            let class = object.meta().media_storage_sop_class_uid().to_owned();
            // Some anonymised series have lost what every scanner sends.
            let instance = match object.element(tags::SOP_INSTANCE_UID).unwrap().to_str().unwrap() {
                lost if lost.is_empty() => format!("1.2.3.4.5.{}", series.slices.len() + 1),
                uid => uid.into_owned(),
            };
            let several = image.frames.len() > 1;
            for (number, frame) in (1..).zip(&image.frames) {
                let (class, instance) = (class.clone(), instance.clone());
                let frame_number = several.then_some(number);
                series.slices.push(Labelled {
                    plane: frame.plane,
                    class,
                    instance,
                    frame: frame_number,
                    labels: vec![],
                });
            }
            series.header = object.into_inner();
            series.header.remove_element(tags::PIXEL_DATA);
        }
        assert!(!series.slices.is_empty(), "{}", series.name);
        let patient = series.header.get(tags::PATIENT_NAME).map(|name| name.to_str().unwrap().trim().to_owned());
        series.patient = patient.unwrap_or_default();
        for (tag, uid) in [(tags::STUDY_INSTANCE_UID, "1.2.3.4"), (tags::SERIES_INSTANCE_UID, "1.2.3.4.5")] {
            if series.header.get(tag).is_none_or(|element| element.to_str().unwrap().is_empty()) {
                series.header.put(DataElement::new(tag, VR::UI, PrimitiveValue::from(uid)));
            }
        }
        series.label()
    }

    /// Slices of a study of our own, 13 x 7 pixels, with the given planes.
    pub fn synthetic(name: &str, planes: &[Plane]) -> Self {
        let mut header = InMemDicomObject::new_empty();
        for (tag, vr, value) in [
            (tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 100"),
            (tags::PATIENT_NAME, VR::PN, "Müller^Änne"),
            (tags::PATIENT_ID, VR::LO, "4711"),
            (tags::STUDY_INSTANCE_UID, VR::UI, "1.2.3.4"),
            (tags::SERIES_INSTANCE_UID, VR::UI, "1.2.3.4.5"),
            (tags::MANUFACTURER, VR::LO, "Scanners"),
            (tags::SLICE_THICKNESS, VR::DS, "2.5"),
        ] {
            header.put(DataElement::new(tag, vr, PrimitiveValue::from(value)));
        }
        let slice = |(number, &plane): (usize, &Plane)| Labelled {
            plane,
            class: uids::CT_IMAGE_STORAGE.to_owned(),
            instance: format!("1.2.3.4.5.{}", number + 1),
            frame: None,
            labels: vec![],
        };
        let slices = planes.iter().enumerate().map(slice).collect();
        Self { name: name.to_owned(), patient: "Müller^Änne".to_owned(), header, slices }.label()
    }

    /// With a patient's name in two alphabets, as the Japanese code extensions of PS3.5 H.3.1 write it.
    fn japanese(mut self) -> Self {
        self.name = "japanese".to_owned();
        self.patient = "Yamada^Tarou=山田^太郎".to_owned();
        let sets = PrimitiveValue::Strs(["", "ISO 2022 IR 87"].map(str::to_owned).into_iter().collect());
        self.header.put(DataElement::new(tags::SPECIFIC_CHARACTER_SET, VR::CS, sets));
        let name = "Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B";
        self.header.put(DataElement::new(tags::PATIENT_NAME, VR::PN, PrimitiveValue::from(name)));
        self
    }
}

/// A plane turned about two axes, `height_mm` above another along its normal and shifted within it.
pub fn plane(turn: f64, tilt: f64, height_mm: f64, shift_mm: f64) -> Plane {
    let along = [turn.cos(), turn.sin(), 0.];
    let down = [-turn.sin() * tilt.cos(), turn.cos() * tilt.cos(), tilt.sin()];
    let mut plane = Plane { size: [13, 7], spacing_mm: [0.7, 1.3], along, down, first_mm: [0.; 3] };
    let normal = plane.normal();
    plane.first_mm = [0, 1, 2].map(|axis| 10. / 3. + height_mm * normal[axis] + shift_mm * down[axis]);
    plane
}

/// Oblique and uneven; sheared; turned and magnified from slice to slice; a single slice; of a
/// patient with a Japanese name.
pub fn synthetic() -> Vec<Series> {
    let uneven: Vec<Plane> = [0., 2., 2.5, 9., 11., 40.].map(|height| plane(0.3, 0.2, height, 0.)).into();
    let sheared: Vec<Plane> = (0..7).map(|step| plane(0., 0.3, 3. * f64::from(step), 0.7 * f64::from(step))).collect();
    let turned: Vec<Plane> = (0..5)
        .map(|step| {
            let spacing_mm = [0.5 + 0.01 * f64::from(step), 0.6];
            Plane { spacing_mm, ..plane(0.1 * f64::from(step), 0.2, 4. * f64::from(step), 0.) }
        })
        .collect();
    vec![
        Series::synthetic("uneven", &uneven),
        Series::synthetic("sheared", &sheared),
        Series::synthetic("turned", &turned),
        Series::synthetic("single", &uneven[..1]),
        Series::synthetic("", &sheared).japanese(),
    ]
}

/// Series of scanners: tilted, sagittal, compressed, multi-frame. None where the test data are absent.
pub fn real() -> Vec<Series> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let root = env::var_os("GANTRY_TEST_DATA").map_or_else(default, PathBuf::from).join("dicom");
    if !root.is_dir() {
        println!("skipped: no test data in {}", root.display());
        return vec![];
    }
    let files = |folder: PathBuf| -> Vec<PathBuf> {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "dcm"))
            .collect()
    };
    let mut all = vec![
        Series::of_files("siemens CT", files(root.join("series/ct_ts_siemens20"))),
        Series::of_files("single frames", files(root.join("seg/dcmqi/23x38x3/image"))),
        Series::of_files("multi-frame", vec![root.join("seg/dcmqi/23x38x3/multiframe/mf.dcm")]),
    ];
    let folder = tempfile::tempdir().unwrap();
    for name in ["ct_philips_tilt_phantom10", "mr_sag_siemens192", "ct_ibsi_STS_002", "mr_vsseg_t1_12"] {
        let archive = root.join("series").join(name).with_extension("tar.gz");
        let unpacked = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(folder.path()).status();
        if !unpacked.as_ref().is_ok_and(std::process::ExitStatus::success) {
            println!("skipped: cannot unpack {}: {unpacked:?}", archive.display());
            continue;
        }
        let mut series = Series::of_files(name, files(folder.path().join(name)));
        series.slices.truncate(40);
        all.push(series);
    }
    all
}
