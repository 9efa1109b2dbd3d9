//! What a client is told that gets no answer from the domain.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::sigv4::target;

/// The header by which the proxy's own answers are told from the domain's.
pub const REFUSED_BY: &str = "x-opensearch-access-proxy-error";

/// Why a request was not forwarded, or not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It can be read in more than one way, or not at all.
    #[error("{0}")]
    Malformed(&'static str),
    /// Its target cannot be sent.
    #[error("{0}")]
    Target(#[from] target::Invalid),
    /// Its target or a header is too long to be sent.
    #[error("the request target is too long")]
    TooLong,
    /// It is for another host than this proxy's.
    #[error(
        "this proxy does not answer for the host {0:?}: use localhost, or name the host with --client-host"
    )]
    Misdirected(String),
    /// It comes from a page in a browser.
    #[error("requests with an Origin come from web pages, which this proxy does not serve")]
    FromBrowser,
    /// It lacks the secret.
    #[error("the header {0} has to carry this proxy's secret")]
    NoSecret(&'static str),
    /// Its method is not one that is forwarded.
    #[error("the method {0} is not forwarded")]
    Method(String),
    /// It is not on the list of what is forwarded.
    #[error("{0}")]
    NotAllowed(String),
    /// It expects what cannot be met.
    #[error("no expectation but 100-continue can be met")]
    Expectation,
    /// Its body is larger than what is taken.
    #[error("the body is larger than {0} bytes, the most that is forwarded (--body-limit)")]
    TooLarge(u64),
    /// Its body did not come in time.
    #[error("the body did not come in time")]
    Slow,
    /// Its body broke off, or is badly framed.
    #[error("the body broke off, or is badly framed")]
    BrokenBody,
    /// There is no room for its body.
    #[error("other requests' bodies take all the memory for bodies (--body-budget): try again")]
    Full,
    /// There are no credentials to sign it with.
    #[error("there are no valid AWS credentials: {0}")]
    NoCredentials(String),
    /// The domain's name cannot be resolved, or nothing listens there.
    #[error("the domain cannot be reached: {0}")]
    Unreachable(String),
    /// The connection to the domain broke.
    #[error("the connection to the domain broke: {0}")]
    Broken(String),
    /// The domain did not answer in time.
    #[error("the domain did not answer within {}s (--request-timeout)", .0.as_secs())]
    Late(Duration),
    /// The request came through this proxy already.
    #[error("the request came through a signing proxy already: the upstream is a proxy")]
    Loop,
}

impl Refusal {
    /// Names the class, for whoever handles errors by it, and for metrics.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed_request",
            Self::Target(_) => "malformed_target",
            Self::TooLong => "target_too_long",
            Self::Misdirected(_) => "misdirected",
            Self::FromBrowser => "from_browser",
            Self::NoSecret(_) => "no_secret",
            Self::Method(_) => "method_not_forwarded",
            Self::NotAllowed(_) => "not_allowed",
            Self::Expectation => "expectation",
            Self::TooLarge(_) => "body_too_large",
            Self::Slow => "body_timeout",
            Self::BrokenBody => "broken_body",
            Self::Full => "body_budget",
            Self::NoCredentials(_) => "no_credentials",
            Self::Unreachable(_) => "upstream_unreachable",
            Self::Broken(_) => "upstream_broken",
            Self::Late(_) => "upstream_timeout",
            Self::Loop => "loop",
        }
    }

    /// Returns the status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::Target(_) | Self::BrokenBody => StatusCode::BAD_REQUEST,
            Self::TooLong => StatusCode::URI_TOO_LONG,
            Self::Misdirected(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::FromBrowser | Self::NotAllowed(_) => StatusCode::FORBIDDEN,
            Self::NoSecret(_) => StatusCode::UNAUTHORIZED,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Full | Self::NoCredentials(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreachable(_) | Self::Broken(_) => StatusCode::BAD_GATEWAY,
            Self::Late(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Loop => StatusCode::LOOP_DETECTED,
        }
    }

    /// Tells whether nothing more can be read off the connection.
    fn closes(&self) -> bool {
        matches!(
            self,
            Self::Malformed(_) | Self::TooLarge(_) | Self::Slow | Self::BrokenBody
        )
    }

    /// Makes the answer: JSON in the outline of OpenSearch's own errors, so that clients show it.
    #[must_use]
    pub fn response(&self) -> Response<Bytes> {
        let status = self.status();
        let body = json!({
            "error": {
                "type": format!("signing_proxy_{}", self.class()),
                "reason": self.to_string(),
            },
            "status": status.as_u16(),
        });
        let mut response = Response::new(Bytes::from(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json; charset=UTF-8");
        headers.insert(CONTENT_TYPE, json);
        headers.insert(REFUSED_BY, HeaderValue::from_static(self.class()));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS");
            headers.insert(ALLOW, methods);
        }
        if self.closes() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_in_the_outline_of_opensearch() {
        let response = Refusal::NoCredentials("none".to_owned()).response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(response.headers()[REFUSED_BY], "no_credentials");
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["status"], 503);
        assert_eq!(body["error"]["type"], "signing_proxy_no_credentials");
    }
}
