//! The program: parses its arguments, runs the subcommand, and turns an error into one line and
//! exit code 1.

use std::process::ExitCode;

use clap::Parser;
use opensearch_access::cli;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
