//! What a pod asks for, in its annotations.

use std::collections::BTreeMap;

use crate::api::domain::LogLevel;

/// What all annotations begin with.
pub const PREFIX: &str = "opensearch-access.io/";

/// The domains that the pod uses: names of `OpenSearchDomain` objects, separated by commas.
pub const INJECT: &str = "opensearch-access.io/inject";

/// Ports on the pod's loopback address, such as `logs=9201,search=9202`; one, without a name, where
/// there is one domain.
pub const PORTS: &str = "opensearch-access.io/ports";

/// `native` (default): an init container that goes on running, which starts before the pod's own
/// containers, ends after them, and does not keep a Job from completing. `container`: one beside them.
pub const SIDECAR: &str = "opensearch-access.io/sidecar";

/// `true`: the pod's containers are told where to connect, in `OPENSEARCH_URL` and, for each domain,
/// `OPENSEARCH_URL_<NAME>`, unless they set these themselves.
pub const ENVIRONMENT: &str = "opensearch-access.io/environment";

/// `true`: the proxy passes reads only, as the domain's own setting may say, too.
pub const READ_ONLY: &str = "opensearch-access.io/read-only";

/// `error`, `warn`, `info` or `debug`, instead of the domain's setting.
pub const LOG_LEVEL: &str = "opensearch-access.io/log-level";

const KNOWN: [&str; 6] = [INJECT, PORTS, SIDECAR, ENVIRONMENT, READ_ONLY, LOG_LEVEL];

/// The most domains that a pod can use.
pub const MOST: usize = 10;

/// What a pod asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The domains, in the pod's order, and the ports that it wants for them.
    pub domains: Vec<(String, Option<u16>)>,
    /// Whether the sidecar is a native one.
    pub is_native: bool,
    /// Whether the containers are told where to connect.
    pub environment: bool,
    /// Whether only reads are passed.
    pub read_only: bool,
    /// How much is logged, where the pod says so.
    pub log_level: Option<LogLevel>,
}

/// Why annotations cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It is none of ours.
    #[error("there is no annotation {0}; there are: {known}", known = KNOWN.join(", "))]
    Unknown(String),
    /// It has another value than it can have.
    #[error("{0}: {1:?} is none of {2}")]
    Value(&'static str, String, &'static str),
    /// It names no domain, or one twice, or too many.
    #[error(
        "{INJECT}: {0:?} has to be the names of 1 to {MOST} domains, each once, separated by commas"
    )]
    Domains(String),
    /// It is no port, or for no domain of the pod.
    #[error(
        "{PORTS}: {0:?} has to be a port from 1024 to 65535, or DOMAIN=PORT with a domain of {INJECT}, several separated by commas"
    )]
    Port(String),
    /// Two domains would have one port.
    #[error("{PORTS}: port {0} is there twice")]
    PortTwice(u16),
}

/// Reads the annotations of a pod; none where it does not ask.
///
/// # Errors
///
/// See [`Invalid`].
pub fn read(annotations: &BTreeMap<String, String>) -> Result<Option<Options>, Invalid> {
    let Some(inject) = annotations.get(INJECT) else {
        return Ok(None);
    };
    let ours = annotations.keys().filter(|it| it.starts_with(PREFIX));
    if let Some(unknown) = ours.into_iter().find(|it| !KNOWN.contains(&it.as_str())) {
        return Err(Invalid::Unknown(unknown.clone()));
    }
    let text = |name| annotations.get(name).map_or("", |it: &String| it.trim());
    let one_of = |name: &'static str, of: &'static str, usual: &'static str| {
        let text = if text(name).is_empty() {
            usual
        } else {
            text(name)
        };
        let known = of.split(", ").find(|it| *it == text);
        known.ok_or_else(|| Invalid::Value(name, text.to_owned(), of))
    };
    let truth = |name| Ok(one_of(name, "true, false", "false")? == "true");
    let log_level = match text(LOG_LEVEL) {
        "" => None,
        "error" => Some(LogLevel::Error),
        "warn" => Some(LogLevel::Warn),
        "info" => Some(LogLevel::Info),
        "debug" => Some(LogLevel::Debug),
        other => {
            let levels = "error, warn, info, debug";
            return Err(Invalid::Value(LOG_LEVEL, other.to_owned(), levels));
        }
    };
    Ok(Some(Options {
        domains: domains(inject, text(PORTS))?,
        is_native: one_of(SIDECAR, "native, container", "native")? == "native",
        environment: truth(ENVIRONMENT)?,
        read_only: truth(READ_ONLY)?,
        log_level,
    }))
}

fn domains(inject: &str, ports: &str) -> Result<Vec<(String, Option<u16>)>, Invalid> {
    let named: Vec<&str> = inject.split(',').map(str::trim).collect();
    let mut domains: Vec<(String, Option<u16>)> = Vec::new();
    for name in &named {
        let is_name = !name.is_empty()
            && name.len() <= 253
            && name
                .bytes()
                .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || b"-.".contains(&it));
        let is_new = domains.iter().all(|(known, _)| known != name);
        if !is_name || !is_new || named.len() > MOST {
            return Err(Invalid::Domains(inject.to_owned()));
        }
        domains.push(((*name).to_owned(), None));
    }
    for wanted in ports.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        let bad = || Invalid::Port(wanted.to_owned());
        let (domain, port) = match wanted.split_once('=') {
            Some((domain, port)) => (domain.trim(), port.trim()),
            None if domains.len() == 1 => (named.first().copied().unwrap_or_default(), wanted),
            None => return Err(bad()),
        };
        let port: u16 = port.parse().ok().filter(|it| *it >= 1024).ok_or_else(bad)?;
        if domains.iter().any(|(_, taken)| *taken == Some(port)) {
            return Err(Invalid::PortTwice(port));
        }
        let entry = domains
            .iter_mut()
            .find(|(name, taken)| name == domain && taken.is_none());
        entry.ok_or_else(bad)?.1 = Some(port);
    }
    Ok(domains)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pairs: &[(&str, &str)]) -> Result<Option<Options>, Invalid> {
        let owned = pairs
            .iter()
            .map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned()));
        read(&owned.collect())
    }

    #[test]
    fn a_pod_that_does_not_ask_is_left_alone() {
        assert_eq!(read(&BTreeMap::new()), Ok(None));
        assert_eq!(asked(&[("read-only", "true")]), Ok(None));
    }

    #[test]
    fn what_is_asked_is_read() {
        let usual = asked(&[("inject", "logs")]).unwrap().unwrap();
        assert_eq!(usual.domains, [("logs".to_owned(), None)]);
        assert!(usual.is_native && !usual.environment && !usual.read_only);
        let all = asked(&[
            ("inject", "logs, search"),
            ("ports", "search=9300"),
            ("sidecar", "container"),
            ("environment", "true"),
            ("read-only", "true"),
            ("log-level", "debug"),
        ]);
        let all = all.unwrap().unwrap();
        let domains = [("logs".to_owned(), None), ("search".to_owned(), Some(9300))];
        assert_eq!(all.domains, domains);
        assert!(!all.is_native && all.environment && all.read_only);
        assert_eq!(all.log_level, Some(LogLevel::Debug));
        let one = asked(&[("inject", "logs"), ("ports", "9300")])
            .unwrap()
            .unwrap();
        assert_eq!(one.domains, [("logs".to_owned(), Some(9300))]);
    }

    #[test]
    fn what_is_not_on_the_list_is_refused() {
        for pairs in [
            &[("inject", "")][..],
            &[("inject", "a,a")],
            &[("inject", "a,,b")],
            &[("inject", "A")],
            &[("inject", "https://evil.example")],
            &[("inject", "a,b,c,d,e,f,g,h,i,j,k")],
            &[("inject", "a"), ("image", "evil")],
            &[("inject", "a"), ("role-arn", "arn:aws:iam::1:role/x")],
            &[("inject", "a"), ("sidecar", "yes")],
            &[("inject", "a"), ("environment", "TRUE")],
            &[("inject", "a"), ("log-level", "trace")],
            &[("inject", "a"), ("ports", "80")],
            &[("inject", "a"), ("ports", "b=9200")],
            &[("inject", "a,b"), ("ports", "9200")],
            &[("inject", "a,b"), ("ports", "a=9200,b=9200")],
            &[("inject", "a"), ("ports", "a=9200,a=9201")],
            &[("inject", "a"), ("ports", "a=99999")],
        ] {
            assert!(asked(pairs).is_err(), "{pairs:?}");
        }
    }
}
