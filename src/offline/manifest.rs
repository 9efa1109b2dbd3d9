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
use crate::api::action_group::DomainActionGroup;
use crate::api::domain::OpenSearchDomain;
use crate::api::name::GROUP;
use crate::api::role::DomainRole;
use crate::api::tenant::DomainTenant;
use crate::policy::Rejection;
use crate::policy::fine_grained::definition::{self, Defines, Definition, DefinitionKey};
use crate::policy::service_account::{AccountName, ROLE_ANNOTATION};
use crate::policy::verdict::NamespaceLabels;

/// The one version of the group.
const API_VERSION: &str = "opensearch-access.io/v1alpha1";

/// The kind of a domain.
const DOMAIN: &str = "OpenSearchDomain";

/// The kind of a grant.
const GRANT: &str = "DomainAccess";

/// Stands for the file of an object that came from a cluster.
pub const CLUSTER: &str = "<cluster>";

/// Why a file, or an object of which too little is known, cannot be used.
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
    /// The file, `-` for standard input, [`CLUSTER`] for a cluster.
    pub file: String,
}

/// A grant's namespace and name.
pub type GrantName = (String, String);

/// A grant that cannot be used.
#[derive(Debug)]
pub struct UnusableGrant {
    /// The grant.
    pub grant: GrantName,
    /// The name of the `OpenSearchDomain` that it is for.
    pub domain: String,
    /// What is wrong with its manifest.
    pub broken: Sourced<Vec<Rejection>>,
}

/// What an object defines in a domain's security plugin.
#[derive(Debug, Clone)]
pub struct Defining {
    /// The name of the `OpenSearchDomain`.
    pub domain: String,
    /// What it defines.
    pub definition: Definition,
}

/// The operator's objects out of all manifests, and what of them cannot be used.
#[derive(Debug, Default)]
pub struct Manifests {
    /// Domains by name.
    pub domains: BTreeMap<String, Sourced<OpenSearchDomain>>,
    /// Grants by namespace and name.
    pub grants: BTreeMap<GrantName, Sourced<DomainAccess>>,
    /// What objects define in security plugins, by the object; those out of files have no UID.
    pub definitions: BTreeMap<DefinitionKey, Sourced<Defining>>,
    /// The labels of the namespaces that are among the manifests.
    pub labels: NamespaceLabels,
    /// The annotated roles of the service accounts that are among the manifests.
    pub accounts: BTreeMap<AccountName, Option<String>>,
    /// Domains that cannot be used, by name.
    pub unusable_domains: BTreeMap<String, Sourced<Vec<Rejection>>>,
    /// Grants that cannot be used, though it is known which they are.
    pub unusable_grants: Vec<UnusableGrant>,
    /// What else cannot be used.
    pub errors: Vec<Error>,
}

/// Reads every manifest below the given paths; `-` is standard input.
///
/// What cannot be used stands beside what can, so that one run shows all that there is to put
/// right, and a mistake in one manifest hides nothing of another.
pub fn read(paths: &[PathBuf], stdin: impl Read) -> Manifests {
    let mut manifests = Manifests::default();
    let mut stdin = Some(stdin);
    for path in paths {
        if path.as_os_str() == "-" {
            let Some(mut stdin) = stdin.take() else {
                manifests.fail("-", "standard input can be read once only");
                continue;
            };
            let mut text = String::new();
            match stdin.read_to_string(&mut text) {
                Ok(_) => manifests.add("-", &text),
                Err(error) => manifests.fail("-", format!("failed to read: {error}")),
            }
            continue;
        }
        let shown = path.display();
        match files(path) {
            Ok(files) if files.is_empty() => {
                manifests.fail(shown, "the folder holds no .yaml, .yml or .json file");
            }
            Ok(files) => {
                for file in files {
                    let shown = file.display().to_string();
                    match std::fs::read_to_string(&file) {
                        Ok(text) => manifests.add(&shown, &text),
                        Err(error) => manifests.fail(shown, format!("failed to read: {error}")),
                    }
                }
            }
            Err(error) => manifests.fail(shown, format!("failed to read: {error}")),
        }
    }
    manifests.set_twice_aside();
    manifests
}

/// Returns a file itself, or the manifests below a folder in the order of their names. Names that
/// begin with a dot are left out: `.git`, and the links of a mounted volume, are no manifests.
fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries = std::fs::read_dir(path)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()?;
    let is_hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
    entries.retain(|entry| !entry.file_name().is_some_and(is_hidden));
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

/// An object of one of the operator's kinds, as far as it is known before it is parsed.
#[derive(Debug, Clone)]
struct Known {
    file: String,
    kind: String,
    namespace: String,
    name: String,
    /// The domain that a grant names.
    domain: String,
}

impl Manifests {
    /// Keeps one domain and its grants; what cannot be used and belongs to none stays.
    pub fn keep(&mut self, domain: &str) {
        self.domains.retain(|name, _| name == domain);
        self.unusable_domains.retain(|name, _| name == domain);
        self.grants
            .retain(|_, grant| grant.object.spec.domain_ref.name == domain);
        self.unusable_grants.retain(|grant| grant.domain == domain);
        self.definitions.retain(|_, it| it.object.domain == domain);
    }

    fn fail(&mut self, file: impl fmt::Display, rule: impl Into<String>) {
        self.errors.push(Error {
            file: file.to_string(),
            object: String::new(),
            field: String::new(),
            rule: rule.into(),
        });
    }

    /// Sets aside an object that breaks rules: with its domain where it has its place in the plan.
    fn refuse(&mut self, known: Known, broken: Vec<Rejection>) {
        let Known {
            file,
            kind,
            namespace,
            name,
            domain,
        } = known;
        if kind == DOMAIN && !name.is_empty() {
            let known = self.unusable_domains.entry(name);
            known
                .or_insert_with(|| Sourced {
                    object: Vec::new(),
                    file,
                })
                .object
                .extend(broken);
        } else if kind == GRANT && !name.is_empty() && !domain.is_empty() {
            let broken = Sourced {
                object: broken,
                file,
            };
            self.unusable_grants.push(UnusableGrant {
                grant: (namespace, name),
                domain,
                broken,
            });
        } else {
            let object = if namespace.is_empty() {
                format!("{kind} {name}")
            } else {
                format!("{kind} {namespace}/{name}")
            };
            self.errors
                .extend(broken.into_iter().map(|rejection| Error {
                    file: file.clone(),
                    object: object.trim_end_matches([' ', '/']).to_owned(),
                    field: rejection.field,
                    rule: rejection.rule,
                }));
        }
    }

    fn add(&mut self, file: &str, text: &str) {
        let documents: Vec<Value> = match serde_saphyr::from_multiple(text) {
            Ok(documents) => documents,
            Err(error) => {
                return self.fail(file, format!("not YAML: {}", error.to_string().trim()));
            }
        };
        for (index, document) in documents.into_iter().enumerate() {
            if !document.is_null() {
                self.add_document(file, index, document);
            }
        }
    }

    fn add_document(&mut self, file: &str, index: usize, document: Value) {
        let text = |pointer: &str| {
            let value = document.pointer(pointer).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        let (version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        if version.is_empty() || kind.is_empty() {
            self.errors.push(Error {
                file: file.to_owned(),
                object: format!("document {}", index + 1),
                field: String::new(),
                rule: "not a Kubernetes object: apiVersion and kind are missing".to_owned(),
            });
            return;
        }
        if version == "v1" && kind == "List" {
            if let Some(Value::Array(items)) = document.get("items").cloned() {
                for item in items {
                    self.add_document(file, index, item);
                }
            }
            return;
        }
        if version == "v1" && kind == "Namespace" {
            let labels = document
                .pointer("/metadata/labels")
                .cloned()
                .unwrap_or_default();
            // What is no label would be refused by the API server, and none of our business.
            self.labels
                .insert(name, serde_json::from_value(labels).unwrap_or_default());
            return;
        }
        if version == "v1" && kind == "ServiceAccount" {
            let namespace = match text("/metadata/namespace") {
                none if none.is_empty() => "default".to_owned(),
                namespace => namespace,
            };
            let annotations = document.pointer("/metadata/annotations");
            let role = annotations.and_then(|all| all.get(ROLE_ANNOTATION));
            let role = role.and_then(Value::as_str).map(str::to_owned);
            self.accounts
                .insert(AccountName::new(&namespace, &name), role);
            return;
        }
        if version.split('/').next() != Some(GROUP) {
            return;
        }
        let namespace = match text("/metadata/namespace") {
            none if none.is_empty() && kind != DOMAIN => "default".to_owned(),
            namespace => namespace,
        };
        let known = Known {
            file: file.to_owned(),
            domain: text("/spec/domainRef/name"),
            kind,
            namespace,
            name,
        };
        if version != API_VERSION {
            let rule =
                format!("{version:?} is not a version that this operator knows; use {API_VERSION}");
            self.refuse(known, vec![Rejection::invalid("apiVersion", rule)]);
        } else if known.name.is_empty() {
            self.refuse(
                known,
                vec![Rejection::invalid(
                    "metadata.name",
                    "an object needs a name",
                )],
            );
        } else {
            self.add_object(known, document);
        }
    }

    fn add_object(&mut self, known: Known, document: Value) {
        let Known {
            file,
            namespace,
            name,
            ..
        } = known.clone();
        let broken = match known.kind.as_str() {
            DOMAIN => match parse(document) {
                Ok(domain) => insert(
                    &mut self.domains,
                    name,
                    Sourced {
                        object: domain,
                        file,
                    },
                ),
                Err(broken) => broken,
            },
            GRANT => match parse::<DomainAccess>(document) {
                Ok(mut grant) => {
                    grant.meta_mut().namespace = Some(namespace.clone());
                    insert(
                        &mut self.grants,
                        (namespace, name),
                        Sourced {
                            object: grant,
                            file,
                        },
                    )
                }
                Err(broken) => broken,
            },
            "DomainRole" => self.add_definition::<DomainRole>(known.clone(), document),
            "DomainTenant" => self.add_definition::<DomainTenant>(known.clone(), document),
            "DomainActionGroup" => {
                self.add_definition::<DomainActionGroup>(known.clone(), document)
            }
            kind => vec![Rejection::invalid(
                "kind",
                format!(
                    "{kind:?} is not a kind of this operator; the kinds are {DOMAIN}, {GRANT}, DomainRole, DomainTenant and DomainActionGroup"
                ),
            )],
        };
        if !broken.is_empty() {
            self.refuse(known, broken);
        }
    }

    fn add_definition<K: Defines + DeserializeOwned>(
        &mut self,
        known: Known,
        document: Value,
    ) -> Vec<Rejection> {
        match parse::<K>(document) {
            Ok(mut object) => {
                object.meta_mut().namespace = Some(known.namespace);
                let definition = definition::definition(&object);
                let key = definition.key.clone();
                let object = Defining {
                    domain: known.domain,
                    definition,
                };
                let file = known.file;
                insert(&mut self.definitions, key, Sourced { object, file })
            }
            Err(broken) => broken,
        }
    }

    /// Takes out the first definition of what is defined twice: which one would hold depends on the
    /// order in which somebody applies them.
    fn set_twice_aside(&mut self) {
        for grant in &self.unusable_grants {
            if grant.broken.object.iter().any(is_second) {
                self.grants.remove(&grant.grant);
            }
        }
        for (name, broken) in &self.unusable_domains {
            if broken.object.iter().any(is_second) {
                self.domains.remove(name);
            }
        }
    }
}

/// The beginning of the rule that a second definition breaks.
const SECOND: &str = "the object is defined twice";

fn is_second(rejection: &Rejection) -> bool {
    rejection.rule.starts_with(SECOND)
}

/// Puts an object in its place; where that is taken, says by which file.
fn insert<Q: Ord, K>(
    map: &mut BTreeMap<Q, Sourced<K>>,
    key: Q,
    object: Sourced<K>,
) -> Vec<Rejection> {
    match map.entry(key) {
        Entry::Occupied(taken) => {
            let rule = format!("{SECOND}; the other definition is in {}", taken.get().file);
            vec![Rejection::invalid("metadata.name", rule)]
        }
        Entry::Vacant(free) => {
            free.insert(object);
            Vec::new()
        }
    }
}

/// Parses one object, and gives each field that is unknown or has the wrong form.
fn parse<K: DeserializeOwned>(mut document: Value) -> Result<K, Vec<Rejection>> {
    let mut unknown = Vec::new();
    // The derived types leave these two, which the caller has read, to the envelope.
    if let Some(members) = document.as_object_mut() {
        members.retain(|key, _| key != "apiVersion" && key != "kind");
    }
    let mut ignored = |path: serde_ignored::Path<'_>| unknown.push(dotted(&path));
    let reader = serde_ignored::Deserializer::new(document, &mut ignored);
    match serde_path_to_error::deserialize::<_, K>(reader) {
        Err(error) => {
            let rule = error.inner().to_string();
            Err(vec![Rejection::invalid(error.path().to_string(), rule)])
        }
        Ok(_) if !unknown.is_empty() => {
            let rejections = unknown.into_iter();
            Err(rejections
                .map(|field| Rejection::invalid(field, "unknown field"))
                .collect())
        }
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
