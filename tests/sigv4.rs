//! The signature is the one that AWS makes, for every request that could be sent.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails where it panics"
)]

#[path = "common"]
mod common {
    pub(crate) mod parts;
}

#[path = "sigv4/cases.rs"]
mod cases;
#[path = "sigv4/opinions.rs"]
mod opinions;
