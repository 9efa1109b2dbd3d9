//! What an error of AWS means, by its code.
//!
//! The HTTP status says nothing: `ResourceNotFoundException`, `InvalidTypeException` and
//! `LimitExceededException` are all 409.

use aws_sdk_opensearch::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::assume_role::AssumeRoleError;

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
}

impl Error {
    /// Reads the error of an operation.
    pub(super) fn of<E, R>(operation: &'static str, error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        let Some(service) = error.as_service_error() else {
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
            "InternalException" | "InternalFailure" | "ServiceFailure" | "ServiceUnavailable"
            | "BaseException" | "" => Self::Unavailable {
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
            | Self::PolicyRefused => self.to_string(),
        }
    }

    /// Tells whether AWS answered, so that what was asked for was not done.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        !matches!(self, Self::Unavailable { .. })
    }

    /// Finds the refusal of a role behind a call that never was sent for want of credentials.
    fn refused_role(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(cause) = next {
            if let Some(refused) = cause.downcast_ref::<AssumeRoleError>() {
                return Some(Self::AccessDenied {
                    operation: "AssumeRole",
                    code: refused.code().unwrap_or_default().to_owned(),
                    message: shorten(refused.message().unwrap_or_default()),
                });
            }
            next = cause.source();
        }
        None
    }
}

/// Walks the chain: an error of the SDK says little by itself.
fn causes(error: &dyn std::error::Error) -> String {
    let mut said = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !said.contains(&text) {
            said.push(text);
        }
        next = cause.source();
    }
    shorten(&said.join(": "))
}

/// Keeps the beginning of a message: AWS echoes input, and conditions are not the place for it.
fn shorten(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_LIMIT) {
        Some((end, _)) => format!("{}...", message.get(..end).unwrap_or_default()),
        None => message.to_owned(),
    }
}
