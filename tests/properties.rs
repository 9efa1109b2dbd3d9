//! Laws that the decisions keep for any input, each held against a second, naive working-out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::string_slice,
    reason = "a test fails where it panics"
)]

#[path = "properties/canonical.rs"]
mod canonical;
#[path = "properties/ceiling.rs"]
mod ceiling;
#[path = "properties/document.rs"]
mod document;
#[path = "properties/evaluate.rs"]
mod evaluate;
#[path = "properties/guard.rs"]
mod guard;
#[path = "properties/language.rs"]
mod language;
#[path = "properties/mapping.rs"]
mod mapping;
#[path = "properties/naive.rs"]
mod naive;
#[path = "properties/plan.rs"]
mod plan;
#[path = "properties/pod.rs"]
mod pod;
#[path = "properties/pool.rs"]
mod pool;
#[path = "properties/world.rs"]
mod world;
