//! What works on files alone, without a cluster and without AWS.
//!
//! ```text
//! files, folders, -  --manifest::read-->  domains and grants
//!                                              |  policy::{domain, validate, plan}
//!                                              v
//!                 plan::Report --render--> diff | JSON, exit code
//!                 plan::World --explain::Subject--> answer | matrix --table, html-->
//!                             --lint::Report--> findings
//! policy document --import--> YAML
//! ```

pub mod explain;
pub mod html;
pub mod import;
pub mod lint;
pub mod manifest;
pub mod plan;
pub mod render;
pub mod table;
