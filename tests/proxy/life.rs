//! Starting, credentials and stopping.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::program::{Client, KEY_ID, Proxy, SECRET, get, post, refused, until};
use super::upstream::{Do, Upstream, says};

/// How often a proxy is stopped under load, and how often credentials change.
const STOPS: usize = 100;
const CHANGES: usize = 50;

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
    let started = async || (proxy.utility("/started").await.0 == 200).then_some(());
    until("credentials were asked for", started).await;
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

/// Sends requests one after the other until it is told to stop; returns how many were answered, and
/// what went wrong. Where it is told to go, it connects anew.
async fn load(current: Arc<Mutex<SocketAddr>>, stop: Arc<AtomicBool>) -> (usize, Vec<String>) {
    let (mut answered, mut wrong) = (0, Vec::new());
    let mut client: Option<Client> = None;
    while !stop.load(Ordering::Relaxed) {
        let address = *current.lock().unwrap();
        let mut own = match client.take() {
            Some(own) => own,
            None => Client::connect(address).await,
        };
        own.send(post("/_bulk", "{}").as_bytes()).await;
        match own.answer().await {
            Some(answer) if answer.status == 200 => {
                answered += 1;
                let closes = answer.field("connection") == Some("close");
                client = (!closes).then_some(own);
            }
            other => wrong.push(format!("{other:?}")),
        }
    }
    (answered, wrong)
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_change_fifty_times_under_load_and_no_request_fails() {
    let upstream = Upstream::open().await;
    let home = tempfile::tempdir().unwrap();
    let script = home.path().join("give");
    // Such that last four seconds or five, under another name each time.
    let give = r#"printf '{"Version":1,"AccessKeyId":"AKIA%s","SecretAccessKey":"s","SessionToken":"t","Expiration":"%s"}' "$(date +%s%N)" "$(date -u -d '+5 seconds' +%Y-%m-%dT%H:%M:%SZ)""#;
    std::fs::write(&script, give).unwrap();
    let process = format!("/bin/sh {}", script.display());
    let proxy = Proxy::given_by(&upstream, &process).await;
    let (current, stop) = (
        Arc::new(Mutex::new(proxy.address)),
        Arc::new(AtomicBool::new(false)),
    );
    let loads: Vec<_> = (0..4)
        .map(|_| tokio::spawn(load(Arc::clone(&current), Arc::clone(&stop))))
        .collect();
    let identities = || {
        let seen = upstream.seen();
        let keys = seen.iter().filter_map(|it| {
            let credential = it.field("authorization")?.split("Credential=").nth(1)?;
            Some(credential.split('/').next()?.to_owned())
        });
        keys.collect::<BTreeSet<String>>().len()
    };
    let changed = async {
        while identities() <= CHANGES {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let changed = tokio::time::timeout(Duration::from_mins(5), changed).await;
    changed.expect("fifty changes");
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        let (answered, wrong) = load.await.unwrap();
        assert!(
            answered > CHANGES && wrong.is_empty(),
            "{answered} answered, {wrong:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_are_stopped_a_hundred_times_under_load_and_no_request_fails() {
    let upstream = Upstream::open().await;
    let mut proxy = Proxy::before(&upstream, &[]).await;
    let (current, stop) = (
        Arc::new(Mutex::new(proxy.address)),
        Arc::new(AtomicBool::new(false)),
    );
    let loads: Vec<_> = (0..4)
        .map(|_| tokio::spawn(load(Arc::clone(&current), Arc::clone(&stop))))
        .collect();
    for _ in 0..STOPS {
        let next = Proxy::before(&upstream, &[]).await;
        *current.lock().unwrap() = next.address;
        proxy.signal("TERM");
        assert!(proxy.ended().await.success());
        proxy = next;
    }
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        let (answered, wrong) = load.await.unwrap();
        assert!(
            answered > STOPS && wrong.is_empty(),
            "{answered} answered, {wrong:?}"
        );
    }
}
