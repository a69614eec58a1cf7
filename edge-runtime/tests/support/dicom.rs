//! DICOM slices made for tests.

use std::path::Path;

use contract::{Modality, Plane};
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject, Tag};

/// How slices lie in the patient.
#[derive(Clone, Copy, Debug)]
pub struct Axes {
    pub along: [f64; 3],
    pub down: [f64; 3],
    /// From slice to slice, mm.
    pub step: [f64; 3],
}

impl Axes {
    pub const AXIAL: Self = Self { along: [1., 0., 0.], down: [0., 1., 0.], step: [0., 0., 4.] };
}

/// One slice of a series.
pub struct SliceFile<'a> {
    pub modality: Modality,
    pub series: &'a str,
    pub z: usize,
    pub axes: Axes,
    /// Canonical.
    pub plane: Plane,
}

impl SliceFile<'_> {
    /// Writes raw values, canonical `[y][x]`, in the order of the image's own axes.
    pub fn write(&self, path: &Path, raw: &[i16]) {
        self.write_as(path, &format!("{}.{}", self.series, self.z + 1), raw);
    }

    pub fn write_as(&self, path: &Path, instance: &str, raw: &[i16]) {
        let Axes { along, down, step } = self.axes;
        let Plane { height, width, row_mm, column_mm } = self.plane;
        let swapped = along[1].abs() > along[0].abs();
        let ([columns, rows], spacing) = match swapped {
            false => ([width, height], [row_mm, column_mm]),
            true => ([height, width], [column_mm, row_mm]),
        };
        let mut stored = vec![0i16; raw.len()];
        for (index, value) in stored.iter_mut().enumerate() {
            let (row, column) = (index / columns, index % columns);
            let (x, y) = if swapped { (row, column) } else { (column, row) };
            let against =
                |axis: usize| if swapped { [down, along][axis][axis] } else { [along, down][axis][axis] } < 0.;
            let x = if against(0) { width - 1 - x } else { x };
            let y = if against(1) { height - 1 - y } else { y };
            *value = raw[y * width + x];
        }
        let class = match self.modality {
            Modality::Ct => uids::CT_IMAGE_STORAGE,
            Modality::Mr => uids::MR_IMAGE_STORAGE,
        };
        let mut object = InMemDicomObject::new_empty();
        let mut put = |tag: Tag, vr: VR, value: PrimitiveValue| {
            object.put(DataElement::new(tag, vr, value));
        };
        let name = self.modality.name().to_uppercase();
        for (tag, vr, text) in [
            (tags::SOP_CLASS_UID, VR::UI, class),
            (tags::SOP_INSTANCE_UID, VR::UI, instance),
            (tags::STUDY_INSTANCE_UID, VR::UI, "1.2.99"),
            (tags::SERIES_INSTANCE_UID, VR::UI, self.series),
            (tags::FRAME_OF_REFERENCE_UID, VR::UI, "1.2.98"),
            (tags::MODALITY, VR::CS, name.as_str()),
            (tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\AXIAL"),
            (tags::PATIENT_NAME, VR::PN, "Phantom^Test"),
            (tags::PATIENT_ID, VR::LO, "1"),
            (tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
        ] {
            put(tag, vr, text.into());
        }
        let numbers = |numbers: &[f64]| PrimitiveValue::Strs(numbers.iter().map(f64::to_string).collect());
        let place = step.map(|mm| mm * self.z as f64);
        put(tags::PIXEL_SPACING, VR::DS, numbers(&spacing));
        put(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, numbers(&[along, down].concat()));
        put(tags::IMAGE_POSITION_PATIENT, VR::DS, numbers(&place));
        put(tags::SLICE_THICKNESS, VR::DS, "4".into());
        put(tags::RESCALE_SLOPE, VR::DS, "1".into());
        put(tags::RESCALE_INTERCEPT, VR::DS, "0".into());
        for (tag, value) in [
            (tags::ROWS, rows as u16),
            (tags::COLUMNS, columns as u16),
            (tags::SAMPLES_PER_PIXEL, 1),
            (tags::BITS_ALLOCATED, 16),
            (tags::BITS_STORED, 16),
            (tags::HIGH_BIT, 15),
            (tags::PIXEL_REPRESENTATION, 1),
        ] {
            put(tag, VR::US, value.into());
        }
        let words: Vec<u16> = stored.iter().map(|&value| value as u16).collect();
        put(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(words.into()));
        let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
        object.with_meta(meta).unwrap().write_to_file(path).unwrap();
    }
}
