//! `gantry-edge serve` as a process, when the power, the disk or the network goes.

mod support;

use std::{fs, thread, time::Duration};

use contract::Modality;
use dimse::client::{self, Error};
use support::{
    dicom::{Axes, SliceFile},
    site::{PLANE, Site, uids},
};

#[test]
fn what_was_acknowledged_survives_kill_9_and_sigterm_writes_what_has_arrived() {
    let site = Site::new("[series]\nat_association_end = false\nquiet_s = 3\n");
    let serving = site.start();
    let files = site.series(Modality::Ct, "1.2.33", 10);
    assert!(client::store(&serving.target, &files[..4]).iter().all(Result::is_ok));
    serving.signal("-KILL");
    drop(serving);
    assert!(!site.path("seg").exists());
    assert_eq!(fs::read_dir(site.path("state/received")).unwrap().count(), 4);
    // Half a file of a write that the crash cut, and one that a bad disk changed.
    fs::write(site.path("state/received/.gantry-x.tmp"), b"half").unwrap();
    fs::write(site.path("state/received/00000000000000ff.dcm"), b"damaged").unwrap();
    let serving = site.start();
    assert!(client::store(&serving.target, &files[4..7]).iter().all(Result::is_ok));
    site.wait_for("the series", || !site.lines("series").is_empty());
    assert_eq!(site.references("1.2.33"), uids("1.2.33", 0..7));
    assert_eq!(site.lines("series")[0]["ended"], "quiet");
    // The association with the rest ended as it should.
    assert_eq!(site.description("1.2.33"), "Organs, segmented by a network");
    assert!(site.path("state/damaged/00000000000000ff.dcm").exists());
    assert!(site.lines("refused").iter().any(|line| line["code"] == "E-STATE-02"));

    // In the middle of a series.
    let files = site.series(Modality::Mr, "1.2.34", 5);
    assert!(client::store(&serving.target, &files).iter().all(Result::is_ok));
    let (code, _) = serving.finish();
    assert_eq!(code, Some(0));
    assert_eq!(site.references("1.2.34"), uids("1.2.34", 0..5));
    assert_eq!(site.lines("series")[1]["ended"], "stop");
    assert_eq!(site.description("1.2.34"), "CUT SHORT after 5 slices");
    assert_eq!(fs::read_dir(site.path("state/received")).unwrap().count(), 0);
}

/// The state folder cannot be written: a file lies where it should be made again.
#[test]
fn what_cannot_be_kept_is_not_acknowledged() {
    let site = Site::new("");
    let serving = site.start();
    fs::remove_dir(site.path("state/received")).unwrap();
    let files = site.series(Modality::Ct, "1.2.35", 1);
    let refused = client::store(&serving.target, &files);
    assert!(
        matches!(&refused[0], Err(Error::Status { code: 0xa700, comment }) if comment.starts_with("E-STATE-01")),
        "{refused:?}"
    );
    fs::create_dir(site.path("state/received")).unwrap();
    assert_eq!(client::store(&serving.target, &files), [Ok(())]);
    assert_eq!(serving.finish().0, Some(0));
    assert_eq!(site.references("1.2.35"), uids("1.2.35", 0..1));
}

/// A series that goes on after its end, and after a restart, makes further files and replaces none.
#[test]
fn parts_of_a_series_do_not_replace_each_other() {
    let site = Site::new("[[sink]]\nkind = \"nifti\"\nfolder = \"nifti\"\n");
    let files = site.series(Modality::Ct, "1.2.36", 7);
    let parts = [0..2, 2..4, 4..7];
    for (index, part) in parts.iter().enumerate() {
        let serving = site.start();
        assert!(client::store(&serving.target, &files[part.clone()]).iter().all(Result::is_ok));
        site.wait_for("the series", || site.lines("series").len() == index + 1);
        assert_eq!(serving.finish().0, Some(0));
    }
    for (name, part) in ["1.2.36", "1.2.36-2", "1.2.36-3"].into_iter().zip(parts) {
        assert_eq!(site.references(name), uids("1.2.36", part), "{name}");
        assert!(site.path(&format!("nifti/{name}.nii.gz")).exists(), "{name}");
    }
    // The same slices again give the same object, and no file is new.
    let serving = site.start();
    assert!(client::store(&serving.target, &files[2..4]).iter().all(Result::is_ok));
    site.wait_for("the series", || site.lines("series").len() == 4);
    assert_eq!(serving.finish().0, Some(0));
    assert_eq!(
        [fs::read_dir(site.path("seg")).unwrap().count(), fs::read_dir(site.path("nifti")).unwrap().count()],
        [3; 2]
    );
}

/// The sender is told the truth where label maps are what is acknowledged.
#[test]
fn a_slice_without_a_label_map_is_not_acknowledged_as_segmented() {
    let site = Site::with_source("acknowledge = \"segmented\"", "");
    let serving = site.start();
    let mut files = site.series(Modality::Ct, "1.2.37", 2);
    // No Hounsfield units.
    let raw: Vec<i16> = (0..PLANE.height * PLANE.width).map(|i| (i % 900) as i16 + 1).collect();
    let odd = SliceFile { modality: Modality::Ct, series: "1.2.37", z: 2, axes: Axes::AXIAL, plane: PLANE };
    files.push(site.path("odd.dcm"));
    odd.write(&files[2], &raw);
    let results = client::store(&serving.target, &files);
    assert_eq!(results[..2], [Ok(()), Ok(())]);
    assert!(
        matches!(&results[2], Err(Error::Status { code: 0xc000, comment }) if comment.starts_with("E-SLICE-02")),
        "{results:?}"
    );
    assert!(!site.path("state/received/0000000000000000.dcm").exists(), "nothing is kept on disk");
    assert_eq!(serving.finish().0, Some(0));
}

/// A file system of 400 KiB that really is full. Whoever runs the test may need user namespaces for it.
#[test]
fn a_full_disk_refuses_loses_nothing_and_is_used_again_when_there_is_space() {
    let site = Site::new(
        "[series]\nquiet_s = 2\nat_association_end = false\n[[sink]]\nkind = \"seg\"\nfolder = \"state/seg\"\n",
    );
    let Some(serving) = site.start_on_a_small_disk() else { return };
    let disk = serving.sees(&site.path("state"));
    // Until it is full but for a few KiB.
    let stone = disk.join("stone");
    let mut stones = fs::File::create(&stone).unwrap();
    while std::io::Write::write_all(&mut stones, &[1; 4096]).is_ok() {}
    stones.set_len(stones.metadata().unwrap().len() - 24 * 1024).unwrap();
    drop(stones);
    let files = site.series(Modality::Ct, "1.2.38", 8);
    let results = client::store(&serving.target, &files);
    let stored: Vec<usize> = (0..8).filter(|&z| results[z].is_ok()).collect();
    println!("{} of 8 instances found space", stored.len());
    assert!((1..8).contains(&stored.len()), "{results:?}");
    for refused in results.iter().filter(|result| result.is_err()) {
        assert!(
            matches!(refused, Err(Error::Status { code: 0xa700, comment }) if comment.starts_with("E-STATE-01")),
            "{refused:?}"
        );
    }
    // The series cannot be written either, and is kept.
    site.wait_for("the failure", || {
        site.lines("series").iter().any(|line| line["failures"][0]["code"] == "E-OUTPUT-01")
    });
    // Somebody tidies up; what was refused is sent again.
    fs::remove_file(&stone).unwrap();
    site.wait_for("the series", || site.lines("series").iter().any(|line| line["failures"].is_null()));
    assert!(disk.join("seg/1.2.38.seg.dcm").exists());
    let missing: Vec<_> = (0..8).filter(|z| !stored.contains(z)).map(|z| files[z].clone()).collect();
    assert!(client::store(&serving.target, &missing).iter().all(Result::is_ok));
    site.wait_for("the rest", || fs::read_dir(disk.join("received")).unwrap().count() == 0);
    assert_eq!(serving.finish().0, Some(0));
}

/// A scanner that breaks off, and one that is slow: the first series is cut short and says so, the second is whole.
#[test]
fn a_broken_association_cuts_its_series_short_and_a_pause_does_not() {
    let site = Site::new("[series]\nquiet_s = 1\n");
    let serving = site.start();
    let (cut, slow) = (site.series(Modality::Ct, "1.2.43", 3), site.series(Modality::Ct, "1.2.44", 3));
    // The scanner's power goes: nothing is released, the connection is gone.
    let sending = || {
        client::store_each(&serving.target, &cut, |index, _, _| match index {
            0 => true,
            _ => panic!("in the middle of the series"),
        });
    };
    assert!(thread::scope(|scope| scope.spawn(sending).join()).is_err());
    client::store_each(&serving.target, &slow, |index, result, _| {
        assert_eq!(result, Ok(()));
        if index == 0 {
            // Longer than quiet time, shorter than the receiver's patience.
            thread::sleep(Duration::from_millis(1800));
        }
        true
    });
    site.wait_for("both series", || site.lines("series").len() == 2);
    assert_eq!(serving.finish().0, Some(0));
    assert_eq!(
        (site.references("1.2.43"), site.description("1.2.43").as_str()),
        (uids("1.2.43", 0..2), "CUT SHORT after 2 slices")
    );
    assert_eq!(site.references("1.2.44"), uids("1.2.44", 0..3));
    assert_eq!(site.description("1.2.44"), "Organs, segmented by a network");
}

/// More series than may be open at once wait for their turn; what the scanner has sent again meanwhile counts once.
#[test]
fn every_series_of_an_earlier_run_is_segmented_and_none_is_called_damaged() {
    let site = Site::new("[series]\nquiet_s = 1\nmax_open = 1\n");
    let received = site.path("state/received");
    fs::create_dir_all(&received).unwrap();
    let series = ["1.2.45", "1.2.46", "1.2.47", "1.2.48"];
    let made: Vec<_> = series.iter().map(|series| site.series(Modality::Ct, series, 2)).collect();
    // One slice of each, then the other of each, and one twice.
    let order = (0..2).flat_map(|z| made.iter().map(move |files| &files[z])).chain([&made[0][0]]);
    for (number, file) in order.enumerate() {
        fs::copy(file, received.join(format!("{number:016x}.dcm"))).unwrap();
    }
    let serving = site.start();
    site.wait_for("every series", || site.lines("series").len() == series.len());
    assert_eq!(serving.finish().0, Some(0));
    for series in series {
        assert_eq!(site.references(series), uids(series, 0..2));
        // Nobody knows whether there were more.
        assert_eq!(site.description(series), "CUT SHORT after 2 slices");
    }
    assert_eq!(fs::read_dir(received).unwrap().count(), 0);
    assert!(!site.path("state/damaged").exists());
}

/// A series that is not written leaves the files of a watched folder alone, whatever is to become of them after.
#[test]
fn files_of_a_folder_are_deleted_only_when_their_series_is_written() {
    let site = Site::with_folder("after = \"delete\"", "[series]\nquiet_s = 1\nmax_slices = 2\n");
    let serving = site.start();
    for (series, slices) in [("1.2.49", 2), ("1.2.50", 3)] {
        for file in site.series(Modality::Ct, series, slices) {
            fs::rename(&file, site.path("in").join(file.file_name().unwrap())).unwrap();
        }
    }
    site.wait_for("both series", || site.lines("series").len() == 2);
    assert_eq!(serving.finish().0, Some(0));
    assert_eq!(site.references("1.2.49"), uids("1.2.49", 0..2));
    assert!(!site.path("seg/1.2.50.seg.dcm").exists(), "a slice of it was refused");
    assert_eq!(fs::read_dir(site.path("in")).unwrap().count(), 3);
}
