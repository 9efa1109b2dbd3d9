//! What no log shows, at any level, whatever becomes of a request.

use super::program::{Client, KEY_ID, Proxy, SECRET, TOKEN, get, post};
use super::upstream::{Do, Upstream, says};

/// Is in whatever must not be seen.
const CANARY: &str = "canary";

/// Requests with something to hide in query, fields and body, and how each is answered.
fn requests() -> Vec<(Vec<u8>, u16)> {
    let with = |method: &str, target: &str, fields: &str, body: &str| {
        let length = body.len();
        format!(
            "{method} {target} HTTP/1.1\r\nCookie: canary\r\nAuthorization: Basic canary\r\nX-Amz-Security-Token: canary\r\nX-Mine: canary\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    };
    let here = "Host: localhost\r\n";
    vec![
        (with("POST", "/x?q=canary", here, "canary"), 200),
        (with("GET", "/broken?q=canary", here, ""), 502),
        (with("POST", "/broken?q=canary", here, "canary"), 502),
        (with("GET", "/refused?q=canary", here, ""), 403),
        (with("GET", "/nonsense?q=canary", here, ""), 502),
        (with("GET", "/x?q=canary", "Host: canary\r\n", ""), 421),
        (
            with("GET", "/x?q=canary&X-Amz-Signature=canary", here, ""),
            400,
        ),
        (with("GET", "http://canary/", here, ""), 400),
        (with("TRACE", "/x?q=canary", here, "canary"), 405),
        (
            with("GET", "/x", "Host: localhost\r\nOrigin: canary\r\n", ""),
            403,
        ),
        (
            with("GET", "/x", "Host: localhost\r\nExpect: canary\r\n", ""),
            417,
        ),
        (
            with("GET", "/x", "Host: localhost\r\nUpgrade: canary\r\n", ""),
            400,
        ),
        (
            with(
                "GET",
                "/x",
                "Host: localhost\r\nTransfer-Encoding: canary\r\n",
                "",
            ),
            400,
        ),
        (with("GET", "/x\0canary", here, ""), 400),
        (
            b"GET /x HTTP/1.1\r\nHost: localhost\r\nX: canary\0\r\n\r\n".to_vec(),
            400,
        ),
        (b"canary canary canary\r\n\r\n".to_vec(), 400),
        (
            b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\ncanary\r\n"
                .to_vec(),
            400,
        ),
        (with("POST", "/x", here, &CANARY.repeat(1 << 18)), 413),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_a_request_nothing_of_it_is_told_but_its_path() {
    let upstream = Upstream::scripted(|_, seen| {
        let line = seen.line();
        if line.contains("/broken") {
            return Do::Close;
        }
        if line.contains("/nonsense") {
            return Do::SayAndClose(b"canary canary\r\n\r\n".to_vec());
        }
        let fields = "Set-Cookie: canary\r\n";
        if line.contains("/refused") {
            let body = r#"{"Message":"User: canary is not authorized to perform: es:ESHttpGet"}"#;
            return says("403 Forbidden", fields, body);
        }
        says("200 OK", fields, "{\"canary\": 1}")
    })
    .await;
    let options = ["--log", "trace", "--access-log", "--body-limit", "1MiB"];
    let proxy = Proxy::before(&upstream, &options).await;
    for (request, status) in requests() {
        let shown: String = String::from_utf8_lossy(&request).chars().take(60).collect();
        assert_eq!(proxy.ask(&request).await.status, status, "{shown:?}");
    }
    // Who goes away within a body, and within an answer.
    for bytes in [
        "POST /x?q=canary HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\ncanary"
            .to_owned(),
        post("/x?q=canary", "canary"),
    ] {
        let mut client = Client::connect(proxy.address).await;
        client.send(bytes.as_bytes()).await;
    }
    assert_eq!(proxy.ask(get("/last")).await.status, 200);
    let signatures: Vec<String> = upstream
        .seen()
        .iter()
        .filter_map(|it| it.field("authorization")?.split("Signature=").nth(1))
        .map(str::to_owned)
        .collect();
    assert!(signatures.len() > 5);
    let (log, metrics) = (proxy.log(), proxy.utility("/metrics").await.1);
    assert!(
        log.contains("TRACE") && log.contains("path=\"/last\""),
        "{log}"
    );
    for text in [&log, &metrics] {
        let secrets = [CANARY, SECRET, TOKEN, KEY_ID].into_iter();
        for secret in secrets.chain(signatures.iter().map(String::as_str)) {
            let line = text.lines().find(|it| it.contains(secret));
            assert!(line.is_none(), "{secret:?}: {line:?}");
        }
    }
}
