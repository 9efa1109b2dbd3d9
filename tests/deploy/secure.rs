//! Every object that an installation makes asks for no more than it needs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::render::{ALL, IMAGE, NAMESPACE, documents, helm, kustomize, project, text};

#[path = "../common/operator/rights.rs"]
mod rights;

/// Returns what each way of installing makes.
fn installations() -> Vec<(&'static str, Vec<Value>)> {
    let overlay = kustomize(&project("deploy/kustomize/overlays/example"));
    vec![
        ("the chart", documents(&helm(IMAGE, NAMESPACE).unwrap())),
        (
            "the chart with everything",
            documents(&helm(ALL, NAMESPACE).unwrap()),
        ),
        ("the overlay", documents(&overlay)),
    ]
}

fn of_kind<'a>(objects: &'a [Value], kinds: &[&str]) -> Vec<&'a Value> {
    let is_one = |it: &&Value| kinds.contains(&text(it, "/kind"));
    objects.iter().filter(is_one).collect()
}

fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = of_kind(objects, &[kind]).into_iter();
    let mut found = found.filter(|it| text(it, "/metadata/name") == name);
    found.next().unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn strings(value: &Value) -> Vec<&str> {
    let list = value.as_array().into_iter().flatten();
    list.map(|it| it.as_str().unwrap()).collect()
}

#[test]
fn no_right_is_wide() {
    for (way, objects) in installations() {
        let roles = of_kind(&objects, &["Role", "ClusterRole"]);
        assert!(roles.len() >= 5, "{way}");
        for (role, rule) in roles.iter().flat_map(|role| {
            role["rules"]
                .as_array()
                .unwrap()
                .iter()
                .map(move |it| (role, it))
        }) {
            let where_ = format!("{way}, {}: {rule}", text(role, "/metadata/name"));
            let (groups, resources, verbs) = (
                strings(&rule["apiGroups"]),
                strings(&rule["resources"]),
                strings(&rule["verbs"]),
            );
            for word in groups.iter().chain(&resources).chain(&verbs) {
                assert!(!word.contains('*'), "{where_}");
                assert!(
                    ![
                        "escalate",
                        "bind",
                        "impersonate",
                        "nodes",
                        "serviceaccounts/token"
                    ]
                    .contains(word),
                    "{where_}"
                );
                assert!(!word.starts_with("pods"), "{where_}");
            }
            let is_named = rule["resourceNames"]
                .as_array()
                .is_some_and(|it| !it.is_empty());
            if groups.contains(&"admissionregistration.k8s.io") || resources.contains(&"secrets") {
                assert!(is_named, "{where_}");
                assert!(
                    !verbs.contains(&"list") && !verbs.contains(&"watch"),
                    "{where_}"
                );
                assert!(
                    !verbs.contains(&"create") && !verbs.contains(&"delete"),
                    "{where_}"
                );
            }
            if resources.contains(&"secrets") {
                assert_eq!(role["kind"], "Role", "{where_}");
            }
            assert!(rule["nonResourceURLs"].is_null(), "{where_}");
        }
    }
}

#[test]
fn each_identity_has_its_own_rights_and_nobody_else_any() {
    for (way, objects) in installations() {
        for binding in of_kind(&objects, &["RoleBinding", "ClusterRoleBinding"]) {
            let name = text(binding, "/metadata/name");
            let subjects = binding["subjects"].as_array().unwrap();
            assert_eq!(subjects.len(), 1, "{way}, {name}");
            assert_eq!(subjects[0]["kind"], "ServiceAccount");
            // One name for the identity, its role and what binds them.
            assert_eq!(subjects[0]["name"], name, "{way}");
            assert_eq!(binding["roleRef"]["name"], name, "{way}");
            let namespace = text(
                named(&objects, "ServiceAccount", name),
                "/metadata/namespace",
            );
            assert_eq!(subjects[0]["namespace"], namespace, "{way}");
        }
        let annotated = |name: &str| {
            let account = named(&objects, "ServiceAccount", name);
            account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].is_string()
        };
        assert!(!annotated("opensearch-access-webhook"), "{way}");
        assert_eq!(
            annotated("opensearch-access-controller"),
            way != "the chart",
            "{way}"
        );
    }
}

/// All other tests of the controller run under exactly these, and fail where one is missing.
#[test]
fn the_controller_has_the_rights_that_its_tests_run_under() {
    let tested = documents(rights::MANIFESTS);
    for (way, objects) in installations() {
        for kind in ["ClusterRole", "Role"] {
            let tested = named(&tested, kind, "opensearch-access");
            let installed = named(&objects, kind, "opensearch-access-controller");
            assert_eq!(tested["rules"], installed["rules"], "{way}");
        }
    }
}

#[test]
fn pods_run_restricted_bounded_and_by_digest() {
    for (way, objects) in installations() {
        let deployments = of_kind(&objects, &["Deployment"]);
        assert_eq!(deployments.len(), 2, "{way}");
        for deployment in deployments {
            let where_ = format!("{way}, {}", text(deployment, "/metadata/name"));
            let pod = &deployment["spec"]["template"]["spec"];
            let context = &pod["securityContext"];
            assert_eq!(context["runAsNonRoot"], true, "{where_}");
            assert_eq!(context["runAsUser"], 65532, "{where_}");
            assert_eq!(
                context["seccompProfile"]["type"], "RuntimeDefault",
                "{where_}"
            );
            for forbidden in ["hostNetwork", "hostPID", "hostIPC", "initContainers"] {
                assert!(pod[forbidden].is_null(), "{where_}: {forbidden}");
            }
            for volume in pod["volumes"].as_array().into_iter().flatten() {
                assert!(volume["hostPath"].is_null(), "{where_}");
            }
            let containers = pod["containers"].as_array().unwrap();
            assert_eq!(containers.len(), 1, "{where_}");
            let container = &containers[0];
            let expected = json!({
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": true,
            });
            assert_eq!(container["securityContext"], expected, "{where_}");
            for side in ["requests", "limits"] {
                for resource in ["cpu", "memory"] {
                    let value = &container["resources"][side][resource];
                    assert!(value.is_string(), "{where_}: {side} {resource}");
                }
            }
            for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
                assert_eq!(container[probe]["httpGet"]["path"], path, "{where_}");
                assert_eq!(container[probe]["httpGet"]["port"], "admin", "{where_}");
            }
            let mut images = vec![text(container, "/image")];
            let variables = container["env"].as_array().unwrap();
            let images_told = variables.iter().filter(|it| it["name"] == "PROXY_IMAGE");
            images.extend(images_told.map(|it| text(it, "/value")));
            for image in images {
                let digest = image.split_once("@sha256:").map(|(_, digest)| digest.len());
                assert_eq!(digest, Some(64), "{where_}: {image}");
            }
            let mut names = BTreeSet::new();
            for variable in variables {
                assert!(
                    names.insert(text(variable, "/name")),
                    "{where_}: {variable} twice"
                );
            }
        }
        assert!(!json!(objects).to_string().contains(":latest"), "{way}");
    }
}

#[test]
fn every_deployment_survives_a_drain_and_is_reached_by_whom_it_should() {
    for (way, objects) in installations() {
        for name in ["controller", "webhook"] {
            let full = format!("opensearch-access-{name}");
            let where_ = format!("{way}, {name}");
            let deployment = named(&objects, "Deployment", &full);
            let labels = &deployment["spec"]["template"]["metadata"]["labels"];
            let selector = &deployment["spec"]["selector"]["matchLabels"];
            assert_eq!(selector, labels, "{where_}");
            assert_eq!(deployment["spec"]["replicas"], 2, "{where_}");
            let budget = named(&objects, "PodDisruptionBudget", &full);
            assert_eq!(
                &budget["spec"]["selector"]["matchLabels"], labels,
                "{where_}"
            );
            assert_eq!(budget["spec"]["maxUnavailable"], 1, "{where_}");
            let pod = &deployment["spec"]["template"]["spec"];
            let spread = pod["topologySpreadConstraints"].as_array().unwrap();
            assert!(
                spread
                    .iter()
                    .all(|it| &it["labelSelector"]["matchLabels"] == labels),
                "{where_}"
            );

            let policy = &named(&objects, "NetworkPolicy", &full)["spec"];
            assert_eq!(&policy["podSelector"]["matchLabels"], labels, "{where_}");
            assert_eq!(
                strings(&policy["policyTypes"]),
                ["Ingress", "Egress"],
                "{where_}"
            );
            let ports = |rules: &Value| {
                let rules = rules.as_array().unwrap().iter();
                let ports = rules.flat_map(|it| it["ports"].as_array().unwrap());
                ports
                    .map(|it| it["port"].as_i64().unwrap())
                    .collect::<BTreeSet<_>>()
            };
            let open = ports(&policy["ingress"]);
            let listens = pod["containers"][0]["ports"].as_array().unwrap().iter();
            let listens = listens.map(|it| it["containerPort"].as_i64().unwrap());
            assert_eq!(open, listens.collect(), "{where_}");
            let out = ports(&policy["egress"]);
            assert!(
                out.is_superset(&BTreeSet::from([53, 443, 6443])),
                "{where_}"
            );
            // The injector speaks to nobody but the API server.
            assert!(name == "controller" || out.len() == 3, "{where_}");
        }
    }
}

#[test]
fn services_lead_to_ports_that_there_are() {
    for (way, objects) in installations() {
        let deployments = of_kind(&objects, &["Deployment"]);
        let selected = |service: &str| {
            let service = &named(&objects, "Service", service)["spec"];
            let selector = service["selector"].as_object().unwrap();
            let mut pods = BTreeMap::new();
            for deployment in &deployments {
                let template = &deployment["spec"]["template"];
                let labels = template["metadata"]["labels"].as_object().unwrap();
                if selector
                    .iter()
                    .all(|(key, value)| labels.get(key) == Some(value))
                {
                    let ports = template["spec"]["containers"][0]["ports"]
                        .as_array()
                        .unwrap();
                    let target = &service["ports"][0]["targetPort"];
                    let found = ports.iter().find(|it| &it["name"] == target).unwrap();
                    pods.insert(
                        text(deployment, "/metadata/name"),
                        found["containerPort"].as_i64().unwrap(),
                    );
                }
            }
            pods
        };
        let (controller, webhook) = ("opensearch-access-controller", "opensearch-access-webhook");
        assert_eq!(
            selected(webhook),
            BTreeMap::from([(webhook, 8443)]),
            "{way}"
        );
        let both = BTreeMap::from([(controller, 8080), (webhook, 8080)]);
        assert_eq!(selected("opensearch-access-metrics"), both, "{way}");
    }
}

#[test]
fn the_api_server_asks_the_webhook_about_as_little_as_there_is() {
    for (way, objects) in installations() {
        let namespace = text(
            named(&objects, "ServiceAccount", "opensearch-access-webhook"),
            "/metadata/namespace",
        );
        let of = |kind: &str| {
            let hooks = &named(&objects, kind, "opensearch-access")["webhooks"];
            assert_eq!(hooks.as_array().unwrap().len(), 1, "{way}");
            let hook = &hooks[0];
            assert!(hook["clientConfig"]["caBundle"].is_null(), "{way}");
            let service = &hook["clientConfig"]["service"];
            assert_eq!(service["name"], "opensearch-access-webhook", "{way}");
            assert_eq!(service["namespace"], namespace, "{way}");
            assert_eq!(hook["sideEffects"], "None", "{way}");
            assert!(hook["timeoutSeconds"].as_i64().unwrap() <= 5, "{way}");
            hook
        };
        let pods = of("MutatingWebhookConfiguration");
        let excluded = &pods["namespaceSelector"]["matchExpressions"][0];
        assert_eq!(excluded["key"], "kubernetes.io/metadata.name");
        assert_eq!(excluded["operator"], "NotIn");
        let names = ["kube-system", "kube-node-lease", "kube-public", namespace];
        assert_eq!(strings(&excluded["values"]), names, "{way}");
        assert_eq!(pods["rules"][0]["operations"], json!(["CREATE"]));
        assert_eq!(pods["rules"][0]["resources"], json!(["pods"]));
        assert!(!pods["matchConditions"].as_array().unwrap().is_empty());
        assert_eq!(pods["failurePolicy"], "Fail");
        assert_eq!(pods["reinvocationPolicy"], "IfNeeded");
        let ours = of("ValidatingWebhookConfiguration");
        // Consent is the reconciler's: a webhook that is down must hold up no revocation.
        assert_eq!(ours["failurePolicy"], "Ignore");
        assert_eq!(
            ours["rules"][0]["apiGroups"],
            json!(["opensearch-access.io"])
        );

        for secret in of_kind(&objects, &["Secret"]) {
            assert!(
                secret["data"].is_null() && secret["stringData"].is_null(),
                "{way}"
            );
        }
    }
}
