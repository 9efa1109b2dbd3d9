//! What goes on for long is said now and then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long nothing more is said.
const PAUSE: Duration = Duration::from_secs(10);

/// Keeps a log from growing by as much as fails.
#[derive(Debug, Default)]
pub struct Rarely(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    last: Option<Instant>,
    unsaid: u64,
}

impl Rarely {
    /// Tells whether to say that something happened; if so, how often it did without a word since the
    /// last time.
    pub fn is_due(&self, now: Instant) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = said.last.map(|last| now.saturating_duration_since(last));
        if since.is_some_and(|since| since < PAUSE) {
            said.unsaid += 1;
            return None;
        }
        said.last = Some(now);
        Some(std::mem::take(&mut said.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_much_it_left_out() {
        let (rarely, first) = (Rarely::default(), Instant::now());
        assert_eq!(rarely.is_due(first), Some(0));
        assert_eq!(rarely.is_due(first), None);
        assert_eq!(rarely.is_due(first + PAUSE / 2), None);
        assert_eq!(rarely.is_due(first + PAUSE), Some(2));
        assert_eq!(rarely.is_due(first + PAUSE * 2), Some(0));
    }
}
