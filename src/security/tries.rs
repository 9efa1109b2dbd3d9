//! When a call is made again that came to nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::error::Error;

/// The longest that one change may take, with all its tries.
const LIMIT: Duration = Duration::from_secs(30);

/// The pauses between tries grow from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// Pauses between tries, each longer than the one before and none like another's.
pub(super) struct Tries {
    until: Instant,
    pause: Duration,
}

impl Tries {
    pub(super) fn new() -> Self {
        Self {
            until: Instant::now() + LIMIT,
            pause: FIRST_PAUSE,
        }
    }

    /// Waits before another try.
    ///
    /// # Errors
    ///
    /// Fails with the error where there is no sense, or no time left, for one.
    pub(super) async fn again(&mut self, error: Error) -> Result<(), Error> {
        if !error.passes() {
            return Err(error);
        }
        let asked = match &error {
            Error::Busy { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let pause = self.pause.mul_f64(0.5 + fastrand::f64()).max(asked);
        if Instant::now() + pause >= self.until {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        Ok(())
    }
}
