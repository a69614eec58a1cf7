//! Images of real machines in every transfer syntax, against what other decoders say of their pixels. Skipped where the test
//! data are absent.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use dicom::{Fault, Image, open, stored};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Lossy JPEG of 12 bits.
const NOT_DECODED: [&str; 1] = ["1.2.840.10008.1.2.4.51"];

fn test_data() -> Option<PathBuf> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let root = env::var_os("GANTRY_TEST_DATA").map_or_else(default, PathBuf::from).join("dicom");
    if root.join("expected.json").is_file() {
        return Some(root);
    }
    println!("skipped: no test data in {}", root.display());
    None
}

#[test]
fn pixels_are_those_that_other_decoders_find() {
    let Some(root) = test_data() else { return };
    let all: Value = serde_json::from_slice(&fs::read(root.join("expected.json")).unwrap()).unwrap();
    let mut checked = 0;
    for (name, facts) in all["files"].as_object().unwrap() {
        let syntax = facts["transfer_syntax"].as_str().unwrap();
        let ours = ["CT", "MR"].contains(&facts["modality"].as_str().unwrap_or_default());
        if !ours || facts["pix_sha256"].is_null() {
            continue;
        }
        let object = open(&root.join(name)).unwrap();
        if NOT_DECODED.contains(&syntax) {
            assert!(matches!(stored(&object), Err(Fault::Unreadable(_))), "{name}");
            continue;
        }
        let pixels = stored(&object).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        let number = |key: &str| facts[key].as_f64().unwrap();
        assert_eq!(pixels.size.map(|side| side as f64), [number("cols"), number("rows")], "{name}");
        let bytes: Vec<u8> = match facts["pix_dtype"].as_str().unwrap() {
            "uint8" => pixels.values.iter().map(|&value| value as u8).collect(),
            "int16" | ">i2" => pixels.values.iter().flat_map(|&value| (value as i16).to_le_bytes()).collect(),
            "uint16" => pixels.values.iter().flat_map(|&value| (value as u16).to_le_bytes()).collect(),
            other => panic!("{name}: {other}"),
        };
        let (low, high) = (pixels.values.iter().min().unwrap(), pixels.values.iter().max().unwrap());
        assert_eq!([*low, *high].map(f64::from), [number("pix_min"), number("pix_max")], "{name}");
        let digest: String = Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, facts["pix_sha256"].as_str().unwrap(), "{name}");
        checked += 1;
    }
    assert!(checked > 30, "{checked} files");
}

#[test]
fn frames_of_an_enhanced_image_have_their_places() {
    let Some(root) = test_data() else { return };
    let single: Vec<Image> = ["IMG0001", "IMG0002", "IMG0003"]
        .map(|name| Image::open(&root.join(format!("seg/dcmqi/23x38x3/image/{name}.dcm"))).unwrap())
        .into();
    let several = Image::open(&root.join("seg/dcmqi/23x38x3/multiframe/mf.dcm")).unwrap();
    assert_eq!(several.frames.len(), 3);
    for image in &single {
        let place = image.frames[0].plane;
        let same = several.frames.iter().filter(|frame| frame.plane == place).count();
        assert_eq!(same, 1, "{place:?} in {:?}", several.frames.iter().map(|frame| frame.plane).collect::<Vec<_>>());
    }
}

#[test]
fn what_is_no_slice_is_refused_by_name() {
    let Some(root) = test_data() else { return };
    let refusal = |name: &str| Image::open(&root.join(name)).unwrap_err().to_string();
    assert!(refusal("seg/dcmqi/liver.dcm").contains("Segmentation Storage"), "{}", refusal("seg/dcmqi/liver.dcm"));
    let localizers = fs::read_dir(root.join("series/ct_philips_localizer")).unwrap();
    for path in
        localizers.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "dcm"))
    {
        let refusal = refusal(path.to_str().unwrap());
        assert!(refusal.contains("LOCALIZER"), "{refusal}");
    }
    for path in fs::read_dir(root.join("series/mr_dcmqa_compressed")).unwrap().map(|entry| entry.unwrap().path()) {
        if path.extension().is_some_and(|end| end == "dcm") {
            println!(
                "{}: {}",
                path.display(),
                Image::open(&path)
                    .map_or_else(|fault| fault.to_string(), |image| format!("{} frames", image.frames.len()))
            );
        }
    }
}

/// Files that break readers: each is read or refused, at once and without memory for what is not there.
#[test]
fn malformed_files_are_read_or_refused() {
    let Some(root) = test_data() else { return };
    let mut folders = vec![root.parent().unwrap().join("malformed/dicom")];
    let mut refused = vec![];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            if let Err(fault) = Image::open(&path) {
                assert!(!fault.to_string().is_empty());
                refused.push(path.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
    }
    assert!(files > 20, "{files} files");
    assert!(refused.iter().any(|name| name == "UN_sequence.dcm"), "it has no pixels: {refused:?}");
}
