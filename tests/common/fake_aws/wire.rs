//! The two wire shapes of AWS answers: rest-json (`es`, `eks`) and awsQuery (`iam`, `sts`).
//!
//! An operation returns `Result<_, Refusal>`; only this file knows how a refusal looks on the wire,
//! because the SDKs find the error code in a header for one protocol and in an XML element for the
//! other.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::body::Body;
use axum::http::{Response, header};
use percent_encoding::percent_decode_str;
use serde_json::Value;

/// The services that this fake plays, told apart by the service name in the credential scope.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Service {
    /// Amazon OpenSearch Service, whose signing name is `es`.
    Es,
    /// Amazon Elastic Kubernetes Service.
    Eks,
    /// AWS Identity and Access Management.
    Iam,
    /// AWS Security Token Service.
    Sts,
}

impl Service {
    /// Reads a signing name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "es" => Some(Self::Es),
            "eks" => Some(Self::Eks),
            "iam" => Some(Self::Iam),
            "sts" => Some(Self::Sts),
            _ => None,
        }
    }

    /// Returns the signing name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Es => "es",
            Self::Eks => "eks",
            Self::Iam => "iam",
            Self::Sts => "sts",
        }
    }

    /// Returns the XML namespace of the awsQuery services.
    fn namespace(self) -> &'static str {
        match self {
            Self::Sts => "https://sts.amazonaws.com/doc/2011-06-15/",
            Self::Es | Self::Eks | Self::Iam => "https://iam.amazonaws.com/doc/2010-05-08/",
        }
    }

    /// Tells whether the service speaks rest-json.
    fn is_rest(self) -> bool {
        matches!(self, Self::Es | Self::Eks)
    }

    /// Picks the error code that this service's protocol uses for one and the same thing.
    fn code(self, rest: &'static str, query: &'static str) -> &'static str {
        if self.is_rest() { rest } else { query }
    }
}

/// An answer that is an error: its code, its HTTP status and its text.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    pub(crate) status: u16,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(code: &'static str, status: u16, message: impl Into<String>) -> Self {
        Self {
            code,
            status,
            message: message.into(),
        }
    }

    /// The es error for input that breaks a rule.
    pub(crate) fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", 400, message)
    }

    /// The es error for an unknown domain: 409, not 404.
    pub(crate) fn domain_not_found(name: &str) -> Self {
        Self::new(
            "ResourceNotFoundException",
            409,
            format!("Domain not found: {name}"),
        )
    }

    /// The IAM error for an unknown entity.
    pub(crate) fn no_such_entity(message: impl Into<String>) -> Self {
        Self::new("NoSuchEntity", 404, message)
    }

    /// Rate limiting, as the service's protocol spells it.
    pub(crate) fn throttled(service: Service) -> Self {
        let status = if service.is_rest() { 429 } else { 400 };
        Self::new(
            service.code("ThrottlingException", "Throttling"),
            status,
            "Rate exceeded",
        )
    }

    /// A failure inside the service.
    pub(crate) fn internal(service: Service) -> Self {
        let message = "An error occurred while processing your request.";
        if service == Service::Eks {
            return Self::new("ServerException", 500, message);
        }
        Self::new(
            service.code("InternalException", "ServiceFailure"),
            500,
            message,
        )
    }

    /// A caller whose identity policies do not allow the operation.
    pub(crate) fn access_denied(service: Service, caller: &str, operation: &str) -> Self {
        let code = service.code("AccessDeniedException", "AccessDenied");
        let action = format!("{}:{operation}", service.name());
        Self::new(
            code,
            403,
            format!("User: {caller} is not authorized to perform: {action}"),
        )
    }

    /// An operation that the fake does not play.
    pub(crate) fn unknown_operation(service: Service, operation: &str) -> Self {
        let code = service.code("UnknownOperationException", "InvalidAction");
        Self::new(code, 400, format!("Could not find operation {operation}"))
    }

    /// An access key that nobody holds, or whose session token is wrong.
    pub(crate) fn unknown_key(service: Service) -> Self {
        let code = service.code("UnrecognizedClientException", "InvalidClientTokenId");
        Self::new(
            code,
            403,
            "The security token included in the request is invalid.",
        )
    }

    /// A session that has run out.
    pub(crate) fn expired(service: Service) -> Self {
        let code = service.code("ExpiredTokenException", "ExpiredToken");
        Self::new(
            code,
            403,
            "The security token included in the request is expired",
        )
    }

    /// A request whose signature does not hold, for the given reason.
    pub(crate) fn bad_signature(service: Service, message: impl Into<String>) -> Self {
        Self::new(
            service.code("InvalidSignatureException", "SignatureDoesNotMatch"),
            403,
            message,
        )
    }

    /// A request whose Authorization header cannot be read.
    pub(crate) fn incomplete_signature(service: Service, message: impl Into<String>) -> Self {
        let code = service.code("IncompleteSignatureException", "IncompleteSignature");
        Self::new(code, 400, message)
    }

    /// A request without a signature.
    pub(crate) fn unsigned(service: Service) -> Self {
        let code = service.code(
            "MissingAuthenticationTokenException",
            "MissingAuthenticationToken",
        );
        Self::new(code, 403, "Missing Authentication Token")
    }
}

/// What an operation answers when it succeeds.
pub(crate) enum Answer {
    /// A rest-json body.
    Json(Value),
    /// The inside of an awsQuery `…Result` element; `None` for operations without one.
    Xml(Option<String>),
}

/// Renders an answer or a refusal as the service's protocol demands.
pub(crate) fn response(
    service: Service,
    operation: &str,
    request_id: &str,
    outcome: Result<Answer, Refusal>,
) -> Response<Body> {
    let builder = Response::builder().header("x-amzn-requestid", request_id);
    let built = match outcome {
        Ok(Answer::Json(body)) => builder
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string())),
        Ok(Answer::Xml(inside)) => {
            let namespace = service.namespace();
            let result = inside.map_or_else(String::new, |inside| {
                format!("<{operation}Result>{inside}</{operation}Result>")
            });
            let metadata = element("ResponseMetadata", &tag("RequestId", request_id));
            builder
                .header(header::CONTENT_TYPE, "text/xml")
                .body(Body::from(format!(
                    "<{operation}Response \
                xmlns=\"{namespace}\">{result}{metadata}</{operation}Response>"
                )))
        }
        Err(refusal) if service.is_rest() => builder
            .status(refusal.status)
            .header("x-amzn-errortype", refusal.code)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(
                serde_json::json!({ "message": refusal.message }).to_string(),
            )),
        Err(refusal) => {
            let kind = if refusal.status < 500 {
                "Sender"
            } else {
                "Receiver"
            };
            let error = element(
                "Error",
                &[
                    tag("Type", kind),
                    tag("Code", refusal.code),
                    tag("Message", &refusal.message),
                ]
                .concat(),
            );
            let namespace = service.namespace();
            let id = tag("RequestId", request_id);
            builder
                .status(refusal.status)
                .header(header::CONTENT_TYPE, "text/xml")
                .body(Body::from(format!(
                    "<ErrorResponse xmlns=\"{namespace}\">{error}{id}</ErrorResponse>"
                )))
        }
    };
    built.expect("every header above is a valid one")
}

/// Returns an XML element around markup.
pub(crate) fn element(name: &str, inside: &str) -> String {
    format!("<{name}>{inside}</{name}>")
}

/// Returns an XML element around text, which it escapes.
pub(crate) fn tag(name: &str, text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\r' | '\n' | '\t' => {
                write!(escaped, "&#{};", u32::from(character)).expect("a String takes all writes");
            }
            _ => escaped.push(character),
        }
    }
    element(name, &escaped)
}

/// Reads `application/x-www-form-urlencoded` text: an awsQuery body, or a query string.
pub(crate) fn form(text: &str) -> BTreeMap<String, String> {
    let decode = |part: &str| {
        percent_decode_str(&part.replace('+', " "))
            .decode_utf8_lossy()
            .into_owned()
    };
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}
