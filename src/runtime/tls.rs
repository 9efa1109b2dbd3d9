//! The one TLS provider of the process, and whom it trusts.

use std::fmt;
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

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

/// Adds the certificates of a PEM file.
///
/// # Errors
///
/// Says in words why they cannot be: a file that cannot be read, or is no PEM file.
pub fn add(roots: &mut RootCertStore, file: &Path) -> Result<(), String> {
    let told = |error: &dyn fmt::Display| format!("{}: {error}", file.display());
    let read = CertificateDer::pem_file_iter(file).map_err(|error| told(&error))?;
    for certificate in read {
        let certificate = certificate.map_err(|error| told(&error))?;
        roots.add(certificate).map_err(|error| told(&error))?;
    }
    Ok(())
}

/// Returns the machine's root certificates, and those of a PEM file beside them.
///
/// # Errors
///
/// Says in words why there is nobody to trust: a file that cannot be read, or is no PEM file, or
/// a machine without root certificates and no file.
pub fn roots(authorities: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let of_machine = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(of_machine.certs);
    if let Some(file) = authorities {
        add(&mut roots, file)?;
    }
    if roots.is_empty() {
        return Err("this machine has no root certificates".to_owned());
    }
    Ok(roots)
}
