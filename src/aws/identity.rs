//! IAM: whether principals exist, and inline policies on roles.

use percent_encoding::percent_decode_str;

use super::error::Error;
use super::session::Clients;
use crate::api::arn::{EntityArn, EntityKind};

/// Asks whether a role or user of the session's account exists, under exactly that ARN.
pub async fn exists(clients: &Clients, arn: &EntityArn) -> Result<bool, Error> {
    let found = match arn.kind() {
        EntityKind::Role => {
            let get = clients.iam.get_role().role_name(arn.name());
            let answer = clients.call("GetRole", get.send()).await;
            answer.map(|answer| answer.role.map(|role| role.arn))
        }
        EntityKind::User => {
            let get = clients.iam.get_user().user_name(arn.name());
            let answer = clients.call("GetUser", get.send()).await;
            answer.map(|answer| answer.user.map(|user| user.arn))
        }
    };
    match found {
        // Names are unlike within an account whatever their path, so the path may differ.
        Ok(found) => Ok(found.as_deref() == Some(arn.as_str())),
        Err(Error::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads the trust policy of a role of the session's account, as JSON; `None` where no role exists
/// under exactly that ARN.
pub async fn trust_policy(clients: &Clients, role: &EntityArn) -> Result<Option<String>, Error> {
    let get = clients.iam.get_role().role_name(role.name());
    match clients.call("GetRole", get.send()).await {
        Ok(answer) => Ok(answer
            .role
            .filter(|found| found.arn == role.as_str())
            .map(|found| decoded(found.assume_role_policy_document.as_deref()))),
        Err(Error::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Decodes a document: IAM percent-encodes it (RFC 3986), and the SDK leaves it so.
fn decoded(document: Option<&str>) -> String {
    let bytes = percent_decode_str(document.unwrap_or_default());
    bytes.decode_utf8_lossy().into_owned()
}

/// Reads an inline policy of a role; `None` where the role or the policy does not exist.
pub async fn role_policy(
    clients: &Clients,
    role: &str,
    policy: &str,
) -> Result<Option<String>, Error> {
    let get = clients
        .iam
        .get_role_policy()
        .role_name(role)
        .policy_name(policy);
    match clients.call("GetRolePolicy", get.send()).await {
        // IAM percent-encodes the document, and the SDK leaves it so.
        Ok(answer) => Ok(percent_decode_str(&answer.policy_document)
            .decode_utf8()
            .ok()
            .map(std::borrow::Cow::into_owned)),
        Err(Error::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes an inline policy of a role.
pub async fn put_role_policy(
    clients: &Clients,
    role: &str,
    policy: &str,
    document: &str,
) -> Result<(), Error> {
    let put = clients
        .iam
        .put_role_policy()
        .role_name(role)
        .policy_name(policy)
        .policy_document(document)
        .customize()
        .interceptor(clients.gate());
    clients.call("PutRolePolicy", put.send()).await.map(drop)
}

/// Removes an inline policy of a role; that there is none is no error.
pub async fn delete_role_policy(clients: &Clients, role: &str, policy: &str) -> Result<(), Error> {
    let delete = clients
        .iam
        .delete_role_policy()
        .role_name(role)
        .policy_name(policy)
        .customize()
        .interceptor(clients.gate());
    match clients.call("DeleteRolePolicy", delete.send()).await {
        Ok(_) | Err(Error::NotFound) => Ok(()),
        Err(error) => Err(error),
    }
}
