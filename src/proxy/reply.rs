//! What the domain answers: what of it goes back, and what its refusals mean.

use std::borrow::Cow;
use std::io::Read as _;

use bytes::{Bytes, BytesMut};
use flate2::read::GzDecoder;
use http::header::{AGE, CONTENT_ENCODING, DATE, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body;
use jiff::Timestamp;
use serde_json::Value;

use super::body::Returned;
use super::clock::http_date;
use super::connections::{Answer, Interrupted};
use super::head::take_off_hops;
use crate::aws::error::causes;

/// So much of a refusal is read.
const LARGEST: usize = 64 << 10;

/// The longest explanation.
const LONGEST: usize = 500;

/// So much of a line is shown around where it differs.
const SHOWN: usize = 60;

/// The header in which AWS names what is wrong.
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

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
    /// It says nothing, as in answer to HEAD, but what time it has.
    Silent(Timestamp),
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
            Self::Silent(_) | Self::Unknown => "unknown",
        }
    }

    /// Tells whether it is about the signature, and not about what its owner may do.
    #[must_use]
    pub fn is_of_signature(&self) -> bool {
        matches!(self, Self::Skew(_) | Self::Credentials | Self::Signature(_))
    }
}

/// Reads why a request was refused out of what the service says.
///
/// What OpenSearch and Dashboards say may quote what a client sent. So AWS is believed only where its
/// own words are at the beginning of its own field, or in its own header.
#[must_use]
pub fn cause(headers: &HeaderMap, body: &[u8]) -> Cause {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let field = |name| parsed.as_ref().and_then(|it| it.get(name));
    let own = field("message").or_else(|| field("Message"));
    let own = own.filter(|_| field("error").is_none() && field("statusCode").is_none());
    let message = own.and_then(Value::as_str).unwrap_or_default();
    let type_ = headers.get(ERROR_TYPE).and_then(|it| it.to_str().ok());
    let type_ = type_.and_then(|it| it.split(':').next());
    let says = |words: &[&str], types: &[&str]| {
        words.iter().any(|it| message.starts_with(it))
            || type_.is_some_and(|type_| types.contains(&type_))
    };
    if says(
        &["Signature expired", "Signature not yet current"],
        &["RequestTimeTooSkewed", "RequestExpired"],
    ) {
        return Cause::Skew(own_date(headers));
    }
    if says(
        &["The security token included in the request is"],
        &[
            "ExpiredToken",
            "ExpiredTokenException",
            "InvalidClientTokenId",
            "UnrecognizedClientException",
        ],
    ) {
        return Cause::Credentials;
    }
    if says(
        &["The request signature we calculated does not match"],
        &["InvalidSignatureException", "SignatureDoesNotMatch"],
    ) {
        return Cause::Signature(expected(message));
    }
    if headers.contains_key("x-aoss-response-hint") {
        return Cause::Collection;
    }
    let error = parsed.as_ref().and_then(|it| it.pointer("/error/type"));
    if error.is_some_and(|it| it == "security_exception") {
        return Cause::Plugin;
    }
    if message.contains("is not authorized to perform") {
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

/// Says how two canonical requests differ: which line does first, and where in it. What of queries
/// and tokens differs is not told: it is nobody's but the client's.
///
/// Nothing, where they are the same: then it is the secret key that differs.
#[must_use]
pub fn difference(ours: &str, theirs: &str) -> Option<String> {
    // Ours comes without the token itself.
    let is_token = |line: &str| line.starts_with("x-amz-security-token:");
    let mut lines = (1..).zip(ours.split('\n').zip(theirs.split('\n')));
    let differing =
        lines.find(|(_, (our, their))| our != their && !(is_token(our) && is_token(their)));
    let Some((number, (our, their))) = differing else {
        let (our, their) = (ours.split('\n').count(), theirs.split('\n').count());
        let shorter = format!("the canonical request has {our} lines here and {their} there");
        return (our != their).then_some(shorter);
    };
    let same = our.chars().zip(their.chars()).take_while(|(a, b)| a == b);
    let at = same.count();
    let name = our.split_once(':').map_or("", |(name, _)| name);
    let line = match (number, name) {
        (1, _) => "the method".to_owned(),
        (2, _) => "the path".to_owned(),
        (3, _) => {
            return Some(format!(
                "the canonical query differs from character {} on",
                at + 1
            ));
        }
        _ if is_token(our) || is_token(their) => {
            return Some("one has a session token, and one has none".to_owned());
        }
        (_, "") => format!("line {number} of the canonical request"),
        (_, name) => format!("the header {name}"),
    };
    let shown = |line: &str| -> String {
        let around = line.chars().skip(at.saturating_sub(SHOWN / 2));
        around.filter(|it| !it.is_control()).take(SHOWN).collect()
    };
    let (our, their) = (shown(our), shown(their));
    Some(format!(
        "{line} is {our:?} here and {their:?} there, around character {}",
        at + 1
    ))
}

/// Returns the words of a refusal, which clients may have asked to be compressed.
fn decoded<'a>(headers: &HeaderMap, begun: &'a Bytes) -> Cow<'a, [u8]> {
    let coding = headers.get(CONTENT_ENCODING);
    if !coding.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"gzip")) {
        return Cow::Borrowed(begun);
    }
    let limit = u64::try_from(LARGEST).unwrap_or(u64::MAX);
    let mut words = Vec::new();
    // Of what is cut off or broken, as much as can be read.
    _ = GzDecoder::new(&**begun).take(limit).read_to_end(&mut words);
    Cow::Owned(words)
}

/// Reads the beginning of a body.
async fn begin(body: &mut Answer) -> Result<Bytes, Interrupted> {
    let mut read = BytesMut::new();
    while read.len() < LARGEST {
        let Some(frame) = body.frame().await.transpose()? else {
            break;
        };
        // What is no data is a trailer, which ends here.
        read.extend_from_slice(frame.data_ref().map_or(&[], |it| it));
    }
    Ok(read.freeze())
}

/// An answer of the domain, without what concerns its connection.
pub struct Reply {
    /// The answer.
    pub response: Response<Returned>,
    /// Why it refuses, if it does.
    pub refused: Option<Cause>,
}

impl Reply {
    /// Tells whether an answer is to be read before it goes back.
    #[must_use]
    pub fn is_to_be_read(status: StatusCode) -> bool {
        status.is_informational()
            || matches!(
                status,
                StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST
            )
    }

    /// Takes an answer that goes back as it comes.
    #[must_use]
    pub fn as_it_is(mut response: Response<Answer>) -> Self {
        take_off_hops(response.headers_mut());
        Self {
            response: response.map(|body| Returned::Streamed(None, body)),
            refused: None,
        }
    }

    /// Reads the beginning of a refusal.
    ///
    /// # Errors
    ///
    /// Fails where the connection breaks meanwhile, and where the answer is none.
    pub async fn read(response: Response<Answer>) -> Result<Self, String> {
        let (mut parts, mut body) = response.into_parts();
        if parts.status.is_informational() {
            return Err(format!(
                "it answers {}, which was not asked for",
                parts.status
            ));
        }
        take_off_hops(&mut parts.headers);
        let has_body = !body.is_end_stream();
        let begun = begin(&mut body).await.map_err(|error| causes(&error))?;
        let cause = match cause(&parts.headers, &decoded(&parts.headers, &begun)) {
            // An answer to HEAD has no words, but the domain's time.
            Cause::Unknown if !has_body => match own_date(&parts.headers) {
                Some(date) => Cause::Silent(date),
                None => Cause::Unknown,
            },
            cause => cause,
        };
        // Clients make mistakes, too.
        let of_client = parts.status != StatusCode::FORBIDDEN && !cause.is_of_signature();
        let begun = Some(begun).filter(|it| !it.is_empty());
        let body = if body.is_end_stream() {
            Returned::Whole(begun)
        } else {
            Returned::Streamed(begun, body)
        };
        Ok(Self {
            response: Response::from_parts(parts, body),
            refused: (!of_client).then_some(cause),
        })
    }

    /// Says in a header what a refusal means, and what to do.
    pub fn explain(&mut self, text: &str) {
        let visible: String = text
            .chars()
            .filter(|it| it.is_ascii() && !it.is_control())
            .take(LONGEST)
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
                "The security token included in the request is expired",
                Cause::Unknown,
            ),
            (
                r#"{"statusCode":400,"error":"Bad Request","message":"Signature expired: so says a client"}"#,
                Cause::Unknown,
            ),
            (
                r#"{"message":"no such field: The security token included in the request is expired"}"#,
                Cause::Unknown,
            ),
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
        let said = difference(ours, &theirs).unwrap();
        assert!(
            said.contains(r#"the path is "/a" here and "/b" there"#),
            "{said}"
        );
        assert_eq!(difference(&theirs, &theirs), None);
        let type_ = [("x-amzn-errortype", "InvalidSignatureException:http://x")];
        assert_eq!(told(&type_, ""), Cause::Signature(None));
    }

    #[test]
    fn what_differs_is_told_in_few_words() {
        let long = "x".repeat(5000);
        let lines = |path: &str, query: &str, token: &str| {
            format!("GET\n/{path}\n{query}\nhost:x\nx-amz-security-token:{token}\n\nhost\ne3b0")
        };
        let ours = lines(&format!("{long}a{long}"), "q=1", "t");
        let said = difference(&ours, &lines(&format!("{long}b{long}"), "q=1", "t")).unwrap();
        assert!(
            said.len() < 300 && said.contains("character 5002"),
            "{said}"
        );
        // Values of queries and tokens are the client's.
        let said = difference(&lines("", "q=SECRET", "t"), &lines("", "q=OTHER", "t")).unwrap();
        assert_eq!(said, "the canonical query differs from character 3 on");
        let (ours, theirs) = (
            lines("", "", "(the session token)"),
            lines("", "", "SECRET"),
        );
        assert_eq!(difference(&ours, &theirs), None);
        let theirs = theirs.replace("x-amz-security-token", "x-other");
        let said = difference(&ours, &theirs).unwrap();
        assert_eq!(said, "one has a session token, and one has none");
        let said = difference("GET", "GET\n/").unwrap();
        assert!(said.contains("1 lines here and 2 there"), "{said}");
    }
}
