//! Files there and back: every orientation against world coordinates worked out here from the file's own bytes.

use std::{fs, path::Path};

use contract::{LabelMap, Modality};
use volume::{Geometry, LabelTable, read_image, read_labels, write_image, write_labels};

/// Canonical `[z, y, x]`, all different.
const SHAPE: [usize; 3] = [4, 3, 2];
/// Canonical x, y, z.
const SPACING_MM: [f64; 3] = [0.75, 1.5, 2.5];

/// The 48 orientations.
fn orientations() -> Vec<String> {
    let mut all = Vec::new();
    for axes in ["RAS", "RSA", "ARS", "ASR", "SRA", "SAR"] {
        for signs in 0..8 {
            let opposite = |code| ['L', 'P', 'I']["RAS".find(code).unwrap()];
            let code = |(axis, code)| if signs >> axis & 1 == 1 { opposite(code) } else { code };
            all.push(axes.chars().enumerate().map(code).collect());
        }
    }
    all
}

/// Canonical axis of an orientation letter.
fn axis(code: char) -> usize {
    "RLAPSI".find(code).unwrap() / 2
}

fn geometry(codes: &str) -> Geometry {
    let stored: Vec<usize> = codes.chars().map(axis).collect();
    let dims = [0, 1, 2].map(|a| SHAPE[2 - stored[a]]);
    let spacing_mm = [0, 1, 2].map(|a| SPACING_MM[stored[a]]);
    Geometry::from_codes(codes, dims, spacing_mm).unwrap()
}

fn f32_at(bytes: &[u8], at: usize) -> f64 {
    f64::from(f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()))
}

/// RAS+ mm of a stored voxel, by the sform in the bytes.
fn world(bytes: &[u8], voxel: [usize; 3]) -> [f64; 3] {
    [280, 296, 312].map(|row| {
        let linear: f64 = (0..3).map(|a| f32_at(bytes, row + 4 * a) * voxel[a] as f64).sum();
        linear + f32_at(bytes, row + 12)
    })
}

/// Calls `check` with every stored voxel of a little-endian file and the canonical index of its place in the patient.
fn for_each_voxel(path: &Path, mut check: impl FnMut(usize, usize)) {
    let bytes = fs::read(path).unwrap();
    let dims = [42, 44, 46].map(|at| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]])));
    let mut index = 0;
    for k in 0..dims[2] {
        for j in 0..dims[1] {
            for i in 0..dims[0] {
                let [r, a, s] = world(&bytes, [i, j, k]);
                // The origin is the middle of the volume; canonical x grows to the left, y to posterior.
                let place = |axis: usize, mm: f64| {
                    (mm / SPACING_MM[axis] + (SHAPE[2 - axis] as f64 - 1.) / 2.).round() as usize
                };
                let (x, y, z) = (place(0, -r), place(1, -a), place(2, s));
                check(index, (z * SHAPE[1] + y) * SHAPE[2] + x);
                index += 1;
            }
        }
    }
}

#[test]
fn all_48_orientations_go_there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let (path, label_path) = (folder.path().join("image.nii"), folder.path().join("labels.nii"));
    let raw: Vec<i16> = (0..24).map(|value| value * 100 - 1000).collect();
    let classes: Vec<u8> = (0..24).map(|value| value % 5).collect();
    let all = orientations();
    assert_eq!(all.len(), 48);
    for codes in &all {
        let geometry = geometry(codes);
        assert_eq!((&geometry.codes(), geometry.shape(), geometry.spacing_mm()), (codes, SHAPE, SPACING_MM));
        write_image(&path, &geometry, &raw).unwrap();
        let bytes = fs::read(&path).unwrap();
        for_each_voxel(&path, |stored, canonical| {
            let at = 352 + 2 * stored;
            assert_eq!(i16::from_le_bytes([bytes[at], bytes[at + 1]]), raw[canonical], "{codes} voxel {stored}");
        });
        let image = read_image(&path, Modality::Ct).unwrap();
        assert_eq!((&image.raw, &image.geometry), (&raw, &geometry), "{codes}");

        write_labels(&label_path, &image.geometry, &classes).unwrap();
        let bytes = fs::read(&label_path).unwrap();
        for_each_voxel(&label_path, |stored, canonical| assert_eq!(bytes[352 + stored], classes[canonical], "{codes}"));
        let labels = read_labels(&label_path, &LabelTable::identity(&LabelMap::abdomen())).unwrap();
        assert_eq!(labels.classes, classes, "{codes}");
        assert!(labels.geometry.matches(&geometry), "{codes}");
    }
}

#[test]
fn grids_match_across_orientations_and_only_where_they_lie_on_each_other() {
    let ras = geometry("RAS");
    for codes in orientations() {
        assert!(geometry(&codes).matches(&ras), "{codes}");
    }
    let mut affine = ras.affine();
    affine[0][3] += 0.05 * SPACING_MM[0];
    assert!(Geometry::new(ras.stored_dims(), affine).unwrap().matches(&ras));
    affine[0][3] += 0.2 * SPACING_MM[0];
    assert!(!Geometry::new(ras.stored_dims(), affine).unwrap().matches(&ras));
    let mut turned = ras.affine();
    turned[2][1] = 0.4;
    assert!(!Geometry::new(ras.stored_dims(), turned).unwrap().matches(&ras));
    assert!(!Geometry::from_codes("RAS", [2, 3, 5], SPACING_MM).unwrap().matches(&ras));
}

#[test]
fn an_oblique_volume_takes_its_closest_axes_and_keeps_its_spacing() {
    // 30 degrees about z, then x and y swapped.
    let (sin, cos) = 30f64.to_radians().sin_cos();
    let affine = [[-sin * 2., cos * 3., 0., 5.], [cos * 2., sin * 3., 0., -6.], [0., 0., -4., 7.]];
    let geometry = Geometry::new([3, 4, 5], affine).unwrap();
    assert_eq!(geometry.codes(), "ARI");
    assert_eq!(geometry.shape(), [5, 3, 4]);
    for (found, expected) in geometry.spacing_mm().into_iter().zip([3., 2., 4.]) {
        assert!((found - expected).abs() < 1e-6, "{found} mm, expected {expected}");
    }
    // Canonical voxel (0, 0, 0) is the stored voxel farthest to the right, anterior and inferior.
    let canonical = geometry.canonical_affine();
    let corner = affine.map(|row| 2. * row[0] + 3. * row[1] + 4. * row[2] + row[3]);
    for row in 0..3 {
        assert!((canonical[row][3] - corner[row]).abs() < 1e-5);
    }
}

#[test]
fn gzip_goes_by_the_name_and_gives_the_same_volume() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, packed) = (folder.path().join("a.nii"), folder.path().join("a.nii.gz"));
    let geometry = geometry("LPS");
    let raw: Vec<i16> = (0..24).collect();
    write_image(&plain, &geometry, &raw).unwrap();
    write_image(&packed, &geometry, &raw).unwrap();
    assert_eq!(fs::read(&packed).unwrap()[..2], [0x1f, 0x8b]);
    assert_eq!(read_image(&plain, Modality::Mr).unwrap(), read_image(&packed, Modality::Mr).unwrap());
    assert_eq!(fs::read(&plain).unwrap().len(), 352 + 48);
}
