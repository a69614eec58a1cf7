//! Writes the folder of the libtorch that torch-sys found into the run path of this package's programs and tests, so
//! that they start without `LD_LIBRARY_PATH`. Cargo tells it only to direct dependents: hence `torch-sys` in Cargo.toml.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    match std::env::var("DEP_TCH_LIBTORCH_LIB") {
        Ok(folder) if !cfg!(windows) => println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}"),
        _ => {}
    }
}
