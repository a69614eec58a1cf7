//! The DICOM receiver: each instance is kept, decoded and handed in before its status goes out.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use dicom::Fault;
use dicom_object::FileMetaTableBuilder;
use dimse::{
    server::{Config, End, Handler, Instance, Peer, Server, Status},
    tls::Files,
};

use super::Reception;
use crate::{
    Code,
    serve::{
        config::{Acknowledge, Scp, TlsFiles},
        desk::Arrival,
        refusal::Refusal,
        spool::Spool,
    },
};

/// How long transfers in progress may take when the service ends.
const GRACE: Duration = Duration::from_secs(10);
/// How long a sender waits for label maps (`acknowledge = "segmented"`).
const PATIENCE: Duration = Duration::from_secs(60);
/// 128 bytes that mean nothing, and the magic word (PS3.10 7.1).
const PREAMBLE: [u8; 132] = {
    let mut preamble = [0; 132];
    [preamble[128], preamble[129], preamble[130], preamble[131]] = *b"DICM";
    preamble
};

/// Statuses of C-STORE (PS3.4 B.2.3).
const OUT_OF_RESOURCES: u16 = 0xa700;
const NOT_OF_ITS_CLASS: u16 = 0xa900;
const CANNOT_UNDERSTAND: u16 = 0xc000;

/// An open port.
pub struct Receiver {
    server: Server,
    acknowledge: Acknowledge,
    title: String,
}

impl Receiver {
    /// Opens the port.
    pub fn open(scp: &Scp) -> Result<Self, String> {
        let mut config = Config::new(&scp.ae_title, scp.listen);
        config.check_called = scp.check_called;
        config.calling.clone_from(&scp.calling);
        let network = |peer: &String| match peer.parse() {
            Ok(network) => Ok(network),
            Err(_) => peer
                .parse()
                .map(|address: std::net::IpAddr| address.into())
                .map_err(|_| format!("source.peers: '{peer}': expected an address or a network like 10.1.0.0/16")),
        };
        config.peers = scp.peers.iter().map(network).collect::<Result<_, _>>()?;
        config.max_pdu_bytes = scp.max_pdu_bytes;
        config.max_associations = scp.max_associations;
        config.idle = Duration::from_secs(scp.idle_s);
        config.max_per_host = scp.max_per_address();
        config.max_instance_bytes = scp.max_instance_mb.saturating_mul(1 << 20);
        config.max_receiving_bytes = scp.max_receiving_mb.saturating_mul(1 << 20);
        config.tls = scp.tls.as_ref().map(|tls| files(tls).server()).transpose()?;
        let server = Server::bind(config).map_err(|error| format!("source.listen = \"{}\": {error}", scp.listen))?;
        Ok(Self { server, acknowledge: scp.acknowledge, title: scp.ae_title.clone() })
    }

    /// Title and address, as a person would type them.
    pub fn address(&self) -> String {
        format!("{} at {}", self.title, self.server.address())
    }
}

/// Names of certificates and keys for the network's package.
pub fn files(tls: &TlsFiles) -> Files {
    let TlsFiles { certificate, key, authorities } = tls.clone();
    Files { certificate, key, authorities }
}

/// Receives until `wait` returns.
pub fn serve(receivers: Vec<Receiver>, reception: Reception<'_>, spool: &Spool, wait: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for Receiver { server, acknowledge, title } in receivers {
            let (stop, spool) = (&stop, (acknowledge == Acknowledge::Stored).then_some(spool));
            scope.spawn(move || {
                server.serve(&Desks { reception, spool, title, sources: Mutex::default() }, stop, GRACE)
            });
        }
        wait();
        stop.store(true, Ordering::Release);
    });
}

/// What happens to what a port receives.
struct Desks<'a> {
    reception: Reception<'a>,
    /// Keeps instances before they are acknowledged, unless label maps are what is acknowledged.
    spool: Option<&'a Spool>,
    title: String,
    /// Numbers that the desk gave to associations.
    sources: Mutex<HashMap<u64, u64>>,
}

impl Handler for Desks<'_> {
    fn opened(&self, peer: &Peer) {
        self.sources().insert(peer.id, self.reception.desk.source());
        self.reception.metrics.association("opened");
    }

    fn store(&self, peer: &Peer, instance: Instance) -> Status {
        match self.take(peer, &instance) {
            Ok(()) => Status::Success,
            // The sender did nothing wrong, and would only send it again.
            Err(Refusal { code: Code::SeriesDuplicate, .. }) => Status::Success,
            Err(refusal) => Status::Refused { code: status(refusal.code), comment: refusal.to_string() },
        }
    }

    fn ended(&self, peer: &Peer, end: &End) {
        let (name, words) = match end {
            End::Released => ("released", None),
            End::Stopped => ("stopped", None),
            End::Aborted => ("aborted", Some("the association was aborted".to_owned())),
            End::TimedOut => ("timed_out", Some("the association fell silent".to_owned())),
            End::Lost => ("lost", Some("the connection went away".to_owned())),
            End::Protocol(words) => ("protocol", Some(words.clone())),
        };
        self.reception.metrics.association(name);
        if let Some(words) = words {
            let who = format!("{} at {}", peer.calling, peer.address);
            self.reception.refused(&self.title, &who, &Refusal::new(Code::NetProtocol, words));
        }
        // After anything but a release the sender may come back with the rest: then quiet time ends the series.
        let source = self.sources().remove(&peer.id);
        if let Some(source) = source.filter(|_| *end == End::Released) {
            self.reception.desk.closed(source);
        }
    }

    fn refused(&self, address: SocketAddr, reason: &str) {
        self.reception.metrics.association("refused");
        let refusal = Refusal::new(Code::NetAssociation, reason);
        self.reception.refused(&self.title, &address.to_string(), &refusal);
    }
}

impl Desks<'_> {
    fn sources(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, peer: &Peer, instance: &Instance) -> Result<(), Refusal> {
        let unreadable = |error: &dyn std::error::Error| Refusal::from(Fault::unreadable(error));
        if self.reception.desk.stopping() {
            return Err(Refusal::new(Code::Stopping, "the service is ending"));
        }
        let mut head = PREAMBLE.to_vec();
        let meta = FileMetaTableBuilder::new()
            .media_storage_sop_class_uid(&instance.sop_class)
            .media_storage_sop_instance_uid(&instance.sop_instance)
            .transfer_syntax(&instance.transfer_syntax)
            .build()
            .map_err(|error| unreadable(&error))?;
        meta.write(&mut head).map_err(|error| unreadable(&error))?;
        let keep = |spool: &Spool| spool.keep(&[&head, &instance.data]);
        let kept = self.spool.map(keep).transpose().map_err(|error| {
            let refusal = Refusal::new(Code::StateWrite, error);
            self.reception.refused(&self.title, &instance.sop_instance, &refusal);
            refusal
        })?;
        let kept = kept.map(Arc::new);
        let Instance { begun, received, .. } = *instance;
        let patient = self.spool.is_none();
        let source = self.sources().get(&peer.id).copied().unwrap_or_default();
        let arrival = Arrival { source, begun, received, kept: kept.clone(), patient };
        let object = dicom::data_set(&instance.data, meta);
        let handed = self.reception.instance(&self.title, &instance.sop_instance, object, &arrival, patient);
        match (handed, kept) {
            (Ok(Some(waiter)), _) if !waiter.wait(PATIENCE) => {
                Err(Refusal::new(Code::LateDropped, format!("no label map within {} s", PATIENCE.as_secs())))
            }
            (Ok(_), _) => Ok(()),
            (Err(refusal), Some(kept)) => {
                // The sender learns of the refusal, so nothing has to be kept. If it cannot be deleted, it is refused again
                // at the next start.
                let _ = kept.forget();
                Err(refusal)
            }
            (Err(refusal), None) => Err(refusal),
        }
    }
}

const fn status(code: Code) -> u16 {
    match code {
        Code::DicomKind | Code::DicomType | Code::DicomModality | Code::ModelModality | Code::GeometryAxis => {
            NOT_OF_ITS_CLASS
        }
        Code::DicomSize | Code::SeriesFull | Code::StateWrite | Code::Stopping | Code::LateDropped => OUT_OF_RESOURCES,
        _ => CANNOT_UNDERSTAND,
    }
}
