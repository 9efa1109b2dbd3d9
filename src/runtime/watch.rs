//! Watches that fail: when they are tried again, and how often that is told.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use kube::runtime::utils::Backoff;
use kube::runtime::watcher;

use super::said::Said;

/// The first pause after a watch that failed...
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// ...and how often it is doubled: to eight seconds.
const PAUSE_DOUBLINGS: u32 = 4;

/// A watch that keeps failing in the same way says so this often.
const TOLD_AGAIN: Duration = Duration::from_secs(30);

/// The pauses between tries of a watch that failed: kube's own grow to half a minute, and changes
/// would wait for that long after an outage.
#[derive(Debug, Default)]
pub struct Pauses(u32);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = FIRST_PAUSE * (1 << self.0);
        self.0 = (self.0 + 1).min(PAUSE_DOUBLINGS);
        Some(pause.mul_f64(0.75 + fastrand::f64() / 2.0))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

/// The failures of one watch, for the log: a failure is told when it is another than the last, and
/// once in half a minute while it lasts. Tries alone would make several lines a second.
#[derive(Debug)]
pub struct Failures {
    /// The kind that is watched.
    kind: Cow<'static, str>,
    told: Option<(String, Instant)>,
}

impl Failures {
    /// Begins to keep note of the failures of a kind's watch.
    pub fn of(kind: impl Into<Cow<'static, str>>) -> Self {
        let kind = kind.into();
        Self { kind, told: None }
    }

    /// Returns what happened; a failure is logged, unless it was a moment ago.
    pub fn logged<K>(
        &mut self,
        event: watcher::Result<watcher::Event<K>>,
    ) -> Option<watcher::Event<K>> {
        match event {
            Err(error) => {
                let error = Said(&error).to_string();
                if self.is_news(&error, Instant::now()) {
                    tracing::warn!(error, kind = %self.kind, "a watch failed; it is tried again");
                }
                None
            }
            // Every try starts so, failures included.
            Ok(watcher::Event::Init) => Some(watcher::Event::Init),
            Ok(event) => {
                self.told = None;
                Some(event)
            }
        }
    }

    fn is_news(&mut self, error: &str, now: Instant) -> bool {
        let same = self.told.as_ref().filter(|(told, _)| told == error);
        let news = same.is_none_or(|(_, at)| now.duration_since(*at) >= TOLD_AGAIN);
        if news {
            self.told = Some((error.to_owned(), now));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_keeps_failing_says_so_now_and_then() {
        let mut failures = Failures::of("Namespace");
        let start = Instant::now();
        assert!(failures.is_news("refused", start));
        assert!(!failures.is_news("refused", start + TOLD_AGAIN / 2));
        // Another failure is worth a line at once.
        assert!(failures.is_news("forbidden", start + TOLD_AGAIN / 2));
        assert!(!failures.is_news("forbidden", start + TOLD_AGAIN));
        assert!(failures.is_news("forbidden", start + TOLD_AGAIN * 2));
        // A list that begins has not succeeded yet; one that ends has.
        assert!(failures.logged(Ok(watcher::Event::<()>::Init)).is_some());
        assert!(!failures.is_news("forbidden", start + TOLD_AGAIN * 2));
        assert!(
            failures
                .logged(Ok(watcher::Event::<()>::InitDone))
                .is_some()
        );
        assert!(failures.is_news("forbidden", start + TOLD_AGAIN * 2));
    }
}
