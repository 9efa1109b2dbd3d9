//! The guard of connections.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| opensearch_access_fuzz::proxy::stream::check(data));
