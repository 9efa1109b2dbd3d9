//! When to stop.

use tokio::signal::unix::{SignalKind, signal};

/// Resolves when the process is asked to stop, by `SIGTERM` or `SIGINT`.
///
/// # Errors
///
/// Fails where the signals cannot be listened for.
pub async fn requested() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
