//! Sessions that were once in order, changed at random: the receiver must end each of them, once, and go on serving.

mod raw;

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr},
};

use dicom_ul::pdu::{
    PDataValueType::{Command, Data},
    Pdu,
};
use dimse::server::Config;
use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config as Runs, TestRunner},
};
use raw::*;

#[derive(Clone, Debug)]
enum Change {
    Byte(Index, u8),
    Cut(Index),
    Remove(Index, u8),
    Repeat(Index, u8),
    Insert(Index, Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        1 => any::<Index>().prop_map(Change::Cut),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, count)| Change::Remove(at, count)),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, count)| Change::Repeat(at, count)),
        2 => (any::<Index>(), vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let length = bytes.len();
    let within = |at: &Index, count: u8| {
        let start = at.index(length.max(1)).min(length);
        start..(start + usize::from(count)).min(length)
    };
    match change {
        Change::Byte(at, byte) => bytes[within(at, 1)].fill(*byte),
        Change::Cut(at) => bytes.truncate(within(at, 0).start),
        Change::Remove(at, count) => drop(bytes.drain(within(at, *count))),
        Change::Repeat(at, count) => {
            let range = within(at, *count);
            let again = bytes[range.clone()].to_vec();
            bytes.splice(range.end..range.end, again);
        }
        Change::Insert(at, new) => {
            let range = within(at, 0);
            bytes.splice(range, new.iter().copied());
        }
    }
}

/// PDUs of a session; all but the first may be changed on their own, so that changes reach beyond the A-ASSOCIATE-RQ.
fn session() -> Vec<Vec<u8>> {
    let pdus = [
        request(&[VERIFICATION, CT, MR], &[EXPLICIT, IMPLICIT]).into(),
        whole(1, Command, &echo_command()),
        whole(3, Command, &store_command(CT, "1.2.3")),
        Pdu::PData { data: vec![value(3, Data, &[1; 300], false), value(3, Data, &[2; 300], true)] },
        whole(5, Command, &store_command(MR, "1.2.4")),
        whole(5, Data, &[3; 100]),
        Pdu::ReleaseRQ,
    ];
    pdus.iter().map(encode).collect()
}

/// Sends these bytes and reads until the receiver closes the connection.
fn exchange(address: SocketAddr, bytes: &[u8]) -> Result<Vec<u8>, TestCaseError> {
    let mut client = Client::connect(address).0;
    // The receiver may close first.
    let _ = client.write_all(bytes);
    let _ = client.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match client.read_to_end(&mut answer) {
        Err(e) if e.kind() != ErrorKind::ConnectionReset => Err(TestCaseError::fail(format!("it hangs: {e}"))),
        _ => Ok(answer),
    }
}

#[test]
fn changed_sessions_end_once_each() {
    const CASES: u32 = 1500;
    let log = serve(Config { max_instance_bytes: 500, ..config() }, |address, _, _| {
        let unchanged = exchange(address, &session().concat()).unwrap();
        assert_eq!(unchanged[0], 2);
        assert_eq!(unchanged[unchanged.len() - 10], 6);
        let runs = Runs { cases: CASES, failure_persistence: None, ..Runs::default() };
        let changes = (any::<bool>(), vec(change(), 1..6));
        let result = TestRunner::new(runs).run(&changes, |(whole, changes)| {
            let mut head = session().remove(0);
            let mut tail = session()[1..].concat();
            for change in &changes {
                apply(if whole { &mut head } else { &mut tail }, change);
            }
            exchange(address, &[head, tail].concat()).map(drop)
        });
        result.unwrap();
        let mut client = Client::associated(address);
        assert_eq!(client.echo(), 0);
        client.release();
    });
    let opened = log.events().iter().filter(|event| matches!(event, Event::Opened(_))).count();
    let refused = log.events().iter().filter(|event| matches!(event, Event::Refused(_))).count();
    println!("{opened} associations, {refused} refused, {} instances", log.instances().len());
    assert_eq!(opened + refused, CASES as usize + 2);
    assert!(opened > CASES as usize / 3 && refused > CASES as usize / 10);
}
