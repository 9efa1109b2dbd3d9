//! The network of the namespaces: a bridge for pods, with every address that something listens on.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};

use super::super::parts::part;
use super::{AGENT, API, AWS, BRIDGE, DOMAIN};

/// What the bridge is called.
pub(crate) const NAME: &str = "pods";

/// The bridge's own address, as pods' are made: of its address on the network.
const HARDWARE_ADDRESS: &str = "0a:58:0a:58:00:01";

/// Makes the bridge. There is nothing outside: the default route ends here.
pub(super) fn set_up() -> Result<()> {
    ip("link set lo up")?;
    ip(&format!("link add {NAME} type bridge"))?;
    // One that is not given takes the lowest of those of its pods: whenever one comes or goes all
    // others could send to the wrong one, until they ask again half a minute later.
    ip(&format!("link set {NAME} address {HARDWARE_ADDRESS}"))?;
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
pub(crate) fn ip(arguments: &str) -> Result<String> {
    let mut command = Command::new(part("app-image").join("bin/busybox"));
    let ran = command.arg("ip").args(arguments.split(' ')).output()?;
    let errors = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "ip {arguments}: {errors}");
    Ok(String::from_utf8(ran.stdout)?)
}
