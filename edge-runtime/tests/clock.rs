//! The wall clock of a device may be set at any time, by a person or over the network, and no deadline, quiet time or retry may
//! notice. libfaketime shows the service another wall clock, and leaves the monotonic one alone as the system does.

mod support;

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use contract::Modality;
use dimse::{
    client,
    server::{Config, End, Handler, Instance, Peer, Server, Status},
};
use support::site::{Site, uids};

/// Where Debian, Fedora and Arch put it.
fn libfaketime() -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib64/faketime"];
    let paths =
        folders.iter().chain(&["/usr/lib/faketime"]).map(|folder| PathBuf::from(folder).join("libfaketimeMT.so.1"));
    let found = paths.into_iter().find(|path| path.is_file());
    if found.is_none() {
        println!("skipped: no libfaketimeMT.so.1");
    }
    found
}

/// An archive that counts what it gets.
#[derive(Default)]
struct Archive(Mutex<Vec<String>>);

impl Handler for Archive {
    fn opened(&self, _: &Peer) {}
    fn ended(&self, _: &Peer, _: &End) {}
    fn refused(&self, _: SocketAddr, _: &str) {}

    fn store(&self, _: &Peer, instance: Instance) -> Status {
        self.0.lock().unwrap().push(instance.sop_instance);
        Status::Success
    }
}

/// Ends the archive also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn the_wall_clock_may_jump_years_forward_and_back() {
    let Some(library) = libfaketime() else { return };
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let site = Site::new(&format!(
        "[series]\nat_association_end = false\nquiet_s = 3\n[[sink]]\nkind = \"seg\"\nsend_to = [\"archive\"]\n\
         [[destination]]\nname = \"archive\"\naddress = \"{address}\"\nae_title = \"ARCHIVE\"\n"
    ));
    let clock = site.path("clock");
    // In one step, so that the service never reads half of it.
    let set = |offset: &str| {
        fs::write(site.path("clock.new"), format!("{offset}\n")).unwrap();
        fs::rename(site.path("clock.new"), &clock).unwrap();
    };
    set("+0d");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gantry-edge"));
    command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &clock).env("FAKETIME_NO_CACHE", "1");
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
    let serving = site.start_as(&mut command);

    // A series in three associations, and a jump before the second and the third: +400 days, then -800.
    let files = site.series(Modality::Ct, "1.2.41", 18);
    for (part, offset) in files.chunks(6).zip(["+0d", "+400d", "-400d"]) {
        set(offset);
        let results = client::store(&serving.target, part);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        thread::sleep(Duration::from_millis(500));
    }
    site.wait_for("the series", || !site.lines("series").is_empty());
    let slices = site.lines("slice");
    let years: BTreeSet<_> = slices.iter().map(|line| line["time"].as_str().unwrap()[..4].to_owned()).collect();
    assert!(years.len() >= 3, "the clock of the service has not jumped: {years:?}");
    assert!(slices.iter().all(|line| line["outcome"] == "segmented"), "{slices:?}");
    let series = site.lines("series");
    assert_eq!((series.len(), &series[0]["ended"]), (1, &"quiet".into()), "{series:?}");
    assert_eq!(site.references("1.2.41"), uids("1.2.41", 0..18));

    // The archive was away so far; two more jumps lie between an attempt and the next.
    site.wait_for("an attempt", || site.lines("send").iter().any(|line| line["what"] == "waits"));
    set("+4000d");
    thread::sleep(Duration::from_millis(200));
    set("-4000d");
    let (archive, stop) = (Archive::default(), AtomicBool::new(false));
    let server = Server::bind(Config::new("ARCHIVE", address)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| server.serve(&archive, &stop, Duration::from_secs(1)));
        let _stop = Stop(&stop);
        site.wait_for("the delivery", || site.lines("send").iter().any(|line| line["what"] == "sent"));
        assert_eq!(archive.0.lock().unwrap().len(), 1);
        assert_eq!(serving.page("/readyz").0, 200);
        assert_eq!(serving.finish().0, Some(0));
    });
    assert_eq!(fs::read_dir(site.path("state/received")).unwrap().count(), 0);
}
