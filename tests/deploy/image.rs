//! How the image is made: what the Dockerfile gives cargo is enough for it, and `assemble` says what
//! it lacks.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::render::project;

/// What programs are built of.
const BUILT: [&str; 3] = ["lib", "bin", "custom-build"];

fn dockerfile() -> String {
    fs::read_to_string(project("deploy/image/Dockerfile")).unwrap()
}

/// Returns what a stage runs before it has cargo build, as the shell gets it.
fn before_the_build(dockerfile: &str, stage: &str) -> String {
    let stage = dockerfile.split(&format!(" AS {stage}\n")).nth(1).unwrap();
    let run = stage.split("\t. /compiler; \\\n").nth(1).unwrap();
    let run = run.split("\tcargo build --release --locked --bins").next();
    // Comments between the lines of a command are not the shell's.
    let lines = run.unwrap().lines();
    let lines: Vec<&str> = lines.filter(|it| !it.trim().starts_with('#')).collect();
    lines.join("\n") + "\n:"
}

fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        fs::copy(from, to).unwrap();
        return;
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

fn shell(folder: &Path, script: &str) {
    let ran = Command::new("sh")
        .args(["-euc", script])
        .current_dir(folder)
        .status()
        .unwrap();
    assert!(ran.success(), "{script}");
}

/// Has cargo build the programs of a folder in which nothing is ours yet but the manifest; without what
/// they depend on, which takes minutes.
fn assert_builds_empty(folder: &Path) {
    let manifest = folder.join("Cargo.toml");
    let whole = fs::read_to_string(&manifest).unwrap();
    let sections = whole.split("\n[");
    let is_theirs =
        |it: &&str| it.starts_with("dependencies]") || it.starts_with("dev-dependencies]");
    let alone = sections.filter(|it| !is_theirs(it));
    fs::write(&manifest, alone.collect::<Vec<_>>().join("\n[")).unwrap();
    fs::remove_file(folder.join("Cargo.lock")).unwrap();
    let ran = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--bins", "--target-dir", "target"])
        .current_dir(folder)
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{errors}");
    for program in ["opensearch-access", "opensearch-access-proxy"] {
        assert!(folder.join("target/debug").join(program).is_file());
    }
}

/// Checks that what cargo builds the programs of is there.
fn assert_whole(folder: &Path) {
    let ran = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--no-deps"])
        .args(["--format-version", "1"])
        .current_dir(folder)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{errors}");
    let read: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let targets = read["packages"][0]["targets"].as_array().unwrap();
    let mut sources = 0;
    for target in targets {
        if BUILT.iter().any(|it| target["kind"][0] == *it) {
            let source = Path::new(target["src_path"].as_str().unwrap());
            assert!(source.is_file(), "{target}");
            sources += 1;
        }
    }
    // The library, the two programs, and how they are linked.
    assert_eq!(sources, 4, "{targets:?}");
}

#[test]
fn the_dockerfile_gives_cargo_what_it_asks_for() {
    let dockerfile = dockerfile();
    let folder = tempfile::tempdir().unwrap();
    for file in ["Cargo.toml", "Cargo.lock"] {
        copy(&project(file), &folder.path().join(file));
    }
    assert!(dockerfile.contains("\nCOPY Cargo.toml Cargo.lock ./\n"));
    shell(
        folder.path(),
        &before_the_build(&dockerfile, "dependencies"),
    );
    assert_builds_empty(folder.path());

    // What the next stage finds there, and gets beside it.
    shell(folder.path(), "rm -r build.rs src");
    assert!(dockerfile.contains("\n\trm -r build.rs src\n"));
    let ignored = fs::read_to_string(project("deploy/image/Dockerfile.dockerignore")).unwrap();
    for kept in ignored.lines().filter_map(|it| it.strip_prefix('!')) {
        copy(&project(kept), &folder.path().join(kept));
    }
    shell(folder.path(), &before_the_build(&dockerfile, "programs"));
    assert_whole(folder.path());
}

#[test]
fn assemble_says_which_programs_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("image.tar");
    let ran = Command::new(project("deploy/image/assemble"))
        .args([folder.path(), &out])
        .output()
        .unwrap();
    let errors = String::from_utf8(ran.stderr).unwrap();
    let lacking =
        "lacks opensearch-access and opensearch-access-proxy; build with: cargo build --release\n";
    assert!(errors.ends_with(lacking), "{errors}");
    assert_eq!((ran.status.code(), out.exists()), (Some(1), false));
}
