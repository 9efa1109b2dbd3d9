//! The signing proxy's own program: on raw sockets before an upstream that does as it is told, and
//! before a real OpenSearch.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "an expectation that fails here is a failed test"
)]

#[path = "../common"]
mod common {
    pub(crate) mod cluster;
    pub(crate) mod connection;
    pub(crate) mod fake_aws;
    pub(crate) mod gateway;
    pub(crate) mod opensearch;
    pub(crate) mod parts;
    pub(crate) mod process;
    pub(crate) mod tripwire;
}

mod canonical;
mod domain;
mod framing;
mod identities;
mod life;
mod program;
mod replies;
mod signatures;
mod upstream;
mod wire;
