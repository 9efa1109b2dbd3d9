//! The network of the namespaces: a bridge for pods, with every address that something listens on.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};

use super::super::parts::part;
use super::{AGENT, API, AWS, BRIDGE, DOMAIN};

/// What the bridge is called.
pub(super) const NAME: &str = "pods";

/// Makes the bridge. There is nothing outside: the default route ends here.
pub(super) fn set_up() -> Result<()> {
    ip("link set lo up")?;
    ip(&format!("link add {NAME} type bridge"))?;
    ip(&format!("address add {BRIDGE}/16 dev {NAME}"))?;
    for address in [AWS, DOMAIN, API, AGENT] {
        ip(&format!("address add {address}/32 dev {NAME}"))?;
    }
    ip(&format!("link set {NAME} up"))?;
    ip(&format!("route add default via {BRIDGE} dev {NAME}"))?;
    // Pods reach addresses that are not of their own network through the node.
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    Ok(())
}

/// Runs `ip`, busybox's, which is there in any case.
fn ip(arguments: &str) -> Result<()> {
    let mut command = Command::new(part("app-image").join("bin/busybox"));
    let ran = command.arg("ip").args(arguments.split(' ')).output()?;
    let errors = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "ip {arguments}: {errors}");
    Ok(())
}
