//! The request target, as it is sent and as it is signed.
//!
//! The service reads a target, normalises its path, and encodes the result once more before it
//! compares signatures. What it may read in more than one way is therefore put right before it is
//! sent (`//`, dot segments, `+` for a space, stray bytes), or refused where nobody could say what
//! is meant. Everything else stays as the client spelled it.

use std::borrow::Cow;
use std::fmt::Write as _;

/// A target in origin form, such as `/logs/_search?q=a%20b`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    sent: String,
    /// Where the path ends in what is sent.
    path_ends: usize,
    /// The path as it is signed; none where it is what is sent.
    signed_path: Option<String>,
    /// The query as it is signed; none where it is what is sent.
    signed_query: Option<String>,
}

/// Why a target cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It is not in origin form.
    #[error("the request target must begin with '/'")]
    NotOrigin,
    /// It has a control character.
    #[error("the request target has a control character, byte {0:#04x}")]
    Control(u8),
    /// It has a fragment, which is never sent.
    #[error("the request target has a '#': encode it as %23")]
    Fragment,
    /// A segment of its path is a percent-encoded `.` or `..`, which some resolve and some do not.
    #[error("the path has an encoded dot segment, which different servers read differently")]
    EncodedDots,
    /// `..` follows an empty segment: some drop the empty one first, some do not.
    #[error("the path has '..' behind an empty segment, which different servers read differently")]
    AmbiguousDots,
    /// A parameter of its query is part of another signature.
    #[error("the query has {0}, a parameter of presigned requests, which the service refuses")]
    Presigned(String),
}

impl Target {
    /// Brings a target into the form in which it is sent.
    ///
    /// # Errors
    ///
    /// Fails where no form of it is read alike by everybody; see [`Invalid`].
    pub fn parse(target: &[u8]) -> Result<Self, Invalid> {
        if let Some(byte) = target.iter().find(|byte| byte.is_ascii_control()) {
            return Err(Invalid::Control(*byte));
        }
        if target.contains(&b'#') {
            return Err(Invalid::Fragment);
        }
        let split = target.iter().position(|byte| *byte == b'?');
        let (path, query) = match split {
            Some(at) => (&target[..at], &target[at + 1..]),
            None => (target, &[][..]),
        };
        if !path.is_empty() && path[0] != b'/' {
            return Err(Invalid::NotOrigin);
        }
        let mut sent = String::with_capacity(target.len() + 8);
        send_path(path, &mut sent)?;
        let path_ends = sent.len();
        let signed_path = sign_path(&sent);
        let pairs = || {
            query
                .split(|byte| *byte == b'&')
                .filter(|it| !it.is_empty())
        };
        let mut lead = '?';
        for pair in pairs() {
            sent.push(lead);
            lead = '&';
            send(pair, is_query_byte, true, &mut sent);
        }
        let mut made = Self {
            sent,
            path_ends,
            signed_path,
            signed_query: None,
        };
        made.signed_query = sign_query(made.sent_query())?;
        Ok(made)
    }

    /// Returns the target as it is to be sent.
    #[must_use]
    pub fn as_sent(&self) -> &str {
        &self.sent
    }

    /// Returns the path as it is to be sent.
    #[must_use]
    pub fn path(&self) -> &str {
        self.sent.get(..self.path_ends).unwrap_or_default()
    }

    fn sent_query(&self) -> &str {
        self.sent.get(self.path_ends + 1..).unwrap_or_default()
    }

    /// Returns the canonical path.
    #[must_use]
    pub fn signed_path(&self) -> &str {
        self.signed_path.as_deref().unwrap_or_else(|| self.path())
    }

    /// Returns the canonical query.
    #[must_use]
    pub fn signed_query(&self) -> &str {
        let signed = self.signed_query.as_deref();
        signed.unwrap_or_else(|| self.sent_query())
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// RFC 3986, section 3.3: what may stand in a segment as it is.
fn is_path_byte(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,;=:@".contains(&byte)
}

/// RFC 3986, section 3.4; a `+` is read as a space by some and not by others.
fn is_query_byte(byte: u8) -> bool {
    byte != b'+' && (is_path_byte(byte) || byte == b'/' || byte == b'?')
}

fn encode(byte: u8, into: &mut String) {
    // Writing to a String cannot fail.
    write!(into, "%{byte:02X}").unwrap_or_default();
}

/// Reads the byte that a text begins with in percent-encoding.
fn encoded(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| {
        let digit = char::from(*text.get(at)?).to_digit(16)?;
        u8::try_from(digit).ok()
    };
    (text.first() == Some(&b'%'))
        .then(|| Some(digit(1)? << 4 | digit(2)?))
        .flatten()
}

/// Copies a text, and encodes what may not stand in it as it is; what is encoded stays so, with its
/// digits in upper case. A `%` that encodes nothing is itself.
fn send(text: &[u8], stays: impl Fn(u8) -> bool, plus_is_space: bool, into: &mut String) {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let rest = text.get(at..).unwrap_or_default();
        if let Some(byte) = encoded(rest) {
            encode(byte, into);
            at += 3;
            continue;
        }
        match byte {
            b'+' if plus_is_space => into.push_str("%20"),
            byte if stays(byte) => into.push(char::from(byte)),
            byte => encode(byte, into),
        }
        at += 1;
    }
}

/// Resolves dot segments and drops empty ones, as the service does before it compares.
fn send_path(path: &[u8], into: &mut String) -> Result<(), Invalid> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let (mut ends_in_slash, mut after_empty) = (true, false);
    for (at, segment) in path.split(|byte| *byte == b'/').enumerate() {
        ends_in_slash = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" => after_empty = at > 0,
            b"." => {}
            b".." if after_empty => return Err(Invalid::AmbiguousDots),
            b".." => drop(kept.pop()),
            segment if is_encoded_dots(segment) => return Err(Invalid::EncodedDots),
            segment => {
                kept.push(segment);
                after_empty = false;
            }
        }
    }
    for segment in &kept {
        into.push('/');
        send(segment, is_path_byte, false, into);
    }
    if ends_in_slash {
        into.push('/');
    }
    Ok(())
}

/// Tells whether a segment is `.` or `..` once it is decoded, and not before.
fn is_encoded_dots(segment: &[u8]) -> bool {
    let (mut at, mut dots) = (0, 0);
    while let Some(byte) = segment.get(at) {
        let rest = segment.get(at..).unwrap_or_default();
        match encoded(rest) {
            Some(b'.') => at += 3,
            None if *byte == b'.' => at += 1,
            _ => return false,
        }
        dots += 1;
    }
    (1..=2).contains(&dots)
}

/// Encodes a path once more, `/` apart; `None` where that changes nothing.
fn sign_path(path: &str) -> Option<String> {
    let stays = |byte: u8| is_unreserved(byte) || byte == b'/';
    let changed = path.bytes().filter(|byte| !stays(*byte)).count();
    (changed > 0).then(|| {
        let mut signed = String::with_capacity(path.len() + 2 * changed);
        for byte in path.bytes() {
            if stays(byte) {
                signed.push(char::from(byte));
            } else {
                encode(byte, &mut signed);
            }
        }
        signed
    })
}

/// Decodes each name and value, encodes it strictly, and sorts by encoded name, then value; `None`
/// where that changes nothing.
fn sign_query(sent: &str) -> Result<Option<String>, Invalid> {
    if sent.is_empty() {
        return Ok(None);
    }
    let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
    for pair in sent.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = strictly(name);
        if PRESIGNED.iter().any(|it| it.eq_ignore_ascii_case(&name)) {
            return Err(Invalid::Presigned(name.into_owned()));
        }
        pairs.push((name, strictly(value)));
    }
    pairs.sort_unstable();
    let mut signed = String::with_capacity(sent.len() + 8);
    for (at, (name, value)) in pairs.iter().enumerate() {
        if at > 0 {
            signed.push('&');
        }
        signed.push_str(name);
        signed.push('=');
        signed.push_str(value);
    }
    Ok((signed != sent).then_some(signed))
}

/// Encodes everything but the unreserved characters, once.
fn strictly(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    if bytes.iter().all(|byte| is_unreserved(*byte)) {
        return Cow::Borrowed(text);
    }
    let (mut strict, mut at) = (String::with_capacity(text.len() + 8), 0);
    while let Some(&byte) = bytes.get(at) {
        let rest = bytes.get(at..).unwrap_or_default();
        let meant = encoded(rest);
        at += if meant.is_some() { 3 } else { 1 };
        let meant = meant.unwrap_or(byte);
        if is_unreserved(meant) {
            strict.push(char::from(meant));
        } else {
            encode(meant, &mut strict);
        }
    }
    Cow::Owned(strict)
}

/// The parameters of a signature in the query; a domain takes none of them.
const PRESIGNED: [&str; 7] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Amz-SignedHeaders",
];
