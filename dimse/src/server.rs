//! A receiver of C-STORE and C-ECHO (PS3.7, PS3.8) for a place where every client is a stranger: one thread per connection, a
//! deadline for each PDU as a whole, and a bound on everything that a client can make it hold.
//!
//! What one address can take from the others: [`Config::max_per_host`] of the associations, and the half of the memory that is
//! for large instances, as long as it goes on sending them. What it cannot: the other places, the part of the memory that each
//! association has of its own, and the way in, because of the connections without an association its own go first. Within one
//! address, connections that say nothing keep nobody out; associations that say nothing do until their idle time is over.
//!
//! The PDUs are coded by `dicom-ul`; the association is our own, because a deadline per read, which a blocking
//! `dicom_ul::ServerAssociation` has, does not stop a client that sends a byte at a time. It is no query, no retrieval, no
//! storage commitment, and it does not look into data sets.

mod admission;
mod association;
mod budget;
mod message;
mod negotiation;
mod response;
mod stream;

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dicom_dictionary_std::uids;

use self::{admission::Admission, association::attend, budget::Budget};
use crate::wire::{Halt, POLL, halt};

/// The smallest length of PDU that a receiver may announce here, bytes.
pub const MIN_PDU_BYTES: u32 = 1024;

/// What to accept, from whom, and how much of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our application entity title, 1 to 16 characters.
    pub ae_title: String,
    /// Whether an association that calls another title is rejected.
    pub check_called: bool,
    /// The address to listen at; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The calling titles that are allowed; all of them if empty.
    pub calling: Vec<String>,
    /// The networks that are allowed; all of them if empty. Connections from elsewhere are closed at once.
    pub peers: Vec<ipnet::IpNet>,
    /// The longest P-DATA-TF that a client may send, bytes after the header of 6 (PS3.8 D.1). A longer one ends the association
    /// before anything is allocated for it. At least [`MIN_PDU_BYTES`].
    pub max_pdu_bytes: u32,
    /// Associations at a time; a further one is rejected for the time being.
    pub max_associations: usize,
    /// Associations at a time of one address, or of one network of 64 bits of IPv6; so that one client cannot have them all, it
    /// should be less than `max_associations`. A further one is rejected for the time being.
    pub max_per_host: usize,
    /// Connections at a time outside an association: before it, or being closed after it. For a new one the oldest makes way of
    /// those from the address that has the most.
    pub max_unassociated: usize,
    /// The time for the whole next PDU to arrive, from when it is waited for; also for each answer to be taken, and for ARTIM. In
    /// the middle of a message, each stretch of twice this time must bring 256 KiB of it, or its end.
    pub idle: Duration,
    /// The longest data set, bytes. The rest of a longer one is read and thrown away; it is answered with 0xA700.
    pub max_instance_bytes: usize,
    /// Memory for the data sets of all associations, bytes. Half of it is divided among `max_associations`, and an instance that
    /// fits its part never waits. A larger one waits for `idle` until the other half has room; if it has none, the instance is
    /// thrown away and answered with 0xA700.
    pub max_receiving_bytes: usize,
    /// UIDs of the transfer syntaxes that are accepted.
    pub transfer_syntaxes: Vec<String>,
    /// TLS, if spoken.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Config {
    /// Any client, no TLS, PDUs to 128 KiB, 16 associations, 12 of one address, 64 further connections, 30 s, instances to 256 MiB,
    /// 1 GiB in all, and the transfer syntaxes of images of CT and MRI.
    pub fn new(ae_title: &str, listen: SocketAddr) -> Self {
        let transfer_syntaxes = [
            uids::EXPLICIT_VR_LITTLE_ENDIAN,
            uids::IMPLICIT_VR_LITTLE_ENDIAN,
            "1.2.840.10008.1.2.2", // explicit VR big endian, retired but still sent
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
            ae_title: ae_title.to_owned(),
            check_called: true,
            listen,
            calling: Vec::new(),
            peers: Vec::new(),
            max_pdu_bytes: 128 << 10,
            max_associations: 16,
            max_per_host: 12,
            max_unassociated: 64,
            idle: Duration::from_secs(30),
            max_instance_bytes: 256 << 20,
            max_receiving_bytes: 1 << 30,
            transfer_syntaxes: transfer_syntaxes.map(str::to_owned).into(),
            tls: None,
        }
    }

    fn check(&self) -> io::Result<()> {
        let invalid = |message: String| Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        let title = self.ae_title.trim();
        if !(1..=16).contains(&title.len()) || !title.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'\\') {
            return invalid(format!("the AE title {title:?} is not 1 to 16 characters of ASCII without a backslash"));
        }
        if self.max_pdu_bytes < MIN_PDU_BYTES {
            return invalid(format!("max_pdu_bytes is {}, expected at least {MIN_PDU_BYTES}", self.max_pdu_bytes));
        }
        let counts = [self.max_associations, self.max_per_host, self.max_unassociated];
        if counts.contains(&0) || self.idle.is_zero() {
            let names = "max_associations, max_per_host, max_unassociated and idle";
            return invalid(format!("{names} must each be more than 0"));
        }
        let most = Budget::most(self.max_receiving_bytes, self.max_associations);
        if self.max_instance_bytes > most {
            let most = format!("max_receiving_bytes leaves room for {most}");
            return invalid(format!("max_instance_bytes is {}, but {most}", self.max_instance_bytes));
        }
        Ok(())
    }
}

/// The other side of an association.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Number of the association since the receiver was started, from 1.
    pub id: u64,
    /// Where it comes from.
    pub address: SocketAddr,
    /// The title it gave for itself.
    pub calling: String,
    /// The title it called.
    pub called: String,
}

/// What one C-STORE brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Affected SOP class UID: that of the presentation context.
    pub sop_class: String,
    /// Affected SOP instance UID: 1 to 64 digits and dots.
    pub sop_instance: String,
    /// UID of the transfer syntax of `data`.
    pub transfer_syntax: String,
    /// The data set as it was sent: no preamble, no file meta information, not looked into.
    pub data: Vec<u8>,
    /// When the first byte of the first PDU of the C-STORE-RQ arrived.
    pub begun: Instant,
    /// When the last byte of the data set had arrived.
    pub received: Instant,
}

/// The answer to a C-STORE (PS3.7 9.1.1.1.9, PS3.4 table B.2-1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// 0x0000.
    Success,
    /// Anything else.
    Refused {
        /// Status code.
        code: u16,
        /// Error comment: cut to 64 characters, other than printable ASCII replaced.
        comment: String,
    },
}

/// How an association ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By the client, in order.
    Released,
    /// By an A-ABORT of the client.
    Aborted,
    /// By us: a PDU had not arrived, or an answer had not been taken, in time.
    TimedOut,
    /// The connection was closed without a release.
    Lost,
    /// By us: what the client sent is not DICOM, too long, or out of order; says what.
    Protocol(String),
    /// By us: the receiver stops.
    Stopped,
}

/// What is done with what comes in. Called from the threads of the associations, so several calls may run at a time; those about
/// one association come one after another. Must not panic.
pub trait Handler: Sync {
    /// An association was accepted.
    fn opened(&self, peer: &Peer);
    /// An instance is complete; the client waits for the answer.
    fn store(&self, peer: &Peer, instance: Instance) -> Status;
    /// An association is over: exactly once per `opened`, before the client is told.
    fn ended(&self, peer: &Peer, end: &End);
    /// A connection or an association was not accepted.
    fn refused(&self, address: SocketAddr, reason: &str);
}

/// What the threads share.
struct Shared {
    config: Config,
    admission: Admission,
    budget: Budget,
    halt: Halt,
    associations: AtomicU64,
}

/// A receiver that listens.
#[derive(Debug)]
pub struct Server {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Listens, but serves nobody yet.
    ///
    /// # Errors
    /// The address cannot be had; `InvalidInput` if the configuration cannot be meant.
    pub fn bind(config: Config) -> io::Result<Self> {
        config.check()?;
        let listener = TcpListener::bind(config.listen)?;
        // On Linux a receive timeout also holds for accept (socket(7)), so that one thread can accept at once and watch `stop`;
        // only TcpStream offers to set it.
        TcpStream::from(OwnedFd::from(listener.try_clone()?)).set_read_timeout(Some(POLL))?;
        let address = listener.local_addr()?;
        Ok(Self { config, listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves in the calling thread and one further thread per connection until `stop` is true. Then it accepts no more, lets a
    /// message in progress finish for at most `grace`, aborts the other associations, and returns when all threads have ended. A
    /// call of the handler is waited for, however long it takes.
    pub fn serve(self, handler: &impl Handler, stop: &AtomicBool, grace: Duration) {
        let Self { config, listener, address } = self;
        let admission = Admission::new(&config);
        let budget = Budget::new(config.max_receiving_bytes, config.max_associations);
        let shared = Shared { config, admission, budget, halt: Halt::default(), associations: AtomicU64::new(0) };
        let shared = &shared;
        thread::scope(|scope| {
            while !stop.load(Ordering::Relaxed) {
                let (tcp, from) = match listener.accept() {
                    Ok(accepted) => accepted,
                    Err(e) if passing(e.kind()) => continue,
                    Err(e) => {
                        // Out of descriptors, mostly: others must end first.
                        handler.refused(address, &format!("no connection could be accepted: {e}"));
                        thread::sleep(10 * POLL);
                        continue;
                    }
                };
                if !allowed(&shared.config, from) {
                    handler.refused(from, "the address is not one of those allowed");
                    continue;
                }
                let work = move || attend(shared, handler, tcp, from);
                if let Err(e) = thread::Builder::new().name("association".to_owned()).spawn_scoped(scope, work) {
                    handler.refused(from, &format!("no thread for the connection: {e}"));
                }
            }
            drop(listener);
            halt(&shared.halt, grace);
        });
    }
}

/// Errors of accept after which the next call may well succeed.
fn passing(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, TimedOut, WouldBlock};
    matches!(kind, WouldBlock | TimedOut | Interrupted | ConnectionAborted | ConnectionReset)
}

fn allowed(config: &Config, from: SocketAddr) -> bool {
    let ip = from.ip().to_canonical();
    config.peers.is_empty() || config.peers.iter().any(|net| net.contains(&ip))
}
