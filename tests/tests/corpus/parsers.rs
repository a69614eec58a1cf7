//! What is done with bytes from outside, a function per parser of ours. Fuzzers call them with what they think up
//! (`cargo xtask fuzz`), and a test calls them with what was worth keeping of that.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        OnceLock,
        atomic::AtomicBool,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use contract::Modality;
use dicom::{Identity, Image, Orientation};
use dimse::{
    client::{self, Target},
    queue::{Event, Queue},
    server::{Config, End, Handler, Instance, Peer, Server, Status},
};
use edge_runtime::{Engine, Model, engine, serve};

/// Holds for any bytes, or panics.
pub type Parser = fn(&[u8]);

/// Every parser by name.
pub const PARSERS: [(&str, Parser); 7] = [
    ("association", association),
    ("configuration", configuration),
    ("destination", destination),
    ("dicom_file", dicom_file),
    ("model_file", model_file),
    ("nifti_file", nifti_file),
    ("queue_file", queue_file),
];

/// A DICOM file, and the image in it where its pixels are not compressed: those decoders are other people's.
pub fn dicom_file(bytes: &[u8]) {
    let object = match dicom::read(bytes) {
        Ok(object) => object,
        Err(fault) => return assert!(!fault.to_string().is_empty()),
    };
    let _ = (Identity::new(&object), dicom::series(&object));
    let plain = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"];
    if !plain.contains(&object.meta().transfer_syntax().trim_end_matches('\0')) {
        return;
    }
    let Ok(image) = Image::within(&object, 1 << 16, 8) else { return };
    assert!(!image.frames.is_empty() && image.frames.len() <= 8);
    for frame in &image.frames {
        let [columns, rows] = frame.plane.size;
        assert_eq!(frame.stored.len(), columns * rows);
        if let Ok(orientation) = Orientation::new(&frame.plane) {
            let mut indices: Vec<_> = orientation.indices().collect();
            indices.sort_unstable();
            assert!(indices.into_iter().eq(0..columns * rows), "every pixel once");
        }
    }
}

/// Takes what comes, and looks at it.
struct Taker;

impl Handler for Taker {
    fn opened(&self, peer: &Peer) {
        assert!(!peer.calling.contains('\0') && peer.id > 0);
    }

    fn ended(&self, _: &Peer, end: &End) {
        assert!(!matches!(end, End::Protocol(words) if words.is_empty()));
    }

    fn refused(&self, _: SocketAddr, words: &str) {
        assert!(!words.is_empty());
    }

    fn store(&self, _: &Peer, instance: Instance) -> Status {
        assert!(instance.data.len() <= 1 << 20);
        Status::Success
    }
}

/// All that a client sends over one association.
pub fn association(bytes: &[u8]) {
    static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();
    static RUNNING: AtomicBool = AtomicBool::new(false);
    let address = ADDRESS.get_or_init(|| {
        let mut config = Config::new("GANTRY", SocketAddr::from(([127, 0, 0, 1], 0)));
        config.max_instance_bytes = 1 << 20;
        config.idle = Duration::from_secs(2);
        let server = Server::bind(config).expect("a port");
        let address = server.address();
        thread::spawn(move || server.serve(&Taker, &RUNNING, Duration::ZERO));
        address
    });
    // No port is left for a moment after thousands of connections.
    let Ok(mut socket) = TcpStream::connect(address) else { return thread::sleep(Duration::from_millis(50)) };
    let sent = socket.write_all(bytes).and_then(|()| socket.shutdown(Shutdown::Write));
    let mut answer = vec![];
    if sent.and_then(|()| socket.read_to_end(&mut answer)).is_err() {
        // Reset by the server, which had heard enough.
        return;
    }
    let mut rest = answer.as_slice();
    while let [kind, _, a, b, c, d, more @ ..] = rest {
        assert!((2..=7).contains(kind), "PDU of type {kind}");
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        rest = more.get(length..).expect("a whole PDU");
    }
    assert!(rest.is_empty(), "half a PDU");
}

/// All that a destination answers to an object.
pub fn destination(bytes: &[u8]) {
    static OBJECT: OnceLock<tempfile::NamedTempFile> = OnceLock::new();
    let object = OBJECT.get_or_init(|| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), include_bytes!("../../fuzz/corpus/dicom_file/explicit.dcm")).expect("a file");
        file
    });
    let Ok(listener) = TcpListener::bind(("127.0.0.1", 0)) else { return thread::sleep(Duration::from_millis(50)) };
    let target = Target {
        address: listener.local_addr().expect("its address").to_string(),
        ae_title: "PACS".into(),
        calling: "GANTRY".into(),
        timeout: Duration::from_secs(2),
        max_pdu_bytes: 16_384,
        tls: None,
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let Ok((mut socket, _)) = listener.accept() else { return };
            let _ = socket.write_all(bytes).and_then(|()| socket.shutdown(Shutdown::Write));
            let _ = socket.read_to_end(&mut vec![]);
        });
        let results = client::store(&target, &[object.path().to_owned()]);
        assert_eq!(results.len(), 1);
        if let Err(error) = &results[0] {
            assert!(!error.to_string().is_empty());
        }
    });
}

/// A file that a queue finds at its start: what is no whole object is set aside, and said.
pub fn queue_file(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(format!("{:016}-{}.dcm", 1, bytes.len()));
    fs::write(&path, bytes).expect("a file");
    let target = Target {
        // Nobody listens there.
        address: "127.0.0.1:1".into(),
        ae_title: "PACS".into(),
        calling: "GANTRY".into(),
        timeout: Duration::from_secs(2),
        max_pdu_bytes: 16_384,
        tls: None,
    };
    let (tell, told) = mpsc::channel();
    let hear = move |event: &Event| {
        let _ = tell.send(matches!(event, Event::Damaged { .. } | Event::Refused { .. }));
    };
    let queue = Queue::open(folder.path(), target, 1 << 30, hear).expect("a queue");
    let set_aside = match told.recv_timeout(Duration::from_secs(10)) {
        Ok(set_aside) => set_aside,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!("nothing was said of the file"),
    };
    queue.stop();
    assert_eq!(path.exists(), !set_aside, "lost, or kept though it was set aside");
}

/// A configuration of the service: what is accepted is printed so that it is accepted again, and the same.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let path = Path::new("/gantry/gantry.toml");
    match serve::Config::parse(text, path) {
        Ok(config) => {
            let printed = config.resolved();
            let again = serve::Config::parse(&printed, path).unwrap_or_else(|error| panic!("{error}: {printed}"));
            assert_eq!(again.resolved(), printed);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A model file: what can be planned runs.
pub fn model_file(bytes: &[u8]) {
    let model = match Model::parse(Path::new("model.onnx"), bytes) {
        Ok(model) => model,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let options =
        engine::Options { choice: engine::Choice::Planned, max_arena_bytes: 16 << 20, ..engine::Options::default() };
    let Ok(mut engine) = Engine::with(&model, &options) else { return };
    let codes = vec![0; engine.image_len()];
    let mut labels = vec![0; engine.labels_len()];
    for &modality in &model.spec().modalities {
        engine.run(&codes, modality, &mut labels).expect("what is planned runs");
        let most = model.spec().labels.organs().map(|(class, _)| class).max().unwrap_or(0);
        assert!(labels.iter().all(|&label| label <= most));
    }
}

/// A NIfTI file, as an image of either modality.
pub fn nifti_file(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.nii");
    fs::write(&path, bytes).expect("a file");
    for modality in Modality::ALL {
        match volume::read_image(&path, modality) {
            Ok(image) => assert_eq!(image.raw.len(), image.geometry.voxels()),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
