//! A client of a gateway, such as an application would be.

use axum::body::Body;
use axum::http::{Method, Request};
use http_body_util::BodyExt;
use opensearch_access::sigv4::{self, Credentials as Keys, Payload, Signer, Target};
use serde_json::Value;

use super::super::fake_aws::Credentials;
use super::Gateway;
use super::listener::{TlsClient, tls_client};

/// Sends a request, signed if there are keys, and returns its status and what it says.
pub(crate) async fn ask(
    gateway: &Gateway,
    keys: Option<&Credentials>,
    region: &str,
    method: Method,
    path: &str,
    body: &Value,
) -> (u16, Value) {
    let (client, host) = (tls_client(), gateway.endpoint());
    ask_at(&client, host, keys, region, method, path, body).await
}

/// The same, of a gateway that may be another process's.
pub(crate) async fn ask_at(
    client: &TlsClient,
    host: &str,
    keys: Option<&Credentials>,
    region: &str,
    method: Method,
    path: &str,
    body: &Value,
) -> (u16, Value) {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let target = Target::parse(path.as_bytes()).unwrap();
    let mut request = Request::builder()
        .method(method.clone())
        .uri(format!("https://{host}{}", target.as_sent()))
        .header("content-type", "application/json");
    if let Some(keys) = keys {
        let token = keys.session_token.clone();
        let made = Keys::new(&keys.access_key_id, &keys.secret_access_key, token);
        let signer = Signer::new(made.unwrap(), region, "es");
        let made = signer.sign(
            &sigv4::Request {
                method: method.as_str(),
                host,
                target: &target,
                payload: Payload::of(body.as_bytes()),
            },
            jiff::Timestamp::now(),
        );
        for (name, value) in made.headers() {
            request = request.header(name, value);
        }
    }
    let request = request.body(Body::from(body)).unwrap();
    let answer = client.request(request).await.unwrap();
    let status = answer.status().as_u16();
    let said = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&said).unwrap_or_default())
}
