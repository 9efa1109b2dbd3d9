//! The access policy document: what is read, kept and written.
//!
//! Statements are kept as they were read, elements that this version does not know included, so
//! that a statement which others wrote is sent back with the same meaning. Numbers are kept as 64
//! bits hold them; the language of policies has whole numbers only.

use serde_json::{Map, Value};

/// The most characters that a domain's access policy may have
/// (`PolicyDocument` in the service's API model; "Access policies: 100 KiB" in its quotas).
pub const SIZE_LIMIT: usize = 102_400;

/// The only version that an access policy should carry (service developer guide, access control).
pub const VERSION: &str = "2012-10-17";

/// Why a text is not an access policy that the operator can keep.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not JSON.
    #[error("the access policy is not JSON")]
    Json(#[source] serde_json::Error),
    /// The document is JSON, and not an object.
    #[error("the access policy is not a JSON object")]
    NotAnObject,
    /// `Statement` is neither an object nor a list of objects.
    #[error("the access policy's Statement is not an object or a list of objects")]
    Statements,
}

/// One statement, as it was read or will be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement(Map<String, Value>);

impl Statement {
    /// Wraps the members of a statement.
    #[must_use]
    pub fn new(members: Map<String, Value>) -> Self {
        Self(members)
    }

    /// Returns the statement's members.
    #[must_use]
    pub fn members(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Returns the statement as a JSON value.
    #[must_use]
    pub fn to_value(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// Tells whether the statement denies; whatever is not plainly `Allow` counts as a denial, so
    /// that it is never dropped for being unknown.
    #[must_use]
    pub fn denies(&self) -> bool {
        self.0.get("Effect").and_then(Value::as_str) != Some("Allow")
    }
}

/// An access policy document.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Document {
    /// The members beside `Version` and `Statement`, such as `Id`.
    other: Map<String, Value>,
    version: Option<Value>,
    statements: Vec<Statement>,
}

impl Document {
    /// Builds a document of the given statements.
    #[must_use]
    pub fn new(statements: Vec<Statement>) -> Self {
        Self {
            other: Map::new(),
            version: None,
            statements,
        }
    }

    /// Parses what AWS returned, or what a person wrote into a file.
    ///
    /// The empty text is a domain without a policy (`DescribeDomain` answers `""`).
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        match serde_json::from_str(text).map_err(Error::Json)? {
            Value::Object(members) => Self::from_members(members),
            _ => Err(Error::NotAnObject),
        }
    }

    fn from_members(mut members: Map<String, Value>) -> Result<Self, Error> {
        let version = members.remove("Version");
        let statements = match members.remove("Statement") {
            None => Vec::new(),
            Some(Value::Object(one)) => vec![Statement(one)],
            Some(Value::Array(list)) => list
                .into_iter()
                .map(|item| match item {
                    Value::Object(members) => Ok(Statement(members)),
                    _ => Err(Error::Statements),
                })
                .collect::<Result<_, _>>()?,
            Some(_) => return Err(Error::Statements),
        };
        Ok(Self {
            other: members,
            version,
            statements,
        })
    }

    /// Returns the version, as it was read.
    #[must_use]
    pub fn version(&self) -> Option<&Value> {
        self.version.as_ref()
    }

    /// Returns the statements.
    #[must_use]
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }

    /// Returns the document with other statements; everything else stays.
    #[must_use]
    pub fn with_statements(&self, statements: Vec<Statement>) -> Self {
        Self {
            other: self.other.clone(),
            version: self.version.clone(),
            statements,
        }
    }

    /// Returns the document as a JSON value; `None` without a statement, for which the service
    /// takes the empty text and refuses `Statement: []`.
    #[must_use]
    pub fn to_value(&self) -> Option<Value> {
        if self.statements.is_empty() {
            return None;
        }
        let mut members = Map::new();
        let version = self.version.clone().unwrap_or_else(|| VERSION.into());
        members.insert("Version".into(), version);
        members.extend(self.other.clone());
        let statements = self.statements.iter().map(Statement::to_value).collect();
        members.insert("Statement".into(), Value::Array(statements));
        Some(Value::Object(members))
    }

    /// Returns the text to send: minified, since the service refuses a line break, and empty
    /// without a statement.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.to_value()
            .map_or_else(String::new, |value| value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_that_are_not_known_survive() {
        let text = r#"{"Id":"x","Version":"2008-10-17","Later":{"a":[1]},"Statement":[{"Effect":"Allow","NotAction":"es:ESHttpGet","New":true}]}"#;
        let again: Value = serde_json::from_str(&Document::parse(text).unwrap().to_text()).unwrap();
        assert_eq!(again, serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn a_document_without_statements_is_the_empty_text() {
        for text in ["", "  ", r#"{"Version":"2012-10-17","Statement":[]}"#] {
            assert_eq!(Document::parse(text).unwrap().to_text(), "", "{text}");
        }
    }

    #[test]
    fn what_is_not_a_policy_is_refused() {
        for text in [
            "{",
            "[]",
            r#"{"Statement":"x"}"#,
            r#"{"Statement":[1]}"#,
            "null",
        ] {
            assert!(Document::parse(text).is_err(), "{text}");
        }
    }
}
