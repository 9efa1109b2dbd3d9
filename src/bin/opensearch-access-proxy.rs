//! The signing proxy alone: what `opensearch-access proxy` does, in a program that holds nothing
//! else.
//!
//! A sidecar runs beside every pod that asks for one, and most of the memory of an idle one is the
//! code that its start touched, with what lies around that code.

use std::process::ExitCode;

use opensearch_access::cli;

fn main() -> ExitCode {
    cli::proxy_alone()
}
