//! Tiny copies of public data sets: the file names, label values, orientations, DICOM slices and PNG codes of the real ones,
//! filled with a pattern that tells every voxel of the patient apart.
#![allow(dead_code)] // every test binary uses a part

use std::{
    fs,
    path::{Path, PathBuf},
};

use contract::Modality;
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use volume::{Geometry, write_image, write_labels};

/// Canonical shape `[z, y, x]` of every scan here.
pub const SHAPE: [usize; 3] = [4, 5, 6];
/// Number of voxels.
pub const VOXELS: usize = 4 * 5 * 6;

/// Raw values in canonical order, no two alike; `seed` tells scans apart.
pub fn raw(seed: usize) -> Vec<i16> {
    (0..VOXELS).map(|index| (index * 7 + seed) as i16 - 300).collect()
}

/// Which of `count` labels a voxel has, in canonical order; 0 is background.
pub fn classes(seed: usize, count: usize) -> Vec<usize> {
    (0..VOXELS).map(|index| (index / 3 + seed) % (count + 1)).collect()
}

/// A grid that lies in the patient as `codes` say.
pub fn geometry(codes: &str) -> Geometry {
    let [z, y, x] = SHAPE;
    let along = |code: char| match code {
        'R' | 'L' => (x, 1.5),
        'A' | 'P' => (y, 2.),
        _ => (z, 3.),
    };
    let axes: Vec<(usize, f64)> = codes.chars().map(along).collect();
    let dims = [axes[0].0, axes[1].0, axes[2].0];
    Geometry::from_codes(codes, dims, [axes[0].1, axes[1].1, axes[2].1]).unwrap()
}

/// A NIfTI scan and a label map that numbers classes by `values` (0 first), both lying as `codes` say.
pub fn nifti(image: PathBuf, labels: PathBuf, codes: &str, seed: usize, values: &[i16]) {
    for path in [&image, &labels] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
    }
    let geometry = geometry(codes);
    write_image(image, &geometry, &raw(seed)).unwrap();
    let numbers: Vec<i16> = classes(seed, values.len() - 1).into_iter().map(|class| values[class]).collect();
    write_image(labels, &geometry, &numbers).unwrap();
}

/// MM-WHS 2017: the two modalities in folders of their own, all seven structures.
pub fn mm_whs(root: &Path, ids: impl Iterator<Item = usize> + Clone) {
    for (modality, codes) in [("ct", "LPS"), ("mr", "PIR")] {
        for id in ids.clone() {
            let file = |kind: &str| root.join(format!("{modality}_train/{modality}_train_{id}_{kind}.nii.gz"));
            nifti(file("image"), file("label"), codes, id, &[0, 205, 420, 500, 550, 600, 820, 850]);
        }
        let test = root.join(format!("{modality}_test"));
        fs::create_dir_all(&test).unwrap();
        write_image(test.join(format!("{modality}_test_2001_image.nii.gz")), &geometry(codes), &raw(0)).unwrap();
    }
}

/// BTCV: thirteen organs, stored to the left, anterior, superior as Synapse has them.
pub fn btcv(root: &Path, ids: &[usize]) {
    let values: Vec<i16> = (0..=13).collect();
    for &id in ids {
        let home = root.join("RawData/Training");
        let (image, label) = (format!("img/img{id:04}.nii.gz"), format!("label/label{id:04}.nii.gz"));
        nifti(home.join(image), home.join(label), "LAS", id, &values);
    }
}

/// AMOS 2022: numbers up to 500 are CT; `imagesTs` has no labels.
pub fn amos22(root: &Path) {
    let values: Vec<i16> = (0..=15).collect();
    for (part, ids) in [("Tr", [1, 500, 507]), ("Va", [8, 501, 600])] {
        for id in ids {
            let file = |kind: &str| root.join(format!("{kind}{part}/amos_{id:04}.nii.gz"));
            nifti(file("images"), file("labels"), "RAS", id, &values);
        }
    }
    fs::create_dir_all(root.join("imagesTs")).unwrap();
    write_image(root.join("imagesTs/amos_0301.nii.gz"), &geometry("RAS"), &raw(0)).unwrap();
    fs::write(root.join("dataset.json"), "{ \"name\": \"AMOS\" }").unwrap();
}

/// TotalSegmentator v2: one mask per organ, and the table that keeps some subjects for testing.
pub fn totalsegmentator(root: &Path, image: &str, subjects: &[(&str, &str)]) {
    let mut table = "image_id;age;gender;institute;study_type;split;manufacturer\n".to_string();
    for (seed, (subject, split)) in subjects.iter().enumerate() {
        let masks = root.join(subject).join("segmentations");
        fs::create_dir_all(&masks).unwrap();
        write_image(root.join(subject).join(image), &geometry("RAS"), &raw(seed)).unwrap();
        for (index, organ) in ["liver", "kidney_right", "kidney_left", "spleen", "aorta"].iter().enumerate() {
            let mask: Vec<u8> = classes(seed, 5).into_iter().map(|class| u8::from(class == index + 1)).collect();
            write_labels(masks.join(format!("{organ}.nii.gz")), &geometry("RAS"), &mask).unwrap();
        }
        table += &format!("{subject};61;m;A;ct thorax, abdomen;{split};x\n");
    }
    fs::write(root.join("meta.csv"), table).unwrap();
}

/// A task of the Decathlon: bare file names, the older description, macOS's leftovers.
pub fn msd(root: &Path, modality: &str, labels: &[&str]) {
    let values: Vec<i16> = (0..labels.len() as i16).collect();
    for id in [2, 10, 17] {
        let file = |kind: &str| root.join(format!("{kind}Tr/spleen_{id}.nii.gz"));
        nifti(file("images"), file("labels"), "RAS", id, &values);
    }
    fs::create_dir_all(root.join("imagesTs")).unwrap();
    write_image(root.join("imagesTs/spleen_1.nii.gz"), &geometry("RAS"), &raw(0)).unwrap();
    fs::write(root.join("imagesTr/._spleen_2.nii.gz"), "Mac OS X").unwrap();
    let labels: serde_json::Map<_, _> =
        labels.iter().enumerate().map(|(id, name)| (id.to_string(), (*name).into())).collect();
    let text = serde_json::json!({
        "name": "Spleen", "tensorImageSize": "3D", "modality": { "0": modality }, "labels": labels,
        "numTraining": 3, "numTest": 1, "training": [], "test": [],
    });
    fs::write(root.join("dataset.json"), text.to_string()).unwrap();
}

/// How slices lie: the directions of rows and columns in the patient (to left, posterior, superior), the canonical axis
/// (x, y, z) that columns, rows and slices run along, and whether they run against it.
pub struct Cut {
    pub rows: [f64; 3],
    pub columns: [f64; 3],
    pub axes: [usize; 3],
    pub against: [bool; 3],
}

pub const AXIAL: Cut = Cut { rows: [1., 0., 0.], columns: [0., 1., 0.], axes: [0, 1, 2], against: [false; 3] };
/// As a coronal stack is shown: columns to the left, rows downwards; slices from anterior to posterior.
pub const CORONAL: Cut =
    Cut { rows: [1., 0., 0.], columns: [0., 0., -1.], axes: [0, 2, 1], against: [false, true, false] };

impl Cut {
    /// Columns, rows, slices.
    pub fn dims(&self) -> [usize; 3] {
        self.axes.map(|axis| SHAPE[2 - axis])
    }

    /// Position in the canonical volume of a pixel of a slice.
    fn index(&self, at: [usize; 3]) -> usize {
        let mut canonical = [0; 3];
        for (along, &axis) in self.axes.iter().enumerate() {
            let last = SHAPE[2 - axis] - 1;
            canonical[axis] = if self.against[along] { last - at[along] } else { at[along] };
        }
        (canonical[2] * SHAPE[1] + canonical[1]) * SHAPE[2] + canonical[0]
    }

    /// The values of a slice, row by row.
    pub fn slice<T: Copy>(&self, canonical: &[T], slice: usize) -> Vec<T> {
        let [width, height, _] = self.dims();
        (0..width * height).map(|i| canonical[self.index([i % width, i / width, slice])]).collect()
    }

    /// Corner of a slice in the patient, 1.5 x 2 x 3 mm voxels.
    fn place(&self, slice: usize) -> [f64; 3] {
        const MM: [f64; 3] = [1.5, 2., 3.];
        let mut place = [-10., 20., -30.];
        for (along, &axis) in self.axes.iter().enumerate() {
            let index = if along == 2 { slice } else { 0 };
            let last = SHAPE[2 - axis] - 1;
            place[axis] += MM[axis] * if self.against[along] { last - index } else { index } as f64;
        }
        place
    }

    fn pixel_mm(&self) -> [f64; 2] {
        const MM: [f64; 3] = [1.5, 2., 3.];
        [MM[self.axes[1]], MM[self.axes[0]]]
    }
}

/// One DICOM slice, stored as 12 bits with an offset of 1024 that the rescale takes back.
pub fn dicom(path: &Path, modality: Modality, cut: &Cut, slice: usize, canonical: &[i16]) {
    let [width, height, _] = cut.dims();
    let stored: Vec<u16> = cut.slice(canonical, slice).into_iter().map(|value| (value + 1024) as u16).collect();
    let join = |values: &[f64]| values.iter().map(f64::to_string).collect::<Vec<_>>().join("\\");
    let mut object = InMemDicomObject::new_empty();
    let class = match modality {
        Modality::Ct => uids::CT_IMAGE_STORAGE,
        Modality::Mr => uids::MR_IMAGE_STORAGE,
    };
    let uid = format!("1.2.3.{}.{slice}", canonical[0].unsigned_abs());
    let code = modality.name().to_ascii_uppercase();
    for (tag, vr, value) in [
        (tags::SOP_CLASS_UID, VR::UI, class.to_string()),
        (tags::SOP_INSTANCE_UID, VR::UI, uid.clone()),
        // As the anonymised data sets have it: a series of its own for every slice.
        (tags::SERIES_INSTANCE_UID, VR::UI, format!("{uid}.9")),
        (tags::MODALITY, VR::CS, code),
        (tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2".into()),
        (tags::PIXEL_SPACING, VR::DS, join(&cut.pixel_mm())),
        (tags::IMAGE_ORIENTATION_PATIENT, VR::DS, join(&[cut.rows, cut.columns].concat())),
        (tags::IMAGE_POSITION_PATIENT, VR::DS, join(&cut.place(slice))),
        (tags::RESCALE_SLOPE, VR::DS, "1".into()),
        (tags::RESCALE_INTERCEPT, VR::DS, "-1024".into()),
    ] {
        object.put(DataElement::new(tag, vr, PrimitiveValue::from(value)));
    }
    for (tag, value) in [
        (tags::SAMPLES_PER_PIXEL, 1),
        (tags::ROWS, height as u16),
        (tags::COLUMNS, width as u16),
        (tags::BITS_ALLOCATED, 16),
        (tags::BITS_STORED, 12),
        (tags::HIGH_BIT, 11),
        (tags::PIXEL_REPRESENTATION, 0),
    ] {
        object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
    }
    // Above the stored bits lies what older scanners drew over the picture.
    let words: Vec<u16> = stored.into_iter().map(|word| word | 0x8000).collect();
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(words.into())));
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
        .media_storage_sop_class_uid(class)
        .media_storage_sop_instance_uid(uid);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    object.with_meta(meta).unwrap().write_to_file(path).unwrap();
}

/// A PNG of grey values.
pub fn png(path: &Path, [width, height]: [usize; 2], grey: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), width as u32, height as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().unwrap().write_image_data(grey).unwrap();
}

/// Slices and truth of a scan: `slice_name` and `truth_name` of the n-th in order of name, which runs from the last slice
/// to the first, against the patient.
pub fn slices(
    images: &Path,
    truth: Option<&Path>,
    modality: Modality,
    cut: &Cut,
    seed: usize,
    codes: &[u8],
    names: &dyn Fn(usize) -> [String; 2],
) {
    let (raw, grey) =
        (raw(seed), classes(seed, codes.len() - 1).into_iter().map(|class| codes[class]).collect::<Vec<_>>());
    let [width, height, depth] = cut.dims();
    for n in 0..depth {
        let [slice_name, truth_name] = names(n);
        let slice = depth - 1 - n;
        dicom(&images.join(slice_name), modality, cut, slice, &raw);
        if let Some(truth) = truth {
            png(&truth.join(truth_name), [width, height], &cut.slice(&grey, slice));
        }
    }
}

/// Grey values of the MRI of CHAOS, background first.
pub const CHAOS_CODES: [u8; 5] = [0, 63, 126, 189, 252];

/// CHAOS: CT with truth of the liver, T1 in and out of phase with one truth, T2.
pub fn chaos(root: &Path, ids: &[usize]) {
    for &id in ids {
        let ct = root.join(format!("Train_Sets/CT/{id}"));
        let names = |n: usize| [format!("i{n:04},0000b.dcm"), format!("liver_GT_{n:03}.png")];
        slices(&ct.join("DICOM_anon"), Some(&ct.join("Ground")), Modality::Ct, &AXIAL, id, &[0, 255], &names);

        let t1 = root.join(format!("Train_Sets/MR/{id}/T1DUAL"));
        // Echoes alternate: odd numbers are out of phase, and the truth has the names of those in phase.
        let echo = |odd: usize| {
            move |n: usize| {
                let number = 2 * (n + 1) - odd;
                [format!("IMG-0004-{number:05}.dcm"), format!("IMG-0004-{number:05}.png")]
            }
        };
        let (ground, images) = (t1.join("Ground"), t1.join("DICOM_anon"));
        slices(&images.join("InPhase"), Some(&ground), Modality::Mr, &AXIAL, id, &CHAOS_CODES, &echo(0));
        slices(&images.join("OutPhase"), None, Modality::Mr, &AXIAL, id + 50, &CHAOS_CODES, &echo(1));

        let t2 = root.join(format!("Train_Sets/MR/{id}/T2SPIR"));
        let names = |n: usize| [format!("IMG-0002-{:05}.dcm", n + 1), format!("IMG-0002-{:05}.png", n + 1)];
        slices(&t2.join("DICOM_anon"), Some(&t2.join("Ground")), Modality::Mr, &CORONAL, id + 90, &CHAOS_CODES, &names);
    }
}
