//! What every long-running program needs of its process.
//!
//! - [`admin`]: the port for whoever runs it
//! - [`lease`]: which of several processes leads
//! - [`link`]: calls to the API server that end, and how old the watches' view may be
//! - [`metrics`]: what Prometheus sees
//! - [`said`]: what the API server said, in words
//! - [`shutdown`]: when to stop
//! - [`telemetry`]: what is logged, and what never is
//! - [`tls`]: the one TLS provider
//! - [`watch`]: watches that fail

pub mod admin;
pub mod lease;
pub mod link;
pub mod metrics;
pub mod said;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod watch;
