//! What fuzzers found worth keeping, on every run of the tests: `tests/fuzz/corpus` holds inputs that reach different code,
//! `tests/fuzz/regressions` those that once broke something.

mod parsers;

use std::{fs, path::Path};

use parsers::PARSERS;

#[test]
fn parsers_hold_for_all_that_fuzzers_found() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for (name, parse) in PARSERS {
        let mut seen = 0;
        for folder in
            ["corpus", "regressions"].map(|kind| fuzz.join(kind).join(name)).iter().filter(|path| path.is_dir())
        {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                println!("{}", path.display());
                parse(&fs::read(path).unwrap());
                seen += 1;
            }
        }
        assert!(seen > 2, "{name}: {seen} inputs");
    }
}

#[test]
fn every_parser_has_its_fuzzer() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let mut found: Vec<_> =
        fs::read_dir(targets).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    assert_eq!(found, PARSERS.map(|(name, _)| format!("{name}.rs")));
}
