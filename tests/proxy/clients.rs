//! Ordinary clients of OpenSearch, which know nothing of signatures, before a real one.

use std::process::Command;

use serde_json::Value;
use tokio::task::spawn_blocking;

use super::domain::Domain;
use crate::common::parts::part;

#[tokio::test(flavor = "multi_thread")]
async fn pythons_clients_work_unsigned() {
    let domain = Domain::open().await;
    let proxy = domain.proxy("app").await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/world/clients/use.py");
    let url = format!("http://{}", proxy.address);
    for client in ["opensearch-py", "elasticsearch-py"] {
        let mut used = Command::new(part(client));
        used.args([script, client, &url, "proxied"]);
        let output = spawn_blocking(move || used.output().unwrap())
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            said.trim(),
            "ok",
            "{client}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Clients that ask before they send, as curl and .NET's do, and such that keep a stream open.
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
        &["-H", "Expect: 100-continue"][..],
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
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["errors"], false, "{more:?}: {answer}");
    }
}
