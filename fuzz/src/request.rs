//! What is left of a request to be sent.

use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method};

use super::guard::Guard;
use super::head::{Head, Rules, Secret};
use super::parser;
use super::upstream::Upstream;
use crate::sigv4::Target;

const SECRET: &str = "a secret of some length";

/// What never is the client's, or one connection's alone.
const NEVER: [&str; 26] = [
    "authorization",
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-opensearch-access-proxy",
    "x-opensearch-access-secret",
    "x-real-ip",
    "x-amz-date",
];

/// Sends bytes through the guard, the parser, and what judges heads, by rules that the first byte
/// chooses.
///
/// # Panics
///
/// Panics where a head is taken that must not be sent as it is.
pub fn check(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else {
        return;
    };
    let upstream = Upstream::parse("https://search.example:9443", false).expect("an upstream");
    let rules = rules(*choice);
    let mut guard = Guard::new();
    guard.read(bytes);
    guard.end();
    for (parts, _) in parser::requests(&guard.take(usize::MAX)) {
        let asked = parts.clone();
        let Ok(head) = Head::read(parts, &rules, &upstream) else {
            continue;
        };
        fields(&head, &asked, &rules);
        goes_there(&head, &upstream);
        let changes = [Method::PUT, Method::DELETE, Method::PATCH];
        assert!(
            !rules.allowed.read_only || !changes.contains(&head.method),
            "{} only reads",
            head.method
        );
        if !rules.allowed.rules.is_empty() {
            assert!(head.target.path().starts_with("/logs-"), "{head:?}");
            assert!(!head.target.path().contains(','), "{head:?}");
        }
    }
}

fn rules(choice: u8) -> Rules {
    let mut rules = Rules::default();
    if choice & 1 != 0 {
        rules.secret = Some(Secret::new(SECRET));
    }
    rules.allowed.read_only = choice & 2 != 0;
    if choice & 4 != 0 {
        rules.allowed.rules = vec!["* /logs-*".parse().expect("a rule")];
    }
    rules
}

/// What is passed on is what the client sent, but for what ends here.
fn fields(head: &Head, asked: &Parts, rules: &Rules) {
    let nominated = nominated(&asked.headers);
    for (name, value) in &head.headers {
        let name = name.as_str();
        assert!(!NEVER.contains(&name), "{name} is passed on");
        assert!(!name.starts_with("x-amz-"), "{name} is passed on");
        assert!(
            !nominated.iter().any(|it| it == name),
            "{name} is passed on"
        );
        let sent = asked.headers.get_all(name);
        assert!(sent.iter().any(|it| it == value), "{name} is another");
    }
    let secret = HeaderName::from_static("x-opensearch-access-secret");
    let expected = HeaderValue::from_static(SECRET);
    let given = asked.headers.get(secret);
    assert!(
        rules.secret.is_none() || given == Some(&expected),
        "no secret was given"
    );
}

fn nominated(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all("connection").iter();
    let texts = values.filter_map(|it| it.to_str().ok());
    let names = texts.flat_map(|it| it.split(','));
    names.map(|it| it.trim().to_ascii_lowercase()).collect()
}

/// It goes to the upstream, with the target that was judged.
fn goes_there(head: &Head, upstream: &Upstream) {
    let sent = head.target.as_sent();
    let again = Target::parse(sent.as_bytes());
    assert!(again.as_ref() == Ok(&head.target), "{sent:?}: {again:?}");
    let root = upstream.uri();
    let authority = root.authority().map(http::uri::Authority::as_str);
    assert!(authority == Some("search.example:9443"), "{root}");
    // One that is too long is refused.
    if let Ok(uri) = http::Uri::try_from(head.target.as_sent()) {
        assert!(uri.authority().is_none(), "{uri}");
        let target = uri.path_and_query().map(http::uri::PathAndQuery::as_str);
        assert!(target == Some(sent), "{uri}");
    }
}
