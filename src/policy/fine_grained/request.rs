//! What an HTTP request asks of the security plugin: the transport actions that it is checked as,
//! and the indexes that it is about.
//!
//! The plugin does not see paths. It checks every transport action that a request comes to, those
//! that an action starts included: a document that is put is indexed, by a bulk request, by one for
//! its shard.

mod cluster;
mod index;

use percent_encoding::percent_decode_str;

/// What a request asks for: every check must succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The checks; the first ones are what the request is about.
    pub checks: Vec<Check>,
    /// Whether the body may name other indexes than the path does.
    pub body_may_differ: bool,
    /// Whether something is left out again of a pattern.
    pub leaves_out: bool,
}

/// One check of the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The transport action.
    pub action: &'static str,
    /// What it is about.
    pub scope: Scope,
    /// Whether it comes at all.
    pub need: Need,
}

/// What an action is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// The domain as a whole.
    Cluster,
    /// Indexes, by name or by a pattern with `*`; `*` alone is all of them.
    Indexes(Vec<String>),
    /// Indexes that the path does not tell.
    Body,
}

/// Whether a check comes at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It comes.
    Always,
    /// What the path leaves open decides: without the permission the answer is not known.
    Perhaps(&'static str),
    /// An unusual state of the domain brings it: without the permission the answer holds, except in
    /// that state.
    Given(&'static str),
}

/// Why it is not known what a request asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// The method is none of the API's.
    #[error("{0:?} is no method of the OpenSearch API")]
    Method(String),
    /// The path is not known.
    #[error("it is not known which actions the security plugin checks {0} as")]
    Path(String),
    /// The path cannot be read.
    #[error("the path is not UTF-8 once its percent signs are read")]
    Encoding,
    /// The expression cannot be read.
    #[error("it is not known which indexes {0:?} names")]
    Expression(String),
    /// The index is another domain's.
    #[error("{0:?} is of another cluster, whose own security plugin decides")]
    Remote(String),
    /// The plugin's own API.
    #[error(
        "the security plugin's own API asks for roles that a setting of the domain names (all_access and security_manager, if nobody changed it), and not for permissions"
    )]
    SecurityApi,
}

/// A method of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
}

impl Method {
    fn parse(method: &str) -> Result<Self, Unknown> {
        match method.to_ascii_uppercase().as_str() {
            "GET" => Ok(Self::Get),
            "HEAD" => Ok(Self::Head),
            "POST" => Ok(Self::Post),
            "PUT" => Ok(Self::Put),
            "DELETE" => Ok(Self::Delete),
            _ => Err(Unknown::Method(method.to_owned())),
        }
    }
}

impl Asked {
    /// Reads a request: its method in any case, its path with or without the leading slash.
    pub fn of(method: &str, path: &str) -> Result<Self, Unknown> {
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let parts = path.split('/').filter(|part| !part.is_empty());
        // A slash within a name is spelled `%2F`: it is read after the path was split.
        let parts = parts.map(|part| percent_decode_str(part).decode_utf8());
        let parts: Vec<_> = parts
            .collect::<Result<_, _>>()
            .map_err(|_| Unknown::Encoding)?;
        let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
        let unknown = || {
            Unknown::Path(format!(
                "{} /{}",
                method.to_ascii_uppercase(),
                parts.join("/")
            ))
        };
        if let ["_plugins" | "_opendistro", "_security", ..] = parts.as_slice() {
            return Err(Unknown::SecurityApi);
        }
        let known = Method::parse(method)?;
        let (checks, body_may_differ) = match parts.as_slice() {
            ["_plugins", rest @ ..] => (cluster::of_plugin(known, rest), false),
            [index, rest @ ..] if *index == "_all" || !index.starts_with('_') => {
                let scope = Scope::Indexes(expression(index)?);
                let own = matches!(rest, ["_bulk" | "_mget" | "_msearch" | "_mtermvectors", ..]);
                (index::checks(known, &scope, rest)?, own)
            }
            parts => match cluster::checks(known, parts)? {
                Some(checks) => (Some(checks), false),
                None => (index::everywhere(known, parts)?, false),
            },
        };
        let checks = checks.ok_or_else(unknown)?;
        let names = |part: &&str| part.split(',').any(|name| name.starts_with('-'));
        Ok(Self {
            checks,
            body_may_differ,
            leaves_out: parts.iter().any(names),
        })
    }
}

impl Check {
    fn cluster(action: &'static str) -> Self {
        Self::on(action, &Scope::Cluster)
    }

    fn on(action: &'static str, scope: &Scope) -> Self {
        Self {
            action,
            scope: scope.clone(),
            need: Need::Always,
        }
    }

    fn perhaps(self, when: &'static str) -> Self {
        Self {
            need: Need::Perhaps(when),
            ..self
        }
    }

    fn given(self, when: &'static str) -> Self {
        Self {
            need: Need::Given(when),
            ..self
        }
    }
}

/// Tells whether the plugin looks for an action among the cluster permissions of a role, and not
/// among those on indexes.
#[must_use]
pub fn is_cluster_action(action: &str) -> bool {
    let starts = [
        "cluster:",
        "indices:admin/template/",
        "indices:admin/index_template/",
        "indices:data/read/scroll",
        "indices:data/read/msearch",
    ];
    let exact = [
        "indices:data/write/bulk",
        "indices:data/read/mget",
        "indices:data/read/mtv",
        "indices:data/write/reindex",
    ];
    starts.iter().any(|start| action.starts_with(start)) || exact.contains(&action)
}

/// Reads the indexes that a path names.
///
/// What is left out again of a pattern (`-name`) is not among them: a permission on the whole
/// pattern is enough, and without one it is not known what is left. A date is taken as any text.
fn expression(text: &str) -> Result<Vec<String>, Unknown> {
    let unknown = || Unknown::Expression(text.to_owned());
    let mut found: Vec<String> = Vec::new();
    for name in text.split(',').filter(|name| !name.is_empty()) {
        if let Some(left_out) = name.strip_prefix('-') {
            let pattern = found.iter().any(|name| name.contains('*'));
            if !pattern || left_out.is_empty() {
                return Err(unknown());
            }
            continue;
        }
        let name = match name {
            "_all" => "*".to_owned(),
            _ if name.starts_with('<') => without_dates(name).ok_or_else(unknown)?,
            _ if name.contains(':') => return Err(Unknown::Remote(name.to_owned())),
            _ if name.starts_with('_') || name.contains(['<', '>', '?', '"', ' ']) => {
                return Err(unknown());
            }
            _ => name.to_owned(),
        };
        found.push(name);
    }
    if found.is_empty() {
        return Err(unknown());
    }
    Ok(found)
}

/// Returns the pattern of the names that a date math expression such as `<logs-{now/d}>` may come
/// to.
pub(super) fn without_dates(expression: &str) -> Option<String> {
    let inside = expression.strip_prefix('<')?.strip_suffix('>')?;
    let (before, dates) = inside.split_once('{')?;
    let (_, after) = dates.rsplit_once('}')?;
    let pattern = format!("{before}*{after}");
    (!pattern.contains([':', '<', '>'])).then_some(pattern)
}

#[cfg(test)]
mod tests;
