//! What a test can ask afterwards: every call that arrived, and every version that a policy ever
//! had.

use jiff::Timestamp;
use serde_json::{Value, json};

/// One call to the fake, refused ones included.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) at: Timestamp,
    /// The signing name: `es`, `eks`, `iam` or `sts`.
    pub(crate) service: &'static str,
    pub(crate) operation: String,
    /// The region of the credential scope.
    pub(crate) region: String,
    /// The caller's account; empty, like its ARN, if the caller was not recognised.
    pub(crate) account: String,
    pub(crate) caller_arn: String,
    pub(crate) access_key_id: String,
    /// The session name, for callers with an assumed role.
    pub(crate) session_name: Option<String>,
    pub(crate) domain: Option<String>,
    /// The HTTP status; `None` if the connection was closed without an answer.
    pub(crate) status: Option<u16>,
    pub(crate) error_code: Option<String>,
    /// The top-level keys of a JSON body, or the parameters of a query call or of an address; sorted.
    pub(crate) body_keys: Vec<String>,
    /// The JSON body, or the parameters as an object; `null` without a body.
    pub(crate) body: Value,
}

impl Call {
    /// Returns the call as the control API gives it.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "at": self.at.to_string(),
            "service": self.service,
            "operation": self.operation,
            "region": self.region,
            "account": self.account,
            "callerArn": self.caller_arn,
            "accessKeyId": self.access_key_id,
            "sessionName": self.session_name,
            "domain": self.domain,
            "status": self.status,
            "errorCode": self.error_code,
            "bodyKeys": self.body_keys,
            "body": self.body,
        })
    }
}

/// One version of a domain's access policy.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_field_names,
    reason = "a version's number is called version in the API too"
)]
pub(crate) struct Version {
    /// The `UpdateVersion` that the service reports for it.
    pub(crate) version: u64,
    pub(crate) at: Timestamp,
    /// Who wrote it: a caller's ARN, `external` for writes through the handle or the control API,
    /// `rollback` when the service itself went back because an accepted change failed.
    pub(crate) caller_arn: String,
    /// The policy as it was read back right after the write.
    pub(crate) document: String,
    /// The policy as it was sent.
    pub(crate) submitted: String,
}

impl Version {
    /// Returns the version as the control API gives it.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "version": self.version,
            "at": self.at.to_string(),
            "callerArn": self.caller_arn,
            "document": self.document,
            "submitted": self.submitted,
        })
    }
}
