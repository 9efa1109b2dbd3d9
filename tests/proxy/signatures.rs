//! A second opinion on every signature: botocore's, of the bytes that arrived.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use super::program::{KEY_ID, SECRET};
use super::upstream::{Seen, Upstream};
use crate::common::parts::part;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/world/botocore/sign.py");

impl Upstream {
    /// Has botocore sign every request that arrived, with what the tests' proxies sign by.
    ///
    /// # Panics
    ///
    /// Where one arrived with another signature, or none arrived.
    pub(crate) async fn verify_signatures(&self) {
        let seen = self.seen();
        assert!(!seen.is_empty(), "nothing arrived");
        let wrong = disputed(seen, SECRET).await;
        assert!(wrong.is_empty(), "{} differ: {wrong:#?}", wrong.len());
    }
}

/// Returns the requests whose signature botocore disputes, with what it says.
pub(crate) async fn disputed(seen: Vec<Seen>, secret: &'static str) -> Vec<String> {
    spawn_blocking(move || dispute(&seen, secret))
        .await
        .unwrap()
}

fn dispute(seen: &[Seen], secret: &str) -> Vec<String> {
    let mut botocore = Command::new(part("botocore"))
        .arg(SCRIPT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let mut input = botocore.stdin.take().unwrap();
    let questions: Vec<String> = seen.iter().map(|it| question(it, secret)).collect();
    // Told from a thread of its own: neither side waits for the other's pipe.
    let asking = std::thread::spawn(move || {
        let mut questions = questions.iter();
        questions.try_for_each(|it| writeln!(input, "{it}"))
    });
    let output = botocore.wait_with_output().unwrap();
    asking.join().unwrap().expect("botocore reads all");
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<&str> = said.lines().collect();
    assert_eq!(answers.len(), seen.len(), "botocore answers each");
    let differs = |(seen, theirs): (&Seen, &str)| {
        let ours = seen.field("authorization").unwrap_or_default();
        let line = seen.line();
        (ours != theirs).then(|| format!("{line}: {ours} is {theirs} for botocore"))
    };
    seen.iter().zip(answers).filter_map(differs).collect()
}

/// Spells a request for botocore, from nothing but what arrived.
fn question(seen: &Seen, secret: &str) -> String {
    let mut line = seen.line().split(' ');
    let (method, target) = (line.next().unwrap(), line.next().unwrap());
    assert_eq!((line.next(), line.next()), (Some("HTTP/1.1"), None));
    let field = |name: &str| seen.field(name).unwrap_or_default();
    let claimed = field("x-amz-content-sha256");
    let hash = match claimed {
        "UNSIGNED-PAYLOAD" => claimed.to_owned(),
        _ => hex(&Sha256::digest(&seen.body)),
    };
    assert_eq!(claimed, hash, "{}", seen.line());
    let url = format!("http://{}{target}", field("host"));
    json!({"method": method, "url": url, "arrived": true, "hash": hash, "id": KEY_ID,
        "secret": secret, "token": seen.field("x-amz-security-token"),
        "region": "eu-west-1", "service": "es", "date": field("x-amz-date")})
    .to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
