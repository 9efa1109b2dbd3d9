//! Logging.

use tracing::Level;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("{directives:?} is not a list of log directives")]
pub struct Error {
    directives: String,
    source: tracing_subscriber::filter::ParseError,
}

/// The libraries that see credentials, signatures or bodies, and log them below `warn`.
const GUARDED: [&str; 9] = [
    "aws_config",
    "aws_credential_types",
    "aws_runtime",
    "aws_sigv4",
    "aws_smithy_http_client",
    "aws_smithy_runtime",
    "aws_smithy_runtime_api",
    "hyper",
    "hyper_util",
];

/// Sends what is logged to standard error, as text or as one JSON object a line.
///
/// Whatever the directives say, no secret is logged: what the guarded libraries say below `warn`
/// is dropped before the directives are asked, which could otherwise name a module of theirs.
pub fn init(directives: &str, json: bool) -> Result<(), Error> {
    let asked = EnvFilter::builder()
        .parse(directives)
        .map_err(|source| Error {
            directives: directives.to_owned(),
            source,
        })?;
    let harmless = filter_fn(|metadata| {
        let library = metadata.target().split("::").next().unwrap_or_default();
        *metadata.level() <= Level::WARN || !GUARDED.contains(&library)
    });
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if json {
        lines.json().boxed()
    } else {
        lines.boxed()
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(asked.and(harmless)))
        .init();
    Ok(())
}
