//! The head of a client's request: what is refused, and what is left of it to be sent.
//!
//! The domain reads exactly what was judged here: the target is rewritten into the one form that is
//! signed, hop-by-hop fields end here, and whatever could decide who signs, or where it goes, is the
//! proxy's own.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, ORIGIN, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Version};

use super::allow::Allowed;
use super::refusal::Refusal;
use super::upstream::Upstream;
use crate::sigv4::Target;

/// By what a request is known that came through a signing proxy: to one, it is a loop.
pub(super) const PASSED: HeaderName = HeaderName::from_static("x-opensearch-access-proxy");

/// The header that carries the secret of a proxy that asks for one.
pub(super) const SECRET: HeaderName = HeaderName::from_static(SECRET_NAME);

const SECRET_NAME: &str = "x-opensearch-access-secret";

/// The methods that are forwarded.
const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::PATCH,
    Method::OPTIONS,
];

/// Tells whether a field concerns one connection only (RFC 9110, section 7.6.1), and so ends here.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Tells whether a field of a request is not the client's to send on: who asks, and where, how much
/// comes, what would have a server take the request for another one than was judged, and from where
/// it comes, which nobody could believe a client.
fn is_not_passed_on(name: &str) -> bool {
    const ENDING_HERE: [&str; 4] = ["x-amz-", "x-forwarded-", "forwarded", "x-real-ip"];
    matches!(
        name,
        "authorization"
            | "content-length"
            | "expect"
            | "host"
            | "x-http-method-override"
            | "x-http-method"
            | "x-method-override"
    ) || ENDING_HERE.iter().any(|it| name.starts_with(it))
}

/// What clients may ask of a proxy.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The names by which clients may address it, beside those of loopback and of the upstream.
    pub hosts: Vec<String>,
    /// What is forwarded.
    pub allowed: Allowed,
    /// What each request has to carry.
    pub secret: Option<Secret>,
}

/// A secret that clients share with a proxy.
#[derive(Clone)]
pub struct Secret(zeroize::Zeroizing<Vec<u8>>);

impl Secret {
    /// Keeps a secret.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(zeroize::Zeroizing::new(text.as_bytes().to_vec()))
    }

    /// Compares in a time that tells nothing of where a difference is.
    fn is(&self, value: &HeaderValue) -> bool {
        let (own, other) = (self.0.as_slice(), value.as_bytes());
        let pairs = own.iter().zip(other);
        own.len() == other.len() && pairs.fold(0, |all, (a, b)| all | (a ^ b)) == 0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What is to be sent, but for the signature and the body.
#[derive(Debug)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// The target, as it is sent and signed.
    pub target: Target,
    /// The fields that are passed on.
    pub headers: HeaderMap,
    /// The length of the body that the client announced.
    pub length: Option<u64>,
}

impl Head {
    /// Judges a request, and takes off what does not go on.
    ///
    /// # Errors
    ///
    /// See [`Refusal`].
    pub fn read(parts: Parts, rules: &Rules, upstream: &Upstream) -> Result<Self, Refusal> {
        let Parts {
            method,
            uri,
            version,
            mut headers,
            ..
        } = parts;
        let length = framing(&headers, version)?;
        if !METHODS.contains(&method) {
            return Err(Refusal::Method(method.to_string()));
        }
        if uri.scheme().is_some() || uri.authority().is_some() || !uri.path().starts_with('/') {
            let rule = "the request target has to be a path: this is no proxy for other hosts";
            return Err(Refusal::Malformed(rule));
        }
        host(&headers, version, rules, upstream)?;
        if headers.contains_key(ORIGIN) {
            return Err(Refusal::FromBrowser);
        }
        if headers.contains_key(PASSED) {
            return Err(Refusal::Loop);
        }
        // It is nobody's further on, even where this proxy asks for none.
        let given = headers.remove(SECRET);
        if let Some(secret) = &rules.secret
            && !given.is_some_and(|it| secret.is(&it))
        {
            return Err(Refusal::NoSecret(SECRET_NAME));
        }
        upgrade(&headers)?;
        expectation(&headers)?;
        let target = uri.path_and_query().map_or("/", |it| it.as_str());
        let target = Target::parse(target.as_bytes())?;
        rules.allowed.check(&method, &target)?;
        take_off_hops(&mut headers);
        take_off(&mut headers, is_not_passed_on);
        Ok(Self {
            method,
            target,
            headers,
            length,
        })
    }
}

/// Makes sure that there is one way to tell where the body ends, and reads its length.
fn framing(headers: &HeaderMap, version: Version) -> Result<Option<u64>, Refusal> {
    let coded: Vec<&HeaderValue> = headers.get_all(TRANSFER_ENCODING).iter().collect();
    let lengths: Vec<&HeaderValue> = headers.get_all(CONTENT_LENGTH).iter().collect();
    match (coded.as_slice(), lengths.as_slice()) {
        ([], []) => Ok(None),
        ([], [length]) => {
            let text = length.as_bytes();
            let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
            let number = std::str::from_utf8(text).ok().filter(|_| digits);
            let number = number.and_then(|it| it.parse().ok());
            let bad = Refusal::Malformed("Content-Length is no number");
            number.map(Some).ok_or(bad)
        }
        ([], _) => Err(Refusal::Malformed("Content-Length is there more than once")),
        (_, []) if version < Version::HTTP_11 => {
            Err(Refusal::Malformed("Transfer-Encoding is none of HTTP/1.0"))
        }
        ([coded], []) if coded.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(None),
        (_, []) => Err(Refusal::Malformed(
            "Transfer-Encoding has to be chunked, once and alone",
        )),
        _ => Err(Refusal::Malformed(
            "Content-Length and Transfer-Encoding contradict each other",
        )),
    }
}

/// Makes sure that the client means this proxy: a page in a browser that had its own name resolve
/// to this machine would name its own host.
fn host(
    headers: &HeaderMap,
    version: Version,
    rules: &Rules,
    upstream: &Upstream,
) -> Result<(), Refusal> {
    let mut named = headers.get_all(HOST).iter();
    let host = match (named.next(), named.next()) {
        (Some(host), None) => host,
        (None, _) if version < Version::HTTP_11 => return Ok(()),
        (None, _) => return Err(Refusal::Malformed("Host is missing")),
        _ => return Err(Refusal::Malformed("Host is there more than once")),
    };
    let shown = || Refusal::Misdirected(String::from_utf8_lossy(host.as_bytes()).into_owned());
    let text = host.to_str().map_err(|_| shown())?.to_ascii_lowercase();
    let without_port = without_port(&text).ok_or_else(shown)?;
    let own = ["localhost", "127.0.0.1", "[::1]"].contains(&without_port)
        || text == upstream.host()
        || Some(without_port) == self::without_port(upstream.host())
        || rules.hosts.iter().any(|it| it == without_port);
    if own { Ok(()) } else { Err(shown()) }
}

/// Takes the port off a host; nothing else may follow.
fn without_port(host: &str) -> Option<&str> {
    let (name, port) = match host.rsplit_once(':') {
        // The colons of an IPv6 address are within brackets.
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => return Some(host),
    };
    port.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(name)
}

/// A client may offer to speak HTTP/2; anything else that it wants to change to, it depends on.
fn upgrade(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut wanted = headers.get_all(UPGRADE).iter();
    let only_http = wanted.all(|it| it.as_bytes().eq_ignore_ascii_case(b"h2c"));
    let rule = "no connection is upgraded here";
    only_http.then_some(()).ok_or(Refusal::Malformed(rule))
}

/// That a body is wanted is said by hyper, once it is read.
fn expectation(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut expected = headers.get_all(EXPECT).iter();
    let known = expected.all(|it| it.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    known.then_some(()).ok_or(Refusal::Expectation)
}

/// Takes off what concerns one connection only, and what `Connection` says does.
pub(super) fn take_off_hops(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .collect();
    for name in nominated {
        headers.remove(name);
    }
    take_off(headers, is_hop_by_hop);
}

/// Takes fields off by their names: there are fewer of them than names that nobody may use.
fn take_off(headers: &mut HeaderMap, ends_here: impl Fn(&str) -> bool) {
    let ending = headers.keys().filter(|name| ends_here(name.as_str()));
    for name in ending.cloned().collect::<Vec<HeaderName>>() {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn upstream() -> Upstream {
        Upstream::parse("https://search.example:9443", false).unwrap()
    }

    fn read_with(request: http::request::Builder, rules: &Rules) -> Result<Head, Refusal> {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Head::read(parts, rules, &upstream())
    }

    fn read(request: http::request::Builder) -> Result<Head, Refusal> {
        read_with(request, &Rules::default())
    }

    fn get(target: &str) -> http::request::Builder {
        Request::get(target).header("host", "localhost:9200")
    }

    fn class(request: http::request::Builder) -> &'static str {
        read(request).map_or_else(|refusal| refusal.class(), |_| "taken")
    }

    #[test]
    fn what_concerns_the_connection_or_the_signature_ends_here() {
        let request = get("/x?q=a+b")
            .header("connection", "x-mine, authorization, host, x-amz-date")
            .header("connection", "keep-alive, te")
            .header("x-mine", "1")
            .header("x-yours", "2")
            .header("cookie", "a")
            .header("cookie", "b")
            .header("te", "trailers")
            .header("keep-alive", "timeout=5")
            .header("proxy-authorization", "basic")
            .header("upgrade", "h2c")
            .header("http2-settings", "x")
            .header("expect", "100-continue")
            .header("authorization", "Basic x")
            .header("x-amz-date", "then")
            .header("x-amz-security-token", "mine")
            .header("x-http-method-override", "DELETE")
            .header("x-forwarded-for", "10.0.0.1")
            .header("x-forwarded-host", "evil.example")
            .header("forwarded", "for=10.0.0.1")
            .header("x-real-ip", "10.0.0.1")
            .header("content-length", "3");
        let head = read(request).unwrap();
        assert_eq!(head.length, Some(3));
        assert_eq!(head.target.as_sent(), "/x?q=a%20b");
        let mut left: Vec<(&str, &str)> = head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        left.sort_unstable();
        assert_eq!(left, [("cookie", "a"), ("cookie", "b"), ("x-yours", "2")]);
    }

    #[test]
    fn a_client_names_this_proxy_or_its_upstream() {
        for host in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:9200",
            "[::1]",
            "[::1]:9200",
            "search.example:9443",
            "search.example",
        ] {
            assert_eq!(
                class(Request::get("/").header("host", host)),
                "taken",
                "{host}"
            );
        }
        for host in [
            "evil.example",
            "s3.amazonaws.com",
            "localhost.evil.example",
            "localhost@evil.example",
            "evil@localhost",
            "localhost:80:80",
            "localhost:x",
            "169.254.169.254",
            "[::2]",
            "",
            "searchxexample",
        ] {
            let request = Request::get("/").header("host", host);
            assert_eq!(class(request), "misdirected", "{host}");
        }
        let rules = Rules {
            hosts: vec!["proxy.team-a".to_owned()],
            ..Rules::default()
        };
        let request = Request::get("/").header("host", "proxy.team-a:9200");
        assert!(read_with(request, &rules).is_ok());
        assert_eq!(class(Request::get("/")), "malformed_request");
        let two = Request::get("/")
            .header("host", "localhost")
            .header("host", "localhost");
        assert_eq!(class(two), "malformed_request");
        // HTTP/1.0 knows no Host.
        assert_eq!(class(Request::get("/").version(Version::HTTP_10)), "taken");
    }

    #[test]
    fn a_body_ends_in_one_way() {
        for (fields, class_) in [
            (&[("content-length", "3")][..], "taken"),
            (&[("transfer-encoding", "Chunked")], "taken"),
            (
                &[("content-length", "3"), ("transfer-encoding", "chunked")],
                "malformed_request",
            ),
            (
                &[("content-length", "3"), ("content-length", "3")],
                "malformed_request",
            ),
            (&[("content-length", "+3")], "malformed_request"),
            (&[("content-length", "3, 3")], "malformed_request"),
            (&[("content-length", "")], "malformed_request"),
            (
                &[("content-length", "99999999999999999999")],
                "malformed_request",
            ),
            (
                &[("transfer-encoding", "gzip, chunked")],
                "malformed_request",
            ),
            (&[("transfer-encoding", "identity")], "malformed_request"),
            (
                &[
                    ("transfer-encoding", "chunked"),
                    ("transfer-encoding", "chunked"),
                ],
                "malformed_request",
            ),
        ] {
            let request = fields
                .iter()
                .fold(get("/"), |it, (name, value)| it.header(*name, *value));
            assert_eq!(class(request), class_, "{fields:?}");
        }
        let old = get("/").version(Version::HTTP_10);
        assert_eq!(
            class(old.header("transfer-encoding", "chunked")),
            "malformed_request"
        );
    }

    #[test]
    fn what_is_no_request_to_a_domain_is_refused() {
        assert_eq!(class(get("http://localhost:9200/")), "malformed_request");
        assert_eq!(
            class(get("http://169.254.169.254/latest")),
            "malformed_request"
        );
        let connect = Request::connect("a.example:443").header("host", "localhost");
        assert_eq!(class(connect), "method_not_forwarded");
        assert_eq!(class(get("/").method("TRACE")), "method_not_forwarded");
        assert_eq!(
            class(get("/").header("upgrade", "websocket")),
            "malformed_request"
        );
        assert_eq!(class(get("/").header("expect", "x")), "expectation");
        assert_eq!(class(get("/").header("origin", "null")), "from_browser");
        assert_eq!(class(get("/?X-Amz-Signature=x")), "malformed_target");
        assert_eq!(class(get("/").header(PASSED, "1")), "loop");
    }

    #[test]
    fn a_secret_is_asked_for_and_not_passed_on() {
        let rules = Rules {
            secret: Some(Secret::new("open")),
            ..Rules::default()
        };
        let with = |secret: &str| read_with(get("/").header(SECRET, secret), &rules);
        assert!(with("open").unwrap().headers.get(SECRET).is_none());
        for secret in ["", "opeN", "open1", "ope"] {
            assert_eq!(with(secret).unwrap_err().class(), "no_secret", "{secret}");
        }
        assert_eq!(
            read_with(get("/"), &rules).unwrap_err().class(),
            "no_secret"
        );
        assert_eq!(format!("{:?}", rules.secret), "Some(Secret(..))");
        let unasked = read(get("/").header(SECRET, "open")).unwrap();
        assert!(unasked.headers.get(SECRET).is_none());
    }
}
