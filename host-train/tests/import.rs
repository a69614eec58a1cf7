//! Every layout that can be imported, on trees that mimic it: the right voxels, the right organs, the right way up, the
//! right side of the split.

mod trees;

use std::path::Path;

use contract::{LabelMap, Modality};
use host_train::import::{LabelRules, Plan, Source, Split, Summary, import};
use tempfile::TempDir;
use trees::{SHAPE, classes, raw};
use volume::Dataset;

fn plan(source: Source, root: &TempDir) -> Plan {
    Plan {
        source,
        from: root.path().join("from"),
        to: root.path().join("to"),
        modality: None,
        only: None,
        labels: None,
        split: Split::Own,
        seed: 0,
        skip_bad: false,
    }
}

fn run(plan: &Plan) -> Summary {
    import(plan, &mut |_| {}).unwrap()
}

fn names(cases: &[volume::Case]) -> Vec<&str> {
    cases.iter().map(|case| case.name.as_str()).collect()
}

/// The data set that was written, and for each case that its voxels are those of `seed` and its classes `expected`.
fn check(
    folder: &Path,
    labels: &LabelMap,
    modality: Modality,
    seed: &dyn Fn(&str) -> usize,
    expected: &dyn Fn(usize) -> Vec<u8>,
) -> Dataset {
    let data = Dataset::open(folder, labels).unwrap();
    assert_eq!(data.modality(), modality);
    for case in data.train.iter().chain(&data.test) {
        let (image, truth) = data.load(case).unwrap();
        let seed = seed(&case.name);
        assert_eq!(image.shape(), SHAPE, "{}", case.name);
        assert_eq!(image.raw, raw(seed), "{}", case.name);
        assert_eq!(truth.classes, expected(seed), "{}", case.name);
        let spacing = image.spacing_mm();
        assert!([1.5, 2., 3.].iter().zip(spacing).all(|(a, b)| (a - b).abs() < 1e-5), "{}: {spacing:?}", case.name);
    }
    data
}

/// The digits of a name that say which scan it is.
fn number(name: &str) -> usize {
    name.rsplit('_').find_map(|part| part.trim_start_matches('s').parse().ok()).unwrap()
}

fn translate(seed: usize, count: usize, to: &[(usize, u8)]) -> Vec<u8> {
    let class = |from: usize| to.iter().find(|(value, _)| *value == from).map_or(0, |(_, class)| *class);
    classes(seed, count).into_iter().map(class).collect()
}

/// Of seven structures the four of the paper's task, and the test patients that its authors published.
#[test]
fn mm_whs_with_the_published_split() {
    let root = tempfile::tempdir().unwrap();
    trees::mm_whs(&root.path().join("from"), 1001..=1020);
    let summary = run(&Plan { split: Split::Sifa, ..plan(Source::MmWhs, &root) });
    assert!(summary.sets.iter().all(|set| set.unlabelled.is_empty()));
    // The seven in the order of the tree: 205, 420, 500, 550, 600, 820, 850.
    let expected = |seed| translate(seed, 7, &[(1, 1), (2, 2), (3, 3), (6, 4)]);
    for (folder, modality, test) in [
        ("Dataset011_MMWHSCT", Modality::Ct, [1003, 1008, 1014, 1019]),
        ("Dataset012_MMWHSMR", Modality::Mr, [1007, 1009, 1018, 1019]),
    ] {
        let folder = root.path().join("to").join(folder);
        let data = check(&folder, &LabelMap::heart(), modality, &number, &expected);
        let held = test.map(|id| format!("{modality}_train_{id}"));
        assert_eq!((data.train.len(), names(&data.test)), (16, held.iter().map(String::as_str).collect()));
        assert!(data.train.iter().all(|case| !held.contains(&case.name)));
    }
}

#[test]
fn btcv_with_the_published_split() {
    let root = tempfile::tempdir().unwrap();
    let ids = [1, 2, 9, 10, 21, 30, 32, 33, 39, 40];
    trees::btcv(&root.path().join("from"), &ids);
    let summary = run(&Plan { split: Split::Sifa, ..plan(Source::Btcv, &root) });
    let folder = root.path().join("to/Dataset031_BTCVCT");
    assert_eq!((summary.sets.len(), &summary.sets[0].folder), (1, &folder));
    let organs = [(6, 1), (2, 2), (3, 3), (1, 4)];
    let expected = |seed| translate(seed, 13, &organs);
    let data = check(&folder, &LabelMap::abdomen(), Modality::Ct, &number, &expected);
    assert_eq!(names(&data.train), ["btcv_0002", "btcv_0010", "btcv_0021", "btcv_0040"]);
    assert_eq!(names(&data.test), ["btcv_0001", "btcv_0009", "btcv_0030", "btcv_0032", "btcv_0033", "btcv_0039"]);
    let case = &summary.sets[0].train[0];
    let voxels = classes(2, 13).iter().filter(|&&label| label == 6).count() as u64;
    assert_eq!((case.size, case.voxels["liver"]), ([6, 5, 4], voxels));
}

#[test]
fn amos22_by_number_and_with_its_own_test_part() {
    let root = tempfile::tempdir().unwrap();
    trees::amos22(&root.path().join("from"));
    run(&plan(Source::Amos22, &root));
    let expected = |seed| translate(seed, 15, &[(6, 1), (2, 2), (3, 3), (1, 4)]);
    let at = |name: &str| root.path().join("to").join(name);
    let ct = check(&at("Dataset041_AMOS22CT"), &LabelMap::abdomen(), Modality::Ct, &number, &expected);
    assert_eq!((names(&ct.train), names(&ct.test)), (vec!["amos_0001", "amos_0500"], vec!["amos_0008"]));
    let mr = check(&at("Dataset042_AMOS22MR"), &LabelMap::abdomen(), Modality::Mr, &number, &expected);
    assert_eq!((names(&mr.train), names(&mr.test)), (vec!["amos_0507"], vec!["amos_0501", "amos_0600"]));
}

#[test]
fn chaos_mri_with_three_scans_per_patient() {
    let root = tempfile::tempdir().unwrap();
    let ids = [1, 2, 13, 32, 38];
    trees::chaos(&root.path().join("from"), &ids);
    run(&Plan { split: Split::Sifa, ..plan(Source::Chaos, &root) });
    let seed = |name: &str| {
        let id: usize = name.split('_').nth(2).unwrap().parse().unwrap();
        id + if name.ends_with("t1out") {
            50
        } else if name.ends_with("t2spir") {
            90
        } else {
            0
        }
    };
    let data = Dataset::open(root.path().join("to/Dataset022_CHAOSMR"), &LabelMap::abdomen()).unwrap();
    assert_eq!(data.modality(), Modality::Mr);
    assert_eq!(names(&data.train), ["chaos_mr_02_t1in", "chaos_mr_02_t1out", "chaos_mr_02_t2spir"]);
    assert_eq!(data.test.len(), 12);
    for case in data.train.iter().chain(&data.test) {
        let (image, truth) = data.load(case).unwrap();
        assert_eq!((image.shape(), &case.patient[..]), (SHAPE, &case.name[..11]));
        assert_eq!(image.raw, raw(seed(&case.name)), "{}", case.name);
        // T1 out of phase has the truth of T1 in phase.
        let truth_of = seed(&case.name) - if case.name.ends_with("t1out") { 50 } else { 0 };
        let expected: Vec<u8> = classes(truth_of, 4).into_iter().map(|class| class as u8).collect();
        assert_eq!(truth.classes, expected, "{}", case.name);
        // The corner that the headers name, in RAS.
        let corner = image.geometry.canonical_affine().map(|row| row[3]);
        assert_eq!(corner, [10., -20., -30.], "{}", case.name);
    }
}

#[test]
fn chaos_ct_has_the_liver_only_and_says_so() {
    let root = tempfile::tempdir().unwrap();
    trees::chaos(&root.path().join("from"), &[5, 6, 8]);
    let split = Split::KFold { folds: 3, fold: 1 };
    let summary = run(&Plan { modality: Some(Modality::Ct), split, ..plan(Source::Chaos, &root) });
    assert_eq!(summary.sets[0].unlabelled, ["right kidney", "left kidney", "spleen"]);
    let expected = |seed| translate(seed, 1, &[(1, 1)]);
    let folder = root.path().join("to/Dataset021_CHAOSCT");
    let data = check(&folder, &LabelMap::abdomen(), Modality::Ct, &number, &expected);
    assert_eq!((data.train.len(), data.test.len()), (2, 1));
}

#[test]
fn only_some_sequences_of_chaos() {
    let root = tempfile::tempdir().unwrap();
    trees::chaos(&root.path().join("from"), &[1, 2]);
    let summary = run(&Plan { only: Some("t2spir".into()), ..plan(Source::Chaos, &root) });
    let names: Vec<&str> = summary.sets[0].train.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names, ["chaos_mr_01_t2spir", "chaos_mr_02_t2spir"]);
}

#[test]
fn totalsegmentator_from_a_mask_per_organ() {
    for (image, modality, name) in [("ct.nii.gz", Modality::Ct, "CT"), ("mri.nii.gz", Modality::Mr, "MR")] {
        let root = tempfile::tempdir().unwrap();
        let subjects = [("s0000", "train"), ("s0001", "test"), ("s0002", "val")];
        trees::totalsegmentator(&root.path().join("from"), image, &subjects);
        run(&plan(Source::TotalSegmentator, &root));
        let folder = root.path().join(format!("to/Dataset05{}_TotalSegmentator{name}", 1 + modality.index()));
        let expected = |seed| translate(seed, 5, &[(1, 1), (2, 2), (3, 3), (4, 4)]);
        let data = check(&folder, &LabelMap::abdomen(), modality, &number, &expected);
        assert_eq!((names(&data.train), names(&data.test)), (vec!["s0000", "s0002"], vec!["s0001"]));
    }
}

#[test]
fn decathlon_tasks_by_their_own_names_or_by_rules() {
    let root = tempfile::tempdir().unwrap();
    let from = root.path().join("from");
    trees::msd(&from, "MRI", &["background", "spleen"]);
    let summary = run(&plan(Source::Msd, &root));
    assert_eq!(summary.sets[0].unlabelled, ["liver", "right kidney", "left kidney"]);
    let folder = root.path().join("to/Dataset062_MSDMR");
    let data = check(&folder, &LabelMap::abdomen(), Modality::Mr, &number, &|seed| translate(seed, 1, &[(1, 4)]));
    assert_eq!((data.train.len(), data.test.len()), (3, 0));

    let root = tempfile::tempdir().unwrap();
    let from = root.path().join("from");
    trees::msd(&from, "CT", &["background", "liver", "cancer"]);
    let error = import(&plan(Source::Msd, &root), &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("label '2' = '???'"), "{error}");
    let text = Source::Msd.label_text(Some(&from)).unwrap().replace("???", "liver");
    let labels = Some(LabelRules::parse(Path::new("liver.toml"), &text).unwrap());
    run(&Plan { labels, ..plan(Source::Msd, &root) });
    let folder = root.path().join("to/Dataset061_MSDCT");
    check(&folder, &LabelMap::abdomen(), Modality::Ct, &number, &|seed| translate(seed, 2, &[(1, 1), (2, 1)]));
}

/// What was imported can be imported: both versions of the description, patients and test part kept.
#[test]
fn nnunet_raw_again() {
    let root = tempfile::tempdir().unwrap();
    trees::chaos(&root.path().join("from"), &[1, 2, 3]);
    run(&Plan { split: Split::KFold { folds: 3, fold: 0 }, ..plan(Source::Chaos, &root) });
    let from = root.path().join("to/Dataset022_CHAOSMR");
    let first = Dataset::open(&from, &LabelMap::abdomen()).unwrap();
    run(&Plan { from, ..plan(Source::NnUnet, &root) });
    let second = Dataset::open(root.path().join("to/Dataset072_ImportedMR"), &LabelMap::abdomen()).unwrap();
    for (first, second) in [(&first.train, &second.train), (&first.test, &second.test)] {
        let key = |case: &volume::Case| (case.name.clone(), case.patient.clone());
        assert_eq!(first.iter().map(key).collect::<Vec<_>>(), second.iter().map(key).collect::<Vec<_>>());
    }
    for (a, b) in first.train.iter().zip(&second.train) {
        let ((a, a_truth), (b, b_truth)) = (first.load(a).unwrap(), second.load(b).unwrap());
        assert_eq!((a.raw, a_truth.classes), (b.raw, b_truth.classes));
    }
}
