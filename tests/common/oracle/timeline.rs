//! When what was authorised, from the objects of the API server and the times of their changes.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::manifest;
use super::meaning;

/// The operator's field manager: what it changes on an object is no change of what is asked for.
const OPERATOR: &str = "opensearch-access";

/// An object of the API server, as it was seen at a time.
#[derive(Clone, Debug)]
pub(crate) struct Sighting {
    pub(crate) at: Timestamp,
    /// The whole object, or its last state if it is gone.
    pub(crate) object: Value,
    pub(crate) gone: bool,
}

/// A time, its end not included; without an end it lasts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) from: Timestamp,
    pub(crate) until: Option<Timestamp>,
}

impl Span {
    fn and(self, other: Self) -> Option<Self> {
        let until = [self.until, other.until].into_iter().flatten().min();
        let from = self.from.max(other.from);
        until
            .is_none_or(|until| from < until)
            .then_some(Self { from, until })
    }
}

/// One state of a domain's object.
#[derive(Clone, Debug)]
pub(crate) struct Domain {
    pub(crate) span: Span,
    pub(crate) spec: Value,
}

/// When what was authorised.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    /// By atom.
    pub(crate) atoms: BTreeMap<String, Vec<Span>>,
    /// By atom, for grants that ask for identity policies too.
    pub(crate) attached: BTreeMap<String, Vec<Span>>,
    /// By role and principal, for grants that ask for roles.
    pub(crate) mapped: BTreeMap<(String, String), Vec<Span>>,
    domains: Vec<Domain>,
}

impl Timeline {
    pub(crate) fn of(name: &str, fine_grained: bool, sightings: &[Sighting]) -> Self {
        let of_kind = |kind: &str| -> Vec<&Sighting> {
            let found = sightings.iter().filter(|it| it.object["kind"] == kind);
            found.collect()
        };
        let named = |it: &&Sighting| it.object["metadata"]["name"] == name;
        let asks = |it: &&Sighting| it.object["spec"]["domainRef"]["name"] == name;
        let domains: Vec<&Sighting> = of_kind("OpenSearchDomain")
            .into_iter()
            .filter(named)
            .collect();
        let grants: Vec<&Sighting> = of_kind("DomainAccess").into_iter().filter(asks).collect();
        let mut timeline = Self::default();
        for (span, object) in states(&domains) {
            let spec = object["spec"].clone();
            timeline.domains.push(Domain { span, spec });
        }
        for (span, object) in states(&grants) {
            timeline.grant(span, object, fine_grained);
        }
        timeline.retain();
        timeline
    }

    fn grant(&mut self, span: Span, grant: &Value, fine_grained: bool) {
        for domain in self.domains.clone() {
            let Some((from, end)) = manifest::authorised(grant, &domain.spec) else {
                continue;
            };
            let limit = Span {
                from,
                until: Some(end),
            };
            let both = span.and(domain.span).and_then(|it| it.and(limit));
            let Some(span) = both else { continue };
            for pair in manifest::mapped(&grant["spec"]) {
                self.mapped.entry(pair).or_default().push(span);
            }
            let asked = manifest::statements(&grant["spec"], &domain.spec, fine_grained);
            for atom in meaning::of_statements(&asked) {
                if grant["spec"]["identityPolicy"] == "Attach" {
                    self.attached.entry(atom.clone()).or_default().push(span);
                }
                self.atoms.entry(atom).or_default().push(span);
            }
        }
    }

    /// What a domain's object that is retained leaves behind stays for ever.
    fn retain(&mut self) {
        let last = self.domains.iter().max_by_key(|it| it.span.from);
        let Some(Domain { span, spec }) = last else {
            return;
        };
        let Some(end) = span.until else { return };
        if spec["deletionPolicy"] == "Revoke" {
            return;
        }
        for spans in self.atoms.values_mut() {
            if spans.iter().any(|it| it.until.is_none_or(|it| it >= end)) {
                spans.push(Span {
                    from: end,
                    until: None,
                });
            }
        }
    }

    /// Tells whether the document was the operator's alone, so that what others allow may go.
    pub(crate) fn owned(&self, at: Timestamp, stale: SignedDuration) -> bool {
        let of_then = self.domains.iter().filter(|it| {
            it.span.from <= at && it.span.until.is_none_or(|until| until >= at - stale)
        });
        of_then
            .into_iter()
            .any(|it| it.spec["accessPolicy"]["mode"] == "Own")
    }

    /// Tells whether nothing was to be written at a time.
    pub(crate) fn idle(&self, at: Timestamp) -> bool {
        let now = self
            .domains
            .iter()
            .find(|it| it.span.from <= at && it.span.until.is_none_or(|until| until > at));
        now.is_none_or(|it| {
            it.spec["suspend"] == true || it.spec["accessPolicy"]["mode"] == "Observe"
        })
    }
}

/// Returns the states that objects were in, each with its time; of an object that is being deleted
/// none any more.
///
/// A state begins when the API server says that it was written, and ends when its end was seen:
/// both in favour of whoever is judged, by less than a second and by the delay of a watch.
fn states<'a>(sightings: &[&'a Sighting]) -> Vec<(Span, &'a Value)> {
    let mut open: BTreeMap<&str, (Timestamp, &Value)> = BTreeMap::new();
    let mut found = Vec::new();
    for sighting in sightings {
        let object = &sighting.object;
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        let deleted = sighting.gone || !object["metadata"]["deletionTimestamp"].is_null();
        let same = open
            .get(uid)
            .is_some_and(|(_, before)| before["spec"] == object["spec"]);
        if same && !deleted {
            continue;
        }
        let earlier = open.remove(uid);
        if let Some((from, before)) = earlier {
            let until = Some(sighting.at);
            found.push((Span { from, until }, before));
        }
        if !deleted {
            let from = written(object, earlier.is_none()).unwrap_or(sighting.at);
            open.insert(uid, (from.min(sighting.at), object));
        }
    }
    let still = open.into_values().map(|(from, object)| {
        let until = None;
        (Span { from, until }, object)
    });
    found.extend(still);
    found
}

/// Returns when the API server took an object as its author last wrote it.
fn written(object: &Value, new: bool) -> Option<Timestamp> {
    let metadata = &object["metadata"];
    if new {
        return metadata["creationTimestamp"].as_str()?.parse().ok();
    }
    let fields = metadata["managedFields"].as_array()?;
    let by_author = fields
        .iter()
        .filter(|it| it["manager"] != OPERATOR && it["subresource"].is_null());
    let times = by_author.filter_map(|it| it["time"].as_str()?.parse().ok());
    times.max()
}
