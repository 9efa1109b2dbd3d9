//! Targets one by one: what is sent, and what is signed.

use opensearch_access::sigv4::target::Invalid;
use opensearch_access::sigv4::{Credentials, Payload, Request, Signer, Target};

/// Each target with what is sent, the canonical path and the canonical query.
const TARGETS: &[(&str, &str, &str, &str)] = &[
    // The path.
    ("", "/", "/", ""),
    ("?x", "/?x", "/", "x="),
    ("/", "/", "/", ""),
    ("/_bulk", "/_bulk", "/_bulk", ""),
    ("/_search/", "/_search/", "/_search/", ""),
    ("//", "/", "/", ""),
    ("///a//b", "/a/b", "/a/b", ""),
    ("/a/./b", "/a/b", "/a/b", ""),
    ("/a/../b", "/b", "/b", ""),
    ("/../a", "/a", "/a", ""),
    ("/a/..", "/", "/", ""),
    ("/a/b/..", "/a/", "/a/", ""),
    ("/a/.", "/a/", "/a/", ""),
    ("/a%2Fb", "/a%2Fb", "/a%252Fb", ""),
    ("/a%2fb", "/a%2Fb", "/a%252Fb", ""),
    ("/a b", "/a%20b", "/a%2520b", ""),
    ("/a%20b", "/a%20b", "/a%2520b", ""),
    ("/*/_search", "/*/_search", "/%2A/_search", ""),
    ("/%2A/_search", "/%2A/_search", "/%252A/_search", ""),
    ("/a,b/_search", "/a,b/_search", "/a%2Cb/_search", ""),
    ("/a:b", "/a:b", "/a%3Ab", ""),
    ("/_doc/a=b", "/_doc/a=b", "/_doc/a%3Db", ""),
    ("/a@b/a+b", "/a@b/a+b", "/a%40b/a%2Bb", ""),
    ("/a!$&'();b", "/a!$&'();b", "/a%21%24%26%27%28%29%3Bb", ""),
    (
        "/%3Clogstash-%7Bnow%2Fd%7D%3E/_search",
        "/%3Clogstash-%7Bnow%2Fd%7D%3E/_search",
        "/%253Clogstash-%257Bnow%252Fd%257D%253E/_search",
        "",
    ),
    (
        "/<logstash-{now}>",
        "/%3Clogstash-%7Bnow%7D%3E",
        "/%253Clogstash-%257Bnow%257D%253E",
        "",
    ),
    ("/%E6%97%A5", "/%E6%97%A5", "/%25E6%2597%25A5", ""),
    ("/日", "/%E6%97%A5", "/%25E6%2597%25A5", ""),
    ("/100%25", "/100%25", "/100%2525", ""),
    ("/100%", "/100%25", "/100%2525", ""),
    ("/%zz", "/%25zz", "/%2525zz", ""),
    ("/-._~0aZ", "/-._~0aZ", "/-._~0aZ", ""),
    ("/%7E", "/%7E", "/%257E", ""),
    ("/...", "/...", "/...", ""),
    // The query.
    ("/?", "/", "/", ""),
    ("/?a", "/?a", "/", "a="),
    ("/?a=", "/?a=", "/", "a="),
    ("/?=b", "/?=b", "/", "=b"),
    ("/?&&a", "/?a", "/", "a="),
    ("/?b=1&a=2", "/?b=1&a=2", "/", "a=2&b=1"),
    ("/?a=2&a=1", "/?a=2&a=1", "/", "a=1&a=2"),
    ("/?a=1&A=1", "/?a=1&A=1", "/", "A=1&a=1"),
    ("/?a-b=1&a=1", "/?a-b=1&a=1", "/", "a=1&a-b=1"),
    ("/?ab=1&a=2", "/?ab=1&a=2", "/", "a=2&ab=1"),
    ("/?z=1&é=1", "/?z=1&%C3%A9=1", "/", "%C3%A9=1&z=1"),
    ("/?q=a+b", "/?q=a%20b", "/", "q=a%20b"),
    ("/?q=a%2Bb", "/?q=a%2Bb", "/", "q=a%2Bb"),
    (
        "/?scroll_id=abc==",
        "/?scroll_id=abc==",
        "/",
        "scroll_id=abc%3D%3D",
    ),
    (
        "/?filter_path=*.took,-x",
        "/?filter_path=*.took,-x",
        "/",
        "filter_path=%2A.took%2C-x",
    ),
    (
        "/?q=user:kim AND _exists_:x",
        "/?q=user:kim%20AND%20_exists_:x",
        "/",
        "q=user%3Akim%20AND%20_exists_%3Ax",
    ),
    ("/?x=a%2fb", "/?x=a%2Fb", "/", "x=a%2Fb"),
    ("/?x=%ff", "/?x=%FF", "/", "x=%FF"),
    ("/?x=%zz", "/?x=%25zz", "/", "x=%25zz"),
    ("/?x=a;b=c", "/?x=a;b=c", "/", "x=a%3Bb%3Dc"),
    ("/?x=a/b?c", "/?x=a/b?c", "/", "x=a%2Fb%3Fc"),
    ("/?x=%00", "/?x=%00", "/", "x=%00"),
    ("/?x=~&y=%7E", "/?x=~&y=%7E", "/", "x=~&y=~"),
    ("/?pretty&human", "/?pretty&human", "/", "human=&pretty="),
];

#[test]
fn each_target_is_sent_and_signed_as_it_should_be() {
    for (given, sent, path, query) in TARGETS {
        let target = Target::parse(given.as_bytes()).unwrap();
        let got = (
            target.as_sent(),
            target.signed_path(),
            target.signed_query(),
        );
        assert_eq!(got, (*sent, *path, *query), "{given:?}");
        let again = Target::parse(sent.as_bytes()).unwrap();
        assert_eq!(again, target, "{given:?} is not sent as it is signed");
    }
}

#[test]
fn what_servers_read_differently_is_refused() {
    let presigned = |name: &str| Invalid::Presigned(name.to_owned());
    for (given, why) in [
        ("*", Invalid::NotOrigin),
        ("http://a/", Invalid::NotOrigin),
        ("a.example:443", Invalid::NotOrigin),
        ("/a#b", Invalid::Fragment),
        ("/a\r\nX: y", Invalid::Control(b'\r')),
        ("/a\0", Invalid::Control(0)),
        ("/a\x7f", Invalid::Control(0x7f)),
        ("/a//../b", Invalid::AmbiguousDots),
        ("/a//./../b", Invalid::AmbiguousDots),
        ("//../b", Invalid::AmbiguousDots),
        ("/%2e%2e/a", Invalid::EncodedDots),
        ("/a/%2E", Invalid::EncodedDots),
        ("/a/.%2e/b", Invalid::EncodedDots),
        ("/?X-Amz-Signature=x", presigned("X-Amz-Signature")),
        ("/?a=1&x-amz-algorithm=x", presigned("x-amz-algorithm")),
        ("/?X%2DAmz-Date", presigned("X-Amz-Date")),
    ] {
        assert_eq!(Target::parse(given.as_bytes()), Err(why), "{given:?}");
    }
}

#[test]
fn a_target_of_64_kib_and_every_byte_is_read() {
    let long = format!("/{}", "a/".repeat(32 * 1024));
    assert_eq!(Target::parse(long.as_bytes()).unwrap().as_sent(), long);
    let every: Vec<u8> = (0..=255).filter(|it| !u8::is_ascii_control(it)).collect();
    let path = [b"/", &every[..]].concat();
    assert_eq!(Target::parse(&path), Err(Invalid::Fragment));
    let path: Vec<u8> = path.into_iter().filter(|it| *it != b'#').collect();
    assert!(Target::parse(&path).unwrap().as_sent().is_ascii());
}

fn signer(token: Option<&str>) -> Signer {
    let credentials = Credentials::new(
        "AKIDEXAMPLE",
        "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        token.map(str::to_owned),
    );
    Signer::new(credentials.unwrap(), "eu-west-1", "es")
}

const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn four_headers_are_signed_at_most() {
    let target = Target::parse(b"/logs/_search?q=*").unwrap();
    let request = Request {
        method: "GET",
        host: "search-logs.example:8443",
        target: &target,
        payload: Payload::of(b""),
    };
    let now = "2026-01-31T23:59:59.9Z".parse().unwrap();
    let plain = signer(None);
    let expected = format!(
        "GET\n/logs/_search\nq=%2A\nhost:search-logs.example:8443\nx-amz-content-sha256:{EMPTY}\nx-amz-date:20260131T235959Z\n\nhost;x-amz-content-sha256;x-amz-date\n{EMPTY}"
    );
    assert_eq!(plain.canonical_request(&request, now), expected);
    let names: Vec<_> = plain
        .sign(&request, now)
        .headers()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        names,
        ["authorization", "x-amz-date", "x-amz-content-sha256"]
    );

    let temporary = signer(Some("TOKEN"));
    let signed = temporary.sign(&request, now);
    assert!(signed.authorization.contains(
        "/20260131/eu-west-1/es/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token, "
    ));
    assert_eq!(
        signed.headers().last(),
        Some(("x-amz-security-token", "TOKEN"))
    );
    let shown = temporary.canonical_request(&request, now);
    assert!(!shown.contains("TOKEN"), "{shown}");
    let shown = format!("{signed:?} {temporary:?}");
    assert!(
        !shown.contains("TOKEN") && !shown.contains("Signature") && !shown.contains("wJalr"),
        "{shown}"
    );
}

#[test]
fn the_date_the_scope_and_the_key_are_of_one_day() {
    let target = Target::parse(b"/").unwrap();
    let request = Request {
        method: "GET",
        host: "h.example",
        target: &target,
        payload: Payload::Unsigned,
    };
    let (evening, morning) = (
        "2026-12-31T23:59:59Z".parse().unwrap(),
        "2027-01-01T00:00:00Z".parse().unwrap(),
    );
    let kept = signer(None);
    let there = kept.sign(&request, evening);
    assert_eq!(there.date, "20261231T235959Z");
    assert!(there.authorization.contains("/20261231/"));
    assert_eq!(there.content_sha256, "UNSIGNED-PAYLOAD");
    for time in [morning, evening, morning] {
        let other = signer(None);
        let (kept, fresh) = (kept.sign(&request, time), other.sign(&request, time));
        assert_eq!(kept.authorization, fresh.authorization);
    }
}

#[test]
fn the_body_is_hashed_as_it_is_sent() {
    let hash = |body: &[u8]| match Payload::of(body) {
        Payload::Hash(hash) => hash,
        Payload::Unsigned => panic!("it is hashed"),
    };
    assert_ne!(hash(b"{}\r\n"), hash(b"{}\n"));
    assert_ne!(hash(b"\x1f\x8b"), hash(b""));
}
