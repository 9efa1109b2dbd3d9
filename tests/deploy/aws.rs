//! The IAM policies name what the code calls, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::render::{NAMESPACE, project, text};

/// The services of the SDK's clients, by the name of the client, as actions call them.
const SERVICES: [(&str, &str); 4] = [
    ("opensearch", "es"),
    ("iam", "iam"),
    ("eks", "eks"),
    ("sts", "sts"),
];

/// Whoever has credentials may ask whose they are.
const NEEDS_NO_RIGHT: &str = "sts:GetCallerIdentity";

/// What is filled in.
const PLACEHOLDERS: [&str; 13] = [
    "BOUNDARY",
    "CLUSTER",
    "CLUSTER_ACCOUNT",
    "CLUSTER_REGION",
    "CONTROLLER_ROLE",
    "DOMAIN",
    "DOMAIN_ACCOUNT",
    "DOMAIN_ROLE",
    "EXTERNAL_ID",
    "NAMESPACE",
    "OIDC_PROVIDER",
    "REGION",
    "ROLES",
];

/// Returns every source file of a folder, without white space.
fn source(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.push_str(&source(&path));
        } else {
            let text = fs::read_to_string(path).unwrap();
            all.extend(text.chars().filter(|it| !it.is_whitespace()));
        }
    }
    all
}

/// Returns the actions that the controller's calls need.
fn called() -> BTreeSet<String> {
    let aws = source(&project("src/aws"));
    let mut actions = BTreeSet::new();
    for (client, service) in SERVICES {
        for after in aws.split(&format!("clients.{client}.")).skip(1) {
            let operation: String = after
                .chars()
                .take_while(|it| *it == '_' || it.is_alphanumeric())
                .collect();
            let words = operation.split('_').map(|word| {
                let (first, rest) = word.split_at(1);
                first.to_uppercase() + rest
            });
            actions.insert(format!("{service}:{}", words.collect::<String>()));
        }
    }
    assert!(actions.remove(NEEDS_NO_RIGHT), "{actions:?}");
    // The SDK's own call for an assumed role; from Pod Identity it passes the session's tags on.
    assert!(aws.contains("AssumeRoleProvider::builder("));
    actions.extend(["sts:AssumeRole", "sts:TagSession"].map(str::to_owned));
    let client = fs::read_to_string(project("src/security/client.rs")).unwrap();
    for after in client.split("Method::").skip(1) {
        let method: String = after.chars().take_while(char::is_ascii_uppercase).collect();
        if let Some((first, rest)) = method
            .split_at_checked(1)
            .filter(|(_, rest)| !rest.is_empty())
        {
            actions.insert(format!("es:ESHttp{first}{}", rest.to_lowercase()));
        }
    }
    actions
}

/// Returns the statements of each file of a folder, with every placeholder filled in.
fn policies(folder: &str) -> BTreeMap<String, Vec<Value>> {
    let mut policies = BTreeMap::new();
    for entry in fs::read_dir(project("deploy/aws").join(folder)).unwrap() {
        let path = entry.unwrap().path();
        let mut filled = fs::read_to_string(&path).unwrap();
        for name in PLACEHOLDERS {
            filled = filled.replace(&format!("${{{name}}}"), "x");
        }
        assert!(!filled.contains("${"), "{}: {filled}", path.display());
        let policy: Value = serde_json::from_str(&filled).unwrap();
        assert_eq!(policy["Version"], "2012-10-17", "{}", path.display());
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        policies.insert(name, policy["Statement"].as_array().unwrap().clone());
    }
    policies
}

fn list(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(items) => items.iter().map(|it| it.as_str().unwrap()).collect(),
        one => vec![one.as_str().unwrap()],
    }
}

#[test]
fn the_policies_allow_what_is_called_and_nothing_else() {
    let policies = policies("policies");
    let allowed: BTreeSet<String> = policies
        .values()
        .flatten()
        .flat_map(|statement| list(&statement["Action"]))
        .map(str::to_owned)
        .collect();
    assert_eq!(allowed, called());
}

#[test]
fn nothing_is_allowed_on_everything() {
    for (name, statements) in policies("policies") {
        for statement in statements {
            assert_eq!(statement["Effect"], "Allow", "{name}");
            assert!(statement["NotAction"].is_null() && statement["NotResource"].is_null());
            for action in list(&statement["Action"]) {
                assert!(!action.contains('*'), "{name}: {action}");
                for resource in list(&statement["Resource"]) {
                    assert!(resource.starts_with("arn:aws:"), "{name}: {resource}");
                    // Data is nobody's business but the plugin's configuration.
                    if action.starts_with("es:ESHttp") {
                        let path = ["/_plugins/_security/api/*", "/_opendistro/_security/api/*"];
                        assert!(path.iter().any(|it| resource.ends_with(it)), "{resource}");
                    } else if action.starts_with("es:") || action.ends_with("RolePolicy") {
                        assert!(!resource.contains('*'), "{name}: {resource}");
                    }
                }
                // Who may write a role's policy could give it anything.
                if ["iam:PutRolePolicy", "iam:DeleteRolePolicy"].contains(&action) {
                    let boundary =
                        &statement["Condition"]["StringEquals"]["iam:PermissionsBoundary"];
                    assert!(boundary.is_string(), "{name}: {action}");
                }
                if action == "sts:AssumeRole" {
                    let id = &statement["Condition"]["StringEquals"]["sts:ExternalId"];
                    assert!(id.is_string(), "{name}");
                }
            }
        }
    }
}

#[test]
fn only_the_controller_is_trusted() {
    let trusts = policies("trust");
    let names: Vec<&String> = trusts.keys().collect();
    assert_eq!(names, ["domain-account", "irsa", "pod-identity"]);
    let of = |name: &str, pointer: &str| text(&trusts[name][0], pointer).to_owned();
    let account = "opensearch-access-controller";
    // The service account that the chart makes; the namespace is filled in.
    assert_eq!(
        of("irsa", "/Condition/StringEquals/x:sub"),
        format!("system:serviceaccount:x:{account}")
    );
    assert_eq!(
        of("irsa", "/Condition/StringEquals/x:aud"),
        "sts.amazonaws.com"
    );
    let tag = "/Condition/StringEquals/aws:RequestTag~1kubernetes-service-account";
    assert_eq!(of("pod-identity", tag), account);
    assert_eq!(
        of("domain-account", "/Condition/StringEquals/sts:ExternalId"),
        "x"
    );
    for (name, statements) in &trusts {
        for statement in statements {
            let principal = statement["Principal"].to_string();
            assert!(!principal.contains('*'), "{name}: {principal}");
        }
    }
    let chart = crate::render::helm(crate::render::IMAGE, NAMESPACE).unwrap();
    assert!(chart.contains(&format!("name: {account}")));
}
