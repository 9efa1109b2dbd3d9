//! What the proxy puts right of itself, and what it makes of answers that tell little.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::{SignedDuration, Timestamp};
use opensearch_access::sigv4::{Credentials, Payload, Request, Signer, Target};
use serde_json::json;
use tokio::sync::Notify;

use super::program::{Client, KEY_ID, KEYS, Proxy, SECRET, get, post, until};
use super::replies::http_date;
use super::upstream::{Do, Seen, Upstream, says};

/// Opens an upstream whose clock is ahead by an hour, and that says so in its own way.
async fn an_hour_ahead(refusal: &'static str) -> Upstream {
    Upstream::scripted(move |_, seen| {
        let now = Timestamp::now() + SignedDuration::from_hours(1);
        if seen.signed_at().duration_since(now).abs() < SignedDuration::from_mins(5) {
            return says("200 OK", "", "");
        }
        let date = http_date(now);
        let text = refusal.replace("DATE", &date);
        Do::Say(text.into_bytes())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_is_put_right_by_refusals_that_say_little() {
    for refusal in [
        "HTTP/1.1 403 Forbidden\r\nDate: DATE\r\nContent-Length: 97\r\n\r\n",
        "HTTP/1.1 403 Forbidden\r\nDate: DATE\r\nx-amzn-ErrorType: RequestTimeTooSkewed:\r\n\r\n",
    ] {
        let upstream = an_hour_ahead(refusal).await;
        let proxy = Proxy::before(&upstream, &[]).await;
        let mut client = Client::connect(proxy.address).await;
        client
            .send(b"HEAD /logs HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        assert_eq!(client.answer_to(true).await.unwrap().status, 200);
        assert_eq!(upstream.seen().len(), 2);
    }
    let chunked = "HTTP/1.1 403 Forbidden\r\nDate: DATE\r\nTransfer-Encoding: chunked\r\n\r\n1e\r\n{\"message\":\"Signature expired\"\r\n1\r\n}\r\n0\r\n\r\n";
    let upstream = an_hour_ahead(chunked).await;
    let proxy = Proxy::before(&upstream, &[]).await;
    assert_eq!(proxy.ask(post("/_bulk", "{}")).await.status, 200);
    assert_eq!(upstream.seen().len(), 2);
}

/// Such a body cannot be sent again; whoever comes next is served.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_is_put_right_by_bodies_that_are_passed_on_too() {
    let text = "HTTP/1.1 403 Forbidden\r\nDate: DATE\r\nContent-Length: 31\r\n\r\n{\"message\":\"Signature expired\"}";
    let upstream = an_hour_ahead(text).await;
    let proxy = Proxy::before(&upstream, &["--unsigned-payload"]).await;
    assert_eq!(proxy.ask(post("/_bulk", "{}")).await.status, 403);
    assert_eq!(proxy.ask(post("/_bulk", "{}")).await.status, 200);
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn unsigned_bodies_arrive_whatever_the_method_and_however_they_are_framed() {
    let upstream = Upstream::open().await;
    let proxy = Proxy::before(&upstream, &["--unsigned-payload"]).await;
    for method in ["GET", "POST", "DELETE"] {
        let head = format!("{method} /_search HTTP/1.1\r\nHost: localhost\r\n");
        for rest in [
            "Transfer-Encoding: chunked\r\n\r\n2\r\n{\"\r\n3\r\na\":\r\n2\r\n1}\r\n0\r\n\r\n",
            "Content-Length: 7\r\n\r\n{\"a\":1}",
        ] {
            let answer = proxy.ask(format!("{head}{rest}")).await;
            assert_eq!(answer.status, 200, "{method} {rest}");
            let seen = upstream.last();
            assert_eq!(seen.body, b"{\"a\":1}", "{method} {rest}");
            assert_eq!(seen.field("x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"));
        }
    }
}

/// What OpenSearch says may be a client's own words, and the request have been done.
#[tokio::test(flavor = "multi_thread")]
async fn words_of_a_client_are_not_taken_for_those_of_aws() {
    let date = http_date(Timestamp::now() + SignedDuration::from_hours(1));
    for body in [
        "Signature expired: so says a client",
        r#"{"error":{"type":"mapper_parsing_exception","reason":"The security token included in the request is expired"},"status":400}"#,
        r#"{"statusCode":400,"error":"Bad Request","message":"Signature expired: so says a client"}"#,
        r#"{"status":"BAD_REQUEST","message":"no such role: Signature expired"}"#,
    ] {
        let answer = says("400 Bad Request", &format!("Date: {date}\r\n"), body);
        let upstream = Upstream::scripted(move |_, _| answer.clone()).await;
        let proxy = Proxy::before(&upstream, &[]).await;
        let answer = proxy.ask(post("/_doc", "{}")).await;
        assert_eq!((answer.status, answer.text().as_str()), (400, body));
        assert_eq!(answer.field("x-opensearch-access-explained"), None);
        assert_eq!(upstream.seen().len(), 1, "{body}");
        let metrics = proxy.utility("/metrics").await.1;
        assert!(metrics.contains("clock_ahead_seconds 0\n"), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_stalls_costs_one_request_and_no_connection() {
    let upstream = Upstream::scripted(|number, _| {
        let text = "HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n{";
        match number {
            0 => Do::SayTwice(text.into(), Vec::new(), Arc::new(Notify::new())),
            _ => says("200 OK", "", "{}"),
        }
    })
    .await;
    let proxy = Proxy::before(&upstream, &["--request-timeout", "1"]).await;
    let mut client = Client::connect(proxy.address).await;
    client.send(post("/_bulk", "{}").as_bytes()).await;
    assert_eq!(client.answer().await.unwrap().status, 504);
    client.send(get("/").as_bytes()).await;
    assert_eq!(client.answer().await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_refusal_is_passed_on_whole() {
    let body = format!("{{\"reason\":\"{}\"}}", "x".repeat(300 << 10));
    let answer = says("400 Bad Request", "", &body);
    let upstream = Upstream::scripted(move |_, _| answer.clone()).await;
    let proxy = Proxy::before(&upstream, &[]).await;
    let mut client = Client::connect(proxy.address).await;
    for _ in 0..2 {
        client.send(get("/").as_bytes()).await;
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.status, answer.text()), (400, body.clone()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_changes_to_another_protocol_has_not_answered() {
    let upstream = Upstream::scripted(|_, _| {
        let text =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nbytes";
        Do::Say(text.into())
    })
    .await;
    let proxy = Proxy::before(&upstream, &[]).await;
    let answer = proxy.ask(get("/")).await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("upstream_broken"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_before_sending_too_much_is_not_told_to_send() {
    let upstream = Upstream::open().await;
    let proxy = Proxy::before(&upstream, &["--body-limit", "1MiB"]).await;
    let head = "POST /_bulk HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n";
    let mut client = Client::connect(proxy.address).await;
    client.send(head.as_bytes()).await;
    assert_eq!(client.answer().await.unwrap().status, 413);
    assert!(client.is_closed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_unknown_length_holds_no_more_room_than_it_needs() {
    let upstream = Upstream::scripted(|_, _| Do::Hang).await;
    let proxy = Proxy::before(&upstream, &[]).await;
    let chunk = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
    let mut client = Client::connect(proxy.address).await;
    let head = "POST /_bulk HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let whole = format!("{head}{}0\r\n\r\n", chunk.repeat(5));
    client.send(whole.as_bytes()).await;
    let arrived = async || (upstream.seen().len() == 1).then_some(());
    until("it has arrived", arrived).await;
    assert_eq!(upstream.last().body.len(), 5 << 20);
    let metrics = proxy.utility("/metrics").await.1;
    let room = format!("body_held_bytes {}\n", 5 << 20);
    assert!(metrics.contains(&room), "{metrics}");
}

/// Verifies as the service does, and says what it expected.
fn verified(seen: &Seen, secret: &str) -> Do {
    let keys = Credentials::new(KEY_ID, secret, None).unwrap();
    let signer = Signer::new(keys, "eu-west-1", "es");
    let target = seen.line().split(' ').nth(1).unwrap();
    let request = Request {
        method: seen.line().split(' ').next().unwrap(),
        host: seen.field("host").unwrap(),
        target: &Target::parse(target.as_bytes()).unwrap(),
        payload: Payload::of(&seen.body),
    };
    let at = seen.signed_at();
    let expected = signer.sign(&request, at).authorization;
    if seen.field("authorization") == Some(&expected) {
        return says("200 OK", "", "{}");
    }
    let canonical = signer.canonical_request(&request, at);
    let message = format!(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.\n\nThe Canonical String for this request should have been\n'{canonical}'\n\nThe String-to-Sign should have been\n'...'"
    );
    says(
        "403 Forbidden",
        "",
        &json!({"message": message}).to_string(),
    )
}

fn write_keys(file: &Path, secret: &str) {
    let text = format!("[default]\naws_access_key_id={KEY_ID}\naws_secret_access_key={secret}\n");
    std::fs::write(file, text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_was_wrong_is_read_again_once_it_is_refused() {
    let upstream = Upstream::scripted(|_, seen| verified(seen, SECRET)).await;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("credentials");
    write_keys(&file, "wrong");
    let variables = [
        ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap()),
        ("AWS_CONFIG_FILE", "/nowhere"),
    ];
    let url = format!("http://{}", upstream.address);
    let proxy = Proxy::start(&url, &variables, &[]).await;
    proxy.until_ready().await;
    let answer = proxy.ask(get("/")).await;
    assert_eq!(answer.status, 403);
    let explained = answer.field("x-opensearch-access-explained").unwrap();
    assert!(explained.contains("secret key"), "{explained}");
    write_keys(&file, SECRET);
    assert_eq!(proxy.ask(post("/_bulk", "{}")).await.status, 200);
}

/// As on a machine whose clock is ahead by more than its credentials last.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_seem_to_have_expired_are_used_until_they_are_refused() {
    let refused = r#"{"message":"The security token included in the request is expired"}"#;
    let upstream = Upstream::scripted(move |number, _| match number {
        0 => says("200 OK", "", "{}"),
        _ => says("403 Forbidden", "", refused),
    })
    .await;
    let home = tempfile::tempdir().unwrap();
    let given = home.path().join("given");
    let keys = json!({"Version": 1, "AccessKeyId": KEY_ID, "SecretAccessKey": SECRET,
        "SessionToken": "t", "Expiration": (Timestamp::now() - SignedDuration::from_hours(1)).to_string()});
    std::fs::write(&given, keys.to_string()).unwrap();
    let process = format!("/bin/cat {}", given.display());
    let proxy = Proxy::given_by(&upstream, &process).await;
    assert_eq!(proxy.ask(get("/")).await.status, 200);
    assert_eq!(proxy.ask(get("/")).await.status, 403);
    let answer = proxy.ask(get("/")).await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("expired"), "{answer:?}");
    assert_eq!(upstream.seen().len(), 2);
}

/// The service closes those that are idle for a minute, and a request may just then be under way.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_to_the_domain_are_used_again_and_closed_before_the_domain_does() {
    let upstream = Upstream::open().await;
    let proxy = Proxy::before(&upstream, &[]).await;
    for _ in 0..20 {
        assert_eq!(proxy.ask(post("/_bulk", "{}")).await.status, 200);
    }
    assert_eq!(upstream.connections(), 1, "they are used again");
    let closed = async {
        while upstream.connections() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    let patience = std::time::Duration::from_mins(3);
    let closed = tokio::time::timeout(patience, closed).await;
    closed.expect("idle connections are closed");
}

/// As when a domain is deployed anew, behind other addresses.
#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_moves_is_found_at_its_new_address() {
    let closes = |_: usize, _: &Seen| {
        Do::SayAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec())
    };
    let old = Upstream::scripted(closes).await;
    let port = old.address.port();
    let new = Upstream::on(([127, 0, 0, 2], port).into(), closes).await;
    let home = tempfile::tempdir().unwrap();
    let hosts = home.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 search.example\n").unwrap();
    let url = format!("http://search.example:{port}");
    let proxy = Proxy::with_hosts(&url, &hosts).await;
    assert_eq!(proxy.ask(post("/_bulk", "{}")).await.status, 200);
    assert_eq!((old.seen().len(), new.seen().len()), (1, 0));
    std::fs::write(&hosts, "127.0.0.2 search.example\n").unwrap();
    assert_eq!(proxy.ask(post("/_bulk", "{}")).await.status, 200);
    assert_eq!((old.seen().len(), new.seen().len()), (1, 1));
    let host = format!("search.example:{port}");
    assert_eq!(new.last().field("host"), Some(host.as_str()));
}

/// However long they say they are: what does not come takes no room from others.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_stand_still_keep_nobody_waiting() {
    let upstream = Upstream::open().await;
    let proxy = Proxy::before(&upstream, &[]).await;
    let mut stalled = Vec::new();
    for length in [1_000_000, 90_000_000] {
        let head = format!(
            "POST /_bulk HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n0123456789"
        );
        for _ in 0..100 {
            let mut client = Client::connect(proxy.address).await;
            client.send(head.as_bytes()).await;
            stalled.push(client);
        }
    }
    let held = format!("body_held_bytes {}\n", 200 * (64 << 10));
    let all = async || {
        let metrics = proxy.utility("/metrics").await.1;
        metrics.contains(&held).then_some(())
    };
    until("all of them wait", all).await;
    let body = "x".repeat(2 << 20);
    for body in ["{}", body.as_str()] {
        assert_eq!(proxy.ask(post("/_bulk", body)).await.status, 200);
    }
    drop(stalled);
}

/// The plugin compresses what it says to whoever asks for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_refusal_is_explained_and_passes_unchanged() {
    let words = r#"{"error":{"type":"security_exception","reason":"no permissions for [indices:data/read/search] and User [name=a, backend_roles=[], requestedTenant=null]"},"status":403}"#;
    let mut coder = GzEncoder::new(Vec::new(), Compression::default());
    coder.write_all(words.as_bytes()).unwrap();
    let body = coder.finish().unwrap();
    let length = body.len();
    let head = format!(
        "HTTP/1.1 403 Forbidden\r\nContent-Encoding: gzip\r\nContent-Length: {length}\r\n\r\n"
    );
    let mut whole = head.into_bytes();
    whole.extend(&body);
    let upstream = Upstream::scripted(move |_, _| Do::Say(whole.clone())).await;
    let proxy = Proxy::before(&upstream, &[]).await;
    let answer = proxy.ask(get("/logs/_search")).await;
    assert_eq!((answer.status, &answer.body), (403, &body));
    let explained = answer.field("x-opensearch-access-explained").unwrap();
    assert!(explained.contains("security plugin"), "{explained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_stalls_is_given_up_and_a_slow_one_is_not() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
    let upstream = Upstream::scripted(move |_, seen| {
        if seen.line().contains("stalls") {
            let begun = format!("{head}ab");
            return Do::SayTwice(begun.into(), Vec::new(), Arc::new(Notify::new()));
        }
        let pieces = [head, "a", "b", "c", "d"].map(|it| it.as_bytes().to_vec());
        Do::SaySlowly(pieces.to_vec(), Duration::from_millis(600))
    })
    .await;
    let proxy = Proxy::before(&upstream, &["--request-timeout", "1"]).await;
    let mut client = Client::connect(proxy.address).await;
    client.send(get("/stalls").as_bytes()).await;
    assert!(client.answer().await.is_none(), "it cannot be whole");
    let answer = proxy.ask(get("/slow")).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "abcd"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_parser_refuses_is_counted() {
    let upstream = Upstream::open().await;
    let proxy = Proxy::before(&upstream, &[]).await;
    for bad in [
        "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        "NO METHOD / HTTP/1.1\r\n\r\n",
    ] {
        let mut client = Client::connect(proxy.address).await;
        client.send(bad.as_bytes()).await;
        assert_eq!(client.answer().await.unwrap().status, 400, "{bad}");
    }
    let counted = "opensearch_access_proxy_refusals_total{class=\"malformed_request\"} 2\n";
    until("both are counted", async || {
        let metrics = proxy.utility("/metrics").await.1;
        metrics.contains(counted).then_some(())
    })
    .await;
}

/// However many fail at once, a log says why.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_why_the_domain_gives_no_answer() {
    let upstream = Upstream::scripted(|_, _| Do::Close).await;
    let proxy = Proxy::before(&upstream, &[]).await;
    for _ in 0..20 {
        assert_eq!(proxy.ask(post("/_bulk", "{}")).await.status, 502);
    }
    let log = proxy.log();
    let said: Vec<&str> = log
        .lines()
        .filter(|it| it.contains("a request failed"))
        .collect();
    assert_eq!(said.len(), 1, "{log}");
    assert!(
        said[0].contains("the connection to the domain broke"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_may_say_yes_in_the_usual_words() {
    let upstream = Upstream::open().await;
    let url = format!("http://{}", upstream.address);
    for (word, status) in [
        ("1", 403),
        ("yes", 403),
        ("on", 403),
        ("0", 200),
        ("off", 200),
    ] {
        let own = [("PROXY_READ_ONLY", word)];
        let proxy = Proxy::start(&url, &[&KEYS[..], &own].concat(), &[]).await;
        proxy.until_ready().await;
        assert_eq!(
            proxy.ask(post("/_bulk", "{}")).await.status,
            status,
            "{word}"
        );
    }
}
