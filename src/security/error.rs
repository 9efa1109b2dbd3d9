//! What an answer of the security plugin, or of what stands before it, means.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

/// The most that is kept of a message.
const MESSAGE_LIMIT: usize = 300;

/// Why a call of the security plugin's API came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The domain's access policy, or the signature's check, let the operator not in.
    #[error(
        "the domain let the operator not in: {message}; give its identity es:ESHttpGet, es:ESHttpPut, es:ESHttpPatch and es:ESHttpDelete on the domain's _plugins/_security/api/*"
    )]
    Shut {
        /// What the service says.
        message: String,
    },
    /// The plugin does not let the operator use its API.
    #[error(
        "the security plugin does not let the operator use its API: {message}; map the operator's identity to the role security_manager"
    )]
    NotAdmitted {
        /// What the plugin says.
        message: String,
    },
    /// There is no such entity.
    #[error("the security plugin knows no such entity: {message}")]
    NotFound {
        /// What the plugin says.
        message: String,
    },
    /// Another writer was first; nothing was stored.
    #[error("another writer changed the security plugin's configuration at the same time")]
    Conflict,
    /// The plugin refused what was sent.
    #[error("the security plugin refused it: {message}")]
    Refused {
        /// What the plugin says.
        message: String,
    },
    /// The domain asks to slow down, or takes no requests at present.
    #[error("the domain takes no requests at present ({status})")]
    Busy {
        /// The status.
        status: u16,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// The domain failed; what was sent may have been stored.
    #[error("the security plugin failed ({status}): {message}")]
    Failed {
        /// The status.
        status: u16,
        /// What it says.
        message: String,
    },
    /// The domain could not be reached, or did not answer; what was sent may have been stored.
    #[error("the domain could not be reached: {message}")]
    Unreachable {
        /// What is known.
        message: String,
    },
    /// There are no credentials to sign with.
    #[error("there are no credentials for the domain: {message}")]
    NoCredentials {
        /// What is known.
        message: String,
    },
    /// What was read is not what the plugin's API answers.
    #[error("the security plugin's answer cannot be read: {message}")]
    Garbled {
        /// What is wrong with it.
        message: String,
    },
    /// This process may not write any more, so nothing was sent.
    #[error("nothing was sent: this process does not lead any more")]
    NotLeading,
}

impl Error {
    /// Tells whether what was sent may have been stored all the same.
    #[must_use]
    pub fn may_be_stored(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Unreachable { .. })
    }

    /// Tells whether the same may be tried again at once, or after a short while.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(
            self,
            Self::Conflict | Self::Busy { .. } | Self::Failed { .. } | Self::Unreachable { .. }
        )
    }

    /// Returns the name to count a call under.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Shut { .. } | Self::NotAdmitted { .. } => "AccessDenied",
            Self::NotFound { .. } => "NotFound",
            Self::Conflict => "Conflict",
            Self::Refused { .. } => "Refused",
            Self::Busy { .. } => "Busy",
            Self::Failed { .. } => "Failed",
            Self::Unreachable { .. } => "Unreachable",
            Self::NoCredentials { .. } => "NoCredentials",
            Self::Garbled { .. } => "Unreadable",
            Self::NotLeading => "NotLeading",
        }
    }

    /// Reads the answer to a call that did not succeed.
    #[must_use]
    pub fn of(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let message = message(&answer);
        // The service's own refusals spell it with a capital, or carry no status; the plugin's have
        // one.
        let by_plugin = answer["status"].is_string();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if !by_plugin => {
                Self::Shut { message }
            }
            StatusCode::FORBIDDEN if is_about_an_entity(&message) => Self::Refused { message },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::NotAdmitted { message },
            StatusCode::NOT_FOUND => Self::NotFound { message },
            StatusCode::CONFLICT => Self::Conflict,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Self::Busy {
                status: status.as_u16(),
                retry_after,
            },
            // Elasticsearch 6.8 says a conflict so.
            status if status.is_server_error() && message.contains("version conflict") => {
                Self::Conflict
            }
            status if status.is_server_error() => Self::Failed {
                status: status.as_u16(),
                message,
            },
            _ => Self::Refused { message },
        }
    }
}

/// Tells whether a refusal is about one entity, not about who asks.
fn is_about_an_entity(message: &str) -> bool {
    message.starts_with("Resource '") || message.contains("is read-only")
}

/// Returns what an answer says, cut to a bearable length: which fields it refuses, or its message.
fn message(answer: &Value) -> String {
    let texts = ["message", "Message", "reason"];
    let told = texts.iter().find_map(|name| answer[name].as_str());
    let mut message = told.unwrap_or("it does not say why").to_owned();
    for (name, what) in [
        ("invalid_keys", "unknown fields"),
        ("missing_mandatory_keys", "missing fields"),
        ("specify_one_of", "one of these is needed"),
    ] {
        if let Some(keys) = answer[name]["keys"].as_str() {
            message.extend(["; ", what, ": ", keys]);
        }
    }
    message.chars().take(MESSAGE_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(status: u16, body: &Value) -> Error {
        let status = StatusCode::from_u16(status).unwrap();
        Error::of(status, None, body.to_string().as_bytes())
    }

    #[test]
    fn who_refuses_is_told_apart() {
        let message = "User: x is not authorized to perform: es:ESHttpGet";
        let door = of(403, &json!({ "Message": message }));
        assert!(matches!(door, Error::Shut { .. }), "{door:?}");
        let plugin = of(
            403,
            &json!({"status": "FORBIDDEN", "message": "No permission to access REST API: User x"}),
        );
        assert!(matches!(plugin, Error::NotAdmitted { .. }), "{plugin:?}");
        let entity = of(
            403,
            &json!({"status": "FORBIDDEN", "message": "Resource 'all_access' is static."}),
        );
        assert!(matches!(entity, Error::Refused { .. }), "{entity:?}");
    }

    #[test]
    fn a_conflict_is_one_in_every_spelling() {
        let conflict = json!({"status": "CONFLICT", "message": "[roles]: version conflict"});
        assert_eq!(of(409, &conflict), Error::Conflict);
        let old = json!({"status": "INTERNAL_SERVER_ERROR", "message": "version conflict, ..."});
        assert_eq!(of(500, &old), Error::Conflict);
        assert!(of(500, &json!({})).may_be_stored());
    }

    #[test]
    fn what_is_wrong_with_a_body_is_said() {
        let told = of(
            400,
            &json!({"status": "error", "reason": "Invalid configuration",
                "invalid_keys": {"keys": "bogus,reserved"}}),
        );
        let message = "Invalid configuration; unknown fields: bogus,reserved".to_owned();
        assert_eq!(told, Error::Refused { message });
    }

    #[test]
    fn a_long_message_is_cut() {
        let told = of(400, &json!({"message": "é".repeat(1_000)}));
        assert!(told.to_string().chars().count() < 400);
    }
}
