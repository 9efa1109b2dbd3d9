//! The one TLS provider of the process.

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("another TLS provider is installed already")]
pub struct Error;

/// Makes `aws-lc-rs`, which the AWS SDK links anyway, the provider of every TLS connection.
pub fn install() -> Result<(), Error> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| Error)
}
