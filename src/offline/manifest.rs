//! Manifests: the operator's objects out of files, folders and standard input.
//!
//! Reading is strict where the API server would be: what is not a field is an error, with the file,
//! the object and the field. Objects of other groups, which share folders with ours, are passed by.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use kube::Resource;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::access::DomainAccess;
use crate::api::domain::OpenSearchDomain;
use crate::api::name::GROUP;

/// The one version of the group.
const API_VERSION: &str = "opensearch-access.io/v1alpha1";

/// Why manifests cannot be used: the file, the object where it is known, and the rule.
#[derive(Debug)]
pub struct Error {
    /// The file, `-` for standard input.
    pub file: String,
    /// The object, such as `DomainAccess team-a/search-api`; empty where it is not known.
    pub object: String,
    /// The field, such as `spec.paths[0]`; empty where no one field is at fault.
    pub field: String,
    /// What is wrong.
    pub rule: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file)?;
        for part in [&self.object, &self.field] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.rule)
    }
}

impl std::error::Error for Error {}

/// An object and the file that it came from.
#[derive(Debug, Clone)]
pub struct Sourced<K> {
    /// The object.
    pub object: K,
    /// The file, `-` for standard input.
    pub file: String,
}

/// The operator's objects out of all manifests.
#[derive(Debug, Default)]
pub struct Manifests {
    /// Domains by name.
    pub domains: BTreeMap<String, Sourced<OpenSearchDomain>>,
    /// Grants by namespace and name.
    pub grants: BTreeMap<(String, String), Sourced<DomainAccess>>,
}

/// Reads every manifest below the given paths; `-` is standard input.
///
/// # Errors
///
/// Gives every error in every file, so that one run shows all that there is to put right.
pub fn read(paths: &[PathBuf], stdin: impl Read) -> Result<Manifests, Vec<Error>> {
    let mut manifests = Manifests::default();
    let mut errors = Vec::new();
    let mut stdin = Some(stdin);
    for path in paths {
        if path.as_os_str() == "-" {
            let Some(mut stdin) = stdin.take() else {
                errors.push(plain("-", "standard input can be read once only"));
                continue;
            };
            let mut text = String::new();
            match stdin.read_to_string(&mut text) {
                Ok(_) => manifests.add("-", &text, &mut errors),
                Err(error) => errors.push(plain("-", format!("failed to read: {error}"))),
            }
            continue;
        }
        match files(path) {
            Ok(files) if files.is_empty() => {
                errors.push(plain(
                    path.display(),
                    "the folder holds no .yaml, .yml or .json file",
                ));
            }
            Ok(files) => {
                for file in files {
                    let name = file.display().to_string();
                    match std::fs::read_to_string(&file) {
                        Ok(text) => manifests.add(&name, &text, &mut errors),
                        Err(error) => errors.push(plain(name, format!("failed to read: {error}"))),
                    }
                }
            }
            Err(error) => errors.push(plain(path.display(), format!("failed to read: {error}"))),
        }
    }
    if errors.is_empty() {
        Ok(manifests)
    } else {
        Err(errors)
    }
}

fn plain(file: impl fmt::Display, rule: impl Into<String>) -> Error {
    Error {
        file: file.to_string(),
        object: String::new(),
        field: String::new(),
        rule: rule.into(),
    }
}

/// Returns a file itself, or the manifests below a folder in the order of their names.
fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries = std::fs::read_dir(path)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()?;
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        if std::fs::metadata(&entry)?.is_dir() {
            found.extend(files(&entry)?);
        } else if entry
            .extension()
            .is_some_and(|suffix| suffix == "yaml" || suffix == "yml" || suffix == "json")
        {
            found.push(entry);
        }
    }
    Ok(found)
}

impl Manifests {
    fn add(&mut self, file: &str, text: &str, errors: &mut Vec<Error>) {
        let documents: Vec<Value> = match serde_saphyr::from_multiple(text) {
            Ok(documents) => documents,
            Err(error) => {
                errors.push(plain(
                    file,
                    format!("not YAML: {}", error.to_string().trim()),
                ));
                return;
            }
        };
        for (index, document) in documents.into_iter().enumerate() {
            if !document.is_null() {
                self.add_document(file, index, document, errors);
            }
        }
    }

    fn add_document(&mut self, file: &str, index: usize, document: Value, errors: &mut Vec<Error>) {
        let text = |pointer: &str| {
            document
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (version, kind) = (text("/apiVersion"), text("/kind"));
        if version.is_empty() || kind.is_empty() {
            errors.push(Error {
                object: format!("document {}", index + 1),
                ..plain(
                    file,
                    "not a Kubernetes object: apiVersion and kind are missing",
                )
            });
            return;
        }
        if version == "v1" && kind == "List" {
            if let Some(Value::Array(items)) = document.get("items").cloned() {
                for item in items {
                    self.add_document(file, index, item, errors);
                }
            }
            return;
        }
        if version.split('/').next() != Some(GROUP) {
            return;
        }
        let namespace = text("/metadata/namespace");
        let place = if namespace.is_empty() {
            String::new()
        } else {
            format!("{namespace}/")
        };
        let object = format!("{kind} {place}{}", text("/metadata/name"));
        let fail = |field: String, rule: String| Error {
            file: file.to_owned(),
            object: object.clone(),
            field,
            rule,
        };
        if version != API_VERSION {
            errors.push(fail(
                "apiVersion".into(),
                format!("{version:?} is not a version that this operator knows; use {API_VERSION}"),
            ));
            return;
        }
        if text("/metadata/name").is_empty() {
            errors.push(fail(
                "metadata.name".into(),
                "an object needs a name".into(),
            ));
            return;
        }
        let twice = match kind.as_str() {
            "OpenSearchDomain" => parse::<OpenSearchDomain>(document).map(|domain| {
                insert(
                    &mut self.domains,
                    domain.metadata.name.clone().unwrap_or_default(),
                    domain,
                    file,
                )
            }),
            "DomainAccess" => parse::<DomainAccess>(document).map(|mut grant| {
                let metadata = grant.meta_mut();
                let namespace = metadata
                    .namespace
                    .get_or_insert_with(|| "default".into())
                    .clone();
                let name = metadata.name.clone().unwrap_or_default();
                insert(&mut self.grants, (namespace, name), grant, file)
            }),
            _ => Err(vec![(
                "kind".into(),
                format!(
                    "{kind:?} is not a kind of this operator; the kinds are OpenSearchDomain and DomainAccess"
                ),
            )]),
        };
        match twice {
            Ok(None) => {}
            Ok(Some(other)) => errors.push(fail(
                String::new(),
                format!("the object is defined twice; the other definition is in {other}"),
            )),
            Err(broken) => {
                errors.extend(broken.into_iter().map(|(field, rule)| fail(field, rule)));
            }
        }
    }
}

/// Puts an object in its place; where that is taken, returns the file that took it.
fn insert<Q: Ord, K>(
    map: &mut BTreeMap<Q, Sourced<K>>,
    key: Q,
    object: K,
    file: &str,
) -> Option<String> {
    match map.entry(key) {
        Entry::Occupied(taken) => Some(taken.get().file.clone()),
        Entry::Vacant(free) => {
            free.insert(Sourced {
                object,
                file: file.to_owned(),
            });
            None
        }
    }
}

/// Parses one object, and gives each field that is unknown or has the wrong form.
fn parse<K: DeserializeOwned>(mut document: Value) -> Result<K, Vec<(String, String)>> {
    let mut unknown = Vec::new();
    // The derived types leave these two, which the caller has read, to the envelope.
    if let Some(members) = document.as_object_mut() {
        members.retain(|key, _| key != "apiVersion" && key != "kind");
    }
    let mut ignored = |path: serde_ignored::Path<'_>| unknown.push(dotted(&path));
    let reader = serde_ignored::Deserializer::new(document, &mut ignored);
    match serde_path_to_error::deserialize::<_, K>(reader) {
        Err(error) => Err(vec![(error.path().to_string(), error.inner().to_string())]),
        Ok(_) if !unknown.is_empty() => Err(unknown
            .into_iter()
            .map(|field| (field, "unknown field".to_owned()))
            .collect()),
        Ok(object) => Ok(object),
    }
}

/// Spells a path as the rest of the program does: `spec.principals[0].iamRole.arn`.
fn dotted(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    let child = |parent: &Path<'_>, name: &str| match dotted(parent) {
        before if before.is_empty() => name.to_owned(),
        before => format!("{before}.{name}"),
    };
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", dotted(parent)),
        Path::Map { parent, key } => child(parent, key),
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => dotted(parent),
    }
}
