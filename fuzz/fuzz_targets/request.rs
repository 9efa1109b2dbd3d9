//! The heads of requests.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| opensearch_access_fuzz::proxy::request::check(data));
