//! `gantry-train` as a person uses it: synthetic patients, a training that is killed and resumed, scores; and what it says
//! when something is wrong.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    thread::sleep,
    time::Duration,
};

use host_train::{checkpoint, eval::Scores};
use tch::Device;

const CT: &str = "Dataset001_PhantomCT";
const MR: &str = "Dataset002_PhantomMR";

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gantry-train"));
    command.args(arguments);
    command
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder with a plain name")
}

fn succeed(arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = command(arguments).output().unwrap();
    assert!(status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// The message of a command that must fail with status 2.
fn fail(arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = command(arguments).output().unwrap();
    assert_eq!(status.code(), Some(2), "{arguments:?}");
    String::from_utf8(stderr).unwrap()
}

/// Few, coarse patients: made in seconds.
fn patients(folder: &Path) -> [PathBuf; 2] {
    succeed(&["phantom", "--out", text(folder), "--train", "3", "--test", "1", "--coarser", "4"]);
    [folder.join(CT), folder.join(MR)]
}

fn training<'a>(data: &'a [PathBuf; 2], out: &'a Path) -> Vec<&'a str> {
    let options =
        "--device cpu --size 32 --spacing 12 --width 4 --batch 2 --val 1 --steps 24 --val-every 3 --threads 1";
    let mut arguments = vec!["train", "--ct", text(&data[0]), "--mr", text(&data[1]), "--out", text(out)];
    arguments.extend(options.split(' '));
    arguments
}

/// The last checkpoint of a killed and resumed training is, bit for bit, that of one that was left alone.
#[test]
fn a_killed_training_goes_on_as_if_nothing_had_happened() {
    let folder = tempfile::tempdir().unwrap();
    let data = patients(&folder.path().join("data"));
    let [whole, killed] = ["whole", "killed"].map(|name| folder.path().join(name));
    succeed(&training(&data, &whole));

    let mut child = command(&training(&data, &killed)).spawn().unwrap();
    while !killed.join("state.safetensors").exists() && child.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let message = fail(&training(&data, &killed));
    assert!(message.contains("state.safetensors") && message.contains("--resume"), "{message}");
    succeed(&[&training(&data, &killed)[..], &["--resume"]].concat());

    let [(a, meta), (b, _)] =
        [&whole, &killed].map(|out| checkpoint::load(&out.join("last.safetensors"), Device::Cpu).unwrap());
    for ((name, a), (_, b)) in a.tensors().iter().zip(b.tensors()) {
        assert!(a.equal(&b), "{name}");
    }
    assert_eq!((meta.provenance.steps, meta.provenance.topology.as_str()), (24, "ummkd"));
    assert_eq!(meta.provenance.data, [CT, MR]);
    assert!(!meta.provenance.command.contains(text(folder.path())), "{}", meta.provenance.command);

    // What eval says of the network and of the label maps that it wrote is the same.
    let [best, labels, json] = ["whole/best.safetensors", "labels", "scores.json"].map(|name| folder.path().join(name));
    let sets = ["--ct", text(&data[0]), "--mr", text(&data[1])];
    let network = ["eval", "--checkpoint", text(&best), "--labels", text(&labels), "--json", text(&json)];
    let table = succeed(&[&network[..], &sets].concat());
    let files = succeed(&[&["eval", "--predictions", text(&labels)][..], &sets].concat());
    assert_eq!(table, files);
    let scores: Scores = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!((scores.cases.len(), scores.summary.len()), (2, 10));
}

/// Volumes of fewer slices than a patch are trained on and scored as well; the scores say how they came about.
#[test]
fn a_3d_network_is_trained_and_scored() {
    let folder = tempfile::tempdir().unwrap();
    let data = patients(&folder.path().join("data"));
    let [out, json] = ["run", "scores.json"].map(|name| folder.path().join(name));
    let mut arguments = training(&data, &out);
    arguments.extend(["--net", "compact3d", "--depth", "16", "--topology", "joint-msn"]);
    let position = arguments.iter().position(|&word| word == "24").unwrap();
    arguments[position] = "3";
    succeed(&arguments);
    let best = out.join("best.safetensors");
    let network = ["eval", "--checkpoint", text(&best), "--json", text(&json), "--ct", text(&data[0])];
    let report = |extra: &[&str]| -> serde_json::Value {
        succeed(&[&network[..], extra].concat());
        serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap()
    };
    let plain = report(&[]);
    assert_eq!((&plain["tiling"], &plain["largest_component"]), (&"gaussian".into(), &false.into()));
    let other = report(&["--tiling", "flush", "--largest-component"]);
    assert_eq!((&other["tiling"], &other["largest_component"]), (&"flush".into(), &true.into()));
    assert_eq!(plain["cases"].as_array().unwrap().len(), 1);
}

/// Networks that share a part are written one by one and scored like any other.
#[test]
fn a_network_per_modality_is_trained_and_scored() {
    let folder = tempfile::tempdir().unwrap();
    let data = patients(&folder.path().join("data"));
    let [out, json] = ["run", "scores.json"].map(|name| folder.path().join(name));
    let mut arguments = training(&data, &out);
    let position = arguments.iter().position(|&word| word == "24").unwrap();
    arguments[position] = "3";
    succeed(&[&arguments[..], &["--topology", "y-shape", "--norm", "group", "--norm-sharing", "shared"]].concat());
    let [ct, mr] = ["best-ct.safetensors", "best-mr.safetensors"].map(|name| out.join(name));
    let score = |checkpoint: &Path, data: &Path, set: &str| {
        let words = ["eval", "--checkpoint", text(checkpoint), "--json", text(&json), "--edge-slices-background"];
        succeed(&[&words[..], &[set, text(data)]].concat());
        serde_json::from_slice::<serde_json::Value>(&std::fs::read(&json).unwrap()).unwrap()
    };
    for (checkpoint, data, set) in [(&ct, &data[0], "--ct"), (&mr, &data[1], "--mr")] {
        let report = score(checkpoint, data, set);
        assert_eq!(report["edge_slices_background"], true);
        assert_eq!(report["cases"].as_array().unwrap().len(), 1);
    }
    let message = fail(&["eval", "--checkpoint", text(&ct), "--mr", text(&data[1])]);
    assert!(message.contains("best-ct.safetensors") && message.contains("expected one that knows mr"), "{message}");
}

#[test]
fn what_is_wrong_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let data = patients(&folder.path().join("data"));
    let out = folder.path().join("out");
    let fine = training(&data, &out);
    let with = |extra: &[&'static str]| [&fine[..], extra].concat();
    let swapped = ["train", "--ct", text(&data[1]), "--mr", text(&data[0]), "--out", text(&out)];
    let nothing = folder.path().join("nothing");
    let missing = ["train", "--ct", text(&nothing), "--mr", text(&data[1]), "--out", text(&out)];
    let replaced = |option: &str, value: &'static str| {
        let mut arguments = fine.clone();
        let position = arguments.iter().position(|&word| word == option).unwrap();
        arguments[position + 1] = value;
        arguments
    };
    let cases = [
        (swapped.to_vec(), "dataset.json"),
        (missing.to_vec(), "nothing"),
        (replaced("--val", "3"), "3 training cases, expected more than the 3"),
        (replaced("--size", "100"), "'100': expected a multiple of 16"),
        (replaced("--spacing", "-1"), "spacing"),
        (with(&["--resume"]), "expected the state of the training to resume"),
        (with(&["--lr", "NaN"]), "--lr NaN: expected a positive number"),
        (with(&["--kd-weight", "-1"]), "kd-weight"),
        (with(&["--depth", "8"]), "--depth 8: for 3D networks"),
        (with(&["--net", "compact3d", "--depth", "12"]), "--depth 12: expected a multiple of 8"),
        (with(&["--net", "unet3d", "--slices", "3"]), "--slices 3: for 2D networks"),
        (with(&["--channel-groups", "4"]), "--channel-groups 4: for --norm group"),
        (
            with(&["--norm", "group", "--channel-groups", "3"]),
            "'enc1a' has 4 channels, expected a multiple of the 3 groups",
        ),
        (with(&["--topology", "joint", "--norm-sharing", "own"]), "that is --topology joint-msn"),
        (with(&["--topology", "joint-msn", "--norm-sharing", "shared"]), "that is --topology joint"),
        (with(&["--topology", "individual", "--norm-sharing", "own"]), "individual has no layers to share"),
        (with(&["--quirk", "hollow-deconv"]), "--quirk hollow-deconv: changes nothing about compact-4"),
        (with(&["--quirk", "joint-decay"]), "--quirk joint-decay: for --topology joint, not ummkd"),
        (with(&["--net", "dilated2d", "--quirk", "transposed"]), "transposed-phase-shift"),
        (with(&["--slices", "2"]), "--slices 2: expected an odd number"),
        (with(&["--amp", "bf16"]), "--amp off"),
    ];
    for (arguments, words) in cases {
        let message = fail(&arguments);
        assert!(message.contains(words), "'{message}' should contain '{words}'");
        assert!(!out.exists(), "{arguments:?}");
    }
    let checkpoint = folder.path().join("none.safetensors");
    let message = fail(&["eval", "--checkpoint", text(&checkpoint), "--ct", text(&data[0])]);
    assert!(message.contains("none.safetensors"), "{message}");
}

#[test]
fn help_explains_every_option() {
    for (sub, words) in [("train", "--kd-absent"), ("eval", "--predictions"), ("phantom", "--seed")] {
        let help = succeed(&[sub, "--help"]);
        assert!(help.contains("Example") && help.contains(words), "{help}");
    }
}

/// The cardiac task from phantoms to checkpoint; data of the other task is refused by name.
#[test]
fn hearts_are_made_and_trained_on_and_are_no_abdomens() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (folder.path().join("data"), folder.path().join("out"));
    let words = "--anatomy heart --train 2 --test 0 --coarser 6";
    succeed(&["phantom", "--out", text(&data)].into_iter().chain(words.split(' ')).collect::<Vec<_>>());
    let data = ["Dataset003_PhantomHeartCT", "Dataset004_PhantomHeartMR"].map(|name| data.join(name));
    let mut arguments = training(&data, &out);
    let said = fail(&arguments);
    assert!(said.contains("dataset.json") && said.contains("label 'ascending aorta'"), "{said}");
    assert!(said.contains("expected one of background, liver") && said.contains("another task"), "{said}");
    arguments.extend(["--task", "heart"]);
    let steps = arguments.iter().position(|word| *word == "24").unwrap();
    arguments[steps] = "2";
    succeed(&arguments);
    let (_, meta) = checkpoint::load(&out.join("best.safetensors"), Device::Cpu).unwrap();
    assert_eq!(meta.spec.labels, contract::LabelMap::heart());
}

/// The loader alone, strengths from a file, and a mirror where nothing has sides.
#[test]
fn loaders_are_timed_and_augmentation_is_set_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = patients(&folder.path().join("data"));
    let (out, strengths) = (folder.path().join("out"), folder.path().join("augment.toml"));
    std::fs::write(&strengths, "noise = 0.01\nelastic = 0.0\n").unwrap();
    let mut arguments = training(&data, &out);
    let cache = folder.path().join("cache");
    arguments.extend(["--workers", "3", "--augment", text(&strengths), "--cache", text(&cache)]);
    let told = succeed(&[&arguments[..], &["--loader-only"]].concat());
    assert!(told.starts_with("loader: ") && told.contains("samples/s (96 samples"), "{told}");
    assert!(!out.exists());
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 6, "three patients of each modality");
    succeed(&arguments);
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 6, "all found again");
    let metrics = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    assert!(metrics.contains("\"wait_ms\":") && metrics.contains("\"loader_samples_per_s\":"), "{metrics}");
    let said = fail(&[&arguments[..], &["--mirror"]].concat());
    assert!(said.contains("a mirrored right kidney would be taught as a left kidney"), "{said}");
    std::fs::write(&strengths, "noise = 7\n").unwrap();
    let said = fail(&arguments);
    assert!(said.contains("augment.toml: noise = 7: expected 0 (off) to 1"), "{said}");
}
