//! What every long-running program needs of its process: logging, TLS, shutdown.

pub mod shutdown;
pub mod telemetry;
pub mod tls;
