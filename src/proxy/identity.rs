//! As whom requests are signed.
//!
//! One task asks for credentials, ahead of when they expire; no request ever does. Requests take
//! what is there, key included, and never wait for AWS.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use http::HeaderValue;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::clock::Clock;
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
    /// The session token of temporary credentials, as each request carries it.
    pub token: Option<HeaderValue>,
    /// When they expire.
    pub expires: Option<Timestamp>,
    /// Grows with each change.
    pub generation: u64,
    had_expired: bool,
    was_refused: AtomicBool,
}

/// What time it may be: this machine's clock says one, and what is known of the domain's another.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    earlier: Timestamp,
    later: Timestamp,
}

impl Now {
    /// Takes both.
    #[must_use]
    pub fn of(machine: Timestamp, clock: &Clock) -> Self {
        let domain = clock.tell(machine);
        Self {
            earlier: machine.min(domain),
            later: machine.max(domain),
        }
    }
}

impl Held {
    /// Tells whether they are valid.
    ///
    /// Where the clocks disagree, or they had expired when they were given, it is rather a clock that is
    /// wrong: then they are until the domain refuses them.
    #[must_use]
    pub fn is_valid(&self, now: Now) -> bool {
        let Some(expires) = self.expires else {
            return true;
        };
        let may_be = expires > now.earlier || self.had_expired;
        expires > now.later || may_be && !self.was_refused.load(Ordering::Relaxed)
    }

    fn is_same(&self, other: &Self) -> bool {
        let keys = |it: &Self| it.signers.first().map(Signer::credentials).cloned();
        self.expires == other.expires && keys(self) == keys(other)
    }
}

/// What there is, after so many questions.
#[derive(Debug)]
struct State {
    current: Result<Arc<Held>, String>,
    /// How many questions were begun...
    begun: u64,
    /// ...and how many of these had an answer.
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
    clock: Arc<Clock>,
    state: watch::Sender<State>,
    renew: Arc<Notify>,
}

/// Makes an identity, and what keeps it.
#[must_use]
pub fn identity(
    provider: SharedCredentialsProvider,
    scopes: Vec<Scope>,
    clock: Arc<Clock>,
) -> (Identity, Keeper) {
    let (sender, state) = watch::channel(State {
        current: Err("none were given yet".to_owned()),
        begun: 0,
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
        clock,
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
    pub fn get(&self, now: Now) -> Result<Arc<Held>, String> {
        match &self.state.borrow().current {
            Ok(held) if held.is_valid(now) => return Ok(Arc::clone(held)),
            Ok(_) => {}
            Err(why) => return Err(why.clone()),
        }
        self.ask();
        Err("they have expired, and their provider gives no others".to_owned())
    }

    /// Tells whether credentials were asked for, whatever the answer.
    #[must_use]
    pub fn has_asked(&self) -> bool {
        self.state.borrow().asked > 0
    }

    /// Has credentials asked for soon: they have expired, or the time is another than was thought.
    pub fn ask(&self) {
        self.renew.notify_one();
    }

    /// Asks for others than those that the service refuses before their time, and waits for the
    /// answer a moment; tells whether there are any.
    pub async fn renew(&self, refused: &Held) -> bool {
        refused.was_refused.store(true, Ordering::Relaxed);
        let newer = |state: &State| {
            let current = state.current.as_ref();
            current.is_ok_and(|held| held.generation > refused.generation)
        };
        let mut state = self.state.clone();
        let begun = {
            let state = state.borrow_and_update();
            if newer(&state) {
                return true;
            }
            // One that is under way was begun before the refusal, and may know nothing of it.
            state.begun
        };
        self.ask();
        let told = state.wait_for(|state| newer(state) || state.asked > begun);
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
            self.state.send_modify(|state| state.begun += 1);
            let wait = match self.provide(generation + 1).await {
                Ok(held) => {
                    failures = 0;
                    let wait = until_renewal(held.expires, self.now().later);
                    let news = self.is_news(&held);
                    if news {
                        generation = held.generation;
                        info!(expires = ?held.expires, "signing with new credentials");
                    }
                    self.state.send_modify(|state| {
                        state.asked = state.begun;
                        if news {
                            state.current = Ok(Arc::new(held));
                        }
                    });
                    wait
                }
                Err(why) => {
                    let valid = self.is_valid(self.now());
                    if failures == 0 || !valid {
                        warn!("failed to get credentials: {why}");
                    }
                    self.state.send_modify(|state| {
                        state.asked = state.begun;
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
            // However many requests are refused, and however soon what it gives expires, the source
            // is not flooded.
            sleep(LEAST).await;
            tokio::select! {
                () = sleep(jittered(wait.saturating_sub(LEAST))) => {}
                () = self.renew.notified() => {}
            }
        }
    }

    fn now(&self) -> Now {
        Now::of(Timestamp::now(), &self.clock)
    }

    fn is_valid(&self, now: Now) -> bool {
        let state = self.state.borrow();
        let current = state.current.as_ref();
        current.is_ok_and(|held| held.is_valid(now))
    }

    /// Tells whether credentials are others than those that are there.
    fn is_news(&self, held: &Held) -> bool {
        let state = self.state.borrow();
        let known = state.current.as_ref();
        known.map_or(true, |known| !known.is_same(held))
    }

    async fn provide(&self, generation: u64) -> Result<Held, String> {
        let answer = timeout(LIMIT, self.provider.provide_credentials()).await;
        let late = |_| "their provider did not answer in time".to_owned();
        let given = answer.map_err(late)?.map_err(|error| causes(&error))?;
        let expires = given.expiry().map(Timestamp::try_from).transpose();
        let expires = expires.map_err(|error| error.to_string())?;
        let signer = |scope: &Scope| {
            let token = given.session_token().map(str::to_owned);
            let keys = Credentials::new(given.access_key_id(), given.secret_access_key(), token);
            keys.map(|keys| Signer::new(keys, scope.region.as_str(), scope.service.as_str()))
        };
        let signers: Result<Vec<Signer>, _> = self.scopes.iter().map(signer).collect();
        let token = given.session_token().map(HeaderValue::try_from);
        let mut token = token.transpose().map_err(|error| error.to_string())?;
        if let Some(token) = &mut token {
            token.set_sensitive(true);
        }
        Ok(Held {
            signers: signers.map_err(|error| error.to_string())?,
            token,
            expires,
            generation,
            had_expired: expires.is_some_and(|expires| expires <= self.now().later),
            was_refused: AtomicBool::new(false),
        })
    }
}

/// Returns how long until credentials are asked for again: five minutes before they expire, or a
/// fifth of their life if that is more; but half of a life that is short, and soon where it is over.
fn until_renewal(expires: Option<Timestamp>, now: Timestamp) -> Duration {
    let Some(expires) = expires else {
        return FOREVER;
    };
    let life = expires.duration_since(now);
    if life <= SignedDuration::ZERO {
        return WAITS[1];
    }
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
        let clock = Arc::new(Clock::default());
        let (identity, keeper) = identity(provider, vec![scope.clone(), scope], clock);
        tokio::spawn(keeper.run());
        identity
    }

    fn now() -> Now {
        Now::of(Timestamp::now(), &Clock::default())
    }

    /// Whoever says that it is tomorrow is not believed as to credentials: the domain refuses them itself.
    #[tokio::test]
    async fn a_clock_that_was_put_right_makes_no_credentials_expire() {
        let provider = Provider::default();
        provider.0.lock().unwrap().1 = Some(Duration::from_hours(1));
        let identity = kept(&provider);
        settled().await;
        let (clock, machine) = (Clock::default(), Timestamp::now());
        let tomorrow = machine + SignedDuration::from_hours(24);
        assert!(clock.learn(tomorrow, machine, machine));
        let held = identity.get(Now::of(machine, &clock)).unwrap();
        provider.0.lock().unwrap().1 = None;
        assert!(!identity.renew(&held).await);
        assert!(identity.get(Now::of(machine, &clock)).is_err());
        assert!(identity.get(now()).is_ok());
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
            let held = identity.get(now()).unwrap();
            assert_eq!(held.signers.len(), 2);
        }
        assert_eq!(provider.0.lock().unwrap().0, 1);
    }

    #[tokio::test]
    async fn what_is_valid_still_is_used_while_its_provider_fails() {
        let provider = Provider::default();
        let identity = kept(&provider);
        settled().await;
        let why = identity.get(now()).unwrap_err();
        assert!(why.contains("it is down"), "{why}");
        provider.0.lock().unwrap().1 = Some(Duration::from_mins(1));
        identity.renew.notify_one();
        let mut state = identity.state.clone();
        state.wait_for(|it| it.current.is_ok()).await.unwrap();
        provider.0.lock().unwrap().1 = None;
        let held = identity.get(now()).unwrap();
        assert!(!identity.renew(&held).await, "there are no others");
        assert!(identity.get(now()).is_ok());
        let later = Timestamp::now() + SignedDuration::from_mins(2);
        let later = Now::of(later, &Clock::default());
        assert!(identity.get(later).unwrap_err().contains("expired"));
    }

    /// A machine whose clock is ahead by more than what it is given lasts.
    #[tokio::test]
    async fn what_seems_to_have_expired_when_it_is_given_is_used_until_it_is_refused() {
        let provider = Provider::default();
        provider.0.lock().unwrap().1 = Some(Duration::ZERO);
        let identity = kept(&provider);
        settled().await;
        let held = identity.get(now()).unwrap();
        provider.0.lock().unwrap().1 = None;
        assert!(!identity.renew(&held).await);
        assert!(identity.get(now()).is_err());
    }

    #[test]
    fn a_secret_that_was_put_right_is_taken() {
        let given = |secret| Held {
            signers: vec![Signer::new(
                Credentials::new("AKIA", secret, None).unwrap(),
                "eu-west-1",
                "es",
            )],
            token: None,
            expires: None,
            generation: 1,
            had_expired: false,
            was_refused: AtomicBool::new(false),
        };
        assert!(given("one").is_same(&given("one")));
        assert!(!given("one").is_same(&given("two")));
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
        assert_eq!(wait(-60), 20);
        assert_eq!(until_renewal(None, now), FOREVER);
    }
}
