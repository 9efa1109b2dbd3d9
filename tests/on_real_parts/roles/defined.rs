//! Roles, tenants and action groups that teams define, and what the plugin has then.

use kube::api::DeleteParams;

use super::*;

/// The path of a kind in the plugin's API.
fn place(kind: &str, name: &str) -> String {
    format!("{API}/{kind}/{name}")
}

impl Stage {
    pub(super) async fn defines(&self, kind: &str, name: &str, spec: &Value) {
        self.try_define(kind, name, spec).await.unwrap();
    }

    pub(super) async fn try_define(
        &self,
        kind: &str,
        name: &str,
        spec: &Value,
    ) -> Result<(), kube::Error> {
        let mut spec = spec.clone();
        spec["domainRef"] = json!({"name": self.scene.name});
        let manifest = json!({"apiVersion": "opensearch-access.io/v1alpha1", "kind": kind,
            "metadata": {"name": name, "namespace": self.scene.name}, "spec": spec});
        self.scene.world.create(&manifest).await.map(drop)
    }

    pub(super) async fn change(&self, kind: &str, name: &str, spec: &Value) {
        let change = json!({"spec": spec});
        let namespace = Some(self.scene.name);
        self.scene
            .world
            .change(kind, namespace, name, &change)
            .await;
    }

    pub(super) async fn undefine(&self, kind: &str, name: &str) {
        let api = self.scene.world.api(kind, Some(self.scene.name));
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Waits until a definition's `Ready` has a status and a reason; returns its message.
    pub(super) async fn until_told(
        &self,
        kind: &str,
        name: &str,
        status: &str,
        reason: &str,
    ) -> String {
        let look = async || {
            let object = self
                .scene
                .world
                .get(kind, Some(self.scene.name), name)
                .await;
            let ready = condition(&object, "Ready");
            if ready["status"] == status && ready["reason"] == reason {
                let generation = &object["metadata"]["generation"];
                if ready["observedGeneration"] == *generation {
                    return Ok(ready["message"].as_str().unwrap().to_owned());
                }
            }
            Err(format!("{:#}", object["status"]))
        };
        let what = format!("{kind} {name} is {status} for {reason}");
        self.scene.world.eventually(&what, PATIENCE, look).await
    }

    pub(super) async fn until_undefined(&self, kind: &str, name: &str) {
        let look = async || match self
            .scene
            .world
            .get(kind, Some(self.scene.name), name)
            .await
        {
            Value::Null => Ok(()),
            object => Err(format!("{object:#}")),
        };
        let what = format!("{kind} {name} is gone");
        self.scene.world.eventually(&what, PATIENCE, look).await;
    }

    /// Returns what the plugin has under a name; null if it has nothing.
    pub(super) async fn has(&self, kind: &str, name: &str) -> Value {
        let (status, answer) = self
            .as_admin(Method::GET, &place(kind, name), &Value::Null)
            .await;
        if status == 404 {
            Value::Null
        } else {
            answer[name].clone()
        }
    }

    /// Writes into the plugin as another would.
    async fn others_put(&self, kind: &str, name: &str, body: &Value) {
        self.until_taken(Method::PUT, &place(kind, name), body)
            .await;
    }
}

pub(super) fn reader(pattern: &str) -> Value {
    json!({"clusterPermissions": ["cluster_composite_ops_ro"],
        "indexPermissions": [{"indexPatterns": [pattern], "allowedActions": ["read"]}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_reads_its_index_by_its_manifests_alone_and_is_shut_out_with_its_role() {
    let stage = Stage::shared("defined-read").await;
    let scene = &stage.scene;
    for (index, team) in [("defined-read-1", "a"), ("defined-other", "b")] {
        for (id, of) in [(1, team), (2, "x")] {
            let path = format!("/{index}/_doc/{id}?refresh=true");
            let (status, said) = stage
                .as_admin(Method::PUT, &path, &json!({"team": of}))
                .await;
            assert!(status < 300, "{said}");
        }
    }
    let arn = scene.role("reader");
    // The grant comes first, as `kubectl apply` of a folder may have it.
    stage.grant("reader", &arn, &["defined-read.reader"]).await;
    scene.until_says("reader", "False", "RoleNotFound").await;
    stage
        .defines(
            "DomainActionGroup",
            "peeks",
            &json!({"type": "Index",
        "allowedActions": ["indices:data/read/search*"]}),
        )
        .await;
    stage
        .defines("DomainTenant", "space", &json!({"description": "theirs"}))
        .await;
    stage
        .defines(
            "DomainRole",
            "reader",
            &json!({
        "clusterPermissions": ["cluster_composite_ops_ro"],
        "indexPermissions": [{"indexPatterns": ["defined-read-*"],
            "allowedActions": ["defined-read.peeks"], "dls": r#"{"term": {"team": "a"}}"#}],
        "tenantPermissions": [{"tenantPatterns": ["defined-read.space"],
            "allowedActions": ["kibana_all_write"]}]}),
        )
        .await;
    for (kind, name) in [
        ("DomainActionGroup", "peeks"),
        ("DomainTenant", "space"),
        ("DomainRole", "reader"),
    ] {
        stage.until_told(kind, name, "True", "Reconciled").await;
    }
    scene.until_ready(&["reader"]).await;

    let name = scene.role_name("reader");
    let keys = scene.world.aws().session(ACCOUNT, &name, "s");
    let send = async |method: Method, path: &str| {
        ask(
            &stage.gateway,
            Some(&keys),
            REGION,
            method,
            path,
            &Value::Null,
        )
        .await
    };
    let (status, said) = send(Method::GET, "/defined-read-1/_search").await;
    // One of two documents: the query of document-level security holds.
    assert_eq!(
        (status, &said["hits"]["total"]["value"]),
        (200, &json!(1)),
        "{said}"
    );
    // What the action group lacks, and what no pattern covers.
    assert_eq!(send(Method::GET, "/defined-read-1/_doc/1").await.0, 403);
    assert_eq!(send(Method::GET, "/defined-other/_search").await.0, 403);
    assert_eq!(
        stage.has("tenants", "defined-read.space").await["description"],
        "theirs"
    );

    // The role goes with its object, and whoever has it is shut out.
    stage.undefine("DomainRole", "reader").await;
    stage.until_undefined("DomainRole", "reader").await;
    assert_eq!(stage.has("roles", "defined-read.reader").await, Value::Null);
    scene.until_says("reader", "False", "RoleNotFound").await;
    assert_eq!(send(Method::GET, "/defined-read-1/_search").await.0, 403);
    for (kind, name, path) in [
        ("DomainActionGroup", "peeks", "actiongroups"),
        ("DomainTenant", "space", "tenants"),
    ] {
        stage.undefine(kind, name).await;
        stage.until_undefined(kind, name).await;
        assert_eq!(
            stage.has(path, &format!("defined-read.{name}")).await,
            Value::Null
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_change_is_put_right_and_what_the_team_changes_is_written() {
    let stage = Stage::shared("defined-drift").await;
    stage
        .scene
        .change_domain(&json!({"spec": {"interval": "10s"}}))
        .await;
    stage.defines("DomainRole", "r", &reader("x-*")).await;
    stage
        .until_told("DomainRole", "r", "True", "Reconciled")
        .await;
    let role = "defined-drift.r";
    let wider = json!({"index_permissions": [{"index_patterns": ["*"], "allowed_actions": ["*"]}]});
    stage.others_put("roles", role, &wider).await;
    let until = async |wanted: &Value| {
        let look = async || {
            let now =
                stage.has("roles", role).await["index_permissions"][0]["index_patterns"].clone();
            if now == *wanted {
                Ok(())
            } else {
                Err(now.to_string())
            }
        };
        stage
            .scene
            .world
            .eventually("the role is right", PATIENCE, look)
            .await;
    };
    until(&json!(["x-*"])).await;
    stage.change("DomainRole", "r", &reader("y-*")).await;
    until(&json!(["y-*"])).await;
    // Deleted behind the operator's back.
    let gone = stage
        .as_admin(Method::DELETE, &place("roles", role), &Value::Null)
        .await;
    assert!(gone.0 == 200 || gone.0 == 409, "{gone:?}");
    until(&json!(["y-*"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_plugin_would_take_without_a_word_is_refused_with_the_nearest_name() {
    let stage = Stage::shared("defined-wrong").await;
    let mut typo = reader("x-*");
    typo["indexPermissions"][0]["allowedActions"] = json!(["indices:data/read/serach"]);
    stage.defines("DomainRole", "typo", &typo).await;
    let told = stage
        .until_told("DomainRole", "typo", "False", "InvalidSpec")
        .await;
    for word in [
        "spec.indexPermissions[0].allowedActions[0]",
        "indices:data/read/search",
    ] {
        assert!(told.contains(word), "{told}");
    }
    let mut broken = reader("x-*");
    broken["indexPermissions"][0]["dls"] = json!(r#"{"term": {"team": "a"}"#);
    stage.defines("DomainRole", "broken", &broken).await;
    let told = stage
        .until_told("DomainRole", "broken", "False", "InvalidSpec")
        .await;
    assert!(told.contains("spec.indexPermissions[0].dls"), "{told}");
    for name in ["typo", "broken"] {
        assert_eq!(
            stage.has("roles", &format!("defined-wrong.{name}")).await,
            Value::Null
        );
    }

    // What stands stays as it was while its object is wrong.
    stage.defines("DomainRole", "good", &reader("x-*")).await;
    stage
        .until_told("DomainRole", "good", "True", "Reconciled")
        .await;
    let before = stage.has("roles", "defined-wrong.good").await;
    stage.change("DomainRole", "good", &typo).await;
    stage
        .until_told("DomainRole", "good", "False", "InvalidSpec")
        .await;
    assert_eq!(stage.has("roles", "defined-wrong.good").await, before);
    stage.change("DomainRole", "good", &reader("z-*")).await;
    stage
        .until_told("DomainRole", "good", "True", "Reconciled")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_defines_more_than_the_ceiling_and_nothing_of_another() {
    let stage = Stage::shared("defined-ceiling").await;
    let own = "defined-ceiling-*";
    let ceiling = json!({"access": "ReadWrite", "paths": [own],
        "securityRoles": ["defined-ceiling.*"]});
    let entry = stage.scene.consent(&ceiling);
    stage
        .scene
        .change_domain(&json!({"spec": {"consent": [entry]}}))
        .await;
    let with = |field: &str, value: Value| {
        let mut spec = reader(own);
        spec[field] = value;
        spec
    };
    let all = json!([{"indexPatterns": ["*"], "allowedActions": ["read"]}]);
    let acl = r#"{"terms": {"x": {"index": "another-acl", "id": "1", "path": "ids"}}}"#;
    let elsewhere = json!([{"indexPatterns": [own], "allowedActions": ["read"], "dls": acl}]);
    let cases = [
        (
            "pattern",
            with("indexPermissions", all),
            "spec.indexPermissions[0].indexPatterns[0]",
        ),
        (
            "lookup",
            with("indexPermissions", elsewhere),
            "spec.indexPermissions[0].dls",
        ),
        (
            "cluster",
            with("clusterPermissions", json!(["cluster_all"])),
            "spec.clusterPermissions[0]",
        ),
        (
            "name",
            with("name", json!("another.role")),
            "definitions.names",
        ),
        ("protected", with("name", json!("all_access")), "protected"),
        (
            "tenant",
            with(
                "tenantPermissions",
                json!([{"tenantPatterns": ["*"],
            "allowedActions": ["kibana_all_read"]}]),
            ),
            "definitions.tenants",
        ),
    ];
    for (name, spec, word) in &cases {
        stage.defines("DomainRole", name, spec).await;
        let told = stage
            .until_told("DomainRole", name, "False", "OverCeiling")
            .await;
        assert!(told.contains(word), "{name}: {told}");
        assert_eq!(
            stage.has("roles", &format!("defined-ceiling.{name}")).await,
            Value::Null
        );
    }
    assert_eq!(stage.has("roles", "another.role").await, Value::Null);

    // Consent that is withdrawn takes what stands with it.
    stage.defines("DomainRole", "good", &reader(own)).await;
    stage
        .until_told("DomainRole", "good", "True", "Reconciled")
        .await;
    let entry = stage
        .scene
        .consent(&json!({"access": "ReadWrite", "paths": ["less"]}));
    stage
        .scene
        .change_domain(&json!({"spec": {"consent": [entry]}}))
        .await;
    stage
        .until_told("DomainRole", "good", "False", "OverCeiling")
        .await;
    assert_eq!(
        stage.has("roles", "defined-ceiling.good").await,
        Value::Null
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exists_is_adopted_if_it_is_the_same_or_the_team_says_so() {
    let stage = Stage::shared("defined-adopt").await;
    let entry = stage
        .scene
        .consent(&json!({"definitions": {"names": ["adopted-*"]}}));
    stage
        .scene
        .change_domain(&json!({"spec": {"consent": [entry]}}))
        .await;
    let body = json!({"cluster_permissions": ["cluster_composite_ops_ro"],
        "index_permissions": [{"index_patterns": ["x-*"], "allowed_actions": ["read"]}]});
    for name in ["adopted-same", "adopted-other", "adopted-kept"] {
        stage.others_put("roles", name, &body).await;
    }
    let named = |name: &str, pattern: &str| {
        let mut spec = reader(pattern);
        spec["name"] = json!(name);
        spec
    };
    stage
        .defines("DomainRole", "same", &named("adopted-same", "x-*"))
        .await;
    stage
        .until_told("DomainRole", "same", "True", "Reconciled")
        .await;

    stage
        .defines("DomainRole", "other", &named("adopted-other", "y-*"))
        .await;
    let told = stage
        .until_told("DomainRole", "other", "False", "Conflicted")
        .await;
    assert!(told.contains("adoption: Replace"), "{told}");
    let pattern = async |name: &str| {
        stage.has("roles", name).await["index_permissions"][0]["index_patterns"][0].clone()
    };
    assert_eq!(pattern("adopted-other").await, "x-*");
    stage
        .change("DomainRole", "other", &json!({"adoption": "Replace"}))
        .await;
    stage
        .until_told("DomainRole", "other", "True", "Reconciled")
        .await;
    assert_eq!(pattern("adopted-other").await, "y-*");

    // The younger of two objects of one name is told which is older.
    stage
        .defines("DomainRole", "third", &named("adopted-same", "x-*"))
        .await;
    let told = stage
        .until_told("DomainRole", "third", "False", "Conflicted")
        .await;
    assert!(told.contains("defined-adopt/same"), "{told}");

    let mut kept = named("adopted-kept", "x-*");
    kept["deletionPolicy"] = json!("Retain");
    stage.defines("DomainRole", "kept", &kept).await;
    stage
        .until_told("DomainRole", "kept", "True", "Reconciled")
        .await;
    for name in ["kept", "other"] {
        stage.undefine("DomainRole", name).await;
        stage.until_undefined("DomainRole", name).await;
    }
    assert_eq!(pattern("adopted-kept").await, "x-*");
    assert_eq!(stage.has("roles", "adopted-other").await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_down_loses_no_definition_and_holds_up_none_for_good() {
    let stage = Stage::shared("defined-down").await;
    let down = Trouble::Answer(StatusCode::SERVICE_UNAVAILABLE, json!({}));
    let fail = |method: Method| stage.gateway.troubles().next(100_000, method, API, &down);
    fail(Method::PUT);
    stage.defines("DomainRole", "r", &reader("x-*")).await;
    let told = stage
        .until_told("DomainRole", "r", "False", "Throttled")
        .await;
    assert!(told.contains("503"), "{told}");
    // However much waits for it, nobody's revocation does.
    let gone = stage.scene.role("gone");
    stage.scene.grant_to("gone", &gone).await;
    stage.scene.until_ready(&["gone"]).await;
    for number in 0..20 {
        let name = format!("t{number}");
        stage.defines("DomainTenant", &name, &json!({})).await;
    }
    stage.scene.delete_grant("gone").await;
    stage.scene.until_gone("gone").await;
    stage.scene.until_policy(&[]).await;
    stage.gateway.troubles().clear();
    stage
        .until_told("DomainRole", "r", "True", "Reconciled")
        .await;
    fail(Method::DELETE);
    stage.undefine("DomainRole", "r").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_ne!(stage.has("roles", "defined-down.r").await, Value::Null);
    let there = stage
        .scene
        .world
        .get("DomainRole", Some("defined-down"), "r")
        .await;
    assert_ne!(there, Value::Null, "it goes before what it defines");
    stage.gateway.troubles().clear();
    stage.until_undefined("DomainRole", "r").await;
    assert_eq!(stage.has("roles", "defined-down.r").await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_revokes_takes_its_definitions_with_it() {
    let stage = Stage::shared("defined-revoke").await;
    let revoke = json!({"spec": {"deletionPolicy": "Revoke"}});
    stage.scene.change_domain(&revoke).await;
    stage.defines("DomainRole", "r", &reader("x-*")).await;
    stage
        .until_told("DomainRole", "r", "True", "Reconciled")
        .await;
    stage.scene.delete_domain().await;
    stage.scene.until_domain_is_gone().await;
    assert_eq!(stage.has("roles", "defined-revoke.r").await, Value::Null);
    stage
        .until_told("DomainRole", "r", "False", "DomainNotFound")
        .await;
    stage.undefine("DomainRole", "r").await;
    stage.until_undefined("DomainRole", "r").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_of_elasticsearch_is_spoken_to_by_the_paths_that_it_has() {
    let options = DomainOptions::default().fine_grained();
    let options = options.engine_version("Elasticsearch_7.10");
    let scene = Scene::in_world(World::shared().await, "defined-es", options).await;
    let gateway = Gateway::open(scene.world.aws(), "defined-es", shared_node().await).await;
    let stage = Stage { scene, gateway };
    stage
        .consent(&json!({"securityRoles": ["defined-es.*"]}))
        .await;
    stage.defines("DomainRole", "r", &reader("x-*")).await;
    let arn = stage.scene.role("reader");
    stage.grant("reader", &arn, &["defined-es.r"]).await;
    stage.scene.until_ready(&["reader"]).await;
    // Nobody but the operator has asked so far.
    let passed = stage.gateway.passed();
    let others = passed
        .iter()
        .find(|it| !it.path.starts_with("/_opendistro/_security/api/"));
    assert!(others.is_none() && !passed.is_empty(), "{others:?}");
    assert_eq!(stage.mapped("defined-es.r").await, BTreeSet::from([arn]));
    assert_ne!(stage.has("roles", "defined-es.r").await, Value::Null);
}

/// Why a ceiling bounds what a query looks up: the plugin lets whoever has it learn of an index that
/// none of their roles lets them read.
#[tokio::test(flavor = "multi_thread")]
async fn a_query_looks_up_what_its_caller_may_not_read() {
    let stage = Stage::shared("defined-lookup").await;
    for (path, body) in [
        ("/defined-lookup-acl/_doc/1", json!({"ids": [1]})),
        ("/defined-lookup-own/_doc/1", json!({"x": 1})),
        ("/defined-lookup-own/_doc/2", json!({"x": 2})),
    ] {
        let path = format!("{path}?refresh=true");
        let (status, said) = stage.as_admin(Method::PUT, &path, &body).await;
        assert!(status < 300, "{said}");
    }
    let mut spec = reader("defined-lookup-own");
    spec["indexPermissions"][0]["dls"] =
        json!(r#"{"terms": {"x": {"index": "defined-lookup-acl", "id": "1", "path": "ids"}}}"#);
    stage.defines("DomainRole", "r", &spec).await;
    let arn = stage.scene.role("reader");
    stage.grant("reader", &arn, &["defined-lookup.r"]).await;
    stage.scene.until_ready(&["reader"]).await;
    let name = stage.scene.role_name("reader");
    let keys = stage.scene.world.aws().session(ACCOUNT, &name, "s");
    let search = async |index: &str| {
        let path = format!("/{index}/_search");
        let (gateway, nothing) = (&stage.gateway, Value::Null);
        ask(gateway, Some(&keys), REGION, Method::GET, &path, &nothing).await
    };
    assert_eq!(search("defined-lookup-acl").await.0, 403);
    let (status, said) = search("defined-lookup-own").await;
    assert_eq!(status, 200, "{said}");
    assert_eq!(said["hits"]["total"]["value"], 1, "{said}");
    assert_eq!(said["hits"]["hits"][0]["_source"]["x"], 1, "{said}");
}
