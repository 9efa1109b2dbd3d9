//! An operator of which every call, to the API server and to AWS, passes the tripwires.

use std::process::ExitStatus;

use super::{ACCOUNT, PATIENCE, World};
use crate::common::cluster::proxy::ApiProxy;
use crate::common::process::Process;

/// How long a lease lasts: long enough for a machine on which everything else runs, too.
const LEASE_SECONDS: u64 = 10;

/// How an operator that may be cut off is run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Leads {
    /// It is the only one.
    Alone,
    /// It stands for leader.
    ByLease,
}

/// An operator behind a proxy of its own, killed on drop.
pub(crate) struct Wired {
    process: Process,
    pub(crate) proxy: ApiProxy,
    access_key_id: String,
}

impl Wired {
    /// Starts the operator; `name` is that of its user in AWS and of its log, and nobody else's.
    pub(crate) async fn start(world: &World, name: &str, leads: Leads) -> Self {
        world.aws().account(ACCOUNT).user(name);
        let keys = world.aws().user_credentials(ACCOUNT, name);
        let access_key_id = keys.access_key_id.clone();
        let wires = world.aws().tripwires();
        let proxy = ApiProxy::start(world.cluster(), &access_key_id, &wires);
        let proxy = proxy.await.unwrap();
        let kubeconfig = proxy.kubeconfig_of(world.cluster(), "operator").unwrap();
        let lease = format!("{LEASE_SECONDS}s");
        let options = match leads {
            Leads::Alone => vec!["--no-leader-election"],
            Leads::ByLease => vec!["--lease-duration", &lease, "--identity", name],
        };
        let credentials = (keys.access_key_id, keys.secret_access_key);
        let process = world
            .parts()
            .spawn_with(name, credentials, &kubeconfig, &options);
        Self {
            process,
            proxy,
            access_key_id,
        }
    }

    /// Ends it at once, whatever it is doing.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        self.process.terminate(PATIENCE).await.unwrap()
    }

    /// Sends a signal by its name without `SIG`.
    pub(crate) fn signal(&mut self, signal: &str) {
        self.process.signal(signal).unwrap();
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.process.wait(PATIENCE).await.unwrap()
    }

    /// Tells whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    /// Tells whether it has said something.
    pub(crate) fn has_logged(&self, words: &str) -> bool {
        self.process.log_tail(usize::MAX).contains(words)
    }

    /// Returns the end of what it has said, for a failure's message.
    pub(crate) fn log_tail(&self) -> String {
        self.process.log_tail(super::TAIL)
    }

    /// Tells whether a call that the fake AWS recorded is its own.
    pub(crate) fn made(&self, call: &crate::common::fake_aws::Call) -> bool {
        call.access_key_id == self.access_key_id
    }
}
