//! Injection: what becomes of a pod that asks for a signing proxy.
//!
//! ```text
//! pod ─► [options] what it asks ─► [decide] may it, and where ─► [sidecar] the container ─► [patch]
//! ```
//!
//! - [`options`]: the annotations, a closed list
//! - [`decide`]: which pods are injected, which are left alone, and which are refused
//! - [`sidecar`]: the container that is added
//! - [`patch`]: the fewest changes that add it
//!
//! # Guarantees
//!
//! What a tenant may say is the list in [`options`]; image, arguments, upstream and security context
//! are the admin's. A pod that has what it should have is not changed, whoever put it there; one that
//! has something else under the sidecar's name gets the sidecar instead. No list of the pod is replaced
//! as a whole.

pub mod decide;
pub mod options;
pub mod patch;
pub mod sidecar;
