//! The program, and clients that speak bytes.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::upstream::Upstream;
use crate::common::process::Process;

/// How long anything may take that is to happen by itself; generous, for busy machines.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) const KEY_ID: &str = "AKIDEXAMPLE";
pub(crate) const SECRET: &str = "wJalrXUtnFEMI+K7MDENG+bPxRfiCYEXAMPLEKEY";
pub(crate) const TOKEN: &str = "session-token-canary";

/// The variables that give a proxy credentials that last.
pub(crate) const KEYS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", KEY_ID),
    ("AWS_SECRET_ACCESS_KEY", SECRET),
    ("AWS_SESSION_TOKEN", TOKEN),
];

/// A proxy, killed on drop.
pub(crate) struct Proxy {
    process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) utility: SocketAddr,
    _home: TempDir,
}

impl Proxy {
    /// Starts a proxy before an upstream, with credentials that last.
    pub(crate) async fn before(upstream: &Upstream, options: &[&str]) -> Self {
        let url = format!("http://{}", upstream.address);
        let proxy = Self::start(&url, &KEYS, options).await;
        proxy.until_ready().await;
        proxy
    }

    /// Starts a proxy before an upstream, with the credentials that a command gives.
    pub(crate) async fn given_by(upstream: &Upstream, process: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("config");
        let text = format!("[default]\ncredential_process = {process}\n");
        std::fs::write(&config, text).unwrap();
        let variables = [
            ("AWS_CONFIG_FILE", config.to_str().unwrap()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/nowhere"),
        ];
        let url = format!("http://{}", upstream.address);
        let command = command(&url, &variables, &[], &home);
        let proxy = Self::run(&command, home).await;
        proxy.until_ready().await;
        proxy
    }

    /// Starts a proxy that takes its credentials from variables.
    pub(crate) async fn start(url: &str, variables: &[(&str, &str)], options: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let command = command(url, variables, options, &home);
        Self::run(&command, home).await
    }

    /// Starts a proxy that may have only so many files and connections open.
    pub(crate) async fn with_files(upstream: &Upstream, files: u32) -> Self {
        let url = format!("http://{}", upstream.address);
        Self::behind(&format!("ulimit -n {files}"), &url).await
    }

    /// Starts a proxy for which names are what a file says, in a namespace of its own.
    pub(crate) async fn with_hosts(url: &str, hosts: &Path) -> Self {
        let mount = format!("mount --bind '{}' /etc/hosts", hosts.display());
        Self::behind(&mount, url).await
    }

    /// Starts a proxy behind what a shell does first, in a namespace of mounts of its own.
    async fn behind(first: &str, url: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let own = command(url, &KEYS, &[], &home);
        let mut apart = Command::new("unshare");
        let script = format!("{first} && exec \"$0\" \"$@\"");
        apart.args(["--mount", "sh", "-c", &script]);
        apart.arg(own.get_program()).args(own.get_args());
        for (name, value) in own.get_envs() {
            match value {
                Some(value) => apart.env(name, value),
                None => apart.env_remove(name),
            };
        }
        let proxy = Self::run(&apart, home).await;
        proxy.until_ready().await;
        proxy
    }

    async fn run(command: &Command, home: TempDir) -> Self {
        let log = home.path().join("log");
        let process = Process::spawn("proxy", command, &log).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let (address, utility) = loop {
            let log = process.log_tail(usize::MAX);
            let address = |words: &str| {
                let line = log.lines().find(|line| line.contains(words))?;
                let (_, rest) = line.split_once("address=")?;
                rest.split_whitespace().next()?.parse::<SocketAddr>().ok()
            };
            if let (Some(address), Some(utility)) = (address("signing"), address("utility port")) {
                break (address, utility);
            }
            assert!(Instant::now() < deadline, "it does not start: {log}");
            sleep(Duration::from_millis(20)).await;
        };
        Self {
            process,
            address,
            utility,
            _home: home,
        }
    }

    pub(crate) async fn until_ready(&self) {
        let ready = async || self.utility("/ready").await.0;
        until("it is ready", async || (ready().await == 200).then_some(())).await;
    }

    /// Asks the utility port; returns the status and the body.
    pub(crate) async fn utility(&self, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        let mut client = Client::connect(self.utility).await;
        client.send(request.as_bytes()).await;
        let answer = client.answer().await.expect("an answer");
        (answer.status, answer.text())
    }

    /// Sends bytes on a connection of their own, and returns the first answer.
    pub(crate) async fn ask(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut client = Client::connect(self.address).await;
        client.send(bytes.as_ref()).await;
        client.answer().await.expect("an answer")
    }

    /// Returns the number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn log(&self) -> String {
        self.process.log_tail(usize::MAX)
    }

    pub(crate) fn signal(&mut self, signal: &str) {
        self.process.signal(signal).unwrap();
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.process.wait(PATIENCE).await.unwrap()
    }
}

/// Returns the command that starts a proxy, with nothing of the machine's own configuration.
fn command(url: &str, variables: &[(&str, &str)], options: &[&str], home: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_opensearch-access"));
    command.args(["proxy", "--forward-to", url]);
    command.args([
        "--service",
        "es",
        "--region",
        "eu-west-1",
        "--utility-port",
        "0",
    ]);
    if !options.contains(&"--listen-on") {
        command.args(["--listen-on", "0"]);
    }
    command.args(options);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("AWS_") || text.starts_with("PROXY_") || text.starts_with("LOG") {
            command.env_remove(&name);
        }
    }
    command
        .env("HOME", home.path())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("PROXY_UPSTREAM_MAY_BE_LOCAL", "true")
        .envs(variables.iter().copied());
    command
}

/// Runs a proxy that cannot start, and returns what it says.
pub(crate) fn refused(url: &str, options: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let output = command(url, &KEYS, options, &home).output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits until something is there.
pub(crate) async fn until<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A connection of a client.
pub(crate) struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

/// An answer, as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the value of a field, if it is there.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

/// Returns the value of a field of a head.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut found = fields.filter(|(it, _)| it.eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| value.trim())
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            read: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // Who is refused may be cut off while it sends.
        _ = self.stream.write_all(bytes).await;
    }

    /// Reads more; tells whether there was any.
    pub(crate) async fn more(&mut self) -> bool {
        let mut buffer = vec![0; 64 << 10];
        let read = timeout(PATIENCE, self.stream.read(&mut buffer)).await;
        let length = read.expect("something within time").unwrap_or(0);
        self.read.extend_from_slice(&buffer[..length]);
        length > 0
    }

    /// Reads the next answer to its end; none where the connection is closed before one.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        self.answer_to(false).await
    }

    /// The same, of a request that an answer without a body belongs to.
    pub(crate) async fn answer_to(&mut self, is_head: bool) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|it| it == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&self.read[..end]).into_owned();
        self.read.drain(..end);
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut body = Vec::new();
        if status == 204 || status == 304 || status < 200 || is_head {
            return Some(Answer { status, head, body });
        }
        if let Some(length) = field(&head, "content-length") {
            let length: usize = length.parse().unwrap();
            while self.read.len() < length {
                if !self.more().await {
                    return None;
                }
            }
            body.extend(self.read.drain(..length));
        } else if field(&head, "transfer-encoding").is_some() {
            loop {
                let line = self.line().await?;
                let size = usize::from_str_radix(line.trim(), 16).unwrap();
                while self.read.len() < size + 2 {
                    if !self.more().await {
                        return None;
                    }
                }
                body.extend(self.read.drain(..size));
                self.read.drain(..2);
                if size == 0 {
                    break;
                }
            }
        } else {
            while self.more().await {}
            body.append(&mut self.read);
        }
        Some(Answer { status, head, body })
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.read.windows(2).position(|it| it == b"\r\n") {
                let line: Vec<u8> = self.read.drain(..at + 2).collect();
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Tells whether the other side closes the connection, and sends nothing more.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.read.is_empty() && !self.more().await
    }
}

/// Spells a request without a body.
pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// Spells a request with a body.
pub(crate) fn post(target: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
}
