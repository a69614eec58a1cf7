//! Single fields of a file: every type and byte order, the raw rule, and every refusal with its numbers.
//!
//! The bytes are laid out here by nifti1.h, not by the code under test.

use std::{fs, path::PathBuf};

use contract::{LabelMap, Modality};
use flate2::{Compression, write::GzEncoder};
use tempfile::TempDir;
use volume::{Fault, Image, LabelTable, VolumeError, nifti::Unlisted, read_image, read_labels, write_labels};

/// A file in the making: header, four bytes, voxels.
struct File {
    bytes: Vec<u8>,
    big: bool,
}

impl File {
    /// `[3, 2, 1]` voxels of 1 x 2 x 3 mm, sform LAS with code 2, of the given type.
    fn new(big: bool, datatype: i16, bits: i16, voxels: &[u8]) -> Self {
        let mut file = Self { bytes: vec![0; 352], big };
        file.i32(0, 348);
        for (index, size) in [3, 3, 2, 1, 1, 1, 1, 1].into_iter().enumerate() {
            file.i16(40 + 2 * index, size);
        }
        file.i16(70, datatype);
        file.i16(72, bits);
        for (index, value) in [1., 1., 2., 3.].into_iter().enumerate() {
            file.f32(76 + 4 * index, value);
        }
        file.f32(108, 352.);
        file.i16(254, 2);
        for (at, value) in [(280, -1.), (292, 10.), (300, 2.), (308, 20.), (320, 3.), (324, 30.)] {
            file.f32(at, value);
        }
        file.bytes[344..348].copy_from_slice(b"n+1\0");
        file.bytes.extend(voxels);
        file
    }

    fn floats(values: [f32; 6]) -> Self {
        Self::new(false, 16, 32, &values.map(f32::to_le_bytes).concat())
    }

    fn shorts(values: [i16; 6]) -> Self {
        Self::new(false, 4, 16, &values.map(i16::to_le_bytes).concat())
    }

    fn put(&mut self, at: usize, mut little_endian: Vec<u8>) {
        if self.big {
            little_endian.reverse();
        }
        self.bytes[at..at + little_endian.len()].copy_from_slice(&little_endian);
    }

    fn i16(&mut self, at: usize, value: i16) {
        self.put(at, value.to_le_bytes().to_vec());
    }

    fn i32(&mut self, at: usize, value: i32) {
        self.put(at, value.to_le_bytes().to_vec());
    }

    fn f32(&mut self, at: usize, value: f32) {
        self.put(at, value.to_le_bytes().to_vec());
    }

    fn save(&self) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.nii");
        fs::write(&path, &self.bytes).unwrap();
        (folder, path)
    }

    fn read(&self, modality: Modality) -> Result<Image, VolumeError> {
        let (_folder, path) = self.save();
        read_image(path, modality)
    }

    fn fault(&self) -> Fault {
        self.read(Modality::Ct).unwrap_err().fault
    }
}

#[test]
fn every_real_type_is_read_in_both_byte_orders() {
    // Canonical order: x runs to the left as in the file, y is flipped.
    let (stored, canonical) = ([0i16, 1, 2, 3, 40, 100], vec![3, 40, 100, 0, 1, 2]);
    type Encode = fn(i16) -> Vec<u8>;
    let types: [(i16, Encode); 10] = [
        (2, |v| (v as u8).to_le_bytes().to_vec()),
        (256, |v| (v as i8).to_le_bytes().to_vec()),
        (4, |v| v.to_le_bytes().to_vec()),
        (512, |v| (v as u16).to_le_bytes().to_vec()),
        (8, |v| i32::from(v).to_le_bytes().to_vec()),
        (768, |v| (v as u32).to_le_bytes().to_vec()),
        (1024, |v| i64::from(v).to_le_bytes().to_vec()),
        (1280, |v| (v as u64).to_le_bytes().to_vec()),
        (16, |v| f32::from(v).to_le_bytes().to_vec()),
        (64, |v| f64::from(v).to_le_bytes().to_vec()),
    ];
    for (datatype, encode) in types {
        for big in [false, true] {
            let voxels = stored.map(|value| {
                let mut bytes = encode(value);
                if big {
                    bytes.reverse();
                }
                bytes
            });
            let file = File::new(big, datatype, 8 * voxels[0].len() as i16, &voxels.concat());
            let image = file.read(Modality::Ct).unwrap();
            assert_eq!(image.raw, canonical, "type {datatype}, big-endian {big}");
            assert_eq!((image.shape(), image.spacing_mm()), ([1, 2, 3], [1., 2., 3.]));
        }
    }
}

#[test]
fn a_label_map_keeps_every_field_that_is_not_about_its_voxels() {
    for big in [false, true] {
        let mut file = File::new(big, 16, 32, &[0; 24]);
        file.i16(252, 1);
        file.f32(256, 0.25);
        file.f32(112, 2.);
        file.f32(116, -5.);
        file.bytes[148..158].copy_from_slice(b"descriptio");
        // Five dimensions, the last two of one.
        file.i16(40, 5);
        let image = file.read(Modality::Ct).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.nii");
        write_labels(&path, &image.geometry, &[1, 2, 3, 4, 0, 1]).unwrap();

        let mut expected = File { bytes: file.bytes[..352].to_vec(), big };
        for (at, value) in [(70, 2), (72, 8)] {
            expected.i16(at, value);
        }
        for (at, value) in [(112, 1.), (116, 0.)] {
            expected.f32(at, value);
        }
        expected.bytes.extend([4, 0, 1, 1, 2, 3]);
        assert_eq!(fs::read(&path).unwrap(), expected.bytes, "big-endian {big}");
    }
}

#[test]
fn ct_is_rounded_half_to_even_and_saturated() {
    let image = File::floats([0.5, 1.5, -2.5, 40_000., -40_000., 7.]).read(Modality::Ct).unwrap();
    assert_eq!((image.raw, image.exponent), (vec![32767, -32768, 7, 0, 2, -2], 0));
    let mut file = File::shorts([0, 1, 2, 3, 4, 5]);
    file.f32(112, 0.5);
    file.f32(116, -1024.);
    assert_eq!(file.read(Modality::Ct).unwrap().raw, [-1022, -1022, -1022, -1024, -1024, -1023]);
    // A slope of 0 or NaN means no rescale, whatever the intercept.
    for slope in [0., f32::NAN] {
        file.f32(112, slope);
        assert_eq!(file.read(Modality::Ct).unwrap().raw, [3, 4, 5, 0, 1, 2]);
    }
}

#[test]
fn mr_of_whole_numbers_is_taken_as_it_is_and_else_scaled_by_one_power_of_two() {
    let whole = File::floats([0., 1., -300., 32767., 4., 5.]).read(Modality::Mr).unwrap();
    assert_eq!((whole.raw, whole.exponent), (vec![32767, 4, 5, 0, 1, -300], 0));

    let fine = File::floats([0., 0.25, 1., -0.5, 0., 0.75]).read(Modality::Mr).unwrap();
    assert_eq!((fine.raw, fine.exponent), (vec![-8192, 0, 12288, 0, 4096, 16384], 14));

    let large = File::floats([0., 65535., 3., 2., 1., 6.]).read(Modality::Mr).unwrap();
    // 32767.5 would not fit: the power is the one below.
    assert_eq!((large.exponent, large.raw[4]), (-2, 16384));

    for largest in [f32::MIN_POSITIVE, 1e-45, 1e-9, 3.3e-3, 32767.5, 65534., 1e20, f32::MAX] {
        let file = File::floats([0., largest / 3., largest, 0.5f32.min(largest), -largest, 0.]);
        let image = file.read(Modality::Mr).unwrap();
        let magnitude = f64::from(largest) * 2f64.powi(image.exponent);
        assert!(magnitude > 16383. && magnitude <= 32767., "{largest}: {magnitude}");
        assert_eq!(f64::from(image.raw.iter().copied().max().unwrap()), magnitude.round_ties_even());
    }
}

#[test]
fn qform_and_bare_spacing_follow_nibabel() {
    let mut file = File::shorts([0, 1, 2, 3, 4, 5]);
    file.i16(254, 0);
    // nibabel 5: LAS, origin in the middle.
    let affine = file.read(Modality::Ct).unwrap().geometry.affine();
    assert_eq!(affine, [[-1., 0., 0., 1.], [0., 2., 0., -1.], [0., 0., 3., 0.]]);

    // A quarter turn about z and qfac -1: i runs to anterior, j to the left, k to inferior.
    file.i16(252, 1);
    file.f32(76, -1.);
    file.f32(264, std::f32::consts::FRAC_1_SQRT_2);
    file.f32(268, 7.);
    let geometry = file.read(Modality::Ct).unwrap().geometry;
    let expected = [[0., -2., 0., 7.], [1., 0., 0., 0.], [0., 0., -3., 0.]];
    for (found, expected) in geometry.affine().iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() < 1e-6, "{:?}", geometry.affine());
    }
    assert_eq!((geometry.codes().as_str(), geometry.shape()), ("ALI", [1, 3, 2]));

    file.f32(260, 0.9);
    assert!(matches!(file.fault(), Fault::Quaternion { .. }));
}

/// A change to a good file, and what must be said about it.
type Case = (&'static str, fn(&mut File), &'static str);

#[test]
fn every_bad_field_is_refused_with_its_value() {
    let cases: [Case; 25] = [
        ("short", |f| f.bytes.truncate(100), "100 bytes: a NIfTI-1 file has at least 348"),
        ("magic", |f| f.bytes[344] = b'x', "magic \"x+1\\x00\""),
        ("header size", |f| f.i32(0, 349), "header size 349"),
        ("pair", |f| f.bytes[345] = b'i', ".hdr/.img pair"),
        ("nifti2", |f| f.i32(0, 540), "NIfTI-2"),
        ("no dimensions", |f| f.i16(40, 0), "0 dimensions: expected 2 to 7"),
        ("one dimension", |f| f.i16(40, 1), "1 dimensions: expected 2 to 7"),
        ("zero size", |f| f.i16(44, 0), "dim[2] is 0"),
        ("negative size", |f| f.i16(46, -5), "dim[3] is -5"),
        (
            "frames",
            |f| {
                f.i16(40, 4);
                f.i16(48, 2)
            },
            "shape [3, 2, 1, 2]: expected one 3D volume",
        ),
        ("no type", |f| f.i16(70, 3), "data type 3 (unknown)"),
        ("rgb", |f| f.i16(70, 128), "data type 128 (Rgb24)"),
        ("complex", |f| f.i16(70, 32), "data type 32 (Complex64)"),
        ("offset", |f| f.f32(108, 100.), "vox_offset 100"),
        ("offset NaN", |f| f.f32(108, f32::NAN), "vox_offset NaN"),
        ("offset far", |f| f.f32(108, 1e9), "0 bytes of voxels"),
        ("truncated", |f| f.bytes.truncate(360), "8 bytes of voxels: a volume of [3, 2, 1] needs 12"),
        ("larger than the file", |f| f.i16(46, 32767), "needs 393204"),
        (
            "intercept",
            |f| {
                f.f32(112, 1.);
                f.f32(116, f32::INFINITY)
            },
            "scl_inter inf",
        ),
        ("zero spacing", |f| f.f32(80, 0.), "spacing pixdim[1] is 0 mm"),
        ("negative spacing", |f| f.f32(84, -2.), "spacing pixdim[2] is -2 mm"),
        ("spacing NaN", |f| f.f32(88, f32::NAN), "spacing pixdim[3] is NaN mm"),
        ("singular", |f| f.f32(320, 0.), "is singular or not finite"),
        (
            "parallel",
            |f| {
                f.f32(280, 0.);
                f.f32(296, 1.)
            },
            "is singular or not finite",
        ),
        ("affine NaN", |f| f.f32(292, f32::NAN), "is singular or not finite"),
    ];
    for (name, change, expected) in cases {
        let mut file = File::shorts([0, 1, 2, 3, 4, 5]);
        change(&mut file);
        let message = file.read(Modality::Ct).unwrap_err().to_string();
        assert!(message.contains("file.nii: ") && message.contains(expected), "{name}: {message}");
    }
    assert!(File::shorts([0; 6]).read(Modality::Ct).is_ok());
}

#[test]
fn voxels_that_are_no_numbers_are_refused_where_they_are() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let file = File::floats([0., 0., 0., 0., value, 0.]);
        for modality in Modality::ALL {
            let fault = file.read(modality).unwrap_err().fault;
            assert!(matches!(fault, Fault::NotFinite { voxel: [1, 1, 0], .. }), "{fault}");
        }
    }
}

#[test]
fn a_missing_file_and_a_broken_gzip_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing.nii.gz");
    let error = read_image(&path, Modality::Ct).unwrap_err();
    assert!(matches!(error.fault, Fault::Io { kind: std::io::ErrorKind::NotFound, .. }));
    assert!(error.to_string().contains("missing.nii.gz"));

    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    std::io::Write::write_all(&mut encoder, &File::shorts([1, 2, 3, 4, 5, 6]).bytes).unwrap();
    let good = encoder.finish().unwrap();
    fs::write(&path, &good).unwrap();
    assert!(read_image(&path, Modality::Ct).is_ok());
    for length in [2, 10, good.len() / 2, good.len() - 1] {
        fs::write(&path, &good[..length]).unwrap();
        assert!(read_image(&path, Modality::Ct).is_err(), "{length} of {} bytes", good.len());
    }
    // One bit of the checksum: every voxel is there, and still wrong.
    let mut bad = good.clone();
    bad[good.len() - 6] ^= 1;
    fs::write(&path, &bad).unwrap();
    assert!(matches!(read_image(&path, Modality::Ct).unwrap_err().fault, Fault::Io { .. }));
}

#[test]
fn labels_outside_the_table_are_refused() {
    let identity = LabelTable::identity(&LabelMap::abdomen());
    let read = |file: &File, table: &LabelTable| {
        let (_folder, path) = file.save();
        read_labels(path, table)
    };
    assert_eq!(read(&File::shorts([0, 1, 2, 3, 4, 0]), &identity).unwrap().classes, [3, 4, 0, 0, 1, 2]);
    for (voxels, wrong) in
        [([0., 1., 5., 0., 0., 0.], 5.), ([0., 1., 1.5, 0., 0., 0.], 1.5), ([0., 1., -1., 0., 0., 0.], -1.)]
    {
        let error = read(&File::floats(voxels), &identity).unwrap_err();
        let expected = "one of 0, 1, 2, 3, 4".to_string();
        assert_eq!(error.fault, Fault::Label { voxel: [2, 0, 0], found: vec![(wrong, 1)], expected });
    }
    let table = LabelTable::new([(5, 1)], Unlisted::Background);
    assert_eq!(read(&File::shorts([0, 5, 104, 0, 0, 0]), &table).unwrap().classes, [0, 0, 0, 0, 1, 0]);
    assert!(read(&File::shorts([0, -5, 0, 0, 0, 0]), &table).is_err());
}

#[test]
fn a_wrong_number_of_voxels_is_refused_and_writes_nothing() {
    let geometry = File::shorts([0; 6]).read(Modality::Ct).unwrap().geometry;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.nii");
    let error = write_labels(&path, &geometry, &[0; 5]).unwrap_err();
    assert_eq!(error, VolumeError::new(&path, Fault::Length { found: 5, expected: [1, 2, 3] }));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
