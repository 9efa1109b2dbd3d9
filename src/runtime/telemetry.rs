//! Logging.

use std::io::IsTerminal;

use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, ParseError, Targets};
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

/// The libraries that see credentials, signatures or bodies, and the most that each may log.
const QUIET: [(&str, LevelFilter); 12] = [
    ("aws_config", LevelFilter::WARN),
    ("aws_credential_types", LevelFilter::WARN),
    ("aws_runtime", LevelFilter::WARN),
    ("aws_sigv4", LevelFilter::WARN),
    ("aws_smithy_http_client", LevelFilter::WARN),
    ("aws_smithy_runtime", LevelFilter::WARN),
    ("aws_smithy_runtime_api", LevelFilter::WARN),
    ("aws_smithy_schema", LevelFilter::WARN),
    ("h2", LevelFilter::INFO),
    ("hyper", LevelFilter::INFO),
    ("hyper_util", LevelFilter::INFO),
    ("rustls", LevelFilter::INFO),
];

/// Sends what is logged to standard error, as text or as one JSON object a line.
///
/// Whatever the directives say, no secret is logged: the libraries that would stay quiet.
pub fn init(directives: &str, json: bool) -> Result<(), Error> {
    let wanted = EnvFilter::builder()
        .parse(directives)
        .map_err(|source| Error::Directives {
            directives: directives.to_owned(),
            source,
        })?;
    let harmless = Targets::new()
        .with_default(LevelFilter::TRACE)
        .with_targets(QUIET);
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
