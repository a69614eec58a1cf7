//! `gantry-edge serve` as a process, with scanners that send, break off and come back, and with files that nobody here made.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use contract::{Modality, Plane};
use dicom_dictionary_std::tags;
use dicom_object::open_file;
use dimse::client::{self, Error, Target};
use serde_json::Value;
use support::{
    Small,
    dicom::{Axes, SliceFile},
};

const PLANE: Plane = Plane { height: 50, width: 40, row_mm: 1.5, column_mm: 2. };

/// A folder with a model and a configuration.
struct Site {
    folder: tempfile::TempDir,
}

/// A running service; killed if the test fails.
struct Serving {
    child: Child,
    target: Target,
    pages: String,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Site {
    fn new(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.onnx"), Small::new(1).file()).unwrap();
        fs::create_dir(folder.path().join("in")).unwrap();
        let text = format!(
            "model = \"model.onnx\"\nstate = \"state\"\nhttp = \"127.0.0.1:0\"\n{more}\n[[source]]\nkind = \"scp\"\n\
             listen = \"127.0.0.1:0\"\nidle_s = 3\n[[source]]\nkind = \"folder\"\npath = \"in\"\nnifti_modality = \"ct\"\n\
             settle_ms = 100\n[[sink]]\nkind = \"lines\"\npath = \"lines.json\"\n[[sink]]\nkind = \"seg\"\nfolder = \"seg\"\n"
        );
        fs::write(folder.path().join("gantry.toml"), text).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self) -> Serving {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gantry-edge"));
        command.args(["serve", "--json", "--config"]).arg(self.path("gantry.toml"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let address = loop {
            let mut line = String::new();
            assert!(errors.read_line(&mut line).unwrap() > 0, "the service ended: {said}");
            if let Some(rest) = line.strip_prefix("serving GANTRY at ") {
                break rest.trim().to_owned();
            }
            said += &line;
        };
        // So that warnings never fill the pipe.
        thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        let (scp, pages) = address.split_once(", http://").unwrap();
        let target = Target {
            address: scp.into(),
            ae_title: "GANTRY".into(),
            calling: "SCANNER".into(),
            timeout: Duration::from_secs(20),
            max_pdu_bytes: 16_384,
            tls: None,
        };
        Serving { child, target, pages: pages.into() }
    }

    /// Writes so many slices of a series outside the watched folder.
    fn series(&self, modality: Modality, series: &str, slices: usize) -> Vec<PathBuf> {
        let area = PLANE.height * PLANE.width;
        let file = |z: usize| {
            let path = self.path(&format!("{series}.{z}.dcm"));
            let raw: Vec<i16> = (0..area).map(|i| ((i * 37 + z * 211) % 900) as i16 - 150).collect();
            SliceFile { modality, series, z, axes: Axes::AXIAL, plane: PLANE }.write(&path, &raw);
            path
        };
        (0..slices).map(file).collect()
    }

    fn lines(&self, event: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path("lines.json")).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["event"] == event).collect()
    }

    fn wait_for(&self, what: &str, done: impl Fn() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < Duration::from_secs(60), "{what} did not happen");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Instances that a segmentation references.
    fn references(&self, series: &str) -> BTreeSet<String> {
        let seg = open_file(self.path(&format!("seg/{series}.seg.dcm"))).unwrap();
        let series = seg.element(tags::REFERENCED_SERIES_SEQUENCE).unwrap().items().unwrap();
        let instances = series[0].element(tags::REFERENCED_INSTANCE_SEQUENCE).unwrap().items().unwrap();
        let uid = |item: &dicom_object::InMemDicomObject| {
            let uid = item.element(tags::REFERENCED_SOP_INSTANCE_UID).unwrap().to_str().unwrap();
            uid.trim_end_matches('\0').to_owned()
        };
        instances.iter().map(uid).collect()
    }
}

impl Serving {
    fn page(&self, path: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(&self.pages).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Ends the service in order; its exit code, and the JSON of its last words.
    fn finish(mut self) -> (Option<i32>, Value) {
        self.signal("-TERM");
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let code = self.child.wait().unwrap().code();
        (code, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }
}

fn uids(series: &str, slices: impl IntoIterator<Item = usize>) -> BTreeSet<String> {
    slices.into_iter().map(|z| format!("{series}.{}", z + 1)).collect()
}

#[test]
fn two_series_over_two_associations_end_as_two_segmentations_while_others_misbehave() {
    let site = Site::new("");
    let serving = site.start();
    let idle: Vec<TcpStream> = (0..100).filter_map(|_| TcpStream::connect(&serving.target.address).ok()).collect();
    let (ct, mr) = (site.series(Modality::Ct, "1.2.31", 12), site.series(Modality::Mr, "1.2.32", 9));
    thread::scope(|scope| {
        for files in [&ct, &mr] {
            let to = &serving.target;
            scope.spawn(move || assert!(client::store(to, files).iter().all(Result::is_ok)));
        }
    });
    site.wait_for("both series", || site.lines("series").len() == 2);
    assert_eq!(site.references("1.2.31"), uids("1.2.31", 0..12));
    assert_eq!(site.references("1.2.32"), uids("1.2.32", 0..9));
    assert!(site.lines("series").iter().all(|line| line["ended"] == "association"));
    assert_eq!(fs::read_dir(site.path("state/received")).unwrap().count(), 0, "nothing is kept of what is written");
    let (status, metrics) = serving.page("/metrics");
    assert!(
        status == 200 && metrics.contains(r#"gantry_slices_total{modality="mr",outcome="segmented"} 9"#),
        "{metrics}"
    );
    assert_eq!([serving.page("/healthz").0, serving.page("/readyz").0, serving.page("/x").0], [200, 200, 404]);
    assert!(serving.page("/plan").1.contains("\"steps\""));
    drop(idle);
    let (code, snapshot) = serving.finish();
    assert_eq!((code, &snapshot["slices"]["ct segmented"]), (Some(0), &Value::from(12)));
}

#[test]
fn what_was_acknowledged_survives_kill_9_and_sigterm_writes_what_has_arrived() {
    let site = Site::new("[series]\nat_association_end = false\nquiet_s = 3\n");
    let serving = site.start();
    let files = site.series(Modality::Ct, "1.2.33", 10);
    assert!(client::store(&serving.target, &files[..4]).iter().all(Result::is_ok));
    serving.signal("-KILL");
    drop(serving);
    assert!(!site.path("seg").exists());
    assert_eq!(fs::read_dir(site.path("state/received")).unwrap().count(), 4);
    // Half a file of a write that the crash cut, and one that a bad disk changed.
    fs::write(site.path("state/received/.gantry-x.tmp"), b"half").unwrap();
    fs::write(site.path("state/received/00000000000000ff.dcm"), b"damaged").unwrap();
    let serving = site.start();
    assert!(client::store(&serving.target, &files[4..7]).iter().all(Result::is_ok));
    site.wait_for("the series", || !site.lines("series").is_empty());
    assert_eq!(site.references("1.2.33"), uids("1.2.33", 0..7));
    assert_eq!(site.lines("series")[0]["ended"], "quiet");
    assert!(site.path("state/damaged/00000000000000ff.dcm").exists());
    assert!(site.lines("refused").iter().any(|line| line["code"] == "E-STATE-02"));

    // In the middle of a series.
    let files = site.series(Modality::Mr, "1.2.34", 5);
    assert!(client::store(&serving.target, &files).iter().all(Result::is_ok));
    let (code, _) = serving.finish();
    assert_eq!(code, Some(0));
    assert_eq!(site.references("1.2.34"), uids("1.2.34", 0..5));
    assert_eq!(site.lines("series")[1]["ended"], "stop");
    assert_eq!(fs::read_dir(site.path("state/received")).unwrap().count(), 0);
}

/// The state folder cannot be written: a file lies where it should be made again.
#[test]
fn what_cannot_be_kept_is_not_acknowledged() {
    let site = Site::new("");
    let serving = site.start();
    fs::remove_dir(site.path("state/received")).unwrap();
    let files = site.series(Modality::Ct, "1.2.35", 1);
    let refused = client::store(&serving.target, &files);
    assert!(
        matches!(&refused[0], Err(Error::Status { code: 0xa700, comment }) if comment.starts_with("E-STATE-01")),
        "{refused:?}"
    );
    fs::create_dir(site.path("state/received")).unwrap();
    assert_eq!(client::store(&serving.target, &files), [Ok(())]);
    assert_eq!(serving.finish().0, Some(0));
    assert_eq!(site.references("1.2.35"), uids("1.2.35", 0..1));
}

fn data() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = env::var_os("GANTRY_TEST_DATA").map_or(default, PathBuf::from);
    let there = folder.join("malformed").is_dir();
    if !there {
        println!("skipped: no test data at {} (GANTRY_TEST_DATA)", folder.display());
    }
    there.then_some(folder)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

#[test]
fn malformed_files_over_the_network_and_in_the_folder_harm_nobody() {
    let Some(data) = data() else { return };
    let site = Site::new("[series]\nquiet_s = 1\nincomplete = \"mark\"\n");
    let serving = site.start();
    let malformed = files(&data.join("malformed"));
    assert!(malformed.len() > 60, "{} files", malformed.len());
    for (number, path) in malformed.iter().enumerate() {
        // As they lie in folders, their names may be the same.
        let name = path.file_name().unwrap().to_string_lossy();
        fs::copy(path, site.path(&format!("in/{number:03}-{name}"))).unwrap();
    }
    let results = client::store(&serving.target, &malformed);
    // Our sender cannot read some of them; the others got a status.
    let sent = results.iter().filter(|result| matches!(result, Ok(()) | Err(Error::Status { .. }))).count();
    assert!(sent > 10, "{results:?}");
    let wanted = malformed.len();
    site.wait_for("every file of the folder", || {
        let named = |event: &str| site.lines(event).into_iter().filter(|line| line["source"] == "folder").count();
        let slices: BTreeSet<String> = site.lines("slice").iter().map(|line| line["slice"].to_string()).collect();
        named("refused") + slices.len() >= wanted - sent
    });
    // A good series is served as ever.
    let good = site.series(Modality::Ct, "1.2.36", 3);
    assert!(client::store(&serving.target, &good).iter().all(Result::is_ok));
    site.wait_for("the good series", || site.path("seg/1.2.36.seg.dcm").exists());
    for line in site.lines("refused") {
        assert!(line["code"].as_str().unwrap().starts_with("E-") && !line["reason"].as_str().unwrap().is_empty());
    }
    let (code, snapshot) = serving.finish();
    assert_eq!(code, Some(0), "{snapshot}");
}

/// The same image in every lossless transfer syntax has the same label map.
#[test]
fn every_lossless_form_of_an_image_gives_the_same_label_map() {
    let Some(data) = data() else { return };
    let single = data.join("dicom/single");
    let forms: Vec<PathBuf> = files(&single)
        .into_iter()
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("CT1_"))
        .collect();
    let lossless: Vec<&PathBuf> = forms.iter().filter(|path| is_lossless(path)).collect();
    println!("{} forms", lossless.len());
    assert!(lossless.len() >= 4, "{forms:?}");
    let mut maps = BTreeMap::new();
    for path in lossless {
        // One at a time: they are one instance.
        let site = Site::new("");
        let serving = site.start();
        let results = client::store(&serving.target, std::slice::from_ref(path));
        assert_eq!(results, [Ok(())], "{}", path.display());
        site.wait_for("the series", || !site.lines("series").is_empty());
        let line = site.lines("slice").remove(0);
        let seg = fs::read_dir(site.path("seg")).unwrap().next().unwrap().unwrap().path();
        let pixels = open_file(&seg).unwrap().element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().into_owned();
        maps.entry((line["pixels"].to_string(), pixels)).or_insert_with(Vec::new).push(path.clone());
        assert_eq!(serving.finish().0, Some(0));
    }
    assert_eq!(maps.len(), 1, "{:?}", maps.values().collect::<Vec<_>>());
}

fn is_lossless(path: &Path) -> bool {
    let syntax = open_file(path).unwrap().meta().transfer_syntax.trim_end_matches('\0').to_owned();
    // JPEG baseline, extended, JPEG-LS near-lossless, JPEG 2000 that may lose.
    !["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91"]
        .contains(&syntax.as_str())
}
