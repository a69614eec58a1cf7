//! What one client can take from the others: places, memory, time.

mod raw;

use std::{
    net::{SocketAddr, TcpListener},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use dicom_ul::pdu::{
    PDataValueType::{Command, Data},
    Pdu,
};
use dimse::server::{Config, End, Server};
use raw::*;

/// A receiver that has two clients of different addresses on this host: one over IPv4, one over IPv6. Nothing, with a word, where
/// there is no IPv6.
fn two_hosts(config: Config) -> Option<Config> {
    if let Err(error) = TcpListener::bind("[::1]:0") {
        println!("skipped: no IPv6: {error}");
        return None;
    }
    Some(Config { listen: "[::]:0".parse().unwrap(), ..config })
}

fn hosts(address: SocketAddr) -> (SocketAddr, SocketAddr) {
    (([127, 0, 0, 1], address.port()).into(), ("::1".parse::<std::net::Ipv6Addr>().unwrap(), address.port()).into())
}

#[test]
fn one_address_cannot_take_all_associations() {
    let Some(config) = two_hosts(Config { max_associations: 4, max_per_host: 3, ..config() }) else { return };
    serve(config, |address, log, _| {
        let (greedy, other) = hosts(address);
        let mut taken: Vec<_> = (0..3).map(|_| Client::associated(greedy)).collect();
        let mut further = Client::connect(greedy);
        further.send(&request(&[VERIFICATION], &[IMPLICIT]).into());
        assert!(matches!(further.receive(), Some(Pdu::AssociationRJ(_))));
        assert!(log.refusal().contains("3 associations of this address"));
        let mut client = Client::associated(other);
        assert_eq!(client.echo(), 0);
        client.release();
        taken[0].release();
        let mut again = Client::associated(greedy);
        assert_eq!(again.echo(), 0);
    });
}

#[test]
fn whoever_opens_many_connections_makes_way_himself() {
    let Some(config) = two_hosts(Config { max_unassociated: 10, ..config() }) else { return };
    serve(config, |address, log, _| {
        let (greedy, other) = hosts(address);
        let mut slow = Client::connect(other);
        let idle: Vec<_> = (0..100).map(|_| Client::connect(greedy)).collect();
        log.wait(|_| (log.events().len() >= 90).then_some(()));
        slow.send(&request(&[VERIFICATION], &[IMPLICIT]).into());
        assert!(matches!(slow.receive(), Some(Pdu::AssociationAC(_))));
        drop(idle);
    });
}

fn data(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i >> 2) as u8).collect()
}

fn begin(client: &mut Client, instance: &str, bytes: &[u8]) {
    client.send(&whole(3, Command, &store_command(CT, instance)));
    for piece in bytes.chunks(10_000) {
        client.send(&Pdu::PData { data: vec![value(3, Data, piece, false)] });
    }
}

/// Parts of 100,000 bytes for each association, and 400,000 bytes for all of them.
fn tight() -> Config {
    Config {
        max_associations: 4,
        max_instance_bytes: 400_000,
        max_receiving_bytes: 800_000,
        idle: Duration::from_secs(2),
        ..config()
    }
}

#[test]
fn large_instances_share_memory_and_small_ones_have_their_own() {
    let log = serve(tight(), |address, _, _| {
        let mut large = Client::associated(address);
        begin(&mut large, "1.1", &data(350_000));
        thread::sleep(Duration::from_millis(200));
        let (mut other, mut small) = (Client::associated(address), Client::associated(address));
        let stay = AtomicBool::new(true);
        thread::scope(|scope| {
            scope.spawn(|| {
                while stay.load(Ordering::Relaxed) {
                    large.send(&Pdu::PData { data: vec![value(3, Data, &[0; 2], false)] });
                    thread::sleep(Duration::from_millis(50));
                }
            });
            let waiting = scope.spawn(|| {
                let answer = other.store(3, "1.2", &data(300_000));
                assert_eq!(status(&answer), 0xa700);
                assert!(String::from_utf8(element(&answer, 0x902).unwrap()).unwrap().contains("no memory for it now"));
            });
            for i in 0..20 {
                assert_eq!(status(&small.store(3, &format!("2.{i}"), &data(100_000))), 0);
            }
            assert!(!waiting.is_finished(), "the small ones passed it");
            waiting.join().unwrap();
            stay.store(false, Ordering::Relaxed);
        });
        // Before it gives up, one that waits gets what another gives back.
        let begun = Instant::now();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| assert_eq!(status(&other.store(3, "1.2", &data(300_000))), 0));
            thread::sleep(Duration::from_millis(300));
            large.send(&whole(3, Data, &[0; 2]));
            assert_eq!(status(&large.receive().unwrap()), 0);
            waiting.join().unwrap();
        });
        assert!(begun.elapsed() < Duration::from_secs(2));
        for i in 0..5 {
            assert_eq!(status(&large.store(3, &format!("3.{i}"), &data(400_000))), 0, "all of it came back");
        }
    });
    assert_eq!(log.instances().len(), 20 + 2 + 5);
}

#[test]
fn stopping_does_not_wait_for_memory() {
    let serving = Config { idle: Duration::from_secs(30), ..tight() };
    let begun = Instant::now();
    serve(serving, |address, _, stop| {
        let (mut large, mut other) = (Client::associated(address), Client::associated(address));
        begin(&mut large, "1.1", &data(350_000));
        thread::sleep(Duration::from_millis(200));
        begin(&mut other, "1.2", &data(120_000));
        thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(other.receive(), Some(Pdu::AbortRQ { .. } | Pdu::PData { .. })));
    });
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn memory_that_can_never_suffice_is_refused_at_the_start() {
    let wrong = Config { max_receiving_bytes: 600_000, ..tight() };
    assert!(Server::bind(wrong).unwrap_err().to_string().contains("leaves room for 375000"));
    let wrong = Config { max_per_host: 0, ..tight() };
    assert!(Server::bind(wrong).is_err());
}

/// Each PDU comes in time, and the instance never ends.
#[test]
fn a_message_must_make_progress() {
    let soon = Config { idle: Duration::from_secs(1), ..config() };
    serve(soon.clone(), |address, log, _| {
        let mut client = Client::associated(address);
        begin(&mut client, "1.1", &data(10));
        let begun = Instant::now();
        while log.events().len() < 2 {
            assert!(begun.elapsed() < Duration::from_secs(10), "it still goes on");
            let _ = dicom_ul::pdu::write_pdu(&mut client.0, &Pdu::PData { data: vec![value(3, Data, &[0; 2], false)] });
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(log.end(), End::TimedOut);
    });
    // Slow, and good enough: 5 s at 200 KiB a second.
    serve(soon, |address, _, _| {
        let mut client = Client::associated(address);
        begin(&mut client, "1.1", &[]);
        for _ in 0..10 {
            client.send(&Pdu::PData { data: vec![value(3, Data, &[0; 100 << 10], false)] });
            thread::sleep(Duration::from_millis(500));
        }
        client.send(&whole(3, Data, &[0; 2]));
        assert_eq!(status(&client.receive().unwrap()), 0);
    });
}
