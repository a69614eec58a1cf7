//! The receiver over TLS: it serves, and its deadlines hold below TLS.

mod raw;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use dicom_ul::pdu::{PDataValueType::Data, Pdu};
use dimse::server::{Config, End};
use raw::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use rustls_pki_types::PrivateKeyDer;

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A receiver with a certificate for localhost, and a client that trusts it.
fn ends(idle: Duration) -> (Config, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let certificate = made.cert.der().clone();
    let tls = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.clone()], key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    (Config { tls: Some(Arc::new(tls)), idle, ..config() }, Arc::new(client))
}

fn associated(address: SocketAddr, config: &Arc<ClientConfig>) -> Client<Tls> {
    let tls = ClientConnection::new(config.clone(), "localhost".try_into().unwrap()).unwrap();
    let mut client = Client(StreamOwned::new(tls, Client::connect(address).0));
    client.send(&request(&[VERIFICATION, CT, MR], &[EXPLICIT]).into());
    assert!(matches!(client.receive(), Some(Pdu::AssociationAC(_))));
    client
}

#[test]
fn instances_come_through_tls() {
    let (config, trust) = ends(PATIENCE);
    let log = serve(config, |address, _, _| {
        let mut client = associated(address, &trust);
        assert_eq!(client.echo(), 0);
        let data: Vec<u8> = (0..600_000).map(|i| (i / 7) as u8).collect();
        assert_eq!(status(&client.store(3, "1.2.3", &data)), 0);
        // Longer than the poll, so that a wait was interrupted amid TLS.
        thread::sleep(Duration::from_millis(350));
        assert_eq!(client.echo(), 0);
        // Ends with a close_notify, or this would be an error.
        client.release();
        let mut lost = associated(address, &trust);
        lost.send(&Pdu::PData { data: vec![value(3, Data, &[], true)] });
        assert!(matches!(lost.receive(), Some(Pdu::AbortRQ { .. })));
    });
    assert_eq!(log.end(), End::Released);
    assert_eq!(log.instances()[0].data.len(), 600_000);
    assert!(log.instances()[0].data.iter().enumerate().all(|(i, byte)| *byte == (i / 7) as u8));
}

#[test]
fn plain_dicom_is_refused() {
    serve(ends(PATIENCE).0, |address, log, _| {
        let mut client = Client::connect(address);
        client.send(&request(&[VERIFICATION], &[IMPLICIT]).into());
        let _ = client.0.read_to_end(&mut Vec::new());
        assert!(log.refusal().contains("TLS"), "{}", log.refusal());
    });
}

#[test]
fn a_handshake_or_a_record_byte_by_byte_is_not_enough() {
    let (config, trust) = ends(Duration::from_millis(1500));
    serve(config.clone(), |address, log, _| {
        let mut tls = ClientConnection::new(trust.clone(), "localhost".try_into().unwrap()).unwrap();
        let mut hello = Vec::new();
        tls.write_tls(&mut hello).unwrap();
        drip(&mut Client::connect(address).0, &hello, || !log.events().is_empty());
        assert_eq!(log.refusal(), "no A-ASSOCIATE-RQ in time");
    });
    serve(config, |address, log, _| {
        let mut client = associated(address, &trust);
        let mut record = Vec::new();
        client.0.conn.writer().write_all(&encode(&whole(3, Data, &[0; 1000]))).unwrap();
        client.0.conn.write_tls(&mut record).unwrap();
        drip(&mut client.0.sock, &record, || log.events().len() > 1);
        assert_eq!(log.end(), End::TimedOut);
    });
}

/// Would take far longer than the receiver waits.
fn drip(tcp: &mut TcpStream, bytes: &[u8], over: impl Fn() -> bool) {
    for byte in bytes {
        if over() || tcp.write_all(&[*byte]).is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
}
