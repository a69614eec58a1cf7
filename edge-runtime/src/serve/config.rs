//! `gantry.toml`: every key, its default, and what is refused before anything starts. The commented example is
//! `edge-runtime/gantry.toml`; a test reads it, so that it stays true.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use contract::Modality;
use serde::{Deserialize, Serialize};

use super::rings::MOST_FRAMES;
use crate::EdgeError;

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Model file (ONNX, written by gantry-export): int8, 2D, one slice per image.
    pub model: PathBuf,
    /// Folder of what must survive a restart: received instances and the outgoing queue.
    pub state: PathBuf,
    /// Who executes the network.
    #[serde(default)]
    pub engine: EngineConfig,
    /// The slice loop.
    #[serde(default)]
    pub slices: SliceConfig,
    /// When a series is over, and what becomes of an incomplete one.
    #[serde(default)]
    pub series: SeriesConfig,
    /// Address of `/metrics`, `/healthz`, `/readyz` and `/plan`; none if absent.
    #[serde(default)]
    pub http: Option<SocketAddr>,
    /// Where slices come from; at least one.
    #[serde(default, rename = "source")]
    pub sources: Vec<Source>,
    /// Where results go; at least one.
    #[serde(default, rename = "sink")]
    pub sinks: Vec<Sink>,
    /// Receivers of the network that sinks name in `send_to`.
    #[serde(default, rename = "destination")]
    pub destinations: Vec<Destination>,
}

/// How the model is run.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Instructions that the planned engine uses; the best of this CPU if absent.
    pub kernel: Option<String>,
    /// Threads that share one slice.
    pub threads: usize,
    /// Core of each of those threads; left to the system if empty.
    pub cores: Vec<usize>,
    /// Most memory for the network's values, MiB.
    pub max_arena_mb: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { kernel: None, threads: 1, cores: vec![], max_arena_mb: crate::engine::Options::MAX_ARENA_BYTES >> 20 }
    }
}

/// The slice loop.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SliceConfig {
    /// Slices between source and sink that hold memory of their own.
    pub frames: usize,
    /// Decoded slices that may wait for a frame; the oldest is dropped when one more comes.
    pub backlog: usize,
    /// From the arrival of a slice to its label map.
    pub deadline_ms: u64,
    /// What happens to a slice that misses the deadline.
    pub late: Late,
    /// Pixels of the largest slice that is taken.
    pub max_pixels: usize,
    /// Scheduling of the thread that runs the network.
    pub sched: Sched,
}

impl Default for SliceConfig {
    fn default() -> Self {
        Self {
            frames: 4,
            backlog: 64,
            deadline_ms: 1000,
            late: Late::DropOldest,
            max_pixels: 1024 * 1024,
            sched: Sched::default(),
        }
    }
}

impl SliceConfig {
    /// [`deadline_ms`](Self::deadline_ms) as a duration.
    pub const fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}

/// The policy for slices that are late. Each is counted and stamped in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Late {
    /// No label map is better than a late one: the slice is dropped, before the network runs where that is foreseeable.
    DropOldest,
    /// The label map is delivered and flagged as stale.
    StaleFlag,
    /// The slice is dropped and its series fails: nothing more of it is delivered.
    FailClosed,
}

/// Scheduling of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sched {
    /// Of the system.
    pub policy: Policy,
    /// 1 (lowest) to 99, for the real-time policies.
    pub priority: u8,
    /// The only core that the thread may run on.
    pub cpu: Option<usize>,
}

/// Scheduling policies (sched(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The system's usual.
    #[default]
    Other,
    /// `SCHED_FIFO`: real-time.
    Fifo,
    /// `SCHED_RR`: real-time, in turns with others of the same priority.
    Rr,
}

/// When a series is over. Whatever comes first of what is configured.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SeriesConfig {
    /// When every association (or replay) that brought slices of it has ended.
    pub at_association_end: bool,
    /// When this many slices have come.
    pub expected_slices: Option<usize>,
    /// When nothing has come for so long.
    pub quiet_s: u64,
    /// Most slices of one series; further ones are refused.
    pub max_slices: usize,
    /// Most series at once; slices of further ones are refused.
    pub max_open: usize,
    /// What becomes of a series some of whose slices were refused or dropped.
    pub incomplete: Incomplete,
}

impl Default for SeriesConfig {
    fn default() -> Self {
        Self {
            at_association_end: true,
            expected_slices: None,
            quiet_s: 10,
            max_slices: 4096,
            max_open: 32,
            incomplete: Incomplete::Refuse,
        }
    }
}

/// What becomes of an incomplete series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Incomplete {
    /// No object of the series is written: an organ with a slice missing is a wrong answer.
    Refuse,
    /// Objects are written and say in their description how many slices are missing.
    Mark,
}

/// Where slices come from.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Source {
    /// A DICOM receiver (C-STORE and C-ECHO).
    Scp(Box<Scp>),
    /// A folder that is watched for new files, DICOM (`.dcm` or none) or NIfTI.
    Folder {
        /// Folder.
        path: PathBuf,
        /// What NIfTI files are; they do not say. NIfTI is refused if absent.
        #[serde(default)]
        nifti_modality: Option<Modality>,
        /// A file is complete when neither size nor time of change has changed for so long.
        #[serde(default = "settle_ms")]
        settle_ms: u64,
        /// What becomes of a file when its series is written.
        #[serde(default)]
        after: After,
    },
    /// A folder of DICOM files, played like a scanner.
    Replay {
        /// Folder; files in the order of their names.
        path: PathBuf,
        /// Slices per second, like `20/s`, or `max`.
        #[serde(default = "rate")]
        rate: Rate,
        /// How many times.
        #[serde(default = "once")]
        times: usize,
    },
}

/// What becomes of a watched file when its series is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum After {
    /// It stays, and is segmented again after a restart.
    #[default]
    Keep,
    /// It is deleted. A refused file stays.
    Delete,
}

/// A DICOM receiver.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Scp {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its name.
    #[serde(default = "ae_title")]
    pub ae_title: String,
    /// Whether callers must call it by its name.
    #[serde(default = "yes")]
    pub check_called: bool,
    /// Names that may call; all if empty.
    #[serde(default)]
    pub calling: Vec<String>,
    /// Addresses or networks (`10.1.0.0/16`) that may call; all if empty.
    #[serde(default)]
    pub peers: Vec<String>,
    /// When the success status goes out.
    #[serde(default)]
    pub acknowledge: Acknowledge,
    /// Largest PDU.
    #[serde(default = "max_pdu_bytes")]
    pub max_pdu_bytes: u32,
    /// Most associations at once.
    #[serde(default = "max_associations")]
    pub max_associations: usize,
    /// Most of them from one address; three quarters if absent.
    #[serde(default)]
    pub max_per_address: Option<usize>,
    /// An association that sends no whole PDU for so long is ended.
    #[serde(default = "idle_s")]
    pub idle_s: u64,
    /// Largest instance, MiB.
    #[serde(default = "max_instance_mb")]
    pub max_instance_mb: usize,
    /// Memory for the instances that all associations receive at once, MiB.
    #[serde(default = "max_receiving_mb")]
    pub max_receiving_mb: usize,
    /// TLS; plain TCP if absent.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
}

/// When an instance is acknowledged. An acknowledged instance is never lost: it is on disk, or it was segmented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Acknowledge {
    /// When it is on disk (written and synced) in the state folder.
    #[default]
    Stored,
    /// When its label maps exist, or their refusal: nothing is written to disk, and after a crash a series lacks what was
    /// acknowledged before.
    Segmented,
}

/// Certificates, PEM.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Authorities of the other side's certificates. A receiver asks for none if absent; a sender needs it.
    #[serde(default)]
    pub authorities: Option<PathBuf>,
}

/// Where results go.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Sink {
    /// One DICOM SEG per series.
    Seg {
        /// Folder of the files; none are kept if absent.
        #[serde(default)]
        folder: Option<PathBuf>,
        /// Destinations that get them.
        #[serde(default)]
        send_to: Vec<String>,
        /// How voxels are stored.
        #[serde(default)]
        form: Form,
        /// Also one SEG per slice, as soon as it is there.
        #[serde(default)]
        per_slice: bool,
    },
    /// One NIfTI label map per series or volume.
    Nifti {
        /// Folder.
        folder: PathBuf,
    },
    /// One picture per slice.
    Png {
        /// Folder; the pictures of a series lie in a folder of its UID.
        folder: PathBuf,
        /// Longer side, pixels.
        #[serde(default = "side")]
        side: usize,
    },
    /// One picture of six slices per series, as DICOM secondary capture.
    Capture {
        /// Folder of the files; none are kept if absent.
        #[serde(default)]
        folder: Option<PathBuf>,
        /// Destinations that get them.
        #[serde(default)]
        send_to: Vec<String>,
    },
    /// One JSON line per slice and per series.
    Lines {
        /// File that is appended to, or `-` for standard output.
        path: PathBuf,
    },
}

/// How voxels of a SEG are stored (PS3.3 C.8.20).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// One bit per voxel and organ: every viewer reads it.
    #[default]
    Binary,
    /// One byte per voxel: smaller, since 2024.
    Labelmap,
}

/// A receiver of the network.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// As sinks name it.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// Its application entity.
    pub ae_title: String,
    /// Ours.
    #[serde(default = "ae_title")]
    pub calling: String,
    /// TLS; plain TCP if absent.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// Most bytes that wait on disk while it is away, MiB.
    #[serde(default = "queue_mb")]
    pub queue_mb: u64,
}

/// Slices per second; `None`: as fast as they can be segmented.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate(pub Option<f64>);

impl std::str::FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self(None));
        }
        let number = text.strip_suffix("/s").and_then(|number| number.trim().parse::<f64>().ok());
        match number.filter(|rate| (1e-3..=1e4).contains(rate)) {
            Some(rate) => Ok(Self(Some(rate))),
            None => Err(format!("rate '{text}': expected slices per second like 20/s, or max")),
        }
    }
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(Rate(rate): Rate) -> Self {
        rate.map_or_else(|| "max".into(), |rate| format!("{rate}/s"))
    }
}

fn settle_ms() -> u64 {
    500
}

fn rate() -> Rate {
    Rate(Some(10.))
}

fn once() -> usize {
    1
}

impl Scp {
    /// Most associations from one address: so that another always finds a place, unless there are very few.
    pub fn max_per_address(&self) -> usize {
        self.max_per_address.unwrap_or(self.max_associations - self.max_associations / 4)
    }
}

/// Of an instance, MiB.
const LARGEST_MB: usize = 4096;

fn ae_title() -> String {
    "GANTRY".into()
}

fn yes() -> bool {
    true
}

fn max_pdu_bytes() -> u32 {
    131_072
}

fn max_associations() -> usize {
    16
}

fn idle_s() -> u64 {
    30
}

fn max_instance_mb() -> usize {
    256
}

fn max_receiving_mb() -> usize {
    1024
}

fn side() -> usize {
    512
}

fn queue_mb() -> u64 {
    4096
}

impl Config {
    /// Reads and checks a file. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// [`EdgeError::Config`], with the line of a key that is unknown or has a wrong value.
    pub fn read(path: &Path) -> Result<Self, EdgeError> {
        let fault = |reason: String| EdgeError::Config { path: path.to_path_buf(), reason };
        Self::parse(&std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?, path)
    }

    /// Checks the text of a file; its path is for messages and relative paths.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, EdgeError> {
        let fault = |reason: String| EdgeError::Config { path: path.to_path_buf(), reason };
        let mut config: Self = toml::from_str(text).map_err(|error| fault(error.to_string()))?;
        config.resolve(path.parent().unwrap_or(Path::new("")));
        config.check().map_err(fault)?;
        Ok(config)
    }

    /// The configuration as TOML, with every default.
    pub fn resolved(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_else(|error| format!("# {error}"))
    }

    fn resolve(&mut self, base: &Path) {
        let tls = |files: &mut TlsFiles| {
            let TlsFiles { certificate, key, authorities } = files;
            [Some(certificate), Some(key), authorities.as_mut()].into_iter().flatten().for_each(|path| {
                *path = base.join(&*path);
            });
        };
        self.model = base.join(&self.model);
        self.state = base.join(&self.state);
        for source in &mut self.sources {
            match source {
                Source::Scp(scp) => scp.tls.iter_mut().for_each(tls),
                Source::Folder { path, .. } | Source::Replay { path, .. } => *path = base.join(&*path),
            }
        }
        for sink in &mut self.sinks {
            match sink {
                Sink::Seg { folder, .. } | Sink::Capture { folder, .. } => {
                    folder.iter_mut().for_each(|folder| *folder = base.join(&*folder));
                }
                Sink::Nifti { folder } | Sink::Png { folder, .. } => *folder = base.join(&*folder),
                Sink::Lines { path } if path.as_os_str() == "-" => {}
                Sink::Lines { path } => *path = base.join(&*path),
            }
        }
        self.destinations.iter_mut().filter_map(|to| to.tls.as_mut()).for_each(tls);
    }

    /// What TOML cannot say.
    fn check(&self) -> Result<(), String> {
        let between = |key: &str, value: usize, low: usize, high: usize| {
            let inside = (low..=high).contains(&value);
            inside.then_some(()).ok_or_else(|| format!("{key} = {value}: expected {low} to {high}"))
        };
        between("slices.frames", self.slices.frames, 2, MOST_FRAMES)?;
        between("slices.backlog", self.slices.backlog, 1, 100_000)?;
        between("slices.deadline_ms", self.slices.deadline_ms as usize, 1, 3_600_000)?;
        between("slices.max_pixels", self.slices.max_pixels, 1, contract::MAX_SIDE * contract::MAX_SIDE)?;
        between("series.quiet_s", self.series.quiet_s as usize, 1, 86_400)?;
        between("series.max_slices", self.series.max_slices, 1, 1_000_000)?;
        between("series.max_open", self.series.max_open, 1, 10_000)?;
        between("engine.threads", self.engine.threads, 1, 64)?;
        let sched = self.slices.sched;
        match sched.policy {
            Policy::Other if sched.priority != 0 => {
                return Err("slices.sched.priority: expected policy = \"fifo\" or \"rr\" with it".into());
            }
            Policy::Other => {}
            Policy::Fifo | Policy::Rr => between("slices.sched.priority", sched.priority.into(), 1, 99)?,
        }
        if self.sources.is_empty() || self.sinks.is_empty() {
            return Err("expected at least one [[source]] and one [[sink]]".into());
        }
        for scp in self.sources.iter().filter_map(|source| if let Source::Scp(scp) = source { Some(scp) } else { None })
        {
            between("source.max_pdu_bytes", scp.max_pdu_bytes as usize, 4096, 16 << 20)?;
            between("source.max_associations", scp.max_associations, 1, 1024)?;
            between("source.idle_s", scp.idle_s as usize, 1, 86_400)?;
            between("source.max_per_address", scp.max_per_address(), 1, scp.max_associations)?;
            between("source.max_instance_mb", scp.max_instance_mb, 1, LARGEST_MB)?;
            // Half of it belongs to single associations.
            between("source.max_receiving_mb", scp.max_receiving_mb, 2 * scp.max_instance_mb, 16 * LARGEST_MB)?;
            title("source.ae_title", &scp.ae_title)?;
            scp.calling.iter().try_for_each(|calling| title("source.calling", calling))?;
        }
        for to in &self.destinations {
            title("destination.ae_title", &to.ae_title)?;
            title("destination.calling", &to.calling)?;
            if self.destinations.iter().filter(|other| other.name == to.name).count() > 1 {
                return Err(format!("destination '{}' is there twice", to.name));
            }
            // The name becomes a folder of the queue.
            if to.name.is_empty() || !to.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
                return Err(format!("destination.name '{}': expected letters, digits, - and _", to.name));
            }
        }
        for sink in &self.sinks {
            let (Sink::Seg { folder, send_to, .. } | Sink::Capture { folder, send_to }) = sink else { continue };
            if folder.is_none() && send_to.is_empty() {
                return Err("a sink of DICOM objects: expected folder or send_to".into());
            }
            if let Some(name) = send_to.iter().find(|name| !self.destinations.iter().any(|to| to.name == **name)) {
                return Err(format!("send_to names '{name}': expected a [[destination]] of that name"));
            }
        }
        Ok(())
    }
}

/// PS3.5 6.2, AE: 1 to 16 characters, none of them a backslash or a control character, not only spaces.
fn title(key: &str, title: &str) -> Result<(), String> {
    let allowed = |c: char| (' '..='~').contains(&c) && c != '\\';
    match (1..=16).contains(&title.len()) && title.chars().all(allowed) && !title.trim().is_empty() {
        true => Ok(()),
        false => Err(format!("{key} = '{title}': expected 1 to 16 characters of ASCII without backslash")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../gantry.toml");

    fn read(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gantry.toml");
        std::fs::write(&path, text).unwrap();
        Config::read(&path).map_err(|error| error.to_string())
    }

    /// Every commented line with a key is uncommented, one default or example after the other.
    #[test]
    fn the_example_is_in_force_and_its_comments_tell_the_defaults() {
        let example = read(EXAMPLE).unwrap();
        let key = |line: &str| line.strip_prefix("# ").is_some_and(|rest| rest.split(' ').nth(1) == Some("="));
        let told: String = EXAMPLE
            .lines()
            .take_while(|line| !line.starts_with("# ----"))
            .map(|line| if key(line) && !line.contains("not used") { &line[2..] } else { line })
            .flat_map(|line| [line, "\n"])
            .collect();
        let mut told: Config = toml::from_str(&told).unwrap();
        assert_eq!(told.engine.kernel.take().as_deref(), Some("avx512vnni"), "the one without a default");
        assert_eq!((told.engine, told.slices, told.series), (example.engine, example.slices, example.series));
    }

    #[test]
    fn every_source_sink_and_destination_of_the_example_is_right() {
        let (_, lists) = EXAMPLE.split_once("# ----").unwrap();
        let uncommented = lists.lines().map(|line| {
            let rest = line.strip_prefix("# ").unwrap_or(line);
            let key = rest.starts_with("[[") || rest.split(' ').nth(1) == Some("=");
            if key { rest } else { "" }
        });
        let text = format!("model = \"m\"\nstate = \"s\"\n{}", uncommented.collect::<Vec<_>>().join("\n"));
        let config = read(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!((config.sources.len(), config.sinks.len(), config.destinations.len()), (3, 5, 1));
        let again: Config = toml::from_str(&config.resolved()).unwrap();
        assert_eq!(again, config, "what --check prints can be used");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_key() {
        let base = "model = \"m\"\nstate = \"s\"\n[[source]]\nkind = \"replay\"\npath = \"r\"\n[[sink]]\nkind = \"lines\"\npath = \"-\"\n";
        read(base).unwrap();
        for (added, words) in [
            ("[slices]\ndeadlin_ms = 3", "deadlin_ms"),
            ("[slices]\nframes = 1", "slices.frames = 1: expected 2 to 16"),
            ("[slices.sched]\npriority = 3", "slices.sched.priority"),
            ("[slices.sched]\npolicy = \"fifo\"", "slices.sched.priority = 0: expected 1 to 99"),
            ("[[sink]]\nkind = \"seg\"", "expected folder or send_to"),
            ("[[sink]]\nkind = \"seg\"\nsend_to = [\"away\"]", "names 'away'"),
            ("[[source]]\nkind = \"replay\"\npath = \"r\"\nrate = \"20\"", "expected slices per second like 20/s"),
            (
                "[[source]]\nkind = \"scp\"\nlisten = \"0.0.0.0:1\"\nae_title = \"much too long a title\"",
                "source.ae_title",
            ),
            (
                "[[source]]\nkind = \"scp\"\nlisten = \"0.0.0.0:1\"\nmax_receiving_mb = 511",
                "source.max_receiving_mb = 511: expected 512 to",
            ),
            (
                "[[source]]\nkind = \"scp\"\nlisten = \"0.0.0.0:1\"\nmax_per_address = 17",
                "source.max_per_address = 17: expected 1 to 16",
            ),
            ("[[destination]]\nname = \"../x\"\naddress = \"a:1\"\nae_title = \"A\"", "destination.name"),
            ("[[source]]\nkind = \"pigeon\"", "pigeon"),
        ] {
            let error = read(&format!("{base}{added}\n")).unwrap_err();
            assert!(error.contains(words), "{added}: {error}");
        }
        assert!(read("model = \"m\"\nstate = \"s\"\n").unwrap_err().contains("at least one"));
    }
}
