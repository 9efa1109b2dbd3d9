//! Starting, credentials and stopping.

use std::time::Duration;

use super::program::{Client, KEY_ID, Proxy, SECRET, get, post, refused, until};
use super::upstream::{Do, Upstream, says};

#[test]
fn what_would_let_others_in_is_refused_at_the_start() {
    let url = "http://127.0.0.1:1";
    let said = refused(url, &["--listen-on", "0.0.0.0:0"]);
    assert!(said.contains("--listen-anywhere"), "{said}");
    let said = refused("https://169.254.169.254", &[]);
    assert!(said.contains("169.254.169.254"), "{said}");
    let said = refused(url, &["--forward-to", "http://127.0.0.1:2"]);
    assert!(said.contains("one for each"), "{said}");
    let said = refused(url, &["--body-limit", "1GiB"]);
    assert!(said.contains("--body-budget"), "{said}");
    let said = refused(url, &["--cert", "/nowhere", "--key", "/nowhere"]);
    assert!(said.contains("/nowhere"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_nothing_is_sent_until_there_are_some() {
    let upstream = Upstream::open().await;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("credentials");
    let path = file.to_str().unwrap();
    let variables = [
        ("AWS_SHARED_CREDENTIALS_FILE", path),
        ("AWS_CONFIG_FILE", "/nowhere"),
    ];
    let url = format!("http://{}", upstream.address);
    let proxy = Proxy::start(&url, &variables, &[]).await;
    let answer = proxy.ask(post("/_bulk", "{}")).await;
    assert_eq!(
        (answer.status, answer.field("retry-after")),
        (503, Some("1"))
    );
    assert!(
        answer.text().contains("signing_proxy_no_credentials"),
        "{answer:?}"
    );
    let (status, why) = proxy.utility("/ready").await;
    assert_eq!(status, 503, "{why}");
    assert_eq!(proxy.utility("/health").await.0, 200);
    assert_eq!(upstream.seen().len(), 0);

    let text = format!("[default]\naws_access_key_id={KEY_ID}\naws_secret_access_key={SECRET}\n");
    std::fs::write(&file, text).unwrap();
    proxy.until_ready().await;
    assert_eq!(proxy.ask(get("/")).await.status, 200);
    assert!(
        upstream
            .last()
            .field("authorization")
            .unwrap()
            .contains(KEY_ID)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_asked_to_stop_finishes_what_it_began() {
    let upstream = Upstream::scripted(|_, seen| {
        if seen.line().contains("/slow") {
            let text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
            return Do::SaySlowly(
                vec![Vec::new(), text.into(), b"ok".to_vec()],
                Duration::from_secs(1),
            );
        }
        says("200 OK", "", "{}")
    })
    .await;
    let mut proxy = Proxy::before(&upstream, &[]).await;
    let mut idle = Client::connect(proxy.address).await;
    idle.send(get("/").as_bytes()).await;
    assert_eq!(idle.answer().await.unwrap().status, 200);
    let mut busy = Client::connect(proxy.address).await;
    busy.send(get("/slow").as_bytes()).await;
    let arrived = async || (upstream.seen().len() == 2).then_some(());
    until("it is under way", arrived).await;
    proxy.signal("TERM");
    assert!(idle.is_closed().await);
    let answer = busy.answer().await.unwrap();
    assert_eq!(
        (answer.text().as_str(), answer.field("connection")),
        ("ok", Some("close"))
    );
    assert!(proxy.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_upstream_has_a_port_and_clients_may_be_asked_for_a_secret() {
    let (one, two) = (Upstream::open().await, Upstream::open().await);
    let home = tempfile::tempdir().unwrap();
    let secret = home.path().join("secret");
    std::fs::write(&secret, "a secret of some length\n").unwrap();
    let second = format!("http://{}", two.address);
    let options = [
        "--forward-to",
        &second,
        "--listen-on",
        "0",
        "--listen-on",
        "0",
    ];
    let options = [
        &options[..],
        &["--client-secret-file", secret.to_str().unwrap()],
    ]
    .concat();
    let proxy = Proxy::before(&one, &options).await;
    let log = proxy.log();
    let ports = log.lines().filter(|it| it.contains("signing address"));
    assert_eq!(ports.count(), 2, "{log}");
    assert_eq!(proxy.ask(get("/")).await.status, 401);
    let with = "GET / HTTP/1.1\r\nHost: localhost\r\nx-opensearch-access-secret: a secret of some length\r\n\r\n";
    assert_eq!(proxy.ask(with).await.status, 200);
    assert_eq!(one.last().field("x-opensearch-access-secret"), None);
    assert_eq!((one.seen().len(), two.seen().len()), (1, 0));
}
