//! Logging.

use tracing_subscriber::EnvFilter;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("{directives:?} is not a list of log directives")]
pub struct Error {
    directives: String,
    source: tracing_subscriber::filter::ParseError,
}

/// The libraries that see credentials, signatures or bodies, and log them below this level.
const QUIET: [&str; 9] = [
    "aws_config=warn",
    "aws_credential_types=warn",
    "aws_runtime=warn",
    "aws_sigv4=warn",
    "aws_smithy_http_client=warn",
    "aws_smithy_runtime=warn",
    "aws_smithy_runtime_api=warn",
    "hyper=info",
    "hyper_util=info",
];

/// Sends what is logged to standard error, as text or as one JSON object a line.
///
/// Whatever the directives say, no secret is logged: the libraries that would stay quiet.
pub fn init(directives: &str, json: bool) -> Result<(), Error> {
    let mut filter = EnvFilter::builder()
        .parse(directives)
        .map_err(|source| Error {
            directives: directives.to_owned(),
            source,
        })?;
    for quiet in QUIET.iter().filter_map(|quiet| quiet.parse().ok()) {
        filter = filter.add_directive(quiet);
    }
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if json {
        logger.json().init();
    } else {
        logger.init();
    }
    Ok(())
}
