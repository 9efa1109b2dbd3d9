//! When to stop.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

/// Begins to listen, and gives what resolves when the process is asked to stop, by `SIGTERM` or
/// `SIGINT`; a signal that comes between the two is not lost.
///
/// # Errors
///
/// Fails where the signals cannot be listened for.
pub fn requested() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
