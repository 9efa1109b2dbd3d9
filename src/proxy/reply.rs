//! What the domain answers: what of it goes back, and what its refusals mean.

use bytes::Bytes;
use http::header::{AGE, CONTENT_ENCODING, CONTENT_LENGTH, DATE, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use jiff::Timestamp;

use super::body::Returned;
use super::clock::http_date;
use super::head::take_off_hops;

/// Refusals up to this size are read.
const LARGEST: u64 = 256 << 10;

/// The header that explains a refusal of the domain.
pub const EXPLAINED: HeaderName = HeaderName::from_static("x-opensearch-access-explained");

/// Why the domain refused a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The clocks differ: the domain's time, where it can be believed to be its own.
    Skew(Option<Timestamp>),
    /// The credentials are no more, or not yet, known.
    Credentials,
    /// The signature is another than the domain worked out; with what it worked it out from.
    Signature(Option<String>),
    /// The access policy does not let this identity do it.
    Door,
    /// The security plugin does not.
    Plugin,
    /// A collection's data access policy does not.
    Collection,
    /// It does not say.
    Unknown,
}

impl Cause {
    /// Names the cause, for metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Skew(_) => "clock_skew",
            Self::Credentials => "credentials",
            Self::Signature(_) => "signature",
            Self::Door => "access_policy",
            Self::Plugin => "security_plugin",
            Self::Collection => "data_access_policy",
            Self::Unknown => "unknown",
        }
    }

    /// Tells whether it is about the signature, and not about what its owner may do.
    #[must_use]
    pub fn is_of_signature(&self) -> bool {
        matches!(self, Self::Skew(_) | Self::Credentials | Self::Signature(_))
    }
}

/// Reads why a request was refused out of what the service says.
#[must_use]
pub fn cause(headers: &HeaderMap, body: &[u8]) -> Cause {
    let text = String::from_utf8_lossy(body);
    let parsed: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    // What OpenSearch says may quote what a client sent; what stands before it says no more than this.
    let message = parsed
        .as_ref()
        .map(|it| it.get("message").or_else(|| it.get("Message")));
    let text = match message {
        Some(message) => message
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default(),
        None => &text,
    };
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&[
        "Signature expired",
        "Signature not yet current",
        "RequestTimeTooSkewed",
    ]) {
        return Cause::Skew(own_date(headers));
    }
    if says(&[
        "security token included in the request is",
        "ExpiredToken",
        "UnrecognizedClient",
    ]) {
        return Cause::Credentials;
    }
    if says(&[
        "signature we calculated does not match",
        "InvalidSignature",
        "SignatureDoesNotMatch",
    ]) {
        return Cause::Signature(expected(text));
    }
    if headers.contains_key("x-aoss-response-hint") {
        return Cause::Collection;
    }
    let error = parsed.as_ref().and_then(|it| it.pointer("/error/type"));
    if error.is_some_and(|it| it == "security_exception") {
        return Cause::Plugin;
    }
    if says(&["is not authorized to perform", "AccessDenied"]) {
        return Cause::Door;
    }
    Cause::Unknown
}

/// Returns when the domain answered; what a cache or another proxy answered tells another time.
fn own_date(headers: &HeaderMap) -> Option<Timestamp> {
    let passed_on = headers.contains_key(AGE) || headers.contains_key("via");
    let date = headers.get(DATE).filter(|_| !passed_on)?;
    http_date(date.to_str().ok()?)
}

/// Cuts the canonical request out of the message in which the service says what it expected:
/// between two quotes, behind words that it has had for years.
fn expected(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("Canonical String for this request should have been")?;
    let (_, rest) = rest.split_once('\'')?;
    let (canonical, _) = rest.split_once('\'')?;
    Some(canonical.to_owned())
}

/// Says how two canonical requests differ: the first line that does. A session token is shown by
/// its length alone.
#[must_use]
pub fn difference(ours: &str, theirs: &str) -> String {
    let shown = |line: &str| match line.split_once("x-amz-security-token:") {
        Some((_, token)) => format!("x-amz-security-token: {} characters", token.len()),
        None => line.chars().filter(|it| !it.is_control()).collect(),
    };
    let mut lines = ours.lines().zip(theirs.lines()).enumerate();
    let token = "x-amz-security-token:";
    let differing = lines.find(|(_, (ours, theirs))| {
        ours != theirs && !(ours.starts_with(token) && theirs.starts_with(token))
    });
    match differing {
        Some((at, (ours, theirs))) => format!(
            "line {} of the canonical request is {:?} here and {:?} there",
            at + 1,
            shown(ours),
            shown(theirs)
        ),
        None => {
            "the canonical requests are the same: the secret key is not the one of this access key"
                .to_owned()
        }
    }
}

/// An answer of the domain, without what concerns its connection.
pub struct Reply {
    /// The answer.
    pub response: Response<Returned>,
    /// Why it refuses, if it does.
    pub refused: Option<Cause>,
}

impl Reply {
    /// Takes an answer; a refusal that is small enough is read.
    ///
    /// # Errors
    ///
    /// Fails where the connection breaks while a refusal is read.
    pub async fn read(response: Response<Incoming>) -> Result<Self, String> {
        let (mut parts, body) = response.into_parts();
        take_off_hops(&mut parts.headers);
        let refused = matches!(
            parts.status,
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST
        );
        let length = body.size_hint().exact();
        let is_small = length.is_some_and(|length| length > 0 && length <= LARGEST);
        let is_plain = !parts.headers.contains_key(CONTENT_ENCODING);
        if !refused || !is_plain || !is_small {
            let streamed = Returned::Streamed(body);
            let forbidden = parts.status == StatusCode::FORBIDDEN;
            return Ok(Self {
                response: Response::from_parts(parts, streamed),
                refused: forbidden.then_some(Cause::Unknown),
            });
        }
        let limit = usize::try_from(LARGEST).unwrap_or(usize::MAX);
        let read = Limited::new(body, limit).collect().await;
        let bytes: Bytes = read.map_err(|error| error.to_string())?.to_bytes();
        let cause = cause(&parts.headers, &bytes);
        // Clients make mistakes, too.
        let of_client = parts.status != StatusCode::FORBIDDEN && !cause.is_of_signature();
        parts
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        Ok(Self {
            response: Response::from_parts(parts, bytes.into()),
            refused: (!of_client).then_some(cause),
        })
    }

    /// Says in a header what a refusal means, and what to do.
    pub fn explain(&mut self, text: &str) {
        let visible: String = text
            .chars()
            .filter(|it| it.is_ascii() && !it.is_control())
            .collect();
        if let Ok(value) = HeaderValue::from_str(&visible) {
            self.response.headers_mut().insert(EXPLAINED, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: &[(&str, &str)] = &[];

    fn told(headers: &[(&str, &str)], body: &str) -> Cause {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).unwrap();
            map.insert(name, HeaderValue::from_str(value).unwrap());
        }
        cause(&map, body.as_bytes())
    }

    #[test]
    fn refusals_are_understood() {
        let expired = r#"{"message":"Signature expired: 20260131T000000Z is now earlier than 20260131T001000Z"}"#;
        assert_eq!(told(NONE, expired), Cause::Skew(None));
        let date = [("date", "Sun, 06 Nov 1994 08:49:37 GMT")];
        let at = "1994-11-06T08:49:37Z".parse().unwrap();
        assert_eq!(told(&date, expired), Cause::Skew(Some(at)));
        let cached = [date[0], ("age", "5")];
        assert_eq!(told(&cached, expired), Cause::Skew(None));
        let proxied = [date[0], ("via", "1.1 x")];
        assert_eq!(told(&proxied, expired), Cause::Skew(None));
        for (body, cause) in [
            (
                r#"{"message":"The security token included in the request is expired"}"#,
                Cause::Credentials,
            ),
            (
                r#"{"Message":"User: arn:aws:iam::1:role/x is not authorized to perform: es:ESHttpGet"}"#,
                Cause::Door,
            ),
            (
                r#"{"error":{"type":"security_exception","reason":"no permissions for [indices:data/read/search]"}}"#,
                Cause::Plugin,
            ),
            ("Forbidden", Cause::Unknown),
            (
                r#"{"error":{"type":"mapper_parsing_exception","reason":"Preview of field's value: 'ExpiredToken'"}}"#,
                Cause::Unknown,
            ),
        ] {
            assert_eq!(told(NONE, body), cause, "{body}");
        }
        let collection = [("x-aoss-response-hint", "X01:gw-helper-deny")];
        assert_eq!(told(&collection, "403 Forbidden"), Cause::Collection);
    }

    #[test]
    fn what_the_service_worked_out_is_held_against_ours() {
        let body = r#"{"message":"The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.\n\nThe Canonical String for this request should have been\n'GET\n/b\n\nhost:x\nx-amz-date:d\n\nhost;x-amz-date\ne3b0'\n\nThe String-to-Sign should have been\n'AWS4'"}"#;
        let Cause::Signature(Some(theirs)) = told(NONE, body) else {
            panic!("{:?}", told(NONE, body));
        };
        let ours = "GET\n/a\n\nhost:x\nx-amz-date:d\n\nhost;x-amz-date\ne3b0";
        let said = difference(ours, &theirs);
        assert!(
            said.contains(r#"line 2 of the canonical request is "/a" here and "/b" there"#),
            "{said}"
        );
        let said = difference(&theirs, &theirs);
        assert!(said.contains("secret key"), "{said}");
        assert_eq!(
            told(NONE, "InvalidSignatureException"),
            Cause::Signature(None)
        );
    }

    #[test]
    fn no_token_is_told() {
        let ours = "x-amz-security-token:(the session token)\nx";
        let said = difference(ours, "x-amz-security-token:SECRET\nx");
        assert!(!said.contains("SECRET"), "{said}");
        let said = difference("x", "x-amz-security-token:SECRET");
        assert!(!said.contains("SECRET"), "{said}");
    }
}
