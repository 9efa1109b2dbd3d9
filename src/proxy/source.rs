//! Where credentials come from.

use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};

/// The SDK's default chain, looked through anew each time: a chain remembers the files that it read,
/// and that there were none.
#[derive(Debug)]
pub(super) struct Source {
    /// The role to assume, and its external id.
    pub(super) role: Option<(String, Option<String>)>,
    /// Where to assume it.
    pub(super) region: Option<String>,
}

impl Source {
    async fn ask(&self) -> Result<Credentials, CredentialsError> {
        let sdk = aws_config::defaults(BehaviorVersion::latest()).load().await;
        let own = sdk.credentials_provider();
        let own = own.ok_or_else(|| CredentialsError::not_loaded("no provider is configured"))?;
        let Some((role, external_id)) = &self.role else {
            return own.provide_credentials().await;
        };
        let mut builder = AssumeRoleProvider::builder(role)
            .session_name("opensearch-access-proxy")
            .configure(&sdk);
        if let Some(region) = &self.region {
            builder = builder.region(Region::new(region.clone()));
        }
        if let Some(external_id) = external_id {
            builder = builder.external_id(external_id);
        }
        let assumed = builder.build_from_provider(own).await;
        assumed.provide_credentials().await
    }
}

impl ProvideCredentials for Source {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.ask())
    }
}
