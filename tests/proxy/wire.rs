//! What arrives at the upstream.

use super::program::{KEY_ID, Proxy, SECRET, TOKEN, get, post};
use super::upstream::Upstream;

const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_signed_and_carries_nothing_that_could_decide_for_whom() {
    let upstream = Upstream::open().await;
    let proxy = Proxy::before(&upstream, &[]).await;
    let request = "GET /logs/_search?q=a+b&pretty HTTP/1.1\r\nHost: localhost:9200\r\n\
        Authorization: Basic bWU=\r\nX-Amz-Date: 19700101T000000Z\r\nX-Amz-Security-Token: mine\r\n\
        x-amz-content-sha256: mine\r\nConnection: keep-alive, x-mine, authorization, host, x-amz-date\r\n\
        Keep-Alive: 5\r\nX-Mine: 1\r\nTE: trailers\r\nProxy-Authorization: x\r\nProxy-Connection: x\r\n\
        X-HTTP-Method-Override: DELETE\r\nosd-xsrf: true\r\nsecuritytenant: t\r\nX-Opaque-Id: 7\r\n\
        Cookie: a=1\r\nCookie: b=2\r\nAccept-Encoding: gzip\r\nuser-agent: me\r\n\r\n";
    assert_eq!(proxy.ask(request).await.status, 200);
    let seen = upstream.last();
    assert_eq!(seen.line(), "GET /logs/_search?q=a%20b&pretty HTTP/1.1");
    assert_eq!(
        seen.field("host"),
        Some(upstream.address.to_string().as_str())
    );
    assert_eq!(
        seen.names(),
        [
            "accept-encoding",
            "authorization",
            "cookie",
            "cookie",
            "host",
            "osd-xsrf",
            "securitytenant",
            "user-agent",
            "x-amz-content-sha256",
            "x-amz-date",
            "x-amz-security-token",
            "x-opaque-id",
            "x-opensearch-access-proxy",
        ]
    );
    assert_eq!(seen.field("x-amz-content-sha256"), Some(EMPTY));
    assert_eq!(seen.field("x-amz-security-token"), Some(TOKEN));
    let authorization = seen.field("authorization").unwrap();
    let scope = format!("AWS4-HMAC-SHA256 Credential={KEY_ID}/");
    assert!(authorization.starts_with(&scope), "{authorization}");
    let signed = "/eu-west-1/es/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token, Signature=";
    assert!(authorization.contains(signed), "{authorization}");
    upstream.verify_signatures().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_arrive_as_they_were_sent() {
    let upstream = Upstream::open().await;
    let proxy = Proxy::before(&upstream, &[]).await;
    let lines = "{\"index\":{}}\r\n{\"x\":\"\u{65e5}\"}\n";
    assert_eq!(proxy.ask(post("/_bulk", lines)).await.status, 200);
    let seen = upstream.last();
    assert_eq!(seen.body, lines.as_bytes());
    assert_eq!(
        seen.field("content-length"),
        Some(lines.len().to_string().as_str())
    );

    let chunked = "POST /_bulk HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\
        Trailer: x-late\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nx-late: 1\r\n\r\n";
    assert_eq!(proxy.ask(chunked).await.status, 200);
    let seen = upstream.last();
    assert_eq!(
        (seen.body.as_slice(), seen.field("content-length")),
        (&b"abcde"[..], Some("5"))
    );
    assert_eq!(
        (seen.field("transfer-encoding"), seen.field("trailer")),
        (None, None)
    );

    for request in [
        get("/"),
        "DELETE /x HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
    ] {
        assert_eq!(proxy.ask(request).await.status, 200);
        assert_eq!(upstream.last().field("x-amz-content-sha256"), Some(EMPTY));
    }
    upstream.verify_signatures().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_to_be_told_to_send_is_told() {
    let upstream = Upstream::open().await;
    let proxy = Proxy::before(&upstream, &[]).await;
    let mut client = super::program::Client::connect(proxy.address).await;
    let head = "POST /_bulk HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    client.send(head.as_bytes()).await;
    assert_eq!(client.answer().await.unwrap().status, 100);
    assert!(upstream.seen().is_empty(), "who tells it is the proxy");
    client.send(b"abc").await;
    assert_eq!(client.answer().await.unwrap().status, 200);
    assert_eq!(
        (
            upstream.last().body.as_slice(),
            upstream.last().field("expect")
        ),
        (&b"abc"[..], None)
    );
    upstream.verify_signatures().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_sent_in_the_one_form_that_is_signed() {
    let upstream = Upstream::open().await;
    let proxy = Proxy::before(&upstream, &[]).await;
    for (asked, sent) in [
        ("/a%2Fb", "/a%2Fb"),
        ("//a///b", "/a/b"),
        ("/a/./b/../c", "/a/c"),
        ("/a/", "/a/"),
        ("/*/_search", "/*/_search"),
        (
            "/%3Clogs-%7Bnow%2Fd%7D%3E/_search",
            "/%3Clogs-%7Bnow%2Fd%7D%3E/_search",
        ),
        ("/?x=a%2fb&y=%zz&a&&b=", "/?x=a%2Fb&y=%25zz&a&b="),
        ("/?scroll_id=abc==", "/?scroll_id=abc=="),
        ("/%E6%97%A5", "/%E6%97%A5"),
        ("/\u{65e5}", "/%E6%97%A5"),
    ] {
        assert_eq!(proxy.ask(get(asked)).await.status, 200, "{asked}");
        let line = upstream.last().line().to_owned();
        assert_eq!(line, format!("GET {sent} HTTP/1.1"), "{asked}");
    }
    for asked in [
        "/%2e%2e/a",
        "/a//../b",
        "/?X-Amz-Signature=x",
        "/<logs>",
        "/a#b",
    ] {
        let before = upstream.seen().len();
        assert_eq!(proxy.ask(get(asked)).await.status, 400, "{asked}");
        assert_eq!(upstream.seen().len(), before, "{asked}");
    }
    upstream.verify_signatures().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_meant_for_this_proxy_is_forwarded() {
    let upstream = Upstream::open().await;
    let options = ["--client-host", "proxy.team-a"];
    let proxy = Proxy::before(&upstream, &options).await;
    for host in [
        "localhost",
        "127.0.0.1:1",
        "[::1]:9",
        "PROXY.team-a:80",
        &upstream.address.to_string(),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(proxy.ask(request).await.status, 200, "{host}");
    }
    let before = upstream.seen().len();
    for host in [
        "evil.example",
        "s3.amazonaws.com",
        "169.254.169.254",
        "localhost.evil.example",
        "evil@localhost",
        "localhost@evil.example",
        "localhost:80:80",
        "xn--lcalhost-ijb",
        "[::2]",
        "127.0.0.1.nip.io",
        "127.1",
        "0",
        "",
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let answer = proxy.ask(request).await;
        assert!([400, 421].contains(&answer.status), "{host}: {answer:?}");
    }
    for (request, status) in [
        (
            "GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
            400,
        ),
        (
            "GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
            400,
        ),
        ("GET * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (
            "CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            405,
        ),
        ("TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        ("PROPFIND / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n",
            403,
        ),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            400,
        ),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\nExpect: the-unexpected\r\n\r\n",
            417,
        ),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\nx-opensearch-access-proxy: 1\r\n\r\n",
            508,
        ),
        ("GET / HTTP/1.1\r\n\r\n", 400),
    ] {
        let answer = proxy.ask(request).await;
        assert_eq!(answer.status, status, "{request}");
    }
    assert_eq!(upstream.seen().len(), before);
    upstream.verify_signatures().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_admin_does_not_allow_is_not_forwarded() {
    let upstream = Upstream::open().await;
    let read_only = Proxy::before(&upstream, &["--read-only"]).await;
    assert_eq!(read_only.ask(post("/logs/_search", "{}")).await.status, 200);
    let before = upstream.seen().len();
    for request in [
        post("/_bulk", "{}"),
        post("/logs/_doc", "{}"),
        "DELETE /logs HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        get("/_plugins/_securit%79/api/internalusers"),
    ] {
        let answer = read_only.ask(&request).await;
        assert_eq!(answer.status, 403, "{request}");
        assert!(
            answer.text().contains("signing_proxy_not_allowed"),
            "{answer:?}"
        );
    }
    let listed = Proxy::before(&upstream, &["--allow", "GET /logs-*/_search"]).await;
    assert_eq!(listed.ask(get("/logs/_search")).await.status, 403);
    assert_eq!(upstream.seen().len(), before);
    assert_eq!(listed.ask(get("/logs-a/_search")).await.status, 200);
    upstream.verify_signatures().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_logged_or_shown() {
    let upstream = Upstream::open().await;
    let options = ["--log", "trace", "--access-log"];
    let proxy = Proxy::before(&upstream, &options).await;
    let request = "POST /logs/_search?q=query-canary HTTP/1.1\r\nHost: localhost\r\n\
        Cookie: header-canary\r\nContent-Length: 11\r\n\r\nbody-canary";
    assert_eq!(proxy.ask(request).await.status, 200);
    assert_eq!(
        proxy.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.status,
        421
    );
    let metrics = proxy.utility("/metrics").await.1;
    let signature = upstream.seen()[0]
        .field("authorization")
        .unwrap()
        .to_owned();
    let signature = signature.split("Signature=").nth(1).unwrap().to_owned();
    for text in [proxy.log(), metrics.clone()] {
        for secret in [SECRET, TOKEN, "canary", KEY_ID, signature.as_str()] {
            assert!(!text.contains(secret), "{secret:?} is in {text}");
        }
    }
    assert!(
        proxy.log().contains("path=\"/logs/_search\""),
        "{}",
        proxy.log()
    );
    for line in [
        "opensearch_access_proxy_requests_total{status=\"2xx\"} 1",
        "opensearch_access_proxy_refusals_total{class=\"misdirected\"} 1",
        "opensearch_access_proxy_body_held_bytes 0",
        "opensearch_access_proxy_credentials_expiry_timestamp 9000000000",
    ] {
        assert!(metrics.contains(line), "{line:?} is not in {metrics}");
    }
}
