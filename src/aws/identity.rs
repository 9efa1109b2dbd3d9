//! IAM: whether principals exist, and inline policies on roles.

use percent_encoding::percent_decode_str;

use super::error::Error;
use super::session::Clients;
use crate::api::arn::{EntityArn, EntityKind};

/// Asks whether a role or user of the session's account exists, under exactly that ARN.
pub async fn exists(clients: &Clients, arn: &EntityArn) -> Result<bool, Error> {
    let found = match arn.kind() {
        EntityKind::Role => clients
            .iam
            .get_role()
            .role_name(arn.name())
            .send()
            .await
            .map(|answer| answer.role.map(|role| role.arn))
            .map_err(|error| Error::of("GetRole", &error)),
        EntityKind::User => clients
            .iam
            .get_user()
            .user_name(arn.name())
            .send()
            .await
            .map(|answer| answer.user.map(|user| user.arn))
            .map_err(|error| Error::of("GetUser", &error)),
    };
    match found {
        // Names are unlike within an account whatever their path, so the path may differ.
        Ok(found) => Ok(found.as_deref() == Some(arn.as_str())),
        Err(Error::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads an inline policy of a role; `None` where the role or the policy does not exist.
pub async fn role_policy(
    clients: &Clients,
    role: &str,
    policy: &str,
) -> Result<Option<String>, Error> {
    let answer = clients
        .iam
        .get_role_policy()
        .role_name(role)
        .policy_name(policy)
        .send()
        .await;
    match answer.map_err(|error| Error::of("GetRolePolicy", &error)) {
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
    clients
        .iam
        .put_role_policy()
        .role_name(role)
        .policy_name(policy)
        .policy_document(document)
        .send()
        .await
        .map(drop)
        .map_err(|error| Error::of("PutRolePolicy", &error))
}

/// Removes an inline policy of a role; that there is none is no error.
pub async fn delete_role_policy(clients: &Clients, role: &str, policy: &str) -> Result<(), Error> {
    let answer = clients
        .iam
        .delete_role_policy()
        .role_name(role)
        .policy_name(policy)
        .send()
        .await;
    match answer
        .map(drop)
        .map_err(|error| Error::of("DeleteRolePolicy", &error))
    {
        Err(Error::NotFound) => Ok(()),
        other => other,
    }
}
