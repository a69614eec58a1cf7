//! Files of results: their names, and label maps as NIfTI.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use contract::Modality;
use dicom::stack::Stack;
use dicom_object::DefaultDicomObject;

use crate::{
    Code,
    serve::{
        metrics::Outcome,
        refusal::Refusal,
        series::{Finished, Labelled},
        ticket::Origin,
    },
};

/// Characters of a name of a file.
const NAME: usize = 100;

/// Writes a DICOM object under the first free name, or over what is the same object.
pub fn dicom(object: &DefaultDicomObject, folder: &Path, stem: &str, end: &str) -> Result<PathBuf, Refusal> {
    make(folder)?;
    let instance = dicom::instance(object);
    let path = free(folder, stem, end, |old| dicom::open(old).is_ok_and(|old| dicom::instance(&old) == instance));
    dicom::write(object, &path).map_err(|error| output(&path, &error))?;
    Ok(path)
}

/// Writes the label map as a volume; where to.
///
/// # Errors
/// Besides [`Code::Output`]: slices that make no volume, or lack label maps, which a volume cannot say.
pub fn nifti(finished: &Finished, folder: &Path, stem: &str) -> Result<String, Refusal> {
    if finished.missing() > 0 {
        let words = format!("a NIfTI volume cannot say which: {} slices lack label maps", finished.missing());
        return Err(Refusal::new(Code::SeriesIncomplete, words));
    }
    make(folder)?;
    let uneven = |words: String| Refusal::new(Code::SeriesUneven, words);
    let (geometry, canonical) = match &finished.slices[0].ticket.origin {
        Origin::Nifti { geometry, .. } => {
            let mut slices: Vec<_> =
                finished.slices.iter().filter_map(|slice| Some((z(slice)?, &slice.runs))).collect();
            slices.sort_by_key(|(z, _)| *z);
            if slices.len() != geometry.shape()[0] {
                return Err(uneven(format!("{} of {} slices", slices.len(), geometry.shape()[0])));
            }
            let canonical = slices.iter().flat_map(|(_, runs)| runs.labels()).collect::<Vec<_>>();
            ((**geometry).clone(), canonical)
        }
        Origin::Dicom { .. } => {
            let place = |slice: &Labelled| match &slice.ticket.origin {
                Origin::Dicom { place, .. } => Some(*place),
                Origin::Nifti { .. } => None,
            };
            let planes: Vec<_> = finished.slices.iter().filter_map(place).collect();
            let stack = Stack::new(&planes).map_err(|fault| uneven(fault.to_string()))?;
            let geometry = stack.geometry(&planes).map_err(|fault| uneven(fault.to_string()))?;
            let stored = stack.order.iter().flat_map(|&index| finished.slices[index].runs.labels()).collect::<Vec<_>>();
            let canonical = geometry.to_canonical(&stored);
            (geometry, canonical)
        }
    };
    let stem = stem.trim_end_matches(".gz").trim_end_matches(".nii");
    let same = |old: &Path| {
        volume::read_image(old, Modality::Ct).is_ok_and(|old| {
            let values = old.raw.iter().map(|&value| u8::try_from(value).ok());
            old.geometry.matches(&geometry) && values.eq(canonical.iter().map(|&class| Some(class)))
        })
    };
    let flag = match (finished.cut, finished.count(Outcome::Stale)) {
        (true, _) => ".cut-short",
        (false, 1..) => ".stale",
        (false, 0) => "",
    };
    let path = free(folder, stem, &format!("{flag}.nii.gz"), same);
    volume::write_labels(&path, &geometry, &canonical).map_err(|error| Refusal::new(Code::Output, error))?;
    Ok(path.display().to_string())
}

fn z(slice: &Labelled) -> Option<usize> {
    match slice.ticket.origin {
        Origin::Nifti { z, .. } => Some(z),
        Origin::Dicom { .. } => None,
    }
}

/// The first path of `stem.end`, `stem-2.end` and so on under which there is nothing, or the same result: a series that goes
/// on after its end, or after a restart, must not replace what was written before.
pub fn free(folder: &Path, stem: &str, end: &str, same: impl Fn(&Path) -> bool) -> PathBuf {
    let name = |part: u32| match part {
        1 => folder.join(format!("{stem}{end}")),
        _ => folder.join(format!("{stem}-{part}{end}")),
    };
    let mut part = 1;
    while name(part).exists() && !same(&name(part)) {
        part += 1;
    }
    name(part)
}

/// Makes a folder and those above it.
pub fn make(folder: &Path) -> Result<(), Refusal> {
    fs::create_dir_all(folder).map_err(|error| output(folder, &error))
}

fn output(path: &Path, error: &io::Error) -> Refusal {
    Refusal::new(Code::Output, format!("{}: {error}", path.display()))
}

/// A name that is only that, whatever somebody put into a UID or a path.
pub fn file_name(text: &str) -> String {
    let name = PathBuf::from(text).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let safe = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' };
    let name: String = name.trim_start_matches('.').chars().map(safe).take(NAME).collect();
    if name.is_empty() { "unnamed".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_in_its_folder() {
        assert_eq!(file_name("1.2.840.113"), "1.2.840.113");
        assert_eq!(file_name("1.2#3"), "1.2_3");
        assert_eq!(file_name("../../etc/passwd"), "passwd");
        assert_eq!(file_name(".."), "unnamed");
        assert_eq!(file_name(".hidden"), "hidden");
        assert_eq!(file_name("/data/scan 1.nii.gz"), "scan_1.nii.gz");
        assert_eq!(file_name(&"9".repeat(300)).len(), 100);
    }

    #[test]
    fn what_was_written_before_stays_unless_it_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = |same: &str| {
            free(folder.path(), "a", ".x", |old| fs::read_to_string(old).unwrap() == same)
                .file_name()
                .unwrap()
                .to_owned()
        };
        assert_eq!(path("one"), "a.x");
        fs::write(folder.path().join("a.x"), "one").unwrap();
        assert_eq!([path("one"), path("two")], ["a.x", "a-2.x"]);
        fs::write(folder.path().join("a-2.x"), "two").unwrap();
        assert_eq!([path("one"), path("two"), path("three")], ["a.x", "a-2.x", "a-3.x"]);
    }
}
