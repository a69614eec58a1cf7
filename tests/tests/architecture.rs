//! The arrows between the packages, and the habits of the source that a machine can check.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use cargo_metadata::{Metadata, MetadataCommand, Package};

/// Meet in files, never in code.
const PRODUCTS: [&str; 3] = ["host-train", "export", "edge-runtime"];
/// May use everything, are used by nothing.
const OUTSIDE: [&str; 3] = ["tests", "benches", "xtask"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_path_buf()
}

fn metadata() -> Metadata {
    MetadataCommand::new().current_dir(root()).no_deps().other_options(["--offline".to_string()]).exec().expect("cargo")
}

/// Packages of the workspace with the names of all that they depend on: for use, for tests and for building.
fn arrows(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    let names = |package: &Package| package.dependencies.iter().map(|dependency| dependency.name.clone()).collect();
    metadata.workspace_packages().iter().map(|package| (package.name.to_string(), names(package))).collect()
}

/// Dependencies of ours only.
fn ours(arrows: &BTreeMap<String, BTreeSet<String>>, package: &str) -> Vec<String> {
    arrows[package].iter().filter(|name| arrows.contains_key(*name)).cloned().collect()
}

#[test]
fn products_meet_in_files_only() {
    let arrows = arrows(&metadata());
    for product in PRODUCTS {
        let others: Vec<_> = ours(&arrows, product).into_iter().filter(|name| PRODUCTS.contains(&&**name)).collect();
        assert_eq!(others, Vec::<String>::new(), "{product} depends on another product");
    }
}

#[test]
fn arrows_point_inwards() {
    let arrows = arrows(&metadata());
    assert_eq!(ours(&arrows, "contract"), Vec::<String>::new(), "the contract stands on nothing of ours");
    assert_eq!(ours(&arrows, "volume"), ["contract"]);
    assert_eq!(ours(&arrows, "phantom"), ["contract"]);
    assert_eq!(ours(&arrows, "report"), ["contract"]);
    assert_eq!(ours(&arrows, "dicom"), ["contract", "volume"]);
    assert_eq!(ours(&arrows, "dimse"), Vec::<String>::new(), "messages know nothing of what is in them");
    for package in arrows.keys() {
        let outside: Vec<_> = ours(&arrows, package).into_iter().filter(|name| OUTSIDE.contains(&&**name)).collect();
        assert_eq!(outside, Vec::<String>::new(), "{package} depends on what nothing may depend on");
    }
    let users = |of: &str| {
        let uses = |(name, set): (&String, &BTreeSet<String>)| set.contains(of).then(|| name.clone());
        arrows.iter().filter_map(uses).collect::<Vec<_>>()
    };
    // Phantoms are training and test data: neither the exporter nor the device may know them.
    assert_eq!(users("phantom").iter().filter(|name| ["export", "edge-runtime"].contains(&&***name)).count(), 0);
    for library in ["tch", "torch-sys"] {
        assert_eq!(users(library), ["host-train"], "only the trainer may name {library}");
    }
}

#[test]
fn everything_but_the_trainer_builds_by_default() {
    let metadata = metadata();
    let all: BTreeSet<_> = metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect();
    let default = metadata.workspace_default_packages().iter().map(|package| package.name.to_string()).collect();
    assert_eq!(all.difference(&default).collect::<Vec<_>>(), ["host-train"]);
}

#[test]
fn folders_are_packages() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        let folder = package.manifest_path.parent().expect("a folder");
        assert_eq!(folder.parent().expect("a root").as_std_path(), root(), "{} lies deeper", package.name);
        assert_eq!(folder.file_name(), Some(&*package.name.to_string()), "folder and package differ");
    }
    let packages: BTreeSet<_> = metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect();
    let with_manifest =
        fs::read_dir(root()).unwrap().map(Result::unwrap).filter(|e| e.path().join("Cargo.toml").exists());
    for folder in with_manifest {
        let name = folder.file_name().into_string().unwrap();
        assert!(packages.contains(&name), "{name}/ has a Cargo.toml but is no member of the workspace");
    }
}

#[test]
fn the_contract_needs_no_operating_system() {
    let lib = fs::read_to_string(root().join("contract/src/lib.rs")).unwrap();
    assert!(lib.lines().any(|line| line == "#![no_std]"), "contract/src/lib.rs is not no_std");
    for (path, text) in sources().into_iter().filter(|(path, _)| path.starts_with("contract")) {
        let product = text.split("#[cfg(test)]").next().unwrap();
        assert!(!product.contains("std::"), "{} names std::", path.display());
    }
}

/// One exception: MPI, whose compiler and libraries most machines lack.
#[test]
fn products_have_no_cargo_features() {
    for package in metadata().workspace_packages() {
        let mut features = package.features.clone();
        if package.name == "host-train" {
            features.remove("mpi");
        }
        assert!(features.is_empty(), "{} has features: {:?}", package.name, features.keys());
    }
}

#[test]
fn every_source_file_says_what_it_is() {
    let mut silent = vec![];
    for (path, text) in sources() {
        let first = text.lines().next().unwrap_or_default();
        if !first.starts_with("//! ") || first.len() < 12 || first.contains("Placeholder") {
            silent.push(format!("{}: '{first}'", path.display()));
        }
    }
    assert_eq!(silent, Vec::<String>::new(), "these files do not open with `//! ` and a sentence");
}

/// A name spelled in two packages is a habit; a name that one function makes is an agreement. Tests may spell what they
/// expect.
#[test]
fn tensor_names_are_spelled_in_the_contract_only() {
    let stems = [".conv.weight", ".conv.bias", ".norm.ct", ".norm.mr", ".norm.{"];
    let mut found = vec![];
    for (path, text) in sources().into_iter().filter(|(path, _)| !path.starts_with("contract") && !is_test(path)) {
        let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (index, line) in product.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            // Every second piece between quotation marks is text.
            if line.split('"').skip(1).step_by(2).any(|text| stems.iter().any(|stem| text.contains(stem))) {
                found.push(format!("{}:{}: {}", path.display(), index + 1, line.trim()));
            }
        }
    }
    assert_eq!(found, Vec::<String>::new(), "these lines spell a tensor's name; contract::names makes it");
}

fn is_test(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.components().skip(1).any(|part| part.as_os_str() == "tests")
}

#[test]
fn the_scan_sees_the_sources() {
    let seen = sources();
    for package in metadata().workspace_packages() {
        let name = package.name.to_string();
        assert!(seen.iter().any(|(path, _)| path.starts_with(&name)), "no source of {name} found");
    }
}

/// All `.rs` files of the packages, paths relative to the root.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = vec![];
    for package in metadata().workspace_packages() {
        collect(package.manifest_path.parent().expect("a folder").as_std_path(), &mut found);
    }
    found
}

fn collect(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "target" {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path.strip_prefix(root()).unwrap().to_path_buf(), text));
        }
    }
}
