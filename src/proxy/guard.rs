//! The heads of requests as they come in, before anything parses them.
//!
//! HTTP parsers read around what is malformed: a bare line feed ends a line, a second length is
//! dropped. Whoever stands before or behind reads otherwise, and takes the end of one request for
//! the beginning of another. So a head that can be read in two ways is spoiled here: the parser
//! refuses it, says 400, and closes the connection.
//!
//! Severe in the terms of RFC 9112, sections 2.2, 3, 5 and 6: line ends other than CRLF, folded lines, a `#`,
//! `Content-Length` twice, badly spelled, or beside `Transfer-Encoding`, and a `Transfer-Encoding` that
//! is not `chunked` alone.

use bytes::{Buf, BytesMut};
use memchr::{memchr, memmem};

/// The longest head: that of a target as long as one can be, and more; the parser refuses what is longer.
pub(super) const LONGEST: usize = 80 << 10;

/// So much room is kept for the next head.
const KEPT: usize = 4 << 10;

/// How a head ends.
const END: &[u8] = b"\r\n\r\n";

/// The longest line about a chunk.
const LONGEST_LINE: usize = 16 << 10;

/// What follows of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A head.
    Head,
    /// So many bytes of a body.
    Body(u64),
    /// The line before a chunk.
    Size,
    /// So many bytes of a chunk, and the two behind it.
    Chunk(u64),
    /// The lines behind the last chunk.
    Trailer,
    /// Whatever: the parser ends the connection.
    Over,
}

/// Reads along.
#[derive(Debug)]
pub(super) struct Guard {
    state: State,
    /// The head, or the line, that has begun.
    begun: Vec<u8>,
    /// What the parser may read.
    out: BytesMut,
}

impl Guard {
    pub(super) fn new() -> Self {
        Self {
            state: State::Head,
            begun: Vec::new(),
            out: BytesMut::new(),
        }
    }

    /// Tells whether a head has begun and not come to its end.
    pub(super) fn awaits_head(&self) -> bool {
        self.state == State::Head && !self.begun.is_empty()
    }

    /// Takes what the parser may read, up to a length.
    pub(super) fn take(&mut self, most: usize) -> BytesMut {
        let length = most.min(self.out.len());
        self.out.split_to(length)
    }

    /// Tells whether the parser may read something.
    pub(super) fn has_some(&self) -> bool {
        self.out.has_remaining()
    }

    /// Returns how many bytes that come next are a body's, and may go to the parser past this guard.
    pub(super) fn passing(&self) -> u64 {
        match self.state {
            State::Body(left) | State::Chunk(left) if !self.has_some() => left,
            _ => 0,
        }
    }

    /// Takes note of bytes that went past; of none, where nothing more comes in.
    pub(super) fn passed(&mut self, length: usize) {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        self.state = match self.state {
            _ if length == 0 => State::Over,
            State::Body(left) if left <= length => State::Head,
            State::Body(left) => State::Body(left - length),
            State::Chunk(left) if left <= length => State::Size,
            State::Chunk(left) => State::Chunk(left - length),
            other => other,
        };
    }

    /// Takes note that nothing more comes in.
    pub(super) fn end(&mut self) {
        self.out.extend_from_slice(&self.begun);
        self.begun.clear();
        self.state = State::Over;
    }

    /// Reads what came in.
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.state {
                State::Over => {
                    self.out.extend_from_slice(bytes);
                    return;
                }
                State::Body(left) | State::Chunk(left) => self.pass(&mut bytes, left),
                State::Head => self.head(&mut bytes),
                State::Size | State::Trailer => self.line(&mut bytes),
            }
        }
    }

    /// Passes bytes of a body on.
    fn pass(&mut self, bytes: &mut &[u8], left: u64) {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let (now, rest) = bytes.split_at(length);
        self.out.extend_from_slice(now);
        self.passed(length);
        *bytes = rest;
    }

    /// Tells whether the parser may read just what came in: one whole head, with nothing behind it
    /// but a body's beginning. Most requests come so, and are kept nowhere.
    pub(super) fn lets_through(&mut self, bytes: &[u8]) -> bool {
        if self.state != State::Head || !self.begun.is_empty() || self.has_some() {
            return false;
        }
        let Some(length) = memmem::find(bytes, END).map(|at| at + END.len()) else {
            return false;
        };
        let (head, rest) = bytes.split_at(length);
        let rest_length = u64::try_from(rest.len()).unwrap_or(u64::MAX);
        match framing(head) {
            Some(State::Head) if rest.is_empty() => true,
            Some(State::Body(left)) if rest_length <= left => {
                self.state = State::Body(left);
                if !rest.is_empty() {
                    self.passed(rest.len());
                }
                true
            }
            _ => false,
        }
    }

    fn head(&mut self, bytes: &mut &[u8]) {
        while !bytes.is_empty() {
            let length = memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
            let (line, rest) = bytes.split_at(length);
            self.begun.extend_from_slice(line);
            *bytes = rest;
            let ends = line.ends_with(b"\n");
            if ends && !self.begun.ends_with(b"\r\n") || self.begun.len() > LONGEST {
                self.spoil();
                return;
            }
            // Empty lines before a request are nothing (RFC 9112, section 2.2).
            if self.begun == b"\r\n" {
                self.begun.clear();
                continue;
            }
            if self.begun.ends_with(END) {
                match framing(&self.begun) {
                    Some(state) => {
                        self.out.extend_from_slice(&self.begun);
                        self.forget();
                        self.state = state;
                    }
                    None => self.spoil(),
                }
                return;
            }
        }
    }

    /// Begins anew; of a long head, nothing is kept.
    fn forget(&mut self) {
        self.begun.clear();
        self.begun.shrink_to(KEPT);
    }

    /// Has the parser refuse a head: no method begins with this byte.
    fn spoil(&mut self) {
        if let Some(first) = self.begun.first_mut() {
            *first = 0;
        }
        self.end();
    }

    fn line(&mut self, bytes: &mut &[u8]) {
        let length = bytes.iter().position(|it| *it == b'\n');
        let length = length.map_or(bytes.len(), |at| at + 1);
        let (now, rest) = bytes.split_at(length);
        self.begun.extend_from_slice(now);
        *bytes = rest;
        if self.begun.len() > LONGEST_LINE {
            // No parser takes this for a size; what follows is not let through unread.
            self.begun.clear();
            self.out.extend_from_slice(b"!\r\n");
            self.state = State::Over;
            return;
        }
        if !self.begun.ends_with(b"\n") {
            return;
        }
        let next = match self.state {
            _ if !self.begun.ends_with(b"\r\n") => State::Over,
            State::Size => match chunk_size(&self.begun) {
                Some(0) => State::Trailer,
                Some(size) => State::Chunk(size.saturating_add(2)),
                // The parser refuses it, too.
                None => State::Over,
            },
            _ if self.begun == b"\r\n" => State::Head,
            _ => State::Trailer,
        };
        if next == State::Over && self.begun.ends_with(b"\n") {
            // A line that is no size, for parsers that read around a bare line feed.
            self.begun.clear();
            self.begun.extend_from_slice(b"!\r\n");
        }
        self.out.extend_from_slice(&self.begun);
        self.begun.clear();
        self.state = next;
    }
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"\r\n")?;
    let digits = line.split(|it| *it == b';').next()?;
    let digits = std::str::from_utf8(digits)
        .ok()?
        .trim_end_matches([' ', '\t']);
    let are_hex = !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| are_hex)
}

/// The lines of a head; nothing in place of one that has another end than CRLF.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let length = memchr(b'\n', self.0).map_or(self.0.len(), |at| at + 1);
        let (line, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(line.strip_suffix(b"\r\n"))
    }
}

/// Says what follows a head; nothing where it can be read in two ways.
fn framing(head: &[u8]) -> Option<State> {
    let mut lines = Lines(head.strip_suffix(b"\r\n")?);
    let request = lines.next()??;
    // An empty line before it is nobody's request line; it is skipped where heads are put together.
    if request.is_empty() {
        return None;
    }
    // A fragment is dropped by the parser and kept by others, so that another target would be judged.
    if memchr::memchr2(b'\r', b'#', request).is_some() {
        return None;
    }
    let (mut length, mut chunked) = (None, false);
    for line in lines {
        let line = line?;
        // Folded, or with an end of line in its midst.
        if line.first().is_none_or(|it| b" \t".contains(it)) || memchr(b'\r', line).is_some() {
            return None;
        }
        let at = memchr(b':', line)?;
        let (name, value) = (&line[..at], line[at + 1..].trim_ascii());
        if name.is_empty() || name.iter().any(|it| b" \t".contains(it)) {
            return None;
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let number = std::str::from_utf8(value).ok().filter(|_| digits);
            let number: u64 = number?.parse().ok()?;
            if length.replace(number).is_some() {
                return None;
            }
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return None;
            }
            chunked = true;
        }
    }
    match (length, chunked) {
        (Some(_), true) => None,
        (None, true) => request.ends_with(b" HTTP/1.1").then_some(State::Size),
        (Some(0) | None, false) => Some(State::Head),
        (Some(length), false) => Some(State::Body(length)),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Empty};
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Reads bytes in pieces of a size, and returns what the parser gets.
    fn passed(bytes: &[u8], size: usize) -> Vec<u8> {
        let mut guard = Guard::new();
        let mut out = Vec::new();
        for piece in bytes.chunks(size) {
            guard.read(piece);
            out.extend_from_slice(&guard.take(usize::MAX));
        }
        guard.end();
        out.extend_from_slice(&guard.take(usize::MAX));
        out
    }

    /// The same, where bodies go past the guard.
    fn passed_by(bytes: &[u8], size: usize) -> Vec<u8> {
        let mut guard = Guard::new();
        let mut out = Vec::new();
        for mut piece in bytes.chunks(size) {
            while !piece.is_empty() {
                let passing = usize::try_from(guard.passing()).unwrap_or(usize::MAX);
                let (now, rest) = match passing.min(piece.len()) {
                    0 => piece.split_at(1),
                    passing => piece.split_at(passing),
                };
                if passing > 0 {
                    guard.passed(now.len());
                    out.extend_from_slice(now);
                } else {
                    guard.read(now);
                }
                out.extend_from_slice(&guard.take(usize::MAX));
                piece = rest;
            }
        }
        guard.end();
        out.extend_from_slice(&guard.take(usize::MAX));
        out
    }

    /// Pieces of requests, good and bad.
    const PARTS: [&str; 32] = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n",
        "3\r\nabc\r\n",
        "3;x\r\nabc\r\n",
        "0\r\n\r\n",
        "0\r\nX: y\r\n",
        "X: y\r\n",
        "GET / HTTP/1.1",
        "POST /x HTTP/1.0",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "\r",
        "Content-Length: 3",
        "Content-Length: 0",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Host: a",
        "X",
        ": ",
        " ",
        "\t",
        "0",
        "3",
        "a",
        ";x=1",
        "abc",
        "ffffffffffffffff",
        "\0",
    ];

    /// Returns how many heads are let through.
    fn heads(bytes: &[u8]) -> usize {
        let (mut guard, mut count) = (Guard::new(), 0);
        for byte in bytes {
            let awaits = guard.awaits_head();
            guard.read(std::slice::from_ref(byte));
            count += usize::from(
                awaits && guard.begun.is_empty() && guard.state != State::Over && guard.has_some(),
            );
            _ = guard.take(usize::MAX);
        }
        count
    }

    /// Returns how many requests the parser finds in what is let through, with bodies that came to
    /// their end.
    async fn parsed(bytes: Vec<u8>) -> usize {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let count = AtomicUsize::new(0);
        let service = service_fn(|request: Request<Incoming>| {
            let count = &count;
            async move {
                count.fetch_add(1, Ordering::Relaxed);
                let whole = request.into_body().collect().await.is_ok();
                let status = if whole { 200 } else { 400 };
                let response = Response::builder().status(status);
                Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).unwrap())
            }
        });
        let serve = http1::Builder::new().serve_connection(TokioIo::new(server), service);
        let send = async {
            client.write_all(&bytes).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answers = Vec::new();
            _ = client.read_to_end(&mut answers).await;
        };
        let (end, ()) = tokio::join!(serve, send);
        // Whatever ended it.
        drop(end);
        count.load(Ordering::Relaxed)
    }

    proptest! {
        /// The parser finds no request that was not let through as one.
        #[test]
        fn the_parser_finds_no_other_requests(
            parts in prop::collection::vec(prop::sample::select(&PARTS[..]), 0..60),
        ) {
            let all = parts.concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let found = runtime.block_on(parsed(passed(all.as_bytes(), usize::MAX)));
            let let_through = heads(all.as_bytes());
            prop_assert!(found <= let_through, "{found} and {let_through} of {all:?}");
        }

        /// However the bytes of a connection are cut, the parser gets the same; and what is not
        /// spoiled is what came in.
        #[test]
        fn nothing_depends_on_how_bytes_are_cut(
            parts in prop::collection::vec(prop::sample::select(&PARTS[..]), 0..60),
            size in 1_usize..40,
        ) {
            let all = parts.concat();
            let whole = passed(all.as_bytes(), usize::MAX);
            prop_assert_eq!(&passed(all.as_bytes(), size), &whole);
            prop_assert_eq!(&passed_by(all.as_bytes(), size), &whole);
            let unspoiled = !whole.contains(&0) && !whole.windows(3).any(|it| it == b"!\r\n");
            if unspoiled && !all.starts_with("\r\n") {
                // Empty lines between requests are left out.
                let kept = String::from_utf8_lossy(&whole).replace("\r\n", "");
                prop_assert_eq!(kept, all.replace("\r\n", ""));
            }
        }
    }

    #[test]
    fn what_is_clear_passes_unchanged_however_it_is_cut() {
        let all = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nContent-Length: 5\r\n\r\n\
            a\nb\n\nPOST /3 HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=1\r\na\n\n\r\n10 \r\n\
            0123456789abcdef\r\n0\r\nX: y\r\n\r\nGET /4 HTTP/1.1\r\n\r\nGET /5 HTTP/1.1\r\nX: ";
        for size in [1, 2, 3, 7, 64, 1 << 20] {
            assert_eq!(passed(all.as_bytes(), size), all.as_bytes(), "{size}");
            assert_eq!(passed_by(all.as_bytes(), size), all.as_bytes(), "{size}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_spoiled_and_what_follows_is_no_request() {
        for head in [
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\ncontent-length: 1",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1",
            "POST / HTTP/1.1\r\nContent-Length: +1",
            "POST / HTTP/1.1\r\nContent-Length: 1, 1",
            "POST / HTTP/1.1\r\nContent-Length:",
            "POST / HTTP/1.1\r\nContent-Length : 1",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked",
            "GET / HTTP/1.1\r\nX: a\r\n b",
            "GET / HTTP/1.1\r\nX: a\rY: b",
            "GET / HTTP/1.1\r\nX",
            "GET / HTTP/1.1\r\n: x",
            "GET / HTTP/1.1\nX: a",
            "GET /a#b HTTP/1.1\r\nX: a",
        ] {
            for size in [1, 5, 1 << 20] {
                let all = format!("{head}\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n");
                let passed = passed(all.as_bytes(), size);
                assert_eq!(passed.first(), Some(&0), "{head}");
            }
        }
    }

    #[test]
    fn a_chunk_that_can_be_read_in_two_ways_ends_the_connection() {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for chunk in [
            "3\nabc\r\n",
            "-1\r\n",
            "0x1\r\n",
            "\r\n",
            " 1\r\n",
            "fffffffffffffffff\r\n",
        ] {
            let passed = passed(format!("{head}{chunk}").as_bytes(), 4);
            let text = String::from_utf8_lossy(&passed).into_owned();
            assert!(
                text.starts_with(&format!("{head}!\r\n")),
                "{chunk:?}: {text}"
            );
        }
    }

    #[test]
    fn what_is_too_long_ends_the_connection() {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let long = " ".repeat(LONGEST_LINE + 1);
        for size in [1000, 1 << 20] {
            let passed = passed(format!("{head}3{long}\r\nabc\r\n").as_bytes(), size);
            assert!(passed.starts_with(format!("{head}!\r\n").as_bytes()));
        }
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(LONGEST));
        assert_eq!(passed(long.as_bytes(), 1000).first(), Some(&0));
    }

    #[test]
    fn a_head_is_awaited_from_its_first_byte_to_its_last() {
        let mut guard = Guard::new();
        assert!(!guard.awaits_head());
        guard.read(b"GET / HTTP/1.1\r\n");
        assert!(guard.awaits_head() && !guard.has_some());
        guard.read(b"\r\n");
        assert!(!guard.awaits_head() && guard.has_some());
    }
}
