//! The canonical form of a request target.

use std::time::SystemTime;

use aws_credential_types::Credentials as SdkCredentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use jiff::Timestamp;

use crate::sigv4::{Credentials, Payload, Request, Signer, Target};

const ID: &str = "AKIDEXAMPLE";
const KEY: &str = "secret";
const HOST: &str = "search.example";

/// Checks what is made of a target.
///
/// # Panics
///
/// Panics where it would be read in another way than it is signed.
pub fn check(data: &[u8]) {
    let Ok(target) = Target::parse(data) else {
        return;
    };
    let sent = target.as_sent();
    let again = Target::parse(sent.as_bytes());
    assert!(
        again.as_ref() == Ok(&target),
        "{sent:?} is sent as {again:?}"
    );
    if sent.len() < usize::from(u16::MAX) {
        let uri: http::uri::PathAndQuery = sent.parse().expect("a target");
        assert!(
            uri.as_str() == sent && uri.path() == target.path(),
            "{sent:?} is read as {uri:?}"
        );
    }
    path(&target);
    signed(target.signed_path(), b"/");
    signed(target.signed_query(), b"&=");
    let query = sent.split_once('?').map_or("", |(_, query)| query);
    let pairs = |text: &str| text.split('&').filter(|it| !it.is_empty()).count();
    assert!(
        pairs(query) == pairs(target.signed_query()),
        "{sent:?} loses a parameter"
    );
    // The crate reads a query as UTF-8.
    let decoded: Vec<u8> = percent_encoding::percent_decode_str(query).collect();
    if std::str::from_utf8(&decoded).is_ok() && sent.len() < usize::from(u16::MAX) / 2 {
        opinion(&target);
    }
}

fn path(target: &Target) {
    let path = target.path();
    assert!(path.starts_with('/') && !path.contains("//"), "{path:?}");
    for segment in path.split('/') {
        let decoded: Vec<u8> = percent_encoding::percent_decode_str(segment).collect();
        assert!(
            ![&b"."[..], b".."].contains(&decoded.as_slice()),
            "{path:?}"
        );
    }
}

/// Only unreserved characters, these, and what is encoded with digits in upper case.
fn signed(text: &str, others: &[u8]) {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let is_plain =
            byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || others.contains(&byte);
        let mut is_digit = || {
            bytes
                .next()
                .is_some_and(|it| b"0123456789ABCDEF".contains(&it))
        };
        assert!(
            is_plain || byte == b'%' && is_digit() && is_digit(),
            "{text:?}"
        );
    }
}

/// Has the SDK's crate sign what is sent.
fn opinion(target: &Target) {
    let now = Timestamp::from_second(1_800_000_000).expect("a time");
    let credentials = Credentials::new(ID.to_owned(), KEY.to_owned(), None).expect("credentials");
    let request = Request {
        method: "GET",
        host: HOST,
        target,
        payload: Payload::of(b""),
    };
    let ours = Signer::new(credentials, "eu-west-1", "es").sign(&request, now);
    let identity = SdkCredentials::new(ID, KEY, None, None, "fuzz").into();
    let mut settings = SigningSettings::default();
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region("eu-west-1")
        .name("es")
        .time(SystemTime::from(now))
        .settings(settings)
        .build()
        .expect("parameters")
        .into();
    let url = format!("https://{HOST}{}", target.as_sent());
    let headers = [("host", HOST)];
    let request = SignableRequest::new("GET", url, headers.into_iter(), SignableBody::Bytes(b""));
    let signed = sign(request.expect("a request"), &parameters).expect("a signature");
    let (instructions, _) = signed.into_parts();
    let mut headers = instructions.headers();
    let theirs = headers.find(|(name, _)| *name == "authorization");
    let theirs = theirs.map(|(_, value)| value);
    assert!(
        theirs == Some(ours.authorization.as_str()),
        "{:?}: path {:?}, query {:?}",
        target.as_sent(),
        target.signed_path(),
        target.signed_query()
    );
}
