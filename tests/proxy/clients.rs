//! Ordinary clients of OpenSearch, which know nothing of signatures, before a real one.

use std::fmt::Write as _;
use std::io::{Seek, Write};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::domain::{Domain, json_of, with_json};
use super::program::{Answer, Client, get};
use crate::common::opensearch::{MASTER, Node, USER, shared_node};
use crate::common::parts::part;
use crate::common::process::Process;

const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/world/clients");

/// How long a client's program may take; it takes some ten seconds on an idle machine.
const PATIENCE: Duration = Duration::from_mins(5);

/// Runs a client's program, which uses a domain as an application does, and fails where it is not
/// answered as it should be.
async fn works_unsigned(client: &str, arguments: &[&str]) {
    let domain = Domain::open().await;
    let proxy = domain.proxy("app").await;
    let mut used = Command::new(part(client));
    used.args(arguments)
        .args([&format!("http://{}", proxy.address), "proxied"]);
    let before = domain.gateway.passed().len();
    let folder = tempfile::tempdir().unwrap();
    let mut used = Process::spawn(client, &used, &folder.path().join("log")).unwrap();
    let ended = used.wait(PATIENCE).await;
    let said = used.log_tail(30);
    assert!(
        ended.is_ok_and(|it| it.success()) && said.lines().last() == Some("ok"),
        "{client}: {said}"
    );
    let passed = domain.gateway.passed().split_off(before);
    let refused = passed.iter().filter(|it| it.status == Some(403)).count();
    let signed = passed.iter().all(|it| {
        let caller = it.caller.as_deref().unwrap_or_default();
        caller.ends_with(":assumed-role/app/s")
    });
    assert!(signed && refused > 0, "{client}: {passed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pythons_client_works_unsigned() {
    let program = format!("{PROGRAMS}/use.py");
    works_unsigned("opensearch-py", &[&program, "opensearch-py"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pythons_client_of_elasticsearch_works_unsigned() {
    let program = format!("{PROGRAMS}/use.py");
    works_unsigned("elasticsearch-py", &[&program, "elasticsearch-py"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn javascripts_client_works_unsigned() {
    let program = format!("{PROGRAMS}/javascript/use.js");
    works_unsigned("opensearch-js", &[&program]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rusts_client_works_unsigned() {
    works_unsigned("opensearch-rs", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gos_client_works_unsigned() {
    works_unsigned("opensearch-go", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn javas_client_works_unsigned() {
    let program = format!("{PROGRAMS}/java/Use.java");
    works_unsigned("opensearch-java", &[&program]).await;
}

/// It asks before it sends, and waits for a minute to be told; and in other ways.
#[tokio::test(flavor = "multi_thread")]
async fn curl_works_unsigned() {
    let domain = Domain::open().await;
    let proxy = domain.proxy("app").await;
    let folder = tempfile::tempdir().unwrap();
    let bulk = folder.path().join("bulk");
    let line = "{\"index\": {\"_index\": \"proxied-curl\"}}\n{\"text\": \"0123456789\"}\n";
    std::fs::write(&bulk, line.repeat(2000)).unwrap();
    let url = format!("http://localhost:{}", proxy.address.port());
    let data = format!("@{}", bulk.display());
    for more in [
        &[
            "-v",
            "--expect100-timeout",
            "60",
            "-H",
            "Expect: 100-continue",
        ][..],
        &["-H", "Transfer-Encoding: chunked"],
        &["--http1.0"],
        &["--http2"],
        &["--compressed", "--user", "somebody:else"],
    ] {
        let mut curl = Command::new("curl");
        curl.args([
            "-sS",
            "-f",
            "-H",
            "Content-Type: application/x-ndjson",
            "--data-binary",
            &data,
        ]);
        curl.args(more).arg(format!("{url}/_bulk"));
        let output = spawn_blocking(move || curl.output().unwrap())
            .await
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{more:?}: {errors}");
        let told = errors.contains("< HTTP/1.1 100 Continue");
        assert_eq!(told, more.contains(&"-v"), "{more:?}: {errors}");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["errors"], false, "{more:?}: {answer}");
    }
}

/// As .NET's client does for what it is about to write, with a length and without.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_before_it_sends_is_told_before_the_domain_hears_of_it() {
    let domain = Domain::open().await;
    let proxy = domain.proxy("app").await;
    let document = r#"{"text": "asked first"}"#;
    let length = document.len();
    for (field, body) in [
        (format!("Content-Length: {length}"), document.to_owned()),
        (
            "Transfer-Encoding: chunked".to_owned(),
            format!("{length:x}\r\n{document}\r\n0\r\n\r\n"),
        ),
    ] {
        let before = domain.gateway.passed().len();
        let mut client = Client::connect(proxy.address).await;
        let head = format!(
            "POST /proxied-asked/_doc HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
             Content-Type: application/json\r\n{field}\r\n\r\n"
        );
        client.send(head.as_bytes()).await;
        assert_eq!(client.answer().await.unwrap().status, 100, "{field}");
        assert_eq!(domain.gateway.passed().len(), before, "{field}");
        client.send(body.as_bytes()).await;
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.status, 201, "{field}: {answer:?}");
        assert_eq!(domain.gateway.passed().len(), before + 1, "{field}");
    }
}

/// Runs gzip on some bytes.
async fn gzip(option: &str, bytes: &[u8]) -> Vec<u8> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    let mut gzip = Command::new("gzip");
    gzip.arg(option).stdin(file);
    let output = spawn_blocking(move || gzip.output().unwrap())
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// Asks the node itself, as its master user.
async fn ask_the_node(node: &Node, target: &str, fields: &str) -> Answer {
    let address = node.url().replace("http://", "").parse().unwrap();
    let mut client = Client::connect(address).await;
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nx-forwarded-for: 127.0.0.1\r\n{USER}: {MASTER}\r\n{fields}\r\n"
    );
    client.send(request.as_bytes()).await;
    client.answer().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_bodies_pass_as_they_are_both_ways() {
    let node = shared_node().await;
    let domain = Domain::of(Arc::clone(&node)).await;
    let proxy = domain.proxy("app").await;
    // Long enough that the node finds it worth its while to compress the answer.
    let text = "東京 ".repeat(1000);
    let document = json!({"text": text}).to_string();
    let compressed = gzip("-n", document.as_bytes()).await;
    let length = compressed.len();
    assert!(length < document.len());
    let target = "/proxied-gzip/_doc/1";
    let head = format!(
        "PUT {target}?refresh=true HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    let answer = proxy.ask([head.into_bytes(), compressed].concat()).await;
    assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    let plain = proxy.ask(get(target)).await;
    assert_eq!(json_of(&plain)["_source"]["text"], text);
    assert_eq!(plain.field("content-encoding"), None);

    let accepting = "Accept-Encoding: gzip\r\n";
    let asked = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{accepting}\r\n");
    let passed = proxy.ask(&asked).await;
    let itself = ask_the_node(&node, target, accepting).await;
    assert_eq!(itself.field("content-encoding"), Some("gzip"), "{itself:?}");
    for name in ["content-encoding", "content-type", "content-length"] {
        assert_eq!(passed.field(name), itself.field(name), "{name}");
    }
    assert_eq!(passed.body, itself.body);
    assert_eq!(gzip("-d", &passed.body).await, plain.body);

    let mut client = Client::connect(proxy.address).await;
    let asked = asked.replace("GET", "HEAD");
    client.send(asked.as_bytes()).await;
    let only_head = client.answer_to(true).await.unwrap();
    assert_eq!(only_head.status, 200);
    assert!(only_head.field("content-length").is_some(), "{only_head:?}");
    // What follows on the connection is the next answer, not a body.
    client.send(get(target).as_bytes()).await;
    assert_eq!(client.answer().await.unwrap().body, plain.body);
}

/// Spells a bulk with its length said before, or in chunks.
fn spell_bulk(target: &str, way: &str, bulk: &[u8]) -> Vec<u8> {
    let value = match way {
        "Content-Length" => bulk.len().to_string(),
        _ => "chunked".to_owned(),
    };
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n{way}: {value}\r\n\r\n"
    );
    if way == "Content-Length" {
        return [head.as_bytes(), bulk].concat();
    }
    let mut bytes = head.into_bytes();
    for piece in bulk.chunks(100_000) {
        write!(bytes, "{:x}\r\n", piece.len()).unwrap();
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// Ninety of the hundred that a domain takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_of_ninety_megabytes_is_written() {
    const DOCUMENTS: u32 = 90;
    const LENGTH: usize = 1 << 20;
    let domain = Domain::of(Arc::new(Node::start_large().await)).await;
    let proxy = domain.proxy("app").await;
    let text = |number: u32| {
        let digit = char::from_digit(number % 10, 10).unwrap();
        digit.to_string().repeat(LENGTH)
    };
    let mut bulk = String::new();
    for number in 0..DOCUMENTS {
        let document = json!({"text": text(number)});
        writeln!(bulk, "{{\"index\":{{\"_id\":\"{number}\"}}}}\n{document}").unwrap();
    }
    assert!(bulk.len() > 90 << 20);
    for way in ["Content-Length", "Transfer-Encoding"] {
        let index = format!("/proxied-{}", way.to_ascii_lowercase());
        // What is only stored needs little memory beside it.
        let stored = r#"{"mappings": {"enabled": false}}"#;
        let made = proxy.ask(with_json("PUT", &index, stored)).await;
        assert_eq!(made.status, 200, "{made:?}");
        let target = format!("{index}/_bulk?refresh=true&filter_path=errors,items.*.error");
        let answer = proxy.ask(spell_bulk(&target, way, bulk.as_bytes())).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, r#"{"errors":false}"#),
            "{way}"
        );
        let counted = proxy.ask(get(&format!("{index}/_count"))).await;
        assert_eq!(json_of(&counted)["count"], DOCUMENTS, "{way}");
        for number in [0, DOCUMENTS - 1] {
            let read = proxy.ask(get(&format!("{index}/_source/{number}"))).await;
            // Said without the document, which is long.
            assert!(
                json_of(&read)["text"] == text(number),
                "{way}: document {number}"
            );
        }
    }
}
