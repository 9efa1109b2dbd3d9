//! The signature.

use std::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};

use aws_lc_rs::{digest, hmac};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Credentials, Target};

/// The headers that are signed, sorted; the token only with temporary credentials.
const SIGNED: &str = "host;x-amz-content-sha256;x-amz-date";
const SIGNED_WITH_TOKEN: &str = "host;x-amz-content-sha256;x-amz-date;x-amz-security-token";

/// Signs for one identity, one region and one service.
///
/// The signing key is derived once a day; another identity is another signer, so that a key is
/// never used beyond its credentials.
pub struct Signer {
    credentials: Credentials,
    region: String,
    service: String,
    key: Mutex<Option<(Day, hmac::Key)>>,
}

/// A day of UTC, as scopes spell it: `20260131`.
type Day = [u8; 8];

/// A time as `x-amz-date` spells it: `20260131T235959Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Date([u8; 16]);

/// What is said of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// The SHA-256 of the bytes as they are sent.
    Hash([u8; 32]),
    /// Nothing: the body is not signed, and only TLS protects it.
    Unsigned,
}

/// A request to be signed.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method, in upper case.
    pub method: &'a str,
    /// The `Host` header as it is sent: the domain's endpoint, with a port if it is not 443.
    pub host: &'a str,
    /// The target as it is sent.
    pub target: &'a Target,
    /// The body.
    pub payload: Payload,
}

/// What a signed request carries beside its `Host`.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed<'a> {
    /// The value of `Authorization`.
    pub authorization: String,
    /// The value of `x-amz-date`.
    pub date: String,
    /// The value of `x-amz-content-sha256`.
    pub content_sha256: String,
    /// The value of `x-amz-security-token`, with temporary credentials.
    pub security_token: Option<&'a str>,
}

impl Signer {
    /// Makes a signer; `service` is `es` for domains and `aoss` for collections.
    #[must_use]
    pub fn new(
        credentials: Credentials,
        region: impl Into<String>,
        service: impl Into<String>,
    ) -> Self {
        Self {
            credentials,
            region: region.into(),
            service: service.into(),
            key: Mutex::default(),
        }
    }

    /// Returns whose signature it is.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Signs a request at a time, which must be within five minutes of when it arrives.
    #[must_use]
    pub fn sign(&self, request: &Request<'_>, now: Timestamp) -> Signed<'_> {
        let date = Date::of(now);
        let content = request.payload.spelled();
        let canonical = hash_of(self.canonical(request, &date, &content).as_bytes());
        let signature = self.mac(date.day(), &self.to_sign(&date, &canonical));
        Signed {
            authorization: self.authorization(&date, &signature),
            date: date.as_str().to_owned(),
            content_sha256: content.as_str().to_owned(),
            security_token: self.credentials.session_token(),
        }
    }

    /// Returns the canonical request, to hold it against the one that a service says it expected;
    /// the session token is left out of it.
    #[must_use]
    pub fn canonical_request(&self, request: &Request<'_>, now: Timestamp) -> String {
        let content = request.payload.spelled();
        let text = self.canonical(request, &Date::of(now), &content);
        match self.credentials.session_token() {
            Some(token) => text.replace(token, "(the session token)"),
            None => text,
        }
    }

    /// The canonical request.
    fn canonical(&self, request: &Request<'_>, date: &Date, content: &Spelled) -> String {
        let token = self.credentials.session_token();
        let parts = [
            request.method,
            "\n",
            request.target.signed_path(),
            "\n",
            request.target.signed_query(),
            "\nhost:",
            request.host,
            "\nx-amz-content-sha256:",
            content.as_str(),
            "\nx-amz-date:",
            date.as_str(),
            token.map_or("", |_| "\nx-amz-security-token:"),
            token.unwrap_or_default(),
            "\n\n",
            self.signed_headers(),
            "\n",
            content.as_str(),
        ];
        parts.concat()
    }

    /// The string to sign.
    fn to_sign(&self, date: &Date, canonical: &[u8; 32]) -> String {
        let hash = hex(canonical);
        let parts = [
            "AWS4-HMAC-SHA256\n",
            date.as_str(),
            "\n",
            date.day_as_str(),
            "/",
            &self.region,
            "/",
            &self.service,
            "/aws4_request\n",
            as_ascii(&hash),
        ];
        parts.concat()
    }

    fn signed_headers(&self) -> &'static str {
        match self.credentials.session_token() {
            Some(_) => SIGNED_WITH_TOKEN,
            None => SIGNED,
        }
    }

    fn authorization(&self, date: &Date, signature: &[u8; 32]) -> String {
        let signature = hex(signature);
        let parts = [
            "AWS4-HMAC-SHA256 Credential=",
            self.credentials.access_key_id(),
            "/",
            date.day_as_str(),
            "/",
            &self.region,
            "/",
            &self.service,
            "/aws4_request, SignedHeaders=",
            self.signed_headers(),
            ", Signature=",
            as_ascii(&signature),
        ];
        parts.concat()
    }

    /// Signs with the key of a day.
    fn mac(&self, day: Day, text: &str) -> [u8; 32] {
        let mut known = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match &mut *known {
            Some(known) if known.0 == day => known,
            other => other.insert((day, self.derive(day))),
        };
        let tag = hmac::sign(&known.1, text.as_bytes());
        // The tag of this algorithm is as long.
        tag.as_ref().try_into().unwrap_or_default()
    }

    fn derive(&self, day: Day) -> hmac::Key {
        let secret = zeroize::Zeroizing::new([b"AWS4", self.credentials.secret()].concat());
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        for part in [
            &day[..],
            self.region.as_bytes(),
            self.service.as_bytes(),
            b"aws4_request",
        ] {
            let mut tag = [0; 32];
            tag.copy_from_slice(hmac::sign(&key, part).as_ref());
            let tag = zeroize::Zeroizing::new(tag);
            key = hmac::Key::new(hmac::HMAC_SHA256, &tag[..]);
        }
        key
    }
}

/// SHA-256 of what comes in pieces.
///
/// By `aws-lc`, which has it in assembly for processors without instructions for it, too: those of
/// many EC2 instances.
#[derive(Clone)]
pub struct Hash(digest::Context);

impl Default for Hash {
    fn default() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }
}

impl Hash {
    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// Returns the hash.
    #[must_use]
    pub fn end(self) -> [u8; 32] {
        // The digest of this algorithm is as long.
        self.0.finish().as_ref().try_into().unwrap_or_default()
    }
}

/// Hashes what is there as a whole, which costs less than to begin and to end.
fn hash_of(bytes: &[u8]) -> [u8; 32] {
    // The digest of this algorithm is as long.
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().try_into().unwrap_or_default()
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("credentials", &self.credentials)
            .field("region", &self.region)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

impl Signed<'_> {
    /// Iterates over the headers, by their names in lower case; `host` apart.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let token = self.security_token;
        let token = token.map(|token| ("x-amz-security-token", token));
        [
            ("authorization", self.authorization.as_str()),
            ("x-amz-date", &self.date),
            ("x-amz-content-sha256", &self.content_sha256),
        ]
        .into_iter()
        .chain(token)
    }
}

impl fmt::Debug for Signed<'_> {
    /// Shows when and what, and neither the signature nor the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed")
            .field("date", &self.date)
            .field("content_sha256", &self.content_sha256)
            .finish_non_exhaustive()
    }
}

impl Payload {
    /// Hashes a body that is there as a whole.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        // Most requests have none.
        static EMPTY: LazyLock<Payload> = LazyLock::new(|| Payload::Hash(hash_of(b"")));
        if body.is_empty() {
            return *EMPTY;
        }
        Self::Hash(hash_of(body))
    }

    fn spelled(self) -> Spelled {
        match self {
            Self::Hash(hash) => Spelled::Hash(hex(&hash)),
            Self::Unsigned => Spelled::Unsigned,
        }
    }
}

/// The value of `x-amz-content-sha256`.
enum Spelled {
    Hash([u8; 64]),
    Unsigned,
}

impl Spelled {
    fn as_str(&self) -> &str {
        match self {
            Self::Hash(hash) => as_ascii(hash),
            Self::Unsigned => "UNSIGNED-PAYLOAD",
        }
    }
}

impl Date {
    fn of(now: Timestamp) -> Self {
        let now = now.to_zoned(TimeZone::UTC);
        let mut text = *b"00000000T000000Z";
        let mut put = |at: usize, width: usize, number: u32| {
            let mut number = number;
            for digit in text[at..at + width].iter_mut().rev() {
                *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
                number /= 10;
            }
        };
        let number = |number: i8| u32::from(number.unsigned_abs());
        put(0, 4, u32::from(now.year().unsigned_abs()));
        put(4, 2, number(now.month()));
        put(6, 2, number(now.day()));
        put(9, 2, number(now.hour()));
        put(11, 2, number(now.minute()));
        put(13, 2, number(now.second()));
        Self(text)
    }

    fn as_str(&self) -> &str {
        as_ascii(&self.0)
    }

    fn day_as_str(&self) -> &str {
        self.as_str().get(..8).unwrap_or_default()
    }

    fn day(&self) -> Day {
        let mut day = [0; 8];
        day.copy_from_slice(&self.0[..8]);
        day
    }
}

fn hex(bytes: &[u8; 32]) -> [u8; 64] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 64];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// What is made of digits only is ASCII.
fn as_ascii(text: &[u8]) -> &str {
    std::str::from_utf8(text).unwrap_or_default()
}
