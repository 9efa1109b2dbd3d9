//! Clients for AWS, by account, region and role.

use std::collections::HashMap;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_opensearch::config::SharedCredentialsProvider;
use tokio::sync::Mutex;

use super::error::Error;

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
    /// OpenSearch Service.
    pub opensearch: aws_sdk_opensearch::Client,
    /// Identity and Access Management.
    pub iam: aws_sdk_iam::Client,
    /// Security Token Service.
    pub sts: aws_sdk_sts::Client,
}

/// Every session of the process.
#[derive(Debug)]
pub struct Sessions {
    base: SdkConfig,
    clients: Mutex<HashMap<SessionKey, Clients>>,
}

impl Sessions {
    /// Finds the operator's own credentials by the SDK's default chain.
    pub async fn load() -> Self {
        let base = aws_config::defaults(BehaviorVersion::latest())
            .timeout_config(
                TimeoutConfig::builder()
                    .operation_timeout(OPERATION_TIMEOUT)
                    .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                    .build(),
            )
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .load()
            .await;
        Self {
            base,
            clients: Mutex::new(HashMap::new()),
        }
    }

    /// Returns the clients of a session, and makes sure on first use that the identity is of the
    /// account that it is for.
    ///
    /// # Errors
    ///
    /// Fails where the identity cannot be had, or is of another account.
    pub async fn clients(&self, key: &SessionKey) -> Result<Clients, SessionError> {
        if let Some(clients) = self.clients.lock().await.get(key) {
            return Ok(clients.clone());
        }
        let config = self.config(key).await;
        let clients = Clients {
            opensearch: aws_sdk_opensearch::Client::new(&config),
            iam: aws_sdk_iam::Client::new(&config),
            sts: aws_sdk_sts::Client::new(&config),
        };
        let caller = clients
            .sts
            .get_caller_identity()
            .send()
            .await
            .map_err(|error| SessionError::Aws(Error::of("GetCallerIdentity", &error)))?;
        let account = caller.account().unwrap_or_default();
        if account != key.account {
            return Err(SessionError::OtherAccount {
                ours: account.to_owned(),
                wanted: key.account.clone(),
            });
        }
        self.clients
            .lock()
            .await
            .insert(key.clone(), clients.clone());
        Ok(clients)
    }

    /// Forgets the clients of every session whose name is not told to be in use.
    pub async fn retain(&self, in_use: impl Fn(&str) -> bool) {
        let mut clients = self.clients.lock().await;
        clients.retain(|key, _| in_use(&key.session_name));
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
        let credentials = SharedCredentialsProvider::new(provider.build().await);
        builder.credentials_provider(credentials).build()
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
