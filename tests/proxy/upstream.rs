//! An upstream that keeps every byte it got, and answers as it is told.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::program::field;

/// A request, as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// Returns the request line.
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// Returns when it was signed.
    pub(crate) fn signed_at(&self) -> Timestamp {
        let date = self.field("x-amz-date").unwrap();
        let date = jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", date).unwrap();
        let date = date.to_datetime().unwrap();
        date.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    /// Returns the names of all fields, in lower case and sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let fields = self.head.lines().skip(1);
        let names = fields.filter_map(|line| line.split_once(':'));
        let mut names: Vec<String> = names.map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.sort_unstable();
        names
    }
}

/// What is done for a request.
#[derive(Debug, Clone)]
pub(crate) enum Do {
    /// Answers with these bytes.
    Say(Vec<u8>),
    /// Answers with these bytes, and closes the connection.
    SayAndClose(Vec<u8>),
    /// Says these, one after the other, with a pause between.
    SaySlowly(Vec<Vec<u8>>, Duration),
    /// Says the first, and the second once it is told to.
    SayTwice(Vec<u8>, Vec<u8>, Arc<Notify>),
    /// Says this again and again, for as long as it is read.
    SayForever(Vec<u8>),
    /// Closes the connection without a word.
    Close,
    /// Never answers.
    Hang,
}

/// Spells an answer.
pub(crate) fn says(status: &str, fields: &str, body: &str) -> Do {
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\n\r\n{body}");
    Do::Say(text.into_bytes())
}

type Script = Arc<dyn Fn(usize, &Seen) -> Do + Send + Sync>;

/// An upstream, closed when it is dropped.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    open: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Upstream {
    /// Opens an upstream that says 200 to everything.
    pub(crate) async fn open() -> Self {
        Self::scripted(|_, _| says("200 OK", "", "{}")).await
    }

    /// Opens one that does for the nth request, from 0, what the script says.
    pub(crate) async fn scripted(
        script: impl Fn(usize, &Seen) -> Do + Send + Sync + 'static,
    ) -> Self {
        Self::on((Ipv4Addr::LOCALHOST, 0).into(), script).await
    }

    /// Opens one at an address.
    pub(crate) async fn on(
        address: SocketAddr,
        script: impl Fn(usize, &Seen) -> Do + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (kept, script): (_, Script) = (Arc::clone(&seen), Arc::new(script));
        let open: Arc<AtomicUsize> = Arc::default();
        let counted = Arc::clone(&open);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, script) = (Arc::clone(&kept), Arc::clone(&script));
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    counted.fetch_add(1, Ordering::Relaxed);
                    serve(stream, kept, script).await;
                    counted.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Self {
            address,
            seen,
            open,
            server,
        }
    }

    /// Returns how many connections are open.
    pub(crate) fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Returns every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }

    /// Returns the last request.
    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().expect("a request")
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Reads a chunked body without trailers; returns it and how long it is on the wire, once it is whole.
fn unchunked(mut bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (all, mut body) = (bytes.len(), Vec::new());
    loop {
        let end = bytes.windows(2).position(|it| it == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let chunk = bytes.get(end + 2..end + 2 + size)?;
        bytes = bytes.get(end + 2 + size + 2..)?;
        body.extend_from_slice(chunk);
        if size == 0 {
            return Some((body, all - bytes.len()));
        }
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Vec<Seen>>>, script: Script) {
    let mut read = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let end = loop {
            if let Some(at) = read.windows(4).position(|it| it == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(length) => read.extend_from_slice(&buffer[..length]),
            }
        };
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        read.drain(..end);
        let mut body = Vec::new();
        let is_chunked = field(&head, "transfer-encoding").is_some();
        let length = field(&head, "content-length").map_or(0, |it| it.parse().unwrap());
        loop {
            let whole = if is_chunked {
                unchunked(&read)
            } else {
                (read.len() >= length).then(|| (read[..length].to_vec(), length))
            };
            if let Some((whole, length)) = whole {
                body.extend(whole);
                read.drain(..length);
                break;
            }
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(length) => read.extend_from_slice(&buffer[..length]),
            }
        }
        let request = Seen { head, body };
        let number = {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push(request.clone());
            seen.len() - 1
        };
        let said = match script(number, &request) {
            Do::Say(bytes) => stream.write_all(&bytes).await,
            Do::SayAndClose(bytes) => {
                _ = stream.write_all(&bytes).await;
                return;
            }
            Do::SaySlowly(pieces, pause) => {
                for piece in pieces {
                    if stream.write_all(&piece).await.is_err() {
                        return;
                    }
                    sleep(pause).await;
                }
                Ok(())
            }
            Do::SayTwice(first, second, told) => {
                if stream.write_all(&first).await.is_err() {
                    return;
                }
                told.notified().await;
                stream.write_all(&second).await
            }
            Do::SayForever(bytes) => loop {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            },
            Do::Close => return,
            Do::Hang => std::future::pending().await,
        };
        if said.is_err() {
            return;
        }
    }
}
