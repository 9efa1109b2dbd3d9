//! Everything that can be asked, raw through the proxy, and signed as botocore would sign what
//! arrives: each case of canonicalisation by itself, and a thousand random requests.

use super::program::{Client, Proxy};
use super::signatures::disputed;
use super::upstream::{Do, Upstream, says};

const RANDOM: usize = 1000;

/// Targets one by one, as a client sends them.
const TARGETS: &[&str] = &[
    // Paths.
    "/",
    "/_bulk",
    "/_search/",
    "//",
    "///a//b",
    "/a/./b",
    "/a/../b",
    "/../a",
    "/a/..",
    "/a/b/..",
    "/a/.",
    "/...",
    "/a%2Fb",
    "/a%2fb",
    "/a%20b",
    "/a%2Bb%3D",
    "/*/_search",
    "/%2A/_search",
    "/a,b/_search",
    "/a:b",
    "/_doc/a=b",
    "/a@b/a+b",
    "/a!$&'();b",
    "/%3Clogstash-%7Bnow%2Fd%7D%3E/_search",
    "/%3Clogstash-%7Bnow%2Fd%7Byyyy.MM.dd%7C%2B12:00%7D%7D%3E/_search",
    "/%E6%97%A5",
    "/\u{65e5}\u{672c}",
    "/caf\u{e9}/_doc/\u{1f600}",
    "/100%25",
    "/100%",
    "/%zz",
    "/-._~0aZ",
    "/%7E",
    "/%C3%28",
    // Queries.
    "/?",
    "/?a",
    "/?a=",
    "/?=b",
    "/?&&a",
    "/?b=1&a=2",
    "/?a=2&a=1",
    "/?a=1&A=1",
    "/?a-b=1&a=1",
    "/?ab=1&a=2",
    "/?z=1&\u{e9}=1",
    "/?q=a+b",
    "/?q=a%2Bb",
    "/?q=a%20b",
    "/?scroll_id=abc==",
    "/?filter_path=*.took,-x",
    "/?q=user:kim%20AND%20_exists_:x",
    "/?x=a%2fb",
    "/?x=%ff",
    "/?x=%zz",
    "/?x=a;b=c",
    "/?x=a/b?c",
    "/?x=%00",
    "/?x=~&y=%7E",
    "/?pretty&human",
    "/logs-*,-old/_search?q=%E6%97%A5&sort=@timestamp:desc&ignore_unavailable",
];

/// What OpenSearch's clients send, gzip'd.
const GZIPPED: &[u8] = &[
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0xab, 0xae, 0x05, 0x00, 0x43, 0xbf,
    0xa6, 0xa3, 0x02, 0x00, 0x00, 0x00,
];

/// What paths are put together from.
const PATH: &[&str] = &[
    "a",
    "B",
    "7",
    "/",
    "//",
    "/./",
    "/_search",
    "/_doc/",
    "logs-*",
    ",",
    ":",
    "=",
    "@",
    "+",
    "!",
    "$",
    "&",
    "'",
    "(",
    ")",
    ";",
    "*",
    "%2F",
    "%2f",
    "%25",
    "%20",
    "%E6%97%A5",
    "\u{65e5}",
    "\u{e9}",
    "%",
    "%z",
    "~",
    "-",
    ".",
    "_",
];

/// What queries are put together from.
const QUERY: &[&str] = &[
    "a",
    "A",
    "b",
    "=",
    "&",
    "&&",
    "q=",
    "x=1",
    "pretty",
    "+",
    "%2B",
    "%2f",
    "*",
    ",",
    "-",
    ".",
    ":",
    ";",
    "/",
    "?",
    "%",
    "%zz",
    "%C3%A9",
    "\u{e9}",
    "~",
    "%7E",
    "scroll_id=",
    "==",
    "%00",
    "%ff",
];

/// Spells a request whose body, if it has one, is as long as it says.
fn request(method: &str, target: &str, fields: &str, body: Option<&[u8]>) -> Vec<u8> {
    let length = body.map_or(String::new(), |it| {
        format!("Content-Length: {}\r\n", it.len())
    });
    let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}{length}\r\n");
    [head.as_bytes(), body.unwrap_or_default()].concat()
}

/// Spells one whose body comes in chunks of a size.
fn chunked(method: &str, target: &str, body: &[u8], size: usize) -> Vec<u8> {
    let fields = "Transfer-Encoding: chunked\r\n";
    let mut spelt = request(method, target, fields, None);
    for chunk in body.chunks(size) {
        spelt.extend(format!("{:x};ext=1\r\n", chunk.len()).as_bytes());
        spelt.extend(chunk);
        spelt.extend(b"\r\n");
    }
    spelt.extend(b"0\r\nx-trailer: 1\r\n\r\n");
    spelt
}

/// Bodies one by one: each as it is sent, and as it has to arrive.
fn bodies() -> Vec<(Vec<u8>, Vec<u8>)> {
    let lines = "{\"index\":{}}\r\n{\"x\":\"\u{65e5}\"}\n".as_bytes();
    let every: Vec<u8> = (0..=255).collect();
    let long = every.repeat(1024);
    let gzip = "Content-Encoding: gzip\r\nContent-Type: application/json\r\n";
    let mut cases = vec![
        (request("POST", "/_bulk", "", Some(b"")), Vec::new()),
        (request("POST", "/_refresh", "", None), Vec::new()),
        (request("DELETE", "/x", "", None), Vec::new()),
        (request("OPTIONS", "/", "", None), Vec::new()),
        (
            request("POST", "/_search", gzip, Some(GZIPPED)),
            GZIPPED.to_vec(),
        ),
        (
            request("GET", "/_search", "", Some(b"{\"size\":1}")),
            b"{\"size\":1}".to_vec(),
        ),
        (
            request("DELETE", "/_search/scroll", "", Some(b"{}")),
            b"{}".to_vec(),
        ),
    ];
    for method in ["POST", "PUT", "PATCH"] {
        for body in [lines, &every[..], &long] {
            let sent = request(method, "/logs/_doc/1", "", Some(body));
            cases.push((sent, body.to_vec()));
            cases.push((chunked(method, "/_bulk", body, 1000), body.to_vec()));
        }
    }
    cases
}

/// Opens an upstream that says 200 to everything, and sends no body where there must be none.
async fn open() -> Upstream {
    Upstream::scripted(|_, seen| {
        if seen.line().starts_with("HEAD ") {
            return Do::Say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n".to_vec());
        }
        says("200 OK", "", "{}")
    })
    .await
}

/// Asks on a connection that is used again for as long as it stays open.
struct Asking<'a> {
    proxy: &'a Proxy,
    client: Option<Client>,
}

impl Asking<'_> {
    async fn status(&mut self, request: &[u8]) -> u16 {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(self.proxy.address).await,
        };
        client.send(request).await;
        let is_head = request.starts_with(b"HEAD ");
        let answer = client.answer_to(is_head).await.expect("an answer");
        if answer.field("connection") != Some("close") {
            self.client = Some(client);
        }
        answer.status
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_case_is_signed_as_by_botocore() {
    let upstream = open().await;
    let proxy = Proxy::before(&upstream, &[]).await;
    let mut asking = Asking {
        proxy: &proxy,
        client: None,
    };
    for target in TARGETS {
        for method in ["GET", "HEAD"] {
            let status = asking.status(&request(method, target, "", None)).await;
            assert_eq!(status, 200, "{method} {target}");
        }
    }
    for (sent, arrives) in bodies() {
        let shown = String::from_utf8_lossy(&sent[..sent.len().min(80)]);
        assert_eq!(asking.status(&sent).await, 200, "{shown}");
        assert!(upstream.last().body == arrives, "{shown}");
    }
    let cases = 2 * TARGETS.len() + bodies().len();
    assert!(cases >= 45);
    assert_eq!(upstream.seen().len(), cases);
    upstream.verify_signatures().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_unhashed_is_signed_as_by_botocore() {
    let upstream = open().await;
    let proxy = Proxy::before(&upstream, &["--unsigned-payload"]).await;
    let mut asking = Asking {
        proxy: &proxy,
        client: None,
    };
    for target in TARGETS {
        let sent = request("POST", target, "", Some(b"{}"));
        assert_eq!(asking.status(&sent).await, 200, "{target}");
        let seen = upstream.last();
        assert_eq!(seen.field("x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"));
    }
    upstream.verify_signatures().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_random_requests_are_signed_as_by_botocore() {
    let upstream = open().await;
    let proxy = Proxy::before(&upstream, &[]).await;
    let mut asking = Asking {
        proxy: &proxy,
        client: None,
    };
    let mut random = fastrand::Rng::with_seed(6);
    let mut arrived = 0;
    while arrived < RANDOM {
        let mut text = |most: usize, pieces: &[&str]| {
            let length = random.usize(..=most);
            let mut piece = || pieces[random.usize(..pieces.len())];
            (0..length).map(|_| piece()).collect::<String>()
        };
        let target = format!("/{}?{}", text(8, PATH), text(10, QUERY));
        let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"];
        let method = methods[random.usize(..methods.len())];
        let body: Vec<u8> = (0..random.usize(..300)).map(|_| random.u8(..)).collect();
        let sent = match random.u8(..3) {
            _ if method == "HEAD" => request(method, &target, "", None),
            0 => request(method, &target, "", None),
            1 => chunked(method, &target, &body, random.usize(1..=100)),
            _ => request(method, &target, "", Some(&body)),
        };
        match asking.status(&sent).await {
            200 => arrived += 1,
            // What servers read in several ways has its own tests.
            status => assert_eq!(status, 400, "{method} {target}"),
        }
    }
    assert_eq!(upstream.seen().len(), arrived);
    upstream.verify_signatures().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn botocore_disputes_what_another_secret_signed_and_what_was_changed_on_the_way() {
    let upstream = open().await;
    let proxy = Proxy::before(&upstream, &[]).await;
    let mut asking = Asking {
        proxy: &proxy,
        client: None,
    };
    let sent = request("POST", "/logs/_search?q=a", "", Some(b"{}"));
    assert_eq!(asking.status(&sent).await, 200);
    let seen = upstream.seen();
    assert_eq!(disputed(seen.clone(), "another").await.len(), 1);
    for (true_part, changed) in [
        ("POST /logs/", "PUT /logs/"),
        ("/logs/", "/logz/"),
        ("q=a", "q=b"),
        ("\r\nhost: ", "\r\nhost: x"),
        ("\r\nx-amz-security-token: ", "\r\nx-amz-security-token: x"),
    ] {
        let mut altered = seen[0].clone();
        altered.head = altered.head.replacen(true_part, changed, 1);
        assert_ne!(altered.head, seen[0].head, "{true_part:?} is there");
        let wrong = disputed(vec![altered], super::program::SECRET).await;
        assert_eq!(wrong.len(), 1, "{true_part:?}");
    }
    upstream.verify_signatures().await;
}
