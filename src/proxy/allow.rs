//! Which requests are forwarded at all, where the admin says so: by method and path.
//!
//! Judged is the target as it is sent, in every way in which a server may read it: as it stands, and
//! percent-decoded.

use std::str::FromStr;

use http::Method;
use percent_encoding::percent_decode_str;

use super::refusal::Refusal;
use crate::policy::glob;
use crate::sigv4::Target;

/// What is read by `POST`: the ends of paths.
const READ_BY_POST: [&str; 12] = [
    "_search",
    "_msearch",
    "_count",
    "_mget",
    "_search/scroll",
    "_search/template",
    "_msearch/template",
    "_field_caps",
    "_validate/query",
    "_termvectors",
    "_mtermvectors",
    "_analyze",
];

/// What `GET` changes, or shows of who may do what: parts of paths.
const NOT_READ_BY_GET: [&str; 9] = [
    "_bulk",
    "_flush",
    "_refresh",
    "_forcemerge",
    "_upgrade",
    "_plugins/_security",
    "_opendistro/_security",
    "_plugins/_sql",
    "_opendistro/_sql",
];

/// What is forwarded.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    /// Whether nothing that changes anything is.
    pub read_only: bool,
    /// What is; all of it where the list is empty.
    pub rules: Vec<Rule>,
}

/// Methods and a pattern of paths, spelled `GET,HEAD /logs-*/_search`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    methods: Vec<Method>,
    /// `*` stands for any text without a `/`, `?` for one character, and `**` at the end for all that
    /// follows: with a `*` that went further, `/logs-*/_search` would be `/logs-1/_doc/_search`, too.
    path: String,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let told =
            || format!("{text:?}: write methods and a path, as in \"GET,HEAD /logs-*/_search\"");
        let (methods, path) = text.trim().split_once(' ').ok_or_else(told)?;
        let path = path.trim();
        if !path.starts_with(['/', '*']) || path.contains(char::is_whitespace) {
            return Err(told());
        }
        let method = |it: &str| {
            let known = [
                Method::GET,
                Method::HEAD,
                Method::POST,
                Method::PUT,
                Method::DELETE,
                Method::PATCH,
                Method::OPTIONS,
            ];
            known.into_iter().find(|known| known.as_str() == it)
        };
        let methods = if methods == "*" {
            Vec::new()
        } else {
            let methods = methods.split(',').map(method);
            methods.collect::<Option<_>>().ok_or_else(told)?
        };
        let all = path.strip_suffix("/**").unwrap_or(path);
        if path != "*" && (all.contains("**") || !path.starts_with('/')) {
            return Err(format!(
                "{text:?}: a path begins with /, and ** stands at its end: /logs-*/**"
            ));
        }
        let path = if path == "*" { "/**" } else { path };
        let path = path.to_owned();
        Ok(Self { methods, path })
    }
}

impl Rule {
    fn covers(&self, method: &Method, readings: &[String]) -> bool {
        (self.methods.is_empty() || self.methods.contains(method))
            // A list of indexes names others behind the first.
            && readings
                .iter()
                .all(|it| !it.contains(',') && !climbs(it) && fits(&self.path, it))
    }
}

/// Tells whether a server that resolves it could leave where it seems to be.
fn climbs(path: &str) -> bool {
    path.split('/').any(|part| [".", ".."].contains(&part))
}

/// Holds a path against a pattern, part by part.
fn fits(pattern: &str, path: &str) -> bool {
    let (mut wanted, mut parts) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), parts.next()) {
            (Some("**"), Some(_)) | (None, None) => return true,
            (Some(wanted), Some(part)) if glob::matches(wanted, part) => {}
            _ => return false,
        }
    }
}

impl Allowed {
    /// Judges a request.
    ///
    /// # Errors
    ///
    /// Refuses what is not on the list, or not only read.
    pub fn check(&self, method: &Method, target: &Target) -> Result<(), Refusal> {
        if !self.read_only && self.rules.is_empty() {
            return Ok(());
        }
        let path = target.path();
        let mut readings = vec![path.to_owned()];
        let mut decoded = path.to_owned();
        // Once more than any server decodes.
        for _ in 0..3 {
            let next = percent_decode_str(&decoded)
                .decode_utf8_lossy()
                .into_owned();
            if next == decoded {
                break;
            }
            readings.push(next.clone());
            decoded = next;
        }
        if self.read_only && !readings.iter().all(|it| is_read(method, it)) {
            return Err(Refusal::NotAllowed(format!(
                "this proxy is read-only: {method} on this path is not forwarded"
            )));
        }
        let listed = || self.rules.iter().any(|it| it.covers(method, &readings));
        if self.rules.is_empty() || listed() {
            return Ok(());
        }
        Err(Refusal::NotAllowed(format!(
            "{method} on this path is not on the list of what this proxy forwards (--allow)"
        )))
    }
}

/// Tells whether a request only reads, by one reading of its path.
fn is_read(method: &Method, path: &str) -> bool {
    let path = path.trim_matches('/');
    let segments: Vec<&str> = path.split('/').collect();
    let has = |part: &&str| {
        let part: Vec<&str> = part.split('/').collect();
        segments.windows(part.len()).any(|window| window == part)
    };
    match *method {
        Method::GET | Method::HEAD => !NOT_READ_BY_GET.iter().any(has),
        Method::POST => READ_BY_POST.iter().any(|end| {
            let before = path.strip_suffix(end);
            before.is_some_and(|before| {
                // No index begins so: it would be another part of the API.
                let is_index = !before.starts_with('_');
                before.is_empty()
                    || is_index && before.ends_with('/') && !before.trim_matches('/').contains('/')
            })
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(read_only: bool, rules: &[&str]) -> Allowed {
        let rules = rules.iter().map(|it| it.parse().unwrap()).collect();
        Allowed { read_only, rules }
    }

    fn passes(allowed: &Allowed, method: &str, target: &str) -> bool {
        let target = Target::parse(target.as_bytes()).unwrap();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        allowed.check(&method, &target).is_ok()
    }

    #[test]
    fn read_only_reads() {
        let read_only = allowed(true, &[]);
        for (method, target) in [
            ("GET", "/"),
            ("GET", "/logs/_doc/1"),
            ("HEAD", "/logs"),
            ("GET", "/_cat/indices?v"),
            ("POST", "/_search"),
            ("POST", "/logs-a,logs-b/_search?size=1"),
            ("POST", "/logs/_search/template"),
            ("POST", "/_search/scroll"),
            ("POST", "/_mget"),
            ("POST", "/_msearch"),
            ("POST", "/logs/_count/"),
        ] {
            assert!(passes(&read_only, method, target), "{method} {target}");
        }
    }

    #[test]
    fn read_only_changes_nothing() {
        let read_only = allowed(true, &[]);
        for (method, target) in [
            ("PUT", "/logs/_doc/1"),
            ("POST", "/logs/_doc"),
            ("POST", "/_bulk"),
            ("GET", "/_bulk"),
            ("POST", "/logs/_delete_by_query"),
            ("POST", "/logs/_update/_search"),
            ("POST", "/logs/_doc/_search"),
            ("POST", "/logs/_create/_count"),
            ("DELETE", "/logs"),
            ("DELETE", "/_search/scroll"),
            ("PATCH", "/_plugins/_security/api/roles"),
            ("GET", "/_plugins/_security/api/internalusers"),
            ("GET", "/_plugins/_securit%79/api/internalusers"),
            ("GET", "/_plugins%2F_security/api/roles"),
            ("GET", "/_plugins/%255Fsecurity/api/roles"),
            ("GET", "/_opendistro/_security/authinfo"),
            ("GET", "/_refresh"),
            ("OPTIONS", "/"),
            ("POST", "/logs/_doc%2F_search"),
            ("POST", "/x/y/_search"),
            ("POST", "/_scripts/_search/scroll"),
        ] {
            assert!(!passes(&read_only, method, target), "{method} {target}");
        }
    }

    #[test]
    fn a_list_says_what_is_forwarded() {
        let listed = allowed(false, &["GET,POST /logs-*/_search", "* /mine/**"]);
        assert!(passes(&listed, "POST", "/logs-a/_search?q=x"));
        assert!(passes(&listed, "DELETE", "/mine/_doc/1"));
        assert!(!passes(&listed, "PUT", "/logs-a/_search"));
        assert!(!passes(&listed, "GET", "/logs/_search"));
        assert!(!passes(&listed, "GET", "/logs-a/_search/scroll"));
        // A list of indexes is none of them.
        assert!(!passes(&listed, "GET", "/logs-x,payroll/_search"));
        assert!(!passes(&listed, "GET", "/logs-x%2Cpayroll/_search"));
        assert!(!passes(&listed, "GET", "/logs-x%252C*/_search"));
        // What is allowed is allowed however it is read.
        assert!(!passes(&listed, "GET", "/mine%2F..%2Fx"));
        assert!(!passes(&listed, "GET", "/mine/..%2Fx"));
        // A pattern goes no further than it says: this writes a document.
        assert!(!passes(&listed, "POST", "/logs-a/_doc/_search"));
        assert!(!passes(&listed, "POST", "/logs-a%2F_doc/_search"));
        assert!(passes(&allowed(false, &["GET *"]), "GET", "/a/b/c"));
        assert!(passes(&listed, "GET", "/mine/a%2Fb"));
        // Both hold where both are given.
        let both = allowed(true, &["* /mine/**"]);
        assert!(!passes(&both, "PUT", "/mine/_doc/1"));
        assert!(!passes(&both, "GET", "/other"));
        assert!(passes(&both, "GET", "/mine/_doc/1"));
    }

    #[test]
    fn a_rule_that_says_nothing_is_refused() {
        for text in [
            "",
            "GET",
            "GET logs",
            "FETCH /x",
            "get /x",
            "GET /a b",
            "GET,/x",
            "GET /**/a",
            "GET **",
            "GET /a**",
        ] {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
    }
}
