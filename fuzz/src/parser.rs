//! The parser behind the guard, as the proxy sets it up, on bytes in memory.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;

/// The most that the proxy has the parser keep.
const LARGEST: usize = 256 << 10;

/// More often than the longest input makes the parser yield.
const POLLS: usize = 10_000;

/// A connection that says what it says, and then nothing more.
struct Said<'a>(&'a [u8]);

impl Read for Said<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let length = self.0.len().min(buffer.remaining());
        let (now, rest) = self.0.split_at(length);
        buffer.put_slice(now);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

impl Write for Said<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Returns the requests that are found in bytes, and their bodies where those come to an end.
pub(super) fn requests(bytes: &[u8]) -> Vec<(http::request::Parts, Option<Bytes>)> {
    let found = RefCell::new(Vec::new());
    let service = service_fn(|request: Request<Incoming>| {
        let found = &found;
        async move {
            let (parts, body) = request.into_parts();
            let at = found.borrow().len();
            found.borrow_mut().push((parts, None));
            let body = body.collect().await.ok().map(|it| it.to_bytes());
            let whole = body.is_some();
            found.borrow_mut()[at].1 = body;
            let status = if whole { 200 } else { 400 };
            let response = Response::builder().status(status);
            Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).expect("an answer"))
        }
    });
    {
        let connection = http1::Builder::new()
            .half_close(false)
            .max_buf_size(LARGEST)
            .serve_connection(Said(bytes), service);
        let mut connection = pin!(connection);
        let mut context = Context::from_waker(Waker::noop());
        let ended = (0..POLLS).any(|_| connection.as_mut().poll(&mut context).is_ready());
        assert!(ended, "the parser does not come to an end");
    }
    found.into_inner()
}
