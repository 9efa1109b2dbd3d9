//! The schemas in `crds/`, as the rules in them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// The kinds, each with its file in `crds/`.
const KINDS: [(&str, &str); 2] = [
    ("DomainAccess", "domainaccesses.yaml"),
    ("OpenSearchDomain", "opensearchdomains.yaml"),
];

/// The kinds that define something in a security plugin.
const DEFINITIONS: [(&str, &str); 3] = [
    ("DomainRole", "domainroles.yaml"),
    ("DomainTenant", "domaintenants.yaml"),
    ("DomainActionGroup", "domainactiongroups.yaml"),
];

/// The keywords that bound a value.
const BOUNDS: [&str; 6] = [
    "maxItems",
    "minItems",
    "maxLength",
    "minLength",
    "maximum",
    "minimum",
];

/// Returns every CEL rule: the kind, the path of the field, the message.
pub(super) fn rules() -> BTreeSet<(String, String, String)> {
    rules_of(&KINDS)
}

/// Returns every CEL rule of the kinds that define something.
pub(super) fn rules_of_definitions() -> BTreeSet<(String, String, String)> {
    rules_of(&DEFINITIONS)
}

fn rules_of(kinds: &[(&str, &str)]) -> BTreeSet<(String, String, String)> {
    let mut found = BTreeSet::new();
    for &(kind, file) in kinds {
        visit(&schema(file), "", &mut |path, schema| {
            for rule in schema["x-kubernetes-validations"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let message = rule["message"]
                    .as_str()
                    .expect("every rule says what it wants");
                let rule = (kind.to_owned(), path.to_owned(), message.to_owned());
                assert!(found.insert(rule), "{kind} {path} says twice: {message}");
            }
        });
    }
    found
}

/// Returns every bound that people meet: the kind, the path of the field, the keyword.
pub(super) fn bounds() -> BTreeSet<(String, String, String)> {
    let mut found = BTreeSet::new();
    for (kind, file) in KINDS {
        visit(
            &schema(file)["properties"]["spec"],
            "spec",
            &mut |path, schema| {
                for bound in BOUNDS.iter().filter(|bound| schema.get(**bound).is_some()) {
                    found.insert((kind.to_owned(), path.to_owned(), (*bound).to_owned()));
                }
            },
        );
    }
    found
}

/// Returns one bound as a message spells it.
pub(super) fn bound(kind: &str, path: &str, keyword: &str) -> String {
    let (_, file) = KINDS.into_iter().find(|(known, _)| *known == kind).unwrap();
    let mut found = None;
    visit(&schema(file), "", &mut |at, schema| {
        if at == path {
            found = schema.get(keyword).and_then(Value::as_f64);
        }
    });
    let found = found.unwrap_or_else(|| panic!("{kind} has no {keyword} at {path}"));
    found.to_string()
}

fn schema(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("crds")
        .join(file);
    let text = fs::read_to_string(path).unwrap();
    let definition: Value = serde_saphyr::from_str(&text).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn visit(schema: &Value, path: &str, visitor: &mut impl FnMut(&str, &Value)) {
    visitor(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let separator = if path.is_empty() { "" } else { "." };
        visit(property, &format!("{path}{separator}{name}"), visitor);
    }
    if schema["items"].is_object() {
        visit(&schema["items"], &format!("{path}[]"), visitor);
    }
    if schema["additionalProperties"].is_object() {
        visit(
            &schema["additionalProperties"],
            &format!("{path}{{}}"),
            visitor,
        );
    }
}
