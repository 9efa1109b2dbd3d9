//! `import`: the manifests of a policy as YAML.

use serde::Serialize;
use serde_json::Value;

use crate::policy::import::Import;

/// One manifest: the name of its file, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The file's name.
    pub name: String,
    /// The manifest.
    pub text: String,
}

/// Why a manifest cannot be spelled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object is no JSON value.
    #[error("failed to take the object apart")]
    Json(#[from] serde_json::Error),
    /// The value is no YAML.
    #[error("failed to write YAML")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

/// Spells the manifests, the domain first.
pub fn files(import: &Import) -> Result<Vec<File>, Error> {
    let mut files = vec![file("domain".to_owned(), &import.domain)?];
    for grant in &import.grants {
        let name = grant.metadata.name.clone().unwrap_or_default();
        files.push(file(format!("access-{name}"), grant)?);
    }
    Ok(files)
}

fn file(stem: String, object: &impl Serialize) -> Result<File, Error> {
    let mut value = serde_json::to_value(object)?;
    if let Value::Object(members) = &mut value {
        members.remove("status");
    }
    Ok(File {
        name: stem + ".yaml",
        text: serde_saphyr::to_string(&value)?,
    })
}
