//! The time of signatures: this machine's, or the domain's where the two differ.
//!
//! The service takes signatures that are at most five minutes off, and says in its refusals what
//! time it has.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

/// The most that a clock is believed to be off, in seconds: a little over a day.
const MOST: i64 = 25 * 3600;

/// Clocks that differ by less are no reason for a refusal.
const NOTICED: SignedDuration = SignedDuration::from_mins(1);

/// The service takes signatures that are less than five minutes off; a date of HTTP is a second late.
const TOLERATED: SignedDuration = SignedDuration::from_secs(298);

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
        let ahead = SignedDuration::from_secs(self.ahead());
        machine.checked_add(ahead).unwrap_or(machine)
    }

    /// Returns how many seconds the domain's clock is ahead.
    #[must_use]
    pub fn ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }

    /// Takes over the domain's time, and tells whether another try is of any use: whether the time
    /// that was signed was another by as much as matters.
    pub fn learn(&self, domain: Timestamp, machine: Timestamp, signed: Timestamp) -> bool {
        let ahead = domain.duration_since(machine).as_secs();
        let believed = ahead.abs() <= MOST;
        if believed {
            self.ahead.store(ahead, Ordering::Relaxed);
        }
        believed && domain.duration_since(signed).abs() >= NOTICED
    }
}

/// Tells whether the service takes a signature that was made at another time than it has.
#[must_use]
pub fn is_tolerated(domain: Timestamp, signed: Timestamp) -> bool {
    domain.duration_since(signed).abs() < TOLERATED
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
        for ahead in [-86_400, -3600, -180, 180, 3600, 86_400] {
            let domain = machine + SignedDuration::from_secs(ahead);
            let signed = clock.tell(machine);
            assert!(clock.learn(domain, machine, signed), "{ahead}");
            assert_eq!(clock.tell(machine), domain);
        }
        // What is too far off is not believed, and changes nothing.
        let signed = clock.tell(machine);
        assert!(!clock.learn(at("2027-01-31T23:59:00Z"), machine, signed));
        assert_eq!(clock.ahead(), 86_400);
    }

    #[test]
    fn another_try_is_of_use_where_the_time_that_was_signed_was_wrong() {
        let clock = Clock::default();
        let (machine, domain) = (at("2026-01-31T23:00:00Z"), at("2026-01-31T23:50:00Z"));
        assert!(!clock.learn(domain, machine, domain));
        // Of two who were refused at once, the second comes when all has been learnt.
        assert!(clock.learn(domain, machine, machine));
        assert!(clock.learn(domain, machine, machine));
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
