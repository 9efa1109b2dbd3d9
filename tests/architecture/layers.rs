//! Who may use whom, and what the pure layers may not name.

use std::path::Path;

use super::scan::{code, paths};

/// The layers, each with what it may use; `crate` is the library, as the program sees it.
pub(crate) const LAYERS: [(&str, &[&str]); 15] = [
    ("main", &["cli"]),
    ("bin", &["cli"]),
    (
        "cli",
        &[
            "controller",
            "webhook",
            "inject",
            "proxy",
            "offline",
            "security",
            "aws",
            "kubernetes",
            "runtime",
            "policy",
            "sigv4",
            "api",
        ],
    ),
    (
        "controller",
        &[
            "security",
            "aws",
            "kubernetes",
            "runtime",
            "policy",
            "sigv4",
            "api",
        ],
    ),
    ("webhook", &["inject", "runtime", "policy", "api"]),
    ("proxy", &["aws", "runtime", "policy", "sigv4"]),
    ("offline", &["policy", "api"]),
    ("security", &["aws", "runtime", "policy", "sigv4", "api"]),
    ("aws", &["policy", "sigv4", "api"]),
    ("kubernetes", &["policy", "api"]),
    ("runtime", &["policy", "api"]),
    ("inject", &["policy", "api"]),
    ("policy", &["api"]),
    ("sigv4", &["api"]),
    ("api", &[]),
];

/// The layers that decide, and neither wait, nor look at the clock, nor speak to anybody.
const PURE: [&str; 4] = ["policy", "inject", "sigv4", "api"];

/// What the pure layers do not name, as the scan spells it: without spaces.
const IMPURE: [&str; 19] = [
    "tokio",
    "futures",
    "tracing",
    "anyhow",
    "kube::Client",
    "kube::Api",
    "kube::client",
    "kube::api",
    "kube::runtime",
    "aws_config",
    "aws_sdk_",
    "aws_smithy_",
    "std::env",
    "std::fs",
    "std::process",
    "std::net::Tcp",
    "std::net::Udp",
    "std::time::SystemTime",
    "std::time::Instant",
];

/// What the pure layers do not say, wherever the name comes from.
const IMPURE_WORDS: [&str; 7] = [
    "Timestamp::now",
    "Zoned::now",
    "SystemTime::now",
    "Instant::now",
    "async ",
    ".await",
    "println!",
];

/// Returns the layer of a file of `src`: `policy` for `policy.rs` and all of `policy/`.
fn layer(file: &Path) -> String {
    let first = file
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Returns what a file breaks of the rules about layers.
pub(crate) fn violations(file: &Path, source: &str) -> Vec<String> {
    let layer = layer(file);
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
        return vec![format!(
            "{}: no layer {layer}; say in LAYERS what it may use",
            file.display()
        )];
    };
    let code = code(source);
    let mut broken = Vec::new();
    let mut say = |what: String| broken.push(format!("{}: {what}", file.display()));
    for path in paths(&code) {
        if let Some(used) = used_layer(&path, file)
            && used != layer
            && !allowed.contains(&used)
        {
            say(format!("{layer} does not use {path}"));
        }
        if PURE.contains(&layer.as_str()) && is_impure(&path) {
            say(format!("{layer} is pure and names {path}"));
        }
    }
    let words = code.split_whitespace().collect::<Vec<_>>().join(" ");
    if PURE.contains(&layer.as_str()) {
        for word in IMPURE_WORDS.iter().filter(|word| words.contains(**word)) {
            say(format!("{layer} is pure and says {word}"));
        }
    }
    if words.contains("use crate as ") {
        say("another name for the crate hides which layer is used".to_owned());
    }
    broken
}

/// Returns which layer a path leads to, if it leads through the root of the crate.
fn used_layer<'a>(path: &'a str, file: &Path) -> Option<&'a str> {
    let parts: Vec<&str> = path.split("::").collect();
    match *parts.first()? {
        "crate" | "opensearch_access" => parts.get(1).copied(),
        "super" => {
            let up = parts.iter().take_while(|part| **part == "super").count();
            // At least: a module inside of the file begins one further down.
            let reaches_root = up >= file.components().count();
            parts
                .get(up)
                .copied()
                .filter(|name| reaches_root && LAYERS.iter().any(|(layer, _)| layer == name))
        }
        _ => None,
    }
}

fn is_impure(path: &str) -> bool {
    IMPURE.iter().any(|name| {
        let is_beginning = name.ends_with('_') || name.ends_with("Tcp") || name.ends_with("Udp");
        let rest = path.strip_prefix(name);
        let everything_beside = path
            .strip_suffix('*')
            .is_some_and(|stem| name.starts_with(stem));
        rest.is_some_and(|rest| is_beginning || rest.is_empty() || rest.starts_with("::"))
            || everything_beside
    })
}

/// Made-up files: the file, its source, what is said of it.
const BREACHES: &str = "
policy/x.rs | use crate::aws::domain; | policy does not use crate::aws::domain
policy/x.rs | use crate::{api, controller::a}; | policy does not use crate::controller::a
policy/x.rs | fn a() { crate::offline::b() } | policy does not use crate::offline::b
policy/x.rs | use super::super::runtime; | policy does not use super::super::runtime
policy/x/y.rs | use super::super::super::cli::A; | does not use super::super::super::cli::A
api/x.rs | use crate::policy::Rejection; | api does not use crate::policy::Rejection
aws/x.rs | use crate::runtime::tls; | aws does not use crate::runtime::tls
kubernetes/x.rs | use crate::aws::domain; | kubernetes does not use crate::aws::domain
offline/x.rs | use crate::kubernetes::objects; | offline does not use crate::kubernetes::objects
offline.rs | use crate::controller; | offline does not use crate::controller
controller/x.rs | use crate::offline::plan; | controller does not use crate::offline::plan
main.rs | use opensearch_access::policy; | main does not use opensearch_access::policy
controller.rs | use crate::*; | controller does not use crate::*
controller.rs | use crate as c; | another name for the crate
policy/x.rs | use std::{fmt, fs::{self, File}}; | policy is pure and names std::fs::File
policy/x.rs | use std::time::*; | policy is pure and names std::time::*
policy/x.rs | use std::time::Instant; | policy is pure and names std::time::Instant
policy/x.rs | fn a(_: std::net::TcpStream) {} | policy is pure and names std::net::TcpStream
policy/x.rs | fn a() { ::tracing::info!() } | policy is pure and names tracing::info
policy/x.rs | use aws_sdk_iam::Client; | policy is pure and names aws_sdk_iam::Client
api/x.rs | use kube::{Api, Resource}; | api is pure and names kube::Api
api/x.rs | fn a() { jiff::Timestamp::now(); } | api is pure and says Timestamp::now
api.rs | async  fn a() {} | api is pure and says async
stray.rs | fn a() {} | no layer stray
";

#[test]
fn a_breach_is_seen_in_every_spelling() {
    for line in BREACHES.lines().skip(1) {
        let [file, source, said] = line.split(" | ").collect::<Vec<_>>()[..] else {
            panic!("not three parts: {line}")
        };
        let broken = violations(Path::new(file), source);
        assert!(
            broken.iter().any(|it| it.contains(said)),
            "{line}: {broken:?}"
        );
    }
}

#[test]
fn what_is_allowed_or_only_said_is_no_breach() {
    for (file, source) in [
        (
            "policy/x.rs",
            "use crate::api::arn; use super::glob; use crate::policy::plan;",
        ),
        (
            "policy/x.rs",
            "use std::net::IpAddr; use kube::core::Selector; fn tokio_like() {}",
        ),
        (
            "policy/x.rs",
            "//! See [`crate::controller`].\n/// `std::fs`\nfn a() {}",
        ),
        (
            "policy/x.rs",
            "const A: &str = \"crate::controller, std::fs, async fn\";",
        ),
        (
            "policy/x.rs",
            "pub(crate) fn a() {} pub(in crate::policy) fn b() {}",
        ),
        (
            "api/x.rs",
            "use kube::{CustomResource, KubeSchema}; use jiff::Timestamp;",
        ),
        (
            "controller/x.rs",
            "use crate::{api, aws, policy, runtime}; async fn a() {}",
        ),
        ("main.rs", "use opensearch_access::cli;"),
    ] {
        let broken = violations(Path::new(file), source);
        assert!(broken.is_empty(), "{file}: {source}: {broken:?}");
    }
}
