//! Every try of a write asks first whether this process may.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_opensearch::config::{Credentials, SharedCredentialsProvider};
use opensearch_access::aws::error::Error;
use opensearch_access::aws::session::{Clients, SessionKey, Sessions};
use opensearch_access::aws::supervisor::Supervisor;
use opensearch_access::aws::{domain, identity};

use crate::common::fake_aws::{FakeAws, Fault, Times};
use crate::common::operator::{ACCOUNT, REGION};

/// Allows a number of tries, and notes every call.
#[derive(Debug, Default)]
struct Permits {
    left: AtomicUsize,
    calls: Mutex<Vec<(&'static str, &'static str)>>,
}

impl Supervisor for Permits {
    fn may_write(&self) -> bool {
        let take = |left: usize| left.checked_sub(1);
        self.left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
            .is_ok()
    }

    fn called(&self, operation: &'static str, code: &'static str) {
        self.calls.lock().unwrap().push((operation, code));
    }
}

async fn clients(aws: &FakeAws, permits: &Arc<Permits>) -> Clients {
    aws.account(ACCOUNT).role("a").domain("gated", REGION);
    let (key, secret) = aws.credentials(ACCOUNT);
    let credentials = Credentials::new(key, secret, None, None, "test");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(aws.url())
        .region(Region::new(REGION))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build();
    let key = SessionKey {
        account: ACCOUNT.to_owned(),
        region: REGION.to_owned(),
        role: None,
        session_name: String::new(),
    };
    let supervisor = Arc::clone(permits) as Arc<dyn Supervisor>;
    let sessions = Sessions::new(config, supervisor);
    sessions.clients(&key).await.unwrap()
}

fn policy() -> String {
    let allow = format!(
        r#"{{"Effect":"Allow","Principal":{{"AWS":"arn:aws:iam::{ACCOUNT}:role/a"}},"Action":"es:*","Resource":"*"}}"#
    );
    format!(r#"{{"Version":"2012-10-17","Statement":[{allow}]}}"#)
}

/// What a role may have inline: it names no principal.
const IDENTITY_POLICY: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"es:ESHttpGet","Resource":"*"}]}"#;

#[tokio::test]
async fn without_permission_reads_are_sent_and_writes_are_not() {
    let (aws, permits) = (FakeAws::start().await, Arc::default());
    let clients = clients(&aws, &permits).await;
    domain::describe(&clients, "gated").await.unwrap();
    let sent = aws.calls().len();
    let not_sent = |operation| Err(Error::NotLeading { operation });
    let updated = domain::update_policy(&clients, "gated", &policy()).await;
    assert_eq!(updated.map(drop), not_sent("UpdateDomainConfig"));
    let tried = domain::try_policy(&clients, "gated", &policy()).await;
    assert_eq!(tried, not_sent("UpdateDomainConfig (dry run)"));
    let put = identity::put_role_policy(&clients, "a", "p", &policy()).await;
    assert_eq!(put, not_sent("PutRolePolicy"));
    let deleted = identity::delete_role_policy(&clients, "a", "p").await;
    assert_eq!(deleted, not_sent("DeleteRolePolicy"));
    assert_eq!(aws.calls().len(), sent);
    let refused = ("DeleteRolePolicy", "NotLeading");
    assert_eq!(permits.calls.lock().unwrap().last(), Some(&refused));
}

#[tokio::test]
async fn a_try_after_the_first_asks_again() {
    let (aws, permits) = (FakeAws::start().await, Arc::<Permits>::default());
    let clients = clients(&aws, &permits).await;
    let operation = "PutRolePolicy";
    let faults = aws.faults();
    faults.inject(operation, Fault::Internal, Times::Exactly(2));
    permits.left.store(1, Ordering::SeqCst);
    let put = identity::put_role_policy(&clients, "a", "p", IDENTITY_POLICY).await;
    assert_eq!(put, Err(Error::NotLeading { operation }));
    assert_eq!(aws.calls_of(operation).len(), 1);
    permits.left.store(2, Ordering::SeqCst);
    identity::put_role_policy(&clients, "a", "p", IDENTITY_POLICY)
        .await
        .unwrap();
    assert_eq!(aws.calls_of(operation).len(), 3);
    assert_eq!(permits.left.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_policy_is_sent_once_and_each_time_asks_first() {
    let (aws, permits) = (FakeAws::start().await, Arc::<Permits>::default());
    let clients = clients(&aws, &permits).await;
    let operation = "UpdateDomainConfig";
    let faults = aws.faults();
    faults.inject(operation, Fault::Internal, Times::Exactly(1));
    permits.left.store(2, Ordering::SeqCst);
    let failed = domain::update_policy(&clients, "gated", &policy()).await;
    assert!(
        matches!(failed, Err(Error::Unavailable { .. })),
        "{failed:?}"
    );
    assert_eq!(aws.calls_of(operation).len(), 1);
    assert_eq!(permits.left.load(Ordering::SeqCst), 1);
    domain::update_policy(&clients, "gated", &policy())
        .await
        .unwrap();
    let updated = domain::update_policy(&clients, "gated", &policy()).await;
    assert_eq!(updated.map(drop), Err(Error::NotLeading { operation }));
    assert_eq!(aws.calls_of(operation).len(), 2);
    assert_eq!(aws.updates("gated"), 1);
}

#[tokio::test]
async fn a_dry_run_is_sent_once_and_changes_nothing() {
    let (aws, permits) = (FakeAws::start().await, Arc::<Permits>::default());
    let clients = clients(&aws, &permits).await;
    permits.left.store(2, Ordering::SeqCst);
    let operation = "UpdateDomainConfig";
    aws.faults()
        .inject(operation, Fault::Throttle, Times::Exactly(1));
    let failed = domain::try_policy(&clients, "gated", &policy()).await;
    assert!(matches!(failed, Err(Error::Throttled { .. })), "{failed:?}");
    let tried = domain::try_policy(&clients, "gated", &policy()).await;
    assert_eq!((tried, aws.calls_of(operation).len()), (Ok(()), 2));
    assert_eq!(
        (aws.policy("gated").as_str(), aws.updates("gated")),
        ("", 0)
    );
    let written = domain::update_policy(&clients, "gated", &policy()).await;
    let version = aws.versions("gated").len();
    assert_eq!(written, Err(Error::NotLeading { operation }));
    permits.left.store(1, Ordering::SeqCst);
    let written = domain::update_policy(&clients, "gated", &policy()).await;
    assert_eq!(written, Ok(i32::try_from(version + 1).ok()));
}
