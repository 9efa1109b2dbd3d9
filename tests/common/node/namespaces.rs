//! A program that goes on in namespaces of its own: network, mounts and processes.
//!
//! ```text
//!  program ─► setpriv ─► unshare ─► the program again, as the first process of the namespaces
//! ```
//!
//! # Guarantees
//!
//! When the outer program ends, however it does, every process of the namespaces is gone, and with them
//! their mounts and devices. The folder is removed then, or by the next start.
//!
//! # Caveats
//!
//! Control groups have no namespace here. Those of containers are removed at the end; of a program that
//! is killed they stay, without processes.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use super::super::cluster::setup;
use super::super::process::mortal;
use super::{BRIDGE, programs};

/// The argument by which the program knows that it is inside, with the folder after it.
pub(crate) const INSIDE: &str = "--inside";

/// What is written by programs that cannot be told where to: empty inside, and gone with it.
const SCRATCH: [&str; 3] = ["/run", "/var/lib", "/var/log"];

/// Which name server there is, as the kubelet tells pods and as programs here are told.
pub(super) const RESOLVER: &str = "resolv.conf";

const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// Where a program goes on.
pub(crate) enum Entered {
    /// In the namespaces, with a folder for everything.
    Inside(PathBuf),
    /// Outside, after what went on inside has ended.
    Ended(ExitCode),
}

/// Runs this program again in namespaces, with the same arguments, unless this is it already.
///
/// `arguments` are the program's own; those that are for this function are taken out of them.
pub(crate) fn enter(arguments: &mut Vec<OsString>) -> Result<Entered> {
    if arguments.first().is_some_and(|it| it == INSIDE) {
        let mut own = arguments.drain(..2);
        let folder = own.nth(1).context("it comes with a folder")?;
        let folder = PathBuf::from(folder);
        set_up_mounts(&folder)?;
        return Ok(Entered::Inside(folder));
    }
    let is_root = fs::metadata("/proc/self")?.uid() == 0;
    anyhow::ensure!(
        is_root,
        "a node needs root: network, mounts, control groups"
    );
    setup::remove_leftovers()?;
    let (folder, _lock) = setup::new_folder()?;
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child"])
        .args(["--mount-proc", "--"])
        .arg(std::env::current_exe()?)
        .arg(INSIDE)
        .arg(folder.path())
        .args(arguments);
    let ended = mortal(&command).status();
    let ended = ended.context("failed to run unshare (util-linux) through setpriv")?;
    remove_control_groups(folder.path());
    let code = ended.code().and_then(|it| u8::try_from(it).ok());
    Ok(Entered::Ended(ExitCode::from(code.unwrap_or(1))))
}

fn set_up_mounts(folder: &Path) -> Result<()> {
    let images = folder.join(programs::CONTAINERS);
    fs::create_dir_all(&images)?;
    let scratch = SCRATCH.iter().map(Path::new).chain([images.as_path()]);
    for place in scratch {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "mode=755", "tmpfs"]);
        let mounted = mount.arg(place).status()?;
        anyhow::ensure!(mounted.success(), "failed to mount on {}", place.display());
    }
    resolve_by(folder, &format!("nameserver {BRIDGE}\n"))
}

/// Lets programs here find what pods find, too.
fn resolve_by(folder: &Path, servers: &str) -> Result<()> {
    let own = folder.join(RESOLVER);
    fs::write(&own, servers)?;
    let place = Path::new("/etc/resolv.conf");
    // A link into what is empty here leads to a new file.
    if let Ok(target) = fs::read_link(place)
        && !place.exists()
    {
        let target = Path::new("/etc").join(target);
        fs::create_dir_all(target.parent().unwrap_or(folder))?;
        fs::write(target, servers)?;
        return Ok(());
    }
    let mut mount = Command::new("mount");
    let mounted = mount.arg("--bind").args([own.as_path(), place]).status()?;
    anyhow::ensure!(mounted.success(), "failed to mount on {}", place.display());
    Ok(())
}

/// Removes the control groups of containers that were killed with everything else.
fn remove_control_groups(folder: &Path) {
    let state = folder.join(programs::STATE);
    let tasks = state.join("io.containerd.runtime.v2.task/k8s.io");
    let containers: Vec<OsString> = entries(&tasks).map(|it| it.file_name()).collect();
    let hierarchies = entries(Path::new(CONTROL_GROUPS)).map(|it| it.path());
    for hierarchy in hierarchies.chain([CONTROL_GROUPS.into()]) {
        let pods = hierarchy.join("k8s.io");
        for container in &containers {
            remove_group(&pods.join(container));
        }
        // Only if nobody else has any.
        remove_if_empty(&pods);
    }
}

fn remove_group(group: &Path) {
    let inner = entries(group).filter(|it| it.file_type().is_ok_and(|it| it.is_dir()));
    for entry in inner {
        remove_group(&entry.path());
    }
    remove_if_empty(group);
}

/// Removes a group without processes, by its link count without groups; another stays.
fn remove_if_empty(group: &Path) {
    let is_leaf = fs::metadata(group).is_ok_and(|it| it.nlink() <= 2);
    if is_leaf && let Err(error) = fs::remove_dir(group) {
        eprintln!("failed to remove {}: {error}", group.display());
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = fs::DirEntry> {
    let read: io::Result<fs::ReadDir> = fs::read_dir(folder);
    read.into_iter().flatten().flatten()
}
