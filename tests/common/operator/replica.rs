//! One of several operators in a world: with an access key, a log and an admin port of its own.

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{ACCOUNT, PATIENCE, TAIL, World};
use crate::common::fake_aws::Call;
use crate::common::process::Process;

/// How long the lease of a replica lasts.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// An operator that stands for leader, killed on drop.
pub(crate) struct Replica<'a> {
    world: &'a World,
    name: &'static str,
    access_key_id: String,
    process: Process,
    address: String,
}

impl<'a> Replica<'a> {
    /// Starts a replica, and waits until its admin port is open.
    pub(crate) async fn start(world: &'a World, name: &'static str) -> Self {
        Self::start_with(world, name, &["--log", "debug"]).await
    }

    pub(crate) async fn start_with(world: &'a World, name: &'static str, options: &[&str]) -> Self {
        world.aws().account(ACCOUNT).user(name);
        let credentials = world.aws().user_credentials(ACCOUNT, name);
        let access_key_id = credentials.access_key_id.clone();
        let lease = format!("{}s", LEASE.as_secs());
        let mut all = vec!["--lease-duration", &lease, "--identity", name];
        all.extend(options);
        let keys = (credentials.access_key_id, credentials.secret_access_key);
        let process = world.parts().spawn(name, keys, &all);
        let look = async || {
            let log = process.log_tail(usize::MAX);
            let opened = log.lines().find(|it| it.contains("admin port is open"));
            let address = opened.and_then(|it| it.split("address=").nth(1));
            address.map(str::to_owned).ok_or(log)
        };
        let address = world.eventually("the admin port is open", PATIENCE, look);
        let address = address.await;
        Self {
            world,
            name,
            access_key_id,
            process,
            address,
        }
    }

    /// Sends a signal by its name without `SIG`.
    pub(crate) fn signal(&mut self, signal: &str) {
        self.process.signal(signal).unwrap();
    }

    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
    }

    /// Waits until the program has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.process.wait(PATIENCE).await.unwrap()
    }

    /// Asks it to stop, and makes sure that it does so in order.
    pub(crate) async fn stop(mut self) {
        let status = self.process.terminate(PATIENCE).await.unwrap();
        assert!(
            status.success(),
            "{status}: {}",
            self.process.log_tail(TAIL)
        );
    }

    /// Returns the calls to AWS that this replica made.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let mut calls = self.world.aws().calls();
        calls.retain(|call| call.access_key_id == self.access_key_id);
        calls
    }

    /// Returns the changes in AWS that this replica asked for.
    pub(crate) fn writes(&self) -> Vec<Call> {
        let reads = ["Describe", "Get", "List"];
        let mut calls = self.calls();
        calls.retain(|call| !reads.iter().any(|it| call.operation.starts_with(it)));
        calls
    }

    // === the admin port ===

    /// Returns the status and the body of an answer; an error where nobody answers.
    pub(crate) async fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let status = answer.split(' ').nth(1).and_then(|it| it.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
        let (Some(status), Some(body)) = (status, body) else {
            return Err(std::io::Error::other(answer));
        };
        Ok((status, body.to_owned()))
    }

    /// Returns every series with its value, without the prefix that all share.
    pub(crate) async fn metrics(&self) -> BTreeMap<String, f64> {
        let (status, text) = self.get("/metrics").await.unwrap();
        assert_eq!(status, 200);
        assert!(text.ends_with("# EOF\n"), "{text}");
        let series = text.lines().filter(|line| !line.starts_with('#'));
        let read = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let name = name.strip_prefix("opensearch_access_").unwrap();
            (name.to_owned(), value.parse().unwrap())
        };
        series.map(read).collect()
    }

    /// Waits until series have values; a series that is not there is zero.
    pub(crate) async fn until_metrics(&self, wanted: &[(&str, f64)]) {
        let look = async || {
            let metrics = self.metrics().await;
            let value = |name: &str| metrics.get(name).copied().unwrap_or_default();
            let off = |(name, wanted): &&(&str, f64)| (value(name) - wanted).abs() > 1e-6;
            match wanted.iter().find(off) {
                None => Ok(()),
                Some((name, wanted)) => Err(format!("{name} is not {wanted}: {metrics:#?}")),
            }
        };
        let what = format!("the metrics of {} are as wanted", self.name);
        self.world.eventually(&what, PATIENCE, look).await;
    }

    /// Waits until `/readyz` answers with a status.
    pub(crate) async fn until_readyz(&self, wanted: u16) {
        let look = async || match self.get("/readyz").await {
            Ok((status, _)) if status == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        };
        let what = format!("{} answers {wanted} to /readyz", self.name);
        self.world.eventually(&what, PATIENCE, look).await;
    }

    pub(crate) async fn until_leads(&self) {
        self.until_metrics(&[("leader", 1.0)]).await;
    }
}
