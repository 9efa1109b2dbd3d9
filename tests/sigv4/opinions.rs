//! The signature of 100,000 random requests, as two others make it: the `aws-sigv4` crate of the SDK
//! and botocore.
//!
//! Each has a way of its own of not being asked: the crate reads a query as UTF-8, and botocore
//! signs a query as it stands. What neither is asked about is in the table of cases.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use aws_credential_types::Credentials as SdkCredentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use jiff::Timestamp;
use opensearch_access::sigv4::{Credentials, Payload, Request, Signer, Target};
use serde_json::json;

use crate::common::parts::part;

const COUNT: usize = 100_000;

/// What paths are put together from.
const PATH: &[&str] = &[
    "a",
    "B",
    "7",
    "/",
    "//",
    "/./",
    "/../",
    "/_search",
    "/_doc/",
    "logs-*",
    ",",
    ":",
    "=",
    "@",
    "+",
    "!",
    "$",
    "&",
    "'",
    "(",
    ")",
    ";",
    "*",
    " ",
    "%2F",
    "%2f",
    "%25",
    "%20",
    "%E6%97%A5",
    "日",
    "é",
    "<",
    ">",
    "{",
    "}",
    "|",
    "\"",
    "\\",
    "^",
    "`",
    "[",
    "]",
    "%",
    "%z",
    "~",
    "-",
    ".",
    "_",
];

/// What queries are put together from.
const QUERY: &[&str] = &[
    "a",
    "A",
    "b",
    "=",
    "&",
    "&&",
    "q=",
    "x=1",
    "pretty",
    "+",
    "%2B",
    "%2f",
    "*",
    ",",
    "-",
    ".",
    ":",
    ";",
    "/",
    "?",
    "%",
    "%zz",
    "%C3%A9",
    "é",
    " ",
    "~",
    "%7E",
    "scroll_id=",
    "==",
    "%00",
];

/// Where random requests come from; the same seed gives the same requests.
struct Random(fastrand::Rng);

/// One request, with who signs it and when.
#[derive(Debug)]
struct Case {
    method: &'static str,
    host: String,
    target: Target,
    payload: Option<Vec<u8>>,
    id: String,
    secret: String,
    token: Option<String>,
    region: &'static str,
    service: &'static str,
    now: Timestamp,
}

impl Random {
    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.0.usize(..from.len())]
    }

    fn text(&mut self, most: usize, pieces: &[&str]) -> String {
        let length = self.0.usize(..=most);
        (0..length).map(|_| self.pick(pieces)).collect()
    }

    fn word(&mut self, length: usize) -> String {
        (0..length).map(|_| self.0.alphanumeric()).collect()
    }

    /// Draws requests until one can be sent; what is refused has its own tests.
    fn case(&mut self) -> Case {
        let target = loop {
            let path = format!("/{}", self.text(8, PATH));
            let query = match self.0.u8(..4) {
                0 => String::new(),
                _ => format!("?{}", self.text(10, QUERY)),
            };
            if let Ok(target) = Target::parse(format!("{path}{query}").as_bytes()) {
                break target;
            }
        };
        let length = self.0.usize(..200);
        let body = (0..length).map(|_| self.0.u8(..)).collect();
        let seconds = self.0.i64(946_684_800..4_102_444_800);
        let token = self.0.bool().then(|| self.word(300));
        let port = self.pick(&["", ":8443"]);
        Case {
            method: self.pick(&["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"]),
            host: format!("search-{}.example{port}", self.word(8).to_lowercase()),
            target,
            payload: (self.0.u8(..10) > 0).then_some(body),
            id: format!("AKIA{}", self.word(16)),
            secret: self.text(40, &["a", "Z", "/", "+", "="]) + "x",
            token,
            region: self.pick(&["eu-west-1", "cn-north-1", "us-gov-west-1"]),
            service: self.pick(&["es", "aoss"]),
            now: Timestamp::from_second(seconds).unwrap(),
        }
    }
}

impl Case {
    fn ours(&self) -> String {
        let (id, secret) = (self.id.clone(), self.secret.clone());
        let credentials = Credentials::new(id, secret, self.token.clone());
        let signer = Signer::new(credentials.unwrap(), self.region, self.service);
        let request = Request {
            method: self.method,
            host: &self.host,
            target: &self.target,
            payload: self.payload(),
        };
        signer.sign(&request, self.now).authorization
    }

    fn payload(&self) -> Payload {
        let body = self.payload.as_deref();
        body.map_or(Payload::Unsigned, Payload::of)
    }

    fn hash(&self) -> String {
        let Payload::Hash(hash) = self.payload() else {
            return "UNSIGNED-PAYLOAD".to_owned();
        };
        hash.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    fn url(&self) -> String {
        format!("https://{}{}", self.host, self.target.as_sent())
    }

    fn query(&self) -> &str {
        let sent = self.target.as_sent();
        sent.split_once('?').map_or("", |(_, query)| query)
    }

    /// Signs with the SDK's crate; `None` where it would read the query as something else.
    fn of_the_sdk(&self) -> Option<String> {
        let mut decoded = percent_encoding::percent_decode_str(self.query());
        let is_text = String::from_utf8(decoded.by_ref().collect()).is_ok();
        is_text.then(|| {
            let (id, secret) = (&self.id, &self.secret);
            let identity =
                SdkCredentials::new(id, secret, self.token.clone(), None, "random").into();
            let mut settings = SigningSettings::default();
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
            let parameters = v4::SigningParams::builder()
                .identity(&identity)
                .region(self.region)
                .name(self.service)
                .time(SystemTime::from(self.now))
                .settings(settings)
                .build()
                .unwrap()
                .into();
            let body = match &self.payload {
                Some(body) => SignableBody::Bytes(body),
                None => SignableBody::UnsignedPayload,
            };
            let headers = [("host", self.host.as_str())];
            let request = SignableRequest::new(self.method, self.url(), headers.into_iter(), body);
            let signed = sign(request.unwrap(), &parameters).unwrap();
            let (instructions, _) = signed.into_parts();
            let mut headers = instructions.headers();
            let (_, authorization) = headers.find(|(name, _)| *name == "authorization").unwrap();
            authorization.to_owned()
        })
    }

    /// Tells whether the query stands as it is to be signed, but for its order: botocore takes it so.
    fn is_strict(&self) -> bool {
        let mut pairs: Vec<_> = self.query().split('&').collect();
        let mut signed: Vec<_> = self.target.signed_query().split('&').collect();
        pairs.sort_unstable();
        signed.sort_unstable();
        pairs == signed
    }

    fn for_botocore(&self) -> String {
        json!({"method": self.method, "url": self.url(), "hash": self.hash(), "id": self.id,
            "secret": self.secret, "token": self.token, "region": self.region,
            "service": self.service, "date": self.now.strftime("%Y%m%dT%H%M%SZ").to_string()})
        .to_string()
    }
}

#[test]
fn a_hundred_thousand_requests_are_signed_as_by_the_sdk() {
    let (mut random, mut asked) = (Random(fastrand::Rng::with_seed(1)), 0);
    while asked < COUNT {
        let case = random.case();
        if let Some(theirs) = case.of_the_sdk() {
            assert_eq!(case.ours(), theirs, "after {asked} others: {case:?}");
            asked += 1;
        }
    }
}

#[test]
fn a_hundred_thousand_requests_are_signed_as_by_botocore() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/world/botocore/sign.py");
    let mut botocore = Command::new(part("botocore"))
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let mut input = botocore.stdin.take().unwrap();
    let cases = || {
        let mut random = Random(fastrand::Rng::with_seed(2));
        let strict = std::iter::from_fn(move || Some(random.case())).filter(Case::is_strict);
        strict.take(COUNT)
    };
    // Told from a thread of its own: neither side waits for the other's pipe.
    let asking = std::thread::spawn(move || {
        cases().try_for_each(|case| writeln!(input, "{}", case.for_botocore()))
    });
    let output = botocore.stdout.take().unwrap();
    let mut answers = BufReader::new(output).lines();
    for (at, case) in cases().enumerate() {
        let theirs = answers.next().expect("botocore answers each").unwrap();
        assert_eq!(case.ours(), theirs, "after {at} others: {case:?}");
    }
    asking.join().unwrap().unwrap();
    assert!(botocore.wait().unwrap().success());
}
