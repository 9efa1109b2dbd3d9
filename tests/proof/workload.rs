//! What happens to a domain while the operator is crashed: one story each.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::common::fake_aws::{DomainOptions, Period};
use crate::common::operator::ACCOUNT;
use crate::common::operator::scene::Scene;

/// An account of which the operator cannot ask who exists in it.
const ELSEWHERE: &str = "444455556666";

/// A story: what is in force before, and what then happens.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Workload {
    FromNothing,
    Adopted,
    Added,
    Changed,
    Removed,
    AllRemoved,
    Replaced,
    Mass,
    Expired,
    Renewed,
    PoisonedHere,
    PoisonedThere,
    Cured,
    ConsentWithdrawn,
    ConsentGiven,
    Attached,
    Detached,
    DomainRevoked,
    DomainRetained,
    Owned,
    Observed,
    Resumed,
    OthersWrote,
    Busy,
    Mapped,
    Remapped,
    Unmapped,
}

impl Workload {
    pub(crate) const ALL: [Self; 27] = [
        Self::FromNothing,
        Self::Adopted,
        Self::Added,
        Self::Changed,
        Self::Removed,
        Self::AllRemoved,
        Self::Replaced,
        Self::Mass,
        Self::Expired,
        Self::Renewed,
        Self::PoisonedHere,
        Self::PoisonedThere,
        Self::Cured,
        Self::ConsentWithdrawn,
        Self::ConsentGiven,
        Self::Attached,
        Self::Detached,
        Self::DomainRevoked,
        Self::DomainRetained,
        Self::Owned,
        Self::Observed,
        Self::Resumed,
        Self::OthersWrote,
        Self::Busy,
        Self::Mapped,
        Self::Remapped,
        Self::Unmapped,
    ];

    pub(crate) fn options(self) -> DomainOptions {
        match self {
            Self::Busy => {
                DomainOptions::default().processing(Period::For(Duration::from_millis(700)))
            }
            _ if self.maps() => DomainOptions::default().fine_grained(),
            _ => DomainOptions::default(),
        }
    }

    /// Tells whether it is about roles of the security plugin.
    pub(crate) fn maps(self) -> bool {
        matches!(self, Self::Mapped | Self::Remapped | Self::Unmapped)
    }

    /// Returns the principals that do not exist and are asked for.
    pub(crate) fn missing(self, scene: &Scene) -> Vec<String> {
        match self {
            Self::PoisonedHere => vec![scene.arn("nobody")],
            Self::PoisonedThere => vec![elsewhere(scene, "nobody")],
            _ => Vec::new(),
        }
    }

    /// Tells whether the story has come to what it is about; a search may pause on the way.
    pub(crate) fn is_told(self, snapshot: &Value) -> bool {
        match self {
            Self::PoisonedHere => snapshot["grants"]["bad"]["reason"] == "PrincipalNotFound",
            Self::PoisonedThere => snapshot["grants"]["searched"]["reason"] == "PrincipalNotFound",
            Self::Expired => snapshot["grants"]["short"]["reason"] == "Expired",
            _ => true,
        }
    }

    /// Tells whether what is authorised is also written in the end.
    pub(crate) fn is_written(self) -> bool {
        self != Self::Observed
    }

    /// Sets up what is in force before; what this asks for is awaited by whoever calls.
    pub(crate) async fn prepare(self, scene: &Scene) {
        for role in ["a", "b", "c", "d", "theirs", "banned"] {
            scene.role(role);
        }
        let theirs = theirs(scene);
        scene.others_write(&theirs);
        let spec = match self {
            Self::DomainRevoked => json!({"deletionPolicy": "Revoke"}),
            Self::Resumed => json!({"suspend": true}),
            Self::ConsentGiven => json!({"consent": []}),
            Self::PoisonedThere => {
                let accounts = json!({"accounts": [ACCOUNT, ELSEWHERE]});
                json!({"consent": [scene.consent(&json!({"principals": accounts}))]})
            }
            _ if self.maps() => {
                let roles = json!({"securityRoles": ["{{namespace}}.*"]});
                json!({"consent": [scene.consent(&roles)]})
            }
            _ => json!({}),
        };
        if !matches!(self, Self::FromNothing | Self::Adopted) {
            scene.add_domain(&spec).await;
        }
        match self {
            Self::FromNothing | Self::Added | Self::PoisonedHere | Self::PoisonedThere => {}
            Self::Adopted => {
                let [allowed, denied] = theirs;
                let ours = scene.allows(&[&scene.arn("a")]);
                scene.others_write(&[allowed, denied, ours]);
                // They are adopted by the first look alone, so they have to be there by then.
                scene.grant("first", &to(scene, &["a"])).await;
                scene.grant("second", &narrow(scene)).await;
            }
            Self::Cured => scene.grant("bad", &to(scene, &["late"])).await,
            Self::Remapped | Self::Unmapped => {
                scene.grant("first", &mapped(scene, "a", &["one"])).await;
                scene.grant("second", &mapped(scene, "b", &["one"])).await;
                scene
                    .grant("third", &mapped(scene, "a", &["one", "two"]))
                    .await;
            }
            Self::Attached | Self::Mapped => scene.grant("plain", &to(scene, &["a"])).await,
            Self::Detached | Self::DomainRevoked => {
                scene.grant("kept", &attached(scene, "a")).await;
                scene.grant("goes", &attached(scene, "b")).await;
            }
            Self::Mass => {
                for number in 0..6 {
                    let role = ["a", "b"][number % 2];
                    let mut spec = to(scene, &[role]);
                    spec["access"] = json!("ReadWrite");
                    spec["paths"] = json!([format!("before-{number}")]);
                    scene.grant(&format!("grant-{number}"), &spec).await;
                }
            }
            Self::Expired | Self::Renewed => {
                let mut spec = to(scene, &["b"]);
                spec["expiresAt"] = json!(ahead(3600));
                scene.grant("short", &spec).await;
                scene.grant("stays", &to(scene, &["a"])).await;
            }
            _ => {
                scene.grant("first", &to(scene, &["a"])).await;
                scene.grant("second", &to(scene, &["b"])).await;
            }
        }
    }

    /// Lets the story happen.
    pub(crate) async fn act(self, scene: &Scene) {
        match self {
            Self::Adopted => scene.add_domain(&json!({})).await,
            Self::FromNothing => {
                scene.add_domain(&json!({})).await;
                scene.grant("first", &to(scene, &["a"])).await;
                scene.grant("second", &narrow(scene)).await;
            }
            Self::Added => {
                scene.grant("whole", &to(scene, &["a"])).await;
                scene.grant("narrow", &narrow(scene)).await;
                let office = json!({"principals": [{"anonymous": {}}], "access": "ReadWrite",
                    "paths": ["shared"], "conditions": {"sourceIps": ["203.0.113.0/24"]}});
                scene.grant("office", &office).await;
            }
            Self::Changed => {
                scene
                    .change_grant("first", &json!({"spec": narrow(scene)}))
                    .await;
                let to = to(scene, &["c", "d"]);
                scene.change_grant("second", &json!({"spec": to})).await;
            }
            Self::Removed => scene.delete_grant("second").await,
            Self::AllRemoved => {
                scene.delete_grant("first").await;
                scene.delete_grant("second").await;
            }
            Self::Replaced => {
                scene.delete_grant("first").await;
                scene.until_gone("first").await;
                scene.grant("first", &to(scene, &["c"])).await;
            }
            Self::Mass => self.mass(scene).await,
            Self::Expired => {
                let soon = json!({"spec": {"expiresAt": ahead(4)}});
                scene.change_grant("short", &soon).await;
            }
            Self::Renewed => {
                let later = json!({"spec": {"expiresAt": null, "principals":
                    [{"iamRole": {"arn": scene.arn("c")}}]}});
                scene.change_grant("short", &later).await;
            }
            Self::PoisonedHere => {
                scene.grant("bad", &to(scene, &["nobody"])).await;
                scene.grant("good", &to(scene, &["a"])).await;
            }
            Self::PoisonedThere => {
                let role = |arn: String| json!({"principals": [{"iamRole": {"arn": arn}}]});
                scene
                    .grant("searched", &role(elsewhere(scene, "nobody")))
                    .await;
                scene.grant("good", &to(scene, &["a"])).await;
            }
            Self::Cured => {
                let there = to(scene, &["b"]);
                scene.change_grant("bad", &json!({"spec": there})).await;
            }
            Self::ConsentWithdrawn => {
                scene.change_domain(&json!({"spec": {"consent": []}})).await;
            }
            Self::ConsentGiven => {
                let consent = json!({"consent": [scene.consent(&json!({}))]});
                scene.change_domain(&json!({"spec": consent})).await;
            }
            Self::Attached => {
                scene.grant("one", &attached(scene, "b")).await;
                let attach = json!({"spec": {"identityPolicy": "Attach"}});
                scene.change_grant("plain", &attach).await;
            }
            Self::Detached => {
                let none = json!({"spec": {"identityPolicy": "None"}});
                scene.change_grant("kept", &none).await;
                scene.delete_grant("goes").await;
            }
            Self::DomainRevoked | Self::DomainRetained => scene.delete_domain().await,
            Self::Owned => self.mode(scene, "Own").await,
            Self::Observed => {
                self.mode(scene, "Observe").await;
                scene.grant("third", &to(scene, &["c"])).await;
            }
            Self::Resumed => {
                scene.grant("third", &to(scene, &["c"])).await;
                let resumed = json!({"spec": {"suspend": false}});
                scene.change_domain(&resumed).await;
            }
            Self::OthersWrote => {
                // They copy what they read, and lose one of their own statements and one of ours.
                let [_, denied] = theirs(scene);
                let (copied, new) = (scene.arn("b"), scene.arn("d"));
                scene.others_write(&[denied, scene.allows(&[&new, &copied])]);
                scene.grant("third", &to(scene, &["c"])).await;
            }
            Self::Busy => {
                scene.grant("third", &to(scene, &["c"])).await;
                scene.delete_grant("first").await;
            }
            Self::Mapped | Self::Remapped | Self::Unmapped => self.act_on_roles(scene).await,
        }
    }

    async fn act_on_roles(self, scene: &Scene) {
        match self {
            Self::Mapped => {
                scene
                    .grant("one", &mapped(scene, "b", &["one", "two"]))
                    .await;
                let change = mapped(scene, "a", &["one"]);
                scene.change_grant("plain", &json!({"spec": change})).await;
            }
            Self::Remapped => {
                let second = mapped(scene, "c", &["two"]);
                scene.change_grant("second", &json!({"spec": second})).await;
                let third = json!({"spec": {"securityRoles": null}});
                scene.change_grant("third", &third).await;
            }
            Self::Unmapped => {
                scene.delete_grant("second").await;
                scene.delete_grant("third").await;
            }
            _ => {}
        }
    }

    async fn mode(self, scene: &Scene, mode: &str) {
        let spec = json!({"spec": {"accessPolicy": {"mode": mode}}});
        scene.change_domain(&spec).await;
    }

    async fn mass(self, scene: &Scene) {
        for number in 0..2 {
            scene.delete_grant(&format!("grant-{number}")).await;
        }
        for number in 2..4 {
            let change = json!({"spec": {"paths": [format!("after-{number}")]}});
            scene
                .change_grant(&format!("grant-{number}"), &change)
                .await;
        }
        for number in 6..9 {
            scene
                .grant(&format!("grant-{number}"), &to(scene, &["c"]))
                .await;
        }
    }
}

fn to(scene: &Scene, roles: &[&str]) -> Value {
    let role = |role: &&str| json!({"iamRole": {"arn": scene.arn(role)}});
    json!({"principals": roles.iter().map(role).collect::<Vec<_>>()})
}

fn narrow(scene: &Scene) -> Value {
    let mut spec = to(scene, &["b"]);
    spec["access"] = json!("Read");
    spec["paths"] = json!(["logs", "metrics-*"]);
    spec["conditions"] = json!({"principalOrgIds": ["o-a1b2c3d4e5"]});
    spec
}

fn attached(scene: &Scene, role: &str) -> Value {
    let mut spec = to(scene, &[role]);
    spec["identityPolicy"] = json!("Attach");
    spec
}

fn mapped(scene: &Scene, role: &str, roles: &[&str]) -> Value {
    let mut spec = to(scene, &[role]);
    let roles = roles.iter().map(|role| format!("{}.{role}", scene.name));
    spec["securityRoles"] = roles.collect();
    spec
}

fn elsewhere(scene: &Scene, role: &str) -> String {
    format!("arn:aws:iam::{ELSEWHERE}:role/{}", scene.role_name(role))
}

/// What another writer allows and denies.
fn theirs(scene: &Scene) -> [Value; 2] {
    let allowed = scene.allows(&[&scene.arn("theirs")]);
    let mut denied = scene.allows(&[&scene.arn("banned")]);
    denied["Effect"] = json!("Deny");
    [allowed, denied]
}

fn ahead(seconds: i64) -> String {
    let at = Timestamp::now() + SignedDuration::from_secs(seconds);
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
