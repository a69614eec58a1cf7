//! All three programs, one after the other, on tiny phantoms: the paper's 3D network, and hearts in 2D.

use std::{fs, path::Path, process::Command};

/// What `cargo xtask demo` or `chain` says; it has to succeed.
fn xtask(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask")).args(arguments).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    text
}

/// Dice of every organ and stage, and the page with the pictures.
fn assert_whole(out: &Path, organ: &str) {
    for stage in ["trained", "f32", "int8"] {
        let text = fs::read(out.join("labels").join(stage).with_extension("json")).unwrap();
        let scores: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let organs: Vec<&str> =
            scores["summary"].as_array().unwrap().iter().filter_map(|row| row["organ"].as_str()).collect();
        assert!(organs.contains(&organ) && organs.len() == 2 * 5, "{stage}: {organs:?}");
    }
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains(organ) && page.contains("data:image/png"), "{}", out.display());
}

#[test]
fn the_chain_carries_volumes_and_hearts_from_training_to_the_edge() {
    let programs = Path::new(env!("CARGO_BIN_EXE_xtask")).parent().unwrap();
    let gantry_train = programs.join("gantry-train");
    if !gantry_train.exists() {
        println!("skipped: no gantry-train beside xtask; `cargo xtask test` builds it");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let text = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let programs = programs.to_str().unwrap();
    let small = ["--device", "cpu", "--spacing", "12", "--batch", "2", "--steps", "2", "--val-every", "1"];

    for (anatomy, organ, network) in [
        ("abdomen", "liver", ["--net", "unet3d", "--size", "32", "--depth", "8", "--width", "2"].as_slice()),
        ("heart", "left atrium", &["--task", "heart", "--size", "32", "--width", "4"]),
    ] {
        let data = text(&format!("{anatomy}-data"));
        let made = ["phantom", "--anatomy", anatomy, "--train", "3", "--test", "1", "--coarser", "4", "--out", &data];
        assert!(Command::new(&gantry_train).args(made).output().unwrap().status.success());
        let of = |end: &str| {
            let mut sets = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path());
            sets.find(|path| path.to_str().unwrap().ends_with(end)).unwrap().to_str().unwrap().to_owned()
        };
        let (ct, mr, out) = (of("CT"), of("MR"), text(anatomy));
        let chain =
            ["chain", "--ct", &ct, "--mr", &mr, "--out", &out, "--programs", programs, "--bench-runs", "2", "--"];
        let said = xtask(&[&chain, network, &small].concat());
        assert!(said.contains("Dice on scans that the network has not seen"), "{said}");
        assert_whole(Path::new(&out), organ);
    }
}
