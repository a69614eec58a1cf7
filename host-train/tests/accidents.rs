//! `gantry-train train` when something goes wrong on the way: Ctrl-C, a full disk, losses that leave the numbers. What was
//! good stays, the message says what happened, and a resumed training is the one that nothing happened to.
#![cfg(unix)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::Duration,
};

const BINARY: &str = env!("CARGO_BIN_EXE_gantry-train");

fn run(arguments: &[String]) -> Output {
    Command::new(BINARY).args(arguments).output().unwrap()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(String::from).collect()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A training of `steps` on few, coarse patients.
fn training(folder: &Path, out: &Path, options: &str) -> Vec<String> {
    let data = folder.join("data");
    if !data.exists() {
        let phantom = format!("phantom --out {} --train 3 --test 1 --coarser 4", data.display());
        assert!(run(&words(&phantom)).status.success());
    }
    let sets = ["Dataset001_PhantomCT", "Dataset002_PhantomMR"].map(|name| data.join(name).display().to_string());
    words(&format!(
        "train --ct {} --mr {} --out {} --device cpu --size 32 --spacing 12 --width 4 --batch 2 --val 1 --threads 1 {options}",
        sets[0],
        sets[1],
        out.display()
    ))
}

/// The tensors of a folder, byte by byte; the command line in a checkpoint's metadata differs from folder to folder.
fn state(out: &Path) -> Vec<u8> {
    fs::read(out.join("state.safetensors")).unwrap()
}

fn files(out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fs::read_dir(out)
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap().success());
}

fn logged(out: &Path) -> usize {
    fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default().matches("\"kind\":\"step\"").count()
}

/// Starts a training and waits until its metrics hold another step.
fn start(arguments: &[String], out: &Path) -> Child {
    let before = logged(out);
    let mut child = Command::new(BINARY).args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while logged(out) <= before {
        assert!(child.try_wait().unwrap().is_none(), "the training ended before it could be stopped");
        sleep(Duration::from_millis(2));
    }
    child
}

/// Stopped between two validations, no step is lost, and the end is that of a training that was left alone.
#[test]
fn ctrl_c_finishes_the_step_and_the_training_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, cut] = ["whole", "cut"].map(|name| folder.path().join(name));
    let options = "--steps 100 --val-every 1000 --log-every 1";
    let arguments = training(folder.path(), &cut, options);
    for (name, status) in [("INT", 130), ("TERM", 143)] {
        let resume = if cut.join("state.safetensors").exists() { vec!["--resume".to_string()] } else { vec![] };
        let child = start(&[arguments.clone(), resume].concat(), &cut);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{}", stderr(&output));
        assert!(stderr(&output).contains("stopped after step"), "{}", stderr(&output));
        assert!(cut.join("last.safetensors").exists() && cut.join("report.html").exists());
        assert!(!cut.join("best.safetensors").exists(), "nothing was validated");
    }
    let resumed = run(&[arguments, vec!["--resume".into()]].concat());
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert!(run(&training(folder.path(), &whole, options)).status.success());
    assert!(state(&whole) == state(&cut));
    assert_eq!((logged(&whole), logged(&cut)), (100, 100));
}

/// No file may grow beyond a limit that metrics fit into and checkpoints do not: to the program, a disk that is full.
#[test]
fn a_full_disk_leaves_the_last_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, cut] = ["whole", "cut"].map(|name| folder.path().join(name));
    let options = "--steps 60 --val-every 3 --log-every 100";
    let arguments = training(folder.path(), &cut, options);
    let mut child = Command::new(BINARY).args(&arguments).stdout(Stdio::null()).spawn().unwrap();
    while !cut.join("state.safetensors").exists() {
        assert!(child.try_wait().unwrap().is_none());
        sleep(Duration::from_millis(2));
    }
    signal(&child, "INT");
    child.wait().unwrap();
    let before = files(&cut);
    // Blocks of 1024 bytes. An ignored SIGXFSZ turns into an error of the write, as on a full disk.
    let script = "trap '' XFSZ; ulimit -f 24; exec \"$0\" \"$@\"";
    let resumed = [arguments.clone(), vec!["--resume".into()]].concat();
    let output = Command::new("bash").args(["-c", script, BINARY]).args(&resumed).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let message = stderr(&output);
    assert!(message.contains(".safetensors: ") && message.contains("are whole"), "{message}");
    assert!(message.contains("--resume"), "{message}");
    let after = files(&cut);
    for name in ["state.safetensors", "last.safetensors", "best.safetensors"] {
        assert!(before[&cut.join(name)] == after[&cut.join(name)], "{name} changed");
    }
    assert!(after.keys().all(|path| path.extension().is_none_or(|ending| ending != "tmp")), "{:?}", after.keys());
    let output = run(&resumed);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(run(&training(folder.path(), &whole, options)).status.success());
    assert!(state(&whole) == state(&cut));
}

/// The step that did it, its batch by case and slice, and what is left.
#[test]
fn losses_that_leave_the_numbers_name_the_batch_and_keep_what_was_good() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    // The first step's losses are fine; its update is not.
    let absurd = "--steps 20 --lr 1e36 --topology joint";
    let failed = |options: &str| {
        let _ = fs::remove_dir_all(&out);
        let output = run(&training(folder.path(), &out, &format!("{absurd} {options}")));
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        stderr(&output)
    };
    for (options, noticed) in [("--val-every 1", 2), ("--val-every 100 --log-every 7", 7)] {
        let message = failed(options);
        assert!(message.contains("error: step 2: the loss or its gradient is not finite"), "{message}");
        assert!(message.contains(&format!("noticed at step {noticed}")), "{message}");
        assert!(message.contains("the batch held CT ") && message.contains("; MR "), "{message}");
        assert_eq!(message.matches(" slice ").count(), 4, "two slices of each modality: {message}");
        assert!(message.contains("try a lower --lr than"), "{message}");
        let last = out.join("last.safetensors");
        assert_eq!(message.contains("the checkpoints of step 1 are kept"), last.exists(), "{message}");
        assert_eq!(last.exists(), noticed == 2);
        if last.exists() {
            let (_, meta) = host_train::checkpoint::load(&last, tch::Device::Cpu).unwrap();
            assert_eq!(meta.provenance.steps, 1);
        }
    }
}

/// All kinds of distillation and a teacher, from the command line, into metrics and the page.
#[test]
fn distillation_is_chosen_on_the_command_line_and_seen_in_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    for kind in ["l2", "cross-entropy"] {
        let options = format!("--steps 4 --val-every 2 --kd {kind} --kd-warmup 2");
        let output = run(&training(folder.path(), &out(kind), &options));
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let differ = [state(&out("l2")), state(&out("cross-entropy"))];
    assert!(differ[0] != differ[1]);
    let teacher = format!(
        "--steps 4 --val-every 2 --log-every 1 --topology joint-msn --teacher {}",
        out("l2/best.safetensors").display()
    );
    let arguments = training(folder.path(), &out("taught"), &teacher);
    let output = run(&arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let metrics = fs::read_to_string(out("taught/metrics.jsonl")).unwrap();
    assert_eq!(metrics.matches("\"teacher_mr\":").count(), 4);
    assert_eq!(metrics.matches("\"kind\":\"diagnosis\"").count(), 3);
    let page = fs::read_to_string(out("taught/report.html")).unwrap();
    assert!(page.contains("CT, step 4") && page.contains("Distillation from the teacher") && page.contains("cosine"));
    // Another teacher is another training.
    let other = [
        arguments.clone(),
        words("--resume --teacher"),
        vec![out("cross-entropy/best.safetensors").display().to_string()],
    ]
    .concat();
    let message = stderr(&run(&other));
    assert!(message.contains("a second teacher for ct"), "{message}");
    let position = arguments.iter().position(|word| word == "--teacher").unwrap() + 1;
    let mut other = [arguments, vec!["--resume".into()]].concat();
    other[position] = out("cross-entropy/best.safetensors").display().to_string();
    let message = stderr(&run(&other));
    assert!(message.contains("the training was started with teachers"), "{message}");
}
