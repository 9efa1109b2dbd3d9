//! Grants that map to roles of the real security plugin, by manifests alone.
#![allow(
    clippy::unwrap_used,
    reason = "an expectation that fails here is a failed test"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::common::fake_aws::{Credentials, DomainOptions};
use crate::common::gateway::{Gateway, Trouble, ask};
use crate::common::opensearch::{Node, shared_node};
use crate::common::operator::scene::{Scene, condition};
use crate::common::operator::{ACCOUNT, PATIENCE, REGION, World};

mod defined;
mod faults;
mod lost;
mod mapped;

/// The security plugin's API.
const API: &str = "/_plugins/_security/api";

/// A scene whose domain has an OpenSearch node behind its gateway.
struct Stage {
    scene: Scene,
    gateway: Gateway,
}

impl Stage {
    async fn shared(name: &'static str) -> Self {
        let node = shared_node().await;
        Self::in_world(World::shared().await, name, node).await
    }

    async fn in_world(world: World, name: &'static str, node: Arc<Node>) -> Self {
        let options = DomainOptions::default().fine_grained();
        let scene = Scene::in_world(world, name, options).await;
        let gateway = Gateway::open(scene.world.aws(), name, node).await;
        let stage = Self { scene, gateway };
        let own = format!("{name}.*");
        stage
            .consent(&json!({"securityRoles": [own, "all_access"]}))
            .await;
        stage
    }

    /// Creates the `OpenSearchDomain` with a ceiling, changed by a merge patch.
    async fn consent(&self, ceiling: &Value) {
        let entry = self.scene.consent(ceiling);
        self.scene.add_domain(&json!({ "consent": [entry] })).await;
    }

    /// Sends a request as the operator's own user, who may do everything.
    async fn as_admin(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let (access_key_id, secret_access_key) = self.scene.world.aws().credentials(ACCOUNT);
        let keys = Credentials {
            access_key_id,
            secret_access_key,
            session_token: None,
            expires: None,
        };
        ask(&self.gateway, Some(&keys), REGION, method, path, body).await
    }

    /// Defines a role in the plugin, and returns its name.
    async fn define(&self, role: &str, pattern: &str) -> String {
        let name = format!("{}.{role}", self.scene.name);
        let body = json!({"cluster_permissions": ["cluster_composite_ops_ro"],
            "index_permissions": [{"index_patterns": [pattern], "allowed_actions": ["read"]}]});
        let path = format!("{API}/roles/{name}");
        self.until_taken(Method::PUT, &path, &body).await;
        name
    }

    /// Changes the mappings as another writer would.
    async fn others_map(&self, patch: &Value) {
        let place = format!("{API}/rolesmapping");
        self.until_taken(Method::PATCH, &place, patch).await;
    }

    /// Sends a write until the plugin takes it: another test's write may come between.
    async fn until_taken(&self, method: Method, path: &str, body: &Value) {
        let send = async || match self.as_admin(method.clone(), path, body).await {
            (status, _) if status < 300 => Ok(()),
            (status, said) => Err(format!("HTTP {status}: {said}")),
        };
        let what = format!("{method} {path} is taken");
        self.scene.world.eventually(&what, PATIENCE, send).await;
    }

    /// Returns who is mapped to a role, users and backend roles alike.
    async fn mapped(&self, role: &str) -> BTreeSet<String> {
        let path = format!("{API}/rolesmapping/{role}");
        let (_, answer) = self.as_admin(Method::GET, &path, &Value::Null).await;
        let lists = ["users", "backend_roles"].map(|list| answer[role][list].clone());
        let texts = lists.iter().filter_map(Value::as_array).flatten();
        texts
            .filter_map(|it| it.as_str().map(str::to_owned))
            .collect()
    }

    async fn until_mapped(&self, role: &str, who: &[&str]) {
        let wanted: BTreeSet<String> = who.iter().map(|&it| it.to_owned()).collect();
        let look = async || {
            let now = self.mapped(role).await;
            if now == wanted {
                return Ok(());
            }
            Err(format!("{now:?}, and not {wanted:?}"))
        };
        let what = format!("role {role} has who it should");
        self.scene.world.eventually(&what, PATIENCE, look).await;
    }

    /// Creates a grant of the whole domain, with roles.
    async fn grant(&self, name: &str, arn: &str, roles: &[&str]) {
        let kind = if arn.contains(":user/") {
            "iamUser"
        } else {
            "iamRole"
        };
        let spec = json!({"principals": [{kind: {"arn": arn}}], "securityRoles": roles});
        self.scene.grant(name, &spec).await;
    }

    /// Waits until a condition of a grant has a status.
    async fn until_half(&self, grant: &str, half: &str, status: &str) -> Value {
        let look = async || {
            let object = self.scene.get_grant(grant).await;
            let half = half_of(&object, half);
            if half["status"] == status {
                return Ok(half);
            }
            Err(format!("{:#}", object["status"]))
        };
        let what = format!("{half} of {grant} is {status}");
        self.scene.world.eventually(&what, PATIENCE, look).await
    }
}

fn half_of(object: &Value, half: &str) -> Value {
    condition(object, half)
}
