//! `controller`, `webhook` and `run`: what they are told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use jiff::SignedDuration;

use super::{LogFormat, cluster, sidecar};
use crate::policy::duration;
use crate::runtime::admin::{self, Board};
use crate::runtime::lease;
use crate::webhook::keep::{Own, Source};
use crate::{controller, runtime, webhook};

/// What every long-running program is told.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    /// The namespace in which the operator keeps its records; it must exist.
    #[arg(long, env = "OPERATOR_NAMESPACE", default_value = "opensearch-access")]
    namespace: String,
    /// Where to serve /healthz, /readyz and /metrics; port 0 takes a free one, and the log names it.
    #[arg(long, env = "ADMIN_ADDRESS", default_value = "0.0.0.0:8080")]
    admin_address: SocketAddr,
    /// What to log, as `tracing` directives such as `info` or `opensearch_access=debug`.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    log: String,
    /// How to log.
    #[arg(long, env = "LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

/// What the controller is told.
#[derive(Debug, clap::Args)]
pub(super) struct Reconciles {
    #[command(flatten)]
    cluster: cluster::Args,
    /// The Lease, in the operator's namespace, that the one replica which reconciles holds.
    #[arg(long, env = "LEASE_NAME", default_value = "opensearch-access")]
    lease_name: String,
    /// How long a replica that is gone still leads, such as `15s`; at least 3s.
    #[arg(long, env = "LEASE_DURATION", default_value = "15s", value_parser = lease_duration)]
    lease_duration: Duration,
    /// What the replica is called in the Lease; a random part is added.
    #[arg(long, env = "HOSTNAME", default_value = "opensearch-access")]
    identity: String,
    /// Reconcile without a Lease: only where nothing ever starts a second replica.
    #[arg(long)]
    no_leader_election: bool,
    /// How long a deleted grant waits for its revocation before it is let go, such as `4m`. For tests:
    /// five minutes are what a namespace's deletion may be held up.
    #[arg(long, hide = true, default_value = "4m", value_parser = positive_duration)]
    revocation_limit: Duration,
    /// A PEM file with authorities to trust the endpoints of domains by, beside the machine's own:
    /// for a proxy that opens TLS connections.
    #[arg(long, env = "DOMAIN_CA", value_name = "FILE")]
    domain_ca: Option<PathBuf>,
}

/// What the webhook is told.
#[derive(Debug, clap::Args)]
pub(super) struct Reviews {
    /// Where the API server calls, by TLS; port 0 takes a free one, and the log names it.
    #[arg(long, env = "WEBHOOK_ADDRESS", default_value = "0.0.0.0:8443")]
    webhook_address: SocketAddr,
    /// The Service, in the operator's namespace, by which the API server calls.
    #[arg(
        long,
        env = "WEBHOOK_SERVICE",
        default_value = "opensearch-access-webhook"
    )]
    webhook_service: String,
    /// A further name or address by which the API server calls; several.
    #[arg(long, env = "WEBHOOK_NAME", value_name = "NAME", value_delimiter = ',')]
    webhook_name: Vec<String>,
    /// The name of the `MutatingWebhookConfiguration` and of the `ValidatingWebhookConfiguration` that
    /// call: the authority of the certificate is kept in both.
    #[arg(
        long,
        env = "WEBHOOK_CONFIGURATION",
        default_value = "opensearch-access"
    )]
    webhook_configuration: String,
    /// The Secret, in the operator's namespace, that the certificate is kept in; it must exist, and
    /// may be empty.
    #[arg(
        long,
        env = "WEBHOOK_CERTIFICATE_SECRET",
        value_name = "NAME",
        default_value = "opensearch-access-webhook-certificate"
    )]
    webhook_certificate_secret: String,
    /// A folder in which somebody else, such as cert-manager, keeps tls.crt and tls.key; then neither
    /// the Secret nor the configurations are touched.
    #[arg(long, env = "WEBHOOK_CERTIFICATE_FOLDER", value_name = "FOLDER")]
    webhook_certificate_folder: Option<PathBuf>,
    /// How long a certificate that is made here holds.
    #[arg(
        long,
        env = "WEBHOOK_CERTIFICATE_LIFETIME",
        value_name = "DURATION",
        default_value = "720h",
        value_parser = positive_duration
    )]
    webhook_certificate_lifetime: Duration,
    /// How old a certificate is when the next one is made. For tests: two thirds of its lifetime is what
    /// leaves time for everything.
    #[arg(long, hide = true, value_name = "DURATION", value_parser = positive_duration)]
    webhook_certificate_renewal: Option<Duration>,
    /// A PEM file with the authorities of API servers: nobody else may call. API servers have to be
    /// told to show a certificate (their `AdmissionConfiguration`'s kubeConfigFile).
    #[arg(long, env = "WEBHOOK_CLIENT_CA", value_name = "FILE")]
    webhook_client_ca: Option<PathBuf>,
    #[command(flatten)]
    sidecar: sidecar::Args,
}

/// `controller`.
#[derive(Debug, clap::Args)]
pub(super) struct Controller {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    reconciles: Reconciles,
}

/// `webhook`.
#[derive(Debug, clap::Args)]
pub(super) struct Webhook {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    reviews: Reviews,
}

/// `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    reconciles: Reconciles,
    #[command(flatten)]
    reviews: Reviews,
}

fn lease_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text)
        .map(SignedDuration::unsigned_abs)
        .filter(|it| *it >= lease::SHORTEST)
        .ok_or_else(|| format!("write it as 15s or 1m, {:?} at least", lease::SHORTEST))
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text)
        .map(SignedDuration::unsigned_abs)
        .ok_or_else(|| "write it as 30s or 4m".to_owned())
}

impl Reconciles {
    fn config(self, namespace: &str) -> controller::Config {
        let lease = lease::Config {
            namespace: namespace.to_owned(),
            name: self.lease_name,
            identity: format!("{}_{:016x}", self.identity, fastrand::u64(..)),
            duration: self.lease_duration,
        };
        controller::Config {
            namespace: namespace.to_owned(),
            cluster: self.cluster.into(),
            revocation_limit: self.revocation_limit,
            authorities: self.domain_ca,
            lease: (!self.no_leader_election).then_some(lease),
        }
    }
}

impl Reviews {
    fn config(self, namespace: &str) -> webhook::Config {
        let service = &self.webhook_service;
        let mut names = vec![
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
        ];
        names.extend(self.webhook_name);
        let signed = |it: Duration| SignedDuration::try_from(it).unwrap_or(SignedDuration::MAX);
        let lifetime = self.webhook_certificate_lifetime;
        let renewal = self.webhook_certificate_renewal.unwrap_or(lifetime * 2 / 3);
        let certificate = match self.webhook_certificate_folder {
            Some(folder) => Source::Folder(folder),
            None => Source::Own(Own {
                secret: self.webhook_certificate_secret,
                configuration: self.webhook_configuration,
                names,
                lifetime: signed(lifetime),
                renewal: signed(renewal),
            }),
        };
        webhook::Config {
            namespace: namespace.to_owned(),
            address: self.webhook_address,
            certificate,
            client_authorities: self.webhook_client_ca,
            sidecar: self.sidecar.into(),
        }
    }
}

impl Controller {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let board = Board::of(1);
        let config = self.reconciles.config(&self.common.namespace);
        let work = controller::run(config, &board);
        self.common.beside(board.clone(), work)
    }
}

impl Webhook {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let board = Board::of(1);
        let config = self.reviews.config(&self.common.namespace);
        let work = webhook::run(config, &board);
        self.common.beside(board.clone(), work)
    }
}

impl Run {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let board = Board::of(2);
        let reconciles = self.reconciles.config(&self.common.namespace);
        let reviews = self.reviews.config(&self.common.namespace);
        // Either ends the other, unless both were asked to stop.
        let work = async {
            tokio::try_join!(
                controller::run(reconciles, &board),
                webhook::run(reviews, &board)
            )
            .map(|((), ())| ())
        };
        self.common.beside(board.clone(), work)
    }
}

impl Common {
    fn beside(
        self,
        board: Board,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<ExitCode> {
        runtime::telemetry::init(&self.log, matches!(self.log_format, LogFormat::Json))?;
        runtime::tls::install()?;
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("failed to start the runtime")?
            .block_on(admin::beside(self.admin_address, board, work))?;
        Ok(ExitCode::SUCCESS)
    }
}
