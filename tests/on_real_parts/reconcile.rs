//! The operator does what it promises: its own program, between a real API server and the fake AWS.
//!
//! Every test looks at results alone: the policy that AWS stores with all its versions, inline
//! policies, and what users see in the API server. Most tests share one operator, each with a
//! domain and a namespace of its own; the ones that stop it have a world of their own.

#![allow(
    clippy::unwrap_used,
    reason = "an expectation that fails here is a failed test"
)]

mod accounts;
mod audit;
mod changes;
mod crashes;
mod deleted;
mod faults;
mod foreign;
mod grant_verb;
mod granting;
mod inline;
mod modes;
mod poison;
mod refusing;
mod revoking;
mod service_accounts;
mod waiting;
mod writing;
