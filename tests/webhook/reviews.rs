//! What is no review, on raw connections.

#![allow(
    clippy::unwrap_used,
    reason = "an expectation that fails here is a failed test"
)]

use std::sync::Arc;

use http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::hook::{Hook, asking};

type Shown = Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>;

/// Posts a body as the API server would, and returns what was answered; an error where no answer came
/// about.
async fn post(
    hook: &Hook,
    port: u16,
    path: &str,
    body: Vec<u8>,
    shown: Shown,
) -> Result<(StatusCode, String), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(hook.authority().await.as_bytes()) {
        roots.add(authority.unwrap()).unwrap();
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    let config = match shown {
        Some((certificate, key)) => config
            .with_client_auth_cert(vec![certificate], key)
            .unwrap(),
        None => config.with_no_client_auth(),
    };
    let stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .map_err(|it| text(&it))?;
    let name = ServerName::try_from("opensearch-access-webhook.opensearch-access.svc").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(|it| text(&it))?;
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|it| text(&it))?;
    let driving = tokio::spawn(connection);
    let request = http::Request::post(path)
        .header("host", "webhook")
        .header("content-type", "application/json")
        .body(Full::new(bytes::Bytes::from(body)))
        .unwrap();
    let answered = sender.send_request(request).await.map_err(|it| text(&it))?;
    let status = answered.status();
    let body = answered
        .into_body()
        .collect()
        .await
        .map_err(|it| text(&it))?;
    driving.abort();
    Ok((status, String::from_utf8(body.to_bytes().to_vec()).unwrap()))
}

fn review(version: &str, uid: &str) -> Value {
    json!({"apiVersion": version, "kind": "AdmissionReview", "request": {
        "uid": uid, "operation": "CREATE", "namespace": "x", "name": "p",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "userInfo": {"username": "u"}, "dryRun": true, "object": asking("p", "logs")}})
}

#[tokio::test]
async fn what_is_no_review_is_refused_in_words_and_harms_nobody() {
    let hook = Hook::shared().await;
    let port = hook.port_of("webhook", "the webhook's port is open").await;
    let text = |value: &Value| value.to_string().into_bytes();
    let good = review("admission.k8s.io/v1", "u-1");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    // Not even where nobody would look.
    let deeper = text(&good);
    let deeper = String::from_utf8(deeper).unwrap();
    let deeper = deeper.replacen("\"spec\":{", &format!("\"spec\":{{\"deep\":{deep},"), 1);
    assert!(deeper.len() > deep.len());
    let mut other = good.clone();
    other["request"]["object"] = json!({"spec": {"containers": "none"}});
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("/mutate-pods", Vec::new(), 400, "no AdmissionReview"),
        ("/mutate-pods", b"{}".to_vec(), 400, "no AdmissionReview"),
        (
            "/mutate-pods",
            b"\xff\xfe".to_vec(),
            400,
            "no AdmissionReview",
        ),
        ("/mutate-pods", deep.into_bytes(), 400, "no AdmissionReview"),
        ("/mutate-pods", deeper.into_bytes(), 200, "u-1"),
        ("/mutate-pods", text(&other), 400, "no AdmissionReview"),
        (
            "/mutate-pods",
            text(&review("admission.k8s.io/v1beta1", "u")),
            400,
            "is not spoken",
        ),
        (
            "/mutate-pods",
            text(&review("admission.k8s.io/v1", "")),
            400,
            "no uid",
        ),
        (
            "/validate",
            text(&review("admission.k8s.io/v1beta1", "u")),
            400,
            "is not spoken",
        ),
        (
            "/mutate-pods",
            vec![b' '; (8 << 20) + 1],
            413,
            "bytes at most",
        ),
        ("/", text(&good), 404, "/mutate-pods"),
    ];
    for (path, body, status, words) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let answered = post(hook, port, path, body, None).await;
        if status == 413 && answered.is_err() {
            // It is not read to its end: who still sends may not get to read why.
            continue;
        }
        let (found, said) = answered.unwrap();
        assert_eq!(found, status, "{shown}: {said}");
        assert!(said.contains(words), "{shown}: {said}");
    }
    // The one after it is answered, by the uid that was asked.
    let (status, said) = post(hook, port, "/mutate-pods", text(&good), None)
        .await
        .unwrap();
    assert_eq!(status, 200, "{said}");
    let answer: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["response"]["uid"], "u-1");
    assert_eq!(answer["response"]["allowed"], true);
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    let log = hook.log("webhook");
    assert!(!log.contains("panicked"), "{log}");
}

/// Whoever shows no certificate of the API server's authority is not spoken to.
#[tokio::test]
async fn nobody_but_the_api_server_calls_where_the_admin_says_so() {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let certified = |by: Option<&CertifiedIssuer<'static, KeyPair>>| {
        let params = CertificateParams::new(vec!["api-server".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let made = match by {
            Some(issuer) => params.signed_by(&key, issuer),
            None => params.self_signed(&key),
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Some((made.unwrap().der().clone(), key))
    };
    let hook = Hook::without_webhook().await;
    let options = ["--webhook-client-ca", file.to_str().unwrap()].map(str::to_owned);
    let port = hook.start_webhook("guarded", &options).await;
    let body = || review("admission.k8s.io/v1", "u").to_string().into_bytes();
    hook.until("it is served", async || {
        match post(
            &hook,
            port,
            "/mutate-pods",
            body(),
            certified(Some(&authority)),
        )
        .await
        {
            Ok((status, _)) if status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    for shown in [None, certified(None)] {
        let answered = post(&hook, port, "/mutate-pods", body(), shown).await;
        assert!(answered.is_err(), "{answered:?}");
    }
}
