//! What is left of a node whose program is killed: nothing.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::HOLD;
use crate::common::cluster::setup;
use crate::common::node::WholeNode;
use crate::common::process::{is_alive, mortal};

const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

/// Kills a program that holds a node, and looks for what it leaves.
pub(crate) fn nothing_is_left() {
    let own = std::env::current_exe().unwrap();
    let mut command = Command::new(own);
    let mut holder = mortal(command.arg(HOLD))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(holder.stdout.take().unwrap()).lines();
    let folder = PathBuf::from(said.next().expect("a node is held").unwrap());
    let processes = processes_of(&folder);
    for program in ["etcd", "kube-apiserver", "containerd", "kubelet"] {
        let runs = processes.iter().any(|(_, it)| it.ends_with(program));
        assert!(runs, "no {program} in {processes:?}");
    }
    holder.kill().unwrap();
    assert_eq!(holder.wait().unwrap().signal(), Some(9));
    let deadline = Instant::now() + PATIENCE;
    while let Some(left) = processes.iter().find(|(id, _)| is_alive(*id)) {
        assert!(Instant::now() < deadline, "{left:?} is left");
        sleep(POLL);
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(folder.to_str().unwrap()), "{mounts}");
    setup::remove_leftovers().unwrap();
    assert!(!folder.exists(), "{} is left", folder.display());
}

/// Starts a node, says where it is, and never ends by itself.
#[tokio::main]
pub(crate) async fn hold(folder: &Path) -> ExitCode {
    let node = WholeNode::start(folder, "https://issuer.example", &[]).await;
    let node = node.expect("the node starts");
    println!("{}", node.folder().display());
    std::future::pending().await
}

/// Returns the processes that run in a folder, and their programs.
fn processes_of(folder: &Path) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok());
    let there = ids.filter(|id| {
        let current = fs::read_link(format!("/proc/{id}/cwd"));
        current.is_ok_and(|it| it.starts_with(folder))
    });
    let program = |id| fs::read_link(format!("/proc/{id}/exe")).unwrap_or_default();
    there.map(|id| (id, program(id))).collect()
}
