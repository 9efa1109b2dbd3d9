//! The definitions in `crds/` are the ones that the program generates, and tell people what each
//! field means.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails where it panics"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

fn crds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crds")
}

/// What lists the kinds for `kubectl apply -k`; without an extension, since `-f` reads all files that
/// have one.
const LIST: &str = "Kustomization";

/// Returns what a folder holds beside the list, by the files' names.
fn contents(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .filter(|entry| entry.file_name() != LIST)
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read_to_string(entry.path()).unwrap())
        })
        .collect()
}

fn program(args: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_opensearch-access"));
    program.args(args);
    program
}

/// Visits every field below a schema, with its path.
fn visit(schema: &Value, path: &str, visitor: &mut impl FnMut(&str, &Value)) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        visitor(&path, field);
        visit(field, &path, visitor);
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

/// Returns the kinds, each with its definition.
fn definitions() -> Vec<(String, Value)> {
    let parse = |text: String| serde_saphyr::from_str::<Value>(&text).unwrap();
    let kind = |definition: &Value| {
        definition["spec"]["names"]["kind"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    contents(&crds())
        .into_values()
        .map(parse)
        .map(|definition| (kind(&definition), definition))
        .collect()
}

fn schema(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

#[test]
fn the_folder_holds_what_the_program_writes_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let written = program(&["crds", "--write"])
        .arg(folder.path())
        .status()
        .unwrap();
    assert!(written.success());
    let (kept, written) = (contents(&crds()), contents(folder.path()));
    assert_eq!(
        kept.keys().collect::<Vec<_>>(),
        written.keys().collect::<Vec<_>>()
    );
    for (name, text) in &kept {
        // Not by `assert_eq`, which would print both.
        let first = text
            .lines()
            .zip(written[name].lines())
            .find(|(kept, new)| kept != new);
        assert!(
            *text == written[name],
            "crds/{name} differs: {first:?}; write it again by: cargo run -- crds --write crds"
        );
    }
}

#[test]
fn the_list_names_every_file() {
    let list = fs::read_to_string(crds().join(LIST)).unwrap();
    let list: Value = serde_saphyr::from_str(&list).unwrap();
    let files = contents(&crds());
    assert_eq!(list["resources"], json!(files.keys().collect::<Vec<_>>()));
}

#[test]
fn what_is_printed_is_what_is_written() {
    let printed = program(&["crds"]).output().unwrap();
    assert!(
        printed.status.success() && printed.stderr.is_empty(),
        "{printed:?}"
    );
    let printed = String::from_utf8(printed.stdout).unwrap();
    let documents: Vec<&str> = printed.split("---\n").skip(1).collect();
    let files = contents(&crds());
    assert_eq!(documents.len(), files.len());
    assert!(
        files
            .values()
            .all(|file| documents.contains(&file.as_str()))
    );
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let failed = program(&["crds", "--write"])
        .arg(&missing)
        .output()
        .unwrap();
    let errors = String::from_utf8(failed.stderr).unwrap();
    assert_eq!(failed.status.code(), Some(1), "{errors}");
    assert!(errors.contains("missing is not a folder"), "{errors}");
}

#[test]
fn every_field_says_what_it_means() {
    let mut fields = 0;
    for (kind, definition) in definitions() {
        let schema = schema(&definition);
        let about = schema["description"].as_str().unwrap_or_default();
        assert!(
            !about.is_empty() && !about.contains("Auto-generated"),
            "{kind}: {about}"
        );
        visit(schema, &kind, &mut |path, field| {
            let meaning = field["description"].as_str().unwrap_or_default();
            assert!(!meaning.trim().is_empty(), "{path} has no description");
            assert!(
                !meaning.contains("[`"),
                "{path} has a link of Rust's: {meaning}"
            );
            fields += 1;
        });
    }
    assert!(fields > 80, "only {fields} fields were seen");
}

#[test]
fn a_field_of_an_enumeration_speaks_of_itself() {
    // The enumeration's own words would hide the field's, as schemas of optional ones are made.
    let definitions: BTreeMap<String, Value> = definitions().into_iter().collect();
    for (kind, pointer, said) in [
        ("DomainAccess", "access", "Set either this or `actions`"),
        ("DomainAccess", "identityPolicy", "Default `None`"),
        ("OpenSearchDomain", "deletionPolicy", "`Retain` (default)"),
        (
            "OpenSearchDomain",
            "signingProxy/properties/logLevel",
            "`Info` (default)",
        ),
        (
            "OpenSearchDomain",
            "accessPolicy/properties/mode",
            "`Merge` (default)",
        ),
        (
            "OpenSearchDomain",
            "consent/items/properties/ceiling/properties/access",
            "The highest level of access",
        ),
    ] {
        let pointer = format!("/properties/spec/properties/{pointer}/description");
        let meaning = schema(&definitions[kind])
            .pointer(&pointer)
            .and_then(Value::as_str);
        let meaning = meaning.unwrap_or_default();
        assert!(meaning.contains(said), "{kind} {pointer}: {meaning}");
    }
}

#[test]
fn no_field_holds_a_null() {
    for (kind, definition) in definitions() {
        visit(schema(&definition), &kind, &mut |path, field| {
            assert_eq!(field.get("nullable"), None, "{path}");
        });
    }
}

#[test]
fn every_list_and_text_that_a_rule_reads_is_bounded() {
    // Without bounds the API server estimates the cost of a rule by the worst that fits a request.
    for (kind, definition) in definitions() {
        visit(schema(&definition), &kind, &mut |path, field| {
            let has_rule = field.get("x-kubernetes-validations").is_some();
            let bound = match field["type"].as_str() {
                Some("array") => "maxItems",
                Some("string") => "maxLength",
                _ => return,
            };
            assert!(
                !has_rule || field.get(bound).is_some(),
                "{path} has no {bound}"
            );
        });
    }
}

#[test]
fn conditions_are_a_map_by_type() {
    let definitions = definitions();
    assert_eq!(definitions.len(), 5);
    for (kind, definition) in definitions {
        let version = &definition["spec"]["versions"][0];
        assert_eq!(version["subresources"], json!({"status": {}}), "{kind}");
        let conditions = &schema(&definition)["properties"]["status"]["properties"]["conditions"];
        assert_eq!(conditions["x-kubernetes-list-type"], "map", "{kind}");
        assert_eq!(
            conditions["x-kubernetes-list-map-keys"],
            json!(["type"]),
            "{kind}"
        );
        let required = conditions["items"]["required"].as_array().unwrap();
        assert!(required.contains(&"type".into()), "{kind}");
    }
}
