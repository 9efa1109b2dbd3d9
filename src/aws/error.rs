//! What an error of AWS means, by its code.
//!
//! The HTTP status says nothing: `ResourceNotFoundException`, `InvalidTypeException` and
//! `LimitExceededException` are all 409.

use aws_sdk_opensearch::error::{ErrorMetadata, ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::assume_role::AssumeRoleError;

use super::supervisor::MayNotWrite;

/// The most that is kept of a message of AWS.
const MESSAGE_LIMIT: usize = 300;

/// What an error of AWS means.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such domain, role, user or policy.
    #[error("AWS knows no such resource")]
    NotFound,
    /// The operator's credentials or permissions do not suffice.
    #[error("AWS denied {operation} ({code}): {message}")]
    AccessDenied {
        /// The operation.
        operation: &'static str,
        /// The error's code.
        code: String,
        /// What AWS says; it names the missing permission.
        message: String,
    },
    /// AWS asks to slow down.
    #[error("AWS throttled {operation}")]
    Throttled {
        /// The operation.
        operation: &'static str,
    },
    /// The domain works on another change.
    #[error("the domain works on another change")]
    ChangeInProgress,
    /// AWS refused the policy for one of its principals, or its form; it does not say which.
    #[error(
        "AWS refused the access policy: a principal in it does not exist, or is of another kind"
    )]
    PolicyRefused,
    /// AWS refused the input.
    #[error("AWS refused {operation} ({code}): {message}")]
    Rejected {
        /// The operation.
        operation: &'static str,
        /// The error's code.
        code: String,
        /// What AWS says.
        message: String,
    },
    /// AWS failed, could not be reached, or did not answer; what was sent may have been done.
    #[error("{operation} failed: {message}")]
    Unavailable {
        /// The operation.
        operation: &'static str,
        /// What is known.
        message: String,
    },
    /// This process may not write any more, so nothing was sent.
    #[error("{operation} was not sent: this process does not lead any more")]
    NotLeading {
        /// The operation.
        operation: &'static str,
    },
}

/// The code of a call that succeeded.
pub(super) const NONE: &str = "OK";

/// The codes that are told apart when calls are counted; a service is free to invent others.
const CODES: [&str; 38] = [
    "AccessDenied",
    "AccessDeniedException",
    "BaseException",
    "ClientException",
    "ConcurrentModification",
    "ConflictException",
    "DisabledOperationException",
    "EntityTemporarilyUnmodifiable",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InternalException",
    "InternalFailure",
    "InvalidClientTokenId",
    "InvalidInput",
    "InvalidParameterException",
    "InvalidRequestException",
    "InvalidSignatureException",
    "InvalidTypeException",
    "LimitExceeded",
    "LimitExceededException",
    "MalformedPolicyDocument",
    "MissingAuthenticationToken",
    "NoSuchEntity",
    "NoSuchEntityException",
    "RequestLimitExceeded",
    "ResourceNotFoundException",
    "ServerException",
    "ServiceFailure",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "SignatureDoesNotMatch",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "UnmodifiableEntity",
    "UnrecognizedClientException",
    "ValidationException",
];

/// Returns the code to count a failed call under, one of a fixed few.
pub(super) fn code<E, R>(error: &SdkError<E, R>) -> &'static str
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    match error {
        SdkError::ServiceError(service) => known(service.err().code()),
        _ if caused_by::<MayNotWrite>(error).is_some() => "NotLeading",
        // The call that failed is counted by itself.
        _ if caused_by::<AssumeRoleError>(error).is_some() => "NoCredentials",
        SdkError::TimeoutError(_) => "TimedOut",
        SdkError::DispatchFailure(_) => "Unreachable",
        SdkError::ResponseError(_) => "Unreadable",
        _ => "NotSent",
    }
}

/// Returns the code to count a failed call for a role's credentials under.
pub(super) fn code_of_role(error: &(dyn std::error::Error + 'static)) -> &'static str {
    caused_by::<AssumeRoleError>(error).map_or("Unreachable", |refused| known(refused.code()))
}

fn known(code: Option<&str>) -> &'static str {
    let found = CODES.iter().find(|known| Some(**known) == code);
    found.copied().unwrap_or("Other")
}

/// Finds an error behind another one.
fn caused_by<'a, T: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

impl Error {
    /// Reads the error of an operation.
    pub(super) fn of<E, R>(operation: &'static str, error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        let Some(service) = error.as_service_error() else {
            if caused_by::<MayNotWrite>(error).is_some() {
                return Self::NotLeading { operation };
            }
            return Self::refused_role(error).unwrap_or_else(|| Self::Unavailable {
                operation,
                message: causes(error),
            });
        };
        let code = service.code().unwrap_or_default().to_owned();
        let message = service.message().unwrap_or_default();
        match code.as_str() {
            "ResourceNotFoundException" | "NoSuchEntity" | "NoSuchEntityException" => {
                Self::NotFound
            }
            "ThrottlingException"
            | "Throttling"
            | "TooManyRequestsException"
            | "RequestLimitExceeded" => Self::Throttled { operation },
            // Not terminal although it is a validation error: it says so even moments after
            // Describe called the domain active.
            "ValidationException" if message.contains("change/update is in progress") => {
                Self::ChangeInProgress
            }
            // The message holds the whole policy, with every tenant's grants.
            "InvalidTypeException" if message.starts_with("Error setting policy") => {
                Self::PolicyRefused
            }
            "AccessDenied"
            | "AccessDeniedException"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "SignatureDoesNotMatch"
            | "InvalidSignatureException"
            | "MissingAuthenticationToken"
            | "IncompleteSignature" => Self::AccessDenied {
                operation,
                code,
                message: shorten(message),
            },
            "InternalException"
            | "InternalFailure"
            | "ServerException"
            | "ServiceFailure"
            | "ServiceUnavailable"
            | "ServiceUnavailableException"
            | "BaseException"
            | "" => Self::Unavailable {
                operation,
                message: shorten(message),
            },
            _ => Self::Rejected {
                operation,
                code,
                message: shorten(message),
            },
        }
    }
}

impl Error {
    /// Says what happened without AWS's own words: those name accounts, roles and requests, and
    /// what tenants read must not.
    #[must_use]
    pub fn brief(&self) -> String {
        match self {
            Self::AccessDenied {
                operation, code, ..
            } => format!("AWS denied {operation} ({code})"),
            Self::Rejected {
                operation, code, ..
            } => format!("AWS refused {operation} ({code})"),
            Self::Unavailable { operation, .. } => format!("{operation} failed"),
            Self::NotFound
            | Self::Throttled { .. }
            | Self::ChangeInProgress
            | Self::PolicyRefused
            | Self::NotLeading { .. } => self.to_string(),
        }
    }

    /// Tells whether a call was not sent because nobody said as whom; the SDK says so in words alone.
    #[must_use]
    pub fn lacks_credentials(&self) -> bool {
        let chain = "no credentials found in chain";
        matches!(self, Self::Unavailable { message, .. } if message.contains(chain))
    }

    /// Tells whether AWS judged an access policy that it was sent, and does not take it.
    #[must_use]
    pub fn refuses_policy(&self) -> bool {
        match self {
            Self::PolicyRefused => true,
            Self::Rejected { operation, .. } => operation.starts_with("UpdateDomainConfig"),
            _ => false,
        }
    }

    /// Tells whether AWS does not take the credentials any more, which others may come for.
    #[must_use]
    pub fn is_of_credentials(&self) -> bool {
        let codes = [
            "ExpiredToken",
            "ExpiredTokenException",
            "InvalidClientTokenId",
            "UnrecognizedClientException",
        ];
        matches!(self, Self::AccessDenied { code, .. } if codes.contains(&code.as_str()))
    }

    /// Tells whether AWS answered, so that what was asked for was not done.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        !matches!(self, Self::Unavailable { .. } | Self::NotLeading { .. })
    }

    /// Finds the refusal of a role behind a call that never was sent for want of credentials.
    fn refused_role(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let refused = caused_by::<AssumeRoleError>(error)?;
        Some(Self::AccessDenied {
            operation: "AssumeRole",
            code: refused.code().unwrap_or_default().to_owned(),
            message: shorten(refused.message().unwrap_or_default()),
        })
    }
}

/// Walks the chain: an error of the SDK says little by itself.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut said = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        // What AWS says of an error that the SDK has no type for shows as a structure.
        let text = match cause.downcast_ref::<ErrorMetadata>() {
            Some(metadata) => metadata.message().unwrap_or_default().to_owned(),
            None => cause.to_string(),
        };
        if !said.contains(&text) {
            said.push(text);
        }
        next = cause.source();
    }
    shorten(&said.join(": "))
}

/// Keeps the beginning of a message, without the documents in it: AWS echoes its input, and who
/// reads a domain's status need not read every tenant's grants.
fn shorten(message: &str) -> String {
    let document = message.split_once('{').zip(message.rsplit_once('}'));
    let bare = document.map_or_else(
        // A document that was cut off has no end.
        || message.split('{').next().unwrap_or_default().to_owned(),
        |((before, _), (_, after))| format!("{before}...{after}"),
    );
    let message = bare.as_str();
    match message.char_indices().nth(MESSAGE_LIMIT) {
        Some((end, _)) => format!("{}...", message.get(..end).unwrap_or_default()),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_opensearch::operation::update_domain_config::UpdateDomainConfigError;

    use super::*;

    const POLICY: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::444455556666:role/theirs"}}]}"#;

    fn error(code: &str, message: &str) -> Error {
        let metadata = ErrorMetadata::builder().code(code).message(message).build();
        let service = UpdateDomainConfigError::generic(metadata);
        Error::of("UpdateDomainConfig", &SdkError::service_error(service, ()))
    }

    #[test]
    fn no_error_tells_tenants_what_others_may_do_and_none_has_a_policy_in_it() {
        let echoes = [
            format!("Error setting policy: [{POLICY}]"),
            format!(
                "1 validation error detected: Value '{POLICY}' at 'accessPolicies' failed to satisfy constraint: Member must have length less than or equal to 102400"
            ),
            format!("cut off: {}", POLICY.split_at(80).0),
            "User: arn:aws:iam::111122223333:user/operator is not authorized".to_owned(),
        ];
        // A code that nobody foresaw is among them.
        for code in CODES.into_iter().chain(["New", ""]) {
            for message in &echoes {
                let error = error(code, message);
                let shown = error.to_string();
                for part in ["Statement", "444455556666", "2012-10-17"] {
                    assert!(!shown.contains(part), "{code}: {part} is in {shown}");
                }
                let brief = error.brief();
                assert!(!brief.contains("arn:"), "{code}: {brief}");
                assert!(shown.len() < 500, "{code}: {shown}");
            }
        }
    }

    #[test]
    fn the_causes_of_an_error_without_a_type_have_the_words_of_aws() {
        let message = format!("Not authorized to perform sts:Something, see {POLICY}");
        let metadata = ErrorMetadata::builder().code("New").message(message);
        let error = UpdateDomainConfigError::generic(metadata.build());
        let said = causes(&SdkError::service_error(error, ()));
        let words = "(New): Not authorized to perform sts:Something, see ...";
        assert!(said.ends_with(words), "{said}");
    }

    #[test]
    fn what_is_said_around_an_echo_stays() {
        let message = format!("Value '{POLICY}' at 'accessPolicies' failed");
        let said = error("ValidationException", &message).to_string();
        assert!(
            said.ends_with("Value '...' at 'accessPolicies' failed"),
            "{said}"
        );
    }

    #[test]
    fn the_code_decides_and_the_message_where_aws_reuses_a_code() {
        let operation = "UpdateDomainConfig";
        let busy = "A change/update is in progress. Please wait for it to complete before requesting another change.";
        let told = [
            ("ResourceNotFoundException", "x", Error::NotFound),
            ("ThrottlingException", "x", Error::Throttled { operation }),
            ("ValidationException", busy, Error::ChangeInProgress),
            (
                "InvalidTypeException",
                "Error setting policy: [{}]",
                Error::PolicyRefused,
            ),
        ];
        for (code, message, meant) in told {
            assert_eq!(error(code, message), meant, "{code}");
        }
        for (code, message) in [
            ("ValidationException", "apply a restrictive access policy"),
            (
                "InvalidTypeException",
                "You can’t attach an IP-based policy",
            ),
            ("LimitExceededException", "x"),
        ] {
            let error = error(code, message);
            assert!(matches!(error, Error::Rejected { .. }), "{error:?}");
            assert!(error.is_definite() && error.refuses_policy());
        }
        assert!(
            !error("InternalException", "x").is_definite(),
            "it may have been done"
        );
    }
}
