//! The port for whoever runs the operator: health, readiness and metrics.
//!
//! ```text
//! /healthz   200 while the process lives
//! /readyz    200 once its watches are complete, whether it leads or stands by; 503 before, while
//!            the API server has not renewed them for a while, and while it stops
//! /metrics   OpenMetrics text
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::link::View;
use super::metrics::Metrics;

/// Whether the process is ready for what it is for.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    ready: Arc<AtomicBool>,
    view: View,
}

impl Readiness {
    /// Makes readiness depend on how old the view of the cluster is, too.
    #[must_use]
    pub fn with(view: View) -> Self {
        Self {
            view,
            ..Self::default()
        }
    }

    /// Says whether the process is ready.
    pub fn set(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Returns whether the process is ready.
    #[must_use]
    pub fn get(&self) -> bool {
        self.ready.load(Ordering::Relaxed) && self.view.is_current()
    }
}

#[derive(Clone)]
struct Shared {
    ready: Readiness,
    metrics: Arc<Metrics>,
}

/// A port that listens already, so that a taken one is an error at the start.
#[derive(Debug)]
pub struct Admin(TcpListener);

impl Admin {
    /// Takes the port.
    ///
    /// # Errors
    ///
    /// Fails where the port is taken, or is not this process's to take.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self(TcpListener::bind(address).await?))
    }

    /// Returns where it listens.
    ///
    /// # Errors
    ///
    /// Fails where the socket is gone.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers until the process ends.
    ///
    /// # Errors
    ///
    /// Fails where the socket does.
    pub async fn serve(self, ready: Readiness, metrics: Arc<Metrics>) -> std::io::Result<()> {
        let router = Router::new()
            .route("/healthz", get(|| async { "ok" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(exposition))
            .with_state(Shared { ready, metrics });
        axum::serve(self.0, router).await
    }
}

async fn readyz(State(shared): State<Shared>) -> Response {
    if shared.ready.get() {
        "ok".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready").into_response()
    }
}

async fn exposition(State(shared): State<Shared>) -> Response {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match shared.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
