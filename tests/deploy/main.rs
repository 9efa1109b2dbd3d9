//! What `deploy/` holds: that it says the same twice, asks for no more than is needed, is what the
//! programs that read it take it for, and installs on a real API server.
//!
//! | file | what is judged | by whom |
//! |---|---|---|
//! | `same.rs` | the chart and the kustomize base | each other |
//! | `values.rs` | values of the chart | real helm |
//! | `secure.rs` | every object that either makes | rules, read from the objects |
//! | `installed.rs` | install, upgrade and uninstall by helm | a real API server |
//! | `applied.rs` | the same by kubectl, and every manifest | a real API server, kubeconform |
//! | `aws.rs` | the IAM policies | the calls in the source |
//! | `image.rs` | the image's recipes | cargo, and what they say |
//! | `gitops.rs` | health of our kinds | Argo CD's Lua, kstatus |
//! | `monitoring.rs` | alerts and dashboard | Prometheus's parser, the metrics in the source |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails where it panics"
)]

#[path = "../common"]
mod common {
    pub(crate) mod cluster;
    pub(crate) mod connection;
    pub(crate) mod parts;
    pub(crate) mod process;
    pub(crate) mod tripwire;
}

mod applied;
mod aws;
mod gitops;
mod image;
mod installed;
mod monitoring;
mod render;
mod same;
mod schemas;
mod secure;
mod site;
mod values;
