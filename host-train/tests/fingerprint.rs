//! `gantry-train fingerprint` on synthetic patients, and a training with the options that it proposes.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

fn gantry(folder: &Path, words: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gantry-train"));
    let output = command.args(words.split(' ')).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_is_proposed_is_what_train_takes() {
    let folder = tempfile::tempdir().unwrap();
    gantry(folder.path(), "phantom --out . --train 2 --test 0 --coarser 6");
    let sets = "--ct Dataset001_PhantomCT --mr Dataset002_PhantomMR";
    let json: Value =
        serde_json::from_str(&gantry(folder.path(), &format!("fingerprint {sets} --side 48 --json"))).unwrap();
    for (modality, set) in ["ct", "mr"].into_iter().zip(json["data"].as_array().unwrap()) {
        assert_eq!((&set["modality"], &set["cases"]), (&modality.into(), &2.into()));
        assert!(set["classes"]["liver"]["percent"].as_f64().unwrap() > 0.5, "{set}");
    }
    // Soft organs, with contrast and noise, and with neighbouring fat and lung in pixels of this size.
    let window: Vec<i64> =
        json["proposal"]["ct_window_hu"].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect();
    assert!(window[0] < 60 && window[1] > 90, "{window:?}");

    let options = json["options"].as_str().unwrap();
    let text = gantry(folder.path(), &format!("fingerprint {sets} --side 48"));
    assert!(text.contains(&format!("options for train: {options}\n")), "{text}");
    let rest = "--device cpu --width 4 --batch 2 --val 0 --steps 1 --threads 1";
    gantry(folder.path(), &format!("train {sets} --out run {options} {rest}"));
    let settings: Value = serde_json::from_slice(&fs::read(folder.path().join("run/settings.json")).unwrap()).unwrap();
    let spec = &settings["spec"];
    assert_eq!(spec["intensity"]["ct"]["window"]["low"], window[0]);
    assert_eq!(spec["intensity"]["ct"]["window"]["high"], window[1]);
    assert_eq!(spec["intensity"]["mr"]["slice_percentile"]["low"], 50);
    assert_eq!(spec["grid"]["height"], json["proposal"]["size"][0]);
    assert_eq!(spec["grid"]["width"], json["proposal"]["size"][1]);
}
