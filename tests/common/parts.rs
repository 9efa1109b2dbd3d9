//! Where the real parts are that `tests/world/prepare` builds.

#![allow(
    clippy::expect_used,
    reason = "an expectation that fails here is a failed test"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// What builds the parts, and says where they are.
const PREPARE: &str = "tests/world/prepare";

/// Returns a part's program, or folder.
///
/// # Panics
///
/// Where it is not there: a test that lacks its real part fails.
pub(crate) fn part(name: &str) -> PathBuf {
    let prepare = Path::new(env!("CARGO_MANIFEST_DIR")).join(PREPARE);
    let asked = Command::new(prepare)
        .arg("--where")
        .output()
        .expect("bash runs");
    let folder = String::from_utf8(asked.stdout).expect("a path in UTF-8");
    let part = Path::new(folder.trim()).join(name);
    assert!(
        part.exists(),
        "{} is missing; build it once with: {PREPARE} {name}",
        part.display()
    );
    part
}
