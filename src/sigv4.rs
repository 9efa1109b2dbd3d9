//! AWS Signature Version 4, for requests to OpenSearch domains (`es`) and collections (`aoss`).
//!
//! ```text
//! request target --Target::parse--> what is sent  +  its canonical form
//! credentials ----Signer::new-----> a signing key a day
//!                                        |
//!   method, host, target, payload hash --sign--> Authorization, x-amz-date, ...
//! ```
//!
//! - [`target`]: the request target, as it is sent and as it is signed
//! - [`credentials`]: whose signature it is
//! - [`sign`]: the signature
//!
//! # Guarantees
//!
//! What is signed is what is sent: a target is first brought into a form that every verifier reads
//! alike, and both come from that. Exactly `host`, `x-amz-content-sha256`, `x-amz-date` and, with
//! temporary credentials, `x-amz-security-token` are signed: whatever else is, some hop rewrites.
//!
//! Pure: no I/O, no clock (time is a parameter), no logging. No secret is shown by `Debug`, and
//! secrets are wiped from memory when they are let go of.

pub mod credentials;
pub mod sign;
pub mod target;

pub use self::credentials::Credentials;
pub use self::sign::{Hash, Payload, Request, Signed, Signer};
pub use self::target::Target;
