//! The shapes by which others were desynchronised, class by class (RFC 9112, sections 2.2 to 7; the
//! families of the published corpora): each is refused and its connection closed, before anything of it
//! goes upstream.

use tokio::time::timeout;

use super::program::{Client, PATIENCE, Proxy, get};
use super::upstream::Upstream;

/// A request that must never be seen upstream: it hides in another's body.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n";

const HEAD: &str = "POST /x HTTP/1.1\r\nHost: localhost\r\n";

/// A name and the bytes.
type Shape = (String, Vec<u8>);

fn shape(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Shape {
    (name.into(), bytes.into())
}

/// The hidden request as the chunk of a body.
fn chunks() -> String {
    format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len())
}

/// Ways to write `Transfer-Encoding` that some read as chunked, and some do not.
fn codings() -> Vec<Shape> {
    let lines: [&[u8]; 46] = [
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunkedx",
        b"Transfer-Encoding: chunke",
        b"Transfer-Encoding: cow",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding:",
        b"Transfer-Encoding: ,",
        b"Transfer-Encoding: chunked,",
        b"Transfer-Encoding: ,chunked",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: identity, chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked;q=1",
        b"Transfer-Encoding: chunked ;a=b",
        b"Transfer-Encoding: \"chunked\"",
        b"Transfer-Encoding: 'chunked'",
        b"Transfer-Encoding: chunked chunked",
        b"Transfer-Encoding: chu nked",
        b"Transfer-Encoding: \x0bchunked",
        b"Transfer-Encoding: \x0cchunked",
        b"Transfer-Encoding: chunked\x0b",
        b"Transfer-Encoding: chunked\x0c",
        b"Transfer-Encoding: \0chunked",
        b"Transfer-Encoding: chunked\0",
        b"Transfer-Encoding: chunked\xff",
        b"Transfer-Encoding: \xa0chunked",
        b"Transfer-Encoding: \xc2\xa0chunked",
        b"Transfer-Encoding: chunk\xe9d",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding\t: chunked",
        b"Transfer-Encoding\0: chunked",
        b"Transfer-Encoding\x0b: chunked",
        b"Transfer-Encoding",
        b"Transfer-Encoding chunked",
        b" Transfer-Encoding: chunked",
        b"\tTransfer-Encoding: chunked",
        b"Transfer-Encoding:\r\n chunked",
        b"Transfer-Encoding: chunked\r\n , identity",
        b"Transfer-Encoding:\n chunked",
        b"X: a\nTransfer-Encoding: chunked",
        b"X: a\rTransfer-Encoding: chunked",
        b"X: a\r\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\ntransfer-encoding: identity",
    ];
    let with = |line: &[u8]| [HEAD.as_bytes(), line, b"\r\n\r\n", chunks().as_bytes()].concat();
    lines
        .iter()
        .map(|line| shape(line.escape_ascii().to_string(), with(line)))
        .collect()
}

/// Ways to write a length that some read as another.
fn lengths() -> Vec<Shape> {
    let values: [&[u8]; 44] = [
        b"+0",
        b"-0",
        b"-1",
        b"0x0",
        b"0b0",
        b"0o0",
        b"0 0",
        b"0\t0",
        b"0,0",
        b"0, 0",
        b"0,",
        b",0",
        b"0;",
        b"0;a=b",
        b"0.0",
        b"0e0",
        b"0_0",
        b"_0",
        b"0l",
        b"0L",
        b"0u",
        b"\"0\"",
        b"'0'",
        b"(0)",
        b"[0]",
        b"{0}",
        b"",
        b" ",
        b"\t",
        b"NaN",
        b"null",
        b"true",
        b"zero",
        b"infinity",
        b"99999999999999999999999",
        b"18446744073709551616",
        b"\x0b0",
        b"0\x0b",
        b"\x0c0",
        b"0\0",
        b"\0",
        b"\xa00",
        b"\xef\xbc\x90",
        b"\xd9\xa0",
    ];
    let mut shapes: Vec<Shape> = values
        .iter()
        .map(|value| {
            let start = format!("{HEAD}Content-Length: ");
            let bytes = [start.as_bytes(), value, b"\r\n\r\n", HIDDEN.as_bytes()].concat();
            shape(format!("length {}", value.escape_ascii()), bytes)
        })
        .collect();
    let lines: [&[u8]; 19] = [
        b"Content-Length : 0",
        b"Content-Length\t: 0",
        b" Content-Length: 0",
        b"\tContent-Length: 0",
        b"Content-Length:\r\n 0",
        b"Content-Length:\r\n\t0",
        b"Content-Length: 0\r\n 0",
        b"Content-Length",
        b"Content-Length 0",
        b"Content Length: 0",
        b"Content-Length\0: 0",
        b"Content\x0b-Length: 0",
        b"\x01Content-Length: 0",
        b"Content-Length\xff: 0",
        b"Content-Length\x7f: 0",
        b"(Content-Length): 0",
        b"\"Content-Length\": 0",
        b"X: a\nContent-Length: 0",
        b"X: a\rContent-Length: 0",
    ];
    shapes.extend(lines.iter().map(|line| {
        let bytes = [HEAD.as_bytes(), line, b"\r\n\r\n", HIDDEN.as_bytes()].concat();
        shape(line.escape_ascii().to_string(), bytes)
    }));
    shapes
}

/// Two ways in one head to tell where the body ends.
fn contradictions() -> Vec<Shape> {
    let length = HIDDEN.len();
    let all = length + chunks().len();
    let lines = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked".to_owned(),
        "Transfer-Encoding: chunked\r\nContent-Length: 5".to_owned(),
        "transfer-encoding: CHUNKED\r\ncontent-length: 5".to_owned(),
        format!("Content-Length: {all}\r\nTransfer-Encoding: chunked"),
        "Content-Length: 0\r\nTransfer-Encoding: chunked".to_owned(),
        "Content-Length: 0\r\nX: y\r\nTransfer-Encoding: chunked".to_owned(),
        "Content-Length: 0\r\nTransfer-Encoding: identity".to_owned(),
        "Content-Length: 0\r\nTransfer-Encoding: xchunked".to_owned(),
        format!("Content-Length: 0\r\nContent-Length: {length}"),
        format!("Content-Length: {length}\r\nContent-Length: 0"),
        format!("Content-Length: {length}\r\nX: y\r\ncontent-length: {length}"),
        format!("Content-Length: {length}\r\nContent-Length: x"),
        "Content-Length: 0\r\nConnection: content-length\r\nContent-Length: 0".to_owned(),
        "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\nContent-Length: 5"
            .to_owned(),
    ];
    let body = chunks();
    let shapes = lines.into_iter();
    shapes
        .map(|line| shape(line.clone(), format!("{HEAD}{line}\r\n\r\n{body}")))
        .collect()
}

/// First lines that some read as a request, and some as another.
fn request_lines() -> Vec<Shape> {
    let lines: [&[u8]; 52] = [
        b"GET /x",
        b"GET",
        b"/x HTTP/1.1",
        b"HTTP/1.1 200 OK",
        b"GET  /x HTTP/1.1",
        b"GET /x  HTTP/1.1",
        b"GET\t/x HTTP/1.1",
        b"GET /x\tHTTP/1.1",
        b" GET /x HTTP/1.1",
        b"\tGET /x HTTP/1.1",
        b"GET /x HTTP/1.1 ",
        b"GET /x HTTP/1.1\t",
        b"GET /x HTTP/1.1x",
        b"GET /x HTTP/1.1 x",
        b"GET /x y HTTP/1.1",
        b"GET /x HTTP/1.10",
        b"GET /x HTTP/1.01",
        b"GET /x HTTP/01.1",
        b"GET /x HTTP/1.2",
        b"GET /x HTTP/0.9",
        b"GET /x HTTP/2.0",
        b"GET /x HTTP/2",
        b"GET /x HTTP/3.0",
        b"GET /x HTTP/11",
        b"GET /x HTTP/1",
        b"GET /x HTTP/1.",
        b"GET /x HTTP/.1",
        b"GET /x HTTP/",
        b"GET /x HTTP/1.1.1",
        b"GET /x HTTP/+1.1",
        b"GET /x HTTP/-1.1",
        b"GET /x HTTP/1,1",
        b"GET /x HTTP/1. 1",
        b"GET /x HTTP /1.1",
        b"GET /x http/1.1",
        b"GET /x Http/1.1",
        b"GET /x HTP/1.1",
        b"GET /x HTTPS/1.1",
        b"GET /x ICY/1.1",
        b"GET /x HTTP/1.1\0",
        b"GET /x HTTP/1.\xff",
        b"GET /x HTTP/1.1\x0b",
        b"G\0T /x HTTP/1.1",
        b"G(T /x HTTP/1.1",
        b"G:T /x HTTP/1.1",
        b"G\xffT /x HTTP/1.1",
        b"\"GET\" /x HTTP/1.1",
        b"GET /\0x HTTP/1.1",
        b"GET /\x0bx HTTP/1.1",
        b"GET /\x7fx HTTP/1.1",
        b"GET /x\rHTTP/1.1",
        b"GET /x HTTP/1.1\r",
    ];
    let fields = b"\r\nHost: localhost\r\n\r\n";
    lines
        .iter()
        .map(|line| {
            let bytes = [*line, fields, HIDDEN.as_bytes()].concat();
            shape(line.escape_ascii().to_string(), bytes)
        })
        .collect()
}

/// Targets and hosts that could be read as another place.
fn places() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for target in [
        "x",
        "?x",
        "*",
        "\\x",
        "../x",
        "http://localhost/x",
        "http://evil.example/x",
        "HTTP://evil.example/x",
        "https://evil.example",
        "http:///x",
        "evil.example:443",
        "file:///etc/passwd",
        "@evil.example/x",
        "/x#y",
        "#",
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n{HIDDEN}");
        shapes.push(shape(format!("target {target}"), bytes));
    }
    for fields in [
        "",
        "Host: localhost\r\nHost: localhost\r\n",
        "Host: localhost\r\nhost: evil.example\r\n",
        "Host: evil.example\r\nX: y\r\nHost: localhost\r\n",
        "Host : localhost\r\n",
        " Host: localhost\r\n",
        "Host: localhost\r\n evil.example\r\n",
        "Host:\r\n localhost\r\n",
        "Host\r\n",
        "Host: local\0host\r\n",
        "Host: localhost\0\r\n",
        "Host: localhost\x0b\r\n",
    ] {
        let bytes = format!("GET /x HTTP/1.1\r\n{fields}\r\n{HIDDEN}");
        shapes.push(shape(format!("host {fields:?}"), bytes));
    }
    shapes
}

/// Ends of lines that are none.
fn line_ends() -> Vec<Shape> {
    let texts = [
        "GET /x HTTP/1.1\nHost: localhost\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: localhost\n\r\n",
        "GET /x HTTP/1.1\r\nHost: localhost\r\n\n",
        "GET /x HTTP/1.1\r\nHost: localhost\n\n",
        "GET /x HTTP/1.1\nHost: localhost\n\n",
        "GET /x HTTP/1.1\r\nHost: localhost\r\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: localhost\r\n\r\r\n",
        "GET /x HTTP/1.1\r\nHost: localhost\n\r\n\r\n",
        "GET /x HTTP/1.1\rHost: localhost\r\r\n\r\n",
        "GET /x HTTP/1.1\r\r\nHost: localhost\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: localhost\r\nX: a\nb\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: localhost\r\nX: a\r\n\tb\r\n\r\n",
        "GET /x HTTP/1.1\r\n X: a\r\nHost: localhost\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: localhost\r\n \r\n\r\n",
        "\nGET /x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\rGET /x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\r\n\nGET /x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\0GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\u{feff}GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ];
    texts
        .iter()
        .map(|text| shape(format!("{text:?}"), format!("{text}{HIDDEN}")))
        .collect()
}

/// Chunks whose end some see elsewhere.
fn chunked() -> Vec<Shape> {
    let length = HIDDEN.len();
    let mut bodies: Vec<Vec<u8>> = [
        "-1\r\n",
        "+1\r\n",
        "0x1\r\n",
        "1h\r\n",
        "1 1\r\n",
        "1,1\r\n",
        "1_1\r\n",
        "\r\n",
        " \r\n",
        ";a\r\n",
        "g\r\n",
        "\u{ff11}\r\n",
        "fffffffffffffffff\r\n",
        "10000000000000000\r\n",
        "00000000000000000000000000000000000000000000000000000000000000010000000000000000\r\n",
        "1\n",
        "1\r\r\n",
        "1\0\r\n",
        "1\x0b\r\n",
        "1;a\n",
        "1;a=\"\n\"\r\n",
        "1;a=\rb\r\n",
        "0\n\r\n",
        "0\r\n\n",
        "0;a\n\r\n",
        "0\r\nX: a\nY: b\r\n\r\n",
        "0\r\nX: a\n\r\n",
        "0\r\n X: a\n\r\n",
    ]
    .iter()
    .map(|it| format!("{it}{HIDDEN}\r\n0\r\n\r\n").into_bytes())
    .collect();
    bodies.extend(
        [
            // Longer and shorter than it says, and with another end.
            format!("1\r\nab\r\n0\r\n\r\n{HIDDEN}"),
            format!("1\r\na\n0\r\n\r\n{HIDDEN}"),
            format!("1\r\na0\r\n\r\n{HIDDEN}"),
            format!("1\r\na\r0\r\n\r\n{HIDDEN}"),
            format!("1\r\na\rX0\r\n\r\n{HIDDEN}"),
            format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", length - 1),
            format!("{length:x}\r\n{HIDDEN}XX0\r\n\r\n"),
        ]
        .map(String::into_bytes),
    );
    let head = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n");
    bodies
        .into_iter()
        .map(|body| {
            let bytes = [head.as_bytes(), &body].concat();
            shape(format!("chunks {}", body.escape_ascii()), bytes)
        })
        .collect()
}

/// What HTTP/1.0 knows nothing of.
fn old() -> Vec<Shape> {
    let body = chunks();
    [
        format!("POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{body}"),
        format!("POST /x HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n{body}"),
        format!("POST /x HTTP/1.0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{body}"),
        format!("POST /x HTTP/1.0\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n{HIDDEN}"),
    ]
    .into_iter()
    .map(|text| shape(text.clone(), text))
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_known_shape_is_refused_and_its_connection_closed() {
    let upstream = Upstream::open().await;
    let proxy = Proxy::before(&upstream, &[]).await;
    let shapes = [
        codings(),
        lengths(),
        contradictions(),
        request_lines(),
        places(),
        line_ends(),
        chunked(),
        old(),
    ]
    .concat();
    assert!(shapes.len() > 159 + 33, "{}", shapes.len());
    let mut wrong = Vec::new();
    for (name, bytes) in &shapes {
        let before = upstream.seen().len();
        let mut client = Client::connect(proxy.address).await;
        client.send(bytes).await;
        let mut statuses = Vec::new();
        let closed = timeout(PATIENCE / 6, async {
            while let Some(answer) = client.answer().await {
                statuses.push(answer.status);
            }
        });
        let closed = closed.await.is_ok();
        let refused = closed && matches!(statuses.as_slice(), [400..=499 | 505]);
        let seen = upstream.seen().len() - before;
        if !refused || seen > 0 {
            wrong.push(format!(
                "{name}: {statuses:?}, closed: {closed}, {seen} seen"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(proxy.ask(get("/")).await.status, 200);
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
}

/// What RFC 9112 has everybody read alike goes on being read, and as many requests go upstream.
#[tokio::test(flavor = "multi_thread")]
async fn what_everybody_reads_alike_is_taken() {
    let upstream = Upstream::open().await;
    let proxy = Proxy::before(&upstream, &[]).await;
    let last = "GET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let length = HIDDEN.len();
    let chunks = chunks();
    for (name, first) in [
        (
            "lines before",
            "\r\n\r\nPOST /x HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        ),
        (
            "zeros",
            format!("{HEAD}Content-Length: 000{length}\r\n\r\n{HIDDEN}"),
        ),
        (
            "no space",
            format!("{HEAD}Content-Length:{length}\r\n\r\n{HIDDEN}"),
        ),
        (
            "spaces",
            format!("{HEAD}Content-Length: \t {length} \t\r\n\r\n{HIDDEN}"),
        ),
        (
            "case",
            format!("{HEAD}tRANSFER-eNCODING: cHUNKED\r\n\r\n{chunks}"),
        ),
        (
            "coding with spaces",
            format!("{HEAD}Transfer-Encoding:\t chunked \r\n\r\n{chunks}"),
        ),
        (
            "extension",
            format!(
                "{HEAD}Transfer-Encoding: chunked\r\n\r\n{length:X};a=b\r\n{HIDDEN}\r\n0;c\r\n\r\n"
            ),
        ),
        (
            "zeros in chunks",
            format!(
                "{HEAD}Transfer-Encoding: chunked\r\n\r\n00{length:x}\r\n{HIDDEN}\r\n000\r\n\r\n"
            ),
        ),
        (
            "trailer",
            format!(
                "{HEAD}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{HIDDEN}\r\n0\r\nContent-Length: 5\r\nX: y\r\n\r\n"
            ),
        ),
        (
            "body of GET",
            format!(
                "GET /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"
            ),
        ),
        (
            "body of DELETE",
            format!(
                "DELETE /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"
            ),
        ),
        (
            "no body",
            "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".to_owned(),
        ),
    ] {
        let before = upstream.seen().len();
        let mut client = Client::connect(proxy.address).await;
        client.send(format!("{first}{last}").as_bytes()).await;
        let mut statuses = Vec::new();
        while let Some(answer) = client.answer().await {
            statuses.push(answer.status);
        }
        assert_eq!(statuses, [200, 200], "{name}");
        let lines: Vec<String> = upstream.seen()[before..]
            .iter()
            .map(|it| it.line().split(' ').nth(1).unwrap().to_owned())
            .collect();
        assert_eq!(lines, ["/x", "/last"], "{name}");
        let body = String::from_utf8(upstream.seen()[before].body.clone()).unwrap();
        assert!(body.is_empty() || body == HIDDEN, "{name}: {body}");
    }
}

/// Each byte, in each place of a head.
#[tokio::test(flavor = "multi_thread")]
async fn no_byte_breaks_anything() {
    let upstream = Upstream::open().await;
    let proxy = Proxy::before(&upstream, &[]).await;
    for byte in 0..=u8::MAX {
        let line = b"GET / HTTP/1.1\r\nHost: localhost\r\n";
        for (place, bytes) in [
            (
                "a value",
                [line, &b"X: a"[..], &[byte], b"b\r\n\r\n"].concat(),
            ),
            (
                "a name",
                [line, &b"X"[..], &[byte], b"Y: b\r\n\r\n"].concat(),
            ),
            (
                "a target",
                [
                    b"GET /a",
                    &[byte][..],
                    b"b HTTP/1.1\r\nHost: localhost\r\n\r\n",
                ]
                .concat(),
            ),
            (
                "a method",
                [
                    b"G",
                    &[byte][..],
                    b"T / HTTP/1.1\r\nHost: localhost\r\n\r\n",
                ]
                .concat(),
            ),
            (
                "a host",
                [
                    b"GET / HTTP/1.1\r\nHost: local",
                    &[byte][..],
                    b"host\r\n\r\n",
                ]
                .concat(),
            ),
        ] {
            let before = upstream.seen().len();
            let answer = proxy.ask(&bytes).await;
            let sent = upstream.seen().len() - before;
            match answer.status {
                200 => assert_eq!(sent, 1, "{byte:#04x} in {place}"),
                400 | 405 | 421 | 505 => assert_eq!(sent, 0, "{byte:#04x} in {place}"),
                status => panic!("{byte:#04x} in {place}: {status}"),
            }
            // No end of a line, nor anything else that some take for one, goes on.
            let control = byte < b' ' && byte != b'\t' || byte == 0x7f;
            assert!(!(control && sent > 0), "{byte:#04x} in {place}");
        }
    }
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
}
