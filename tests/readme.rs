//! What the README's tables promise to list is what there is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails where it panics"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_command_has_its_row() {
    let ran = Command::new(env!("CARGO_BIN_EXE_opensearch-access"))
        .arg("-h")
        .output()
        .unwrap();
    let help = String::from_utf8(ran.stdout).unwrap();
    let commands = help.split("Commands:\n").nth(1).unwrap();
    let lines = commands.lines().take_while(|it| !it.is_empty());
    let commands = lines.filter_map(|it| it.split_whitespace().next());
    let commands: BTreeSet<&str> = commands.filter(|it| *it != "help").collect();
    let readme = read("README.md");
    let glance = readme.split("\n## Commands at a glance\n").nth(1).unwrap();
    let glance = glance.split("\n## ").next().unwrap();
    let rows = glance.lines().filter_map(|it| it.strip_prefix("| `"));
    let rows: BTreeSet<&str> = rows.map(|it| it.split('`').next().unwrap()).collect();
    assert_eq!(rows, commands);
}
