//! The shape of the source: who may use whom, what the pure layers may not name, and that every
//! file is compiled.
//!
//! ```text
//! main -> cli -> { controller | proxy | offline } -> { aws, kubernetes, runtime } -> policy -> api
//! ```
//!
//! A scanner rather than a parser: [`code`] blanks out comments, strings and characters, byte
//! by byte, and keeps the lines; whatever is left and reads `crate::x` is a use of layer `x`, in a
//! `use` tree, in a path or in a macro alike. What `#[cfg(test)]` modules use counts too.
//!
//! # Caveats
//!
//! A layer reached by a name that was renamed on its way (`use crate as here`) is not seen; the
//! scan refuses the renaming itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails where it panics"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use self::layers::{LAYERS, violations};
use self::scan::{code, tokens};

#[path = "architecture/layers.rs"]
mod layers;
#[path = "architecture/scan.rs"]
mod scan;

/// The most lines of a file.
const LONGEST: usize = 600;

/// Returns the modules that a file declares in files of their own, beside unit tests.
fn modules(source: &str) -> Vec<String> {
    let code = code(source);
    let tokens = tokens(&code);
    let declared = tokens
        .windows(3)
        .filter(|window| window[0] == "mod" && window[2] == ";");
    declared.map(|window| window[1].to_owned()).collect()
}

/// Returns every file that is reached from a root by `mod` lines.
fn reachable(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![root.to_owned()];
    while let Some(file) = open.pop() {
        let is_root = file == root;
        let folder = if is_root {
            file.with_file_name("")
        } else {
            file.with_extension("")
        };
        for module in modules(&fs::read_to_string(&file).unwrap()) {
            let flat = folder.join(format!("{module}.rs"));
            let nested = folder.join(&module).join("mod.rs");
            open.extend([flat, nested].into_iter().filter(|it| it.is_file()));
        }
        found.insert(file);
    }
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every Rust file below a folder.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|suffix| suffix == "rs") {
            found.insert(path);
        }
    }
    found
}

fn source_files() -> Vec<(PathBuf, String)> {
    let folder = root().join("src");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path.strip_prefix(&folder).unwrap().to_owned(), text)
    };
    files(&folder).into_iter().map(read).collect()
}

#[test]
fn layers_use_what_is_to_their_right_and_the_pure_ones_stay_pure() {
    let files = source_files();
    assert!(files.len() > 20, "only {files:?}");
    let broken: Vec<String> = files
        .iter()
        .filter(|(file, _)| file != Path::new("lib.rs"))
        .flat_map(|(file, source)| violations(file, source))
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_map_in_the_library_shows_every_layer() {
    let map = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let (modules, layers): (BTreeSet<_>, BTreeSet<_>) = (
        modules(&map).into_iter().collect(),
        LAYERS
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .filter(|name| name != "main" && name != "bin")
            .collect(),
    );
    assert_eq!(modules, layers);
    for layer in layers {
        assert!(
            map.contains(&format!("//! - [`{layer}`]")),
            "no line about {layer}"
        );
    }
}

#[test]
fn every_file_of_the_source_is_compiled() {
    let src = root().join("src");
    let mut reached = reachable(&src.join("lib.rs"));
    reached.insert(src.join("main.rs"));
    reached.insert(src.join("bin/opensearch-access-proxy.rs"));
    assert_eq!(
        files(&src).difference(&reached).collect::<Vec<_>>(),
        Vec::<&PathBuf>::new()
    );
}

#[test]
fn every_test_on_real_parts_is_compiled() {
    let folder = root().join("tests/on_real_parts");
    let reached = reachable(&folder.join("main.rs"));
    assert_eq!(
        files(&folder).difference(&reached).collect::<Vec<_>>(),
        Vec::<&PathBuf>::new()
    );
}

#[test]
fn no_file_of_the_source_is_too_long() {
    for (file, source) in source_files() {
        let lines = source.lines().count();
        assert!(
            lines <= LONGEST,
            "{} has {lines} lines, split it",
            file.display()
        );
    }
}

#[test]
fn a_file_that_nothing_declares_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, source: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, source).unwrap();
    };
    write(
        "lib.rs",
        "pub mod a;\n// mod b;\n#[cfg(test)]\nmod tests {}",
    );
    write("a.rs", "mod c;");
    write("a/c.rs", "");
    write("b.rs", "");
    write("a/d.rs", "");
    let reached = reachable(&folder.path().join("lib.rs"));
    let strays: BTreeSet<PathBuf> = files(folder.path()).difference(&reached).cloned().collect();
    assert_eq!(
        strays,
        ["a/d.rs", "b.rs"]
            .map(|name| folder.path().join(name))
            .into()
    );
}
