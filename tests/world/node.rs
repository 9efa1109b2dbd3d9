//! `world node`: a command that runs beside a whole node, with a cluster, AWS and a domain.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::common::gateway::authority;
use crate::common::node::eks::{ACCOUNT, CLUSTER, Eks, REGION, Way};
use crate::common::node::namespaces::{Entered, enter};
use crate::common::parts::part;

/// Runs this program again in the node's namespaces. There it starts the node, then the command with what
/// leads to everything in its environment; it ends when the command does, with its exit code.
pub(crate) async fn run(mut own: Vec<OsString>, command: &[OsString]) -> Result<ExitCode> {
    match enter(&mut own)? {
        Entered::Ended(code) => Ok(code),
        Entered::Inside(folder) => inside(&folder, command).await,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the command's PATH begins as this program's"
)]
async fn inside(folder: &Path, command: &[OsString]) -> Result<ExitCode> {
    let [program, arguments @ ..] = command else {
        bail!("there is no command");
    };
    eprintln!("==> starting a whole node, a fake AWS, and OpenSearch behind a domain (15 s)");
    let eks = Eks::start(folder, programs()?).await?;
    eks.role("shop-api", Way::WebIdentity, "shop", "api");
    eks.role("shop-batch", Way::PodIdentity, "shop", "batch");
    let (key, secret) = eks.aws.credentials(ACCOUNT);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = part("kubectl");
    let beside = beside.parent().context("it is in a folder")?;
    let path = std::env::join_paths(
        [beside.to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&path)),
    )?;
    let status = tokio::process::Command::new(program)
        .args(arguments)
        .env("KUBECONFIG", eks.node.kubeconfig())
        .env("HOME", folder)
        .env("PATH", path)
        .env("AWS_ENDPOINT_URL", eks.aws.url())
        .env("AWS_ACCESS_KEY_ID", key)
        .env("AWS_SECRET_ACCESS_KEY", secret)
        .env("AWS_REGION", REGION)
        .env("EKS_CLUSTER_NAME", CLUSTER)
        .env("DOMAIN_CA", authority())
        .env("OPERATOR_IMAGE", eks.operator.reference())
        .env("OPERATOR_OVERLAY", eks.overlay()?)
        .env_remove("AWS_SESSION_TOKEN")
        .env_remove("AWS_PROFILE")
        .status()
        .await;
    let status = status.with_context(|| format!("failed to run {}", program.display()))?;
    let code = status.code().and_then(|it| u8::try_from(it).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// Returns the operator's programs of the build that this program is of.
fn programs() -> Result<[PathBuf; 2]> {
    let own = std::env::current_exe()?;
    let built = own.parent().and_then(Path::parent);
    let built = built.context("it is in target/debug/examples")?;
    Ok(["opensearch-access", "opensearch-access-proxy"].map(|it| built.join(it)))
}
