//! What the real security plugin does, through the gateway that stands for the managed service; and
//! what our client makes of it.

#![allow(
    clippy::unwrap_used,
    reason = "an expectation that fails here is a failed test"
)]

use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_opensearch::config::{Credentials as SdkCredentials, SharedCredentialsProvider};
use opensearch_access::aws::session::{SessionKey, Sessions};
use opensearch_access::aws::supervisor::Supervisor;
use opensearch_access::policy::fine_grained::entity::{Engine, EntityKind};
use opensearch_access::security::client::{Connections, Plugin};
use opensearch_access::security::error::Error;
use serde_json::{Value, json};

use crate::common::fake_aws::{Credentials, DomainOptions, FakeAws};
use crate::common::gateway::{Gateway, authority};
use crate::common::opensearch::{Node, shared_node};

mod answers;
mod door;
mod writers;

const ACCOUNT: &str = "111122223333";
const REGION: &str = "eu-west-1";

/// A domain with a node behind its gateway.
struct Domain {
    aws: FakeAws,
    gateway: Gateway,
}

/// Lets everything be sent.
#[derive(Debug)]
struct Leading;

impl Supervisor for Leading {
    fn may_write(&self) -> bool {
        true
    }

    fn called(&self, _operation: &'static str, _code: &'static str) {}
}

impl Domain {
    async fn open(node: Arc<Node>) -> Self {
        let aws = FakeAws::start().await;
        let options = DomainOptions::default().fine_grained();
        aws.account(ACCOUNT).domain_with("logs", REGION, options);
        let gateway = Gateway::open(&aws, "logs", node).await;
        Self { aws, gateway }
    }

    /// Returns the plugin as our client sees it, by the operator's own user.
    async fn plugin(&self) -> Plugin {
        let (id, secret) = self.aws.credentials(ACCOUNT);
        self.plugin_of(&id, &secret, None).await
    }

    /// Returns the keys of the domain's master user.
    fn master(&self) -> Credentials {
        let keys = self.aws.credentials(ACCOUNT);
        Credentials {
            access_key_id: keys.0,
            secret_access_key: keys.1,
            session_token: None,
            expires: None,
        }
    }

    async fn plugin_as(&self, keys: &Credentials) -> Plugin {
        let token = keys.session_token.clone();
        self.plugin_of(&keys.access_key_id, &keys.secret_access_key, token)
            .await
    }

    async fn plugin_of(&self, id: &str, secret: &str, token: Option<String>) -> Plugin {
        let keys = SdkCredentials::new(id, secret, token, None, "test");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(self.aws.url())
            .region(Region::new(REGION))
            .retry_config(RetryConfig::disabled())
            .credentials_provider(SharedCredentialsProvider::new(keys))
            .build();
        let sessions = Sessions::new(config, Arc::new(Leading));
        let key = SessionKey {
            account: ACCOUNT.to_owned(),
            region: REGION.to_owned(),
            role: None,
            session_name: "test".to_owned(),
        };
        let clients = sessions.clients(&key).await.unwrap();
        let engine = Engine::parse("OpenSearch_2.19");
        let connections = Connections::trusting(Some(&authority())).unwrap();
        Plugin::new(
            connections,
            clients,
            self.gateway.endpoint(),
            REGION,
            engine,
        )
    }
}

/// Patches the mappings, again where another test's write comes between.
async fn patched(plugin: &Plugin, patch: &Value) {
    loop {
        match plugin.patch(EntityKind::Mapping, patch).await {
            Err(Error::Conflict) => {}
            done => {
                done.unwrap();
                return;
            }
        }
    }
}

fn role(patterns: &[&str], actions: &[&str]) -> Value {
    json!({"index_permissions": [{"index_patterns": patterns, "allowed_actions": actions}]})
}

/// Longer than a write and its look afterwards may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
