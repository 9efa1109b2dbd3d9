//! The port for whoever runs the operator: health, readiness and metrics.
//!
//! ```text
//! /healthz   200 while the process lives
//! /readyz    200 once its watches are complete, whether it leads or stands by; 503 before, while
//!            the API server has not renewed them for a while, and while it stops
//! /metrics   OpenMetrics text
//! ```

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode_eof;
use tokio::net::TcpListener;
use tracing::info;

use super::link::View;

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

/// What a part of the process counts.
pub trait Exposition: Send + Sync {
    /// Writes it in the `OpenMetrics` text format, without the end mark.
    ///
    /// # Errors
    ///
    /// Fails where a metric cannot be written as text.
    fn write(&self, text: &mut String) -> std::fmt::Result;
}

/// A part of the process: ready when all of these are.
type Part = (Vec<Readiness>, Arc<dyn Exposition>);

/// The parts of the process that the port speaks for; every copy is the same board.
#[derive(Clone)]
pub struct Board(Arc<Parts>);

struct Parts {
    expected: usize,
    known: Mutex<Vec<Part>>,
}

impl Board {
    /// A board for so many parts: before each has come, the process is not ready.
    #[must_use]
    pub fn of(expected: usize) -> Self {
        let known = Mutex::default();
        Self(Arc::new(Parts { expected, known }))
    }

    /// Puts a part on the board, which is ready when all of these are.
    pub fn add(&self, ready: &[&Readiness], metrics: Arc<dyn Exposition>) {
        let ready = ready.iter().copied().cloned().collect();
        self.known().push((ready, metrics));
    }

    fn known(&self) -> MutexGuard<'_, Vec<Part>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_ready(&self) -> bool {
        let known = self.known();
        known.len() >= self.0.expected && known.iter().flat_map(|it| &it.0).all(Readiness::get)
    }

    fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        for (_, metrics) in self.known().iter() {
            metrics.write(&mut text)?;
        }
        encode_eof(&mut text)?;
        Ok(text)
    }
}

/// Why the port is not served any more, or never was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is taken, or not this process's to take.
    #[error("failed to listen on {0}")]
    Bind(SocketAddr, #[source] std::io::Error),
    /// The socket is gone.
    #[error("the admin port failed")]
    Serve(#[source] std::io::Error),
}

/// Works with the port open beside, which ends with the work.
///
/// # Errors
///
/// Fails where the port does, and as the work does.
pub async fn beside<T, E: From<Error>>(
    address: SocketAddr,
    board: Board,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let bind = |error| Error::Bind(address, error);
    let listener = TcpListener::bind(address).await.map_err(bind)?;
    let address = listener.local_addr().map_err(bind)?;
    info!(%address, "the admin port is open");
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(exposition))
        .with_state(board);
    tokio::select! {
        done = work => done,
        served = axum::serve(listener, router) => {
            let gone = || std::io::Error::other("it was closed");
            Err(Error::Serve(served.err().unwrap_or_else(gone)).into())
        }
    }
}

async fn readyz(State(board): State<Board>) -> Response {
    if board.is_ready() {
        "ok".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready").into_response()
    }
}

async fn exposition(State(board): State<Board>) -> Response {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match board.text() {
        Ok(text) => ([(header::CONTENT_TYPE, TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
