//! `gantry-edge serve` as a process with a folder of its own, and what a scanner and a monitor do with it.

use std::{
    collections::BTreeSet,
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
use dimse::client::Target;
use serde_json::Value;

use super::{
    Small,
    dicom::{Axes, SliceFile},
};

pub const PLANE: Plane = Plane { height: 50, width: 40, row_mm: 1.5, column_mm: 2. };

/// A folder with a model and a configuration.
pub struct Site {
    pub folder: tempfile::TempDir,
}

/// A running service; killed if the test fails.
pub struct Serving {
    pub child: Child,
    pub target: Target,
    pub pages: String,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Site {
    /// With these lines of configuration besides those that every site has.
    pub fn new(more: &str) -> Self {
        Self::with("", "", more)
    }

    /// With more keys of the receiver.
    pub fn with_source(receiver: &str, more: &str) -> Self {
        Self::with(receiver, "", more)
    }

    /// With more keys of the watched folder.
    pub fn with_folder(watched: &str, more: &str) -> Self {
        Self::with("", watched, more)
    }

    fn with(receiver: &str, watched: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.onnx"), Small::new(1).file()).unwrap();
        fs::create_dir(folder.path().join("in")).unwrap();
        let text = format!(
            "model = \"model.onnx\"\nstate = \"state\"\nhttp = \"127.0.0.1:0\"\n{more}\n[[source]]\nkind = \"scp\"\n\
             listen = \"127.0.0.1:0\"\nidle_s = 3\n{receiver}\n[[source]]\nkind = \"folder\"\npath = \"in\"\nnifti_modality = \"ct\"\n\
             settle_ms = 100\n{watched}\n[[sink]]\nkind = \"lines\"\npath = \"lines.json\"\n[[sink]]\nkind = \"seg\"\nfolder = \"seg\"\n"
        );
        fs::write(folder.path().join("gantry.toml"), text).unwrap();
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn start(&self) -> Serving {
        self.start_as(&mut Command::new(env!("CARGO_BIN_EXE_gantry-edge")))
    }

    /// With a state folder of 400 KiB that only the service sees; `None`, said aloud, where that is not permitted.
    pub fn start_on_a_small_disk(&self) -> Option<Serving> {
        let state = self.path("state");
        fs::create_dir(&state).unwrap();
        let script = "mount -t tmpfs -o size=400k none \"$0\" && exec \"$@\"";
        let unshare = |program: &str| {
            let mut command = Command::new("unshare");
            command.args(["--map-root-user", "--mount", "sh", "-c", script]).arg(&state).arg(program);
            command
        };
        match unshare("true").output() {
            Ok(output) if output.status.success() => {
                Some(self.start_as(&mut unshare(env!("CARGO_BIN_EXE_gantry-edge"))))
            }
            Ok(output) => {
                println!("skipped: no file system of its own: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                println!("skipped: no unshare (package util-linux): {error}");
                None
            }
        }
    }

    /// By a command that ends in the program.
    pub fn start_as(&self, command: &mut Command) -> Serving {
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
    pub fn series(&self, modality: Modality, series: &str, slices: usize) -> Vec<PathBuf> {
        let area = PLANE.height * PLANE.width;
        let file = |z: usize| {
            let path = self.path(&format!("{series}.{z}.dcm"));
            let raw: Vec<i16> = (0..area).map(|i| ((i * 37 + z * 211) % 900) as i16 - 150).collect();
            SliceFile { modality, series, z, axes: Axes::AXIAL, plane: PLANE }.write(&path, &raw);
            path
        };
        (0..slices).map(file).collect()
    }

    pub fn lines(&self, event: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path("lines.json")).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["event"] == event).collect()
    }

    pub fn wait_for(&self, what: &str, done: impl Fn() -> bool) {
        let start = Instant::now();
        while !done() {
            if start.elapsed() > Duration::from_secs(60) {
                panic!("{what} did not happen: {}", fs::read_to_string(self.path("lines.json")).unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What a segmentation says of itself.
    pub fn description(&self, series: &str) -> String {
        let seg = open_file(self.path(&format!("seg/{series}.seg.dcm"))).unwrap();
        seg.element(tags::CONTENT_DESCRIPTION).unwrap().to_str().unwrap().trim_end().to_owned()
    }

    /// Instances that a segmentation references.
    pub fn references(&self, series: &str) -> BTreeSet<String> {
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
    pub fn page(&self, path: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(&self.pages).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    /// A folder as the service sees it.
    pub fn sees(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.child.id()));
        root.join(path.strip_prefix("/").unwrap_or(path))
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Ends the service in order; its exit code, and the JSON of its last words.
    pub fn finish(mut self) -> (Option<i32>, Value) {
        self.signal("-TERM");
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let code = self.child.wait().unwrap().code();
        (code, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }
}

pub fn uids(series: &str, slices: impl IntoIterator<Item = usize>) -> BTreeSet<String> {
    slices.into_iter().map(|z| format!("{series}.{}", z + 1)).collect()
}

/// The owner's collection of real and malformed files.
pub fn data() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = env::var_os("GANTRY_TEST_DATA").map_or(default, PathBuf::from);
    let there = folder.join("malformed").is_dir();
    if !there {
        println!("skipped: no test data at {} (GANTRY_TEST_DATA)", folder.display());
    }
    there.then_some(folder)
}

/// All files below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
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
