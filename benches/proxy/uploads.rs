//! A given number of uploads, each measured: for bodies of which few are sent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};

use super::head;
use super::load::Outcome;
use super::upstream::MIRROR;

/// How long a connection may stand still.
const PATIENCE: Duration = Duration::from_mins(2);

/// The largest body; all others are parts of it.
static BODY: LazyLock<Vec<u8>> = LazyLock::new(|| vec![b'x'; 100 << 20]);

/// Uploads bodies of `length` bytes, each connection one after the other, until there are `total`.
///
/// # Errors
///
/// Fails where one is not answered with 200.
pub(crate) fn upload(
    address: SocketAddr,
    length: usize,
    connections: usize,
    total: usize,
) -> anyhow::Result<Outcome> {
    let body = BODY.get(..length).context("no body is as large")?;
    let begun = AtomicUsize::new(0);
    let start = Instant::now();
    let one_connection = || -> anyhow::Result<Vec<Duration>> {
        let mut stream = connect(address)?;
        let mut times = Vec::new();
        while begun.fetch_add(1, Ordering::Relaxed) < total {
            let start = Instant::now();
            exchange(&mut stream, "/_bulk", body)?;
            times.push(start.elapsed());
        }
        Ok(times)
    };
    let mut times = thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|_| scope.spawn(one_connection))
            .collect();
        let mut times = Vec::new();
        for thread in threads {
            let ended = thread
                .join()
                .map_err(|_| anyhow!("a connection panicked"))?;
            times.extend(ended?);
        }
        anyhow::Ok(times)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(times.len() == total, "{} of {total} uploads", times.len());
    times.sort_unstable();
    let percentile = |percent: usize| {
        let rank = (total * percent).div_ceil(100).max(1);
        times[rank - 1].as_secs_f64() * 1e3
    };
    Ok(Outcome {
        requests: u64::try_from(total)?,
        seconds,
        p50: percentile(50),
        p99: percentile(99),
    })
}

/// Sends a body, and returns the head with which it arrived.
pub(crate) fn mirror(address: SocketAddr, body: &[u8]) -> anyhow::Result<String> {
    exchange(&mut connect(address)?, MIRROR, body)
}

fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends a request, and returns the body of its answer.
fn exchange(stream: &mut TcpStream, target: &str, body: &[u8]) -> anyhow::Result<String> {
    let port = stream.peer_addr()?.port();
    let length = body.len();
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\
         Content-Type: application/x-ndjson\r\nContent-Length: {length}\r\n\r\n"
    );
    let sent = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body));
    // Who refuses a body says why, and need not read it.
    let answer = answer(stream);
    if answer.is_err() {
        sent?;
    }
    answer
}

/// Returns the body of an answer.
fn answer(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let end = head::end(&answer);
        if let Some(end) = end {
            let length = head::length(&answer[..end]).context("an answer without a length")?;
            if answer.len() >= end + length {
                let text = String::from_utf8_lossy(&answer);
                ensure!(text.starts_with("HTTP/1.1 200 "), "{text}");
                return Ok(String::from_utf8_lossy(&answer[end..]).into_owned());
            }
        }
        match stream.read(&mut buffer)? {
            0 => bail!("the connection was closed before an answer"),
            read => answer.extend_from_slice(&buffer[..read]),
        }
    }
}
