//! Receivers to send to: one of our own that does odd things when told to, and dcmtk's storescp.
#![allow(dead_code)] // each test program uses a part

use std::{
    collections::BTreeMap,
    env, fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use dicom_ul::pdu::{
    AbortRQSource, AssociationAC, AssociationRJ, AssociationRJResult, AssociationRJServiceUserReason,
    AssociationRJSource, PDataValue, PDataValueType, Pdu, PresentationContextResult, PresentationContextResultReason,
    UserVariableItem, read_pdu, write_pdu,
};
use dimse::client::{self, Target};

pub const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
pub const EXPLICIT: &str = "1.2.840.10008.1.2.1";

/// A DICOM file (PS3.10) whose data set the sender does not look at.
pub fn file(class: &str, instance: &str, syntax: &str, data_set: &[u8]) -> Vec<u8> {
    let mut meta = Vec::new();
    for (element, value) in [(0x02_u8, class), (0x03, instance), (0x10, syntax)] {
        let mut value = value.as_bytes().to_vec();
        if value.len() % 2 == 1 {
            value.push(0);
        }
        meta.extend([2, 0, element, 0, b'U', b'I']);
        meta.extend((value.len() as u16).to_le_bytes());
        meta.extend(value);
    }
    let mut file = vec![0; 128];
    file.extend(b"DICM\x02\0\0\0UL\x04\0");
    file.extend((meta.len() as u32).to_le_bytes());
    file.extend(meta);
    file.extend(data_set);
    file
}

/// Bytes that differ from place to place.
pub fn noise(length: usize) -> Vec<u8> {
    (0..length as u32).map(|place| (place.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// What follows the file meta group.
pub fn data_set(file: &[u8]) -> &[u8] {
    let length = u32::from_le_bytes(file[140..144].try_into().unwrap()) as usize;
    &file[144 + length..]
}

/// The single files and the segmentations of the test data. Empty, with a word, where they are absent.
pub fn real() -> Vec<PathBuf> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let root = env::var_os("GANTRY_TEST_DATA").map_or_else(default, PathBuf::from).join("dicom");
    if !root.is_dir() {
        println!("skipped: no test data in {}", root.display());
        return vec![];
    }
    let list = |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let folders = ["single", "seg"].iter().flat_map(|name| list(&root.join(name)));
    let mut files: Vec<_> = folders.flat_map(|folder| list(&folder)).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "dcm"));
    files.sort();
    files
}

pub fn target(address: &str) -> Target {
    Target {
        address: address.into(),
        ae_title: "ARCHIVE".into(),
        calling: "GANTRY".into(),
        timeout: Duration::from_secs(20),
        max_pdu_bytes: 1 << 16,
        tls: None,
    }
}

/// How our receiver meets an association request.
#[derive(Clone, Debug, PartialEq)]
pub enum Welcome {
    /// Takes everything, in PDUs of this many bytes at most; 0 is no limit.
    Accept(u32),
    /// Accepts the association and none of the contexts.
    NoContext,
    Reject(AssociationRJResult),
    /// Answers with these bytes and closes.
    Bytes(&'static [u8]),
    /// Says nothing until the other side goes.
    Silence,
    /// Sends the first bytes of an answer that never ends, one by one.
    Drip,
}

/// What our receiver does with an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reply {
    Status(u16),
    Abort,
    /// Aborts after the first data fragment.
    AbortMidway,
    Silence,
    /// Answers to another message.
    WrongMessage,
    /// Answers with fragments without content, one after the other, for ever.
    Nothings,
}

/// An instance UID and a data set.
pub type Received = (String, Vec<u8>);

/// A receiver that answers as told.
#[derive(Clone)]
pub struct Peer {
    pub address: String,
    /// Instance UIDs and data sets.
    pub received: Arc<Mutex<Vec<Received>>>,
    pub associations: Arc<AtomicUsize>,
    /// Largest variable field of a P-DATA PDU, in bytes.
    pub largest: Arc<AtomicUsize>,
    pub released: Arc<AtomicUsize>,
    /// Asks for the release itself at the moment when it is asked.
    pub collides: Arc<AtomicBool>,
}

pub type Answers = (Box<dyn Fn(usize) -> Welcome + Send + Sync>, Box<dyn Fn(usize, &str) -> Reply + Send + Sync>);

impl Peer {
    /// `welcome` gets the number of the association, `reply` that of the object and its instance UID, each from 0.
    pub fn start(
        welcome: impl Fn(usize) -> Welcome + Send + Sync + 'static,
        reply: impl Fn(usize, &str) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(TcpListener::bind("127.0.0.1:0").unwrap(), None, (Box::new(welcome), Box::new(reply)))
    }

    pub fn obliging() -> Self {
        Self::start(|_| Welcome::Accept(16_384), |_, _| Reply::Status(0))
    }

    pub fn start_with(listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>, answers: Answers) -> Self {
        let peer = Self {
            address: listener.local_addr().unwrap().to_string(),
            received: Arc::default(),
            associations: Arc::default(),
            largest: Arc::default(),
            released: Arc::default(),
            collides: Arc::default(),
        };
        let ours = peer.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                // Whoever is asked to be silent for ever is still not to outlive the test by much.
                stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                let number = ours.associations.fetch_add(1, Ordering::SeqCst);
                let served = match &tls {
                    None => ours.serve(stream, number, &answers),
                    Some(config) => {
                        let connection = rustls::ServerConnection::new(config.clone()).unwrap();
                        ours.serve(rustls::StreamOwned::new(connection, stream), number, &answers)
                    }
                };
                // Nothing is the end of a connection, which the other side judges.
                let _ = served;
            }
        });
        peer
    }

    pub fn instances(&self) -> Vec<String> {
        self.received.lock().unwrap().iter().map(|(instance, _)| instance.clone()).collect()
    }

    /// One association; nothing when the connection ends.
    fn serve(&self, mut stream: impl Read + Write, number: usize, (welcome, reply): &Answers) -> Option<()> {
        let Pdu::AssociationRQ(request) = read(&mut stream)?.0 else { return None };
        let welcome = welcome(number);
        let limit = match welcome {
            Welcome::Accept(limit) => limit,
            Welcome::NoContext => 16_384,
            Welcome::Reject(result) => {
                let source =
                    AssociationRJSource::ServiceUser(AssociationRJServiceUserReason::CalledAETitleNotRecognized);
                return write(&mut stream, &Pdu::AssociationRJ(AssociationRJ { result, source }));
            }
            Welcome::Bytes(bytes) => {
                let _ = stream.write_all(bytes);
                let _ = stream.flush();
                return None;
            }
            Welcome::Silence => {
                let _ = stream.read(&mut [0]);
                return None;
            }
            Welcome::Drip => {
                stream.write_all(&[2, 0, 0, 0, 0x80, 0]).ok()?;
                loop {
                    stream.write_all(&[0]).ok()?;
                    thread::sleep(Duration::from_millis(20));
                }
            }
        };
        let result = |id, syntax: &str| PresentationContextResult {
            id,
            reason: if welcome == Welcome::NoContext {
                PresentationContextResultReason::AbstractSyntaxNotSupported
            } else {
                PresentationContextResultReason::Acceptance
            },
            transfer_syntax: syntax.into(),
        };
        let proposed = &request.presentation_contexts;
        write(
            &mut stream,
            &Pdu::AssociationAC(AssociationAC {
                protocol_version: 1,
                calling_ae_title: request.calling_ae_title.clone(),
                called_ae_title: request.called_ae_title.clone(),
                application_context_name: request.application_context_name.clone(),
                presentation_contexts: proposed.iter().map(|one| result(one.id, &one.transfer_syntaxes[0])).collect(),
                user_variables: vec![UserVariableItem::MaxLength(limit)],
            }),
        )?;
        self.messages(&mut stream, reply)
    }

    fn messages(
        &self,
        stream: &mut (impl Read + Write),
        reply: &(dyn Fn(usize, &str) -> Reply + Send + Sync),
    ) -> Option<()> {
        let (mut command, mut data, mut fragments) = (Vec::new(), Vec::new(), 0);
        loop {
            let (pdu, length) = read(stream)?;
            let values = match pdu {
                Pdu::PData { data } => data,
                Pdu::ReleaseRQ if self.collides.load(Ordering::SeqCst) => {
                    write(stream, &Pdu::ReleaseRQ)?;
                    assert_eq!(read(stream)?.0, Pdu::ReleaseRP);
                    self.released.fetch_add(1, Ordering::SeqCst);
                    return write(stream, &Pdu::ReleaseRP);
                }
                Pdu::ReleaseRQ => {
                    self.released.fetch_add(1, Ordering::SeqCst);
                    return write(stream, &Pdu::ReleaseRP);
                }
                _ => return None,
            };
            self.largest.fetch_max(length, Ordering::SeqCst);
            for value in values {
                assert_eq!(value.data.len() % 2, 0, "an odd fragment");
                let is_command = value.value_type == PDataValueType::Command;
                if is_command { &mut command } else { &mut data }.extend(value.data);
                fragments += usize::from(!is_command);
                let fields = if command.is_empty() { BTreeMap::new() } else { fields(&command) };
                let number = |element| {
                    fields.get(&element).map_or(0, |value: &Vec<u8>| u16::from_le_bytes([value[0], value[1]]))
                };
                let instance = fields
                    .get(&0x1000)
                    .map_or(String::new(), |uid| String::from_utf8_lossy(uid).trim_end_matches('\0').to_owned());
                let object = self.received.lock().unwrap().len();
                let midway = !is_command && fragments == 1 && reply(object, &instance) == Reply::AbortMidway;
                if midway {
                    return write(stream, &Pdu::AbortRQ { source: AbortRQSource::ServiceUser });
                }
                if !value.is_last || (is_command && number(0x0800) != 0x0101) {
                    continue;
                }
                let answer = if is_command { Reply::Status(0) } else { reply(object, &instance) };
                let message = number(0x0110);
                let nothing = PDataValue {
                    presentation_context_id: value.presentation_context_id,
                    value_type: PDataValueType::Command,
                    is_last: false,
                    data: vec![],
                };
                let (message, status) = match answer {
                    Reply::Nothings => loop {
                        write(stream, &Pdu::PData { data: vec![nothing.clone()] })?;
                        thread::sleep(Duration::from_millis(50));
                    },
                    Reply::Status(status) => (message, status),
                    Reply::WrongMessage => (message + 1, 0),
                    Reply::Abort | Reply::AbortMidway => {
                        return write(stream, &Pdu::AbortRQ { source: AbortRQSource::ServiceUser });
                    }
                    Reply::Silence => {
                        let _ = stream.read(&mut [0]);
                        return None;
                    }
                };
                if !is_command && (status == 0 || status & 0xF000 == 0xB000) {
                    self.received.lock().unwrap().push((instance.clone(), std::mem::take(&mut data)));
                }
                write(
                    stream,
                    &Pdu::PData {
                        data: vec![PDataValue {
                            presentation_context_id: value.presentation_context_id,
                            value_type: PDataValueType::Command,
                            is_last: true,
                            data: response(number(0x0100) | 0x8000, message, status),
                        }],
                    },
                )?;
                (command, data, fragments) = (Vec::new(), Vec::new(), 0);
            }
        }
    }
}

fn fields(mut set: &[u8]) -> BTreeMap<u16, Vec<u8>> {
    let mut fields = BTreeMap::new();
    while !set.is_empty() {
        let length = u32::from_le_bytes(set[4..8].try_into().unwrap()) as usize;
        fields.insert(u16::from_le_bytes([set[2], set[3]]), set[8..8 + length].to_vec());
        set = &set[8 + length..];
    }
    fields
}

fn response(command: u16, message: u16, status: u16) -> Vec<u8> {
    let mut set = Vec::new();
    let number = |value: u16| value.to_le_bytes().to_vec();
    for (element, value) in [
        (0x0100_u16, number(command)),
        (0x0120, number(message)),
        (0x0800, number(0x0101)),
        (0x0900, number(status)),
        (0x0902, b"so it is".to_vec()),
    ] {
        set.extend([0, 0]);
        set.extend(element.to_le_bytes());
        set.extend((value.len() as u32).to_le_bytes());
        set.extend(value);
    }
    set
}

fn read(stream: &mut impl Read) -> Option<(Pdu, usize)> {
    let mut bytes = vec![0; 6];
    stream.read_exact(&mut bytes).ok()?;
    let length = u32::from_be_bytes(bytes[2..6].try_into().unwrap()) as usize;
    bytes.resize(6 + length, 0);
    stream.read_exact(&mut bytes[6..]).ok()?;
    Some((read_pdu(bytes.as_slice(), 1 << 22, true).unwrap().unwrap(), length))
}

pub fn write(stream: &mut impl Write, pdu: &Pdu) -> Option<()> {
    let mut bytes = Vec::new();
    write_pdu(&mut bytes, pdu).unwrap();
    stream.write_all(&bytes).ok()?;
    stream.flush().ok()
}

/// dcmtk's receiver; it ends with this value.
pub struct Storescp {
    child: Child,
    pub port: u16,
    pub folder: PathBuf,
}

impl Storescp {
    /// On a port that is free now, with further arguments; nothing, with a word, where it is not installed.
    pub fn start(folder: &Path, arguments: &[&str]) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::start_at(port, folder, arguments)
    }

    pub fn start_at(port: u16, folder: &Path, arguments: &[&str]) -> Option<Self> {
        let started = Command::new("storescp")
            .args(["+xa", "+B", "+uf", "-dhl", "-aet", "ARCHIVE", "-od"])
            .arg(folder)
            .args(arguments)
            .arg(port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) => {
                println!("skipped: storescp: {error}");
                return None;
            }
        };
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert_eq!(child.try_wait().unwrap(), None, "storescp {arguments:?} ended");
            thread::sleep(Duration::from_millis(20));
        }
        Some(Self { child, port, folder: folder.to_owned() })
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The data sets that arrived, sorted.
    pub fn data_sets(&self) -> Vec<Vec<u8>> {
        let mut found: Vec<_> = fs::read_dir(&self.folder)
            .unwrap()
            .map(|entry| data_set(&fs::read(entry.unwrap().path()).unwrap()).to_vec())
            .collect();
        found.sort();
        found
    }
}

impl Drop for Storescp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for something that another thread or process brings about; panics after half a minute.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if is_so() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("still not so: {what}");
}

/// Asserts that the peer is reachable, as a check of the test itself.
pub fn answers(target: &Target) {
    client::echo(target).unwrap();
}
