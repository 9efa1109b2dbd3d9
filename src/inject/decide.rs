//! Which pods get a sidecar, which are left alone, and which are refused.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, NodeSelectorTerm, Pod, PodSpec};

use super::options::{self, Options};
use super::sidecar::{self, Settings, UTILITY_PORT};
use crate::api::domain::SigningProxy;
use crate::policy::fine_grained::nearest::{self, suggestion};

/// Where the first domain's port is by default, and those of further domains after it.
const PORT: u16 = 9200;

/// A domain that pods can use.
#[derive(Debug, Clone, PartialEq)]
pub struct Domain {
    /// Its endpoint, without a scheme; none until AWS has named one.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: String,
    /// What its admin says of proxies.
    pub settings: SigningProxy,
}

/// A domain of a pod, and the port for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// The name of the object.
    pub name: String,
    /// The endpoint.
    pub endpoint: String,
    /// The region.
    pub region: String,
    /// The port on the pod's loopback address.
    pub port: u16,
    /// What its admin says of proxies.
    pub settings: SigningProxy,
}

/// Why a pod is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Skip {
    /// It does not ask.
    #[error("the pod does not ask for a proxy")]
    NotAsked,
    /// A kubelet made it, and takes no changes.
    #[error("a mirror of a static pod cannot be changed: no signing proxy was added")]
    Mirror,
    /// There is no proxy for Windows.
    #[error("there is no signing proxy for Windows: none was added")]
    Windows,
}

impl Skip {
    /// Names the reason, for metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::Mirror => "mirror_pod",
            Self::Windows => "windows",
        }
    }
}

/// Why a pod is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Its annotations cannot be followed.
    #[error(transparent)]
    Options(#[from] options::Invalid),
    /// All pods on the node, and the node itself, could use the proxy.
    #[error(
        "a pod on its node's network (hostNetwork) would share its signing proxy with the whole node: set hostNetwork to false, or leave {} out",
        options::INJECT
    )]
    HostNetwork,
    /// A domain is not there.
    #[error("{}: there is no OpenSearchDomain {name:?}{nearest}", options::INJECT)]
    NoDomain {
        /// The name.
        name: String,
        /// What may have been meant, in words.
        nearest: String,
    },
    /// A domain has no endpoint.
    #[error(
        "OpenSearchDomain {0:?} has no endpoint yet: look at its status, and create the pod once it has one"
    )]
    NoEndpoint(String),
    /// A container uses a port that the proxy needs.
    #[error(
        "the signing proxy of {domain:?} listens on port {port}, which container {container:?} uses: give it another with {}: {domain}=PORT",
        options::PORTS
    )]
    PortTaken {
        /// The domain.
        domain: String,
        /// The port.
        port: u16,
        /// The container.
        container: String,
    },
    /// Its only container has the sidecar's name.
    #[error(
        "the name {} is the signing proxy's own: give the pod's container another",
        sidecar::NAME
    )]
    NoContainer,
    /// Two domains would have one variable.
    #[error(
        "the names of domains {0:?} and {1:?} make one variable, OPENSEARCH_URL_...: leave out {annotation}, or one of them",
        annotation = options::ENVIRONMENT
    )]
    Variable(String, String),
    /// There is no port left.
    #[error("the pod leaves no port for the signing proxy")]
    NoPort,
    /// Regions differ, and one cannot be read out of an endpoint's name.
    #[error(
        "the domains are in different regions, and that of {0:?} cannot be read out of its endpoint's name: use it in a pod of its own"
    )]
    Region(String),
}

/// What becomes of a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// It is left alone.
    Skip(Skip),
    /// It gets a sidecar.
    Inject(Box<Injection>),
}

/// What a pod gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Injection {
    /// The sidecar.
    pub container: Container,
    /// Whether it is a native one.
    pub is_native: bool,
    /// The variables that say where to connect, where the pod asks for them.
    pub environment: BTreeMap<String, String>,
    /// The domains and their ports.
    pub placed: Vec<Placed>,
}

/// Decides about a pod.
///
/// # Errors
///
/// Refuses a pod that asks for what it cannot have.
pub fn decide(
    pod: &Pod,
    domains: &BTreeMap<String, Domain>,
    settings: &Settings,
) -> Result<Decision, Denial> {
    let annotations = pod.metadata.annotations.clone().unwrap_or_default();
    let Some(options) = options::read(&annotations)? else {
        return Ok(Decision::Skip(Skip::NotAsked));
    };
    if annotations.contains_key("kubernetes.io/config.mirror") {
        return Ok(Decision::Skip(Skip::Mirror));
    }
    let spec = pod.spec.clone().unwrap_or_default();
    if is_windows(&spec) {
        return Ok(Decision::Skip(Skip::Windows));
    }
    if spec.host_network == Some(true) {
        return Err(Denial::HostNetwork);
    }
    if spec.containers.iter().all(|it| it.name == sidecar::NAME) {
        return Err(Denial::NoContainer);
    }
    let placed = place(&options, domains, &spec)?;
    let used = ports(&spec);
    let is_free = |port: &u16| {
        used.iter().all(|(taken, _)| taken != port) && placed.iter().all(|it| it.port != *port)
    };
    let utility = (UTILITY_PORT..=u16::MAX)
        .find(is_free)
        .ok_or(Denial::NoPort)?;
    let told = told(&options, &placed)?;
    let container = sidecar::container(pod, &options, &placed, utility, settings);
    Ok(Decision::Inject(Box::new(Injection {
        container,
        is_native: options.is_native,
        environment: told,
        placed,
    })))
}

fn is_windows(spec: &PodSpec) -> bool {
    const OS: &str = "kubernetes.io/os";
    let selected = spec.node_selector.iter().flatten();
    let mut selected = selected.filter(|(name, _)| *name == OS);
    let affinity = spec.affinity.as_ref();
    let affinity = affinity.and_then(|it| it.node_affinity.as_ref());
    let required = affinity.and_then(|it| {
        it.required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    let terms = required.map(|it| it.node_selector_terms.as_slice());
    let terms = terms.unwrap_or_default();
    // One of the terms has to hold, and all of a term.
    let needs_windows = |term: &NodeSelectorTerm| {
        let mut needs = term.match_expressions.iter().flatten();
        needs.any(|it| {
            let values = it.values.as_deref().unwrap_or_default();
            it.key == OS && it.operator == "In" && values == ["windows"]
        })
    };
    selected.any(|(_, os)| os == "windows")
        || spec.os.as_ref().is_some_and(|it| it.name == "windows")
        || !terms.is_empty() && terms.iter().all(needs_windows)
}

/// Gives each domain its port: the pod's, or the admin's, or the next one that is free.
fn place(
    options: &Options,
    domains: &BTreeMap<String, Domain>,
    spec: &PodSpec,
) -> Result<Vec<Placed>, Denial> {
    let used = ports(spec);
    let mut taken: Vec<u16> = options
        .domains
        .iter()
        .filter_map(|(_, port)| *port)
        .collect();
    let mut placed: Vec<Placed> = Vec::new();
    for (name, asked) in &options.domains {
        let domain = domains.get(name).ok_or_else(|| Denial::NoDomain {
            name: name.clone(),
            nearest: near(name, domains),
        })?;
        let endpoint = domain.endpoint.clone();
        let endpoint = endpoint.ok_or_else(|| Denial::NoEndpoint(name.clone()))?;
        let usual = domain.settings.port.and_then(|it| u16::try_from(it).ok());
        let usual = usual.unwrap_or(PORT);
        let port = match asked {
            Some(port) => *port,
            None if placed.is_empty() && !taken.contains(&usual) => usual,
            None => {
                let is_free =
                    |port: &u16| !taken.contains(port) && used.iter().all(|(it, _)| it != port);
                (usual..=u16::MAX).find(is_free).ok_or(Denial::NoPort)?
            }
        };
        if let Some((_, container)) = used.iter().find(|(it, _)| *it == port) {
            let (domain, container) = (name.clone(), container.clone());
            return Err(Denial::PortTaken {
                domain,
                port,
                container,
            });
        }
        taken.push(port);
        placed.push(Placed {
            name: name.clone(),
            endpoint,
            region: domain.region.clone(),
            port,
            settings: domain.settings.clone(),
        });
    }
    let differ = placed.windows(2).any(|it| it[0].region != it[1].region);
    let unnamed = placed.iter().find(|it| {
        let mut labels = it.endpoint.split('.');
        !labels.any(|label| label == it.region)
    });
    match unnamed {
        Some(it) if differ => Err(Denial::Region(it.name.clone())),
        _ => Ok(placed),
    }
}

/// The ports that the pod's own containers say they use, and which does.
fn ports(spec: &PodSpec) -> Vec<(u16, String)> {
    let init = spec.init_containers.iter().flatten();
    let own = spec.containers.iter().chain(init);
    let own = own.filter(|it| it.name != sidecar::NAME);
    own.flat_map(|container| {
        let ports = container.ports.iter().flatten();
        let of_tcp = |it: &str| it.is_empty() || it == "TCP";
        let ports = ports.filter(move |it| it.protocol.as_deref().is_none_or(of_tcp));
        ports.filter_map(|it| {
            Some((
                u16::try_from(it.container_port).ok()?,
                container.name.clone(),
            ))
        })
    })
    .collect()
}

fn near(name: &str, domains: &BTreeMap<String, Domain>) -> String {
    suggestion(nearest::nearest(name, domains.keys().map(String::as_str)))
}

/// The variables that say where to connect.
fn told(options: &Options, placed: &[Placed]) -> Result<BTreeMap<String, String>, Denial> {
    if !options.environment {
        return Ok(BTreeMap::new());
    }
    let url = |it: &Placed| format!("http://127.0.0.1:{}", it.port);
    let variable = |it: &Placed| {
        let spelled = it.name.chars().map(|it| match it.to_ascii_uppercase() {
            it if it.is_ascii_alphanumeric() => it,
            _ => '_',
        });
        format!("OPENSEARCH_URL_{}", spelled.collect::<String>())
    };
    for (at, it) in placed.iter().enumerate() {
        let same = placed.iter().take(at);
        if let Some(same) = same
            .into_iter()
            .find(|other| variable(other) == variable(it))
        {
            return Err(Denial::Variable(same.name.clone(), it.name.clone()));
        }
    }
    let named = placed.iter().map(|it| (variable(it), url(it)));
    let first = placed
        .first()
        .map(|it| ("OPENSEARCH_URL".to_owned(), url(it)));
    Ok(named.chain(first).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::inject::patch::patch;

    fn domains() -> BTreeMap<String, Domain> {
        let domain = |endpoint: Option<&str>, region: &str, settings| Domain {
            endpoint: endpoint.map(str::to_owned),
            region: region.to_owned(),
            settings,
        };
        let usual = SigningProxy::default;
        let own = SigningProxy {
            port: Some(9300),
            read_only: Some(true),
            ..usual()
        };
        let logs = Some("vpc-logs.eu-west-1.es.amazonaws.com");
        let far = Some("vpc-far.us-east-1.es.amazonaws.com");
        BTreeMap::from([
            ("logs".to_owned(), domain(logs, "eu-west-1", usual())),
            (
                "search".to_owned(),
                domain(Some("search.example"), "eu-west-1", own),
            ),
            ("far".to_owned(), domain(far, "us-east-1", usual())),
            ("new".to_owned(), domain(None, "eu-west-1", usual())),
        ])
    }

    fn settings() -> Settings {
        Settings {
            image: "registry.example/opensearch-access@sha256:0".to_owned(),
            environment: BTreeMap::new(),
            arguments: Vec::new(),
        }
    }

    fn pod(annotations: &Value, spec: &Value) -> Pod {
        let pod = json!({"metadata": {"name": "p", "annotations": annotations}, "spec": spec});
        serde_json::from_value(pod).unwrap()
    }

    fn asking(annotations: &Value, spec: &Value) -> Result<Decision, Denial> {
        decide(&pod(annotations, spec), &domains(), &settings())
    }

    fn inject(domains: &str) -> Value {
        json!({"opensearch-access.io/inject": domains})
    }

    fn app() -> Value {
        json!({"containers": [{"name": "app", "image": "app"}]})
    }

    /// What becomes of a pod, once its changes are made.
    fn injected(pod: &Pod) -> Pod {
        let Decision::Inject(injection) = decide(pod, &domains(), &settings()).unwrap() else {
            panic!("{pod:?}");
        };
        let mut value = serde_json::to_value(pod).unwrap();
        json_patch::patch(&mut value, &patch(pod, &injection).unwrap()).unwrap();
        serde_json::from_value(value).unwrap()
    }

    fn names(containers: Option<&Vec<Container>>) -> Vec<&str> {
        containers
            .into_iter()
            .flatten()
            .map(|it| it.name.as_str())
            .collect()
    }

    fn sidecar(pod: &Pod) -> Container {
        let spec = pod.spec.as_ref().unwrap();
        let all = spec
            .init_containers
            .iter()
            .flatten()
            .chain(&spec.containers);
        let mut found: Vec<&Container> = all.filter(|it| it.name == sidecar::NAME).collect();
        assert_eq!(found.len(), 1);
        found.remove(0).clone()
    }

    #[test]
    fn who_does_not_ask_or_cannot_be_served_is_left_alone() {
        let windows = json!({"os": {"name": "windows"}, "containers": [{"name": "app"}]});
        let selected = json!({"nodeSelector": {"kubernetes.io/os": "windows"}, "containers": [{"name": "app"}]});
        let mut mirror = inject("logs");
        mirror["kubernetes.io/config.mirror"] = json!("x");
        for (annotations, spec, skip) in [
            (json!({}), app(), Skip::NotAsked),
            (inject("logs"), windows, Skip::Windows),
            (inject("logs"), selected, Skip::Windows),
            (mirror, app(), Skip::Mirror),
        ] {
            assert_eq!(asking(&annotations, &spec), Ok(Decision::Skip(skip)));
        }
    }

    #[test]
    fn who_asks_for_what_cannot_be_is_told_what_to_do() {
        let node = json!({"hostNetwork": true, "containers": [{"name": "app"}]});
        let taken = json!({"containers": [{"name": "db", "ports": [{"containerPort": 9200}]}]});
        for (domains, spec, words) in [
            ("logs", node, "hostNetwork"),
            ("lgos", app(), "did you mean \"logs\"?"),
            ("new", app(), "has no endpoint yet"),
            ("logs", taken, "container \"db\" uses"),
            ("search,far", app(), "different regions"),
        ] {
            let said = asking(&inject(domains), &spec).unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn the_sidecar_is_the_first_and_added_once() {
        let spec =
            json!({"initContainers": [{"name": "migrate"}], "containers": [{"name": "app"}]});
        for spec in [app(), spec] {
            let before = pod(&inject("logs"), &spec);
            let after = injected(&before);
            let own = after.spec.as_ref().unwrap();
            assert_eq!(names(own.init_containers.as_ref())[0], sidecar::NAME);
            assert_eq!(names(Some(&own.containers)), ["app"]);
            assert_eq!(sidecar(&after).restart_policy.as_deref(), Some("Always"));
            // Reviewed once more, it is as it should be.
            assert_eq!(injected(&after), after);
        }
    }

    #[test]
    fn a_container_that_only_has_the_name_becomes_the_sidecar() {
        let evil = json!({"name": sidecar::NAME, "image": "evil", "args": ["proxy"]});
        for spec in [
            json!({"initContainers": [evil], "containers": [{"name": "app"}]}),
            json!({"initContainers": [{"name": "a"}, evil], "containers": [{"name": "app"}]}),
            json!({"containers": [evil, {"name": "app"}]}),
            json!({"initContainers": [evil], "containers": [{"name": "app"}, evil]}),
        ] {
            let after = injected(&pod(&inject("logs"), &spec));
            assert_eq!(sidecar(&after).image, Some(settings().image));
            assert_eq!(injected(&after), after);
        }
    }

    /// Whichever of the two webhooks comes first, and if both come again.
    #[test]
    fn the_pods_identity_is_the_sidecars() {
        let told = json!({"name": "app", "env": [
            {"name": "OTHER", "value": "x"},
            {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"},
            {"name": "AWS_ROLE_ARN", "value": "arn:aws:iam::111122223333:role/x"}],
            "volumeMounts": [
                {"name": "data", "mountPath": "/data"},
                {"name": "aws-iam-token", "mountPath": "/var/run/secrets/eks.amazonaws.com/serviceaccount", "readOnly": true}]});
        let volumes =
            json!([{"name": "data", "emptyDir": {}}, {"name": "aws-iam-token", "projected": {}}]);
        let spec = json!({"containers": [told], "volumes": volumes});
        let after = injected(&pod(&inject("logs"), &spec));
        let own = sidecar(&after);
        let env = own.env.clone().unwrap_or_default();
        let names: Vec<&str> = env.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names[..2], ["AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"]);
        let mounts = own.volume_mounts.unwrap_or_default();
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].name, "aws-iam-token");
        assert_eq!(injected(&after), after);

        // The other way round: the sidecar is told with the rest, behind its own variables.
        let mut later = injected(&pod(&inject("logs"), &app()));
        let spec = later.spec.as_mut().unwrap();
        spec.volumes = serde_json::from_value(volumes).unwrap();
        let told: Container = serde_json::from_value(told).unwrap();
        let variables = told.env.clone().unwrap_or_default().into_iter().skip(1);
        let sidecar = &mut spec.init_containers.as_mut().unwrap()[0];
        sidecar.env.as_mut().unwrap().extend(variables);
        sidecar.volume_mounts = told.volume_mounts.clone().map(|it| it[1..].to_vec());
        spec.containers = vec![told];
        assert_eq!(injected(&later), later);
    }

    #[test]
    fn each_domain_has_a_port_of_its_own_and_the_pod_may_be_told() {
        let mut annotations = inject("logs,search,far");
        annotations["opensearch-access.io/environment"] = json!("true");
        let told = asking(&annotations, &app());
        assert!(matches!(told, Err(Denial::Region(_))), "{told:?}");
        annotations["opensearch-access.io/inject"] = json!("logs,far");
        let after = injected(&pod(&annotations, &app()));
        let args = sidecar(&after).args.unwrap_or_default();
        for wanted in [
            "--forward-to=https://vpc-logs.eu-west-1.es.amazonaws.com",
            "--listen-on=127.0.0.1:9200",
            "--listen-on=127.0.0.1:9201",
            "--utility-port=[::]:9390",
        ] {
            assert!(args.iter().any(|it| it == wanted), "{args:?}");
        }
        let app = &after.spec.as_ref().unwrap().containers[0];
        let env: BTreeMap<&str, &str> = app
            .env
            .iter()
            .flatten()
            .map(|it| (it.name.as_str(), it.value.as_deref().unwrap_or_default()))
            .collect();
        let expected = [
            ("OPENSEARCH_URL", "http://127.0.0.1:9200"),
            ("OPENSEARCH_URL_FAR", "http://127.0.0.1:9201"),
            ("OPENSEARCH_URL_LOGS", "http://127.0.0.1:9200"),
        ];
        assert_eq!(env, BTreeMap::from(expected));
    }

    #[test]
    fn what_the_admin_says_holds() {
        let after = injected(&pod(&inject("search"), &app()));
        let args = sidecar(&after).args.unwrap_or_default();
        assert!(args.contains(&"--read-only".to_owned()), "{args:?}");
        assert!(
            args.contains(&"--listen-on=127.0.0.1:9300".to_owned()),
            "{args:?}"
        );
        assert!(args.contains(&"--region=eu-west-1".to_owned()), "{args:?}");
    }
}
