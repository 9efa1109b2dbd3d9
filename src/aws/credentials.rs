//! A session's credentials, for requests that no SDK makes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials as Provided;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use jiff::Timestamp;

use super::error::causes;
use crate::sigv4::Credentials;

/// How long before they expire credentials are asked for anew.
const AHEAD: Duration = Duration::from_mins(5);

/// The longest that a provider may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Credentials, asked for once until they are about to expire: the SDK's providers do not keep what
/// they give.
#[derive(Debug)]
pub struct CachedCredentials {
    provider: Option<SharedCredentialsProvider>,
    known: Mutex<Option<Provided>>,
}

impl CachedCredentials {
    pub(super) fn new(provider: Option<SharedCredentialsProvider>) -> Self {
        Self {
            provider,
            known: Mutex::default(),
        }
    }

    /// Returns credentials that are valid now.
    ///
    /// While a provider fails, those that have not expired yet are given out.
    ///
    /// # Errors
    ///
    /// Says in words why there are none.
    pub async fn get(&self) -> Result<Credentials, String> {
        let known = self.lock().clone();
        let lasts = |credentials: &Provided, for_: Duration| {
            let expiry = credentials.expiry();
            expiry.is_none_or(|expiry| expiry > SystemTime::from(Timestamp::now()) + for_)
        };
        if let Some(known) = known.as_ref().filter(|known| lasts(known, AHEAD)) {
            return sendable(known);
        }
        // Nothing is locked meanwhile: whoever else asks, asks too.
        match (self.provide().await, known) {
            (Ok(provided), _) => {
                *self.lock() = Some(provided.clone());
                sendable(&provided)
            }
            (Err(_), Some(known)) if lasts(&known, Duration::ZERO) => sendable(&known),
            (Err(error), _) => Err(error),
        }
    }

    /// Forgets what is known: it was refused before its time.
    pub fn forget(&self) {
        *self.lock() = None;
    }

    async fn provide(&self) -> Result<Provided, String> {
        let Some(provider) = &self.provider else {
            return Err("no provider is configured".to_owned());
        };
        let answer = tokio::time::timeout(LIMIT, provider.provide_credentials()).await;
        let late = |_| "their provider did not answer in time".to_owned();
        answer.map_err(late)?.map_err(|error| causes(&error))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Provided>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sendable(provided: &Provided) -> Result<Credentials, String> {
    let token = provided.session_token().map(str::to_owned);
    Credentials::new(
        provided.access_key_id(),
        provided.secret_access_key(),
        token,
    )
    .map_err(|error| error.to_string())
}
