//! Encryption, to upstreams and for clients.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, ServerConfig, SignatureScheme,
};
use tokio_rustls::TlsAcceptor;

use crate::runtime::tls::roots;

/// Prepares connections to upstreams: TLS 1.2 or newer, whose certificate is verified against the
/// machine's authorities and those of a file.
pub(super) fn client(
    authorities: Option<&Path>,
    verify: bool,
) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder();
    let config = if verify {
        builder
            .with_root_certificates(roots(authorities)?)
            .with_no_client_auth()
    } else {
        let anybody = Anybody(aws_lc_rs::default_provider().signature_verification_algorithms);
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(anybody))
            .with_no_client_auth()
    };
    Ok(Arc::new(config))
}

/// Prepares connections of clients.
pub(super) fn server(certificate: &PathBuf, key: &PathBuf) -> Result<TlsAcceptor, String> {
    let told =
        |file: &PathBuf, error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let chain = CertificateDer::pem_file_iter(certificate);
    let chain: Result<Vec<_>, _> = chain.map_err(|error| told(certificate, &error))?.collect();
    let chain = chain.map_err(|error| told(certificate, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| told(key, &error))?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| told(certificate, &error))?;
    // A client that speaks nothing else is told so, rather than left with what it cannot read.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Takes any certificate: whoever is on the way can read and change everything, and use the
/// signatures for five minutes.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd,
    };
    use tempfile::TempDir;
    use tokio::io::duplex;
    use tokio_rustls::TlsConnector;

    use super::*;

    type Issuer = CertifiedIssuer<'static, KeyPair>;

    fn authority() -> Issuer {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// Writes a certificate for a name, valid until the end of a year, and its key.
    fn certificate(home: &TempDir, name: &str, until: i32, by: Option<&Issuer>) -> [PathBuf; 2] {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 12, 31);
        let key = KeyPair::generate().unwrap();
        let made = match by {
            Some(issuer) => params.signed_by(&key, issuer),
            None => params.self_signed(&key),
        };
        let files = ["cert.pem", "key.pem"].map(|it| home.path().join(it));
        std::fs::write(&files[0], made.unwrap().pem()).unwrap();
        std::fs::write(&files[1], key.serialize_pem()).unwrap();
        files
    }

    /// Tells whether a connection to `search.example` comes about.
    async fn connects(authorities: &Path, verify: bool, files: &[PathBuf; 2]) -> bool {
        let config = client(Some(authorities), verify).unwrap();
        let acceptor = server(&files[0], &files[1]).unwrap();
        let (ours, theirs) = duplex(64 << 10);
        let accepting = tokio::spawn(async move { acceptor.accept(theirs).await.is_ok() });
        let name = ServerName::try_from("search.example").unwrap();
        let connected = TlsConnector::from(config).connect(name, ours).await;
        accepting.await.unwrap() && connected.is_ok()
    }

    #[tokio::test]
    async fn who_is_not_vouched_for_is_not_spoken_to() {
        drop(aws_lc_rs::default_provider().install_default());
        let home = tempfile::tempdir().unwrap();
        let (trusted, other) = (authority(), authority());
        let authorities = home.path().join("ca.pem");
        std::fs::write(&authorities, trusted.pem()).unwrap();
        for (name, until, by, expected) in [
            ("search.example", 2090, Some(&trusted), true),
            ("search.example", 2021, Some(&trusted), false),
            ("other.example", 2090, Some(&trusted), false),
            ("search.example", 2090, Some(&other), false),
            ("search.example", 2090, None, false),
        ] {
            let files = certificate(&home, name, until, by);
            let found = connects(&authorities, true, &files).await;
            assert_eq!(found, expected, "{name}, until {until}");
            // Who says so may do without.
            assert!(connects(&authorities, false, &files).await);
        }
    }
}
