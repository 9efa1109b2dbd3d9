//! M: an authorisation model that judges every version that an access policy ever had.
//!
//! Written apart from the operator, from what its users are told (the README's tables), and sharing
//! no code with it. At every moment t, with G(t) for what the policy in force says:
//!
//! ```text
//! foreign(t)  ⊆  G(t)  ⊆  foreign(t) ∪ authorised(t − δ … t)
//! ```
//!
//! `foreign` is what other writers wrote, worked out from their versions alone; `authorised` is what
//! the grants ask for within the domain's consent, worked out from the manifests as the API server
//! had them, with the times at which they changed. What is compared are atoms: an effect, a
//! principal, an action, a resource and a condition, see [`meaning`].
//!
//! δ is short for what a version adds (how old the view may be from which it was made) and longer
//! for what it leaves in place (how long a revocation may take). What was once taken away does not
//! come back within either, unless it is authorised anew.
//!
//! # Caveats
//!
//! A role or user that is deleted changes into its unique id behind everybody's back; domains on
//! which that happens are not judged. A grant that the domain has no room for, or whose principal
//! does not exist, counts as authorised all the same: that it is left out is no matter of safety.

#![allow(dead_code, reason = "every test binary uses another part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use self::timeline::{Span, Timeline};
use super::fake_aws::{Call, Version};
use super::operator::meaning::{self, Meaning};

pub(crate) mod manifest;
pub(crate) mod timeline;

pub(crate) use self::timeline::Sighting;

/// One domain and its whole history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case<'a> {
    /// The name of the `OpenSearchDomain`.
    pub(crate) name: &'a str,
    pub(crate) fine_grained: bool,
    /// Every version that AWS stored, in order.
    pub(crate) versions: &'a [Version],
    /// Everything that was seen in the API server, in order; other domains' objects do no harm.
    pub(crate) sightings: &'a [Sighting],
    /// When the history ends.
    pub(crate) end: Timestamp,
    /// How old a view may be from which something is added.
    pub(crate) stale: SignedDuration,
    /// How long a revocation may take; `None` where the operator is kept from it on purpose.
    pub(crate) lingers: Option<SignedDuration>,
}

/// What the oracle found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Judgement {
    /// How many versions were judged.
    pub(crate) versions: usize,
    /// What is wrong with them, in words; empty if nothing is.
    pub(crate) violations: Vec<String>,
}

impl Judgement {
    /// Adds another domain's.
    pub(crate) fn add(&mut self, other: Self) {
        self.versions += other.versions;
        self.violations.extend(other.violations);
    }
}

/// Judges every version of a domain's access policy, for as long as each was in force.
pub(crate) fn judge(case: &Case<'_>) -> Judgement {
    let timeline = Timeline::of(case.name, case.fine_grained, case.sightings);
    let mut walk = Walk::new(case, &timeline);
    for (at, version) in case.versions.iter().enumerate() {
        let next = case.versions.get(at + 1);
        walk.step(version, next.map_or(case.end, |next| next.at));
    }
    Judgement {
        versions: case.versions.len(),
        violations: walk.violations,
    }
}

/// Returns what the policy should say at the end: what others wrote, and what is authorised, but
/// for principals that do not exist.
pub(crate) fn wanted(case: &Case<'_>, missing: &[&str]) -> Meaning {
    let timeline = Timeline::of(case.name, case.fine_grained, case.sightings);
    let mut walk = Walk::new(case, &timeline);
    for version in case.versions {
        walk.step(version, version.at);
    }
    let named = |atom: &&String| !missing.iter().any(|it| atom.contains(&format!(" {it} ")));
    let authorised = timeline.atoms.iter().filter(|(_, spans)| {
        let open = |span: &Span| span.from <= case.end && span.until.is_none_or(|it| it > case.end);
        spans.iter().any(open)
    });
    let authorised = authorised.map(|(atom, _)| atom).filter(named);
    walk.foreign.iter().chain(authorised).cloned().collect()
}

/// Judges every inline policy that was ever put on a role of the account.
pub(crate) fn judge_inline(case: &Case<'_>, account: &str, calls: &[Call]) -> Judgement {
    let timeline = Timeline::of(case.name, case.fine_grained, case.sightings);
    let mut judgement = Judgement::default();
    let domain = format!("domain/{}/", case.name);
    for call in calls {
        let document = call.body["PolicyDocument"].as_str().unwrap_or_default();
        if call.operation != "PutRolePolicy"
            || call.status != Some(200)
            || !document.contains(&domain)
        {
            continue;
        }
        judgement.versions += 1;
        let role = call.body["RoleName"].as_str().unwrap_or_default();
        let role = format!("arn:aws:iam::{account}:role/{role}");
        let document: Value = serde_json::from_str(document).unwrap_or_default();
        let mut statements = document["Statement"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        for statement in &mut statements {
            statement["Principal"] = json!({"AWS": role});
        }
        for atom in meaning::of_statements(&statements) {
            let spans = timeline.attached.get(&atom).map_or(&[][..], Vec::as_slice);
            if !during(spans, call.at - case.stale, call.at) {
                judgement.violations.push(format!(
                    "{}: an inline policy allows what no grant attaches: {atom}",
                    case.name
                ));
            }
        }
    }
    judgement
}

/// Who had which role after each write, by the role's name.
pub(crate) type MappingHistory = [(Timestamp, BTreeMap<String, BTreeSet<String>>)];

/// Judges what the mappings of a domain's own roles were after each write: nobody is in them but for
/// others (`theirs…`), who stay, and those whom a grant maps.
pub(crate) fn judge_mappings(case: &Case<'_>, history: &MappingHistory) -> Judgement {
    let timeline = Timeline::of(case.name, case.fine_grained, case.sightings);
    let mut judgement = Judgement::default();
    let mut before: BTreeSet<(String, String)> = BTreeSet::new();
    for (at, mappings) in history {
        judgement.versions += 1;
        let pairs = mappings.iter().flat_map(|(role, entries)| {
            let entries = entries.iter();
            entries.map(move |entry| (role.clone(), entry.clone()))
        });
        let now: BTreeSet<(String, String)> = pairs.collect();
        let theirs = |pair: &&(String, String)| pair.1.starts_with("theirs");
        for lost in before.difference(&now).filter(theirs) {
            let lost = format!("{}: another's entry is lost: {lost:?}", case.name);
            judgement.violations.push(lost);
        }
        for added in now.difference(&before).filter(|it| !theirs(it)) {
            let spans = timeline.mapped.get(added).map_or(&[][..], Vec::as_slice);
            if !during(spans, *at - case.stale, *at) {
                let added = format!("{}: nobody is authorised to {added:?}", case.name);
                judgement.violations.push(added);
            }
        }
        before = now;
    }
    judgement
}

/// Returns what the mappings of a domain's own roles should be at the end.
pub(crate) fn wanted_mappings(case: &Case<'_>) -> BTreeSet<(String, String)> {
    let timeline = Timeline::of(case.name, case.fine_grained, case.sightings);
    let open = |span: &Span| span.from <= case.end && span.until.is_none_or(|it| it > case.end);
    let open = timeline
        .mapped
        .iter()
        .filter(|(_, spans)| spans.iter().any(open));
    open.map(|(pair, _)| pair.clone()).collect()
}

/// Tells whether something was authorised at any moment of a time.
fn during(spans: &[Span], from: Timestamp, until: Timestamp) -> bool {
    spans
        .iter()
        .any(|span| span.from <= until && span.until.is_none_or(|it| it >= from))
}

/// The state of the world while the versions are walked through.
struct Walk<'a> {
    case: &'a Case<'a>,
    timeline: &'a Timeline,
    /// What others wrote.
    foreign: Meaning,
    /// Of that, what stood before the operator's first write: it may take it over as its own.
    adoptable: Meaning,
    /// What the version before said.
    before: Meaning,
    /// When the operator last took an atom away.
    taken: BTreeMap<String, Timestamp>,
    operator_wrote: bool,
    /// What has been reported and still stands: once is enough.
    reported: Meaning,
    violations: Vec<String>,
}

impl<'a> Walk<'a> {
    fn new(case: &'a Case<'a>, timeline: &'a Timeline) -> Self {
        Self {
            case,
            timeline,
            foreign: Meaning::new(),
            adoptable: Meaning::new(),
            before: Meaning::new(),
            taken: BTreeMap::new(),
            operator_wrote: false,
            reported: Meaning::new(),
            violations: Vec::new(),
        }
    }

    fn step(&mut self, version: &Version, until: Timestamp) {
        let now = meaning::of_document(&version.document);
        if matches!(version.caller_arn.as_str(), "external" | "rollback") {
            self.others_wrote(version, &now);
        } else {
            self.operator_wrote(version, &now);
        }
        self.lingers(version, &now, until);
        self.before = now;
    }

    /// What another writer adds is its own, and what it leaves out is gone; what it copies along is
    /// whose it was.
    fn others_wrote(&mut self, version: &Version, now: &Meaning) {
        if version.caller_arn == "rollback" {
            return;
        }
        let added: Meaning = now.difference(&self.before).cloned().collect();
        self.foreign.retain(|atom| now.contains(atom));
        self.foreign.extend(added);
        if !self.operator_wrote {
            self.adoptable.clone_from(&self.foreign);
        }
    }

    fn operator_wrote(&mut self, version: &Version, now: &Meaning) {
        self.operator_wrote = true;
        let at = version.at;
        let owned = self.timeline.owned(at, self.case.stale);
        for atom in self.foreign.difference(now) {
            let denies = !atom.starts_with("Allow ") && !atom.contains("\"Effect\":\"Allow\"");
            let adopted =
                self.adoptable.contains(atom) && self.timeline.atoms.contains_key(atom) && !denies;
            if !adopted && (denies || !owned) {
                let what = if denies { "a denial" } else { "a statement" };
                self.violations.push(format!(
                    "{} version {}: {what} of another writer is lost: {atom}",
                    self.case.name, version.version
                ));
            }
        }
        for atom in now.difference(&self.before) {
            let taken = self.taken.get(atom).copied();
            let oldest = at - self.case.stale;
            let oldest = taken.map_or(oldest, |taken| taken.max(oldest));
            if !self.authorised(atom, oldest, at) {
                self.reported.insert(atom.clone());
                self.violations.push(format!(
                    "{} version {}: it adds what nobody is authorised to: {atom}",
                    self.case.name, version.version
                ));
            }
        }
        for atom in self.before.difference(now) {
            self.taken.insert(atom.clone(), at);
        }
        self.foreign.retain(|atom| now.contains(atom));
    }

    /// Judges a version for as long as it was in force.
    fn lingers(&mut self, version: &Version, now: &Meaning, until: Timestamp) {
        let Some(lingers) = self.case.lingers else {
            return;
        };
        self.reported.retain(|atom| now.contains(atom));
        for atom in now.difference(&self.foreign) {
            if self.reported.contains(atom) {
                continue;
            }
            // The longest time without authorisation ends where an authorisation begins or the
            // version ends.
            let spans = self.timeline.atoms.get(atom).map_or(&[][..], Vec::as_slice);
            let begins = spans.iter().map(|span| span.from);
            let moments = begins.filter(|it| (version.at..until).contains(it));
            let bad = moments
                .chain([version.at, until])
                .find(|moment| !during(spans, *moment - lingers, *moment));
            if let Some(moment) = bad
                && !self.timeline.idle(moment)
            {
                self.reported.insert(atom.clone());
                self.violations.push(format!(
                    "{} version {}: at {moment} it still has what nobody is authorised to: {atom}",
                    self.case.name, version.version
                ));
            }
        }
    }

    fn authorised(&self, atom: &str, from: Timestamp, until: Timestamp) -> bool {
        let spans = self.timeline.atoms.get(atom);
        spans.is_some_and(|spans| during(spans, from, until))
    }
}

/// Says what is wrong, for a failure's message: the first few of them.
pub(crate) fn told(judgement: &Judgement) -> String {
    let mut text = format!(
        "{} violations in {} versions",
        judgement.violations.len(),
        judgement.versions
    );
    for violation in judgement.violations.iter().take(10) {
        write!(text, "\n  {violation}").unwrap_or_default();
    }
    text
}
