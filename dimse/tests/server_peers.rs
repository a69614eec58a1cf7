//! The receiver against the programs of DCMTK, where they are installed, and real files, where there are test data.

mod raw;

use std::{
    collections::BTreeMap,
    env, fs,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};

use dicom_dictionary_std::{tags, uids};
use dicom_object::{InMemDicomObject, Tag, open_file};
use dicom_transfer_syntax_registry::{TransferSyntaxIndex, TransferSyntaxRegistry};
use dimse::server::{End, Instance};
use flate2::read::DeflateDecoder;
use raw::{Event, MR, config, serve};

/// The options of storescu that propose a transfer syntax, by the end of its UID.
const OPTIONS: [(&str, &str); 13] = [
    ("", "-xi"),
    (".1", "-xe"),
    (".2", "-xb"),
    (".1.99", "-xd"),
    (".5", "-xr"),
    (".4.50", "-xy"),
    (".4.51", "-xx"),
    (".4.57", "-xs"),
    (".4.70", "-xs"),
    (".4.80", "-xt"),
    (".4.81", "-xu"),
    (".4.90", "-xv"),
    (".4.91", "-xw"),
];

fn run(program: &str, arguments: &[&str]) -> Option<std::process::Output> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => Some(output),
        Err(e) => {
            println!("skipped: {program}: {e}");
            None
        }
    }
}

fn files() -> Vec<PathBuf> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let root = env::var_os("GANTRY_TEST_DATA").map_or_else(default, PathBuf::from).join("dicom/single");
    let mut all = Vec::new();
    for folder in fs::read_dir(&root).into_iter().flatten().flatten() {
        all.extend(fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()));
    }
    all.retain(|path| path.extension().is_some_and(|end| end == "dcm"));
    if all.is_empty() {
        println!("skipped: no test data in {}", root.display());
    }
    all
}

fn data_set(data: &[u8], uid: &str) -> Option<InMemDicomObject> {
    let mut inflated = Vec::new();
    let (data, uid) = match uid {
        uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN => {
            DeflateDecoder::new(data).read_to_end(&mut inflated).ok()?;
            (&inflated[..], uids::EXPLICIT_VR_LITTLE_ENDIAN)
        }
        _ => (data, uid),
    };
    let syntax = TransferSyntaxRegistry.get(uid)?;
    InMemDicomObject::read_dataset_with_ts(data, syntax).ok()
}

#[test]
fn echoscu_is_answered_or_rejected() {
    let mut asked = false;
    let log = serve(config(), |address, _, _| {
        let port = address.port().to_string();
        let Some(output) = run("echoscu", &["-aet", "PEER", "-aec", "GANTRY", "--repeat", "3", "127.0.0.1", &port])
        else {
            return;
        };
        asked = true;
        assert!(output.status.success(), "{output:?}");
        let other = run("echoscu", &["-aec", "OTHER", "127.0.0.1", &port]).unwrap();
        assert!(!other.status.success());
        let text = String::from_utf8_lossy(&other.stderr);
        assert!(text.contains("Called AE Title Not Recognized"), "{text}");
    });
    if asked {
        let events = log.events();
        assert!(matches!(&events[0], Event::Opened(peer) if peer.calling == "PEER"), "{events:?}");
        assert!(matches!(&events[1], Event::Ended(_, End::Released)), "{events:?}");
        assert!(matches!(&events[2], Event::Refused(reason) if reason.contains("OTHER")), "{events:?}");
    }
}

#[test]
fn storescu_sends_files_of_every_transfer_syntax() {
    // Sent as they are, by transfer syntax.
    let mut groups: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in files() {
        let object = match open_file(&path) {
            Ok(object) => object,
            Err(e) => {
                println!("skipped: {}: {e}", path.display());
                continue;
            }
        };
        groups.entry(object.meta().transfer_syntax().trim_end_matches('\0').to_owned()).or_default().push(path);
    }
    let (mut compared, mut syntaxes) = (0, 0);
    for (uid, paths) in &groups {
        let end = uid.strip_prefix("1.2.840.10008.1.2").unwrap();
        let Some((_, option)) = OPTIONS.iter().find(|(known, _)| *known == end) else { panic!("{uid}") };
        let mut sent = true;
        let log = serve(config(), |address, _, _| {
            let port = address.port().to_string();
            let mut arguments = vec!["-nh", "-aec", "GANTRY", "-R", option, "127.0.0.1", &port];
            arguments.extend(paths.iter().map(|path| path.to_str().unwrap()));
            let Some(output) = run("storescu", &arguments) else {
                sent = false;
                return;
            };
            let refused = paths.iter().any(|path| {
                let object = open_file(path).unwrap();
                object.meta().media_storage_sop_class_uid().trim_end_matches('\0') == MR
            });
            assert!(output.status.success() || refused, "{uid}: {output:?}");
        });
        if !sent {
            return;
        }
        let instances = log.instances();
        assert_eq!(instances.len(), paths.len(), "{uid}");
        for path in paths {
            compared += usize::from(compare(path, &instances));
        }
        syntaxes += 1;
    }
    println!("{compared} data sets compared in {syntaxes} transfer syntaxes");
}

/// Whether two data sets are equal but for what a program may choose: group lengths, padding after the last element, and
/// whether lengths of sequences are given.
fn same(one: &InMemDicomObject, other: &InMemDicomObject) -> bool {
    let chosen = |tag: Tag| tag.element() == 0 || tag == Tag(0xfffc, 0xfffc);
    let tags = |object: &InMemDicomObject| object.tags().filter(|tag| !chosen(*tag)).collect::<Vec<_>>();
    let equal = |tag| {
        let (one, other) = (one.element(tag).unwrap(), other.element(tag).unwrap());
        let equal = match (one.items(), other.items()) {
            (Some(one), Some(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
            }
            _ => match (one.fragments(), other.fragments()) {
                (Some(one), Some(other)) => one == other,
                _ => one.to_bytes().unwrap() == other.to_bytes().unwrap(),
            },
        };
        equal && one.vr() == other.vr()
    };
    tags(one) == tags(other) && tags(one).into_iter().all(equal)
}

/// Whether the instance of this file could be compared; it must have arrived.
fn compare(path: &Path, instances: &[Instance]) -> bool {
    let file = open_file(path).unwrap();
    let name = path.display();
    let text = |tag| file.element(tag).unwrap().to_str().unwrap().trim_end_matches('\0').to_owned();
    let uid = text(tags::SOP_INSTANCE_UID);
    let of = |instance: &&Instance| instance.sop_instance == uid;
    let syntax = file.meta().transfer_syntax().trim_end_matches('\0');
    assert!(instances.iter().any(|instance| of(&instance)), "{name}: {uid} is missing");
    let equal = instances.iter().filter(of).any(|instance| {
        assert_eq!(instance.transfer_syntax, syntax, "{name}");
        assert_eq!(instance.sop_class, text(tags::SOP_CLASS_UID), "{name}");
        assert!(instance.begun <= instance.received);
        match data_set(&instance.data, syntax) {
            Some(data) => same(&data, &file),
            None => panic!("{name}: what arrived in {syntax} cannot be parsed"),
        }
    });
    assert!(equal, "{name}: another data set arrived");
    true
}

#[test]
fn storescu_converts_to_what_is_accepted() {
    let Some(path) = files().into_iter().find(|path| path.ends_with("CT_small.dcm")) else { return };
    let file = open_file(&path).unwrap();
    for option in ["-xi", "-xe", "-xd"] {
        let wanted = OPTIONS.iter().find(|(_, known)| *known == option).unwrap().0;
        let mut sent = true;
        let log = serve(config(), |address, _, _| {
            let port = address.port().to_string();
            // PDUs as short and as long as storescu makes them.
            for length in ["4096", "131072"] {
                let arguments = ["-aec", "GANTRY", "--max-send-pdu", length, option, "127.0.0.1", &port];
                let Some(output) = run("storescu", &[&arguments[..], &[path.to_str().unwrap()]].concat()) else {
                    sent = false;
                    return;
                };
                assert!(output.status.success(), "{option}: {output:?}");
            }
        });
        if !sent {
            return;
        }
        assert_eq!(log.instances().len(), 2);
        for instance in log.instances() {
            assert_eq!(instance.transfer_syntax.strip_prefix(raw::IMPLICIT), Some(wanted));
            let data = data_set(&instance.data, &instance.transfer_syntax).unwrap();
            let pixels =
                |object: &InMemDicomObject| object.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().to_vec();
            assert_eq!(pixels(&data), pixels(&file), "{option}");
        }
    }
}
