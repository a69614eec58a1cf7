//! Cases brought to the model's grid, kept in files, so that the next training reads them instead of unpacking and
//! resampling the scans again.
//!
//! A file is named after everything that decides its contents: the bytes of image and label map, the description of the
//! data set, the model's grid, intensity rule and classes, and the version of this program. Its digest is checked once, and
//! then it is mapped, so that data sets need not fit in memory. A file that is damaged, cut short or foreign fails its digest,
//! is made again and replaced.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use contract::ModelSpec;
use sha2::{Digest, Sha256};
use volume::{Geometry, VolumeError, atomic, dataset};

use super::{
    Case,
    values::{self, Values},
};

/// Of this layout; another layout is another name.
const MAGIC: &[u8; 8] = b"GANTRYC1";
/// Magic, digest of what follows, three dimensions, twelve numbers of the affine.
const HEAD: usize = 8 + 32 + 3 * 8 + 12 * 8;

/// A folder of prepared cases.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cache in `folder`, which is made if need be.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.into() })
    }

    /// File of a case.
    ///
    /// # Errors
    /// If image, label map or description cannot be read.
    pub fn path(&self, folder: &Path, case: &dataset::Case, spec: &ModelSpec) -> Result<PathBuf, VolumeError> {
        let mut hash = Sha256::new();
        hash.update(format!("{} {:?} {:?} {:?}", env!("CARGO_PKG_VERSION"), spec.grid, spec.intensity, spec.labels));
        let description = folder.join(dataset::DESCRIPTION);
        for path in [Some(&description), Some(&case.image), case.labels.as_ref()].into_iter().flatten() {
            let bytes = fs::read(path).map_err(|error| VolumeError::new(path, error))?;
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(&bytes);
        }
        Ok(self.folder.join(format!("{}.case", hex(&hash.finalize()))))
    }

    /// The case in a file, if it is there and sound. Its grid is canonical, whatever the scan's file has.
    pub fn read(path: &Path, case: &dataset::Case, spec: &ModelSpec, modality: contract::Modality) -> Option<Case> {
        let bytes = values::map(path).ok()?;
        let (head, body) = bytes.split_at_checked(HEAD)?;
        if head[..8] != *MAGIC || head[8..40] != digest(&bytes[40..]) {
            return None;
        }
        let number = |index: usize| head[40 + 8 * index..][..8].try_into().expect("eight bytes");
        let dims = [0, 1, 2].map(|axis| u64::from_le_bytes(number(axis)) as usize);
        let affine = [0, 1, 2].map(|row| [0, 1, 2, 3].map(|column| f64::from_le_bytes(number(3 + 4 * row + column))));
        let geometry = Geometry::new(dims, affine).ok()?;
        let (voxels, depth) = (geometry.voxels(), dims[2]);
        let pixels = depth * spec.grid.height * spec.grid.width;
        if body.len() != 3 * voxels + 2 * pixels + depth {
            return None;
        }
        let labels = HEAD + 2 * voxels;
        let codes = labels + voxels;
        let model_labels = codes + pixels;
        let usable = model_labels + pixels;
        Some(Case {
            name: case.name.clone(),
            patient: case.patient.clone(),
            path: case.image.clone(),
            modality,
            geometry,
            raw: Values::in_file(&bytes, HEAD, voxels),
            labels: Values::in_file(&bytes, labels, voxels),
            codes: Values::in_file(&bytes, codes, pixels),
            model_labels: Values::in_file(&bytes, model_labels, pixels),
            usable: bytes[usable..].iter().map(|&usable| usable != 0).collect(),
        })
    }

    /// Keeps a case; answers whether it was. One whose pixel sizes a canonical grid would round is not, so that a case
    /// from the cache is in all respects the one from the scan.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(path: &Path, case: &Case) -> io::Result<bool> {
        let [depth, height, width] = case.geometry.shape();
        let (dims, affine) = ([width, height, depth], case.geometry.canonical_affine());
        if !Geometry::new(dims, affine).is_ok_and(|geometry| geometry.spacing_mm() == case.spacing_mm()) {
            return Ok(false);
        }
        let mut rest: Vec<u8> = dims.iter().flat_map(|&count| (count as u64).to_le_bytes()).collect();
        rest.extend(affine.iter().flatten().flat_map(|value| value.to_le_bytes()));
        rest.extend(case.raw.iter().flat_map(|value| value.to_le_bytes()));
        rest.extend(&*case.labels);
        rest.extend(case.codes.iter().map(|&code| code as u8));
        rest.extend(&*case.model_labels);
        rest.extend(case.usable.iter().map(|&usable| u8::from(usable)));
        atomic::write_bytes(path, &[MAGIC.as_slice(), &digest(&rest), &rest].concat())?;
        Ok(true)
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use contract::Modality;
    use volume::{DatasetWriter, Split};

    use super::*;
    use crate::data::{OnBad, Part, load, load_cached, tests::spec_of};

    fn data(folder: &Path, shift: i16) {
        let mut writer = DatasetWriter::create(folder, Modality::Ct, &contract::LabelMap::abdomen()).unwrap();
        let geometry = Geometry::from_codes("LPS", [12, 10, 3], [2.3, 1.7, 5.1]).unwrap();
        let raw: Vec<i16> = (0..360).map(|index| (index % 61) as i16 * 5 - 160 + shift).collect();
        let labels: Vec<u8> = (0..360).map(|index| (index / 30 % 5) as u8).collect();
        writer.add(Split::Train, "one", &geometry, &raw, &labels).unwrap();
        writer.finish().unwrap();
    }

    fn same(a: &Case, b: &Case) {
        assert_eq!((&a.name, &a.patient, &a.path, a.modality), (&b.name, &b.patient, &b.path, b.modality));
        assert_eq!((&a.raw, &a.labels, &a.codes), (&b.raw, &b.labels, &b.codes));
        assert_eq!((&a.model_labels, &a.usable), (&b.model_labels, &b.usable));
        assert_eq!((a.geometry.plane(), a.spacing_mm()), (b.geometry.plane(), b.spacing_mm()));
    }

    #[test]
    fn a_cached_case_is_the_loaded_one_and_damage_is_mended() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("data");
        data(&folder, 0);
        let (spec, cache) = (spec_of(1, 16, 16, 2.), Cache::new(&root.path().join("cache")).unwrap());
        let plain = load(&folder, Modality::Ct, Part::Train, &spec).unwrap();
        let cached = |spec: &ModelSpec| {
            load_cached(&folder, Modality::Ct, Part::Train, spec, &mut OnBad::Stop, Some(&cache)).unwrap()
        };
        let files =
            || -> Vec<PathBuf> { fs::read_dir(&cache.folder).unwrap().map(|file| file.unwrap().path()).collect() };
        same(&cached(&spec)[0], &plain[0]);
        assert!(matches!(cached(&spec)[0].codes, Values::Mapped { .. }));
        let file = files().remove(0);
        let sound = fs::read(&file).unwrap();
        same(&cached(&spec)[0], &plain[0]);
        // One flipped bit anywhere, too short, too long, empty: made again, the same.
        let flipped = |at: usize| [&sound[..at], &[sound[at] ^ 16], &sound[at + 1..]].concat();
        let long = [&sound[..], b"more"].concat();
        for bad in [flipped(3), flipped(20), flipped(60), flipped(500), sound[..200].to_vec(), long, vec![]] {
            fs::write(&file, &bad).unwrap();
            same(&cached(&spec)[0], &plain[0]);
            assert_eq!((fs::read(&file).unwrap() == sound, files().len()), (true, 1));
        }
        // What is read from a sound file is what it says: nothing was computed.
        let marked = {
            let mut rest = sound[40..].to_vec();
            *rest.last_mut().unwrap() = 0;
            [MAGIC.as_slice(), &digest(&rest), &rest].concat()
        };
        fs::write(&file, marked).unwrap();
        assert_eq!(cached(&spec)[0].usable, [true, true, false]);
        // Another grid and another image have files of their own.
        cached(&spec_of(1, 16, 16, 3.));
        assert_eq!(files().len(), 2);
        fs::remove_dir_all(&folder).unwrap();
        data(&folder, 7);
        assert_ne!(cached(&spec)[0].raw, plain[0].raw);
        assert_eq!(files().len(), 3);
    }
}
