//! A client by kubeconfig, as `kubectl` finds it.

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::error::Error;

/// The longest wait for an answer: a list of many grants may take a while.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes a client: from the file, from `KUBECONFIG`, from `~/.kube/config`, or, inside a pod, from
/// its service account; for the context, or else the file's current one.
pub async fn client(file: Option<&Path>, context: Option<&str>) -> Result<Client, Error> {
    let options = KubeConfigOptions {
        context: context.map(ToOwned::to_owned),
        ..KubeConfigOptions::default()
    };
    let mut config = match (file, context) {
        (Some(file), _) => {
            Config::from_custom_kubeconfig(Kubeconfig::read_from(file)?, &options).await?
        }
        (None, Some(_)) => Config::from_kubeconfig(&options).await?,
        (None, None) => match Config::from_kubeconfig(&options).await {
            Ok(config) => config,
            Err(error) => Config::incluster().map_err(|_| error)?,
        },
    };
    config.read_timeout = Some(READ_TIMEOUT);
    // The client's own retries would go on for minutes, and a person can try again.
    config.default_retry = false;
    Client::try_from(config).map_err(Error::of("make a client"))
}
