//! Whatever a client names, requests go to the one upstream, or nowhere.

use super::program::{Proxy, get};
use super::upstream::Upstream;

/// Hosts that are not this proxy's, and ways to have one look like another.
const OTHERS: [&str; 72] = [
    "evil.example",
    "s3.amazonaws.com",
    "sts.amazonaws.com",
    "search-other.eu-west-1.es.amazonaws.com",
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "[fd00:ec2::254]",
    "[fd00:ec2::23]",
    "metadata.google.internal",
    "kubernetes.default.svc",
    "10.0.0.1",
    "0.0.0.0",
    "[::]",
    "[::2]",
    "[::ffff:169.254.169.254]",
    "[::1",
    "::1",
    "::1]",
    "[::1]x",
    "[::1]:x",
    "[::1]:80:80",
    "[::1%25eth0]",
    "127.0.0.2",
    "127.1",
    "127.0.1",
    "0177.0.0.1",
    "0x7f.0.0.1",
    "0x7f000001",
    "2130706433",
    "2852039166",
    "0",
    "127.0.0.1.",
    "127.0.0.1.nip.io",
    "127.0.0.1@evil.example",
    "127.0.0.1:80@evil.example",
    "evil.example@127.0.0.1",
    "user:password@localhost",
    "@localhost",
    "localhost@",
    "localhost.",
    "localhost..",
    ".localhost",
    "localhost.evil.example",
    "localhost.localdomain",
    "evil.localhost",
    "xlocalhost",
    "localhostx",
    "local host",
    "localhost evil.example",
    "localhost,evil.example",
    "localhost, localhost",
    "localhost;evil.example",
    "localhost/evil.example",
    "localhost/",
    "localhost\\evil.example",
    "localhost?evil.example",
    "localhost?",
    "localhost#evil.example",
    "localhost#",
    "localhost:80:80",
    "localhost:-1",
    "localhost:0x50",
    "localhost:80 ",
    "localhost%00",
    "localhost%2eevil.example",
    "%6cocalhost",
    "http://localhost",
    "l\u{14d}calhost",
    "xn--lcalhost-ijb",
    "\u{ff4c}ocalhost",
    "",
];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_client_names_is_where_a_request_goes() {
    let upstream = Upstream::open().await;
    let proxy = Proxy::before(&upstream, &[]).await;
    let host = upstream.address.to_string();
    let (mut refused, mut wrong) = (0, Vec::new());
    for other in OTHERS {
        for (target, named) in [
            ("/".to_owned(), other),
            (format!("http://{other}/"), "localhost"),
            (format!("http://{other}/"), other),
            (format!("http://{other}/"), &host),
        ] {
            // Spaces behind a value are none of it.
            if target == "/" && other.ends_with(' ') {
                continue;
            }
            let request = format!("GET {target} HTTP/1.1\r\nHost: {named}\r\n\r\n");
            let status = proxy.ask(&request).await.status;
            if ![400, 421].contains(&status) {
                wrong.push(format!("{status}: {request:?}"));
            }
            refused += 1;
        }
    }
    assert!(wrong.is_empty() && refused > 100, "{refused}: {wrong:#?}");
    assert_eq!(upstream.seen().len(), 0);
    // What looks like a host within a path is a path.
    for (target, sent) in [
        ("//evil.example/x", "/evil.example/x"),
        ("/@evil.example", "/@evil.example"),
        ("/http://evil.example/", "/http:/evil.example/"),
        ("/x?http://evil.example", "/x?http://evil.example"),
    ] {
        assert_eq!(proxy.ask(get(target)).await.status, 200, "{target}");
        let seen = upstream.last();
        assert_eq!(seen.line(), format!("GET {sent} HTTP/1.1"));
        assert_eq!(seen.field("host"), Some(host.as_str()));
    }
    for named in ["localhost", "LocalHost:1", "127.0.0.1", "[::1]:9", &host] {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {named}\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\n\r\n"
        );
        assert_eq!(proxy.ask(request).await.status, 200, "{named}");
        let seen = upstream.last();
        assert_eq!(seen.field("host"), Some(host.as_str()), "{named}");
        for name in seen.names() {
            let tells_of_others = name.contains("forwarded") || name == "x-real-ip";
            assert!(!tells_of_others, "{name}");
        }
    }
}
