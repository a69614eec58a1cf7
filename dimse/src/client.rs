//! A sender of C-STORE and C-ECHO (PS3.4 annexes A and B). It changes nothing: every object travels in the transfer syntax of its
//! file, and its data set goes from the file to the wire in pieces of one PDU, so memory does not grow with the object.
//!
//! What it does not do: transcode, compress, negotiate roles, or ask for storage commitment. A success status is the peer's word
//! that it has the object.

mod association;
mod command;
mod line;
mod object;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::wire::Halt;
use association::{Association, Context, Failure, MOST_CONTEXTS};
use object::Object;

/// Peers count objects per association, and some grow with them.
const MOST_OBJECTS: usize = 1000;
/// Bytes of a PDU's variable field: every peer takes this much.
const SMALLEST_PDU: u32 = dicom_ul::pdu::MINIMUM_PDU_SIZE;
/// More brings nothing, and no association PDU of an honest peer is larger.
const LARGEST_PDU: u32 = 1 << 20;

/// Where to send to, and as whom.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port`, looked up anew for each association. The system's own limits hold for a name that does not resolve.
    pub address: String,
    /// The peer's application entity title, 1 to 16 characters.
    pub ae_title: String,
    /// Our application entity title, 1 to 16 characters.
    pub calling: String,
    /// For the connection with the TLS handshake, and for every PDU on its own.
    pub timeout: Duration,
    /// The largest PDU that we send or take, in bytes (PS3.8 D.1); the peer may ask for smaller ones. 1,018 to 1,048,576: outside,
    /// the nearest of them.
    pub max_pdu_bytes: u32,
    /// TLS with these certificates; see [`crate::tls::Files::client`].
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

/// Why an object was not delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no connection, or TLS was not agreed.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// As in [`Target::address`].
        address: String,
        /// What the system or TLS said.
        reason: String,
    },
    /// The connection was there and ended or fell silent: closed, aborted, or a timeout. The peer may have the object even so.
    #[error("the association was lost: {0}")]
    Lost(String),
    /// Not tried, because the association was lost over an earlier object.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The peer did not want the association (PS3.8 9.3.4).
    #[error("the association was rejected ({}): {reason}", if *.permanent { "permanently" } else { "for now" })]
    Rejected {
        /// Trying again is of no use until someone changes a configuration.
        permanent: bool,
        /// In the words of the standard.
        reason: String,
    },
    /// The peer does not keep to the standard, or an application entity title does not.
    #[error("against the protocol: {0}")]
    Protocol(String),
    /// The peer takes no objects of this SOP class in this transfer syntax.
    #[error("the peer does not accept SOP class {class} in transfer syntax {syntax}")]
    NotAccepted {
        /// SOP class UID.
        class: String,
        /// Transfer syntax UID.
        syntax: String,
    },
    /// The peer answered with a failure (PS3.4 table B.2-1, PS3.7 annex C).
    #[error("the peer refused with status {code:04X}H{}{comment}", if .comment.is_empty() { "" } else { ": " })]
    Status {
        /// (0000,0900)
        code: u16,
        /// (0000,0902) Error Comment, empty if there was none.
        comment: String,
    },
    /// The object itself cannot be read; names the file.
    #[error("{0}")]
    File(String),
    /// The system cannot read the file for now, say for want of file descriptors; names the file.
    #[error("{0}")]
    System(String),
}

impl Error {
    /// The same object may well be taken later, without anybody changing anything.
    ///
    /// Of the failures, PS3.4 table B.2-1 calls A7xxH "refused: out of resources", which passes; 0110H (PS3.7 C.5.12, processing
    /// failure) is what archives answer when something inside them is down. Everything else says that the object or the request is
    /// wrong and will be so again: A9xxH (does not match the SOP class), Cxxx (cannot understand), 0122H (SOP class not supported),
    /// 0124H (not authorised) and so on.
    pub fn transient(&self) -> bool {
        match self {
            Error::Connect { .. } | Error::Lost(_) | Error::NotSent(_) | Error::System(_) => true,
            Error::Rejected { permanent, .. } => !permanent,
            Error::Status { code, .. } => matches!(code, 0xA700..=0xA7FF | 0x0110),
            Error::Protocol(_) | Error::NotAccepted { .. } | Error::File(_) => false,
        }
    }
}

/// Success and warnings mean that the object is stored (PS3.4 table B.2-1: Bxxx; PS3.7 annex C: 0001H, 0107H, 0116H).
fn judge(code: u16, comment: String) -> Result<(), Error> {
    match code {
        0 | 0x0001 | 0x0107 | 0x0116 | 0xB000..=0xBFFF => Ok(()),
        code => Err(Error::Status { code, comment }),
    }
}

/// Asks the peer whether it is there (C-ECHO).
pub fn echo(target: &Target) -> Result<(), Error> {
    let context = ("1.2.840.10008.1.1".to_owned(), "1.2.840.10008.1.2".to_owned());
    let mut association = Association::open(target, std::slice::from_ref(&context), &Halt::default())?;
    let answer = association.echo(&context);
    match answer {
        Ok(()) | Err(Error::Status { .. } | Error::NotAccepted { .. }) => association.release(),
        Err(_) => {}
    }
    answer
}

/// Sends DICOM files over one association, or over several if they need more than 128 presentation contexts or are more than
/// 1,000; a result per file, in their order.
pub fn store(target: &Target, files: &[PathBuf]) -> Vec<Result<(), Error>> {
    let mut results = vec![Err(Error::NotSent(String::new())); files.len()];
    store_each(target, files, |index, result, _| {
        results[index] = result;
        true
    });
    results
}

/// [`store`], telling the result of each file as soon as it is known: its index, what came of it, how long the transfer took.
/// Unreadable files come first. `each` answers whether to go on; after a `false` nothing more is sent or told.
pub fn store_each(
    target: &Target,
    files: &[impl AsRef<Path>],
    each: impl FnMut(usize, Result<(), Error>, Duration) -> bool,
) {
    store_until(target, files, &Halt::default(), each);
}

/// [`store_each`], broken off by a halt: the object that is under way then is lost, and the peer may have it even so.
pub(crate) fn store_until(
    target: &Target,
    files: &[impl AsRef<Path>],
    halt: &Halt,
    mut each: impl FnMut(usize, Result<(), Error>, Duration) -> bool,
) {
    let mut objects = Vec::with_capacity(files.len());
    for (index, file) in files.iter().enumerate() {
        match Object::open(file.as_ref()) {
            Ok(object) => objects.push((index, object)),
            Err(error) => {
                if !each(index, Err(error), Duration::ZERO) {
                    return;
                }
            }
        }
    }
    let mut left = objects.as_slice();
    while !left.is_empty() {
        match store_some(target, left, halt, &mut each) {
            Some(done) => left = &left[done..],
            None => return,
        }
    }
}

/// Sends over one association what fits it. How many objects are done with, or nothing if that is the end of it all.
fn store_some(
    target: &Target,
    objects: &[(usize, Object)],
    halt: &Halt,
    each: &mut impl FnMut(usize, Result<(), Error>, Duration) -> bool,
) -> Option<usize> {
    let (contexts, count) = contexts(objects);
    let mut association = match Association::open(target, &contexts, halt) {
        Ok(association) => association,
        Err(error) => {
            for (index, _) in objects {
                if !each(*index, Err(error.clone()), Duration::ZERO) {
                    break;
                }
            }
            return None;
        }
    };
    for (position, (index, object)) in objects[..count].iter().enumerate() {
        let begin = Instant::now();
        let outcome = association.store(object);
        let took = begin.elapsed();
        let Err(Failure { error, usable }) = outcome else {
            if !each(*index, Ok(()), took) {
                association.release();
                return None;
            }
            continue;
        };
        let of_the_file = matches!(error, Error::File(_) | Error::System(_));
        let reason = error.to_string();
        let go_on = each(*index, Err(error), took);
        match (usable, go_on) {
            (true, true) => {}
            (true, false) => {
                association.release();
                return None;
            }
            // The file broke off, not the peer: the others deserve an association of their own.
            (false, true) if of_the_file => {
                association.abort();
                return Some(position + 1);
            }
            (false, _) => {
                for (index, _) in &objects[position + 1..] {
                    if !go_on || !each(*index, Err(Error::NotSent(reason.clone())), Duration::ZERO) {
                        break;
                    }
                }
                return None;
            }
        }
    }
    association.release();
    Some(count)
}

/// The contexts of as many objects from the front as fit one association, and how many these are.
fn contexts(objects: &[(usize, Object)]) -> (Vec<Context>, usize) {
    let mut contexts: Vec<Context> = Vec::new();
    for (count, (_, object)) in objects.iter().enumerate() {
        let known = contexts.iter().any(|(class, syntax)| *class == object.class && *syntax == object.syntax);
        if count == MOST_OBJECTS || (!known && contexts.len() == MOST_CONTEXTS) {
            return (contexts, count);
        }
        if !known {
            contexts.push((object.class.clone(), object.syntax.clone()));
        }
    }
    (contexts, objects.len())
}
