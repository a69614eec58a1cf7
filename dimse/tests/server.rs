//! The receiver against clients that behave and clients that do not, PDU by PDU.

mod raw;

use std::{
    io::{Read, Write},
    sync::atomic::Ordering,
    thread,
    time::Duration,
};

use dicom_ul::pdu::{
    AbortRQSource, AssociationRJ, AssociationRJResult, AssociationRJServiceProviderPresentationReason as Presentation,
    AssociationRJServiceUserReason as User, AssociationRJSource as Source,
    PDataValueType::{Command, Data},
    Pdu, PresentationContextResultReason as Answer, UserVariableItem,
};
use dimse::server::{Config, End, Server};
use raw::*;

/// A data set of this many bytes; the receiver does not look into it.
fn data(length: usize) -> Vec<u8> {
    (0..length).map(|i| ((i * i) >> 3) as u8).collect()
}

fn aborted(answer: Option<Pdu>) -> bool {
    matches!(answer, Some(Pdu::AbortRQ { source: AbortRQSource::ServiceProvider(_) }))
}

/// Sends these bytes on an association; the receiver must abort it and say this.
fn breaks(bytes: &[u8], what: &str) {
    serve(config(), |address, log, _| {
        let mut client = Client::associated(address);
        client.0.write_all(bytes).unwrap();
        assert!(aborted(client.receive()), "{what}");
        let End::Protocol(message) = log.end() else { panic!("{what}: {:?}", log.events()) };
        assert!(message.contains(what), "{message}");
    });
}

#[test]
fn contexts_are_negotiated_one_by_one() {
    serve(config(), |address, _, _| {
        let mut client = Client::connect(address);
        let find = "1.2.840.10008.5.1.4.1.2.1.1";
        let mut request = request(&[VERIFICATION, find, CT, MR], &["1.2.3", IMPLICIT, EXPLICIT]);
        request.presentation_contexts[3].transfer_syntaxes = vec!["1.2.3".to_owned()];
        client.send(&request.into());
        let Some(Pdu::AssociationAC(answer)) = client.receive() else { panic!() };
        let results: Vec<_> = answer.presentation_contexts.iter().map(|r| (r.id, r.reason.clone())).collect();
        let (no_class, no_syntax) = (Answer::AbstractSyntaxNotSupported, Answer::TransferSyntaxesNotSupported);
        assert_eq!(results, [(1, Answer::Acceptance), (3, no_class), (5, Answer::Acceptance), (7, no_syntax)]);
        // The client's order counts.
        assert_eq!(answer.presentation_contexts[2].transfer_syntax, IMPLICIT);
        assert!(answer.user_variables.contains(&UserVariableItem::MaxLength(128 << 10)));
        client.release();
    });
}

#[test]
fn echoes_and_instances_are_answered() {
    let log = serve(config(), |address, _, _| {
        let mut client = Client::associated(address);
        assert_eq!(client.echo(), 0);
        let answer = client.store(3, "1.2.3", &data(123_456));
        assert_eq!(status(&answer), 0);
        assert_eq!(element(&answer, 0x100), Some(vec![1, 0x80]));
        assert_eq!(element(&answer, 0x120), Some(vec![9, 0]));
        assert_eq!(element(&answer, 0x2), Some(even(CT)));
        assert_eq!(element(&answer, 0x1000), Some(even("1.2.3")));
        let answer = client.store(5, "1.2.3.4", &data(7));
        assert_eq!(status(&answer), 0xc123);
        let comment = String::from_utf8(element(&answer, 0x902).unwrap()).unwrap();
        assert!(comment.len() == 64 && comment.starts_with("keine MR ?ber hier und"), "{comment:?}");
        client.release();
    });
    assert_eq!(log.end(), End::Released);
    let [ct, mr] = &log.instances()[..] else { panic!() };
    assert_eq!((ct.sop_class.as_str(), ct.sop_instance.as_str()), (CT, "1.2.3"));
    assert_eq!(ct.transfer_syntax, EXPLICIT);
    assert_eq!(ct.data, data(123_456));
    assert!(ct.begun < ct.received);
    assert_eq!(mr.data, data(7));
}

#[test]
fn fragments_may_be_cut_and_packed_anyhow() {
    let log = serve(config(), |address, _, _| {
        let mut client = Client::associated(address);
        let (command, set) = (store_command(CT, "1.2.3"), data(60));
        let cut = |kind: dicom_ul::pdu::PDataValueType, bytes: &[u8]| {
            let count = bytes.len().div_ceil(7);
            let values = bytes.chunks(7).enumerate().map(|(i, piece)| value(3, kind.clone(), piece, i + 1 == count));
            values.collect::<Vec<_>>()
        };
        // A fragment per PDU; then all in one PDU, followed by an echo in the same.
        for data in [cut(Command, &command), cut(Data, &set)].concat() {
            client.send(&Pdu::PData { data: vec![data] });
        }
        assert_eq!(status(&client.receive().unwrap()), 0);
        let echo = value(1, Command, &echo_command(), true);
        client.send(&Pdu::PData { data: [cut(Command, &command), cut(Data, &set), vec![echo]].concat() });
        assert_eq!(status(&client.receive().unwrap()), 0);
        assert_eq!(status(&client.receive().unwrap()), 0);
        client.release();
    });
    let instances = log.instances();
    assert_eq!(instances.len(), 2);
    assert!(instances.iter().all(|instance| instance.data == data(60)));
}

#[test]
fn responses_keep_to_the_length_that_the_client_takes() {
    serve(config(), |address, _, _| {
        let mut client = Client::connect(address);
        let mut request = request(&[VERIFICATION], &[IMPLICIT]);
        request.user_variables[0] = UserVariableItem::MaxLength(20);
        client.send(&request.into());
        client.receive().unwrap();
        client.send(&whole(1, Command, &echo_command()));
        let mut together = Vec::new();
        loop {
            let answer = client.receive().unwrap();
            assert!(encode(&answer).len() <= 6 + 20);
            let Pdu::PData { data } = answer else { panic!("{answer:?}") };
            together.extend(data[0].data.clone());
            if data[0].is_last {
                break;
            }
        }
        assert_eq!(status(&whole(1, Command, &together)), 0);
    });
}

#[test]
fn associations_run_side_by_side() {
    let log = serve(config(), |address, _, _| {
        let mut clients: Vec<_> = (0..8).map(|_| Client::associated(address)).collect();
        for round in 0..20 {
            for (i, client) in clients.iter_mut().enumerate() {
                let command = store_command(CT, &format!("1.{i}.{round}"));
                client.send(&whole(3, Command, &command));
            }
            for (i, client) in clients.iter_mut().enumerate() {
                client.send(&whole(3, Data, &data(1000 * i + round)));
            }
            for client in &mut clients {
                assert_eq!(status(&client.receive().unwrap()), 0);
            }
        }
        clients.iter_mut().for_each(Client::release);
    });
    let instances = log.instances();
    assert_eq!(instances.len(), 160);
    for instance in instances {
        let numbers: Vec<usize> = instance.sop_instance.split('.').map(|n| n.parse().unwrap()).collect();
        assert_eq!(instance.data, data(1000 * numbers[1] + numbers[2]));
    }
}

#[test]
fn strangers_are_rejected_and_told_why() {
    let rejected = |config: Config, reason: User| {
        let log = serve(config, |address, _, _| {
            let mut client = Client::connect(address);
            client.send(&request(&[VERIFICATION], &[IMPLICIT]).into());
            let rejection =
                AssociationRJ { result: AssociationRJResult::Permanent, source: Source::ServiceUser(reason) };
            assert_eq!(client.receive(), Some(rejection.into()));
            assert_eq!(client.receive(), None);
        });
        log.refusal()
    };
    let other = Config { ae_title: "OTHER".to_owned(), ..config() };
    assert!(rejected(other.clone(), User::CalledAETitleNotRecognized).contains("GANTRY"));
    let calling = Config { calling: vec!["CT1".to_owned()], ..config() };
    assert!(rejected(calling.clone(), User::CallingAETitleNotRecognized).contains("SCANNER"));
    for allowed in [
        Config { check_called: false, ..other },
        Config { calling: vec!["CT1".to_owned(), "SCANNER".to_owned()], ..calling },
        Config { peers: vec!["127.0.0.0/8".parse().unwrap()], ..config() },
    ] {
        serve(allowed, |address, _, _| Client::associated(address).release());
    }
    let elsewhere = Config { peers: vec!["192.0.2.0/24".parse().unwrap()], ..config() };
    let log = serve(elsewhere, |address, _, _| assert_eq!(Client::connect(address).receive(), None));
    assert!(log.refusal().contains("address"));
}

#[test]
fn even_or_repeated_context_ids_are_rejected() {
    for (a, b) in [(2, 1), (3, 3)] {
        serve(config(), |address, log, _| {
            let mut client = Client::connect(address);
            let mut request = request(&[VERIFICATION, CT], &[IMPLICIT]);
            (request.presentation_contexts[0].id, request.presentation_contexts[1].id) = (a, b);
            client.send(&request.into());
            assert!(matches!(client.receive(), Some(Pdu::AssociationRJ(_))));
            assert!(log.refusal().contains("presentation context ID"));
        });
    }
}

#[test]
fn a_further_association_is_rejected_until_one_ends() {
    serve(Config { max_associations: 2, ..config() }, |address, log, _| {
        let (mut first, mut second) = (Client::associated(address), Client::associated(address));
        let mut third = Client::connect(address);
        third.send(&request(&[VERIFICATION], &[IMPLICIT]).into());
        let source = Source::ServiceProviderPresentation(Presentation::LocalLimitExceeded);
        let rejection = AssociationRJ { result: AssociationRJResult::Transient, source };
        assert_eq!(third.receive(), Some(rejection.into()));
        assert!(log.refusal().contains("2 associations"));
        assert_eq!((first.echo(), second.echo()), (0, 0));
        // The place is free as soon as the release is answered, even if the client keeps its connection.
        first.send(&Pdu::ReleaseRQ);
        assert_eq!(first.receive(), Some(Pdu::ReleaseRP));
        Client::associated(address).release();
        second.release();
    });
}

#[test]
fn a_hundred_idle_connections_do_not_keep_a_client_out() {
    let most = Config { max_unassociated: 20, ..config() };
    let log = serve(most, |address, log, _| {
        let idle: Vec<_> = (0..100).map(|_| Client::connect(address)).collect();
        let mut client = Client::associated(address);
        for i in 0..10 {
            assert_eq!(status(&client.store(3, &format!("1.{i}"), &data(100_000))), 0);
        }
        let more: Vec<_> = (0..100).map(|_| Client::connect(address)).collect();
        assert_eq!(client.echo(), 0);
        client.release();
        assert!(log.refusal().contains("made way"));
        drop((idle, more));
    });
    assert_eq!(log.instances().len(), 10);
    let refused = log.events().iter().filter(|event| matches!(event, Event::Refused(_))).count();
    // Some of the last may not have been accepted before the receiver stopped.
    assert!((100..=200).contains(&refused), "{refused}");
}

#[test]
fn garbage_is_refused() {
    for bytes in
        [&b"GET / HTTP/1.1\r\nHost: gantry\r\n\r\n"[..], &[0; 100], &[0xff; 100], &[7, 0, 0, 0, 0, 4, 0, 0, 0, 0]]
    {
        serve(config(), |address, log, _| {
            let mut client = Client::connect(address);
            client.0.write_all(bytes).unwrap();
            assert!(aborted(client.receive()));
            assert_eq!(client.receive(), None);
            assert!(log.refusal().contains("no A-ASSOCIATE-RQ"));
        });
    }
}

#[test]
fn what_is_out_of_order_ends_the_association() {
    let store = encode(&whole(3, Command, &store_command(CT, "1.2")));
    breaks(&encode(&whole(9, Command, &echo_command())), "presentation context 9");
    breaks(&encode(&whole(1, Data, &data(10))), "without a command");
    breaks(&[&store[..], &store].concat(), "where a data set was to follow");
    breaks(&[&store[..], &encode(&whole(5, Data, &[0; 2]))].concat(), "amid a message");
    breaks(&[&store[..], &encode(&Pdu::ReleaseRQ)].concat(), "ReleaseRQ");
    breaks(&encode(&request(&[CT], &[IMPLICIT]).into()), "type 0x01");
    breaks(&[9, 0, 0, 0, 0, 0], "type 0x09");
    breaks(&encode(&whole(1, Command, &[1, 2, 3])), "after its last element");
    breaks(&encode(&whole(1, Command, &[0, 0, 2, 0, 255, 255, 255, 255])), "of 4294967295 bytes");
    breaks(&encode(&whole(1, Command, &[8, 0, 2, 0, 0, 0, 0, 0])), "expected group 0000");
    breaks(&encode(&whole(1, Command, &command(&[(0x100, &[0x30, 0])]))), "data set type");
    breaks(&encode(&whole(1, Command, &command(&[(0x800, &[1, 1])]))), "command field");
    breaks(&encode(&whole(1, Command, &command(&[(0x100, &[0x30, 0]), (0x800, &[1, 1])]))), "message ID");
    breaks(&encode(&whole(1, Command, &command(&[(0x100, &[0x30, 0x80]), (0x800, &[1, 1])]))), "response");
    let piece = encode(&Pdu::PData { data: vec![value(1, Command, &[0; 10_000], false)] });
    breaks(&piece.repeat(2), "more than 16384 bytes");
    breaks(&[4, 0, 0, 0, 0, 6, 0, 0, 0, 200, 1, 3], "cannot be decoded");
}

#[test]
fn a_pdu_of_4_gib_is_not_waited_for() {
    breaks(&[4, 0, 255, 255, 255, 255], "4294967295 bytes");
    breaks(&[&[4, 0, 0, 2, 0, 1][..], &[0; 5000]].concat(), "131073 bytes, expected at most 131072");
    serve(config(), |address, log, _| {
        let mut client = Client::connect(address);
        client.0.write_all(&[1, 0, 255, 255, 255, 255]).unwrap();
        assert!(aborted(client.receive()));
        assert!(log.refusal().contains("4294967295"));
    });
}

#[test]
fn a_byte_at_a_time_is_not_enough() {
    let soon = Config { idle: Duration::from_secs(1), ..config() };
    serve(soon.clone(), |address, log, _| {
        let mut client = Client::associated(address);
        // Would take 50 s.
        let bytes = encode(&whole(3, Data, &[0; 1000]));
        for byte in bytes {
            if client.0.write_all(&[byte]).is_err() || log.events().len() > 1 {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(log.end(), End::TimedOut);
        assert!(log.instances().is_empty());
    });
    serve(soon.clone(), |address, log, _| {
        let mut client = Client::connect(address);
        for byte in encode(&request(&[VERIFICATION; 100], &[IMPLICIT]).into()) {
            if client.0.write_all(&[byte]).is_err() || !log.events().is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(log.refusal(), "no A-ASSOCIATE-RQ in time");
    });
    serve(soon, |address, log, _| {
        let mut silent = Client::associated(address);
        assert!(aborted(silent.receive()));
        assert_eq!(log.end(), End::TimedOut);
    });
}

#[test]
fn a_client_that_takes_no_answers_is_given_up() {
    serve(Config { idle: Duration::from_secs(1), ..config() }, |address, log, _| {
        let mut client = Client::associated(address);
        client.0.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        let echoes = encode(&Pdu::PData { data: vec![value(1, Command, &echo_command(), true); 1000] });
        while log.events().len() < 2 {
            let _ = client.0.write_all(&echoes);
        }
        assert_eq!(log.end(), End::TimedOut);
    });
}

#[test]
fn a_client_that_goes_away_is_lost() {
    let request = encode(&request(&[CT], &[IMPLICIT]).into());
    for cut in [0, 1, 6, 7, 80, request.len() - 1] {
        serve(config(), |address, log, _| {
            Client::connect(address).0.write_all(&request[..cut]).unwrap();
            assert_eq!(log.refusal(), "closed before an A-ASSOCIATE-RQ");
        });
    }
    let message = [
        encode(&whole(3, Command, &store_command(CT, "1.2"))),
        encode(&Pdu::PData { data: vec![value(3, Data, &data(5000), false)] }),
    ]
    .concat();
    for cut in [0, 3, 50, message.len() - 4000, message.len()] {
        let log = serve(config(), |address, log, _| {
            let mut client = Client::associated(address);
            client.0.write_all(&message[..cut]).unwrap();
            drop(client);
            assert_eq!(log.end(), End::Lost);
        });
        assert!(log.instances().is_empty());
    }
    // By the user, by the provider, and by whom the standard does not know (PS3.8 9.3.8).
    for [source, reason] in [[0, 0], [2, 6], [9, 9]] {
        serve(config(), |address, log, _| {
            let mut client = Client::associated(address);
            client.0.write_all(&[7, 0, 0, 0, 0, 4, 0, 0, source, reason]).unwrap();
            assert_eq!(client.receive(), None, "an abort is not answered");
            assert_eq!(log.end(), End::Aborted);
        });
    }
}

#[test]
fn an_instance_over_the_limit_is_read_and_thrown_away() {
    let log = serve(Config { max_instance_bytes: 50_000, ..config() }, |address, _, _| {
        let mut client = Client::associated(address);
        let answer = client.store(3, "1.2", &data(50_001));
        assert_eq!(status(&answer), 0xa700);
        assert!(String::from_utf8(element(&answer, 0x902).unwrap()).unwrap().contains("50000"));
        assert_eq!(status(&client.store(3, "1.3", &data(50_000))), 0);
        assert_eq!(status(&client.store(3, "1.4", &data(5_000_000))), 0xa700);
        assert_eq!(client.echo(), 0);
        client.release();
    });
    let [stored] = &log.instances()[..] else { panic!() };
    assert_eq!(stored.sop_instance, "1.3");
}

#[test]
fn requests_that_cannot_be_done_are_answered() {
    let log = serve(config(), |address, _, _| {
        let mut client = Client::associated(address);
        let mut answer = |id: u8, command: &[u8], data: bool| {
            client.send(&whole(id, Command, command));
            if data {
                client.send(&whole(id, Data, &[0; 100]));
            }
            status(&client.receive().unwrap())
        };
        let find = [(0x100, &[0x20, 0][..]), (0x110, &[1, 0]), (0x800, &[0, 0])];
        assert_eq!(answer(3, &command(&find), true), 0x0211);
        assert_eq!(answer(3, &store_command(MR, "1.2"), true), 0x0122);
        assert_eq!(answer(1, &store_command(VERIFICATION, "1.2"), true), 0x0122);
        assert_eq!(answer(3, &store_command(CT, "../../etc/passwd"), true), 0x0117);
        assert_eq!(answer(3, &store_command(CT, &"1".repeat(65)), true), 0x0117);
        let bare = [(2, &even(CT)[..]), (0x100, &[1, 0]), (0x110, &[1, 0]), (0x800, &[1, 1]), (0x1000, b"1.")];
        assert_eq!(answer(3, &command(&bare), false), 0xc000);
        // To a cancellation nothing is said.
        client.send(&whole(1, Command, &command(&[(0x100, &[0xff, 0x0f]), (0x120, &[1, 0]), (0x800, &[1, 1])])));
        assert_eq!(client.echo(), 0);
        client.release();
    });
    assert!(log.instances().is_empty());
}

#[test]
fn stopping_lets_an_instance_finish_and_aborts_the_rest() {
    let log = serve_with_grace(config(), PATIENCE, |address, log, stop| {
        let (mut storing, mut idle) = (Client::associated(address), Client::associated(address));
        let mut unassociated = Client::connect(address);
        log.held.store(true, Ordering::Relaxed);
        storing.send(&whole(3, Command, &store_command(CT, "1.2")));
        storing.send(&whole(3, Data, &data(10)));
        log.wait(|event| matches!(event, Event::Stored(..)).then_some(()));
        stop.store(true, Ordering::Relaxed);
        assert!(aborted(idle.receive()));
        assert_eq!(idle.receive(), None);
        drop(unassociated.0.read(&mut [0; 10]));
        log.held.store(false, Ordering::Relaxed);
        assert_eq!(status(&storing.receive().unwrap()), 0);
        assert!(aborted(storing.receive()));
    });
    let stopped = log.events().iter().filter(|event| matches!(event, Event::Ended(_, End::Stopped))).count();
    assert_eq!(stopped, 2);
}

#[test]
fn stopping_does_not_wait_for_a_data_set_that_does_not_come() {
    serve(config(), |address, log, stop| {
        let mut client = Client::associated(address);
        client.send(&whole(3, Command, &store_command(CT, "1.2")));
        stop.store(true, Ordering::Relaxed);
        assert!(aborted(client.receive()));
        assert_eq!(log.end(), End::Stopped);
    });
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused() {
    for wrong in [
        Config { ae_title: " ".to_owned(), ..config() },
        Config { ae_title: "A TITLE THAT IS TOO LONG".to_owned(), ..config() },
        Config { max_pdu_bytes: 0, ..config() },
        Config { max_associations: 0, ..config() },
    ] {
        assert_eq!(Server::bind(wrong).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    }
}
