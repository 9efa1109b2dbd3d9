//! The images that pods of a node are made of: a team's, and the operator's own.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::super::parts::part;

/// A team's image: a shell, and `curl` as the ordinary client. It does nothing by itself, and so is also
/// what holds a pod's namespaces.
pub(crate) const APP: &str = "docker.io/library/app:1";

/// What the operator's image is called, without its digest.
pub(crate) const OPERATOR: &str = "docker.io/library/opensearch-access";

/// What a shell script takes for granted.
const COMMANDS: [&str; 16] = [
    "cat", "date", "echo", "env", "grep", "head", "kill", "ls", "sed", "seq", "sh", "sleep",
    "tail", "touch", "tr", "wc",
];

/// Returns a tar with the team's image, made in a folder.
pub(crate) fn app(folder: &Path) -> Result<PathBuf> {
    let folder = folder.join("app-image");
    let links = folder.join("links");
    fs::create_dir_all(links.join("bin"))?;
    for command in COMMANDS {
        symlink("busybox", links.join("bin").join(command))?;
    }
    let layer = folder.join("layer.tar");
    let parts = part("app-image");
    let from = [
        parts.as_os_str(),
        OsStr::new("."),
        OsStr::new("-C"),
        links.as_os_str(),
    ];
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "-cf"]).arg(&layer);
    ran(tar.arg("-C").args(from).arg("."))?;
    let digest = ran(Command::new("sha256sum").arg(&layer))?;
    let digest = digest.split(' ').next().context("it prints one")?;
    let configuration = json!({
        "architecture": image_architecture(),
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/bin:/bin"],
            "Cmd": ["sh", "-c", "trap exit TERM; sleep 2147483647 & wait"],
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    fs::write(folder.join("config.json"), configuration.to_string())?;
    let manifest = json!([{"Config": "config.json", "RepoTags": [APP], "Layers": ["layer.tar"]}]);
    fs::write(folder.join("manifest.json"), manifest.to_string())?;
    let image = folder.join("image.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(&folder).arg("-cf").arg(&image);
    ran(tar.args(["manifest.json", "config.json", "layer.tar"]))?;
    Ok(image)
}

/// The operator's image.
pub(crate) struct Operator {
    pub(crate) tar: PathBuf,
    /// What the bill of materials is called that lies beside it.
    pub(crate) bill: PathBuf,
    pub(crate) digest: String,
}

/// Puts the operator's image together in a folder, from a build's programs, with one more authority
/// that it trusts.
///
/// What a debugger wants of the programs is left out, as in a release: it is most of a debug build.
pub(crate) fn operator(folder: &Path, programs: [&Path; 2], authority: &Path) -> Result<Operator> {
    let stripped = folder.join("programs");
    fs::create_dir_all(&stripped)?;
    for program in programs {
        let to = stripped.join(program.file_name().context("it is a file")?);
        let mut strip = Command::new("strip");
        ran(strip.arg("--strip-debug").arg("-o").arg(to).arg(program))?;
    }
    let tar = folder.join("opensearch-access.tar");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/image/assemble");
    let mut assemble = Command::new(script);
    assemble
        .arg("--uncompressed")
        .arg("--packages")
        .arg(part("image-base"))
        .arg("--authority")
        .arg(authority)
        .args(["--name", "opensearch-access:test"])
        .args([&stripped, &tar]);
    let digest = ran(&mut assemble)?.trim().to_owned();
    let bill = tar.with_extension("cdx.json");
    Ok(Operator { tar, bill, digest })
}

impl Operator {
    /// Returns the image as a pod names it.
    pub(crate) fn reference(&self) -> String {
        format!("{OPERATOR}@{}", self.digest)
    }
}

fn image_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

fn ran(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let ran = command.output();
    let ran = ran.with_context(|| format!("failed to run {program}"))?;
    let errors = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "{program}: {errors}");
    Ok(String::from_utf8(ran.stdout)?)
}
