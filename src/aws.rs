//! AWS: the calls that the operator makes, and nothing that it decides.
//!
//! - [`session`]: clients, by account, region and role
//! - [`credentials`]: a session's credentials, for requests that no SDK makes
//! - [`domain`]: a domain's access policy (`es`)
//! - [`identity`]: principals and inline policies (`iam`)
//! - [`eks`]: the cluster that the operator runs in, and its Pod Identity associations (`eks`)
//! - [`error`]: what an error means, by its code
//! - [`supervisor`]: what calls report to, and ask before they write

pub mod credentials;
pub mod domain;
pub mod eks;
pub mod error;
pub mod identity;
pub mod session;
pub mod supervisor;
