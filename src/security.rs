//! The REST API of a domain's security plugin: the calls, and nothing that is decided.
//!
//! No SDK call covers it. Requests go to the domain's own endpoint, signed like any client's, and
//! past its access policy; the plugin then asks that the operator is mapped to `security_manager`.
//!
//! - [`client`]: the calls, one by one
//! - [`mapping`]: additions to and removals from a role mapping that others write too
//! - [`error`]: what an answer means, and `tries`: when to ask again

pub mod client;
pub mod error;
pub mod mapping;
mod tries;
