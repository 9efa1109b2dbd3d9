//! Kubernetes for who only looks: a client by kubeconfig, the operator's objects, and its record.
//!
//! The reconciler watches and writes, which is `controller`'s; what is here reads each thing once.
//!
//! - [`connect`]: a client by kubeconfig, as `kubectl` finds it
//! - [`objects`]: the domains, the grants and the namespaces' labels
//! - [`record`]: the last applied state of a domain, where the operator keeps it
//! - [`error`]: what went wrong, and what to do about it

pub mod connect;
pub mod error;
pub mod objects;
pub mod record;
