//! Where a proxy listens, to whom it speaks, and what it does where the machine gives it no more.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use super::program::{Client, KEYS, Proxy, get, refused, until};
use super::upstream::Upstream;

/// Returns where a process listens, as the kernel tells it.
fn listening(process: u32) -> BTreeSet<SocketAddr> {
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let open: BTreeSet<String> = open
        .filter_map(|it| std::fs::read_link(it.ok()?.path()).ok())
        .filter_map(|it| {
            let number = it.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(number.to_owned())
        })
        .collect();
    let mut found = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // 0A is what the kernel calls listening.
            if fields[3] == "0A" && open.contains(fields[9]) {
                found.insert(address(fields[1]));
            }
        }
    }
    found
}

/// Reads an address as the kernel spells it: words in this machine's order of bytes.
fn address(text: &str) -> SocketAddr {
    let (host, port) = text.split_once(':').unwrap();
    let words = host.as_bytes().chunks(8);
    let bytes = words.flat_map(|word| {
        let word = std::str::from_utf8(word).unwrap();
        u32::from_str_radix(word, 16).unwrap().to_ne_bytes()
    });
    let bytes: Vec<u8> = bytes.collect();
    let host = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(bytes) => IpAddr::V4(Ipv4Addr::from(bytes)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap())),
    };
    SocketAddr::new(host, u16::from_str_radix(port, 16).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_this_machine_can_connect() {
    let upstream = Upstream::open().await;
    let proxy = Proxy::before(&upstream, &[]).await;
    let found = listening(proxy.id());
    assert_eq!(found, BTreeSet::from([proxy.address, proxy.utility]));
    assert!(found.iter().all(|it| it.ip() == Ipv4Addr::LOCALHOST));
    let six = Proxy::before(&upstream, &["--listen-on", "[::1]:0"]).await;
    let found = listening(six.id());
    assert!(found.iter().all(|it| it.ip().is_loopback()), "{found:?}");
    assert_eq!(six.ask(get("/")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_pod_of_a_node_could_reach_is_refused_at_the_start() {
    let url = "http://127.0.0.1:1";
    let on_node = ["--pod-ip", "10.0.0.1", "--host-ip", "10.0.0.1"];
    let said = refused(url, &on_node);
    assert!(said.contains("without hostNetwork"), "{said}");
    for address in ["0.0.0.0:0", "[::]:0"] {
        let said = refused(url, &["--listen-on", address]);
        assert!(said.contains("--listen-anywhere"), "{said}");
    }
    let upstream = Upstream::open().await;
    let meant = [&on_node[..], &["--listen-anywhere"]].concat();
    let proxy = Proxy::before(&upstream, &meant).await;
    assert_eq!(proxy.ask(get("/")).await.status, 200);
    // As the injector tells it.
    let own = [("PROXY_POD_IP", "10.0.0.2"), ("PROXY_HOST_IP", "10.0.0.1")];
    let url = format!("http://{}", upstream.address);
    let proxy = Proxy::start(&url, &[&KEYS[..], &own].concat(), &[]).await;
    proxy.until_ready().await;
    assert_eq!(proxy.ask(get("/")).await.status, 200);
}

/// Names that resolve to this machine or to the metadata service: the second by a spelling that only
/// the resolver knows to be an address.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_to_credentials_is_not_followed() {
    let upstream = Upstream::open().await;
    let port = upstream.address.port();
    for (url, may_be_local, words) in [
        (format!("https://localhost:{port}"), "false", "leads to"),
        ("http://2852039166".to_owned(), "true", "leads to"),
        ("http://0xa9fea9fe".to_owned(), "true", "leads to"),
        ("http://0251.0376.0251.0376".to_owned(), "true", "leads to"),
        // No certificate is for such a name, so that it is not even looked up.
        (format!("https://2130706433:{port}"), "false", "invalid"),
        ("https://2852039166".to_owned(), "false", "invalid"),
    ] {
        let local = [("PROXY_UPSTREAM_MAY_BE_LOCAL", may_be_local)];
        let proxy = Proxy::start(&url, &[&KEYS[..], &local].concat(), &[]).await;
        proxy.until_ready().await;
        let answer = proxy.ask(get("/")).await;
        assert_eq!(answer.status, 502, "{url}: {answer:?}");
        let said = answer.text();
        assert!(said.contains(words), "{url}: {said}");
    }
    assert_eq!(upstream.seen().len(), 0);
}

fn free_port() -> String {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_is_ended_where_it_begins() {
    let upstream = Upstream::open().await;
    let first = Proxy::before(&upstream, &[]).await;
    let url = format!("http://{}", first.address);
    let second = Proxy::start(&url, &KEYS, &[]).await;
    second.until_ready().await;
    let answer = second.ask(get("/")).await;
    assert_eq!(answer.status, 508);
    assert!(answer.text().contains("signing_proxy_loop"), "{answer:?}");
    assert_eq!(upstream.seen().len(), 0);

    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let said = refused(&url, &["--listen-on", &port]);
    assert!(said.contains("is this proxy itself"), "{said}");
    // By a name it shows only once somebody asks.
    let url = format!("http://localhost:{port}");
    let own = Proxy::start(&url, &KEYS, &["--listen-on", &port]).await;
    own.until_ready().await;
    assert_eq!(own.ask(get("/")).await.status, 508);
    let metrics = own.utility("/metrics").await.1;
    assert!(
        metrics.contains("refusals_total{class=\"loop\"} 1\n"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_utility_port_shows_nothing_but_what_it_is_for() {
    let upstream = Upstream::open().await;
    let proxy = Proxy::before(&upstream, &[]).await;
    for number in 0..20 {
        let path = format!("/an-index-{number}/_doc/{number}");
        assert_eq!(proxy.ask(get(&path)).await.status, 200);
    }
    for path in [
        "/",
        "/debug/pprof",
        "/debug/pprof/heap",
        "/env",
        "/config",
        "/quitquitquit",
        "/_search",
        "/metrics/..",
    ] {
        assert_eq!(proxy.utility(path).await.0, 404, "{path}");
    }
    let mut client = Client::connect(proxy.utility).await;
    let post = b"POST /ready HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    client.send(post).await;
    assert_eq!(client.answer().await.unwrap().status, 405);
    let metrics = proxy.utility("/metrics").await.1;
    assert!(!metrics.contains("an-index"), "{metrics}");
    // One for each class of statuses, and for nothing else.
    assert_eq!(metrics.matches("requests_total{").count(), 5, "{metrics}");
    // Nothing was signed for who asked here.
    assert_eq!(upstream.seen().len(), 20);
}

/// Connects by TLS and asks; returns the protocol that was agreed on, and the answer.
async fn encrypted(
    address: SocketAddr,
    authority: &CertificateDer<'static>,
    protocols: &[&str],
) -> std::io::Result<(Option<Vec<u8>>, String)> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await?;
    let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok((agreed, answer))
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_by_tls_are_offered_no_http_2() {
    let upstream = Upstream::open().await;
    let home = tempfile::tempdir().unwrap();
    let (certificate, key) = (home.path().join("cert.pem"), home.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let options = [
        "--cert",
        certificate.to_str().unwrap(),
        "--key",
        key.to_str().unwrap(),
    ];
    let proxy = Proxy::before(&upstream, &options).await;
    let authority = made.cert.der();
    let http = Some(b"http/1.1".to_vec());
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], http.clone()),
        (&["http/1.1"], http),
        (&[], None),
    ] {
        let (found, answer) = encrypted(proxy.address, authority, offered).await.unwrap();
        assert_eq!(found, agreed, "{offered:?}");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    assert_eq!(upstream.seen().len(), 3);
    let only = encrypted(proxy.address, authority, &["h2"]).await;
    assert!(only.is_err(), "{only:?}");
    // Who speaks without encryption is cut off, and disturbs nobody.
    let mut plain = Client::connect(proxy.address).await;
    plain.send(get("/").as_bytes()).await;
    assert!(plain.answer().await.is_none());
    let (_, answer) = encrypted(proxy.address, authority, &[]).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(upstream.seen().len(), 4);
}

/// Returns how much of a processor a process has used, in hundredths of a second.
fn used(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name may have spaces; the fields behind it do not.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |at: usize| fields[at].parse::<u64>().unwrap();
    number(11) + number(12)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_all_connections_keeps_others_out_only_until_they_are_idle() {
    let upstream = Upstream::open().await;
    let proxy = Proxy::with_files(&upstream, 64).await;
    let mut idle = Vec::new();
    for _ in 0..80 {
        idle.push(Client::connect(proxy.address).await);
    }
    let says = async || {
        proxy
            .log()
            .contains("no connection can be taken")
            .then_some(())
    };
    until("the machine gives no more", says).await;
    // It waits, rather than asks again and again.
    let (before, began) = (used(proxy.id()), Instant::now());
    sleep(Duration::from_secs(3)).await;
    let (after, took) = (used(proxy.id()), began.elapsed());
    let share = Duration::from_millis((after - before) * 10).as_secs_f64() / took.as_secs_f64();
    assert!(share < 0.5, "{share} of a processor");
    let served = async || (proxy.ask(get("/")).await.status == 200).then_some(());
    until("others are served", served).await;
    for client in &mut idle {
        assert!(client.is_closed().await);
    }
    assert_eq!(proxy.ask(get("/")).await.status, 200);
    let log = proxy.log();
    assert!(!log.contains("panicked"), "{log}");
    let said = log.matches("no connection can be taken").count();
    assert!(said < 20, "said {said} times: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_asked_anything_does_not_hold_up_the_end() {
    let upstream = Upstream::open().await;
    let mut proxy = Proxy::before(&upstream, &[]).await;
    let mut silent = Client::connect(proxy.address).await;
    let connected = async || {
        let metrics = proxy.utility("/metrics").await.1;
        metrics.contains("proxy_connections 1\n").then_some(())
    };
    until("it is connected", connected).await;
    proxy.signal("TERM");
    assert!(silent.is_closed().await);
    assert!(proxy.ended().await.success());
    // Else it would have been cut off at last.
    let log = proxy.log();
    assert!(!log.contains("some answers were cut off"), "{log}");
}
