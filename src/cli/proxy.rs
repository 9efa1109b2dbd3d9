//! `proxy`: the command line of the signing proxy.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::builder::BoolishValueParser;

use super::LogFormat;
use crate::proxy::allow::{Allowed, Rule};
use crate::proxy::head::{Rules, Secret};
use crate::proxy::upstream::Upstream;
use crate::proxy::{self, Config};
use crate::runtime;

/// What a proxy listens on unless it is told otherwise; one more for each further upstream.
const PORT: u16 = 8080;

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct Args {
    /// The domain's endpoint, such as `https://search-logs-x.eu-west-1.es.amazonaws.com`; several, each
    /// with a port of its own (--listen-on).
    #[arg(
        short,
        long,
        env = "PROXY_FORWARD_TO",
        value_name = "URL",
        required = true,
        value_delimiter = ','
    )]
    forward_to: Vec<String>,
    /// The signing name of the service, `es` or `aoss`; read out of the endpoint's name without this.
    #[arg(short, long, env = "PROXY_SERVICE")]
    service: Option<String>,
    /// The region to sign for; read out of the endpoint's name, or of the AWS configuration, without
    /// this.
    #[arg(short, long, env = "PROXY_REGION")]
    region: Option<String>,
    /// The ARN of a role to assume, and to sign as.
    #[arg(short, long, env = "PROXY_ASSUME_ROLE", value_name = "ARN")]
    assume_role: Option<String>,
    /// The external id that the role's trust policy asks for.
    #[arg(long, env = "PROXY_EXTERNAL_ID", requires = "assume_role")]
    external_id: Option<String>,
    /// Where to listen: a port, or an address and a port; one for each endpoint, in their order.
    /// Without this 127.0.0.1:8080, 127.0.0.1:8081 and so on.
    #[arg(short, long, env = "PROXY_LISTEN_ON", value_name = "ADDRESS", value_parser = address, value_delimiter = ',')]
    listen_on: Vec<SocketAddr>,
    /// Let other machines connect, whose requests are then signed as this one's.
    #[arg(long, env = "PROXY_LISTEN_ANYWHERE", value_parser = BoolishValueParser::new())]
    listen_anywhere: bool,
    /// The address of the pod that the proxy runs in, and that of the pod's node (status.podIP and
    /// status.hostIP of the downward API). They are the same exactly where the pod is on its node's
    /// network; 127.0.0.1 is the whole node's there, and the proxy only starts with --listen-anywhere.
    #[arg(long, env = "PROXY_POD_IP", value_name = "IP", requires = "host_ip")]
    pod_ip: Option<IpAddr>,
    /// See --pod-ip.
    #[arg(long, env = "PROXY_HOST_IP", value_name = "IP", requires = "pod_ip")]
    host_ip: Option<IpAddr>,
    /// Where to serve /health, /ready and /metrics: a port, or an address and a port.
    #[arg(short, long, env = "PROXY_UTILITY_PORT", value_name = "ADDRESS", value_parser = address, default_value = "127.0.0.1:9090")]
    utility_port: SocketAddr,
    /// How long a connection to the domain may take, in seconds.
    #[arg(long, env = "PROXY_CONNECT_TIMEOUT", value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    connect_timeout: Duration,
    /// How long the domain may take to answer a request, in seconds; an answer that has begun may go
    /// on for as long as it likes.
    #[arg(long, env = "PROXY_REQUEST_TIMEOUT", value_name = "SECONDS", value_parser = seconds, default_value = "300")]
    request_timeout: Duration,
    /// How old a signature may be when it is sent, in seconds, at most 300: connecting is given up
    /// before. Each try is signed anew.
    #[arg(long, env = "PROXY_SIGNATURE_LIFETIME", value_name = "SECONDS", value_parser = lifetime, default_value = "300")]
    signature_lifetime: Duration,
    /// A PEM file with authorities to trust the domain's certificate by, beside the machine's own.
    #[arg(long, env = "PROXY_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Do not verify the domain's certificate: whoever is on the way can read and change everything.
    #[arg(long, env = "PROXY_NO_VERIFY_SSL", value_parser = BoolishValueParser::new())]
    no_verify_ssl: bool,
    /// A PEM file with a certificate, and those behind it: clients then connect by TLS.
    #[arg(short, long, env = "PROXY_CERT", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// A PEM file with the certificate's private key.
    #[arg(short, long, env = "PROXY_KEY", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Forward what only reads: GET and HEAD, and POST of searches and the like; nothing of the
    /// security plugin.
    #[arg(long, env = "PROXY_READ_ONLY", value_parser = BoolishValueParser::new())]
    read_only: bool,
    /// Forward only this: methods and a pattern of paths, such as "GET,POST /logs-*/_search"; several, in
    /// the variable separated by `;`. `*` stops at `/`, and `/logs-*/**` is all that is below.
    #[arg(long, env = "PROXY_ALLOW", value_name = "RULE", value_delimiter = ';')]
    allow: Vec<Rule>,
    /// The largest body of a request, such as 100MiB, which is the most that the service takes.
    #[arg(long, env = "PROXY_BODY_LIMIT", value_name = "SIZE", value_parser = size, default_value = "100MiB")]
    body_limit: u64,
    /// The memory for the bodies of all requests together; at least 4/3 of the largest, and 4MiB.
    #[arg(long, env = "PROXY_BODY_BUDGET", value_name = "SIZE", value_parser = size, default_value = "256MiB")]
    body_budget: u64,
    /// Pass bodies on as they come, and sign all but them; only those that say how long they are are held
    /// to the limit.
    #[arg(long, env = "PROXY_UNSIGNED_PAYLOAD", value_parser = BoolishValueParser::new())]
    unsigned_payload: bool,
    /// A name by which clients address this proxy, beside localhost and the domain's own; several.
    #[arg(
        long,
        env = "PROXY_CLIENT_HOST",
        value_name = "NAME",
        value_delimiter = ','
    )]
    client_host: Vec<String>,
    /// A file with a secret that each request has to carry in x-opensearch-access-secret.
    #[arg(long, env = "PROXY_CLIENT_SECRET_FILE", value_name = "FILE")]
    client_secret_file: Option<PathBuf>,
    /// Let the domain be on this machine, and without TLS there: behind an SSH tunnel, or in a test.
    #[arg(long, env = "PROXY_UPSTREAM_MAY_BE_LOCAL", value_parser = BoolishValueParser::new())]
    upstream_may_be_local: bool,
    /// How long clients are served on that come once the proxy is to stop, in seconds; each is sent
    /// away after its answer. It ends earlier where nobody is connected.
    #[arg(long, env = "PROXY_DRAIN_DELAY", value_name = "SECONDS", value_parser = seconds, default_value = "3")]
    drain_delay: Duration,
    /// Log each request: method, path, status and time.
    #[arg(long, env = "PROXY_ACCESS_LOG", value_parser = BoolishValueParser::new())]
    access_log: bool,
    /// What to log, such as `info` or `warn,opensearch_access=debug`.
    #[arg(long, env = "LOG", default_value = "info")]
    log: String,
    /// How to log.
    #[arg(long, env = "LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

/// Runs the proxy until it is told to stop.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    runtime::telemetry::init(&args.log, matches!(args.log_format, LogFormat::Json))?;
    runtime::tls::install()?;
    let config = config(args)?;
    // One thread: a sidecar has a fraction of a processor, and nothing here blocks.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?
        .block_on(proxy::run(config))?;
    Ok(ExitCode::SUCCESS)
}

fn config(args: Args) -> anyhow::Result<Config> {
    let upstreams = args.forward_to.iter();
    let upstreams = upstreams.map(|it| Upstream::parse(it, args.upstream_may_be_local));
    let upstreams: Vec<Upstream> = upstreams
        .collect::<Result<_, _>>()
        .context("--forward-to")?;
    let addresses = if args.listen_on.is_empty() {
        let ports = (PORT..).take(upstreams.len());
        ports
            .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .collect()
    } else {
        args.listen_on
    };
    if addresses.len() != upstreams.len() {
        bail!(
            "--listen-on: there are {} addresses for {} endpoints; give one for each",
            addresses.len(),
            upstreams.len()
        );
    }
    let secret = args.client_secret_file.as_deref().map(secret).transpose()?;
    Ok(Config {
        routes: addresses.into_iter().zip(upstreams).collect(),
        region: args.region,
        service: args.service,
        assume_role: args.assume_role.map(|role| (role, args.external_id)),
        utility: args.utility_port,
        listen_anywhere: args.listen_anywhere,
        on_network_of: args.pod_ip.filter(|pod| {
            args.host_ip
                .is_some_and(|it| it.to_canonical() == pod.to_canonical())
        }),
        connect_timeout: args.connect_timeout.min(args.signature_lifetime),
        request_timeout: args.request_timeout,
        authorities: args.ca,
        verify: !args.no_verify_ssl,
        certificate: args.cert.zip(args.key),
        rules: Rules {
            hosts: args
                .client_host
                .iter()
                .map(|it| it.to_ascii_lowercase())
                .collect(),
            allowed: Allowed {
                read_only: args.read_only,
                rules: args.allow,
            },
            secret,
        },
        bodies: (args.body_limit, args.body_budget),
        unsigned_payload: args.unsigned_payload,
        access_log: args.access_log,
        drain_delay: args.drain_delay,
    })
}

fn secret(file: &Path) -> anyhow::Result<Secret> {
    let text = std::fs::read_to_string(file);
    let text = text.with_context(|| format!("failed to read {}", file.display()))?;
    let text = zeroize::Zeroizing::new(text);
    let secret = text.trim();
    if secret.len() < 16 {
        bail!("{}: a secret has 16 characters or more", file.display());
    }
    Ok(Secret::new(secret))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let told = || format!("{text:?} is neither a port nor an address and a port");
    match text.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        Err(_) => text.parse().map_err(|_| told()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let digits = text.strip_suffix('s').unwrap_or(text);
    let number = digits.parse().ok().filter(|it| (1..=86_400).contains(it));
    let number: u64 = number.ok_or("give seconds, from 1 to 86400")?;
    Ok(Duration::from_secs(number))
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = seconds(text)?;
    if lifetime > Duration::from_mins(5) {
        return Err("the service takes no signature that is older than 300 seconds".to_owned());
    }
    Ok(lifetime)
}

fn size(text: &str) -> Result<u64, String> {
    let split = text
        .find(|it: char| !it.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" | "Ki" => 10,
        "MiB" | "Mi" => 20,
        "GiB" | "Gi" => 30,
        _ => return Err("give bytes, or a number of KiB, MiB or GiB".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "give a number".to_owned())?;
    let bytes = number
        .checked_mul(1 << shift)
        .filter(|it| *it > 0 && *it <= 1 << 40);
    bytes.ok_or_else(|| "give a size from 1 byte to 1024 GiB".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(args_override_self = true)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn read(line: &str) -> anyhow::Result<Config> {
        let line = Line::try_parse_from(["proxy"].into_iter().chain(line.split_whitespace()))?;
        config(line.args)
    }

    #[test]
    fn the_flags_of_the_peer_are_taken() {
        let config = read(
            "-f https://search.example -s es -r eu-west-1 -a arn:aws:iam::111122223333:role/x \
             -l 9200 -u 9091 --connect-timeout 3 --request-timeout 60 --signature-lifetime 2 \
             --ca ca.pem --no-verify-ssl -c cert.pem -k key.pem",
        );
        let config = config.unwrap();
        let [(address, upstream)] = config.routes.as_slice() else {
            panic!("{config:?}");
        };
        assert_eq!(*address, "127.0.0.1:9200".parse().unwrap());
        assert_eq!(upstream.host(), "search.example");
        assert_eq!(config.utility, "127.0.0.1:9091".parse().unwrap());
        // A signature is no older than that when it is sent.
        assert_eq!(config.connect_timeout, Duration::from_secs(2));
        assert!(!config.verify && config.certificate.is_some());
    }

    #[test]
    fn the_defaults_are_safe() {
        let config = read("-f https://a.example -f https://b.example").unwrap();
        let listens: Vec<String> = config.routes.iter().map(|it| it.0.to_string()).collect();
        assert_eq!(listens, ["127.0.0.1:8080", "127.0.0.1:8081"]);
        assert!(config.utility.ip().is_loopback() && config.verify && !config.listen_anywhere);
        assert!(!config.unsigned_payload && config.certificate.is_none());
        assert_eq!(config.bodies, (100 << 20, 256 << 20));
    }

    #[test]
    fn a_pod_on_its_nodes_network_is_told_by_its_address() {
        let node = |pod: &str, host: &str| {
            let line = format!("-f https://a.example --pod-ip {pod} --host-ip {host}");
            read(&line).unwrap().on_network_of
        };
        assert_eq!(node("10.0.0.2", "10.0.0.1"), None);
        assert_eq!(node("10.0.0.1", "10.0.0.1"), "10.0.0.1".parse().ok());
        assert!(node("::ffff:10.0.0.1", "10.0.0.1").is_some());
        assert!(node("fd00::1", "fd00:0::1").is_some());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            "",
            "-f http://a.example",
            "-f https://169.254.169.254",
            "-f https://a.example -l 1 -l 2",
            "-f https://a.example -l x",
            "-f https://a.example --external-id x",
            "-f https://a.example -c cert.pem",
            "-f https://a.example --signature-lifetime 301",
            "-f https://a.example --request-timeout 0",
            "-f https://a.example --body-limit 1TB",
            "-f https://a.example --allow x",
            "-f https://a.example --pod-ip 10.0.0.1",
            "-f https://a.example --host-ip 10.0.0.1",
            "-f https://a.example --pod-ip x --host-ip 10.0.0.1",
            "-f https://a.example --client-secret-file /nowhere",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }

    #[test]
    fn what_is_said_last_counts() {
        let said = "-f https://a.example -f https://b.example --body-limit=90MiB --read-only";
        let config = read(&format!("{said} --body-limit=10MiB --read-only --log=warn")).unwrap();
        assert_eq!(config.bodies.0, 10 << 20);
        assert_eq!(config.routes.len(), 2, "these are several");
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(size("100MiB"), Ok(100 << 20));
        assert_eq!(size("5"), Ok(5));
        assert_eq!(size("1Gi"), Ok(1 << 30));
        for text in ["", "MiB", "1M", "-1", "0", "99999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
