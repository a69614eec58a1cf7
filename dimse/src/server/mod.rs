//! A receiver of C-STORE and C-ECHO (PS3.4 B, A; PS3.7; PS3.8).
//!
//! Every connection has a thread. Nothing a peer sends makes it take more memory than the configuration allows or more time
//! than one PDU may: lengths are checked before memory is taken, and deadlines are those of whole PDUs. Connections that have
//! not asked for an association are bounded apart from associations; the oldest of them gives way, so that idle ones keep
//! nobody out.

mod association;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dicom_dictionary_std::uids;
use dicom_ul::pdu::Pdu;
use ipnet::IpNet;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

pub(crate) use association::{IMPLEMENTATION_CLASS, IMPLEMENTATION_NAME};

use crate::wire::{Timed, Wire};
use association::{Request, accept, judge, request, serve, too_many};

/// How often the receiver looks for connections and whether to stop.
const LOOK: Duration = Duration::from_millis(5);

/// Retired in 2006, and still spoken.
const EXPLICIT_VR_BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// What is received, from whom, and how much of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our title.
    pub ae_title: String,
    /// Refuse who calls another title.
    pub check_called: bool,
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Titles that may call; all if empty.
    pub calling: Vec<String>,
    /// Addresses that may call; all if empty.
    pub peers: Vec<IpNet>,
    /// Longest PDU that is taken; announced to peers.
    pub max_pdu_bytes: u32,
    /// Most associations at once.
    pub max_associations: usize,
    /// Most connections that have not asked for an association.
    pub max_unassociated: usize,
    /// A whole PDU must arrive within it.
    pub idle: Duration,
    /// Longest data set; a longer one is refused with status A700 when its last byte has come.
    pub max_instance_bytes: usize,
    /// Transfer syntaxes that are taken.
    pub transfer_syntaxes: Vec<String>,
    /// Plain TCP if absent.
    pub tls: Option<Arc<ServerConfig>>,
}

impl Config {
    /// For everybody, with room for the images of scanners.
    pub fn new(ae_title: &str, listen: SocketAddr) -> Self {
        let transfer_syntaxes = [
            uids::EXPLICIT_VR_LITTLE_ENDIAN,
            uids::IMPLICIT_VR_LITTLE_ENDIAN,
            EXPLICIT_VR_BIG_ENDIAN,
            uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
            uids::RLE_LOSSLESS,
            uids::JPEG_BASELINE8_BIT,
            uids::JPEG_EXTENDED12_BIT,
            uids::JPEG_LOSSLESS,
            uids::JPEG_LOSSLESS_SV1,
            uids::JPEGLS_LOSSLESS,
            uids::JPEGLS_NEAR_LOSSLESS,
            uids::JPEG2000_LOSSLESS,
            uids::JPEG2000,
        ];
        Self {
            ae_title: ae_title.into(),
            check_called: false,
            listen,
            calling: vec![],
            peers: vec![],
            max_pdu_bytes: 131_072,
            max_associations: 16,
            max_unassociated: 32,
            idle: Duration::from_secs(30),
            max_instance_bytes: 1 << 30,
            transfer_syntaxes: transfer_syntaxes.map(String::from).to_vec(),
            tls: None,
        }
    }

    fn allows(&self, address: IpAddr) -> bool {
        // An IPv4 peer of a listener for both families has a mapped address.
        let address = address.to_canonical();
        self.peers.is_empty() || self.peers.iter().any(|network| network.contains(&address))
    }
}

/// Who has an association.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Of this receiver's associations, from 1.
    pub id: u64,
    /// Where it calls from.
    pub address: SocketAddr,
    /// Its title.
    pub calling: String,
    /// The title it called.
    pub called: String,
}

/// What a C-STORE brought.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Kind of object, as the command says.
    pub sop_class: String,
    /// The instance, as the command says.
    pub sop_instance: String,
    /// How the data set is encoded.
    pub transfer_syntax: String,
    /// The data set, without the meta information of a file.
    pub data: Vec<u8>,
    /// When the first PDU of its command was here.
    pub begun: Instant,
    /// When the last PDU of its data set was here.
    pub received: Instant,
}

/// What a C-STORE is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// 0000.
    Success,
    /// A failure (PS3.4 B.2.3).
    Refused {
        /// Status, e.g. A900.
        code: u16,
        /// ErrorComment; what is longer than 64 characters is cut off.
        comment: String,
    },
}

/// How an association ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// As it should.
    Released,
    /// By the peer.
    Aborted,
    /// No whole PDU came in time.
    TimedOut,
    /// The connection was closed.
    Lost,
    /// The peer did not keep to the protocol.
    Protocol(String),
    /// The receiver was stopped.
    Stopped,
}

/// Hears what happens, in the connections' threads.
pub trait Handler: Sync {
    /// An association was accepted.
    fn opened(&self, peer: &Peer);
    /// An instance is here; what is returned goes out as its status.
    fn store(&self, peer: &Peer, instance: Instance) -> Status;
    /// It ended; once for each that was opened.
    fn ended(&self, peer: &Peer, end: &End);
    /// A connection or a request for an association was not accepted.
    fn refused(&self, address: SocketAddr, reason: &str);
}

/// An open port.
#[derive(Debug)]
pub struct Server {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
}

/// What all connections share.
struct Shared<'a, H> {
    config: &'a Config,
    handler: &'a H,
    stop: Arc<AtomicBool>,
    associations: AtomicUsize,
    next: AtomicU64,
    /// Connections by number: those that have not asked for an association, and all others.
    unassociated: Mutex<BTreeMap<u64, TcpStream>>,
    associated: Mutex<BTreeMap<u64, TcpStream>>,
}

impl Server {
    /// Opens the port.
    ///
    /// # Errors
    /// The system's.
    pub fn bind(config: Config) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { config, listener, address })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is set. Then it takes no more connections, ends idle associations, lets an instance in progress
    /// come to its end within `grace`, and returns when all threads have ended.
    pub fn serve(self, handler: &impl Handler, stop: &AtomicBool, grace: Duration) {
        let Self { config, listener, .. } = self;
        let shared = Shared {
            config: &config,
            handler,
            stop: Arc::default(),
            associations: AtomicUsize::new(0),
            next: AtomicU64::new(1),
            unassociated: Mutex::default(),
            associated: Mutex::default(),
        };
        thread::scope(|scope| {
            let mut threads = vec![];
            while !stop.load(Ordering::Acquire) {
                threads.retain(|thread: &thread::ScopedJoinHandle<'_, ()>| !thread.is_finished());
                match listener.accept() {
                    Ok((socket, address)) => {
                        let shared = &shared;
                        let id = shared.next.fetch_add(1, Ordering::Relaxed);
                        if !shared.admit(id, &socket, address) {
                            continue;
                        }
                        let connection = move || shared.connection(id, socket, address);
                        let thread = thread::Builder::new().name(format!("association-{id}"));
                        match thread.spawn_scoped(scope, connection) {
                            Ok(thread) => threads.push(thread),
                            Err(error) => shared.handler.refused(address, &format!("no thread: {error}")),
                        }
                    }
                    // Nobody there, or somebody who is gone already, or no more file handles for now.
                    Err(_) => thread::sleep(LOOK),
                }
            }
            shared.stop.store(true, Ordering::Release);
            let end = Instant::now() + grace;
            while Instant::now() < end && threads.iter().any(|thread| !thread.is_finished()) {
                thread::sleep(LOOK);
            }
            for sockets in [&shared.unassociated, &shared.associated] {
                held(sockets).values().for_each(|socket| _ = socket.shutdown(Shutdown::Both));
            }
        });
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<H: Handler> Shared<'_, H> {
    /// Whether a connection is taken; makes room for it.
    fn admit(&self, id: u64, socket: &TcpStream, address: SocketAddr) -> bool {
        if !self.config.allows(address.ip()) {
            let _ = socket.shutdown(Shutdown::Both);
            self.handler.refused(address, "the address is not on the list");
            return false;
        }
        let Ok(copy) = socket.try_clone() else { return false };
        let mut unassociated = held(&self.unassociated);
        unassociated.insert(id, copy);
        if unassociated.len() > self.config.max_unassociated.max(1)
            && let Some((_, oldest)) = unassociated.pop_first()
        {
            let _ = oldest.shutdown(Shutdown::Both);
        }
        true
    }

    fn connection(&self, id: u64, socket: TcpStream, address: SocketAddr) {
        let mut opened = None;
        let end = self.converse(id, socket, address, &mut opened);
        held(&self.unassociated).remove(&id);
        held(&self.associated).remove(&id);
        match (opened, end) {
            (Some(peer), Err(end) | Ok(end)) => {
                self.associations.fetch_sub(1, Ordering::AcqRel);
                self.handler.ended(&peer, &end);
            }
            (None, Err(End::Protocol(words))) => self.handler.refused(address, &words),
            (None, Err(End::TimedOut)) => self.handler.refused(address, "no request for an association came in time"),
            // Looked whether somebody is there, or gave way to others, or has been told already.
            (None, _) => {}
        }
    }

    fn converse(&self, id: u64, socket: TcpStream, address: SocketAddr, opened: &mut Option<Peer>) -> Result<End, End> {
        let timed = Timed::new(socket, self.stop.clone()).map_err(|_| End::Lost)?;
        let mut wire = match &self.config.tls {
            None => Wire::Plain(timed),
            Some(tls) => {
                let connection =
                    ServerConnection::new(tls.clone()).map_err(|error| End::Protocol(error.to_string()))?;
                Wire::Server(Box::new(StreamOwned::new(connection, timed)))
            }
        };
        let asked = request(&mut wire, self.config).inspect_err(|end| {
            if matches!(end, End::Protocol(_)) {
                wire.abort_protocol();
            }
        })?;
        let rejection = match judge(&asked, self.config) {
            Request::Refused(rejection, words) => Some((rejection, words)),
            Request::Accepted(contexts) => {
                let most = self.config.max_associations;
                let count = |count: usize| (count < most).then_some(count + 1);
                if self.associations.fetch_update(Ordering::AcqRel, Ordering::Acquire, count).is_err() {
                    Some((too_many(), format!("{most} associations at once are allowed")))
                } else {
                    let peer = Peer {
                        id,
                        address,
                        calling: asked.calling_ae_title.trim().into(),
                        called: asked.called_ae_title.trim().into(),
                    };
                    if let Some(copy) = held(&self.unassociated).remove(&id) {
                        held(&self.associated).insert(id, copy);
                    }
                    self.handler.opened(&peer);
                    *opened = Some(peer.clone());
                    accept(&mut wire, &asked, self.config)?;
                    let end = serve(&mut wire, &contexts, &peer, self.config, self.handler);
                    wire.close();
                    return Ok(end);
                }
            }
        };
        if let Some((rejection, words)) = rejection {
            let _ = wire.write(&Pdu::AssociationRJ(rejection), self.config.idle);
            wire.close();
            self.handler.refused(address, &words);
        }
        Ok(End::Aborted)
    }
}
