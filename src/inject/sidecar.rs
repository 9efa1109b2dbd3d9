//! The container that signs.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction,
    ObjectFieldSelector, Pod, PodSpec, Probe, ResourceRequirements, SeccompProfile,
    SecurityContext, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::decide::Placed;
use super::options::Options;
use crate::api::domain::LogLevel;

/// The container's name.
pub const NAME: &str = "opensearch-access-proxy";

/// Where the image has the proxy's own program, which is smaller in memory than the whole.
const PROGRAM: &str = "/usr/bin/opensearch-access-proxy";

/// The port of health and metrics, or the next one that the pod leaves free.
pub const UTILITY_PORT: u16 = 9390;

/// Whom the proxy runs as where the pod does not say: nobody, as distroless images call it.
const USER: i64 = 65_532;

/// The memory that the proxy needs beside bodies...
const OWN_MEMORY: u64 = 40 << 20;

/// ...what it may take by default, and the largest body that the service takes.
const MEMORY: u64 = 192 << 20;
const LARGEST_BODY: u64 = 100 << 20;

/// The variables in which EKS tells a container who it is, IRSA's and Pod Identity's.
const IDENTITY: [&str; 7] = [
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_STS_REGIONAL_ENDPOINTS",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
];

/// Those of them that name a file, which has to be mounted.
const TOKENS: [&str; 2] = [
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
];

/// What the admin says of every sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The image, by digest.
    pub image: String,
    /// Further variables, such as for an AWS endpoint in a private network.
    pub environment: BTreeMap<String, String>,
    /// Further arguments of the proxy.
    pub arguments: Vec<String>,
}

/// Makes the container.
#[must_use]
pub fn container(
    pod: &Pod,
    options: &Options,
    placed: &[Placed],
    utility: u16,
    settings: &Settings,
) -> Container {
    let spec = pod.spec.as_ref();
    let of_pod = spec.and_then(|it| it.resources.as_ref());
    let resources = resources(placed, of_pod.is_some());
    let (environment, mounts) = identity(spec);
    let mut environment: Vec<EnvVar> = environment;
    // What the admin says holds; taken over from the sidecar itself it would be there twice.
    environment.retain(|it| !settings.environment.contains_key(&it.name));
    let told = |name: &str, value: &str| EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..EnvVar::default()
    };
    environment.extend(
        settings
            .environment
            .iter()
            .map(|(name, value)| told(name, value)),
    );
    let field = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    environment.push(field("PROXY_POD_IP", "status.podIP"));
    environment.push(field("PROXY_HOST_IP", "status.hostIP"));
    let is_native = options.is_native;
    let limit = |it: &ResourceRequirements| bytes(&it.limits.as_ref()?.get("memory")?.0);
    let memory = limit(&resources).unwrap_or(MEMORY);
    let memory = of_pod.and_then(limit).map_or(memory, |it| it.min(memory));
    Container {
        name: NAME.to_owned(),
        image: Some(settings.image.clone()),
        command: Some(vec![PROGRAM.to_owned()]),
        args: Some(arguments(options, placed, utility, memory, settings)),
        env: Some(environment),
        ports: Some(vec![ContainerPort {
            name: Some("os-proxy-admin".to_owned()),
            container_port: i32::from(utility),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: (resources != ResourceRequirements::default()).then_some(resources),
        restart_policy: is_native.then(|| "Always".to_owned()),
        security_context: Some(security_context(spec)),
        // The pod's own containers start once the proxy has asked for credentials.
        startup_probe: Some(Probe {
            http_get: Some(HTTPGetAction {
                path: Some("/started".to_owned()),
                port: IntOrString::Int(i32::from(utility)),
                ..HTTPGetAction::default()
            }),
            period_seconds: Some(1),
            failure_threshold: Some(60),
            ..Probe::default()
        }),
        volume_mounts: (!mounts.is_empty()).then_some(mounts),
        ..Container::default()
    }
}

fn arguments(
    options: &Options,
    placed: &[Placed],
    utility: u16,
    memory: u64,
    settings: &Settings,
) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut say = |name: &str, value: String| arguments.push(format!("--{name}={value}"));
    for it in placed {
        say("forward-to", format!("https://{}", it.endpoint));
    }
    for it in placed {
        say("listen-on", format!("127.0.0.1:{}", it.port));
    }
    // Regions that differ are read out of the endpoints' names.
    let mut regions: Vec<&str> = placed.iter().map(|it| it.region.as_str()).collect();
    regions.dedup();
    if let [region] = regions.as_slice() {
        say("region", (*region).to_owned());
    }
    say("service", "es".to_owned());
    // Kubelets ask the pod's address, of either family; nothing is signed there.
    say("utility-port", format!("[::]:{utility}"));
    let budget = memory.saturating_sub(OWN_MEMORY).max(4 << 20);
    say("body-budget", budget.to_string());
    say("body-limit", LARGEST_BODY.min(budget / 4 * 3).to_string());
    let level = options.log_level;
    let level = level.or_else(|| placed.iter().find_map(|it| it.settings.log_level));
    let (filter, is_logged) = match level.unwrap_or(LogLevel::Info) {
        LogLevel::Error => ("error", false),
        LogLevel::Warn => ("warn", false),
        LogLevel::Info => ("info", true),
        LogLevel::Debug => ("info,opensearch_access=debug", true),
    };
    say("log", filter.to_owned());
    say("log-format", "json".to_owned());
    if is_logged {
        arguments.push("--access-log".to_owned());
    }
    let only_reads = placed.iter().any(|it| it.settings.read_only == Some(true));
    if options.read_only || only_reads {
        arguments.push("--read-only".to_owned());
    }
    arguments.extend(settings.arguments.iter().cloned());
    arguments
}

/// The domains' requests and limits where one says any: the first that does. Quotas ask for all four.
/// Where the pod says them for all of its containers together, the sidecar shares in those.
fn resources(placed: &[Placed], of_pod: bool) -> ResourceRequirements {
    if of_pod {
        return ResourceRequirements::default();
    }
    let quantity = |text: &str| Quantity(text.to_owned());
    let own = placed.iter().find_map(|it| it.settings.resources.clone());
    let mut resources = own.unwrap_or_default();
    let requests = resources.requests.get_or_insert_default();
    let limits = resources.limits.get_or_insert_default();
    for (name, request, limit) in [("cpu", "10m", "1"), ("memory", "32Mi", "192Mi")] {
        let (least, most) = (requests.get(name).cloned(), limits.get(name).cloned());
        // No request is above its limit, whichever of the two the admin says.
        let beside = |said: Option<&Quantity>, usual: &str, takes: fn(f64, f64) -> bool| match said
        {
            Some(said)
                if amount(&said.0)
                    .zip(amount(usual))
                    .is_some_and(|(a, b)| takes(a, b)) =>
            {
                said.clone()
            }
            _ => quantity(usual),
        };
        let request = beside(most.as_ref(), request, |limit, usual| limit < usual);
        let limit = beside(least.as_ref(), limit, |request, usual| request > usual);
        requests.entry(name.to_owned()).or_insert(request);
        limits.entry(name.to_owned()).or_insert(limit);
    }
    resources
}

/// Reads a quantity of memory in bytes.
fn bytes(quantity: &str) -> Option<u64> {
    let amount = amount(quantity).filter(|it| (0.0..1e15).contains(it))?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is in range, and no byte is halved"
    )]
    Some(amount as u64)
}

/// Reads a quantity as Kubernetes spells them: a decimal number with a suffix or an exponent.
fn amount(quantity: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let suffixed = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((quantity.strip_suffix(suffix)?, *factor)));
    let (number, factor) = suffixed.unwrap_or((quantity, 1.0));
    let number: f64 = number.parse().ok()?;
    Some(number * factor)
}

/// What `restricted` asks for; who it runs as only where the pod does not say: then a token that only
/// the pod's one user can read is read by the proxy, too.
fn security_context(spec: Option<&PodSpec>) -> SecurityContext {
    let of_pod = spec.and_then(|it| it.security_context.as_ref());
    let user = of_pod.and_then(|it| it.run_as_user);
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        run_as_user: user.is_none_or(|it| it == 0).then_some(USER),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..SecurityContext::default()
    }
}

/// Takes over what a container of the pod was told of the pod's identity, from the first that was: the
/// webhook that tells them may have come before this one.
fn identity(spec: Option<&PodSpec>) -> (Vec<EnvVar>, Vec<VolumeMount>) {
    let Some(spec) = spec else {
        return Default::default();
    };
    let init = spec.init_containers.iter().flatten();
    let all = || spec.containers.iter().chain(init.clone());
    let others = all().filter(|it| it.name != NAME);
    // The sidecar itself, where it alone is to know (`skip-containers`).
    let mut others = others.chain(all().filter(|it| it.name == NAME));
    let is_told = |it: &&Container| {
        let mut names = it.env.iter().flatten().map(|it| it.name.as_str());
        names.any(|it| it == "AWS_ROLE_ARN" || it == "AWS_CONTAINER_CREDENTIALS_FULL_URI")
    };
    let Some(told) = others.find(is_told) else {
        return Default::default();
    };
    // Of two of one name the last is the container's.
    let all = told.env.iter().flatten();
    let all = all.filter(|it| IDENTITY.contains(&it.name.as_str()));
    let environment: BTreeMap<&str, &EnvVar> = all.map(|it| (it.name.as_str(), it)).collect();
    let files = TOKENS.iter().filter_map(|it| environment.get(it));
    let files: Vec<&str> = files.filter_map(|it| it.value.as_deref()).collect();
    let is_below = |mount: &VolumeMount| {
        let folder = mount.mount_path.trim_end_matches('/');
        let mut files = files.iter();
        files.any(|it| {
            it.strip_prefix(folder)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    let has_volume = |name: &str| spec.volumes.iter().flatten().any(|it| it.name == name);
    let mounts = told.volume_mounts.iter().flatten();
    let mut mounts: Vec<VolumeMount> = mounts
        .filter(|it| is_below(it) && has_volume(&it.name))
        .cloned()
        .collect();
    mounts.sort_by(|a, b| a.mount_path.cmp(&b.mount_path));
    (environment.into_values().cloned().collect(), mounts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::domain::SigningProxy;

    #[test]
    fn quantities_are_read() {
        for (text, bytes_) in [
            ("64Mi", Some(64 << 20)),
            ("0.5Gi", Some(512 << 20)),
            ("1e6", Some(1_000_000)),
            ("100M", Some(100_000_000)),
            ("134217728", Some(128 << 20)),
            ("128000000000m", Some(128_000_000)),
            ("x", None),
            ("-1", None),
        ] {
            assert_eq!(bytes(text), bytes_, "{text}");
        }
        assert_eq!(amount("250m"), Some(0.25));
    }

    #[test]
    fn no_request_is_above_its_limit() {
        let list = |name: &str, value: &str| {
            let value = Quantity(value.to_owned());
            Some(BTreeMap::from([(name.to_owned(), value)]))
        };
        let filled = |requests, limits| {
            let own = ResourceRequirements {
                requests,
                limits,
                ..ResourceRequirements::default()
            };
            let placed = Placed {
                name: "logs".to_owned(),
                endpoint: "x".to_owned(),
                region: "eu-west-1".to_owned(),
                port: 9200,
                settings: SigningProxy {
                    resources: Some(own),
                    ..SigningProxy::default()
                },
            };
            let made = resources(&[placed], false);
            let of = |list: Option<BTreeMap<String, Quantity>>| {
                let list = list.unwrap_or_default();
                ["cpu", "memory"].map(|it| list[it].0.clone())
            };
            (of(made.requests), of(made.limits))
        };
        let told = |requests: [&str; 2], limits: [&str; 2]| {
            (requests.map(str::to_owned), limits.map(str::to_owned))
        };
        let usual = told(["10m", "32Mi"], ["1", "192Mi"]);
        assert_eq!(filled(None, None), usual);
        assert_eq!(
            filled(list("memory", "256Mi"), None),
            told(["10m", "256Mi"], ["1", "256Mi"])
        );
        assert_eq!(
            filled(None, list("memory", "16Mi")),
            told(["10m", "16Mi"], ["1", "16Mi"])
        );
        assert_eq!(
            filled(list("cpu", "2"), None),
            told(["2", "32Mi"], ["2", "192Mi"])
        );
    }
}
