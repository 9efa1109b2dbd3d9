//! The program: parses its arguments, runs the subcommand, and turns an error into one line and
//! exit code 1.

use std::process::ExitCode;

use opensearch_access::cli;

fn main() -> ExitCode {
    let run = match cli::parse() {
        Ok(cli) => cli::run(cli),
        Err(code) => return code,
    };
    run.unwrap_or_else(|error| cli::failed(&error))
}
