//! `gantry-edge serve` as a process, with scanners that send in turn and files that nobody here made.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    thread,
};

use contract::Modality;
use dicom_dictionary_std::tags;
use dicom_object::open_file;
use dimse::client::{self, Error};
use serde_json::Value;
use support::site::{Site, data, files, uids};

#[test]
fn two_series_over_two_associations_end_as_two_segmentations_while_others_misbehave() {
    let site = Site::new("");
    let serving = site.start();
    let idle: Vec<TcpStream> = (0..100).filter_map(|_| TcpStream::connect(&serving.target.address).ok()).collect();
    let (ct, mr) = (site.series(Modality::Ct, "1.2.31", 12), site.series(Modality::Mr, "1.2.32", 9));
    thread::scope(|scope| {
        for files in [&ct, &mr] {
            let to = &serving.target;
            scope.spawn(move || assert!(client::store(to, files).iter().all(Result::is_ok)));
        }
    });
    site.wait_for("both series", || site.lines("series").len() == 2);
    assert_eq!(site.references("1.2.31"), uids("1.2.31", 0..12));
    assert_eq!(site.references("1.2.32"), uids("1.2.32", 0..9));
    assert!(site.lines("series").iter().all(|line| line["ended"] == "association"));
    assert_eq!(fs::read_dir(site.path("state/received")).unwrap().count(), 0, "nothing is kept of what is written");
    let (status, metrics) = serving.page("/metrics");
    assert!(
        status == 200 && metrics.contains(r#"gantry_slices_total{modality="mr",outcome="segmented"} 9"#),
        "{metrics}"
    );
    assert_eq!([serving.page("/healthz").0, serving.page("/readyz").0, serving.page("/x").0], [200, 200, 404]);
    assert!(serving.page("/plan").1.contains("\"steps\""));
    drop(idle);
    let (code, snapshot) = serving.finish();
    assert_eq!((code, &snapshot["slices"]["ct segmented"]), (Some(0), &Value::from(12)));
}

#[test]
fn malformed_files_over_the_network_and_in_the_folder_harm_nobody() {
    let Some(data) = data() else { return };
    let site = Site::new("[series]\nquiet_s = 1\nincomplete = \"mark\"\n");
    let serving = site.start();
    let malformed = files(&data.join("malformed"));
    assert!(malformed.len() > 60, "{} files", malformed.len());
    for (number, path) in malformed.iter().enumerate() {
        // As they lie in folders, their names may be the same.
        let name = path.file_name().unwrap().to_string_lossy();
        fs::copy(path, site.path(&format!("in/{number:03}-{name}"))).unwrap();
    }
    let results = client::store(&serving.target, &malformed);
    // Our sender cannot read some of them; the others got a status.
    let sent = results.iter().filter(|result| matches!(result, Ok(()) | Err(Error::Status { .. }))).count();
    assert!(sent > 10, "{results:?}");
    let wanted = malformed.len();
    site.wait_for("every file of the folder", || {
        let named = |event: &str| site.lines(event).into_iter().filter(|line| line["source"] == "folder").count();
        let slices: BTreeSet<String> = site.lines("slice").iter().map(|line| line["slice"].to_string()).collect();
        named("refused") + slices.len() >= wanted - sent
    });
    // A good series is served as ever.
    let good = site.series(Modality::Ct, "1.2.36", 3);
    assert!(client::store(&serving.target, &good).iter().all(Result::is_ok));
    site.wait_for("the good series", || site.path("seg/1.2.36.seg.dcm").exists());
    for line in site.lines("refused") {
        assert!(line["code"].as_str().unwrap().starts_with("E-") && !line["reason"].as_str().unwrap().is_empty());
    }
    let (code, snapshot) = serving.finish();
    assert_eq!(code, Some(0), "{snapshot}");
}

/// The same image in every lossless transfer syntax has the same label map.
#[test]
fn every_lossless_form_of_an_image_gives_the_same_label_map() {
    let Some(data) = data() else { return };
    let single = data.join("dicom/single");
    let forms: Vec<PathBuf> = files(&single)
        .into_iter()
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("CT1_"))
        .collect();
    let lossless: Vec<&PathBuf> = forms.iter().filter(|path| is_lossless(path)).collect();
    println!("{} forms", lossless.len());
    assert!(lossless.len() >= 4, "{forms:?}");
    let mut maps = BTreeMap::new();
    for path in lossless {
        // One at a time: they are one instance.
        let site = Site::new("");
        let serving = site.start();
        let results = client::store(&serving.target, std::slice::from_ref(path));
        assert_eq!(results, [Ok(())], "{}", path.display());
        site.wait_for("the series", || !site.lines("series").is_empty());
        let line = site.lines("slice").remove(0);
        let seg = fs::read_dir(site.path("seg")).unwrap().next().unwrap().unwrap().path();
        let pixels = open_file(&seg).unwrap().element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().into_owned();
        maps.entry((line["pixels"].to_string(), pixels)).or_insert_with(Vec::new).push(path.clone());
        assert_eq!(serving.finish().0, Some(0));
    }
    assert_eq!(maps.len(), 1, "{:?}", maps.values().collect::<Vec<_>>());
}

fn is_lossless(path: &Path) -> bool {
    let syntax = open_file(path).unwrap().meta().transfer_syntax.trim_end_matches('\0').to_owned();
    // JPEG baseline, extended, JPEG-LS near-lossless, JPEG 2000 that may lose.
    !["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91"]
        .contains(&syntax.as_str())
}
