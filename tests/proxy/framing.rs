//! Requests whose end could be read in two ways: none of them makes a second request upstream.

use super::program::{Client, PATIENCE, Proxy, get};
use super::upstream::{Seen, Upstream, says};

/// A request that must never be seen upstream: it hides in another's body.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Sends bytes, half-closes nothing, and returns the statuses of all answers until the connection is
/// closed or falls silent.
async fn statuses(proxy: &Proxy, bytes: &[u8]) -> (Vec<u16>, bool) {
    let mut client = Client::connect(proxy.address).await;
    client.send(bytes).await;
    let mut all = Vec::new();
    loop {
        let answer = tokio::time::timeout(PATIENCE / 3, client.answer()).await;
        match answer {
            Ok(Some(answer)) => all.push(answer.status),
            Ok(None) => return (all, true),
            Err(_) => return (all, false),
        }
    }
}

fn hidden(seen: &[Seen]) -> bool {
    seen.iter().any(|it| it.line().contains("/hidden"))
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn no_body_becomes_a_request() {
    let upstream = Upstream::open().await;
    let proxy = Proxy::before(&upstream, &[]).await;
    let length = HIDDEN.len();
    let chunk = format!("{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n");
    let head = "POST /x HTTP/1.1\r\nHost: localhost\r\n";
    // Each is refused, and its connection closed.
    for (name, request) in [
        (
            "CL.TE",
            format!(
                "{head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"
            ),
        ),
        (
            "TE.CL",
            format!("{head}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{chunk}"),
        ),
        (
            "CL+CL",
            format!("{head}Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"),
        ),
        (
            "CL=CL",
            format!("{head}Content-Length: 0\r\nContent-Length: 0\r\n\r\n{HIDDEN}"),
        ),
        (
            "CL list",
            format!("{head}Content-Length: 0, {length}\r\n\r\n{HIDDEN}"),
        ),
        (
            "CL sign",
            format!("{head}Content-Length: +0\r\n\r\n{HIDDEN}"),
        ),
        (
            "CL hex",
            format!("{head}Content-Length: 0x0\r\n\r\n{HIDDEN}"),
        ),
        (
            "CL spaced",
            format!("{head}Content-Length : 0\r\n\r\n{HIDDEN}"),
        ),
        (
            "TE.TE",
            format!("{head}Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n{chunk}"),
        ),
        (
            "TE twice",
            format!("{head}Transfer-Encoding: chunked, chunked\r\n\r\n{chunk}"),
        ),
        (
            "TE other",
            format!("{head}Transfer-Encoding: xchunked\r\n\r\n{chunk}"),
        ),
        (
            "TE identity",
            format!("{head}Transfer-Encoding: identity\r\n\r\n{HIDDEN}"),
        ),
        (
            "TE spaced",
            format!("{head}Transfer-Encoding : chunked\r\n\r\n{chunk}"),
        ),
        (
            "TE tab",
            format!("{head}Transfer-Encoding:\tgzip, chunked\r\n\r\n{chunk}"),
        ),
        (
            "TE 1.0",
            format!(
                "POST /x HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"
            ),
        ),
        (
            "folded",
            format!("{head}X: a\r\n Content-Length: 0\r\n\r\n{HIDDEN}"),
        ),
        (
            "folded CL",
            format!("{head}Content-Length:\r\n 0\r\n\r\n{HIDDEN}"),
        ),
        ("no colon", format!("{head}Content-Length\r\n\r\n{HIDDEN}")),
        ("no name", format!("{head}: x\r\n\r\n{HIDDEN}")),
        ("NUL", format!("{head}X: a\0b\r\n\r\n{HIDDEN}")),
        (
            "bare CR",
            format!("{head}X: a\rContent-Length: 0\r\n\r\n{HIDDEN}"),
        ),
        (
            "two hosts",
            format!("GET /x HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n{HIDDEN}"),
        ),
        (
            "chunk size",
            format!("{head}Transfer-Encoding: chunked\r\n\r\n-1\r\n{HIDDEN}\r\n0\r\n\r\n"),
        ),
        (
            "chunk huge",
            format!("{head}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{HIDDEN}"),
        ),
        (
            "chunk end",
            format!("{head}Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n{HIDDEN}"),
        ),
        (
            "version",
            format!("GET /x HTTP/1.2\r\nHost: localhost\r\n\r\n{HIDDEN}"),
        ),
        (
            "version 2",
            format!("GET /x HTTP/2.0\r\nHost: localhost\r\n\r\n{HIDDEN}"),
        ),
        ("version 0.9", format!("GET /x\r\n\r\n{HIDDEN}")),
        (
            "spaces",
            format!("GET  /x HTTP/1.1\r\nHost: localhost\r\n\r\n{HIDDEN}"),
        ),
    ] {
        let before = upstream.seen().len();
        let (all, closed) = statuses(&proxy, request.as_bytes()).await;
        let [status] = all.as_slice() else {
            panic!("{name}: {all:?}");
        };
        assert!(
            closed && (400..=505).contains(status),
            "{name}: {status}, closed: {closed}"
        );
        let seen = upstream.seen();
        assert!(!hidden(&seen) && seen.len() == before, "{name}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_takes_its_body_with_it() {
    let upstream = Upstream::open().await;
    let proxy = Proxy::before(&upstream, &["--body-limit", "1MiB"]).await;
    let length = HIDDEN.len();
    for request in [
        format!(
            "POST /x HTTP/1.1\r\nHost: evil.example\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"
        ),
        format!(
            "CONNECT x:1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"
        ),
        format!("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n{HIDDEN}"),
        format!(
            "POST /x HTTP/1.1\r\nHost: localhost\r\nExpect: x\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n"
        ),
    ] {
        let mut client = Client::connect(proxy.address).await;
        client.send(request.as_bytes()).await;
        let answer = client.answer().await.unwrap();
        assert!(answer.status >= 400, "{request}: {answer:?}");
        let second = tokio::time::timeout(PATIENCE / 60, client.answer()).await;
        assert!(!matches!(second, Ok(Some(_))), "{request}: {second:?}");
        assert_eq!(upstream.seen().len(), 0, "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_behind_each_other_are_answered_in_order() {
    let upstream = Upstream::scripted(|_, seen| says("200 OK", "", seen.line())).await;
    let proxy = Proxy::before(&upstream, &[]).await;
    let mut client = Client::connect(proxy.address).await;
    let body = "POST /2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc";
    let all = format!("{}{body}{}", get("/1"), get("/3"));
    client.send(all.as_bytes()).await;
    for line in ["GET /1 HTTP/1.1", "POST /2 HTTP/1.1", "GET /3 HTTP/1.1"] {
        assert_eq!(client.answer().await.unwrap().text(), line);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_and_what_is_broken_too() {
    let upstream = Upstream::open().await;
    let proxy = Proxy::before(&upstream, &["--body-limit", "1MiB"]).await;
    let announced = "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048577\r\n\r\n";
    let answer = proxy.ask(announced).await;
    assert_eq!(
        (answer.status, answer.field("connection")),
        (413, Some("close"))
    );
    assert!(answer.text().contains("1048576 bytes"), "{answer:?}");
    let chunk = format!("40000\r\n{}\r\n", "x".repeat(0x40000));
    let chunked = format!(
        "POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        chunk.repeat(5)
    );
    assert_eq!(proxy.ask(chunked).await.status, 413);
    let fits = format!(
        "POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(4)
    );
    assert_eq!(proxy.ask(fits).await.status, 200);
    assert_eq!(upstream.last().body.len(), 1 << 20);

    let long = format!(
        "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "x".repeat(64 << 10)
    );
    assert_eq!(proxy.ask(long).await.status, 414);
    let flood = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
        "a: b\r\n".repeat(1000)
    );
    assert_eq!(proxy.ask(flood).await.status, 431);
    let bytes = b"GET / HTTP/1.1\r\nHost: localhost\r\nx: \xff\xfe\r\n\r\n";
    assert_eq!(proxy.ask(bytes).await.status, 200);
    // It lives.
    assert_eq!(proxy.ask(get("/")).await.status, 200);
    until_nothing_is_held(&proxy).await;
}

async fn until_nothing_is_held(proxy: &Proxy) {
    let look = async || {
        let metrics = proxy.utility("/metrics").await.1;
        metrics.contains("body_held_bytes 0\n").then_some(())
    };
    super::program::until("nothing is held", look).await;
}

/// A thousand clients that send a byte now and then keep nobody else waiting, and are cut off.
#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_are_cut_off_and_keep_nobody_waiting() {
    let upstream = Upstream::open().await;
    let proxy = Proxy::before(&upstream, &[]).await;
    let mut slow = Vec::new();
    for _ in 0..900 {
        let mut client = Client::connect(proxy.address).await;
        client.send(b"GET / HTTP/1.1\r\nHost: loc").await;
        slow.push(client);
    }
    for _ in 0..50 {
        assert_eq!(proxy.ask(get("/")).await.status, 200);
    }
    for client in &mut slow {
        assert!(client.is_closed().await);
    }
    // Between two requests there is no hurry.
    let mut patient = Client::connect(proxy.address).await;
    patient.send(get("/").as_bytes()).await;
    assert_eq!(patient.answer().await.unwrap().status, 200);
    tokio::time::sleep(std::time::Duration::from_secs(14)).await;
    patient.send(get("/").as_bytes()).await;
    assert_eq!(patient.answer().await.unwrap().status, 200);
}

/// HTTP/2 is not spoken here: whoever begins with it is cut off before anything else is read.
#[tokio::test(flavor = "multi_thread")]
async fn what_begins_as_http_2_is_cut_off() {
    let upstream = Upstream::open().await;
    let proxy = Proxy::before(&upstream, &[]).await;
    let preface = format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{HIDDEN}");
    assert_eq!(
        statuses(&proxy, preface.as_bytes()).await,
        (Vec::new(), true)
    );
    assert_eq!(upstream.seen().len(), 0);
}
