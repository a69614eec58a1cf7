//! The service between programs that nobody here wrote: dcmtk asks, sends and receives, dciodvfy, highdicom and Prometheus'
//! parser judge what comes out. Skipped, and said so, where one is missing.

mod support;

use std::{
    collections::BTreeSet,
    env, fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use contract::Modality;
use dicom_object::open_file;
use support::site::{Serving, Site, data, files};

/// Whether a program is here; says so where it is not.
fn has(program: &str, argument: &str) -> bool {
    let started = Command::new(program).arg(argument).output();
    if let Err(error) = &started {
        println!("skipped: no {program}: {error}");
    }
    started.is_ok()
}

/// dcmtk's receiver, with the folder that it fills.
struct Archive(Child);

impl Archive {
    fn start(port: u16, folder: &Path) -> Self {
        fs::create_dir(folder).unwrap();
        let mut command = Command::new("storescp");
        command.args(["-aet", "ARCHIVE", "+xa", "-od"]).arg(folder).arg(port.to_string());
        let archive = Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            thread::sleep(Duration::from_millis(20));
        }
        archive
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends all files of a folder in one association of dcmtk, as transfer syntaxes that an option of its names.
fn storescu(to: &Serving, proposal: &str, folder: &Path) {
    let (host, port) = to.target.address.split_once(':').unwrap();
    let mut command = Command::new("storescu");
    command.args(["-aec", "GANTRY", "+sd", "+r", proposal, host, port]).arg(folder);
    // It ends with an error where an instance is refused.
    command.output().unwrap();
}

fn instance(path: &Path) -> String {
    dicom::instance(&open_file(path).unwrap())
}

/// Errors of dciodvfy.
fn errors(path: &Path) -> BTreeSet<String> {
    let output = Command::new("dciodvfy").arg(path).output().unwrap();
    let words = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    words.lines().filter(|line| line.contains("Error")).map(str::to_owned).collect()
}

/// A folder with a copy of every file.
fn folder(site: &Site, name: &str, paths: &[PathBuf]) -> PathBuf {
    let folder = site.path(name);
    fs::create_dir(&folder).unwrap();
    for path in paths {
        fs::copy(path, folder.join(path.file_name().unwrap())).unwrap();
    }
    folder
}

/// What scanners made: a series with its option of dcmtk, and the code that refuses it.
fn real(site: &Site) -> Vec<(PathBuf, &'static str, Option<&'static str>)> {
    let Some(data) = data() else { return vec![] };
    let series = data.join("dicom/series");
    let unpacked = |name: &str| {
        let folder = site.path(name);
        fs::create_dir(&folder).unwrap();
        let archive = series.join(format!("{name}.tar.gz"));
        assert!(Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(&folder).status().unwrap().success());
        folder
    };
    vec![
        (series.join("ct_philips_localizer"), "-x=", Some("E-DICOM-03")),
        (unpacked("ct_philips_tilt_phantom10"), "-x=", None),
        (unpacked("mr_vsseg_t1_12"), "-x=", None),
    ]
}

#[test]
fn a_scanner_an_archive_a_validator_and_a_monitor_of_others_agree_with_the_service() {
    let programs =
        [("storescu", "--version"), ("storescp", "--version"), ("echoscu", "--version"), ("dciodvfy", "-version")];
    if !programs.iter().all(|(program, argument)| has(program, argument)) {
        return;
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let site = Site::new(&format!(
        "[series]\nquiet_s = 2\n[[destination]]\nname = \"archive\"\naddress = \"127.0.0.1:{port}\"\nae_title = \"ARCHIVE\"\n\
         [[sink]]\nkind = \"seg\"\nfolder = \"slices\"\nper_slice = true\nsend_to = [\"archive\"]\n\
         [[sink]]\nkind = \"capture\"\nfolder = \"pictures\"\nsend_to = [\"archive\"]\n"
    ));
    let archive = Archive::start(port, &site.path("archive"));
    let serving = site.start();
    let (host, at) = serving.target.address.split_once(':').unwrap();
    assert!(Command::new("echoscu").args(["-aec", "GANTRY", host, at]).status().unwrap().success());
    let wrong = Command::new("echoscu").args(["-aec", "ANOTHER", host, at]).output().unwrap();
    assert!(!wrong.status.success(), "another title was called");

    let made = [(Modality::Ct, "1.2.41", 12), (Modality::Mr, "1.2.42", 9)]
        .map(|(modality, series, slices)| folder(&site, series, &site.series(modality, series, slices)));
    let made = made.into_iter().map(|folder| (folder, "-x=", None));
    let series: Vec<_> = made.chain(real(&site)).collect();
    thread::scope(|scope| {
        // The made ones at once, each over an association of its own.
        for (folder, proposal, _) in &series[..2] {
            scope.spawn(|| storescu(&serving, proposal, folder));
        }
    });
    for (folder, proposal, _) in &series[2..] {
        storescu(&serving, proposal, folder);
    }
    let wanted = series.iter().filter(|(.., code)| code.is_none()).count();
    site.wait_for("every series", || site.lines("series").len() == wanted);
    for line in site.lines("series") {
        assert_eq!(line["failures"], serde_json::Value::Null, "{line}");
    }
    let codes: Vec<_> = series.iter().filter_map(|(.., code)| *code).collect();
    let refused = site.lines("refused").into_iter().filter(|line| line["code"] != "E-NET-01");
    assert_eq!(refused.map(|line| line["code"].clone()).collect::<Vec<_>>(), codes);

    // Every object reached the archive under its own name.
    let written: Vec<_> = ["seg", "slices", "pictures"].iter().flat_map(|name| files(&site.path(name))).collect();
    let sent: BTreeSet<_> =
        ["slices", "pictures"].iter().flat_map(|name| files(&site.path(name))).map(|path| instance(&path)).collect();
    let archived = || files(&site.path("archive"));
    let counted = format!("gantry_objects_sent_total {}\n", sent.len());
    site.wait_for("every object in the archive", || serving.page("/metrics").1.contains(&counted));
    assert_eq!(archived().iter().map(|path| instance(path)).collect::<BTreeSet<_>>(), sent);
    drop(archive);

    // Patient and study are copied as they are, faults included.
    let known: BTreeSet<_> =
        series.iter().flat_map(|(folder, ..)| files(folder)).flat_map(|path| errors(&path)).collect();
    for path in &written {
        let own: Vec<_> = errors(path).difference(&known).cloned().collect();
        assert!(own.is_empty(), "{}: {own:#?}", path.display());
    }
    println!("{} objects without an error of dciodvfy", written.len());

    let (status, page) = serving.page("/metrics");
    assert_eq!(status, 200);
    let metrics = site.path("metrics.txt");
    fs::write(&metrics, page.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(serving.finish().0, Some(0));
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/python");
    let python = env::var_os("GANTRY_PYTHON").map_or(default, PathBuf::from);
    if !Command::new(&python)
        .args(["-c", "import highdicom, prometheus_client"])
        .output()
        .is_ok_and(|out| out.status.success())
    {
        println!(
            "skipped: no Python with highdicom and prometheus_client at {} (`cargo xtask venv`)",
            python.display()
        );
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/service_peers.py");
    let output = Command::new(python)
        .arg(script)
        .arg(site.path("seg"))
        .arg(site.path("lines.json"))
        .arg(metrics)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), wanted);
}
