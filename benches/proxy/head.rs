//! As much of HTTP as is needed of messages that say how long they are.

/// Returns where a head ends.
pub(crate) fn end(bytes: &[u8]) -> Option<usize> {
    let at = bytes.windows(4).position(|it| it == b"\r\n\r\n")?;
    Some(at + 4)
}

/// Returns the length of the body; none where only its end tells.
pub(crate) fn length(head: &[u8]) -> Option<usize> {
    let mut length = 0;
    for line in head.split(|it| *it == b'\n') {
        let Some(colon) = line.iter().position(|it| *it == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return None;
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            length = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
        }
    }
    Some(length)
}
