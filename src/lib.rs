//! Access to Amazon OpenSearch Service domains, from Kubernetes manifests.
//!
//! Teams write grants (`DomainAccess`), platform admins write domains and who may grant on them
//! (`OpenSearchDomain`); the operator compiles all grants of a domain into the domain's one access
//! policy, and puts it right whenever it drifts.
//!
//! ```text
//!            kubectl apply                     plan -f DIR, plan --cluster
//!                 |                                       |
//!                 v                                       v
//!   [controller] observe -> validate -> plan ------> [offline] render
//!                   ^          [policy, pure]  \
//!                   |                           v
//!             Kubernetes, [aws] <---- apply -> status
//! ```
//!
//! Left may use right, never the reverse (`tests/architecture.rs`):
//!
//! ```text
//! main -> cli -> { controller | webhook | proxy | offline } -> security -> { aws, kubernetes, runtime } -> { policy, inject, sigv4 } -> api
//! ```
//!
//! - [`api`]: the custom resources and their vocabulary
//! - [`policy`]: decisions, pure
//! - [`inject`]: what becomes of pods that ask for a signing proxy, pure
//! - [`sigv4`]: the signature of requests to domains, pure
//! - [`aws`]: the calls to AWS
//! - [`security`]: the calls to the security plugins of domains
//! - [`kubernetes`]: the cluster, for who only looks
//! - [`runtime`]: what a long-running process needs
//! - [`controller`]: the reconciler
//! - [`webhook`]: the admission webhook
//! - [`proxy`]: the signing proxy
//! - [`offline`]: what is worked out from manifests and policies, wherever they were read
//! - [`cli`]: the command line

pub mod api;
pub mod aws;
pub mod cli;
pub mod controller;
pub mod inject;
pub mod kubernetes;
pub mod offline;
pub mod policy;
pub mod proxy;
pub mod runtime;
pub mod security;
pub mod sigv4;
pub mod webhook;
