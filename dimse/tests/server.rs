//! The receiver with our own sender, with peers that misbehave, and with dcmtk.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use dimse::{
    client::{self, Error, Target},
    queue::{Event, Queue, QueueError},
    server::{Config, End, Handler, Instance, Peer, Server, Status},
    tls::Files,
};
use proptest::prelude::*;

/// Remembers what it hears; refuses instances whose UID ends with 13.
#[derive(Default)]
struct Book {
    stored: Mutex<Vec<(String, Instance)>>,
    open: Mutex<BTreeMap<u64, String>>,
    ends: Mutex<Vec<End>>,
    refused: Mutex<Vec<String>>,
}

impl Handler for Book {
    fn opened(&self, peer: &Peer) {
        assert!(self.open.lock().unwrap().insert(peer.id, peer.calling.clone()).is_none());
    }

    fn store(&self, peer: &Peer, instance: Instance) -> Status {
        let refused = instance.sop_instance.ends_with("13");
        self.stored.lock().unwrap().push((peer.calling.clone(), instance));
        match refused {
            true => Status::Refused { code: 0xa900, comment: "E-TEST-13 not this one".into() },
            false => Status::Success,
        }
    }

    fn ended(&self, peer: &Peer, end: &End) {
        assert!(self.open.lock().unwrap().remove(&peer.id).is_some(), "ended without having been opened, or twice");
        self.ends.lock().unwrap().push(end.clone());
    }

    fn refused(&self, _: SocketAddr, reason: &str) {
        self.refused.lock().unwrap().push(reason.into());
    }
}

impl Book {
    fn instances(&self) -> Vec<String> {
        let stored = self.stored.lock().unwrap();
        let mut instances: Vec<_> = stored.iter().map(|(_, instance)| instance.sop_instance.clone()).collect();
        instances.sort();
        instances
    }
}

fn config() -> Config {
    let mut config = Config::new("GANTRY", "127.0.0.1:0".parse().unwrap());
    config.idle = Duration::from_millis(700);
    config
}

/// Runs a receiver around `work`.
fn with<T>(config: Config, work: impl FnOnce(SocketAddr, &Book) -> T) -> (T, Book) {
    let (book, stop) = (Book::default(), AtomicBool::new(false));
    let server = Server::bind(config).unwrap();
    let address = server.address();
    let result = thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve(&book, &stop, Duration::from_secs(5)));
        // Also when `work` panics, or the scope would wait for ever.
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(address, &book)));
        stop.store(true, Ordering::Release);
        serving.join().unwrap();
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    assert!(book.open.lock().unwrap().is_empty(), "every association that was opened has ended");
    (result, book)
}

fn target(address: SocketAddr) -> Target {
    Target {
        address: address.to_string(),
        ae_title: "GANTRY".into(),
        calling: "TEST".into(),
        timeout: Duration::from_secs(5),
        max_pdu_bytes: 16_384,
        tls: None,
    }
}

/// A file with an instance of CT of about so many bytes.
fn file(folder: &Path, instance: &str, bytes: usize) -> PathBuf {
    let mut object = InMemDicomObject::new_empty();
    for (tag, text) in [(tags::SOP_CLASS_UID, uids::CT_IMAGE_STORAGE), (tags::SOP_INSTANCE_UID, instance)] {
        object.put(DataElement::new(tag, VR::UI, PrimitiveValue::from(text)));
    }
    let pixels: Vec<u8> = (0..bytes).map(|i| (i * 31 % 251) as u8).collect();
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(pixels.into())));
    let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let path = folder.join(format!("{instance}.dcm"));
    object.with_meta(meta).unwrap().write_to_file(&path).unwrap();
    path
}

/// Whether the peer closes within the time.
fn closed_within(mut socket: &TcpStream, time: Duration) -> bool {
    socket.set_read_timeout(Some(time)).unwrap();
    let mut buffer = [0; 1024];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn instances_arrive_whole_from_several_associations_and_refusals_come_back_with_their_words() {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = (10..18).map(|n| file(folder.path(), &format!("1.2.{n}"), 50_000 * (n - 9))).collect();
    let (results, book) = with(config(), |address, _| {
        client::echo(&target(address)).unwrap();
        thread::scope(|scope| {
            let files = &files;
            let send = move |half: usize| client::store(&target(address), &files[4 * half..4 * half + 4]);
            let threads = [0, 1].map(|half| scope.spawn(move || send(half)));
            threads.map(|thread| thread.join().unwrap()).concat()
        })
    });
    for (path, result) in files.iter().zip(results) {
        match path.ends_with("1.2.13.dcm") {
            false => assert_eq!(result, Ok(())),
            true => {
                assert_eq!(result, Err(Error::Status { code: 0xa900, comment: "E-TEST-13 not this one".into() }));
            }
        }
    }
    assert_eq!(book.stored.lock().unwrap().len(), 8);
    for (calling, instance) in &*book.stored.lock().unwrap() {
        assert_eq!((calling.as_str(), instance.sop_class.as_str()), ("TEST", uids::CT_IMAGE_STORAGE));
        assert_eq!(instance.transfer_syntax, uids::EXPLICIT_VR_LITTLE_ENDIAN);
        // The data set is the file's, to the byte.
        let bytes = fs::read(folder.path().join(format!("{}.dcm", instance.sop_instance))).unwrap();
        assert!(bytes.ends_with(&instance.data) && instance.data.len() + 400 > bytes.len());
        assert!(instance.begun <= instance.received);
    }
    assert_eq!(*book.ends.lock().unwrap(), [End::Released, End::Released, End::Released]);
}

#[test]
fn who_is_not_on_a_list_is_refused_and_an_instance_over_the_limit_costs_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (small, large) = (file(folder.path(), "1.2.1", 100), file(folder.path(), "1.2.2", 30_000));
    let mut strict = config();
    (strict.calling, strict.check_called) = (vec!["TEST".into()], true);
    strict.max_instance_bytes = 20_000;
    let (_, book) = with(strict, |address, _| {
        for (called, calling) in [("OTHER", "TEST"), ("GANTRY", "NOBODY")] {
            let to = Target { ae_title: called.into(), calling: calling.into(), ..target(address) };
            let rejected = client::echo(&to).unwrap_err();
            assert!(matches!(rejected, Error::Rejected { permanent: true, .. }), "{rejected:?}");
        }
        let results = client::store(&target(address), &[large.clone(), small.clone()]);
        assert!(matches!(&results[0], Err(Error::Status { code: 0xa700, .. })), "{results:?}");
        assert_eq!(results[1], Ok(()));
    });
    assert_eq!(book.instances(), ["1.2.1"]);
    assert_eq!(book.refused.lock().unwrap().len(), 2);
    let mut elsewhere = config();
    elsewhere.peers = vec!["10.0.0.0/8".parse().unwrap()];
    let (_, book) = with(elsewhere, |address, _| {
        assert!(matches!(client::echo(&target(address)), Err(Error::Connection(_))));
    });
    assert_eq!(*book.refused.lock().unwrap(), ["the address is not on the list"]);
}

#[test]
fn idle_and_dripping_connections_keep_nobody_out() {
    let mut few = config();
    (few.max_associations, few.max_unassociated) = (1, 20);
    few.idle = Duration::from_secs(2);
    let (_, book) = with(few, |address, book| {
        let idle: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
        client::echo(&target(address)).unwrap();
        assert!(idle[..50].iter().all(|socket| closed_within(socket, Duration::from_secs(1))), "the oldest give way");
        // One byte at a time, for longer than a PDU may take.
        let mut dripping = TcpStream::connect(address).unwrap();
        let start = Instant::now();
        let mut bytes = [1u8, 0, 0, 0, 200, 0].into_iter().chain(std::iter::repeat(0));
        while start.elapsed() < Duration::from_secs(8) && dripping.write_all(&[bytes.next().unwrap()]).is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
        assert!(start.elapsed() < Duration::from_secs(6), "a drip holds a connection no longer than silence does");
        client::echo(&target(address)).unwrap();
        assert!(book.refused.lock().unwrap().iter().any(|reason| reason.contains("no request")));
    });
    assert_eq!(*book.ends.lock().unwrap(), [End::Released, End::Released]);
}

#[test]
fn more_associations_than_allowed_are_rejected_for_now() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "1.2.1", 100);
    let mut one = config();
    one.max_associations = 1;
    one.idle = Duration::from_secs(20);
    with(one, |address, _| {
        let first = opened(address);
        let second = client::echo(&target(address)).unwrap_err();
        assert!(matches!(second, Error::Rejected { permanent: false, .. }), "{second:?}");
        drop(first);
        // The receiver may need a moment to see that the first is gone.
        let stored = (0..50).any(|_| {
            thread::sleep(Duration::from_millis(20));
            client::store(&target(address), std::slice::from_ref(&path)) == [Ok(())]
        });
        assert!(stored);
    });
}

/// A-ASSOCIATE-RQ for verification, by hand (PS3.8 9.3.2).
fn request() -> Vec<u8> {
    let item = |kind: u8, body: &[u8]| {
        let mut item = vec![kind, 0];
        item.extend((body.len() as u16).to_be_bytes());
        item.extend(body);
        item
    };
    let mut context = vec![1, 0, 0, 0];
    context.extend(item(0x30, uids::VERIFICATION.as_bytes()));
    context.extend(item(0x40, uids::IMPLICIT_VR_LITTLE_ENDIAN.as_bytes()));
    let mut body = vec![0, 1, 0, 0];
    body.extend(b"GANTRY          TEST            ");
    body.extend([0; 32]);
    body.extend(item(0x10, b"1.2.840.10008.3.1.1.1"));
    body.extend(item(0x20, &context));
    body.extend(item(0x50, &item(0x51, &16_384u32.to_be_bytes())));
    let mut pdu = vec![1, 0];
    pdu.extend((body.len() as u32).to_be_bytes());
    pdu.extend(body);
    pdu
}

/// A connection with an association.
fn opened(address: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.write_all(&request()).unwrap();
    let mut header = [0; 6];
    socket.read_exact(&mut header).unwrap();
    assert_eq!(header[0], 2, "A-ASSOCIATE-AC");
    let mut rest = vec![0; u32::from_be_bytes(header[2..].try_into().unwrap()) as usize];
    socket.read_exact(&mut rest).unwrap();
    socket
}

#[test]
fn what_is_not_the_protocol_ends_its_association_and_no_other() {
    let data = |context: u8, control: u8, body: &[u8]| {
        let mut pdu = vec![4, 0];
        pdu.extend((body.len() as u32 + 6).to_be_bytes());
        pdu.extend((body.len() as u32 + 2).to_be_bytes());
        pdu.extend([context, control]);
        pdu.extend(body);
        pdu
    };
    let cases: [(&str, Vec<u8>); 7] = [
        ("4 GiB announced", vec![4, 0, 0xff, 0xff, 0xff, 0xff]),
        ("an unknown type", vec![9, 0, 0, 0, 0, 4, 0, 0, 0, 0]),
        ("a second request", request()),
        ("a context that was not agreed", data(9, 3, &[0; 8])),
        ("a data set without a command", data(1, 2, &[0; 8])),
        ("a command that is none", data(1, 3, &[0xff; 40])),
        ("a PDV longer than its PDU", vec![4, 0, 0, 0, 0, 6, 0, 0, 0xff, 0xff, 1, 3]),
    ];
    let count = cases.len();
    let mut patient = config();
    patient.idle = Duration::from_secs(20);
    let (_, book) = with(patient, |address, _| {
        let mut other = opened(address);
        for (what, bytes) in cases {
            let mut socket = opened(address);
            socket.write_all(&bytes).unwrap();
            assert!(closed_within(&socket, Duration::from_secs(5)), "{what}");
        }
        let mut half = opened(address);
        half.write_all(&data(1, 1, &[0; 40])[..20]).unwrap();
        drop(half);
        // The first association is as alive as before.
        other.write_all(&[5, 0, 0, 0, 0, 4, 0, 0, 0, 0]).unwrap();
        let mut answer = [0; 10];
        other.read_exact(&mut answer).unwrap();
        assert_eq!(answer[0], 6, "A-RELEASE-RP");
        // Before any association.
        for bytes in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &[1, 0, 0xff, 0, 0, 0], &[0; 64]] {
            let mut socket = TcpStream::connect(address).unwrap();
            socket.write_all(bytes).unwrap();
            assert!(closed_within(&socket, Duration::from_secs(5)));
        }
    });
    let ends = book.ends.lock().unwrap();
    assert_eq!(ends.iter().filter(|end| matches!(end, End::Protocol(_))).count(), count, "{ends:?}");
    assert_eq!(ends.iter().filter(|end| **end == End::Lost).count(), 1, "{ends:?}");
    assert_eq!(ends.iter().filter(|end| **end == End::Released).count(), 1, "{ends:?}");
    assert_eq!(book.refused.lock().unwrap().len(), 3);
}

#[test]
fn tls_shows_both_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let files = Files { certificate: certificate.clone(), key, authorities: Some(certificate) };
    let path = [file(folder.path(), "1.2.1", 200_000)];
    let mut encrypted = config();
    encrypted.tls = Some(files.server().unwrap());
    let (_, book) = with(encrypted, |address, _| {
        let mut to = target(address);
        to.address = format!("localhost:{}", address.port());
        assert!(client::store(&to, &path)[0].is_err(), "without TLS");
        to.tls = Some(files.client().unwrap());
        assert_eq!(client::store(&to, &path), [Ok(())]);
    });
    assert_eq!(book.instances(), ["1.2.1"]);
    let missing = Files { key: folder.path().join("none.pem"), ..files };
    assert!(missing.server().unwrap_err().contains("none.pem"));
}

#[test]
fn a_queue_keeps_what_it_took_while_the_destination_is_away_and_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let object = |n: usize| fs::read(file(folder.path(), &format!("1.2.{n}"), 5000)).unwrap();
    let queue_folder = folder.path().join("queue");
    // A port that nobody listens on, as far as we know.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (tell, hear) = mpsc::channel();
    let open = |max: u64| {
        let tell = tell.clone();
        let hear = move |event: &Event| tell.send(event.clone()).unwrap();
        Queue::with_pause(&queue_folder, target(address), max, Duration::from_millis(20), hear)
    };
    let queue = open(1 << 20).unwrap();
    queue.push(&object(1)).unwrap();
    queue.push(&object(2)).unwrap();
    assert!(matches!(hear.recv_timeout(Duration::from_secs(5)), Ok(Event::Retry(_))));
    queue.stop();
    fs::write(queue_folder.join("zzz.tmp"), b"half").unwrap();
    fs::write(queue_folder.join(format!("{:016x}.dcm", 9)), b"no DICOM").unwrap();
    let queue = open(20_000).unwrap();
    queue.push(&object(13)).unwrap();
    assert!(matches!(queue.push(&[0; 20_000]), Err(QueueError::Full { .. })));
    let mut here = config();
    here.listen = address;
    let (_, book) = with(here, |_, _| {
        let start = Instant::now();
        while queue.waiting() > 0 && start.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(10));
        }
    });
    assert_eq!(queue.waiting(), 0);
    queue.stop();
    let mut instances = book.instances();
    instances.dedup();
    assert_eq!(instances, ["1.2.1", "1.2.13", "1.2.2"]);
    let events: Vec<Event> = hear.try_iter().collect();
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Sent { .. })).count(), 2, "{events:?}");
    let names = |folder: &str| fs::read_dir(queue_folder.join(folder)).unwrap().count();
    assert_eq!((names("refused"), names("damaged")), (2, 2), "each with a note");
    assert_eq!(fs::read_dir(&queue_folder).unwrap().count(), 2, "only those two folders are left");
}

#[test]
fn dcmtk_sends_to_us_and_takes_from_us() {
    if Command::new("storescu").arg("--version").output().is_err() {
        println!("skipped: no dcmtk (Debian: apt-get install dcmtk)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = (1..5).map(|n| file(folder.path(), &format!("1.2.{n}"), 100_000)).collect();
    let (_, book) = with(config(), |address, _| {
        let port = address.port().to_string();
        let run = |program: &str, args: &[&str]| {
            let mut command = Command::new(program);
            let output = command.args(["-aec", "GANTRY", "127.0.0.1", &port]).args(args).output().unwrap();
            assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        };
        run("echoscu", &[]);
        run("storescu", &files.iter().map(|path| path.to_str().unwrap()).collect::<Vec<_>>());
    });
    assert_eq!(book.instances(), ["1.2.1", "1.2.2", "1.2.3", "1.2.4"]);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let taken = folder.path().join("taken");
    fs::create_dir(&taken).unwrap();
    let mut storescp = Command::new("storescp").arg("-od").arg(&taken).arg(port.to_string()).spawn().unwrap();
    let to = Target { address: format!("127.0.0.1:{port}"), ..target("127.0.0.1:1".parse().unwrap()) };
    let there = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(50));
        client::echo(&to).is_ok()
    });
    let results = client::store(&to, &files);
    storescp.kill().unwrap();
    storescp.wait().unwrap();
    assert!(there && results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(fs::read_dir(&taken).unwrap().count(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever comes, the receiver neither panics nor hangs, and every association ends once.
    #[test]
    fn random_bytes_do_no_harm(
        flips in proptest::collection::vec((0usize..400, any::<u8>()), 0..12),
        tail in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut short = config();
        short.idle = Duration::from_millis(100);
        with(short, |address, _| {
            let mut bytes = request();
            bytes.extend(&tail);
            for (place, value) in flips {
                let place = place % bytes.len();
                bytes[place] = value;
            }
            let mut socket = TcpStream::connect(address).unwrap();
            // The receiver may close before all is written.
            let _ = socket.write_all(&bytes);
            closed_within(&socket, Duration::from_millis(500));
            client::echo(&target(address)).unwrap();
        });
    }
}
