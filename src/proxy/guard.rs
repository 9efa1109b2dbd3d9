//! The heads of requests as they come in, before anything parses them.
//!
//! HTTP parsers read around what is malformed: a bare line feed ends a line, a second length is
//! dropped. Whoever stands before or behind reads otherwise, and takes the end of one request for
//! the beginning of another. So a head that can be read in two ways is spoiled here: the parser
//! refuses it, says 400, and closes the connection.
//!
//! Severe in the terms of RFC 9112, sections 2.2, 5 and 6: line ends other than CRLF, folded lines,
//! `Content-Length` twice, badly spelled, or beside `Transfer-Encoding`, and a `Transfer-Encoding` that
//! is not `chunked` alone.

use bytes::{Buf, BytesMut};

/// The longest head; the parser refuses what is longer.
const LONGEST: usize = 256 << 10;

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
                State::Body(left) => {
                    let rest = self.pass(&mut bytes, left);
                    self.state = if rest == 0 {
                        State::Head
                    } else {
                        State::Body(rest)
                    };
                }
                State::Chunk(left) => {
                    let rest = self.pass(&mut bytes, left);
                    self.state = if rest == 0 {
                        State::Size
                    } else {
                        State::Chunk(rest)
                    };
                }
                State::Head => self.head(&mut bytes),
                State::Size | State::Trailer => self.line(&mut bytes),
            }
        }
    }

    /// Passes bytes of a body on; returns how many are left of it.
    fn pass(&mut self, bytes: &mut &[u8], left: u64) -> u64 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let (now, rest) = bytes.split_at(length);
        self.out.extend_from_slice(now);
        *bytes = rest;
        left - u64::try_from(length).unwrap_or(left)
    }

    fn head(&mut self, bytes: &mut &[u8]) {
        while let Some((byte, rest)) = bytes.split_first() {
            *bytes = rest;
            self.begun.push(*byte);
            if *byte != b'\n' {
                if self.begun.len() > LONGEST {
                    self.end();
                    return;
                }
                continue;
            }
            if !self.begun.ends_with(b"\r\n") {
                self.spoil();
                return;
            }
            // Empty lines before a request are nothing (RFC 9112, section 2.2).
            if self.begun == b"\r\n" {
                self.begun.clear();
                continue;
            }
            if self.begun.ends_with(b"\r\n\r\n") {
                match framing(&self.begun) {
                    Some(state) => {
                        self.out.extend_from_slice(&self.begun);
                        self.begun.clear();
                        self.state = state;
                    }
                    None => self.spoil(),
                }
                return;
            }
        }
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
        if !self.begun.ends_with(b"\n") {
            if self.begun.len() > LONGEST_LINE {
                self.end();
            }
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

/// Says what follows a head; nothing where it can be read in two ways.
fn framing(head: &[u8]) -> Option<State> {
    let head = head.strip_suffix(b"\r\n\r\n")?;
    let mut lines = head.split(|it| *it == b'\n');
    let request = lines.next()?;
    let request = request.strip_suffix(b"\r").unwrap_or(request);
    if request.contains(&b'\r') {
        return None;
    }
    let (mut length, mut chunked) = (None, false);
    for line in lines {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Folded, or with an end of line in its midst.
        if line.first().is_none_or(|it| b" \t".contains(it)) || line.contains(&b'\r') {
            return None;
        }
        let at = line.iter().position(|it| *it == b':')?;
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

    #[test]
    fn what_is_clear_passes_unchanged_however_it_is_cut() {
        let all = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nContent-Length: 5\r\n\r\n\
            a\nb\n\nPOST /3 HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=1\r\na\n\n\r\n10 \r\n\
            0123456789abcdef\r\n0\r\nX: y\r\n\r\nGET /4 HTTP/1.1\r\n\r\nGET /5 HTTP/1.1\r\nX: ";
        for size in [1, 2, 3, 7, 64, 1 << 20] {
            assert_eq!(passed(all.as_bytes(), size), all.as_bytes(), "{size}");
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
    fn a_head_is_awaited_from_its_first_byte_to_its_last() {
        let mut guard = Guard::new();
        assert!(!guard.awaits_head());
        guard.read(b"GET / HTTP/1.1\r\n");
        assert!(guard.awaits_head() && !guard.has_some());
        guard.read(b"\r\n");
        assert!(!guard.awaits_head() && guard.has_some());
    }
}
