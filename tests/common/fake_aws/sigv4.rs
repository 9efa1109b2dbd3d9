//! Verifies AWS Signature Version 4, written from its specification and sharing nothing with any
//! signer.
//!
//! Checked on every call: the Authorization header's shape, the credential scope (date, region,
//! service), that host and every `x-amz-*` header are signed, the payload hash, the ±5 minutes of
//! the date, the session token and its expiry, and the signature itself. The order is AWS's: who
//! you are, then whether the date is right, then the signature.

use std::fmt::Write as _;

use axum::http::{HeaderMap, Method};
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::accounts::{Accounts, Caller};
use super::wire::{Refusal, Service};

/// What RFC 3986 leaves as it is; SigV4 encodes everything else.
pub(crate) const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// How far the request's date may be from the clock.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// The parts of a request that a signature covers.
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a Method,
    /// The path as it came over the wire.
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

/// The Authorization header, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Authorization {
    pub(crate) access_key_id: String,
    pub(crate) date: String,
    pub(crate) region: String,
    pub(crate) service: String,
    signed_headers: Vec<String>,
    signature: String,
}

impl Authorization {
    /// Reads the header; `None` if it is missing or not of this algorithm's shape.
    pub(crate) fn parse(headers: &HeaderMap) -> Option<Self> {
        let header = text(headers, "authorization")?;
        let fields = header.strip_prefix("AWS4-HMAC-SHA256 ")?;
        let field = |name: &str| {
            fields
                .split(',')
                .find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let credential: Vec<&str> = field("Credential")?.split('/').collect();
        let [access_key_id, date, region, service, "aws4_request"] = credential[..] else {
            return None;
        };
        Some(Self {
            access_key_id: access_key_id.to_owned(),
            date: date.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            signed_headers: field("SignedHeaders")?
                .split(';')
                .map(str::to_owned)
                .collect(),
            signature: field("Signature")?.to_owned(),
        })
    }

    fn scope(&self) -> String {
        format!(
            "{}/{}/{}/aws4_request",
            self.date, self.region, self.service
        )
    }
}

/// Says who signed the request, or how AWS refuses it.
pub(crate) fn verify(
    request: &Signed<'_>,
    service: Service,
    accounts: &Accounts,
    now: Timestamp,
) -> Result<Caller, Refusal> {
    if !request.headers.contains_key("authorization") {
        return Err(Refusal::unsigned(service));
    }
    let Some(authorization) = Authorization::parse(request.headers) else {
        let message = "Authorization header requires 'Credential', 'SignedHeaders' and 'Signature' \
            parameters.";
        return Err(Refusal::incomplete_signature(service, message));
    };
    let key = accounts
        .key(&authorization.access_key_id)
        .filter(|key| key.session_token.as_deref() == text(request.headers, "x-amz-security-token"))
        .ok_or_else(|| Refusal::unknown_key(service))?;
    if key.expires.is_some_and(|expires| expires <= now) {
        return Err(Refusal::expired(service));
    }
    let caller = accounts
        .caller(&authorization.access_key_id)
        .ok_or_else(|| Refusal::unknown_key(service))?;
    check_scope(&authorization, service)?;
    let date = check_date(request.headers, &authorization, service, now)?;
    check_signed_headers(request.headers, &authorization, service)?;
    let payload_hash = check_payload(request, service)?;

    let canonical = canonical_request(request, &authorization.signed_headers, &payload_hash);
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{date}\n{}\n{}",
        authorization.scope(),
        hex(&Sha256::digest(&canonical))
    );
    let signature = sign(&key.secret, &authorization, &to_sign);
    if signature != authorization.signature {
        return Err(Refusal::bad_signature(
            service,
            format!(
                "The request signature we calculated does not match the signature you provided. \
                Check your AWS Secret Access Key and signing method. Consult the service \
                documentation for details.\n\nThe Canonical String for this request should have \
                been\n'{canonical}'\n\nThe String-to-Sign should have been\n'{to_sign}'\n"
            ),
        ));
    }
    Ok(caller)
}

fn check_scope(authorization: &Authorization, service: Service) -> Result<(), Refusal> {
    if authorization.service != service.name() {
        let message = format!(
            "Credential should be scoped to correct service: '{}'.",
            service.name()
        );
        return Err(Refusal::bad_signature(service, message));
    }
    let parts: Vec<&str> = authorization.region.split('-').collect();
    let numbered = parts.last().is_some_and(|last| last.parse::<u8>().is_ok());
    if parts.len() < 3 || !numbered {
        return Err(Refusal::bad_signature(
            service,
            "Credential should be scoped to a valid region.",
        ));
    }
    Ok(())
}

/// Returns the request's own date once it is near enough to the clock and agrees with the scope.
fn check_date<'a>(
    headers: &'a HeaderMap,
    authorization: &Authorization,
    service: Service,
    now: Timestamp,
) -> Result<&'a str, Refusal> {
    let date = text(headers, "x-amz-date").ok_or_else(|| {
        Refusal::incomplete_signature(
            service,
            "Authorization header requires existence of 'X-Amz-Date'.",
        )
    })?;
    let signed_at = DateTime::strptime("%Y%m%dT%H%M%SZ", date)
        .and_then(|civil| civil.to_zoned(TimeZone::UTC))
        .map_err(|_| {
            Refusal::incomplete_signature(service, format!("Date must be ISO-8601. Got '{date}'."))
        })?
        .timestamp();
    if !date.starts_with(&authorization.date) {
        let message = format!(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from \
            HTTP: '{}' != '{}'.",
            authorization.date,
            date.split('T').next().unwrap_or(date),
        );
        return Err(Refusal::bad_signature(service, message));
    }
    let stamp = |at: Timestamp| at.strftime("%Y%m%dT%H%M%SZ").to_string();
    if signed_at < now - SKEW {
        let message = format!(
            "Signature expired: {date} is now earlier than {} ({} - 5 min.)",
            stamp(now - SKEW),
            stamp(now)
        );
        return Err(Refusal::bad_signature(service, message));
    }
    if signed_at > now + SKEW {
        let message = format!(
            "Signature not yet current: {date} is still later than {} ({} + 5 min.)",
            stamp(now + SKEW),
            stamp(now)
        );
        return Err(Refusal::bad_signature(service, message));
    }
    Ok(date)
}

fn check_signed_headers(
    headers: &HeaderMap,
    authorization: &Authorization,
    service: Service,
) -> Result<(), Refusal> {
    let signed = |name: &str| {
        authorization
            .signed_headers
            .iter()
            .any(|signed| signed == name)
    };
    let forgotten = headers
        .keys()
        .map(axum::http::HeaderName::as_str)
        .filter(|name| *name == "host" || name.starts_with("x-amz-"))
        .find(|name| !signed(name));
    match forgotten {
        Some(name) => Err(Refusal::bad_signature(
            service,
            format!("'{name}' must be a 'SignedHeader' in the AWS Authorization."),
        )),
        None if authorization.signed_headers.is_sorted() => Ok(()),
        None => Err(Refusal::incomplete_signature(
            service,
            "SignedHeaders must be sorted.",
        )),
    }
}

/// Returns the payload hash that the signature must cover.
fn check_payload(request: &Signed<'_>, service: Service) -> Result<String, Refusal> {
    let actual = hex(&Sha256::digest(request.body));
    match text(request.headers, "x-amz-content-sha256") {
        Some("UNSIGNED-PAYLOAD") => Ok("UNSIGNED-PAYLOAD".to_owned()),
        Some(claimed) if claimed != actual => Err(Refusal::bad_signature(
            service,
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        )),
        _ => Ok(actual),
    }
}

/// Builds the canonical request. The path is encoded once more on top of its wire form, and
/// repeated slashes and dot segments are resolved, as for every service but S3.
fn canonical_request(
    request: &Signed<'_>,
    signed_headers: &[String],
    payload_hash: &str,
) -> String {
    let mut canonical = format!("{}\n{}\n", request.method, canonical_path(request.path));
    let mut pairs: Vec<(String, String)> = request
        .query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encode_query(name), encode_query(value)))
        .collect();
    pairs.sort();
    let query: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    canonical.push_str(&query.join("&"));
    canonical.push('\n');
    for name in signed_headers {
        let values: Vec<String> = request
            .headers
            .get_all(name)
            .iter()
            .map(|value| {
                let value = String::from_utf8_lossy(value.as_bytes());
                value.split_whitespace().collect::<Vec<_>>().join(" ")
            })
            .collect();
        writeln!(canonical, "{name}:{}", values.join(",")).expect("a String takes all writes");
    }
    write!(canonical, "\n{}\n{payload_hash}", signed_headers.join(";"))
        .expect("a String takes all writes");
    canonical
}

fn canonical_path(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path
        .split('/')
        .filter(|segment| !segment.is_empty() && *segment != ".")
    {
        if segment == ".." {
            segments.pop();
        } else {
            segments.push(segment);
        }
    }
    let encoded: Vec<String> = segments
        .iter()
        .map(|segment| utf8_percent_encode(segment, UNRESERVED).to_string())
        .collect();
    let slash = if path.ends_with('/') && !encoded.is_empty() {
        "/"
    } else {
        ""
    };
    format!("/{}{slash}", encoded.join("/"))
}

fn encode_query(part: &str) -> String {
    let decoded: Vec<u8> = percent_decode_str(part).collect();
    percent_encoding::percent_encode(&decoded, UNRESERVED).to_string()
}

fn sign(secret: &str, authorization: &Authorization, to_sign: &str) -> String {
    let mut key = mac(format!("AWS4{secret}").as_bytes(), &authorization.date);
    for part in [
        &authorization.region,
        &authorization.service,
        "aws4_request",
    ] {
        key = mac(&key, part);
    }
    hex(&mac(&key, to_sign))
}

fn mac(key: &[u8], message: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String takes all writes");
            text
        })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
