//! The promises that are kept on real parts: a real etcd and kube-apiserver, the real AWS SDKs over
//! HTTP against our fake AWS, and the operator's own program.
//!
//! One test binary, so that everything is linked once; one file a promise.

#[path = "../common"]
mod common {
    pub(crate) mod cluster;
    pub(crate) mod connection;
    pub(crate) mod fake_aws;
    pub(crate) mod gateway;
    pub(crate) mod opensearch;
    pub(crate) mod operator;
    pub(crate) mod oracle;
    pub(crate) mod parts;
    pub(crate) mod process;
    pub(crate) mod tripwire;
}

mod cel;
mod cluster;
mod fake_aws;
mod live;
mod ministack;
mod operations;
mod oracle;
mod outages;
mod proxy;
mod reconcile;
mod roles;
mod security_plugin;
