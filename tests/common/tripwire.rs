//! Stops a client right after its nth write that concerns one subject, wherever it writes to.
//!
//! The API server's proxy and the fake AWS ask at both ends of every call:
//!
//! ```text
//!  client ──► enter ──► applied ──► leave ──► answer
//!               │                     └─ the nth write: answered | not answered | reset
//!               └─ after the nth write: held, and never applied
//! ```
//!
//! What is held stays held until its connection is gone, so that a client which is killed then has
//! made exactly the first n writes, whatever it was doing in parallel. Several subjects may be
//! watched at once: each is cut off behind a write of its own.

#![allow(dead_code, reason = "every test binary uses another part of it")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What becomes of the client's answer to the write that trips a wire, and of the client's later
/// calls.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Then {
    /// It is answered, and the last thing that the client achieves.
    Answered,
    /// It is applied and never answered, and the last thing that the client achieves.
    Unanswered,
    /// It is applied, its connection is reset, and the client may go on.
    Lost,
    /// It is refused and never applied, in one of the ways that the server knows, by number; the
    /// client may go on.
    Refused(usize),
}

/// What a server does with a call that wants to enter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Entry {
    /// It is none of the wires' business.
    Free,
    /// It is applied and then [`Tripwires::leave`] is asked.
    Last(Then),
    /// It never enters.
    Held,
}

/// One call, as a server tells of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passing<'a> {
    /// Who calls: one process, by a name that no other has.
    pub(crate) client: &'a str,
    /// Whom the call concerns: a domain and the namespace of the same name.
    pub(crate) subject: &'a str,
    /// What it changes; `None` if it only reads.
    pub(crate) write: Option<&'a str>,
}

/// The wires, by subject; all copies are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tripwires(Arc<Mutex<BTreeMap<String, Wire>>>);

#[derive(Debug)]
struct Wire {
    /// Which write trips it, counted from 1; none if it only counts.
    at: Option<usize>,
    then: Then,
    writes: Vec<String>,
    /// Whose further calls are held.
    cut_off: Option<String>,
    tripped: bool,
}

impl Tripwires {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Wire>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to count the writes that concern a subject, up to the one that trips the wire.
    pub(crate) fn lay(&self, subject: &str, at: Option<usize>, then: Then) {
        let wire = Wire {
            at,
            then,
            writes: Vec::new(),
            cut_off: None,
            tripped: false,
        };
        self.lock().insert(subject.to_owned(), wire);
    }

    /// Returns the writes that concerned a subject since its wire was laid.
    pub(crate) fn writes(&self, subject: &str) -> Vec<String> {
        let wires = self.lock();
        wires
            .get(subject)
            .map(|wire| wire.writes.clone())
            .unwrap_or_default()
    }

    /// Tells whether the write that trips the wire has been applied.
    pub(crate) fn tripped(&self, subject: &str) -> bool {
        self.lock().get(subject).is_some_and(|wire| wire.tripped)
    }

    /// Takes the wire of a subject away that no write has come to, so that it stops nobody later.
    pub(crate) fn lift(&self, subject: &str) {
        let mut wires = self.lock();
        let untouched = wires
            .get_mut(subject)
            .filter(|wire| wire.at.is_some_and(|at| wire.writes.len() < at));
        if let Some(wire) = untouched {
            wire.at = None;
        }
    }

    /// Counts a call, and says whether it may enter.
    pub(crate) fn enter(&self, call: Passing<'_>) -> Entry {
        let mut wires = self.lock();
        let Some(wire) = wires.get_mut(call.subject) else {
            return Entry::Free;
        };
        if wire.cut_off.as_deref() == Some(call.client) {
            return Entry::Held;
        }
        let Some(write) = call.write else {
            return Entry::Free;
        };
        wire.writes.push(write.to_owned());
        if wire.at != Some(wire.writes.len()) {
            return Entry::Free;
        }
        if matches!(wire.then, Then::Answered | Then::Unanswered) {
            wire.cut_off = Some(call.client.to_owned());
        }
        Entry::Last(wire.then)
    }

    /// Takes note that the write which trips a subject's wire has been applied.
    pub(crate) fn leave(&self, subject: &str) {
        if let Some(wire) = self.lock().get_mut(subject) {
            wire.tripped = true;
        }
    }
}
