//! The webhook's certificates: what there is of them, and what comes next.
//!
//! ```text
//! make next ──► both configurations name its authority ──► settle ──► serve it ──► the old authority
//!                                                                                  stays until it ends
//! ```
//!
//! Each certificate has an authority of its own, whose key is thrown away once it has signed: nobody
//! can ever sign another. All replicas share one state, kept in a Secret; whoever sees that a step is
//! due takes it, and of two at once one wins.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// How much time there is for things to happen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// How long a certificate holds.
    pub(super) lifetime: SignedDuration,
    /// How old it is when the next one is made.
    pub(super) renewal: SignedDuration,
    /// How long API servers may take to see a configuration that changed.
    pub(super) settling: SignedDuration,
}

/// A certificate with its key, and the authority that vouches for it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pair {
    /// PEM.
    pub(super) authority: String,
    /// PEM.
    pub(super) certificate: String,
    /// PEM.
    pub(super) key: String,
    names: Vec<String>,
    made: Timestamp,
    /// When it ends.
    pub(super) ends: Timestamp,
}

impl Pair {
    /// Tells whether it is for all of the names; a replica that knows fewer does not mind the others.
    fn is_for(&self, names: &[String]) -> bool {
        names.iter().all(|it| self.names.contains(it))
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair")
            .field("names", &self.names)
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

/// A certificate that is about to be served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Next {
    pair: Pair,
    /// Since when both configurations name its authority.
    announced: Option<Timestamp>,
}

/// An authority whose certificate a replica may still serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Retired {
    authority: String,
    ends: Timestamp,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    /// What is served.
    pub(super) current: Pair,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<Next>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    retired: Vec<Retired>,
}

impl State {
    /// Makes the first.
    ///
    /// # Errors
    ///
    /// Fails where no certificate can be made for the names.
    pub(super) fn first(
        names: &[String],
        timing: Timing,
        now: Timestamp,
    ) -> Result<Self, rcgen::Error> {
        Ok(Self {
            current: make(names, timing, now)?,
            next: None,
            retired: Vec::new(),
        })
    }

    /// Returns what the configurations have to name: every authority of which a certificate may be
    /// served.
    pub(super) fn bundle(&self) -> String {
        let next = self.next.iter().map(|it| it.pair.authority.as_str());
        let retired = self.retired.iter().map(|it| it.authority.as_str());
        std::iter::once(self.current.authority.as_str())
            .chain(next)
            .chain(retired)
            .collect()
    }

    /// Takes the step that is due, if one is. `announced` says that both configurations name what
    /// [`State::bundle`] returns.
    ///
    /// # Errors
    ///
    /// Fails where no certificate can be made for the names.
    pub(super) fn step(
        &self,
        names: &[String],
        announced: bool,
        timing: Timing,
        now: Timestamp,
    ) -> Result<Option<Self>, rcgen::Error> {
        let mut after = self.clone();
        after.retired.retain(|it| it.ends > now);
        let is_over = self.current.ends <= now;
        match &mut after.next {
            // Nobody can be served by the old one.
            Some(next) if is_over && next.pair.ends > now => after.promote(),
            _ if is_over => {
                let old = std::mem::replace(&mut after.current, make(names, timing, now)?);
                after.retire(old, now);
                after.next = None;
            }
            // It was made for fewer names than are called now.
            Some(next) if !next.pair.is_for(names) => {
                next.pair = make(names, timing, now)?;
                next.announced = None;
            }
            Some(next) => match next.announced {
                None if announced => next.announced = Some(now),
                Some(since) if now.duration_since(since) >= timing.settling => after.promote(),
                _ => {}
            },
            None if now.duration_since(self.current.made) >= timing.renewal
                || !self.current.is_for(names) =>
            {
                after.next = Some(Next {
                    pair: make(names, timing, now)?,
                    announced: None,
                });
            }
            None => {}
        }
        Ok((after != *self).then_some(after))
    }

    fn promote(&mut self) {
        if let Some(next) = self.next.take() {
            let old = std::mem::replace(&mut self.current, next.pair);
            self.retire(old, Timestamp::MIN);
        }
    }

    fn retire(&mut self, old: Pair, now: Timestamp) {
        if old.ends > now {
            let (authority, ends) = (old.authority, old.ends);
            self.retired.push(Retired { authority, ends });
        }
    }
}

/// Makes a certificate for the names, by an authority made for this alone.
fn make(names: &[String], timing: Timing, now: Timestamp) -> Result<Pair, rcgen::Error> {
    // Certificates count in seconds.
    let second = |at: Timestamp| {
        OffsetDateTime::from_unix_timestamp(at.as_second())
            .map_err(|_| rcgen::Error::CouldNotParseCertificate)
    };
    let after = |span: SignedDuration| now.saturating_add(span).unwrap_or(Timestamp::MAX);
    // Long before: a replica whose clock is ahead is not the only one that it is for.
    let (begins, ends) = (after(-timing.lifetime), after(timing.lifetime));
    let called = |text: &str| {
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, text);
        name
    };
    let mut authority = CertificateParams::new(Vec::new())?;
    // Several authorities are in one bundle: each has a name of its own.
    let serial = now.as_millisecond();
    authority.distinguished_name = called(&format!("opensearch-access webhook {serial}"));
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    (authority.not_before, authority.not_after) = (second(begins)?, second(ends)?);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let mut leaf = CertificateParams::new(names.to_vec())?;
    leaf.distinguished_name = called(names.first().map_or("", String::as_str));
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    (leaf.not_before, leaf.not_after) = (second(begins)?, second(ends)?);
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &authority)?;
    Ok(Pair {
        authority: authority.pem(),
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        names: names.to_vec(),
        made: now,
        ends: Timestamp::from_second(ends.as_second()).unwrap_or(Timestamp::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing {
        lifetime: SignedDuration::from_hours(30),
        renewal: SignedDuration::from_hours(20),
        settling: SignedDuration::from_mins(1),
    };

    fn at(hours: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours)
    }

    fn names() -> Vec<String> {
        vec!["a.b.svc".to_owned()]
    }

    fn first() -> State {
        State::first(&names(), TIMING, at(0)).unwrap()
    }

    fn step(state: &State, announced: bool, now: Timestamp) -> Option<State> {
        state.step(&names(), announced, TIMING, now).unwrap()
    }

    #[test]
    fn the_next_is_served_once_everybody_can_know_it() {
        let state = first();
        assert_eq!(step(&state, true, at(19)), None);
        let made = step(&state, true, at(20)).unwrap();
        assert_eq!(made.current, state.current);
        let next = made.next.clone().unwrap().pair;
        assert!(made.bundle().contains(&next.authority));
        // As long as a configuration does not name it, it is not served.
        assert_eq!(step(&made, false, at(21)), None);
        let announced = step(&made, true, at(21)).unwrap();
        assert_eq!(announced.current, state.current);
        let soon = at(21) + SignedDuration::from_secs(59);
        assert_eq!(step(&announced, true, soon), None);
        let after = step(&announced, true, at(21) + TIMING.settling).unwrap();
        assert_eq!(after.current, next);
        // A replica that has not looked yet serves the old one still.
        assert!(after.bundle().contains(&state.current.authority));
        assert_eq!(step(&after, true, at(29)), None);
        let late = step(&after, true, at(31)).unwrap();
        assert_eq!(late.bundle(), next.authority);
    }

    #[test]
    fn what_is_over_is_replaced_at_once() {
        let state = first();
        let over = step(&state, false, at(30)).unwrap();
        assert_ne!(over.current, state.current);
        assert_eq!(over.bundle(), over.current.authority);
        // The next one is there already, though nobody could be told.
        let made = step(&state, false, at(20)).unwrap();
        let next = made.next.clone().unwrap().pair;
        assert_eq!(step(&made, false, at(30)).unwrap().current, next);
    }

    #[test]
    fn what_is_for_fewer_names_is_replaced_once_everybody_can_know_it() {
        let state = first();
        let more = vec!["a.b.svc".to_owned(), "c.d.svc".to_owned()];
        let made = state.step(&more, true, TIMING, at(1)).unwrap().unwrap();
        assert_eq!(made.current, state.current);
        assert_eq!(made.next.clone().unwrap().pair.names, more);
        // A replica that is still told of fewer takes nothing back.
        assert_eq!(step(&made, false, at(1)), None);
        let announced = made.step(&more, true, TIMING, at(1)).unwrap().unwrap();
        let after = announced.step(&more, true, TIMING, at(2)).unwrap().unwrap();
        assert_eq!(after.current.names, more);
        assert_eq!(step(&after, true, at(3)), None);
    }

    #[test]
    fn the_state_can_be_kept_and_shows_no_key() {
        let state = step(&first(), true, at(20)).unwrap();
        let kept = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&kept).unwrap(), state);
        let shown = format!("{state:?}");
        assert!(!shown.contains("PRIVATE KEY"), "{shown}");
    }
}
