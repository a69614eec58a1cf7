//! The queue on disk: nothing is lost, whatever happens to the destination, the files, or us.

mod peer;

use std::{
    collections::BTreeSet,
    env,
    fs::{self, File},
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use dimse::{
    client::Target,
    queue::{Event, Queue, QueueError},
};
use peer::{CT, EXPLICIT, Peer, Reply, Storescp, Welcome, data_set, eventually, file, noise, real, target};

type Events = Arc<Mutex<Vec<Event>>>;

/// A queue that tries again soon, and what happens in it.
fn open(folder: &Path, target: Target) -> (Queue, Events) {
    let events = Events::default();
    let ours = events.clone();
    let note = move |event: &Event| ours.lock().unwrap().push(event.clone());
    (Queue::open_paced(folder, target, 1 << 30, Duration::from_millis(20), note).unwrap(), events)
}

fn object(number: usize) -> Vec<u8> {
    file(CT, &format!("1.2.{number}"), EXPLICIT, &noise(1000 + 2 * (number % 1000)))
}

fn instances(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("1.2.{number}")).collect()
}

fn count(events: &Events, kind: impl Fn(&Event) -> bool) -> usize {
    events.lock().unwrap().iter().filter(|event| kind(event)).count()
}

/// What lies in a folder, its own folders and the lock aside.
fn names(folder: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeSet::new() };
    let files = entries.map(Result::unwrap).filter(|entry| entry.path().is_file());
    files.map(|entry| entry.file_name().into_string().unwrap()).filter(|name| name != ".lock").collect()
}

/// An address where nobody listens.
fn nowhere() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn objects_leave_in_order_and_their_files_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::obliging();
    let (queue, events) = open(folder.path(), target(&peer.address));
    for number in 0..250 {
        queue.push(&object(number)).unwrap();
    }
    eventually("all sent", || queue.waiting() == 0);
    queue.stop();
    assert_eq!(peer.instances(), instances(0..250));
    assert_eq!(count(&events, |event| matches!(event, Event::Sent { .. })), 250);
    assert_eq!(names(folder.path()), BTreeSet::new());
}

#[test]
fn what_waits_outlives_the_queue() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, events) = open(folder.path(), target(&nowhere()));
    for number in 0..5 {
        queue.push(&object(number)).unwrap();
    }
    eventually("attempts", || count(&events, |event| matches!(event, Event::Retry { .. })) >= 3);
    let busy = Queue::open(folder.path(), target(&nowhere()), 1, |_| {}).map(drop).unwrap_err();
    assert!(busy.to_string().contains("another queue has this folder open"), "{busy}");
    drop(queue);
    assert_eq!(names(folder.path()).len(), 5);

    // What a kill in the middle of a push leaves, and what is none of ours.
    fs::write(folder.path().join(".unfinished-aBc"), "half").unwrap();
    let large = format!("{}-10.dcm", u64::MAX);
    fs::write(folder.path().join(&large), "by hand").unwrap();
    for foreign in ["note.txt", "0000000000000001.dcm", "1-10.dcm"] {
        fs::write(folder.path().join(foreign), "by hand").unwrap();
    }
    let peer = Peer::obliging();
    let (queue, events) = open(folder.path(), target(&peer.address));
    queue.push(&object(5)).unwrap();
    eventually("all sent", || queue.waiting() == 0);
    queue.stop();
    assert_eq!(peer.instances(), instances(0..6));
    assert_eq!(count(&events, |event| matches!(event, Event::Sent { .. })), 6);
    let left = names(folder.path());
    assert_eq!(
        left.iter().map(String::as_str).collect::<Vec<_>>(),
        ["0000000000000001.dcm", "1-10.dcm", &large, "note.txt"]
    );
}

#[test]
fn a_full_queue_says_so_and_takes_more_when_it_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let size = object(0).len() as u64;
    let let_in = Arc::new(AtomicBool::new(false));
    let open_door = let_in.clone();
    let welcome = move |_| {
        let transient = dicom_ul::pdu::AssociationRJResult::Transient;
        if open_door.load(Ordering::SeqCst) { Welcome::Accept(0) } else { Welcome::Reject(transient) }
    };
    let peer = Peer::start(welcome, |_, _| Reply::Status(0));
    let smallest = Duration::from_millis(20);
    let queue = Queue::open_paced(folder.path(), target(&peer.address), 2 * size, smallest, |_| {}).unwrap();
    queue.push(&object(0)).unwrap();
    queue.push(&object(0)).unwrap();
    let error = queue.push(&object(0)).unwrap_err();
    assert!(
        matches!(error, QueueError::Full { size: one, waiting, limit } if (one, waiting, limit) == (size, 2 * size, 2 * size)),
        "{error}"
    );
    assert_eq!((queue.waiting(), names(folder.path()).len()), (2, 2));
    let_in.store(true, Ordering::SeqCst);
    eventually("all sent", || queue.waiting() == 0);
    queue.push(&object(0)).unwrap();
    eventually("all sent", || queue.waiting() == 0);
    assert_eq!(peer.instances().len(), 3);
}

#[test]
fn damaged_files_are_set_aside_and_hold_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, events) = open(folder.path(), target(&nowhere()));
    for number in 0..5 {
        queue.push(&object(number)).unwrap();
    }
    queue.push(b"pushed, but no DICOM file").unwrap();
    queue.stop();
    assert_eq!(count(&events, |event| matches!(event, Event::Sent { .. })), 0);
    let peer = Peer::obliging();
    let files: Vec<_> = names(folder.path()).into_iter().collect();
    // The sixth is damaged already, or was set aside while nobody answered.
    let path = |number: usize| folder.path().join(&files[number]);
    fs::write(path(0), &object(0)[..500]).unwrap();
    fs::write(path(2), vec![7; object(2).len()]).unwrap();
    let (queue, _) = open(folder.path(), target(&peer.address));
    eventually("all sent", || queue.waiting() == 0);
    queue.stop();
    assert_eq!(peer.instances(), instances([1, 3, 4]));
    let damaged = names(&folder.path().join("damaged"));
    assert_eq!(damaged.len(), 6, "{damaged:?}");
    assert!(damaged.contains(&files[0]) && damaged.contains(&files[2]), "{damaged:?}");
    let why = fs::read_to_string(folder.path().join("damaged").join(&files[0]).with_extension("txt")).unwrap();
    assert!(why.contains("500 bytes"), "{why}");
    assert_eq!(names(folder.path()), BTreeSet::new());
}

#[test]
fn files_that_vanish_while_waiting_are_told_and_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let let_in = Arc::new(AtomicBool::new(false));
    let open_door = let_in.clone();
    let welcome = move |_| {
        let permanent = dicom_ul::pdu::AssociationRJResult::Permanent;
        if open_door.load(Ordering::SeqCst) { Welcome::Accept(0) } else { Welcome::Reject(permanent) }
    };
    let peer = Peer::start(welcome, |_, _| Reply::Status(0));
    let (queue, events) = open(folder.path(), target(&peer.address));
    for number in 0..4 {
        queue.push(&object(number)).unwrap();
    }
    // Even a permanent rejection of the association concerns no object.
    eventually("attempts", || count(&events, |event| matches!(event, Event::Retry { .. })) >= 3);
    assert_eq!(queue.waiting(), 4);
    let gone = names(folder.path()).into_iter().nth(1).unwrap();
    fs::remove_file(folder.path().join(&gone)).unwrap();
    let_in.store(true, Ordering::SeqCst);
    eventually("all sent", || queue.waiting() == 0);
    assert_eq!(peer.instances(), instances([0, 2, 3]));
    assert_eq!(count(&events, |event| matches!(event, Event::Damaged { file, .. } if *file == gone)), 1);
}

#[test]
fn refused_objects_are_set_aside_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let reply = |_, instance: &str| Reply::Status(if instance == "1.2.1" { 0xA900 } else { 0 });
    let peer = Peer::start(|_| Welcome::Accept(0), reply);
    let (queue, events) = open(folder.path(), target(&peer.address));
    for number in 0..3 {
        queue.push(&object(number)).unwrap();
    }
    eventually("all done with", || queue.waiting() == 0);
    queue.stop();
    assert_eq!(peer.instances(), instances([0, 2]));
    let name = format!("{:016}-{}.dcm", 1, object(1).len());
    let refused = folder.path().join("refused").join(&name);
    assert_eq!(fs::read(&refused).unwrap(), object(1));
    let why = fs::read_to_string(refused.with_extension("txt")).unwrap();
    assert!(why.contains("A900H: so it is"), "{why}");
    assert_eq!(count(&events, |event| matches!(event, Event::Refused { file, .. } if *file == name)), 1);
}

/// Two objects of one size, refused by two runs of the program: names begin at 0 only in a folder without any.
#[test]
fn what_was_set_aside_is_not_overwritten_after_a_restart() {
    let small = |instance| file(CT, instance, EXPLICIT, &noise(10));
    let folder = tempfile::tempdir().unwrap();
    for (kind, first, second) in [("refused", small("1.2.3"), small("1.2.4")), ("damaged", vec![1; 700], vec![2; 700])]
    {
        for bytes in [&first, &second] {
            let peer = Peer::start(|_| Welcome::Accept(0), |_, _| Reply::Status(0xA900));
            let (queue, _) = open(folder.path(), target(&peer.address));
            queue.push(bytes).unwrap();
            eventually("set aside", || queue.waiting() == 0);
            queue.stop();
        }
        let aside = folder.path().join(kind);
        let kept: BTreeSet<_> = names(&aside).iter().map(|name| fs::read(aside.join(name)).unwrap()).collect();
        assert!(kept.contains(&first) && kept.contains(&second), "{:?}", names(&aside));
    }
}

/// A name with the last number, made by hand or by a bad disk: what could not be found again is not taken.
#[test]
fn no_object_is_taken_without_a_number() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("9999999999999999-4.dcm"), "last").unwrap();
    let (queue, _) = open(folder.path(), target(&nowhere()));
    assert!(matches!(queue.push(&object(0)), Err(QueueError::Io(_))));
    queue.stop();
}

/// Neither order nor delivery depends on the times of files: the clock may have jumped years between two pushes.
#[test]
fn times_of_files_make_no_difference() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, _) = open(folder.path(), target(&nowhere()));
    for number in 0..6 {
        queue.push(&object(number)).unwrap();
    }
    queue.stop();
    let year = Duration::from_secs(366 * 86_400);
    for (place, name) in names(folder.path()).iter().enumerate() {
        let now = SystemTime::now();
        let time = if place % 2 == 0 { now + year * (6 - place as u32) } else { now - year * 40 };
        File::options().write(true).open(folder.path().join(name)).unwrap().set_modified(time).unwrap();
    }
    let peer = Peer::obliging();
    let (queue, _) = open(folder.path(), target(&peer.address));
    queue.push(&object(6)).unwrap();
    eventually("all sent", || queue.waiting() == 0);
    queue.stop();
    assert_eq!(peer.instances(), instances(0..7));
}

/// An object that makes the peer abort, or that it never has room for, is tried again for ever; the others pass it.
#[test]
fn an_object_that_always_fails_holds_nobody_and_is_kept() {
    for failure in [Reply::Abort, Reply::Status(0xA700)] {
        let folder = tempfile::tempdir().unwrap();
        let well = Arc::new(AtomicBool::new(false));
        let recovered = well.clone();
        let reply = move |_, instance: &str| {
            if instance == "1.2.0" && !recovered.load(Ordering::SeqCst) { failure } else { Reply::Status(0) }
        };
        let peer = Peer::start(|_| Welcome::Accept(0), reply);
        let (queue, events) = open(folder.path(), target(&peer.address));
        for number in 0..4 {
            queue.push(&object(number)).unwrap();
        }
        eventually("the others sent", || queue.waiting() == 1);
        assert_eq!(peer.instances(), instances(1..4));
        well.store(true, Ordering::SeqCst);
        eventually("all sent", || queue.waiting() == 0);
        queue.stop();
        assert_eq!(peer.instances(), instances([1, 2, 3, 0]));
        assert!(count(&events, |event| matches!(event, Event::Retry { .. })) >= 1);
    }
}

#[test]
fn stop_finishes_the_transfer_in_progress_and_begins_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (began, finish) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (beginning, finishing) = (began.clone(), finish.clone());
    let reply = move |_, _: &str| {
        beginning.store(true, Ordering::SeqCst);
        while !finishing.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        Reply::Status(0)
    };
    let peer = Peer::start(|_| Welcome::Accept(0), reply);
    let (queue, events) = open(folder.path(), target(&peer.address));
    for number in 0..3 {
        queue.push(&object(number)).unwrap();
    }
    eventually("a transfer in progress", || began.load(Ordering::SeqCst));
    let stopping = thread::spawn(move || queue.stop());
    thread::sleep(Duration::from_millis(100));
    assert!(!stopping.is_finished());
    finish.store(true, Ordering::SeqCst);
    stopping.join().unwrap();
    assert_eq!(peer.instances(), instances([0]));
    assert_eq!(count(&events, |event| matches!(event, Event::Sent { .. })), 1);
    assert_eq!(names(folder.path()).len(), 2);
}

/// A destination that has taken an object and says nothing more may be patient; whoever stops the service is not.
#[test]
fn stop_does_not_wait_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let (began, beginning) = {
        let began = Arc::new(AtomicBool::new(false));
        (began.clone(), began)
    };
    let reply = move |_, _: &str| {
        beginning.store(true, Ordering::SeqCst);
        Reply::Nothings
    };
    let peer = Peer::start(|_| Welcome::Accept(0), reply);
    let patient = Target { timeout: Duration::from_secs(600), ..target(&peer.address) };
    let (queue, _) = open(folder.path(), patient);
    queue.push(&object(0)).unwrap();
    eventually("a transfer in progress", || began.load(Ordering::SeqCst));
    let stopping = Instant::now();
    queue.halt();
    queue.stop();
    assert!(stopping.elapsed() < Duration::from_secs(20), "{:?}", stopping.elapsed());
    assert_eq!(names(folder.path()).len(), 1, "it is sent after the next start");
}

#[test]
fn storescp_may_go_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let arrived = tempfile::tempdir().unwrap();
    let paths = real();
    let dicom: Vec<_> =
        paths.iter().map(|path| fs::read(path).unwrap()).filter(|bytes| &bytes[128..132] == b"DICM").collect();
    let Some(receiver) = Storescp::start(arrived.path(), &["-pm"]) else { return };
    let port = receiver.port;
    let (queue, events) = open(&folder.path().join("made/anew"), target(&receiver.address()));
    for file in dicom.iter().step_by(2) {
        queue.push(file).unwrap();
    }
    eventually("the first half sent", || queue.waiting() == 0);
    drop(receiver);
    for file in dicom.iter().skip(1).step_by(2) {
        queue.push(file).unwrap();
    }
    if !dicom.is_empty() {
        eventually("attempts", || count(&events, |event| matches!(event, Event::Retry { .. })) >= 2);
        assert_eq!(queue.waiting(), dicom.len() / 2);
    }
    let receiver = Storescp::start_at(port, arrived.path(), &["-pm"]).unwrap();
    eventually("the rest sent", || queue.waiting() == 0);
    queue.stop();
    let mut expected: Vec<_> = dicom
        .iter()
        .map(|file| {
            let mut content = data_set(file).to_vec();
            content.resize(content.len().next_multiple_of(2), 0);
            content
        })
        .collect();
    expected.sort();
    assert!(receiver.data_sets() == expected, "{} of {}", receiver.data_sets().len(), expected.len());
    println!("{} files arrived once", expected.len());
}

const CHILD: &str = "GANTRY_TEST_QUEUE_CHILD";

/// Not a test: what the next one starts and kills.
#[test]
fn child_that_is_killed() {
    let Some(arguments) = env::var_os(CHILD) else { return };
    let arguments = arguments.into_string().unwrap();
    let [address, first, folder] = arguments.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{arguments}") };
    let (queue, _) = open(Path::new(folder), target(address));
    for number in first.parse::<usize>().unwrap().. {
        queue.push(&object(number)).unwrap();
        println!("\npushed {number}");
    }
}

#[test]
fn a_kill_at_any_moment_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::obliging();
    let (mut pushed, kills) = (BTreeSet::new(), 12);
    for round in 0..kills {
        let first = round * 100_000;
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child_that_is_killed", "--nocapture"])
            .env(CHILD, format!("{} {first} {}", peer.address, folder.path().display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = 0;
        // At another place each time; what it says until it is dead counts, too.
        for line in lines.by_ref().map(Result::unwrap) {
            let Some(number) = line.strip_prefix("pushed ") else { continue };
            pushed.insert(format!("1.2.{number}"));
            acknowledged += 1;
            if acknowledged == 1 + 7 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged > 7 * round, "{acknowledged} in round {round}");
    }
    let (queue, _) = open(folder.path(), target(&peer.address));
    eventually("all sent", || queue.waiting() == 0);
    queue.stop();
    let instances = peer.instances();
    let arrived: BTreeSet<_> = instances.iter().cloned().collect();
    let lost: Vec<_> = pushed.difference(&arrived).collect();
    assert!(lost.is_empty(), "{lost:?}");
    // One kill can leave at most one object sent whose file is still there.
    let twice = instances.len() - arrived.len();
    assert!(twice <= kills, "{twice} of {} objects came twice after {kills} kills", instances.len());
    println!("{} objects, {kills} kills: none lost, {twice} twice", arrived.len());
    assert_eq!(names(&folder.path().join("damaged")), BTreeSet::new());
}

#[test]
fn many_threads_push_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::obliging();
    let (queue, _) = open(folder.path(), target(&peer.address));
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    queue.push(&object(next.fetch_add(1, Ordering::SeqCst))).unwrap();
                }
            });
        }
    });
    eventually("all sent", || queue.waiting() == 0);
    let mut arrived = peer.instances();
    let mut expected = instances(0..160);
    arrived.sort();
    expected.sort();
    assert_eq!(arrived, expected);
}
