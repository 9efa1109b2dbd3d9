//! What works on files alone, without a cluster and without AWS.
//!
//! ```text
//! files, folders, -  --manifest::read-->  domains and grants
//!                                              |  policy::{domain, validate, plan}
//!                                              v
//!                                     plan::Report --render--> diff | JSON, exit code
//! ```

pub mod explain;
pub mod html;
pub mod manifest;
pub mod plan;
pub mod render;
pub mod table;
