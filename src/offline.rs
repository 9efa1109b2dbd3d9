//! What is worked out from manifests and policies, wherever they were read: nothing here asks a
//! cluster or AWS.
//!
//! ```text
//! files, folders, -  --manifest::read-->  domains and grants  <--overlay::lay--  a cluster's
//!                                              |  policy::{domain, validate, plan}
//!                                              v             <-- plan::Current: policies, facts
//!                 plan::Report --render--> diff | JSON, exit code
//!                 plan::World --explain::Subject--> answer | matrix --table, html-->
//!                             --lint::Report--> findings
//! policy document --import--> YAML
//! ```

pub mod diff;
pub mod explain;
pub mod html;
pub mod import;
pub mod lint;
pub mod manifest;
pub mod overlay;
pub mod plan;
pub mod render;
pub mod roles;
pub mod table;
