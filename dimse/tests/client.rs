//! The sender against receivers that behave and that do not.

mod peer;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use dicom_ul::pdu::AssociationRJResult;
use dimse::{
    client::{Error, Target, echo, store, store_each},
    tls::Files,
};
use peer::{CT, EXPLICIT, Peer, Reply, Storescp, Welcome, data_set, eventually, file, noise, real, target};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// Files 1.2.0, 1.2.1, ... in a folder.
fn files(folder: &Path, count: usize) -> Vec<PathBuf> {
    (0..count)
        .map(|number| {
            let path = folder.join(format!("{number}.dcm"));
            fs::write(&path, file(CT, &format!("1.2.{number}"), EXPLICIT, &noise(100 + 2 * number))).unwrap();
            path
        })
        .collect()
}

#[test]
fn objects_arrive_whole_in_pdus_that_the_peer_takes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.dcm");
    let content = noise(3_000_002);
    fs::write(&path, file(CT, "1.2.3", EXPLICIT, &content)).unwrap();
    for (theirs, ours, limit) in
        [(1024, 1 << 16, 1024), (0, 1 << 16, 1 << 16), (16_383, 1 << 20, 16_383), (1 << 18, 4096, 4096)]
    {
        let peer = Peer::start(move |_| Welcome::Accept(theirs), |_, _| Reply::Status(0));
        let mut target = target(&peer.address);
        target.max_pdu_bytes = ours;
        assert_eq!(store(&target, std::slice::from_ref(&path)), [Ok(())]);
        assert!(*peer.received.lock().unwrap() == [("1.2.3".into(), content.clone())]);
        let largest = peer.largest.load(Ordering::SeqCst);
        assert!((limit - 1..=limit).contains(&largest), "{largest} of {limit}");
        assert_eq!(peer.released.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn more_than_128_contexts_take_several_associations() {
    let folder = tempfile::tempdir().unwrap();
    let (peer, mut paths) = (Peer::obliging(), vec![]);
    for number in 0..300 {
        let path = folder.path().join(number.to_string());
        fs::write(&path, file(&format!("1.2.3.{number}"), &format!("1.2.{number}"), EXPLICIT, &[1; 10])).unwrap();
        paths.push(path);
    }
    assert!(store(&target(&peer.address), &paths).iter().all(Result::is_ok));
    assert_eq!(peer.instances(), (0..300).map(|number| format!("1.2.{number}")).collect::<Vec<_>>());
    assert_eq!(peer.associations.load(Ordering::SeqCst), 3);
}

#[test]
fn rejected_associations_say_whether_to_come_back() {
    let folder = tempfile::tempdir().unwrap();
    for (result, permanent) in [(AssociationRJResult::Permanent, true), (AssociationRJResult::Transient, false)] {
        let peer = Peer::start(
            {
                let result = result.clone();
                move |_| Welcome::Reject(result.clone())
            },
            |_, _| Reply::Status(0),
        );
        let expected = Error::Rejected { permanent, reason: "called AE title not recognized".into() };
        assert_eq!(expected.transient(), !permanent);
        assert_eq!(echo(&target(&peer.address)), Err(expected.clone()));
        assert_eq!(store(&target(&peer.address), &files(folder.path(), 3)), vec![Err(expected); 3]);
    }
}

#[test]
fn a_context_that_is_not_accepted_concerns_its_objects_only() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(|_| Welcome::NoContext, |_, _| Reply::Status(0));
    let refusal = Error::NotAccepted { class: CT.into(), syntax: EXPLICIT.into() };
    assert_eq!(store(&target(&peer.address), &files(folder.path(), 2)), vec![Err(refusal.clone()); 2]);
    assert!(!refusal.transient());
    assert_eq!(peer.released.load(Ordering::SeqCst), 1);
}

#[test]
fn a_status_concerns_one_object() {
    let folder = tempfile::tempdir().unwrap();
    for (code, transient) in [
        (0xA700, true),
        (0xA7FF, true),
        (0x0110, true),
        (0xA900, false),
        (0xC123, false),
        (0x0122, false),
        (0x0124, false),
    ] {
        let reply = move |_, instance: &str| Reply::Status(if instance == "1.2.1" { code } else { 0 });
        let peer = Peer::start(|_| Welcome::Accept(0), reply);
        let refusal = Error::Status { code, comment: "so it is".into() };
        assert_eq!(refusal.transient(), transient, "{refusal}");
        assert_eq!(store(&target(&peer.address), &files(folder.path(), 3)), [Ok(()), Err(refusal), Ok(())]);
        assert_eq!(peer.associations.load(Ordering::SeqCst), 1);
    }
    for warning in [0xB000, 0xB006, 0xB007] {
        let peer = Peer::start(|_| Welcome::Accept(0), move |_, _| Reply::Status(warning));
        assert_eq!(store(&target(&peer.address), &files(folder.path(), 1)), [Ok(())]);
    }
}

#[test]
fn an_abort_loses_the_association_and_says_where() {
    let folder = tempfile::tempdir().unwrap();
    for abort in [Reply::Abort, Reply::AbortMidway, Reply::WrongMessage] {
        let reply = move |_, instance: &str| if instance == "1.2.1" { abort } else { Reply::Status(0) };
        let peer = Peer::start(|_| Welcome::Accept(1024), reply);
        let paths = files(folder.path(), 4);
        // Large enough to be under way still when the abort comes.
        fs::write(&paths[1], file(CT, "1.2.1", EXPLICIT, &noise(5_000_000))).unwrap();
        let results = store(&target(&peer.address), &paths);
        assert_eq!(results[0], Ok(()));
        let expected = if abort == Reply::WrongMessage { "against the protocol" } else { "lost" };
        assert!(results[1].as_ref().unwrap_err().to_string().contains(expected), "{:?}", results[1]);
        for result in &results[2..] {
            assert!(matches!(result, Err(Error::NotSent(_))), "{result:?}");
        }
        assert!(abort == Reply::WrongMessage || peer.instances() == ["1.2.0"]);
    }
}

#[test]
fn a_peer_that_says_nothing_or_too_little_runs_into_the_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let paths = files(folder.path(), 1);
    let peers = [
        Peer::start(|_| Welcome::Silence, |_, _| Reply::Status(0)),
        Peer::start(|_| Welcome::Drip, |_, _| Reply::Status(0)),
        Peer::start(|_| Welcome::Accept(0), |_, _| Reply::Silence),
    ];
    for peer in peers {
        let mut target = target(&peer.address);
        target.timeout = Duration::from_millis(300);
        let results = store(&target, &paths);
        let Err(error @ Error::Lost(_)) = &results[0] else { panic!("{results:?}") };
        assert!(error.to_string().contains("no answer within 0.3 s") && error.transient(), "{error}");
    }
}

#[test]
fn nobody_there() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for address in [address.as_str(), "127.0.0.1", "no.such.host.invalid:104"] {
        let error = echo(&target(address)).unwrap_err();
        assert!(matches!(error, Error::Connect { .. }) && error.to_string().contains(address), "{error}");
    }
    let mut long = target(&Peer::obliging().address);
    long.ae_title = "LONGER THAN SIXTEEN".into();
    assert!(matches!(echo(&long), Err(Error::Protocol(_))));
}

#[test]
fn files_that_are_none_do_not_hold_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::obliging();
    let mut paths = files(folder.path(), 1);
    let whole = file(CT, "1.2.9", EXPLICIT, &[0; 64]);
    let mut greedy = whole.clone();
    greedy[140..144].copy_from_slice(&u32::MAX.to_le_bytes());
    let bad = [
        ("empty", vec![]),
        ("text", b"no DICOM at all".repeat(100)),
        ("cut in the meta group", whole[..180].to_vec()),
        ("no data set", whole[..whole.len() - 64].to_vec()),
        ("odd", whole[..whole.len() - 1].to_vec()),
        ("greedy", greedy),
        ("class", file("my class", "1.2", EXPLICIT, &[0; 64])),
        ("instance", file(CT, "", EXPLICIT, &[0; 64])),
    ];
    for (name, bytes) in &bad {
        paths.push(folder.path().join(name));
        fs::write(paths.last().unwrap(), bytes).unwrap();
    }
    paths.push(folder.path().join("absent"));
    paths.push(folder.path().to_owned());
    paths.extend(files(folder.path(), 2).pop());
    let results = store(&target(&peer.address), &paths);
    assert_eq!((&results[0], results.last().unwrap()), (&Ok(()), &Ok(())));
    for (path, result) in paths.iter().zip(&results).skip(1).take(bad.len() + 2) {
        let Err(Error::File(reason)) = result else { panic!("{}: {result:?}", path.display()) };
        assert!(reason.contains(path.to_str().unwrap()), "{reason}");
    }
    assert_eq!(peer.instances(), ["1.2.0", "1.2.1"]);
}

#[test]
fn store_each_stops_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::obliging();
    let mut told = vec![];
    store_each(&target(&peer.address), &files(folder.path(), 5), |index, result, _| {
        told.push((index, result));
        index < 1
    });
    assert_eq!(told, [(0, Ok(())), (1, Ok(()))]);
    assert_eq!(peer.instances().len(), 2);
}

/// An answer with any one byte changed, or cut anywhere, is an error or good, never a panic.
#[test]
fn damaged_answers_do_no_harm() {
    let mut answer = vec![];
    let accepted = dicom_ul::pdu::AssociationAC {
        protocol_version: 1,
        calling_ae_title: "GANTRY".into(),
        called_ae_title: "ARCHIVE".into(),
        application_context_name: "1.2.840.10008.3.1.1.1".into(),
        presentation_contexts: vec![dicom_ul::pdu::PresentationContextResult {
            id: 1,
            reason: dicom_ul::pdu::PresentationContextResultReason::Acceptance,
            transfer_syntax: EXPLICIT.into(),
        }],
        user_variables: vec![dicom_ul::pdu::UserVariableItem::MaxLength(16_384)],
    };
    dicom_ul::write_pdu(&mut answer, &accepted.into()).unwrap();
    let mut answers: Vec<&'static [u8]> =
        vec![b"HTTP/1.1 400 Bad Request\r\n\r\n", &[3, 0, 0, 0, 0, 4, 0, 9, 9, 9], &[7, 0, 0, 0, 0, 0]];
    for place in 0..answer.len() {
        answers.push(answer[..place].to_vec().leak());
        for change in [0x01, 0x80, 0xFF] {
            let mut changed = answer.clone();
            changed[place] ^= change;
            answers.push(changed.leak());
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (paths, count) = (files(folder.path(), 1), answers.len());
    let peer = Peer::start(move |number| Welcome::Bytes(answers[number]), |_, _| Reply::Status(0));
    for _ in 0..count {
        // The peer closes the connection after its answer, so nothing can succeed.
        assert!(store(&target(&peer.address), &paths)[0].is_err());
    }
}

#[test]
fn storescp_gets_what_the_files_hold() {
    let arrived = tempfile::tempdir().unwrap();
    let paths = real();
    let Some(receiver) = Storescp::start(arrived.path(), &["-pm"]) else { return };
    let target = target(&receiver.address());
    peer::answers(&target);
    let mut expected = vec![];
    for (path, result) in paths.iter().zip(store(&target, &paths)) {
        let bytes = fs::read(path).unwrap();
        if &bytes[128..132] != b"DICM" {
            assert!(matches!(result, Err(Error::File(_))), "{}: {result:?}", path.display());
            continue;
        }
        result.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut content = data_set(&bytes).to_vec();
        // A deflated data set may be odd in a file, not on the wire.
        content.resize(content.len().next_multiple_of(2), 0);
        expected.push(content);
    }
    expected.sort();
    assert!(receiver.data_sets() == expected, "{} files", expected.len());
    println!("{} files arrived", expected.len());
}

/// Our certificate and key and the authority's certificate.
fn identity(folder: &Path, name: &str, authority: &Issuer<KeyPair>, trusted: &str) -> Files {
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut parameters = CertificateParams::new(names).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, name);
    let certificate = parameters.signed_by(&key, authority).unwrap();
    let write = |suffix: &str, text: &str| {
        let path = folder.join(format!("{name}.{suffix}"));
        fs::write(&path, text).unwrap();
        path
    };
    Files {
        certificate: write("crt", &certificate.pem()),
        key: write("key", &key.serialize_pem()),
        authorities: Some(write("ca", trusted)),
    }
}

fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let mut parameters = CertificateParams::new(vec![]).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap().pem();
    (Issuer::new(parameters, key), certificate)
}

#[test]
fn tls_lets_in_whom_both_sides_trust() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, text) = authority("Ours");
    let (others, other_text) = authority("Theirs");
    let files_of = |name: &str, by: &Issuer<KeyPair>, trusted: &str| identity(folder.path(), name, by, trusted);
    let server = files_of("server", &ours, &text).server().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = Peer::start_with(
        listener,
        Some(server),
        (Box::new(|_| Welcome::Accept(16_384)), Box::new(|_, _| Reply::Status(0))),
    );
    let with = |files: &Files, address: &str| {
        let mut target = target(address);
        target.tls = Some(files.client().unwrap());
        target
    };
    let good = files_of("good", &ours, &text);
    let paths = files(folder.path(), 3);
    let by_name = peer.address.replace("127.0.0.1", "localhost");
    assert!(store(&with(&good, &peer.address), &paths).iter().all(Result::is_ok));
    assert!(store(&with(&good, &by_name), &paths).iter().all(Result::is_ok));
    assert_eq!(peer.instances().len(), 6);
    // The peer does not know us: TLS 1.3 tells only after the handshake, so this may be a lost association.
    let error = echo(&with(&files_of("unknown", &others, &text), &peer.address)).unwrap_err();
    assert!(matches!(error, Error::Connect { .. } | Error::Lost(_)), "{error}");
    // We do not know the peer.
    let error = echo(&with(&files_of("mistrusting", &ours, &other_text), &peer.address)).unwrap_err();
    assert!(matches!(error, Error::Connect { .. }) && error.to_string().contains("UnknownIssuer"), "{error}");
    // The peer does not speak TLS, or we do not.
    let plain = Peer::obliging();
    let mut hasty = with(&good, &plain.address);
    hasty.timeout = Duration::from_millis(300);
    assert!(matches!(echo(&hasty), Err(Error::Connect { .. })));
    assert!(echo(&target(&peer.address)).is_err());
}

#[test]
fn storescp_speaks_tls_with_us() {
    let folder = tempfile::tempdir().unwrap();
    let arrived = tempfile::tempdir().unwrap();
    let (ours, text) = authority("Ours");
    let theirs = identity(folder.path(), "server", &ours, &text);
    let client = identity(folder.path(), "client", &ours, &text);
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let authorities = path(theirs.authorities.as_ref().unwrap());
    let arguments = ["+tls", &path(&theirs.key), &path(&theirs.certificate), "+cf", &authorities];
    let Some(receiver) = Storescp::start(arrived.path(), &arguments) else { return };
    let mut target = target(&receiver.address());
    target.tls = Some(client.client().unwrap());
    let paths = files(folder.path(), 5);
    assert_eq!(store(&target, &paths), vec![Ok(()); 5]);
    let mut expected: Vec<_> = paths.iter().map(|path| data_set(&fs::read(path).unwrap()).to_vec()).collect();
    expected.sort();
    assert!(receiver.data_sets() == expected);
}

#[test]
fn bad_certificate_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, text) = authority("Ours");
    let good = identity(folder.path(), "good", &ours, &text);
    let other = identity(folder.path(), "other", &ours, &text);
    let junk = folder.path().join("junk");
    fs::write(&junk, "junk").unwrap();
    let absent = folder.path().join("absent");
    let broken = folder.path().join("broken");
    fs::write(&broken, "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n").unwrap();
    for files in [
        Files { certificate: junk.clone(), ..good.clone() },
        Files { certificate: absent.clone(), ..good.clone() },
        Files { certificate: good.key.clone(), ..good.clone() },
        Files { key: junk.clone(), ..good.clone() },
        Files { key: absent.clone(), ..good.clone() },
        Files { key: good.certificate.clone(), ..good.clone() },
        Files { key: other.key.clone(), ..good.clone() },
        Files { authorities: Some(junk.clone()), ..good.clone() },
        Files { authorities: Some(absent.clone()), ..good.clone() },
        Files { authorities: Some(broken.clone()), ..good.clone() },
    ] {
        let wrong = [&files.certificate, &files.key, files.authorities.as_ref().unwrap()]
            .into_iter()
            .find(|path| ![&good.certificate, &good.key, good.authorities.as_ref().unwrap()].contains(path))
            .unwrap_or(&files.key);
        for error in [files.client().map(drop).unwrap_err(), files.server().map(drop).unwrap_err()] {
            assert!(error.contains(wrong.to_str().unwrap()), "{error}: expected {}", wrong.display());
            println!("{error}");
        }
    }
    assert!(Files { authorities: None, ..good.clone() }.client().is_err());
    let _: Arc<_> = Files { authorities: None, ..good }.server().unwrap();
}

#[test]
fn an_answer_has_its_timeout_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.dcm");
    fs::write(&path, file(CT, "1.2.3", EXPLICIT, &noise(100))).unwrap();
    let peer = Peer::start(|_| Welcome::Accept(0), |_, _| Reply::Nothings);
    let target = Target { timeout: Duration::from_secs(1), ..target(&peer.address) };
    let begun = Instant::now();
    let results = store(&target, &[path]);
    assert!(matches!(&results[0], Err(Error::Lost(reason)) if reason.contains("no answer within")), "{results:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// PS3.8 9.2.3, states 9 and 11: whoever asked for the association answers first.
#[test]
fn both_may_ask_for_the_release() {
    let peer = Peer::obliging();
    peer.collides.store(true, Ordering::SeqCst);
    echo(&target(&peer.address)).unwrap();
    eventually("released", || peer.released.load(Ordering::SeqCst) == 1);
}
