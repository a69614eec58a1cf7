//! Where each public data set keeps its scans and labels.
//!
//! Sources: the challenge pages' own descriptions of their archives, and public scripts that read them. Every function
//! takes the folder that was unpacked, looks a level or two into it, and lists scans without opening any.

use std::{
    fs,
    path::{Path, PathBuf},
};

use contract::Modality;
use volume::{Case, Fault, Listing, VolumeError};

use super::{
    ImportError,
    found::{Found, Pixels, Truth, first_folder, names, stem},
};

/// MM-WHS 2017: `ct_train_1001_image.nii.gz` beside `ct_train_1001_label.nii.gz`, `mr` likewise, in one folder or in one
/// per archive (`ct_train1`, `ct_train2`, `mr_train`). The test archives have no labels.
pub fn mm_whs(folder: &Path) -> Result<Vec<Found>, ImportError> {
    let mut found = vec![];
    let inside = names(folder)?.into_iter().map(|name| folder.join(name)).filter(|path| path.is_dir());
    for place in [folder.to_path_buf()].into_iter().chain(inside) {
        for file in names(&place)? {
            let Some((name, ending)) = stem(&file) else { continue };
            let Some(scan) = name.strip_suffix("_image") else { continue };
            let Some((modality, number)) = scan.split_once("_train_") else { continue };
            let (Ok(modality), Ok(id)) = (modality.parse(), number.parse()) else { continue };
            found.push(Found {
                name: scan.to_string(),
                patient: scan.to_string(),
                id: Some(id),
                modality,
                image: Pixels::Nifti(place.join(&file)),
                truth: Truth::Nifti(place.join(format!("{scan}_label{ending}"))),
                test: false,
            });
        }
    }
    Ok(found)
}

/// CHAOS: `Train_Sets/MR/<id>/{T1DUAL,T2SPIR}` and `Train_Sets/CT/<id>`, DICOM in `DICOM_anon` (T1 in `InPhase` and
/// `OutPhase` below it, which share their truth), PNG in `Ground`. Numbers of CT and of MRI are different people.
pub fn chaos(folder: &Path) -> Result<Vec<Found>, ImportError> {
    const MR: [(&str, &str, &str); 3] = [
        ("t1in", "T1DUAL", "DICOM_anon/InPhase"),
        ("t1out", "T1DUAL", "DICOM_anon/OutPhase"),
        ("t2spir", "T2SPIR", "DICOM_anon"),
    ];
    let Some(sets) = first_folder(folder, &["Train_Sets", "CHAOS_Train_Sets/Train_Sets"])
        .or_else(|| (folder.join("MR").is_dir() || folder.join("CT").is_dir()).then(|| folder.to_path_buf()))
    else {
        return Ok(vec![]);
    };
    let mut found = vec![];
    for (modality, part) in [(Modality::Ct, "CT"), (Modality::Mr, "MR")] {
        for number in names(&sets.join(part))? {
            let Ok(id) = number.parse::<u32>() else { continue };
            let home = sets.join(part).join(&number);
            let patient = format!("chaos_{modality}_{id:02}");
            let mut push = |name: String, images: PathBuf, truth: PathBuf| {
                let (image, truth) = (Pixels::Dicom(images), Truth::Pngs(truth));
                found.push(Found { name, patient: patient.clone(), id: Some(id), modality, image, truth, test: false });
            };
            match modality {
                Modality::Ct => push(patient.clone(), home.join("DICOM_anon"), home.join("Ground")),
                Modality::Mr => {
                    for (name, sequence, images) in MR {
                        let images = home.join(sequence).join(images);
                        if images.is_dir() {
                            push(format!("{patient}_{name}"), images, home.join(sequence).join("Ground"));
                        }
                    }
                }
            }
        }
    }
    Ok(found)
}

/// BTCV, as Synapse hands it out: `RawData/Training/img/img0001.nii.gz`, `RawData/Training/label/label0001.nii.gz`. CT.
pub fn btcv(folder: &Path) -> Result<Vec<Found>, ImportError> {
    let inside = ["img", "Training/img", "RawData/Training/img", "Abdomen/RawData/Training/img"];
    let Some(images) = first_folder(folder, &inside) else {
        return Ok(vec![]);
    };
    let mut found = vec![];
    for file in names(&images)? {
        let Some((name, ending)) = stem(&file) else { continue };
        let Some(number) = name.strip_prefix("img") else { continue };
        let Ok(id) = number.parse() else { continue };
        let name = format!("btcv_{number}");
        found.push(Found {
            patient: name.clone(),
            name,
            id: Some(id),
            modality: Modality::Ct,
            image: Pixels::Nifti(images.join(&file)),
            truth: Truth::Nifti(images.with_file_name("label").join(format!("label{number}{ending}"))),
            test: false,
        });
    }
    Ok(found)
}

/// AMOS 2022: `imagesTr/amos_0001.nii.gz` with `labelsTr`, `imagesVa` with `labelsVa` (here: the test part), and `imagesTs`,
/// whose labels were kept back. Numbers up to 500 are CT, above that MRI.
pub fn amos22(folder: &Path) -> Result<Vec<Found>, ImportError> {
    const LAST_CT: u32 = 500;
    let home = first_folder(folder, &["amos22"]).unwrap_or_else(|| folder.to_path_buf());
    let mut found = vec![];
    for (part, test) in [("Tr", false), ("Va", true), ("Ts", true)] {
        let [images, labels] = ["images", "labels"].map(|kind| home.join(format!("{kind}{part}")));
        if test && !labels.is_dir() {
            continue;
        }
        for file in names(&images)? {
            let Some((name, _)) = stem(&file) else { continue };
            let Some(Ok(id)) = name.strip_prefix("amos_").map(str::parse) else { continue };
            found.push(Found {
                name: name.to_string(),
                patient: name.to_string(),
                id: Some(id),
                modality: if id <= LAST_CT { Modality::Ct } else { Modality::Mr },
                image: Pixels::Nifti(images.join(&file)),
                truth: Truth::Nifti(labels.join(&file)),
                test,
            });
        }
    }
    Ok(found)
}

/// TotalSegmentator v2: `s0001/ct.nii.gz` (`mri.nii.gz` in the MRI set) and `s0001/segmentations/<organ>.nii.gz`. `meta.csv`,
/// if it is there, says in its column `split` which subjects are for testing.
pub fn totalsegmentator(folder: &Path) -> Result<Vec<Found>, ImportError> {
    let held_back = held_back(&folder.join("meta.csv"))?;
    let mut found = vec![];
    for subject in names(folder)? {
        let Some(id) = subject.strip_prefix('s').and_then(|number| number.parse().ok()) else { continue };
        let home = folder.join(&subject);
        for (modality, file) in [(Modality::Ct, "ct.nii.gz"), (Modality::Mr, "mri.nii.gz")] {
            let image = home.join(file);
            if image.is_file() {
                found.push(Found {
                    name: subject.clone(),
                    patient: subject.clone(),
                    id: Some(id),
                    modality,
                    image: Pixels::Nifti(image),
                    truth: Truth::Masks(home.join("segmentations")),
                    test: held_back.contains(&subject),
                });
            }
        }
    }
    Ok(found)
}

/// Subjects whose column `split` is `test`. The file separates by semicolons.
fn held_back(path: &Path) -> Result<Vec<String>, ImportError> {
    if !path.is_file() {
        return Ok(vec![]);
    }
    let text = fs::read_to_string(path).map_err(|error| ImportError::io(path, error))?;
    let cells = |line: &str| -> Vec<String> {
        line.trim_start_matches('\u{feff}').split(';').map(|cell| cell.trim_matches('"').to_string()).collect()
    };
    let mut lines = text.lines();
    let columns = lines.next().map(cells).unwrap_or_default();
    let column = |name: &str| columns.iter().position(|column| column == name);
    let (Some(subject), Some(split)) = (column("image_id"), column("split")) else {
        let message = format!("columns {columns:?}: expected image_id and split among them, separated by semicolons");
        return Err(ImportError::Labels { path: path.into(), message });
    };
    let test = |line: &str| {
        let cells = cells(line);
        (cells.get(split)? == "test").then(|| cells.get(subject).cloned())?
    };
    Ok(lines.filter_map(test).collect())
}

/// A folder with `dataset.json`: nnU-Net's raw layout in either version, or a task of the Decathlon.
pub fn described(folder: &Path) -> Result<Vec<Found>, ImportError> {
    let listing = Listing::read(folder)?;
    let (modality, Listing { train, test, faulty, .. }) = (listing.modality(), &listing);
    let scan = |case: &Case, test: bool| {
        let labels = case.labels.clone()?;
        let (image, truth) = (Pixels::Nifti(case.image.clone()), Truth::Nifti(labels));
        let (name, patient) = (case.name.clone(), case.patient.clone());
        Some(Found { name, patient, id: None, modality, image, truth, test })
    };
    // Scans whose label map is missing are listed too: reading them says what is wrong.
    let bad = |error: &VolumeError| match &error.fault {
        Fault::NoLabels { image } => {
            let name = error.path.file_name()?.to_string_lossy();
            let name = stem(&name)?.0.to_string();
            let (pixels, truth) = (Pixels::Nifti(image.clone()), Truth::Nifti(error.path.clone()));
            Some(Found { patient: name.clone(), name, id: None, modality, image: pixels, truth, test: false })
        }
        _ => None,
    };
    let known =
        train.iter().filter_map(|case| scan(case, false)).chain(test.iter().filter_map(|case| scan(case, true)));
    Ok(known.chain(faulty.iter().filter_map(bad)).collect())
}
