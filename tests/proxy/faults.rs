//! An upstream that breaks off, says too much, or says it too early.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::program::{Client, KEYS, Proxy, get, post, until};
use super::upstream::{Do, Upstream, says};

/// Where an upstream breaks off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before anything of the request is read.
    Connected,
    /// With half of its head read.
    HalfOfHead,
    /// With its head read, and not its body.
    Head,
    /// With all of it read.
    Request,
    /// The same, on a connection that served another before.
    SecondRequest,
    /// Within the first line of the answer.
    Status,
    /// Within its head.
    HeadOfAnswer,
    /// Within its body.
    BodyOfAnswer,
}

/// An upstream that breaks off at one point, again and again.
struct Broken {
    address: SocketAddr,
    /// How many connections it took but for those on which it did what was asked.
    taken: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Broken {
    async fn open(at: At) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                _ = break_off(stream, at).await;
            }
        });
        Self {
            address,
            taken,
            server,
        }
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn read_to(stream: &mut TcpStream, end: &[u8]) -> std::io::Result<()> {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        read.push(stream.read_u8().await?);
    }
    Ok(())
}

async fn break_off(mut stream: TcpStream, at: At) -> std::io::Result<()> {
    let resets = !matches!(at, At::Status | At::HeadOfAnswer | At::BodyOfAnswer);
    if at == At::SecondRequest {
        read_to(&mut stream, b"\r\n\r\n").await?;
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        stream.write_all(text).await?;
    }
    match at {
        At::Connected => {}
        At::HalfOfHead => {
            stream.read_u8().await?;
        }
        At::Head => read_to(&mut stream, b"\r\n\r\n").await?,
        _ => {
            read_to(&mut stream, b"\r\n\r\n").await?;
            // A GET has none.
            let mut body = [0; 4];
            _ = stream.try_read(&mut body);
        }
    }
    let said: &[u8] = match at {
        At::Status => b"HTTP/1.1 20",
        At::HeadOfAnswer => b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n",
        At::BodyOfAnswer => b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc",
        _ => b"",
    };
    stream.write_all(said).await?;
    if resets {
        stream.set_zero_linger()?;
        return Ok(());
    }
    stream.shutdown().await
}

/// Wherever it breaks, what is not safe to be done twice is sent once, and what is, twice at most.
#[tokio::test(flavor = "multi_thread")]
async fn wherever_an_upstream_breaks_off_nothing_is_done_twice() {
    for at in [
        At::Connected,
        At::HalfOfHead,
        At::Head,
        At::Request,
        At::Status,
        At::HeadOfAnswer,
        At::BodyOfAnswer,
    ] {
        let upstream = Broken::open(at).await;
        let url = format!("http://{}", upstream.address);
        let proxy = Proxy::start(&url, &KEYS, &[]).await;
        proxy.until_ready().await;
        for (request, most) in [
            (post("/_bulk", "{\"a\":1}"), 1),
            (get("/").replace("GET", "DELETE"), 1),
            (get("/").replace("GET", "PUT"), 1),
            (get("/"), 2),
        ] {
            let before = upstream.taken.load(Ordering::SeqCst);
            let mut client = Client::connect(proxy.address).await;
            client.send(request.as_bytes()).await;
            let answer = client.answer().await;
            let tries = upstream.taken.load(Ordering::SeqCst) - before;
            if at == At::BodyOfAnswer {
                // It has begun: that it is not whole is shown by the connection alone.
                assert!(answer.is_none(), "{at:?}, {request}: {answer:?}");
                assert_eq!(tries, 1, "{at:?}, {request}");
                continue;
            }
            let answer = answer.expect("an answer");
            assert_eq!(answer.status, 502, "{at:?}, {request}: {answer:?}");
            // Who resets at once may do so before it is known to be connected; then nothing was sent.
            let least = if at == At::Connected { 1 } else { most };
            assert!(
                (least..=most).contains(&tries),
                "{at:?}, {request}: {tries}"
            );
        }
    }
}

/// A connection that served others may be closed at any time; what was sent on it may be done.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_on_a_connection_that_breaks_is_not_sent_on_another() {
    let upstream = Broken::open(At::SecondRequest).await;
    let url = format!("http://{}", upstream.address);
    let proxy = Proxy::start(&url, &KEYS, &[]).await;
    proxy.until_ready().await;
    assert_eq!(proxy.ask(get("/")).await.status, 200);
    let answer = proxy.ask(post("/_bulk", "{\"a\":1}")).await;
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(upstream.taken.load(Ordering::SeqCst), 1);
    // What only reads is: on a connection of its own, where it is the first.
    assert_eq!(proxy.ask(get("/")).await.status, 200);
    assert_eq!(proxy.ask(get("/")).await.status, 200);
    assert_eq!(upstream.taken.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_without_end_are_ended_by_the_time_that_an_answer_may_take() {
    let upstream = Upstream::scripted(|_, seen| {
        if seen.line().contains("/flood") {
            return Do::SayForever(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(100));
        }
        says("200 OK", "", "{}")
    })
    .await;
    let proxy = Proxy::before(&upstream, &["--request-timeout", "2"]).await;
    let mut flooded = Client::connect(proxy.address).await;
    flooded.send(get("/flood").as_bytes()).await;
    // Others are served meanwhile.
    assert_eq!(proxy.ask(get("/")).await.status, 200);
    let answer = flooded.answer().await.unwrap();
    assert_eq!(answer.status, 504, "{answer:?}");
    assert_eq!(proxy.ask(get("/")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_says_beyond_an_answer_answers_nobody() {
    const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for (name, first) in [
        (
            "two answers",
            format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{EVIL}"),
        ),
        (
            "a body where there is none",
            format!("HTTP/1.1 204 No Content\r\nContent-Length: 47\r\n\r\n{EVIL}"),
        ),
        (
            "304 with a body",
            format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 47\r\n\r\n{EVIL}"),
        ),
        (
            "behind the chunks",
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{EVIL}"
            ),
        ),
        (
            "two lengths",
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{EVIL}"
            ),
        ),
        (
            "lengths that differ",
            format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 49\r\n\r\nok{EVIL}"),
        ),
    ] {
        let upstream = Upstream::scripted(move |number, _| match number {
            0 => Do::Say(first.clone().into_bytes()),
            _ => says("200 OK", "", "fine"),
        })
        .await;
        let proxy = Proxy::before(&upstream, &[]).await;
        let mut client = Client::connect(proxy.address).await;
        client.send(get("/1").as_bytes()).await;
        let answer = client.answer().await.expect("an answer");
        assert!(
            [200, 204, 304, 502].contains(&answer.status) && !answer.text().contains("evil"),
            "{name}: {answer:?}"
        );
        // Whoever asks next, on this connection or another, gets the answer to that.
        let mut others = [client, Client::connect(proxy.address).await];
        for other in &mut others {
            other.send(post("/2", "{}").as_bytes()).await;
            let answer = other.answer().await.expect("an answer");
            let is_fine = answer.status == 200 && answer.text() == "fine";
            assert!(is_fine || answer.status == 502, "{name}: {answer:?}");
        }
        let fine = async || (proxy.ask(get("/3")).await.text() == "fine").then_some(());
        until("all is well", fine).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_badly_framed_does_not_look_whole() {
    for (name, said) in [
        ("cut off", "2\r\nok\r\n"),
        ("cut within a chunk", "a\r\nok"),
        ("without its last line", "2\r\nok\r\n0\r\n"),
        ("no size", "zz\r\nok\r\n0\r\n\r\n"),
        ("too large", "fffffffffffffffff\r\nok\r\n0\r\n\r\n"),
        ("longer than it says", "1\r\nok\r\n0\r\n\r\n"),
    ] {
        let text = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{said}");
        let upstream = Upstream::scripted(move |_, _| Do::SayAndClose(text.clone().into())).await;
        let proxy = Proxy::before(&upstream, &[]).await;
        let mut client = Client::connect(proxy.address).await;
        client.send(get("/").as_bytes()).await;
        let answer = client.answer().await;
        let told = answer.as_ref().is_none_or(|it| it.status == 502);
        assert!(told, "{name}: {answer:?}");
        // The proxy lives.
        assert_eq!(proxy.utility("/health").await.0, 200, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_of_answers_that_no_client_should_read_are_no_answers() {
    for said in [
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n".to_owned(),
        "HTTP/1.1 2000 OK\r\n\r\n".to_owned(),
        "HTTP/3.0 200 OK\r\n\r\n".to_owned(),
        "nonsense\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(10_000)),
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)),
    ] {
        let shown: String = said.chars().take(80).collect();
        let upstream = Upstream::scripted(move |_, _| Do::SayAndClose(said.clone().into())).await;
        let proxy = Proxy::before(&upstream, &[]).await;
        let answer = proxy.ask(get("/")).await;
        assert_eq!(answer.status, 502, "{shown:?}: {answer:?}");
        assert!(answer.text().contains("signing_proxy_upstream_broken"));
    }
}

/// An upstream that answers as soon as it has read a head, and goes on reading.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_before_the_body_is_sent_is_passed_on() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                read_to(&mut stream, b"\r\n\r\n").await?;
                let text = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig";
                stream.write_all(text).await?;
                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
            });
        }
    });
    let proxy = Proxy::start(&url, &KEYS, &[]).await;
    proxy.until_ready().await;
    let mut client = Client::connect(proxy.address).await;
    let large = post("/_bulk", &"x".repeat(20 << 20));
    client.send(large.as_bytes()).await;
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (413, "big"));
    client.send(post("/_bulk", "{}").as_bytes()).await;
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (413, "big"));
    server.abort();
}

/// Returns the most memory that a process has held at a time, in bytes.
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.parse::<u64>().unwrap() << 10
}

/// What would be a gigabyte once it is unpacked is not unpacked, and what is as large as it is, not
/// kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_answer_passes_as_it_is_and_is_not_held() {
    const LENGTH: usize = 256 << 20;
    let upstream = Upstream::scripted(|_, _| {
        let fields = format!("Content-Encoding: gzip\r\nContent-Length: {LENGTH}\r\n");
        let mut text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes();
        text.resize(text.len() + LENGTH, 0);
        Do::Say(text)
    })
    .await;
    let proxy = Proxy::before(&upstream, &[]).await;
    let before = peak(proxy.id());
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n";
    let answer = proxy.ask(request).await;
    assert_eq!(answer.field("content-encoding"), Some("gzip"));
    assert!(answer.body.len() == LENGTH && answer.body.iter().all(|it| *it == 0));
    let grown = peak(proxy.id()) - before;
    assert!(grown < 16 << 20, "{grown} bytes more");
}
