//! Whose signature it is.

use std::fmt;

use zeroize::Zeroizing;

/// Credentials of AWS, such as can be sent: one snapshot of an identity.
///
/// The parts of one identity must never be mixed with another's, so they come and go together.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    access_key_id: String,
    secret_access_key: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
}

/// Credentials that no request could carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {0} of the credentials is empty or has characters that no header can carry")]
pub struct Invalid(&'static str);

impl Credentials {
    /// Takes credentials as a provider gives them.
    ///
    /// # Errors
    ///
    /// Fails where a part is empty, or is not visible ASCII: it would change on its way.
    pub fn new(
        access_key_id: impl Into<String>,
        secret_access_key: impl Into<String>,
        session_token: Option<String>,
    ) -> Result<Self, Invalid> {
        let credentials = Self {
            access_key_id: access_key_id.into(),
            secret_access_key: Zeroizing::new(secret_access_key.into()),
            session_token: session_token.map(Zeroizing::new),
        };
        let sendable = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if !sendable(&credentials.access_key_id) {
            return Err(Invalid("access key id"));
        }
        if credentials.secret_access_key.is_empty() {
            return Err(Invalid("secret access key"));
        }
        match credentials.session_token() {
            Some(token) if !sendable(token) => Err(Invalid("session token")),
            _ => Ok(credentials),
        }
    }

    /// Returns the access key id, which is no secret.
    #[must_use]
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// Returns the session token of temporary credentials.
    #[must_use]
    pub fn session_token(&self) -> Option<&str> {
        self.session_token.as_ref().map(|token| token.as_str())
    }

    pub(super) fn secret(&self) -> &[u8] {
        self.secret_access_key.as_bytes()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let token = Some("TOKEN".to_owned());
        let shown = format!("{:?}", Credentials::new("AKID", "SECRET", token).unwrap());
        assert!(shown.contains("AKID"), "{shown}");
        assert!(
            !shown.contains("SECRET") && !shown.contains("TOKEN"),
            "{shown}"
        );
    }

    #[test]
    fn what_no_header_carries_is_refused() {
        for (id, secret, token) in [
            ("", "s", None),
            ("a b", "s", None),
            ("a", "", None),
            ("a", "s", Some("")),
            ("a", "s", Some("t\n")),
            ("a", "s", Some("é")),
        ] {
            let made = Credentials::new(id, secret, token.map(str::to_owned));
            assert!(made.is_err(), "{id:?} {secret:?} {token:?}");
        }
    }
}
