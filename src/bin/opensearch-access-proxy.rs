//! The signing proxy alone: what `opensearch-access proxy` does, in a program that holds nothing
//! else.
//!
//! A sidecar runs beside every pod that asks for one, and most of the memory of an idle one is the
//! code that its start touched, with what lies around that code.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use opensearch_access::cli;

/// The C library's own gives the memory of each body back, and has it mapped anew for the next, which
/// costs as much as signing it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cli::proxy_alone()
}
