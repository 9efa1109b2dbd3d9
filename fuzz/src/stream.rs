//! The guard: what it lets through, the parser finds, and nothing else.

use super::guard::Guard;
use super::parser;

/// What the guard makes of the bytes of a connection.
struct Passed {
    bytes: Vec<u8>,
    /// The heads that are let through, unspoiled.
    heads: Vec<Vec<u8>>,
}

/// Reads bytes in pieces of these sizes, again and again.
fn passed(bytes: &[u8], sizes: &[u8]) -> Vec<u8> {
    let mut guard = Guard::new();
    let (mut out, mut rest) = (Vec::new(), bytes);
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let size = sizes.next().map_or(usize::MAX, |it| usize::from(*it) + 1);
        let (now, after) = rest.split_at(size.min(rest.len()));
        guard.read(now);
        rest = after;
        out.extend_from_slice(&guard.take(usize::MAX));
    }
    guard.end();
    out.extend_from_slice(&guard.take(usize::MAX));
    out
}

/// The same byte by byte, so that it shows which of them are heads.
fn watched(bytes: &[u8]) -> Passed {
    let mut guard = Guard::new();
    let (mut out, mut heads) = (Vec::new(), Vec::new());
    for byte in bytes {
        let awaited = guard.awaits_head();
        guard.read(std::slice::from_ref(byte));
        let now = guard.take(usize::MAX);
        // No method begins with the byte by which a head is spoiled.
        if awaited && !guard.awaits_head() && now.first().is_some_and(|it| *it != 0) {
            heads.push(now.to_vec());
        }
        out.extend_from_slice(&now);
    }
    guard.end();
    out.extend_from_slice(&guard.take(usize::MAX));
    Passed { bytes: out, heads }
}

/// Holds the guard against the parser; the first bytes say how the rest is cut.
///
/// # Panics
///
/// Panics where what the parser gets depends on how it was cut, or where the parser finds a request
/// that was not let through as one, at that place.
pub fn check(data: &[u8]) {
    let (sizes, bytes) = data.split_at(data.len().min(4));
    let whole = watched(bytes);
    for sizes in [sizes, &[]] {
        assert!(
            passed(bytes, sizes) == whole.bytes,
            "it depends on how it is cut"
        );
    }
    let found = parser::requests(&whole.bytes);
    assert!(
        found.len() <= whole.heads.len(),
        "{} heads are let through, and {} requests found",
        whole.heads.len(),
        found.len()
    );
    for (head, (parts, _)) in whole.heads.iter().zip(&found) {
        assert!(
            head.starts_with(parts.method.as_str().as_bytes()),
            "{:?} is read as {} {}",
            String::from_utf8_lossy(head),
            parts.method,
            parts.uri
        );
    }
}
