//! As whom requests are signed.
//!
//! One task asks for credentials, ahead of when they expire; no request ever does. Requests take
//! what is there, key included, and never wait for AWS.

use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::aws::error::causes;
use crate::sigv4::{Credentials, Signer};

/// The longest that a provider may take.
const LIMIT: Duration = Duration::from_secs(10);

/// How long before they expire credentials are asked for anew...
const AHEAD: SignedDuration = SignedDuration::from_mins(5);

/// ...and how often those that never expire: a file may have changed.
const FOREVER: Duration = Duration::from_mins(5);

/// The first wait after a provider failed, and the longest while there are credentials still.
const WAITS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(20)];

/// The longest wait while there are none: requests are refused meanwhile.
const URGENT: Duration = Duration::from_millis(800);

/// The shortest time between two questions.
const LEAST: Duration = Duration::from_millis(500);

/// How long a request whose credentials were refused waits for others.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a signature is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The region.
    pub region: String,
    /// `es` or `aoss`.
    pub service: String,
}

/// Credentials, ready to sign for each of the proxy's upstreams.
#[derive(Debug)]
pub struct Held {
    /// One signer for each scope, in their order.
    pub signers: Vec<Signer>,
    /// When they expire.
    pub expires: Option<Timestamp>,
    /// Grows with each change.
    pub generation: u64,
}

impl Held {
    /// Tells whether they are valid at a time.
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| expires > now)
    }
}

/// What there is, after so many questions.
#[derive(Debug)]
struct State {
    current: Result<Arc<Held>, String>,
    asked: u64,
}

/// What is there to sign with.
#[derive(Debug, Clone)]
pub struct Identity {
    state: watch::Receiver<State>,
    renew: Arc<Notify>,
}

/// The one who asks for credentials.
pub struct Keeper {
    provider: SharedCredentialsProvider,
    scopes: Vec<Scope>,
    state: watch::Sender<State>,
    renew: Arc<Notify>,
}

/// Makes an identity, and what keeps it.
#[must_use]
pub fn identity(provider: SharedCredentialsProvider, scopes: Vec<Scope>) -> (Identity, Keeper) {
    let (sender, state) = watch::channel(State {
        current: Err("none were given yet".to_owned()),
        asked: 0,
    });
    let renew = Arc::new(Notify::new());
    let identity = Identity {
        state,
        renew: Arc::clone(&renew),
    };
    let keeper = Keeper {
        provider,
        scopes,
        state: sender,
        renew,
    };
    (identity, keeper)
}

impl Identity {
    /// Returns credentials that are valid at a time.
    ///
    /// # Errors
    ///
    /// Says in words why there are none.
    pub fn get(&self, now: Timestamp) -> Result<Arc<Held>, String> {
        match &self.state.borrow().current {
            Ok(held) if held.is_valid(now) => Ok(Arc::clone(held)),
            Ok(_) => Err("they have expired, and their provider gives no others".to_owned()),
            Err(why) => Err(why.clone()),
        }
    }

    /// Asks for others than those of a generation, which the service refuses before their time, and
    /// waits for the answer a moment; tells whether there are any.
    pub async fn renew(&self, refused: u64) -> bool {
        let newer = |state: &State| {
            let current = state.current.as_ref();
            current.is_ok_and(|held| held.generation > refused)
        };
        let mut state = self.state.clone();
        let asked = {
            let state = state.borrow_and_update();
            if newer(&state) {
                return true;
            }
            state.asked
        };
        self.renew.notify_one();
        let told = state.wait_for(|state| newer(state) || state.asked > asked);
        let told = timeout(PATIENCE, told).await;
        told.is_ok_and(|state| state.is_ok_and(|state| newer(&state)))
    }
}

impl Keeper {
    /// Asks for credentials for as long as anybody may use them.
    pub async fn run(self) {
        let mut failures = 0_u32;
        let mut generation = 0;
        loop {
            let wait = match self.provide(generation + 1).await {
                Ok(held) => {
                    failures = 0;
                    let wait = until_renewal(held.expires, Timestamp::now());
                    let news = self.is_news(&held);
                    if news {
                        generation = held.generation;
                        info!(expires = ?held.expires, "signing with new credentials");
                    }
                    self.state.send_modify(|state| {
                        state.asked += 1;
                        if news {
                            state.current = Ok(Arc::new(held));
                        }
                    });
                    wait
                }
                Err(why) => {
                    let valid = self.is_valid(Timestamp::now());
                    if failures == 0 || !valid {
                        warn!("failed to get credentials: {why}");
                    }
                    self.state.send_modify(|state| {
                        state.asked += 1;
                        if !valid {
                            state.current = Err(why);
                        }
                    });
                    failures = failures.saturating_add(1);
                    let longest = if valid { WAITS[1] } else { URGENT };
                    let wait = WAITS[0] * 2_u32.saturating_pow(failures.min(10));
                    wait.min(longest)
                }
            };
            // However many requests are refused, the source is not flooded.
            let least = wait.min(LEAST);
            sleep(least).await;
            tokio::select! {
                () = sleep(jittered(wait.saturating_sub(least))) => {}
                () = self.renew.notified() => {}
            }
        }
    }

    fn is_valid(&self, now: Timestamp) -> bool {
        let state = self.state.borrow();
        let current = state.current.as_ref();
        current.is_ok_and(|held| held.is_valid(now))
    }

    /// Tells whether credentials are others than those that are there.
    fn is_news(&self, held: &Held) -> bool {
        let state = self.state.borrow();
        let Ok(known) = &state.current else {
            return true;
        };
        let of = |held: &Held| {
            let first = held.signers.first().map(Signer::credentials);
            let same = |it: &Credentials| {
                (
                    it.access_key_id().to_owned(),
                    it.session_token().map(str::to_owned),
                )
            };
            (first.map(same), held.expires)
        };
        of(known) != of(held)
    }

    async fn provide(&self, generation: u64) -> Result<Held, String> {
        let answer = timeout(LIMIT, self.provider.provide_credentials()).await;
        let late = |_| "their provider did not answer in time".to_owned();
        let given = answer.map_err(late)?.map_err(|error| causes(&error))?;
        let expires = given.expiry().map(Timestamp::try_from).transpose();
        let expires = expires.map_err(|error| error.to_string())?;
        if expires.is_some_and(|expires| expires <= Timestamp::now()) {
            return Err("their provider gives such that have expired".to_owned());
        }
        let signer = |scope: &Scope| {
            let token = given.session_token().map(str::to_owned);
            let keys = Credentials::new(given.access_key_id(), given.secret_access_key(), token);
            keys.map(|keys| Signer::new(keys, scope.region.as_str(), scope.service.as_str()))
        };
        let signers: Result<Vec<Signer>, _> = self.scopes.iter().map(signer).collect();
        Ok(Held {
            signers: signers.map_err(|error| error.to_string())?,
            expires,
            generation,
        })
    }
}

/// Returns how long until credentials are asked for again: five minutes before they expire, or a
/// fifth of their life if that is more; but half of a life that is short.
fn until_renewal(expires: Option<Timestamp>, now: Timestamp) -> Duration {
    let Some(expires) = expires else {
        return FOREVER;
    };
    let life = expires.duration_since(now);
    let ahead = AHEAD.max(life / 5).min(life / 2);
    (life - ahead).unsigned_abs()
}

/// Moves a wait by up to a tenth towards now, so that a fleet does not ask at once.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(1.0 - fastrand::f64() / 10.0)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::SystemTime;

    use aws_credential_types::Credentials as Given;
    use aws_credential_types::provider::error::CredentialsError;
    use aws_credential_types::provider::future;

    use super::*;

    /// Gives what it is told to, and counts.
    #[derive(Debug, Clone, Default)]
    struct Provider(Arc<Mutex<(u32, Option<Duration>)>>);

    impl ProvideCredentials for Provider {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let mut state = self.0.lock().unwrap();
            state.0 += 1;
            let id = format!("AKIA{}", state.0);
            future::ProvideCredentials::ready(match state.1 {
                Some(life) => {
                    let expires = SystemTime::from(Timestamp::now()) + life;
                    let token = Some("token".to_owned());
                    Ok(Given::new(id, "secret", token, Some(expires), "test"))
                }
                None => Err(CredentialsError::provider_error("it is down")),
            })
        }
    }

    fn kept(provider: &Provider) -> Identity {
        let scope = Scope {
            region: "eu-west-1".to_owned(),
            service: "es".to_owned(),
        };
        let provider = SharedCredentialsProvider::new(provider.clone());
        let (identity, keeper) = identity(provider, vec![scope.clone(), scope]);
        tokio::spawn(keeper.run());
        identity
    }

    async fn settled() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_thousand_requests_ask_once() {
        let provider = Provider::default();
        provider.0.lock().unwrap().1 = Some(Duration::from_hours(1));
        let identity = kept(&provider);
        settled().await;
        for _ in 0..1000 {
            let held = identity.get(Timestamp::now()).unwrap();
            assert_eq!(held.signers.len(), 2);
        }
        assert_eq!(provider.0.lock().unwrap().0, 1);
    }

    #[tokio::test]
    async fn what_is_valid_still_is_used_while_its_provider_fails() {
        let provider = Provider::default();
        let identity = kept(&provider);
        settled().await;
        let why = identity.get(Timestamp::now()).unwrap_err();
        assert!(why.contains("it is down"), "{why}");
        provider.0.lock().unwrap().1 = Some(Duration::from_mins(1));
        assert!(identity.renew(0).await);
        provider.0.lock().unwrap().1 = None;
        let held = identity.get(Timestamp::now()).unwrap();
        assert!(
            !identity.renew(held.generation).await,
            "there are no others"
        );
        assert!(identity.get(Timestamp::now()).is_ok());
        let later = Timestamp::now() + SignedDuration::from_mins(2);
        assert!(identity.get(later).unwrap_err().contains("expired"));
    }

    #[test]
    fn credentials_are_renewed_in_time() {
        let now = Timestamp::UNIX_EPOCH;
        let wait = |life: i64| {
            let expires = Some(now + SignedDuration::from_secs(life));
            until_renewal(expires, now).as_secs()
        };
        assert_eq!(wait(3600), 2880);
        assert_eq!(wait(900), 600);
        assert_eq!(wait(60), 30);
        assert_eq!(until_renewal(None, now), FOREVER);
    }
}
