//! Fine-grained access control: what the security plugin of a domain has, and what it should have.
//!
//! - [`entity`]: the plugin's own things, as its REST API shows them
//! - [`definition`]: roles, tenants and action groups that teams define
//! - [`permission`], [`query`]: what a permission, and a query of document-level security, may be
//! - [`mapping`]: who has which role
//! - [`request`]: what an HTTP request is checked for
//! - [`evaluate`]: whether the roles of a caller permit it
//! - [`matrix`]: who has which role, and what that permits, as a table
//!
//! Pure, like all of [`crate::policy`].

pub mod definition;
pub mod entity;
pub mod evaluate;
pub mod mapping;
pub mod matrix;
pub mod nearest;
pub mod permission;
pub mod query;
pub mod request;
