//! Whether a role's trust policy lets in a service account of this cluster.
//!
//! A pod's token is exchanged for a role's credentials by `sts:AssumeRoleWithWebIdentity`; the
//! role's trust policy says for which issuer and which subject. It is what AWS itself decides by,
//! and no tenant of the cluster can write it, so it proves what the annotation only claims.
//!
//! # Guarantees
//!
//! Never says yes where AWS would not: an allowance counts only where all of it is understood and
//! holds, and a denial counts unless it is understood and does not apply.
//!
//! # Caveats
//!
//! An allowance without a condition on the subject lets in every service account of the cluster,
//! and every tenant's pods can take the role on; AWS allows it, so it is proof here too. That the
//! IAM OIDC provider which the policy names exists is not looked up: without it AWS lets nobody in.

use serde_json::{Map, Value};

use super::evaluate::{Context, holds};
use super::glob;
use super::service_account::AccountName;
use crate::api::arn::EntityArn;

/// The action by which a token is exchanged for credentials.
const ACTION: &str = "sts:AssumeRoleWithWebIdentity";

/// The audience of the tokens that EKS projects into pods; no other is taken as proven.
const AUDIENCE: &str = "sts.amazonaws.com";

/// The issuer of a cluster's service account tokens, as IAM spells it: without `https://`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer(String);

impl Issuer {
    /// Reads an issuer, with or without `https://`, such as
    /// `https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE`.
    ///
    /// # Errors
    ///
    /// Says the form that the text has not.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix("https://").unwrap_or(text);
        let bare = bare.trim_end_matches('/');
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
        if bare.is_empty() || bare.starts_with('/') || !bare.bytes().all(legal) {
            return Err(format!(
                "{text:?} is not an issuer; write it as https://HOST/PATH"
            ));
        }
        Ok(Self(bare.to_owned()))
    }

    /// Returns the issuer without `https://`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the ARN of the issuer's IAM OIDC provider in a role's account: IAM takes no other
    /// account's.
    #[must_use]
    pub fn provider_for(&self, role: &EntityArn) -> String {
        format!(
            "arn:{}:iam::{}:oidc-provider/{}",
            role.partition(),
            role.account(),
            self.0
        )
    }
}

/// Why a trust policy proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotProven {
    /// The text is not a policy.
    #[error("its trust policy cannot be read")]
    Unreadable,
    /// No statement lets the service account in, as far as the statements are understood.
    #[error("its trust policy does not let the service account in")]
    NotAllowed,
    /// A statement keeps the service account out, or may do so.
    #[error("a denial in its trust policy keeps the service account out, or may do so")]
    Denied,
}

/// Checks that a role's trust policy, as JSON, lets in a service account of the issuer's cluster.
///
/// # Errors
///
/// Says why it proves nothing.
pub fn check(
    policy: &str,
    role: &EntityArn,
    issuer: &Issuer,
    account: &AccountName,
) -> Result<(), NotProven> {
    let policy: Value = serde_json::from_str(policy).map_err(|_| NotProven::Unreadable)?;
    let statements = match policy.get("Statement") {
        Some(Value::Array(many)) => many.iter().collect(),
        Some(one @ Value::Object(_)) => vec![one],
        _ => return Err(NotProven::Unreadable),
    };
    let provider = issuer.provider_for(role);
    let mut context = Context::default();
    context.set(&format!("{}:sub", issuer.0), account.subject());
    context.set(&format!("{}:aud", issuer.0), AUDIENCE);
    let mut allowed = false;
    for statement in statements {
        let statement = statement.as_object().ok_or(NotProven::Unreadable)?;
        match statement.get("Effect").and_then(Value::as_str) {
            Some("Allow") => allowed |= allows(statement, &provider, &context),
            Some("Deny") if !spares(statement, &provider, &context) => {
                return Err(NotProven::Denied);
            }
            Some("Deny") => {}
            _ => return Err(NotProven::Unreadable),
        }
    }
    if allowed {
        Ok(())
    } else {
        Err(NotProven::NotAllowed)
    }
}

/// Tells whether an allowance is understood as a whole and lets the service account in.
fn allows(statement: &Map<String, Value>, provider: &str, context: &Context) -> bool {
    let federated = statement
        .get("Principal")
        .and_then(|it| it.get("Federated"));
    let named = strings(federated).is_some_and(|names| names.contains(&provider));
    named
        && matches_action(statement.get("Action")) == Some(true)
        && condition(statement, context) == Some(true)
}

/// Tells whether a denial is understood well enough to say that it does not apply.
fn spares(statement: &Map<String, Value>, provider: &str, context: &Context) -> bool {
    let action = match (statement.get("Action"), statement.get("NotAction")) {
        (actions @ Some(_), None) => matches_action(actions),
        (None, others @ Some(_)) => matches_action(others).map(|matched| !matched),
        _ => None,
    };
    action == Some(false)
        || is_for_others(statement.get("Principal"), provider)
        || condition(statement, context) == Some(false)
}

/// Tells whether a denial's principals are all others than holders of the issuer's tokens.
fn is_for_others(principal: Option<&Value>, provider: &str) -> bool {
    let Some(Value::Object(kinds)) = principal else {
        return false;
    };
    let understood = |(kind, names): (&String, &Value)| {
        let others = |is_other: &dyn Fn(&str) -> bool| {
            strings(Some(names)).is_some_and(|names| names.into_iter().all(is_other))
        };
        match kind.as_str() {
            "Service" => true,
            "AWS" => others(&|name| !name.contains('*')),
            "Federated" => others(&|name| name != provider && !name.contains('*')),
            _ => false,
        }
    };
    !kinds.is_empty() && kinds.iter().all(understood)
}

/// Tells whether a list of actions has the exchange of a token; `None` where it is no list.
fn matches_action(actions: Option<&Value>) -> Option<bool> {
    let wanted = ACTION.to_ascii_lowercase();
    let matches = |pattern: &str| glob::matches(&pattern.to_ascii_lowercase(), &wanted);
    Some(strings(actions)?.into_iter().any(matches))
}

/// Tells whether a statement's condition holds; `None` where an operator, a key or a value is not
/// understood.
fn condition(statement: &Map<String, Value>, context: &Context) -> Option<bool> {
    let block = statement.get("Condition");
    // As of an allowance: what a domain's policy ignores, a trust policy does not. A variable stands
    // for something that only AWS knows.
    holds(block, context, false, true)
}

/// Returns one string or a list of them; `None` for anything else.
fn strings(value: Option<&Value>) -> Option<Vec<&str>> {
    match value? {
        Value::Array(many) => many.iter().map(Value::as_str).collect(),
        one => Some(vec![one.as_str()?]),
    }
}

#[cfg(test)]
mod tests;
