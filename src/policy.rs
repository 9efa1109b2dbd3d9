//! Decisions about access policies: pure functions from manifests and observations to a plan.
//!
//! ```text
//! OpenSearchDomain --domain::Domain::parse--> Domain ----.
//! DomainAccess     --validate::grant--------> ValidatedGrant | Rejection
//!                     (consent: the ceiling)      |
//!                                        compile: Permissions
//!                                                 v
//! access policy read --ownership::split--> ours | others' ---> plan --> guard --> Plan
//! last applied state ------------------------^
//! ```
//!
//! - [`document`]: the policy document, with elements that are not known kept
//! - [`permission`], [`canonical`]: what statements mean, apart from how they are spelled
//! - [`domain`], [`validate`], [`consent`], [`verdict`]: manifests to values that later steps cannot
//!   find wrong
//! - [`evidence`]: what AWS and the API server say of them beside
//! - [`service_account`], [`trust`]: the IAM role of a service account, and what proves it
//! - [`compile`]: a grant to permissions and identity policies
//! - [`ownership`]: whose a statement is
//! - [`plan`], [`guard`]: what to write, and what must not be written; [`record`]: how much is kept
//! - [`fine_grained`]: what the security plugin has
//! - [`evaluate`], [`matrix`]: who may do what; [`lint`]: what is amiss; [`admission`]: what can be
//!   said of an object before it is stored
//! - [`import`]: a policy back to grants
//! - [`address`], [`duration`], [`glob`]: the small languages in between
//!
//! Pure: no I/O, no clock (time is a parameter), no logging; the same input gives the same bytes.

pub mod address;
pub mod admission;
pub mod canonical;
pub mod compile;
pub mod consent;
pub mod document;
pub mod domain;
pub mod duration;
pub mod evaluate;
pub mod evidence;
pub mod fine_grained;
pub mod glob;
pub mod guard;
pub mod import;
pub mod lint;
pub mod matrix;
pub mod ownership;
pub mod permission;
pub mod plan;
pub mod record;
pub mod service_account;
pub mod trust;
pub mod validate;
pub mod verdict;

use std::fmt;

use crate::api::condition::Reason;

/// Why a grant or a domain is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The reason, for conditions and metrics.
    pub reason: Reason,
    /// The field that breaks the rule, such as `spec.principals[0].iamRole.arn`; empty where no
    /// one field does.
    pub field: String,
    /// The rule, the offending value, and what to do.
    pub rule: String,
}

impl Rejection {
    /// Builds a rejection.
    #[must_use]
    pub fn new(reason: Reason, field: impl Into<String>, rule: impl Into<String>) -> Self {
        Self {
            reason,
            field: field.into(),
            rule: rule.into(),
        }
    }

    /// Builds a rejection of a field that breaks a rule of the resource itself.
    #[must_use]
    pub fn invalid(field: impl Into<String>, rule: impl Into<String>) -> Self {
        Self::new(Reason::InvalidSpec, field, rule)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.rule)
        } else {
            write!(f, "{}: {}", self.field, self.rule)
        }
    }
}

impl std::error::Error for Rejection {}
