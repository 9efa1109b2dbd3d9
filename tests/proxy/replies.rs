//! What comes back, and what is tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use super::program::{Client, Proxy, get, post};
use super::upstream::{Do, Upstream, says};

pub(crate) fn http_date(at: Timestamp) -> String {
    let at = at.to_zoned(jiff::tz::TimeZone::UTC);
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

const EXPIRED: &str =
    r#"{"message":"Signature expired: 20260131T000000Z is now earlier than 20260131T001000Z"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_costs_one_more_try_and_no_client_an_error() {
    for ahead in [-86_400, -3_600, -600, 600, 3_600, 86_400] {
        let ahead = SignedDuration::from_secs(ahead);
        let upstream = Upstream::scripted(move |_, seen| {
            let now = Timestamp::now() + ahead;
            let off = seen.signed_at().duration_since(now).as_secs().abs();
            if off < 300 {
                return says("200 OK", "", "{}");
            }
            says(
                "403 Forbidden",
                &format!("Date: {}\r\n", http_date(now)),
                EXPIRED,
            )
        })
        .await;
        let proxy = Proxy::before(&upstream, &[]).await;
        for _ in 0..5 {
            assert_eq!(proxy.ask(post("/_bulk", "{}")).await.status, 200);
        }
        assert_eq!(upstream.seen().len(), 6, "{ahead}");
        assert_eq!(upstream.last().body, b"{}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_that_is_not_the_domains_own_is_not_believed() {
    let date = http_date(Timestamp::now() + SignedDuration::from_hours(1));
    for fields in [
        format!("Date: {date}\r\nAge: 10\r\n"),
        format!("Date: {date}\r\nVia: 1.1 cache\r\n"),
        "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n".to_owned(),
        String::new(),
    ] {
        let answer = says("403 Forbidden", &fields, EXPIRED);
        let upstream = Upstream::scripted(move |_, _| answer.clone()).await;
        let proxy = Proxy::before(&upstream, &[]).await;
        let answer = proxy.ask(get("/")).await;
        assert_eq!((answer.status, answer.text().as_str()), (403, EXPIRED));
        let explained = answer.field("x-opensearch-access-explained").unwrap();
        assert!(explained.contains("clocks"), "{explained}");
        assert_eq!(upstream.seen().len(), 1, "{fields}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_explained_and_passed_on_as_they_are() {
    for (body, words) in [
        (
            r#"{"Message":"User: x is not authorized to perform: es:ESHttpGet"}"#,
            "DomainAccess",
        ),
        (
            r#"{"error":{"type":"security_exception","reason":"no permissions for [indices:data/read/search]"}}"#,
            "securityRoles",
        ),
        (
            r#"{"message":"The request signature we calculated does not match the signature you provided.\n\nThe Canonical String for this request should have been\n'GET\n/other\n'"}"#,
            "the path is \"/\" here and \"/other\" there",
        ),
    ] {
        let answer = says("403 Forbidden", "Content-Type: application/json\r\n", body);
        let upstream = Upstream::scripted(move |_, _| answer.clone()).await;
        let proxy = Proxy::before(&upstream, &[]).await;
        let answer = proxy.ask(get("/")).await;
        assert_eq!((answer.status, answer.text().as_str()), (403, body));
        let explained = answer.field("x-opensearch-access-explained").unwrap();
        assert!(explained.contains(words), "{explained}");
        assert_eq!(upstream.seen().len(), 1, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_reads_is_tried_again_and_nothing_else_is() {
    let upstream = Upstream::scripted(|number, seen| {
        if number == 0 || seen.line().starts_with("POST") {
            return Do::Close;
        }
        says("200 OK", "", "{}")
    })
    .await;
    let proxy = Proxy::before(&upstream, &[]).await;
    assert_eq!(proxy.ask(get("/")).await.status, 200);
    assert_eq!(upstream.seen().len(), 2);
    let answer = proxy.ask(post("/_bulk", "{}")).await;
    assert_eq!(answer.status, 502);
    assert!(
        answer.text().contains("signing_proxy_upstream_broken"),
        "{answer:?}"
    );
    assert_eq!(upstream.seen().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_closes_idle_connections_is_asked_on_others() {
    let upstream = Upstream::scripted(|_, _| {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        Do::SayAndClose(text.into())
    })
    .await;
    let proxy = Proxy::before(&upstream, &[]).await;
    for _ in 0..20 {
        assert_eq!(proxy.ask(post("/_bulk", "{}")).await.status, 200);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(upstream.seen().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_passed_on_whatever_they_are() {
    let upstream = Upstream::scripted(|_, seen| {
        let raw = |text: &str| Do::Say(text.as_bytes().to_vec());
        match seen.line().split(' ').nth(1).unwrap() {
            "/none" => raw("HTTP/1.1 204 No Content\r\n\r\n"),
            "/head" => raw("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"),
            "/early" => raw("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            "/hops" => raw("HTTP/1.1 200 OK\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nX-Kept: 1\r\nX-Kept: 2\r\nContent-Length: 2\r\n\r\nok"),
            "/chunks" => raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"),
            "/moved" => says("302 Found", "Location: http://169.254.169.254/\r\n", ""),
            "/gzip" => says("200 OK", "Content-Encoding: gzip\r\n", "not really"),
            _ => says("200 OK", "", ""),
        }
    })
    .await;
    let proxy = Proxy::before(&upstream, &[]).await;
    assert_eq!(proxy.ask(get("/none")).await.status, 204);
    assert_eq!(proxy.ask(get("/early")).await.text(), "ok");
    assert_eq!(proxy.ask(get("/chunks")).await.text(), "abc");
    let hops = proxy.ask(get("/hops")).await;
    assert_eq!(
        (
            hops.field("x-hop"),
            hops.field("keep-alive"),
            hops.field("connection")
        ),
        (None, None, None)
    );
    assert_eq!(hops.head.matches("x-kept").count(), 2, "{}", hops.head);
    let moved = proxy.ask(get("/moved")).await;
    assert_eq!(
        (moved.status, moved.field("location")),
        (302, Some("http://169.254.169.254/"))
    );
    let zipped = proxy.ask(get("/gzip")).await;
    assert_eq!(
        (zipped.field("content-encoding"), zipped.text().as_str()),
        (Some("gzip"), "not really")
    );
    let mut client = Client::connect(proxy.address).await;
    client
        .send(b"HEAD /head HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    let head = client.answer_to(true).await.unwrap();
    assert_eq!(head.field("content-length"), Some("1234"));
    client.send(get("/chunks").as_bytes()).await;
    assert_eq!(client.answer().await.unwrap().text(), "abc");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_passed_on_as_it_comes_and_one_that_breaks_off_is_seen_to() {
    let told = Arc::new(Notify::new());
    let tell = Arc::clone(&told);
    let upstream = Upstream::scripted(move |_, seen| {
        let first = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc".to_vec();
        if seen.line().contains("/broken") {
            return Do::SayAndClose(first);
        }
        Do::SayTwice(first, b"def".to_vec(), Arc::clone(&told))
    })
    .await;
    let proxy = Proxy::before(&upstream, &[]).await;
    let mut client = Client::connect(proxy.address).await;
    client.send(get("/slow").as_bytes()).await;
    // The first piece is there while the second is not.
    assert!(client.more().await);
    tell.notify_one();
    assert_eq!(client.answer().await.unwrap().text(), "abcdef");

    let mut client = Client::connect(proxy.address).await;
    client.send(get("/broken").as_bytes()).await;
    assert!(client.answer().await.is_none(), "it looks whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_does_not_answer_costs_one_request_and_no_connection() {
    let upstream = Upstream::scripted(|number, _| match number {
        0 => Do::Hang,
        _ => says("200 OK", "", "{}"),
    })
    .await;
    let proxy = Proxy::before(&upstream, &["--request-timeout", "2"]).await;
    let mut client = Client::connect(proxy.address).await;
    client.send(post("/_bulk", "{}").as_bytes()).await;
    let answer = client.answer().await.unwrap();
    assert_eq!(answer.status, 504);
    assert!(
        answer.text().contains("2s (--request-timeout)"),
        "{answer:?}"
    );
    // The connection lives for ten times as long.
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        client.send(get("/").as_bytes()).await;
        assert_eq!(client.answer().await.unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_is_not_there_is_told_in_json() {
    let upstream = Upstream::open().await;
    let address = upstream.address;
    let proxy = Proxy::before(&upstream, &[]).await;
    drop(upstream);
    let gone = async || {
        let answer = proxy.ask(get("/")).await;
        (answer.status == 502).then_some(answer)
    };
    let answer = super::program::until("nobody listens", gone).await;
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["error"]["type"], "signing_proxy_upstream_unreachable");
    assert_eq!(body["status"], 502);
    assert_eq!(
        answer.field("x-opensearch-access-proxy-error"),
        Some("upstream_unreachable")
    );
    assert!(!proxy.log().contains(&format!("{address} panicked")));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_refused_are_asked_for_anew_once() {
    static REFUSES: AtomicBool = AtomicBool::new(true);
    let upstream = Upstream::scripted(|_, _| {
        if REFUSES.load(Ordering::Relaxed) {
            let body = r#"{"message":"The security token included in the request is expired"}"#;
            return says("403 Forbidden", "", body);
        }
        says("200 OK", "", "{}")
    })
    .await;
    let proxy = Proxy::before(&upstream, &[]).await;
    // The same are given again, so that there is no sense in another try.
    let answer = proxy.ask(get("/")).await;
    assert_eq!((answer.status, upstream.seen().len()), (403, 1));
    let explained = answer.field("x-opensearch-access-explained").unwrap();
    assert!(explained.contains("credentials"), "{explained}");
    REFUSES.store(false, Ordering::Relaxed);
    assert_eq!(proxy.ask(get("/")).await.status, 200);
}
