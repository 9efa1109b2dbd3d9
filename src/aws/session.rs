//! Clients for AWS, by account, region and role.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_opensearch::config::http::HttpResponse;
use aws_sdk_opensearch::config::interceptors::InterceptorContext;
use aws_sdk_opensearch::config::retry::{ClassifyRetry, RetryAction};
use aws_sdk_opensearch::error::{ProvideErrorMetadata, SdkError};
use tokio::sync::Mutex;

use super::credentials::CachedCredentials;
use super::error::{self, Error};
use super::supervisor::{Gate, Supervisor};

/// The longest that one call may take, retries included.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest that one try may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// As whom, and where, the operator works. A client made for one is never used for another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// The account that the identity must be of.
    pub account: String,
    /// The region.
    pub region: String,
    /// The role to assume, and its external id.
    pub role: Option<(String, Option<String>)>,
    /// What the session is called in the account's audit trail; it names the domain.
    pub session_name: String,
}

/// The clients of one session.
#[derive(Debug, Clone)]
pub struct Clients {
    /// Elastic Kubernetes Service.
    pub eks: aws_sdk_eks::Client,
    /// OpenSearch Service.
    pub opensearch: aws_sdk_opensearch::Client,
    /// Identity and Access Management.
    pub iam: aws_sdk_iam::Client,
    /// Security Token Service.
    pub sts: aws_sdk_sts::Client,
    credentials: Arc<CachedCredentials>,
    supervisor: Arc<dyn Supervisor>,
}

impl Clients {
    /// Returns the session's credentials, for requests that no SDK makes.
    #[must_use]
    pub fn credentials(&self) -> &CachedCredentials {
        &self.credentials
    }

    /// Returns what calls report to.
    #[must_use]
    pub fn supervisor(&self) -> &dyn Supervisor {
        &*self.supervisor
    }

    /// Waits for a call, and reports how it ended.
    pub(super) async fn call<T, E, R>(
        &self,
        operation: &'static str,
        sent: impl Future<Output = Result<T, SdkError<E, R>>>,
    ) -> Result<T, Error>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        match sent.await {
            Ok(answer) => {
                self.supervisor.called(operation, error::NONE);
                Ok(answer)
            }
            Err(error) => {
                self.supervisor.called(operation, error::code(&error));
                Err(Error::of(operation, &error))
            }
        }
    }

    /// Returns what every write goes through.
    pub(super) fn gate(&self) -> Gate {
        Gate(Arc::clone(&self.supervisor))
    }
}

/// Every session of the process.
#[derive(Debug)]
pub struct Sessions {
    base: SdkConfig,
    supervisor: Arc<dyn Supervisor>,
    clients: StdMutex<HashMap<SessionKey, Clients>>,
    /// The operator's own clients, once asked for.
    own: Mutex<Option<Own>>,
}

/// The operator itself: its clients, not through any role.
#[derive(Debug, Clone)]
pub struct Own {
    /// Its account.
    pub account: String,
    /// Its clients.
    pub clients: Clients,
}

impl Sessions {
    /// Finds the operator's own credentials by the SDK's default chain.
    pub async fn load(supervisor: Arc<dyn Supervisor>) -> Self {
        Self::new(
            aws_config::defaults(BehaviorVersion::latest()).load().await,
            supervisor,
        )
    }

    /// Works with the given credentials, and wherever the configuration says.
    #[must_use]
    pub fn new(base: SdkConfig, supervisor: Arc<dyn Supervisor>) -> Self {
        let limits = TimeoutConfig::builder()
            .operation_timeout(OPERATION_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .build();
        let retries = RetryConfig::standard().with_max_attempts(3);
        Self {
            base: base
                .into_builder()
                .timeout_config(limits)
                .retry_config(retries)
                .build(),
            supervisor,
            clients: StdMutex::default(),
            own: Mutex::default(),
        }
    }

    /// Returns the clients of a session, and makes sure on first use that the identity is of the
    /// account that it is for.
    ///
    /// # Errors
    ///
    /// Fails where the identity cannot be had, or is of another account.
    pub async fn clients(&self, key: &SessionKey) -> Result<Clients, SessionError> {
        if let Some(clients) = self.known().get(key) {
            return Ok(clients.clone());
        }
        let clients = self.open(key).await;
        let ours = account_of(&clients).await.map_err(SessionError::Aws)?;
        if ours != key.account {
            return Err(SessionError::OtherAccount {
                ours,
                wanted: key.account.clone(),
            });
        }
        self.known().insert(key.clone(), clients.clone());
        Ok(clients)
    }

    /// Returns clients of an identity whose account nobody has said: only what is to be read may be
    /// reached with them.
    pub async fn unchecked(
        &self,
        region: &str,
        role: Option<(String, Option<String>)>,
        session_name: &str,
    ) -> Clients {
        self.open(&SessionKey {
            account: String::new(),
            region: region.to_owned(),
            role,
            session_name: session_name.to_owned(),
        })
        .await
    }

    async fn open(&self, key: &SessionKey) -> Clients {
        self.connect(&self.config(key).await)
    }

    /// Returns the operator's own clients, for its own account.
    ///
    /// `region` is where its cluster is; without one the SDK's own configuration says.
    ///
    /// # Errors
    ///
    /// Fails where AWS does not say whose credentials they are.
    pub async fn own(&self, region: Option<&str>) -> Result<Own, Error> {
        let mut known = self.own.lock().await;
        if let Some(own) = &*known {
            return Ok(own.clone());
        }
        let mut config = self.base.to_builder();
        if let Some(region) = region {
            config.set_region(Region::new(region.to_owned()));
        }
        let clients = self.connect(&config.build());
        let account = account_of(&clients).await?;
        Ok(known.insert(Own { account, clients }).clone())
    }

    fn connect(&self, config: &SdkConfig) -> Clients {
        Clients {
            eks: aws_sdk_eks::Client::new(config),
            opensearch: aws_sdk_opensearch::Client::from_conf(
                aws_sdk_opensearch::config::Builder::from(config)
                    .retry_classifier(Unhurried)
                    .build(),
            ),
            iam: aws_sdk_iam::Client::new(config),
            sts: aws_sdk_sts::Client::new(config),
            credentials: Arc::new(CachedCredentials::new(config.credentials_provider())),
            supervisor: Arc::clone(&self.supervisor),
        }
    }

    /// Forgets the clients of every session whose name is not told to be in use.
    ///
    /// Not to be awaited, so that whoever drives the futures that look for clients can call it: one
    /// that was just given an asynchronous lock would keep it while nobody drives it.
    pub fn retain(&self, in_use: impl Fn(&str) -> bool) {
        self.known().retain(|key, _| in_use(&key.session_name));
    }

    fn known(&self) -> MutexGuard<'_, HashMap<SessionKey, Clients>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn config(&self, key: &SessionKey) -> SdkConfig {
        let region = Region::new(key.region.clone());
        let builder = self.base.to_builder().region(region.clone());
        let Some((role, external_id)) = &key.role else {
            return builder.build();
        };
        let mut provider = AssumeRoleProvider::builder(role)
            .configure(&self.base)
            .region(region)
            .session_name(&key.session_name);
        if let Some(external_id) = external_id {
            provider = provider.external_id(external_id);
        }
        let credentials = SharedCredentialsProvider::new(Counted {
            provider: provider.build().await,
            supervisor: Arc::clone(&self.supervisor),
        });
        builder.credentials_provider(credentials).build()
    }
}

/// Asks AWS whose credentials a session has.
async fn account_of(clients: &Clients) -> Result<String, Error> {
    let caller = clients.sts.get_caller_identity();
    let caller = clients.call("GetCallerIdentity", caller.send()).await?;
    Ok(caller.account().unwrap_or_default().to_owned())
}

/// The HTTP status of a call to OpenSearch Service that was throttled.
const TOO_MANY_REQUESTS: u16 = 429;

/// Has the SDK not repeat a call that was throttled: whoever made it waits longer each time, and
/// three calls in a second are not what the service asked for.
#[derive(Debug)]
struct Unhurried;

impl ClassifyRetry for Unhurried {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let throttled = |response: &HttpResponse| response.status().as_u16() == TOO_MANY_REQUESTS;
        if context.response().is_some_and(throttled) {
            RetryAction::RetryForbidden
        } else {
            RetryAction::NoActionIndicated
        }
    }

    fn name(&self) -> &'static str {
        "Unhurried"
    }
}

/// Reports how each call for a role's credentials ended; the SDK makes it by itself.
#[derive(Debug)]
struct Counted {
    provider: AssumeRoleProvider,
    supervisor: Arc<dyn Supervisor>,
}

impl ProvideCredentials for Counted {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let credentials = self.provider.provide_credentials().await;
            let code = match &credentials {
                Ok(_) => error::NONE,
                Err(error) => error::code_of_role(error),
            };
            self.supervisor.called("AssumeRole", code);
            credentials
        })
    }
}

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// AWS did not give the identity.
    #[error(transparent)]
    Aws(Error),
    /// The identity is of another account than the domain.
    #[error(
        "the operator's identity is of account {ours}, and the domain is in another account, {wanted}: set spec.assumeRole to a role of account {wanted}"
    )]
    OtherAccount {
        /// The identity's account.
        ours: String,
        /// The domain's account.
        wanted: String,
    },
}
