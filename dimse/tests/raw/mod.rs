//! A receiver under test with a log of its calls, and a client that sends what it is told, PDU by PDU or byte by byte.
#![allow(dead_code)] // each test file uses its part

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dicom_ul::pdu::{
    AssociationRQ, MAXIMUM_PDU_SIZE, PDataValue, PDataValueType, Pdu, PresentationContextProposed, UserVariableItem,
    read_pdu, write_pdu,
};
use dimse::server::{Config, End, Handler, Instance, Peer, Server, Status};

pub const VERIFICATION: &str = "1.2.840.10008.1.1";
pub const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
pub const MR: &str = "1.2.840.10008.5.1.4.1.1.4";
pub const IMPLICIT: &str = "1.2.840.10008.1.2";
pub const EXPLICIT: &str = "1.2.840.10008.1.2.1";

/// Far beyond anything that should happen; a test that waits this long fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A call of the handler.
#[derive(Clone, Debug)]
pub enum Event {
    Opened(Peer),
    Stored(Peer, Instance),
    Ended(Peer, End),
    Refused(String),
}

/// Remembers its calls; refuses the SOP class of MR.
#[derive(Default)]
pub struct Log {
    events: Mutex<Vec<Event>>,
    /// While set, `store` does not return.
    pub held: AtomicBool,
}

impl Log {
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    fn push(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    /// Waits for the first event of which `choose` makes something.
    pub fn wait<T>(&self, choose: impl Fn(&Event) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = self.events().iter().find_map(&choose) {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "it did not happen: {:?}", self.events());
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn end(&self) -> End {
        self.wait(|event| if let Event::Ended(_, end) = event { Some(end.clone()) } else { None })
    }

    pub fn refusal(&self) -> String {
        self.wait(|event| if let Event::Refused(reason) = event { Some(reason.clone()) } else { None })
    }

    pub fn instances(&self) -> Vec<Instance> {
        let stored = |event| if let Event::Stored(_, instance) = event { Some(instance) } else { None };
        self.events().into_iter().filter_map(stored).collect()
    }
}

impl Handler for Log {
    fn opened(&self, peer: &Peer) {
        self.push(Event::Opened(peer.clone()));
    }

    fn store(&self, peer: &Peer, instance: Instance) -> Status {
        let refused = instance.sop_class == MR;
        self.push(Event::Stored(peer.clone(), instance));
        while self.held.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        if refused {
            return Status::Refused {
                code: 0xc123, comment: format!("keine MR über hier{}", " und weiter".repeat(9))
            };
        }
        Status::Success
    }

    fn ended(&self, peer: &Peer, end: &End) {
        self.push(Event::Ended(peer.clone(), end.clone()));
    }

    fn refused(&self, _: SocketAddr, reason: &str) {
        self.push(Event::Refused(reason.to_owned()));
    }
}

/// A receiver of the title GANTRY at a free port of this host.
pub fn config() -> Config {
    Config::new("GANTRY", "127.0.0.1:0".parse().unwrap())
}

/// Runs `work` beside a receiver, stops that, checks that each association was opened and ended once, and gives its log.
pub fn serve(config: Config, work: impl FnOnce(SocketAddr, &Log, &AtomicBool)) -> Log {
    serve_with_grace(config, Duration::from_secs(1), work)
}

pub fn serve_with_grace(config: Config, grace: Duration, work: impl FnOnce(SocketAddr, &Log, &AtomicBool)) -> Log {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let server = Server::bind(config).unwrap();
    let (address, log, stop) = (server.address(), Log::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| server.serve(&log, &stop, grace));
        let _stop = Stop(&stop);
        work(address, &log, &stop);
    });
    once_each(&log);
    log
}

fn once_each(log: &Log) {
    let events = log.events();
    let (mut opened, mut ended) = (Vec::new(), Vec::new());
    for event in &events {
        match event {
            Event::Opened(peer) => opened.push(peer.id),
            Event::Ended(peer, _) => ended.push(peer.id),
            Event::Stored(peer, _) => assert!(opened.contains(&peer.id) && !ended.contains(&peer.id), "{events:?}"),
            Event::Refused(_) => {}
        }
    }
    opened.sort_unstable();
    ended.sort_unstable();
    assert_eq!(opened, ended, "{events:?}");
    assert!(opened.windows(2).all(|two| two[0] != two[1]), "{events:?}");
}

/// An A-ASSOCIATE-RQ of SCANNER to GANTRY: contexts 1, 3, 5, ... with all of the transfer syntaxes.
pub fn request(abstract_syntaxes: &[&str], transfer_syntaxes: &[&str]) -> AssociationRQ {
    let context = |(i, uid): (usize, &&str)| PresentationContextProposed {
        id: 2 * i as u8 + 1,
        abstract_syntax: (*uid).to_owned(),
        transfer_syntaxes: transfer_syntaxes.iter().map(|uid| (*uid).to_owned()).collect(),
    };
    AssociationRQ {
        protocol_version: 1,
        calling_ae_title: "SCANNER".to_owned(),
        called_ae_title: "GANTRY".to_owned(),
        application_context_name: "1.2.840.10008.3.1.1.1".to_owned(),
        presentation_contexts: abstract_syntaxes.iter().enumerate().map(context).collect(),
        user_variables: vec![
            UserVariableItem::MaxLength(16384),
            UserVariableItem::ImplementationClassUID("1.2.3".to_owned()),
        ],
    }
}

pub fn encode(pdu: &Pdu) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_pdu(&mut bytes, pdu).unwrap();
    bytes
}

/// A command set by hand, with its group length.
pub fn command(elements: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (element, value) in elements {
        body.extend([0, 0]);
        body.extend(element.to_le_bytes());
        body.extend((value.len() as u32).to_le_bytes());
        body.extend(*value);
    }
    [&[0, 0, 0, 0, 4, 0, 0, 0], &(body.len() as u32).to_le_bytes()[..], &body].concat()
}

pub fn even(uid: &str) -> Vec<u8> {
    let mut bytes = uid.as_bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}

pub fn echo_command() -> Vec<u8> {
    command(&[(2, &even(VERIFICATION)), (0x100, &[0x30, 0]), (0x110, &[7, 0]), (0x800, &[1, 1])])
}

pub fn store_command(class: &str, instance: &str) -> Vec<u8> {
    let (class, instance) = (even(class), even(instance));
    command(&[(2, &class), (0x100, &[1, 0]), (0x110, &[9, 0]), (0x700, &[0, 0]), (0x800, &[0, 0]), (0x1000, &instance)])
}

pub fn value(id: u8, value_type: PDataValueType, data: &[u8], is_last: bool) -> PDataValue {
    PDataValue { presentation_context_id: id, value_type, is_last, data: data.to_vec() }
}

/// A command or a data set in one PDU.
pub fn whole(id: u8, value_type: PDataValueType, data: &[u8]) -> Pdu {
    Pdu::PData { data: vec![value(id, value_type, data, true)] }
}

/// The status in a response, which must be whole and have its group length right.
pub fn status(response: &Pdu) -> u16 {
    u16::from_le_bytes(element(response, 0x900).unwrap().try_into().unwrap())
}

/// An element of a response.
pub fn element(response: &Pdu, wanted: u16) -> Option<Vec<u8>> {
    let Pdu::PData { data } = response else { panic!("{response:?}") };
    let [PDataValue { value_type: PDataValueType::Command, is_last: true, data, .. }] = &data[..] else {
        panic!("{response:?}")
    };
    assert_eq!(data[..8], [0, 0, 0, 0, 4, 0, 0, 0]);
    assert_eq!(u32::from_le_bytes(data[8..12].try_into().unwrap()) as usize, data.len() - 12);
    let (mut rest, mut last, mut found) = (&data[12..], 0, None);
    while !rest.is_empty() {
        let number = u16::from_le_bytes([rest[2], rest[3]]);
        let length = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        assert!(rest[..2] == [0, 0] && number > last && length.is_multiple_of(2), "{response:?}");
        if number == wanted {
            found = Some(rest[8..8 + length].to_vec());
        }
        (last, rest) = (number, &rest[8 + length..]);
    }
    found
}

/// A client without manners of its own.
pub struct Client<S = TcpStream>(pub S);

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_nodelay(true).unwrap();
        Self(tcp)
    }

    /// With an association for Verification (1), CT (3) and MR (5).
    pub fn associated(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        client.send(&request(&[VERIFICATION, CT, MR], &[EXPLICIT, IMPLICIT]).into());
        let answer = client.receive();
        assert!(matches!(answer, Some(Pdu::AssociationAC(_))), "{answer:?}");
        client
    }
}

impl<S: Read + Write> Client<S> {
    pub fn send(&mut self, pdu: &Pdu) {
        self.0.write_all(&encode(pdu)).unwrap();
        self.0.flush().unwrap();
    }

    /// The next PDU; `None` at the end of the connection.
    pub fn receive(&mut self) -> Option<Pdu> {
        let mut bytes = vec![0; 6];
        match self.0.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => return None,
            Err(e) => panic!("{e}"),
        }
        bytes.resize(6 + u32::from_be_bytes(bytes[2..6].try_into().unwrap()) as usize, 0);
        self.0.read_exact(&mut bytes[6..]).unwrap();
        Some(read_pdu(&bytes[..], MAXIMUM_PDU_SIZE, true).unwrap().unwrap())
    }

    pub fn echo(&mut self) -> u16 {
        self.send(&whole(1, PDataValueType::Command, &echo_command()));
        status(&self.receive().unwrap())
    }

    /// Stores `data` of the class of context `id`; gives the response.
    pub fn store(&mut self, id: u8, instance: &str, data: &[u8]) -> Pdu {
        let class = [VERIFICATION, CT, MR][usize::from(id) / 2];
        self.send(&whole(id, PDataValueType::Command, &store_command(class, instance)));
        for (i, piece) in data.chunks(10_000).enumerate() {
            let is_last = (i + 1) * 10_000 >= data.len();
            self.send(&Pdu::PData { data: vec![value(id, PDataValueType::Data, piece, is_last)] });
        }
        self.receive().unwrap()
    }

    pub fn release(&mut self) {
        self.send(&Pdu::ReleaseRQ);
        assert_eq!(self.receive(), Some(Pdu::ReleaseRP));
        assert_eq!(self.receive(), None);
    }
}
