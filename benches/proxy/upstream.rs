//! What stands for the domain: it reads whole requests, and answers each at once.
//!
//! It shares its core with the load generator, so it does no more than it must.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::head;

/// A request for this is answered with its own head, as it arrived.
pub(crate) const MIRROR: &str = "/mirror";

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 21\r\n\r\n{\"acknowledged\":true}";

/// How long nothing may arrive, for a load to count as over.
const QUIET: Duration = Duration::from_millis(50);

/// A server on a thread of its own, until the program ends.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    answered: Arc<AtomicU64>,
}

impl Upstream {
    pub(crate) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let answered = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&answered);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        thread::spawn(move || {
            let failed = runtime.block_on(accept(listener, counter));
            // Whoever asks it from now on fails, and says so.
            eprintln!("the upstream ended: {failed:?}");
        });
        Ok(Self { address, answered })
    }

    /// Returns how many requests it has answered, once no more arrive.
    pub(crate) fn answered(&self) -> u64 {
        let mut before = self.answered.load(Ordering::Relaxed);
        loop {
            thread::sleep(QUIET);
            let now = self.answered.load(Ordering::Relaxed);
            if now == before {
                return now;
            }
            before = now;
        }
    }
}

async fn accept(listener: TcpListener, answered: Arc<AtomicU64>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answered = Arc::clone(&answered);
        // A connection that breaks is the business of whoever sent on it.
        tokio::spawn(async move { serve(stream, &answered).await.ok() });
    }
}

async fn serve(mut stream: TcpStream, answered: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut filled = 0;
    loop {
        let end = loop {
            if let Some(end) = head::end(&buffer[..filled]) {
                break end;
            }
            let read = stream.read(&mut buffer[filled..]).await?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
        };
        let length = head::length(&buffer[..end]).ok_or(io::ErrorKind::InvalidData)?;
        let target = buffer[..end].split(|it| *it == b' ').nth(1);
        let mirrored = (target == Some(MIRROR.as_bytes())).then(|| buffer[..end].to_vec());
        let arrived = length.min(filled - end);
        buffer.copy_within(end + arrived..filled, 0);
        filled -= end + arrived;
        let mut missing = length - arrived;
        while missing > 0 {
            let room = missing.min(buffer.len());
            let read = stream.read(&mut buffer[..room]).await?;
            if read == 0 {
                return Ok(());
            }
            missing -= read;
        }
        answered.fetch_add(1, Ordering::Relaxed);
        match mirrored {
            None => stream.write_all(ANSWER).await?,
            Some(head) => {
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", head.len());
                stream
                    .write_all(&[answer.as_bytes(), &head].concat())
                    .await?;
            }
        }
    }
}
