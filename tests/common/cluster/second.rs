//! What tests of outages do to a cluster beyond starting it: a second API server on the same etcd,
//! other ways to the first, and etcd's own door.

#![allow(dead_code, reason = "every test binary uses another part of it")]
#![allow(
    clippy::unwrap_used,
    reason = "an expectation that fails here is a failed test"
)]

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::time::Instant;

use axum::http::Request;
use kube::Client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::link::Target;
use super::{Cluster, POLL, START_PATIENCE, setup};
use crate::common::process::Process;

/// An API server beside the cluster's own, or in its place; to be dropped before the cluster.
pub(crate) struct Second {
    process: Process,
    port: u16,
    client: Client,
}

impl Second {
    /// Returns its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the administrator's client of this very server.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }
}

impl Cluster {
    /// Returns the API server's port.
    pub(crate) fn port(&self) -> u16 {
        self.config("admin").cluster_url.port_u16().unwrap()
    }

    /// Returns where etcd listens.
    pub(crate) fn etcd(&self) -> Target {
        Target::Socket(self.path().join("etcd.sock"))
    }

    /// Starts another API server on the cluster's etcd, which it reaches by a port or, without one,
    /// as the first does; on a port of its own, or on the one of the first, which has been killed.
    pub(crate) async fn start_second(&self, etcd: Option<u16>, port: Option<u16>) -> Second {
        let deadline = Instant::now() + START_PATIENCE;
        // A process that was killed keeps its port until the last of its threads has ended.
        let taken = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_err();
        while port.as_ref().is_some_and(taken) && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
        let port = port.unwrap_or_else(|| setup::free_port().unwrap());
        let etcd = etcd.map_or(setup::ETCD_CLIENTS.to_owned(), |port| {
            format!("http://127.0.0.1:{port}")
        });
        let command = setup::kube_apiserver(self.programs(), self.path(), port, &etcd);
        let log = self.path().join("kube-apiserver-2.log");
        let process = Process::spawn("kube-apiserver", &command, &log).unwrap();
        let mut config = self.config("admin").clone();
        config.cluster_url = format!("https://127.0.0.1:{port}").parse().unwrap();
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        loop {
            let readyz = Request::get("/readyz").body(Vec::new()).unwrap();
            match client.request_text(readyz).await {
                Ok(answer) if answer == "ok" => break,
                other => assert!(
                    Instant::now() < deadline,
                    "{other:?}\n{}",
                    process.log_tail(20)
                ),
            }
            tokio::time::sleep(POLL).await;
        }
        Second {
            process,
            port,
            client,
        }
    }

    /// Writes a kubeconfig by which a user reaches the API server through another port.
    pub(crate) fn kubeconfig_through(&self, user: &str, port: u16) -> PathBuf {
        let file = self.path().join(format!("{user}-{port}.kubeconfig"));
        let token = self.token(user);
        setup::write_kubeconfig(&file, &self.authority(), port, user, token).unwrap();
        file
    }

    /// Removes objects from etcd behind the API server's back, as a restored backup would lack them:
    /// no finalizer is asked. Returns how many there were.
    pub(crate) async fn remove_raw(&self, key: &str) -> u64 {
        let body = format!(r#"{{"key": "{}"}}"#, base64(key.as_bytes()));
        let request = format!(
            "POST /v3/kv/deleterange HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut etcd = UnixStream::connect(self.path().join("etcd.sock"))
            .await
            .unwrap();
        etcd.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        etcd.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let after = answer.split_once(r#""deleted":""#).map(|(_, after)| after);
        let number = after.and_then(|after| after.split('"').next());
        number.map_or(0, |number| number.parse().unwrap())
    }
}

/// Encodes bytes as etcd's JSON wants them (RFC 4648, with padding).
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let letter = usize::try_from(group >> (18 - 6 * at) & 63).unwrap();
            let padding = at > chunk.len();
            text.push(if padding { '=' } else { LETTERS[letter].into() });
        }
    }
    text
}

#[test]
fn base64_is_as_the_standard_has_it() {
    for (plain, encoded) in [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foobar", "Zm9vYmFy"),
    ] {
        assert_eq!(base64(plain.as_bytes()), encoded);
    }
}
