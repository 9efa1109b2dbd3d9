//! Fine-grained access control: what the security plugin of a domain has, and what it should have.
//!
//! - [`entity`]: the plugin's own things, as its REST API shows them
//! - [`mapping`]: who has which role
//!
//! Pure, like all of [`crate::policy`].

pub mod entity;
pub mod mapping;
