//! The DICOM receiver: each instance is decoded, handed in and kept before its status goes out.

use std::{
    collections::HashMap,
    net::SocketAddr,
    panic::resume_unwind,
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

use super::{Reception, guarded};
use crate::{
    Code,
    serve::{
        config::{Acknowledge, Scp, TlsFiles},
        desk::Arrival,
        refusal::Refusal,
        spool::{Kept, Spool},
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
        if let Some(source) = source {
            self.reception.desk.closed(source, *end == End::Released);
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
        let keep = &|kept: &Kept| {
            kept.write(&[&head, &instance.data]).map_err(|error| {
                let refusal = Refusal::new(Code::StateWrite, error);
                self.reception.refused(&self.title, &instance.sop_instance, &refusal);
                refusal
            })
        };
        let kept = self.spool.map(|spool| Arc::new(spool.place()));
        let Instance { begun, received, .. } = *instance;
        let patient = kept.is_none();
        let source = self.sources().get(&peer.id).copied().unwrap_or_default();
        let arrival = Arrival { source, begun, received, kept: kept.clone(), patient };
        let object = guarded(|| dicom::data_set(&instance.data, meta));
        let series = object.as_ref().ok().and_then(dicom::series);
        thread::scope(|scope| {
            // The disk works while the slice is decoded and segmented; the status waits for both.
            let writing = kept.as_deref().map(|kept| scope.spawn(move || keep(kept)));
            let handed = self.reception.instance(&self.title, &instance.sop_instance, object, &arrival, patient);
            let written = writing.map_or(Ok(()), |writing| writing.join().unwrap_or_else(|panic| resume_unwind(panic)));
            match handed {
                Ok(waiter) => written.and_then(|()| waiter.map_or(Ok(()), |waiter| waiter.wait(PATIENCE))),
                Err(refusal) => {
                    // The sender learns of it, so nothing has to be kept. What cannot be deleted is refused again at the
                    // next start.
                    let _ = kept.as_deref().map(|kept| kept.forget(true));
                    if refusal.code != Code::SeriesDuplicate {
                        return Err(refusal);
                    }
                    // The sender did nothing wrong and would only send it again. But it may do so because the first could
                    // not be kept, or before it is segmented.
                    let book = &self.reception.desk.book;
                    let first =
                        series.and_then(|series| book.held(&series, &instance.sop_instance)).unwrap_or_default();
                    first.kept.map_or(Ok(()), |first| keep(&first))?;
                    first.waiter.map_or(Ok(()), |waiter| waiter.wait(PATIENCE))
                }
            }
        })
    }
}

const fn status(code: Code) -> u16 {
    match code {
        Code::DicomKind | Code::DicomType | Code::DicomModality | Code::ModelModality | Code::GeometryAxis => {
            NOT_OF_ITS_CLASS
        }
        Code::DicomSize
        | Code::SeriesFull
        | Code::StateWrite
        | Code::Stopping
        | Code::LateDropped
        | Code::LateOverflow
        | Code::LateFailed => OUT_OF_RESOURCES,
        _ => CANNOT_UNDERSTAND,
    }
}
