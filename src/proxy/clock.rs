//! The time of signatures: this machine's, or the domain's where the two differ.
//!
//! The service takes signatures that are at most five minutes off, and says in its refusals what
//! time it has.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;

/// The most that a clock is believed to be off, in seconds: a little over a day.
const MOST: i64 = 25 * 3600;

/// A clock that can be put right.
#[derive(Debug, Default)]
pub struct Clock {
    /// How many seconds the domain's clock is ahead of the machine's.
    ahead: AtomicI64,
}

impl Clock {
    /// Tells the time for a signature, from the machine's.
    #[must_use]
    pub fn tell(&self, machine: Timestamp) -> Timestamp {
        let ahead = jiff::SignedDuration::from_secs(self.ahead());
        machine.checked_add(ahead).unwrap_or(machine)
    }

    /// Returns how many seconds the domain's clock is ahead.
    #[must_use]
    pub fn ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }

    /// Takes over the domain's time; tells whether it is believed, and so another try of any use.
    pub fn learn(&self, domain: Timestamp, machine: Timestamp) -> bool {
        let ahead = domain.duration_since(machine).as_secs();
        let believed = ahead.abs() <= MOST;
        if believed {
            self.ahead.store(ahead, Ordering::Relaxed);
        }
        believed
    }
}

/// Reads a date of HTTP (RFC 9110, section 5.6.7), in the form that is sent.
#[must_use]
pub fn http_date(text: &str) -> Option<Timestamp> {
    let date = text.strip_suffix(" GMT")?;
    let zoned = jiff::fmt::strtime::parse("%a, %d %b %Y %H:%M:%S", date).ok()?;
    let date = zoned.to_datetime().ok()?;
    let utc = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(utc.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_clock_is_put_right() {
        let clock = Clock::default();
        let machine = at("2026-01-31T23:59:00Z");
        for ahead in [-86_400, -3600, -180, 0, 180, 3600, 86_400] {
            let domain = machine + jiff::SignedDuration::from_secs(ahead);
            assert!(clock.learn(domain, machine), "{ahead}");
            assert_eq!(clock.tell(machine), domain);
        }
        // What is too far off is not believed, and changes nothing.
        assert!(!clock.learn(at("2027-01-31T23:59:00Z"), machine));
        assert_eq!(clock.ahead(), 86_400);
    }

    #[test]
    fn dates_are_read() {
        let read = http_date("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(read, Some(at("1994-11-06T08:49:37Z")));
        for text in [
            "",
            "now",
            "Sun, 06 Nov 1994 08:49:37",
            "Sunday, 06-Nov-94 08:49:37 GMT",
        ] {
            assert_eq!(http_date(text), None, "{text}");
        }
    }
}
