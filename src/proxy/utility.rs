//! The port for whoever runs a proxy.
//!
//! ```text
//! /health    200 while the process lives
//! /started   200 once credentials were asked for, whatever the answer: then whoever waits for a
//!            proxy may go on, and is told by it what is missing
//! /ready     200 while it has valid credentials and is not about to stop; 503 otherwise
//! /metrics   OpenMetrics text
//! ```
//!
//! Nothing is signed here, and nothing can be changed; it may be reached by others.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::Phase;
use super::forward::Shared;

#[derive(Clone)]
struct Seen {
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
}

/// Serves the port for as long as the process lives.
///
/// # Errors
///
/// Fails where the socket does.
pub(super) async fn serve(
    socket: TcpListener,
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/started", get(started))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Seen { shared, phase });
    axum::serve(socket, router).await
}

async fn started(State(seen): State<Seen>) -> (StatusCode, &'static str) {
    if seen.shared.identity.has_asked() {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "credentials are asked for\n",
        )
    }
}

async fn ready(State(seen): State<Seen>) -> (StatusCode, String) {
    let told = |why: String| (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"));
    if *seen.phase.borrow() != Phase::Serving {
        return told("stopping".to_owned());
    }
    match seen.shared.credentials(Timestamp::now()) {
        Ok(_) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => told(format!("no credentials: {why}")),
    }
}

async fn metrics(State(seen): State<Seen>) -> Response {
    let shared = &seen.shared;
    let expiry = match shared.credentials(Timestamp::now()) {
        Ok(held) => held
            .expires
            .map_or(9e9, |it| it.as_duration().as_secs_f64()),
        Err(_) => 0.0,
    };
    let (held, ahead) = (shared.budget.taken(), shared.clock.ahead());
    let text = shared.metrics.render(held, expiry, ahead);
    let type_ = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, type_)], text).into_response()
}
