//! One domain of AWS and one namespace, both under the name of the test that they are for.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use super::meaning::{self, Meaning};
use super::{ACCOUNT, PATIENCE, REGION, World};
use crate::common::fake_aws::{Credentials, DomainOptions};
use crate::common::gateway::{Gateway, ask};
use crate::common::opensearch::Node;
use crate::common::oracle::{self, Case, Judgement};

/// How old the view may be from which something is added; generous, for busy machines.
const STALE: SignedDuration = SignedDuration::from_secs(30);

/// A domain and a namespace for one test, in a world of its own or shared.
pub(crate) struct Scene {
    pub(crate) world: World,
    /// The name of the domain, in AWS and in the cluster, and of the namespace.
    pub(crate) name: &'static str,
    /// What stands before the domain's OpenSearch, where there is one.
    pub(crate) gateway: Option<Gateway>,
    /// The account that the domain is in.
    account: &'static str,
    is_judged: bool,
}

impl Scene {
    /// Names a domain and a namespace that whoever calls sets up.
    pub(crate) fn of(world: World, name: &'static str) -> Self {
        let is_judged = true;
        Self {
            world,
            name,
            gateway: None,
            account: ACCOUNT,
            is_judged,
        }
    }

    /// Says that the domain is in another account than most.
    pub(crate) fn of_account(mut self, account: &'static str) -> Self {
        self.account = account;
        self
    }

    /// Puts an OpenSearch node behind the domain, and defines roles in it that are called after the
    /// domain.
    pub(crate) async fn with_node(mut self, node: Arc<Node>, roles: &[&str]) -> Self {
        let gateway = Gateway::open(self.world.aws(), self.name, node).await;
        let (access_key_id, secret_access_key) = self.world.aws().credentials(ACCOUNT);
        let keys = Credentials {
            access_key_id,
            secret_access_key,
            session_token: None,
            expires: None,
        };
        for role in roles {
            let path = format!("/_plugins/_security/api/roles/{}.{role}", self.name);
            let body = json!({"index_permissions": [
                {"index_patterns": ["x"], "allowed_actions": ["read"]}]});
            // Another domain's write to the same node may come between.
            while ask(&gateway, Some(&keys), REGION, Method::PUT, &path, &body)
                .await
                .0
                >= 300
            {}
        }
        self.gateway = Some(gateway);
        self
    }

    /// Leaves the oracle out, which knows nothing of what the test is about: the word says of what.
    pub(crate) fn unjudged(mut self, _about: &str) -> Self {
        self.is_judged = false;
        self
    }

    /// Sets up a public domain without a policy, its `OpenSearchDomain` with consent for the
    /// namespace, and the namespace, in the shared world.
    pub(crate) async fn shared(name: &'static str) -> Self {
        let scene = Self::bare(name, DomainOptions::default()).await;
        scene.add_domain(&json!({})).await;
        scene
    }

    /// Sets up a domain in AWS, and the namespace, without an `OpenSearchDomain`.
    pub(crate) async fn bare(name: &'static str, options: DomainOptions) -> Self {
        Self::in_world(World::shared().await, name, options).await
    }

    /// Sets up the same in a world of the test's own.
    pub(crate) async fn in_world(world: World, name: &'static str, options: DomainOptions) -> Self {
        world
            .aws()
            .account(ACCOUNT)
            .domain_with(name, REGION, options);
        world.namespace(name, &json!({})).await;
        Self::of(world, name)
    }

    // === AWS ===

    /// Creates a role for the test, and returns its ARN.
    pub(crate) fn role(&self, role: &str) -> String {
        self.world
            .aws()
            .account(ACCOUNT)
            .role(&self.role_name(role));
        self.arn(role)
    }

    /// Returns the ARN that a role of the test has or would have.
    pub(crate) fn arn(&self, role: &str) -> String {
        format!("arn:aws:iam::{ACCOUNT}:role/{}", self.role_name(role))
    }

    /// Returns the name that a role of the test has.
    pub(crate) fn role_name(&self, role: &str) -> String {
        format!("{}-{role}", self.name)
    }

    /// Returns the ARN of what is below the domain.
    pub(crate) fn resource(&self, path: &str) -> String {
        format!("arn:aws:es:{REGION}:{ACCOUNT}:domain/{}/{path}", self.name)
    }

    /// Returns a statement that lets principals use the whole domain.
    pub(crate) fn allows(&self, principals: &[&str]) -> Value {
        json!({"Effect": "Allow", "Principal": {"AWS": principals}, "Action": "es:*",
            "Resource": self.resource("*")})
    }

    /// Stores a policy as another writer would.
    pub(crate) fn others_write(&self, statements: &[Value]) {
        let document = json!({"Version": "2012-10-17", "Id": "theirs", "Statement": statements});
        let aws = self.world.aws();
        aws.set_policy_externally(self.name, &document.to_string());
    }

    /// Returns what the domain's policy says now.
    pub(crate) fn policy(&self) -> Meaning {
        meaning::of_document(&self.world.aws().policy(self.name))
    }

    /// Returns what each version of the policy said, the first one included.
    pub(crate) fn history(&self) -> Vec<Meaning> {
        let versions = self.world.aws().versions(self.name);
        versions
            .iter()
            .map(|it| meaning::of_document(&it.document))
            .collect()
    }

    /// Returns how many updates AWS has accepted, and makes sure that none had a policy of no
    /// statements.
    pub(crate) fn updates(&self) -> usize {
        let aws = self.world.aws();
        for call in aws.calls_of("UpdateDomainConfig") {
            if call.domain.as_deref() != Some(self.name) {
                continue;
            }
            let policy = call.body["AccessPolicies"].as_str().unwrap();
            let statements = || serde_json::from_str::<Value>(policy).unwrap()["Statement"].clone();
            assert!(policy.is_empty() || statements() != json!([]), "{call:?}");
        }
        aws.updates(self.name)
    }

    /// Waits until the policy says exactly what the statements say.
    pub(crate) async fn until_policy(&self, statements: &[Value]) {
        self.until_policy_within(PATIENCE, statements).await;
    }

    pub(crate) async fn until_policy_within(&self, patience: Duration, statements: &[Value]) {
        let wanted = meaning::of_statements(statements);
        let look = async || {
            let now = self.policy();
            if now == wanted {
                Ok(())
            } else {
                Err(format!(
                    "{now:#?}\n--- wanted:\n{wanted:#?}\n{}",
                    self.statuses().await
                ))
            }
        };
        self.world
            .eventually("the policy is as wanted", patience, look)
            .await;
    }

    /// Has the oracle judge what every version of the policy added, and what it took from others.
    /// How fast something is revoked is each test's own matter.
    fn judgement(&self) -> Judgement {
        let history = self.world.aws().history(self.account, REGION, self.name);
        let Some((versions, fine_grained)) = history else {
            panic!(
                "{} has no domain to be judged: say so by unjudged",
                self.name
            );
        };
        oracle::judge(&Case {
            name: self.name,
            fine_grained,
            versions: &versions,
            sightings: &self.world.chronicle().sightings(),
            end: Timestamp::now(),
            stale: STALE,
            lingers: None,
        })
    }

    // === the domain's object ===

    /// Creates the `OpenSearchDomain`: consent for the namespace of the test, changed by a merge
    /// patch on its spec.
    pub(crate) async fn add_domain(&self, change: &Value) {
        let mut spec = json!({
            "domainName": self.name,
            "accountId": ACCOUNT,
            "region": REGION,
            "interval": "10s",
            "consent": [self.consent(&json!({}))],
        });
        merge(&mut spec, change);
        let manifest = json!({
            "apiVersion": "opensearch-access.io/v1alpha1",
            "kind": "OpenSearchDomain",
            "metadata": {"name": self.name},
            "spec": spec,
        });
        self.world.create(&manifest).await.unwrap();
    }

    /// Returns a generous consent for the namespace of the test, its ceiling changed by a merge
    /// patch.
    pub(crate) fn consent(&self, change: &Value) -> Value {
        let mut ceiling = json!({
            "access": "Admin",
            "principals": {"accounts": [ACCOUNT]},
            "sourceIps": ["198.51.100.0/24", "203.0.113.0/24"],
            "anonymous": true,
            "identityPolicies": true,
            "maxGrants": 1000,
        });
        merge(&mut ceiling, change);
        json!({"namespaces": [self.name], "ceiling": ceiling})
    }

    pub(crate) async fn change_domain(&self, change: &Value) {
        self.world
            .change("OpenSearchDomain", None, self.name, change)
            .await;
    }

    pub(crate) async fn delete_domain(&self) {
        let domains = self.world.api("OpenSearchDomain", None);
        domains
            .delete(self.name, &DeleteParams::default())
            .await
            .unwrap();
    }

    pub(crate) async fn until_domain_is_gone(&self) {
        let look = async || match self.domain().await {
            Value::Null => Ok(()),
            there => Err(format!("{there:#}")),
        };
        self.world
            .eventually("the domain's object is gone", PATIENCE, look)
            .await;
    }

    /// Returns the `OpenSearchDomain`; `Null` if there is none.
    pub(crate) async fn domain(&self) -> Value {
        self.world.get("OpenSearchDomain", None, self.name).await
    }

    /// Waits until the domain's `Ready` has the reason, and returns the condition's message.
    pub(crate) async fn until_domain_says(&self, status: &str, reason: &str) -> String {
        let look = async || says(&self.domain().await, status, reason);
        let what = format!("the domain's Ready is {status} {reason}");
        self.world.eventually(&what, PATIENCE, look).await
    }

    // === grants ===

    /// Creates a grant of the whole domain to a role.
    pub(crate) async fn grant_to(&self, name: &str, role: &str) {
        self.grant(name, &json!({"principals": [{"iamRole": {"arn": role}}]}))
            .await;
    }

    /// Creates a grant, its spec made from the whole domain to nobody by a merge patch.
    pub(crate) async fn grant(&self, name: &str, change: &Value) {
        self.try_grant(self.name, name, change).await.unwrap();
    }

    pub(crate) async fn try_grant(
        &self,
        namespace: &str,
        name: &str,
        change: &Value,
    ) -> Result<(), kube::Error> {
        let mut spec = json!({"domainRef": {"name": self.name}, "access": "Admin"});
        merge(&mut spec, change);
        let manifest = json!({
            "apiVersion": "opensearch-access.io/v1alpha1",
            "kind": "DomainAccess",
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        });
        self.world.create(&manifest).await.map(drop)
    }

    pub(crate) async fn change_grant(&self, name: &str, change: &Value) {
        self.world
            .change("DomainAccess", Some(self.name), name, change)
            .await;
    }

    pub(crate) async fn delete_grant(&self, name: &str) {
        let grants = self.world.api("DomainAccess", Some(self.name));
        grants.delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub(crate) async fn get_grant(&self, name: &str) -> Value {
        self.world.get("DomainAccess", Some(self.name), name).await
    }

    pub(crate) async fn until_gone(&self, name: &str) {
        let look = async || match self.get_grant(name).await {
            Value::Null => Ok(()),
            there => Err(format!("{there:#}")),
        };
        self.world
            .eventually("the grant is gone", PATIENCE, look)
            .await;
    }

    /// Waits until grants are in place by the operator's hand.
    pub(crate) async fn until_ready(&self, names: &[&str]) {
        for name in names {
            self.until_says(name, "True", "Reconciled").await;
        }
    }

    /// Waits until a grant's `Ready` has the reason, and returns the condition's message.
    pub(crate) async fn until_says(&self, name: &str, status: &str, reason: &str) -> String {
        self.until_grant_says(self.name, name, status, reason).await
    }

    pub(crate) async fn until_grant_says(
        &self,
        namespace: &str,
        name: &str,
        status: &str,
        reason: &str,
    ) -> String {
        let what = format!("Ready of the grant {namespace}/{name} is {status} {reason}");
        let look = async || {
            let grant = self.world.get("DomainAccess", Some(namespace), name).await;
            says(&grant, status, reason)
        };
        self.world.eventually(&what, PATIENCE, look).await
    }

    /// Waits until a grant is refused for a reason, and makes sure that the message names all of
    /// the given words.
    pub(crate) async fn until_refused(&self, name: &str, reason: &str, words: &[&str]) {
        let message = self.until_says(name, "False", reason).await;
        for word in words {
            assert!(
                message.contains(word),
                "{name}: {word:?} is not in {message:?}"
            );
        }
    }

    /// Returns all grants of the namespace.
    pub(crate) async fn grants(&self) -> Vec<Value> {
        let grants = self.world.api("DomainAccess", Some(self.name));
        let grants = grants.list(&ListParams::default()).await.unwrap();
        let value = |grant| serde_json::to_value(grant).unwrap();
        grants.items.into_iter().map(value).collect()
    }

    /// Returns what the objects of the test say, for a failure's message.
    async fn statuses(&self) -> String {
        let mut text = format!("domain: {}\n", ready(&self.domain().await));
        for grant in self.grants().await.into_iter().take(10) {
            let name = &grant["metadata"]["name"];
            writeln!(text, "{name}: {}", ready(&grant)).unwrap();
        }
        text
    }
}

/// Returns the condition of a type; `Null` if the object has none.
pub(crate) fn condition(object: &Value, type_: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions
        .into_iter()
        .flatten()
        .find(|it| it["type"] == type_);
    found.cloned().unwrap_or_default()
}

fn ready(object: &Value) -> Value {
    condition(object, "Ready")
}

/// Returns the message of `Ready` if it has this status and reason, for the newest spec.
fn says(object: &Value, status: &str, reason: &str) -> Result<String, String> {
    let ready = ready(object);
    let current = ready["observedGeneration"] == object["metadata"]["generation"];
    if current && ready["status"] == status && ready["reason"] == reason {
        Ok(ready["message"].as_str().unwrap_or_default().to_owned())
    } else {
        Err(format!(
            "generation {}: {ready:#}",
            object["metadata"]["generation"]
        ))
    }
}

/// Applies a merge patch (RFC 7396).
fn merge(target: &mut Value, patch: &Value) {
    let (Value::Object(members), Value::Object(changes)) = (&mut *target, patch) else {
        target.clone_from(patch);
        return;
    };
    for (key, change) in changes {
        if change.is_null() {
            members.remove(key);
        } else {
            merge(members.entry(key).or_insert(Value::Null), change);
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // A failed test has its own message already.
        if self.is_judged && !std::thread::panicking() {
            let judgement = self.judgement();
            let bad = !judgement.violations.is_empty();
            assert!(!bad, "{}", oracle::told(&judgement));
        }
        self.world.put_to_rest(self.name);
    }
}
