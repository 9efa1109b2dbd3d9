//! The proxies: how each is started, and what it takes of the machine.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::common::parts::part;
use super::common::process::Process;
use super::uploads;
use super::upstream::Upstream;

/// The core that whatever is measured has for itself.
const CORE: &str = "0";

/// How long a proxy may take to start; generous, for busy machines.
const PATIENCE: Duration = Duration::from_mins(1);

/// What is sent to see what a proxy makes of it.
const LETTER: &[u8] = b"{\"query\":{\"match_all\":{}}}";

/// What is between the load and the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: what the load and the upstream can do by themselves.
    Direct,
    /// This project's proxy.
    Ours,
    /// Envoy with its filter that signs.
    Envoy,
    /// haproxy, which signs nothing.
    Haproxy,
    /// nginx, which signs nothing.
    Nginx,
}

impl Kind {
    pub(crate) const PROXIES: [Self; 4] = [Self::Ours, Self::Envoy, Self::Haproxy, Self::Nginx];

    fn signs(self) -> bool {
        matches!(self, Self::Ours | Self::Envoy)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Direct => "none",
            Self::Ours => "ours",
            Self::Envoy => "Envoy",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        })
    }
}

/// What loads are sent to.
pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    /// Its own, so that what one sends late is not taken for another's.
    pub(crate) upstream: Upstream,
    running: Option<Running>,
}

/// A proxy's process, ended on drop.
struct Running {
    process: Process,
    idle: u64,
    /// From its start to its first answer.
    started: Duration,
    _folder: TempDir,
}

impl Target {
    /// Addresses the upstream itself.
    pub(crate) fn direct() -> anyhow::Result<Self> {
        let upstream = Upstream::start()?;
        Ok(Self {
            kind: Kind::Direct,
            address: upstream.address,
            upstream,
            running: None,
        })
    }

    /// Starts a proxy, and returns once it has been seen to do its work.
    pub(crate) fn start(kind: Kind, binary: &Path, pinned: bool) -> anyhow::Result<Self> {
        let upstream = Upstream::start()?;
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        let command = command(kind, folder.path(), port, upstream.address, binary)?;
        let command = if pinned {
            on_its_core(&command)
        } else {
            command
        };
        let log = folder.path().join("log");
        let process = Process::spawn(&kind.to_string(), &command, &log)?;
        let mut target = Self {
            kind,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            upstream,
            running: Some(Running {
                process,
                idle: 0,
                started: Duration::ZERO,
                _folder: folder,
            }),
        };
        let began = Instant::now();
        let deadline = began + PATIENCE;
        let head = loop {
            match uploads::mirror(target.address, LETTER) {
                Ok(head) => break head,
                Err(error) if Instant::now() > deadline || target.has_ended() => {
                    return Err(error.context(format!("{kind} does not start: {}", target.log())));
                }
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        };
        if let Some(running) = &mut target.running {
            running.started = began.elapsed();
        }
        target.check(&head)?;
        target.rest()?;
        Ok(target)
    }

    /// Checks that a request arrived as this kind of proxy is to send it.
    fn check(&self, head: &str) -> anyhow::Result<()> {
        let head = head.to_ascii_lowercase();
        let signed = head.contains("\r\nauthorization: aws4-hmac-sha256 credential=akidexample/");
        let hash = Sha256::digest(LETTER);
        let hash = hash
            .iter()
            .fold(String::new(), |hash, byte| hash + &format!("{byte:02x}"));
        let hashed = head.contains(&format!("\r\nx-amz-content-sha256: {hash}\r\n"));
        let signs = self.kind.signs();
        ensure!(
            signed == signs && hashed == signs,
            "{} sent on: {head}",
            self.kind
        );
        Ok(())
    }

    /// Notes what it takes while it does nothing.
    fn rest(&mut self) -> anyhow::Result<()> {
        thread::sleep(Duration::from_secs(1));
        if let Some(running) = &mut self.running {
            running.idle = memory(running.process.id(), "VmRSS")?;
        }
        Ok(())
    }

    fn has_ended(&mut self) -> bool {
        let ended = self.running.as_mut().map(|it| it.process.try_wait());
        !matches!(ended, None | Some(Ok(None)))
    }

    /// Returns the end of what the proxy has written, for an error message.
    pub(crate) fn log(&self) -> String {
        let running = self.running.as_ref();
        running.map_or_else(String::new, |it| it.process.log_tail(10))
    }

    /// Returns the processor time that it has had so far; none without a process.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Option<Duration>> {
        let running = self.running.as_ref();
        running
            .map(|it| processor_time(it.process.id()))
            .transpose()
    }

    /// Returns how long it took from its start to its first answer.
    pub(crate) fn started(&self) -> Option<Duration> {
        self.running.as_ref().map(|it| it.started)
    }

    /// Returns the resident memory in bytes after the start.
    pub(crate) fn idle(&self) -> Option<u64> {
        self.running.as_ref().map(|it| it.idle)
    }

    /// Returns the resident memory in bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<Option<u64>> {
        let running = self.running.as_ref();
        running
            .map(|it| memory(it.process.id(), "VmRSS"))
            .transpose()
    }

    /// Returns the most resident memory in bytes since [`Self::forget_peak`], or the start.
    pub(crate) fn peak(&self) -> anyhow::Result<Option<u64>> {
        let running = self.running.as_ref();
        running
            .map(|it| memory(it.process.id(), "VmHWM"))
            .transpose()
    }

    /// Has the peak begin anew.
    pub(crate) fn forget_peak(&self) -> anyhow::Result<()> {
        let Some(running) = &self.running else {
            return Ok(());
        };
        let file = format!("/proc/{}/clear_refs", running.process.id());
        // 5: the peak alone (`man 5 proc_pid_clear_refs`).
        fs::write(&file, "5").with_context(|| format!("failed to write {file}"))
    }
}

/// Returns how much processor time the threads of a process have had.
///
/// To the nanosecond, unlike `/proc/ID/stat`, whose unit is what a proxy spends on some hundred
/// requests. No proxy here ends a thread, whose time would be gone.
pub(crate) fn processor_time(id: u32) -> anyhow::Result<Duration> {
    let mut total = 0;
    for thread in fs::read_dir(format!("/proc/{id}/task"))? {
        let file = thread?.path().join("schedstat");
        let text = fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
        let time = text.split(' ').next().context("it is empty")?;
        total += time.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total))
}

/// Returns a line of `/proc/ID/status` in bytes.
fn memory(id: u32, name: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|it| it.trim_start_matches(':').split_whitespace().next());
    let kibibytes: u64 = number.context("no such line")?.parse()?;
    Ok(kibibytes << 10)
}

/// Returns a port that nobody has. Somebody may take it before the proxy does, which then says so.
fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

fn on_its_core(command: &Command) -> Command {
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", CORE]).arg(command.get_program());
    pinned.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => pinned.env(name, value),
            None => pinned.env_remove(name),
        };
    }
    pinned
}

/// Returns what starts a proxy, with one thread for requests and nothing of the machine's own
/// configuration.
fn command(
    kind: Kind,
    folder: &Path,
    port: u16,
    upstream: SocketAddr,
    binary: &Path,
) -> anyhow::Result<Command> {
    let configure = |name: &str, template: &str| -> anyhow::Result<String> {
        let text = template
            .replace("LISTEN_PORT", &port.to_string())
            .replace("UPSTREAM_PORT", &upstream.port().to_string());
        let file = folder.join(name);
        fs::write(&file, text)?;
        Ok(file.to_str().context("a path in UTF-8")?.to_owned())
    };
    let mut command;
    match kind {
        Kind::Direct => bail!("there is nothing to start"),
        Kind::Ours => {
            command = Command::new(binary);
            let url = format!("http://{upstream}");
            command.args(["--forward-to", &url, "--upstream-may-be-local"]);
            command.args(["--service", "es", "--region", "eu-west-1"]);
            command.args(["--listen-on", &port.to_string(), "--utility-port", "0"]);
        }
        Kind::Envoy => {
            command = Command::new(part("envoy"));
            let file = configure("envoy.yaml", include_str!("envoy.yaml"))?;
            command.args(["--config-path", &file, "--concurrency", "1"]);
            command.args(["--disable-hot-restart", "--log-level", "error"]);
        }
        Kind::Haproxy => {
            command = Command::new(part("haproxy"));
            let file = configure("haproxy.cfg", include_str!("haproxy.cfg"))?;
            // In the foreground, as one process.
            command.args(["-db", "-q", "-f", &file]);
        }
        Kind::Nginx => {
            command = Command::new(part("nginx"));
            let file = configure("nginx.conf", include_str!("nginx.conf"))?;
            command.arg("-p").arg(folder);
            command.args(["-e", "stderr", "-c", &file]);
        }
    }
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["AWS_", "PROXY_", "LOG"]
            .iter()
            .any(|it| text.starts_with(it))
        {
            command.env_remove(&name);
        }
    }
    command
        .env("HOME", folder)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env(
            "AWS_SECRET_ACCESS_KEY",
            "wJalrXUtnFEMI+K7MDENG+bPxRfiCYEXAMPLEKEY",
        );
    Ok(command)
}
