//! The canonical form of targets.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| opensearch_access_fuzz::target::check(data));
