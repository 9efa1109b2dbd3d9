//! What is held against random inputs, found by coverage.
//!
//! The modules that stand between a client and the signature are compiled in as they are, without the
//! rest of the program: it would take ten minutes to build, and none of it is under test.
//!
//! - [`proxy::stream`]: the guard of a connection, before the parser that reads behind it
//! - [`proxy::request`]: what is left of a request, as that parser hands it on
//! - [`target`]: the canonical form of a request target

#![allow(dead_code, reason = "nothing but what is under test is used")]

/// See `src/sigv4.rs`.
#[path = "../../src/sigv4"]
pub mod sigv4 {
    pub mod credentials;
    pub mod sign;
    pub mod target;

    pub use self::credentials::Credentials;
    pub use self::sign::{Payload, Request, Signed, Signer};
    pub use self::target::Target;
}

/// See `src/policy.rs`.
#[path = "../../src/policy"]
pub mod policy {
    pub mod glob;
}

/// See `src/proxy.rs`.
#[path = "../../src/proxy"]
pub mod proxy {
    pub mod allow;
    mod guard;
    pub mod head;
    pub mod refusal;
    pub mod upstream;

    #[path = "../../fuzz/src/parser.rs"]
    mod parser;
    #[path = "../../fuzz/src/request.rs"]
    pub mod request;
    #[path = "../../fuzz/src/stream.rs"]
    pub mod stream;
}

pub mod target;
