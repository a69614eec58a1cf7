//! Fuzzes `parsers::association`.
#![no_main]

#[path = "../../tests/corpus/parsers.rs"]
mod parsers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| parsers::association(bytes));
