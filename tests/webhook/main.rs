//! The webhook's own program, before a real API server: its configurations, rights and Secret are those
//! of `deploy/kustomize/base`.

#[path = "../common"]
mod common {
    pub(crate) mod cluster;
    pub(crate) mod connection;
    pub(crate) mod fake_aws;
    pub(crate) mod gateway;
    pub(crate) mod opensearch;
    pub(crate) mod parts;
    pub(crate) mod pod_identity_webhook;
    pub(crate) mod process;
    pub(crate) mod tripwire;
}

mod certificates;
mod hook;
mod identities;
mod plugin;
mod pods;
mod resources;
mod reviews;
mod shapes;
