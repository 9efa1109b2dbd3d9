//! Pods: whatever a team writes, it gets one sidecar, the admin's, and keeps what is its own.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use opensearch_access::api::domain::SigningProxy;
use opensearch_access::inject::decide::{Decision, Domain, Injection, decide};
use opensearch_access::inject::patch::patch;
use opensearch_access::inject::sidecar::{NAME, Settings};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::pool;

const IMAGE: &str = "registry.example/opensearch-access@sha256:0";

fn domains() -> BTreeMap<String, Domain> {
    let domain = |endpoint: Option<&str>, port| Domain {
        endpoint: endpoint.map(str::to_owned),
        region: "eu-west-1".to_owned(),
        settings: SigningProxy {
            port,
            ..SigningProxy::default()
        },
    };
    let logs = domain(Some("vpc-logs.eu-west-1.es.amazonaws.com"), None);
    let search = domain(Some("search.example"), Some(9300));
    let new = domain(None, None);
    [("logs", logs), ("search", search), ("new", new)]
        .map(|(name, domain)| (name.to_owned(), domain))
        .into()
}

fn decided(pod: &Pod) -> Option<Injection> {
    let settings = Settings {
        image: IMAGE.to_owned(),
        environment: BTreeMap::from([("AWS_STS_REGIONAL_ENDPOINTS".to_owned(), "regional".into())]),
        arguments: vec!["--connect-timeout=5".to_owned()],
    };
    match decide(pod, &domains(), &settings) {
        Ok(Decision::Inject(injection)) => Some(*injection),
        Ok(Decision::Skip(_)) => None,
        Err(denial) => {
            assert!(!denial.to_string().is_empty());
            None
        }
    }
}

fn annotations() -> impl Strategy<Value = Value> {
    let name = select(vec![
        "inject",
        "inject",
        "ports",
        "sidecar",
        "environment",
        "read-only",
        "log-level",
        "injected",
        "image",
    ]);
    let value = prop_oneof![
        4 => select(vec![
            "logs", "search", "logs,search", "search, logs", "new", "none", "", ",", "9200", "9201",
            "logs=9201", "logs=9201,search=9202", "logs=0", "logs=65536", "native", "container", "true",
            "false", "debug", "Debug",
        ]).prop_map(str::to_owned),
        1 => ".{0,12}",
    ];
    let mut one = prop::collection::btree_map(name, value, 0..5).boxed();
    // Most ask for what there is.
    one = (one, any::<bool>())
        .prop_map(|(mut all, asks)| {
            if asks {
                all.insert("inject", "logs".to_owned());
            }
            all
        })
        .boxed();
    one.prop_map(|all| {
        let all = all.into_iter();
        all.map(|(name, value)| (format!("opensearch-access.io/{name}"), json!(value)))
            .collect()
    })
}

fn container() -> impl Strategy<Value = Value> {
    let name = select(vec!["app", "other", NAME, "opensearch-access-proxy-2", ""]);
    let variable = (
        select(vec![
            "OPENSEARCH_URL",
            "OPENSEARCH_URL_LOGS",
            "AWS_ROLE_ARN",
            "AWS_REGION",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "PROXY_FORWARD_TO",
            "MINE",
        ]),
        prop_oneof![
            ".{0,8}".prop_map(|it| json!({"value": it})),
            Just(json!({"valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})),
            Just(json!({})),
        ],
    );
    let variable = variable.prop_map(|(name, mut value)| {
        value["name"] = json!(name);
        value
    });
    let mount = (
        select(vec![
            "token",
            "data",
            "aws-iam-token",
            "eks-pod-identity-token",
        ]),
        select(vec![
            "/var/run/secrets/eks.amazonaws.com/serviceaccount",
            "/var/run/secrets/eks.amazonaws.com/serviceaccount/",
            "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount",
            "/data",
        ]),
    );
    let mount = mount.prop_map(|(name, path)| json!({"name": name, "mountPath": path}));
    let port = select(vec![0, 80, 9199, 9200, 9201, 9202, 9300, 65535, 70000]);
    let port = port.prop_map(|it| json!({"containerPort": it}));
    let lists = (
        prop::option::of(prop::collection::vec(variable, 0..4)),
        prop::option::of(prop::collection::vec(mount, 0..3)),
        prop::option::of(prop::collection::vec(port, 0..3)),
        prop::option::of(select(vec!["Always", "Never", ""])),
        prop::option::weighted(0.1, pool::json()),
    );
    (name, lists).prop_map(|(name, (env, mounts, ports, restart, odd))| {
        let mut made = json!({"name": name, "image": "registry.example/app"});
        let fields = [
            ("env", env.map(Value::from)),
            ("volumeMounts", mounts.map(Value::from)),
            ("ports", ports.map(Value::from)),
            ("restartPolicy", restart.map(Value::from)),
            ("securityContext", odd),
        ];
        for (field, value) in fields {
            if let Some(value) = value {
                made[field] = value;
            }
        }
        made
    })
}

/// A manifest of a pod; some are none that the API server would take.
fn manifest() -> impl Strategy<Value = Value> {
    let containers = || prop::collection::vec(container(), 0..4);
    let odd = (
        select(vec![
            "hostNetwork",
            "nodeSelector",
            "os",
            "securityContext",
            "volumes",
            "affinity",
            "serviceAccountName",
            "containers",
            "initContainers",
        ]),
        prop_oneof![
            Just(json!(true)),
            Just(json!({"kubernetes.io/os": "windows"})),
            Just(json!({"name": "windows"})),
            Just(json!({"runAsUser": 0, "fsGroup": 1})),
            Just(json!([{"name": "token", "emptyDir": {}}])),
            pool::json(),
        ],
    );
    (
        prop::option::of(annotations()),
        containers(),
        prop::option::of(containers()),
        prop::option::weighted(0.3, odd),
    )
        .prop_map(|(annotations, containers, init, odd)| {
            let mut made = json!({"metadata": {"name": "p"}, "spec": {"containers": containers}});
            if let Some(annotations) = annotations {
                made["metadata"]["annotations"] = annotations;
            }
            if let Some(init) = init {
                made["spec"]["initContainers"] = json!(init);
            }
            if let Some((field, value)) = odd {
                made["spec"][field] = value;
            }
            made
        })
}

fn containers(pod: &Pod) -> [Vec<Container>; 2] {
    let spec = pod.spec.clone().unwrap_or_default();
    [spec.init_containers.unwrap_or_default(), spec.containers]
}

/// Leaves what is the team's own, without what it asked to be told.
fn own(pod: &Pod, told: &BTreeMap<String, String>) -> [Vec<Container>; 2] {
    containers(pod).map(|mut all| {
        all.retain(|it| it.name != NAME);
        for container in &mut all {
            let mut variables = container.env.take().unwrap_or_default();
            variables.retain(|it| told.get(&it.name) != it.value.as_ref() || it.value.is_none());
            container.env = Some(variables).filter(|it| !it.is_empty());
        }
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_pod_of_any_shape_gets_one_sidecar_and_keeps_its_own(manifest in manifest()) {
        let Ok(pod) = serde_json::from_value::<Pod>(manifest) else {
            return Ok(());
        };
        let Some(injection) = decided(&pod) else {
            return Ok(());
        };
        let mut changed = serde_json::to_value(&pod).unwrap();
        let changes = patch(&pod, &injection).unwrap();
        json_patch::patch(&mut changed, &changes).unwrap();
        let changed: Pod = serde_json::from_value(changed).unwrap();

        let [init, beside] = containers(&changed);
        let named = |all: &[Container]| all.iter().filter(|it| it.name == NAME).count();
        prop_assert_eq!(named(&init) + named(&beside), 1);
        let sidecar = if injection.is_native {
            &init[0]
        } else {
            beside.iter().find(|it| it.name == NAME).unwrap()
        };
        prop_assert_eq!(sidecar, &injection.container);
        prop_assert_eq!(sidecar.image.as_deref(), Some(IMAGE));
        let ports: Vec<u16> = injection.placed.iter().map(|it| it.port).collect();
        prop_assert!(ports.iter().all(|it| ports.iter().filter(|other| it == *other).count() == 1));

        let told = &injection.environment;
        prop_assert_eq!(own(&pod, told), own(&changed, told));
        // Once more, as another webhook may have it: nothing is left to do.
        let again = decided(&changed);
        let again = again.ok_or_else(|| TestCaseError::fail("it is refused now"))?;
        prop_assert_eq!(patch(&changed, &again).unwrap().0, Vec::new());
    }
}
