//! One OpenSearch node with its security plugin, as `tests/world/prepare` puts it together.
//!
//! Nobody speaks to it but the [`gateway`](super::gateway), which tells it by two headers who calls:
//! that is how it learns of IAM users and roles here, as the managed service tells it there.

#![allow(dead_code, reason = "every test binary uses another part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "an expectation that fails here is a failed test"
)]

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;

use super::parts::part;
use super::process::Process;

/// By these the gateway says who calls.
pub(crate) const USER: &str = "x-proxy-user";
pub(crate) const ROLES: &str = "x-proxy-roles";

/// A user of every domain's own, whom the node lets do everything.
pub(crate) const MASTER: &str = "master";

/// How long a start may take; it takes about six seconds on an idle machine.
const PATIENCE: Duration = Duration::from_mins(3);
const POLL: Duration = Duration::from_millis(100);

/// Returns one node for all who ask while anybody has it: each keeps to names of its own.
pub(crate) async fn shared_node() -> Arc<Node> {
    static SHARED: tokio::sync::Mutex<Weak<Node>> = tokio::sync::Mutex::const_new(Weak::new());
    let mut shared = SHARED.lock().await;
    if let Some(node) = shared.upgrade() {
        return node;
    }
    let node = Arc::new(Node::start().await);
    *shared = Arc::downgrade(&node);
    node
}

/// How much a node is made for.
struct Size {
    heap: &'static str,
    settings: &'static str,
}

const SMALL: Size = Size {
    heap: "-Xmx384m",
    settings: "",
};

/// By default the bodies of writes may take a tenth of the heap, and all together what garbage
/// leaves of it.
const LARGE: Size = Size {
    heap: "-Xmx1g",
    settings: "indexing_pressure.memory.limit: 50%\nindices.breaker.total.use_real_memory: false\n",
};

/// A node, gone when it is dropped.
pub(crate) struct Node {
    size: &'static Size,
    port: u16,
    folder: TempDir,
    process: Mutex<Option<Process>>,
}

impl Node {
    /// Starts a node, and waits until its security API answers.
    pub(crate) async fn start() -> Self {
        Self::start_of(&SMALL).await
    }

    /// The same, of one that takes the largest bodies that a domain takes.
    pub(crate) async fn start_large() -> Self {
        Self::start_of(&LARGE).await
    }

    async fn start_of(size: &'static Size) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        configure(&folder.path().join("config"), port, size.settings);
        let node = Self {
            size,
            port,
            folder,
            process: Mutex::default(),
        };
        node.run();
        node.until_ready().await;
        node
    }

    /// Returns where it listens, without encryption.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it at once, whatever it is doing.
    pub(crate) fn kill(&self) {
        let process = self.process().take();
        process.expect("it runs").kill().unwrap();
    }

    /// Starts it again, with what it had stored.
    pub(crate) async fn start_again(&self) {
        self.run();
        self.until_ready().await;
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let parts = part("opensearch");
        let parts = parts.display();
        let mut command = Command::new("/usr/bin/env");
        command
            .args(["java", "-Xms384m", self.size.heap, "-XX:+UseSerialGC"])
            .args(["-XX:TieredStopAtLevel=1", "-Dlog4j2.disable.jmx=true"])
            .arg("--add-opens=java.base/java.nio=ALL-UNNAMED")
            .arg("-cp")
            .arg(format!("{parts}/launcher:{parts}/lib/*:{parts}/security/*"))
            .arg("Launcher")
            .arg(self.folder.path().join("config"));
        let log = self.folder.path().join("log");
        let process = Process::spawn("OpenSearch", &command, &log).unwrap();
        *self.process() = Some(process);
    }

    async fn until_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        let url = format!("{}/_plugins/_security/api/rolesmapping", self.url());
        while !answers(&url).await {
            let tail = {
                let mut process = self.process();
                let process = process.as_mut().expect("it runs");
                let ended = process.try_wait().unwrap().is_some();
                (ended || Instant::now() > deadline).then(|| process.log_tail(30))
            };
            if let Some(tail) = tail {
                panic!("OpenSearch is not there:\n{tail}");
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Tells whether the security API answers the master user.
async fn answers(url: &str) -> bool {
    let request = axum::http::Request::get(url)
        .header("x-forwarded-for", "127.0.0.1")
        .header(USER, MASTER)
        .body(axum::body::Body::empty())
        .unwrap();
    let client = super::gateway::plain_client();
    let answer = tokio::time::timeout(Duration::from_secs(10), client.request(request)).await;
    answer.is_ok_and(|it| it.is_ok_and(|it| it.status() == 200))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn configure(folder: &Path, port: u16, more: &str) {
    let security = folder.join("opensearch-security");
    fs::create_dir_all(&security).unwrap();
    let stock = part("opensearch").join("security/config");
    for name in ["action_groups", "allowlist", "audit", "nodes_dn", "tenants"] {
        let file = format!("{name}.yml");
        fs::copy(stock.join(&file), security.join(&file)).unwrap();
    }
    let roles = fs::read_to_string(stock.join("roles.yml")).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    write("opensearch-security/roles.yml", &(roles + MANAGER));
    write("opensearch-security/roles_mapping.yml", MAPPINGS);
    write("opensearch-security/internal_users.yml", NO_USERS);
    write("opensearch-security/config.yml", IDENTITY);
    let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let CertifiedKey { cert, signing_key } = made;
    write("node.pem", &cert.pem());
    write("node.key", &signing_key.serialize_pem());
    let settings = format!(
        "http.port: {port}\ntransport.port: {}\n{SETTINGS}{more}",
        free_port()
    );
    write("opensearch.yml", &settings);
}

/// The transport layer insists on certificates; towards the gateway there are none.
const SETTINGS: &str = r#"
cluster.name: world
node.name: node
network.host: 127.0.0.1
discovery.type: single-node
cluster.routing.allocation.disk.threshold_enabled: false
plugins.security.ssl.transport.pemcert_filepath: node.pem
plugins.security.ssl.transport.pemkey_filepath: node.key
plugins.security.ssl.transport.pemtrustedcas_filepath: node.pem
plugins.security.ssl.transport.enforce_hostname_verification: false
plugins.security.ssl.http.enabled: false
plugins.security.allow_default_init_securityindex: true
plugins.security.restapi.roles_enabled: ["all_access", "security_manager"]
"#;

/// Who calls is what the gateway says.
const IDENTITY: &str = r"
_meta: {type: config, config_version: 2}
config:
  dynamic:
    http:
      anonymous_auth_enabled: false
      xff: {enabled: true, internalProxies: '127\.0\.0\.1'}
    authc:
      gateway:
        http_enabled: true
        transport_enabled: false
        order: 0
        http_authenticator:
          type: proxy
          challenge: false
          config: {user_header: x-proxy-user, roles_header: x-proxy-roles}
        authentication_backend: {type: noop}
";

const NO_USERS: &str = "_meta: {type: internalusers, config_version: 2}\n";

/// The managed service has this role; whoever has it may use the security API.
const MANAGER: &str = "\nsecurity_manager: {reserved: true, cluster_permissions: ['*']}\n";

/// The operator's own identities: its users, and its role in other accounts.
const MAPPINGS: &str = r#"
_meta: {type: rolesmapping, config_version: 2}
all_access: {users: [master, "arn:aws:iam::*:user/admin"]}
security_manager:
  users: ["arn:aws:iam::*:user/admin", "arn:aws:iam::*:user/operator-*"]
  backend_roles: ["arn:aws:iam::*:role/operator"]
"#;
