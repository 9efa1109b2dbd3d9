//! Logging.

use std::io::IsTerminal;

use tracing_subscriber::filter::{FilterExt, LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directives cannot be read.
    #[error("{directives:?} is not a list of log directives")]
    Directives {
        /// As they were given.
        directives: String,
        /// What is wrong with them.
        source: ParseError,
    },
    /// The process logs already.
    #[error("logging is set up already")]
    Again(#[from] TryInitError),
}

/// The libraries that see credentials, signatures or bodies, and log them below `warn`.
const GUARDED: [&str; 12] = [
    "aws_config",
    "aws_credential_types",
    "aws_runtime",
    "aws_sigv4",
    "aws_smithy_http_client",
    "aws_smithy_runtime",
    "aws_smithy_runtime_api",
    "aws_smithy_schema",
    "h2",
    "hyper",
    "hyper_util",
    "rustls",
];

/// What says as an error, at every try, what the operator says itself of the call that failed.
const REPEATING: &str = "kube_client::client::builder";

/// Sends what is logged to standard error, as text or as one JSON object a line.
///
/// Whatever the directives say, no secret is logged: what the guarded libraries say below `warn`
/// is dropped before the directives are asked, which could otherwise name a module of theirs.
pub fn init(directives: &str, json: bool) -> Result<(), Error> {
    let wanted: Targets = directives.parse().map_err(|source| Error::Directives {
        directives: directives.to_owned(),
        source,
    })?;
    let harmless = Targets::new()
        .with_default(LevelFilter::TRACE)
        .with_targets(GUARDED.map(|library| (library, LevelFilter::WARN)))
        .with_target(REPEATING, LevelFilter::OFF);
    let logger = fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let logger = if json {
        logger.json().boxed()
    } else {
        logger.boxed()
    };
    tracing_subscriber::registry()
        .with(logger.with_filter(wanted.and(harmless)))
        .try_init()?;
    Ok(())
}
