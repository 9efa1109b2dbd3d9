//! One domain: its policy with all versions, and the change that it may be busy with.
//!
//! ```text
//!  accepted update ─► Processing ─► (lag: reads say Active, updates are still refused) ─► Active
//!                          └─ told to fail ─► ValidationFailed, the policy goes back
//! ```
//!
//! Time passes only when somebody looks: [`Domain::advance`] is called before every read and write.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::accounts::Accounts;
use super::policy::Site;
use super::policy::stored::Stored;
use super::record::Version;
use super::seeded::Seeded;
use super::wire::Refusal;

/// The refusal of a second change, word for word (TF#35811).
const IN_PROGRESS: &str = "A change/update is in progress. Please wait for it to complete before \
    requesting another change.";

/// How long a state lasts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Period {
    /// Not at all.
    None,
    For(Duration),
    /// For that many calls that could have noticed: reads of the domain while it is Processing,
    /// refused updates while it lags.
    Calls(u32),
    /// Until [`super::DomainHandle::finish_change`] is called.
    UntilFinished,
}

/// What a domain is made of. Everything has a default: public, without fine-grained access control,
/// no policy.
#[derive(Clone, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a knob of its own, and tests turn them by name"
)]
pub(crate) struct DomainOptions {
    pub(crate) vpc_id: Option<String>,
    pub(crate) fine_grained: bool,
    pub(crate) engine_version: String,
    pub(crate) endpoint: Option<String>,
    pub(crate) policy: String,
    pub(crate) advanced: Map<String, Value>,
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) processing: Period,
    pub(crate) lag: Period,
    pub(crate) dry_runs_judge: bool,
    pub(crate) takes_deleted: bool,
    pub(crate) others_keep_busy: bool,
}

impl Default for DomainOptions {
    fn default() -> Self {
        Self {
            vpc_id: None,
            fine_grained: false,
            engine_version: "OpenSearch_2.19".to_owned(),
            endpoint: None,
            policy: String::new(),
            advanced: Map::from_iter([(
                "rest.action.multi.allow_explicit_index".to_owned(),
                json!("true"),
            )]),
            tags: Vec::new(),
            processing: Period::None,
            lag: Period::None,
            dry_runs_judge: false,
            takes_deleted: false,
            others_keep_busy: false,
        }
    }
}

impl DomainOptions {
    /// Puts the domain into a VPC.
    pub(crate) fn vpc(mut self, id: &str) -> Self {
        self.vpc_id = Some(id.to_owned());
        self
    }

    /// Turns fine-grained access control on.
    pub(crate) fn fine_grained(mut self) -> Self {
        self.fine_grained = true;
        self
    }

    /// Sets the engine version, for example `OpenSearch_2.19` or `Elasticsearch_7.10`.
    pub(crate) fn engine_version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.engine_version);
        self
    }

    /// Sets the endpoint that is reported, for tests that stand a gateway in front of a real
    /// OpenSearch.
    pub(crate) fn endpoint(mut self, endpoint: &str) -> Self {
        self.endpoint = Some(endpoint.to_owned());
        self
    }

    /// Sets the first policy, as if an external writer had stored it: it is not judged.
    pub(crate) fn policy(mut self, document: &str) -> Self {
        document.clone_into(&mut self.policy);
        self
    }

    /// Sets an advanced option, such as `rest.action.multi.allow_explicit_index`.
    pub(crate) fn advanced(mut self, name: &str, value: &str) -> Self {
        self.advanced.insert(name.to_owned(), json!(value));
        self
    }

    /// Adds a tag.
    pub(crate) fn tag(mut self, key: &str, value: &str) -> Self {
        self.tags.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Lets dry runs refuse what an update refuses; without this they look at the form alone. Which
    /// of the two AWS does is not documented.
    pub(crate) fn dry_runs_judge(mut self) -> Self {
        self.dry_runs_judge = true;
        self
    }

    /// Has the domain work on what other writers store, too, as it does in AWS: meanwhile updates are
    /// refused.
    pub(crate) fn others_keep_busy(mut self) -> Self {
        self.others_keep_busy = true;
        self
    }

    /// Lets updates name unique ids of deleted principals, as they are read; without this they are
    /// refused. Which of the two AWS does is not documented.
    pub(crate) fn takes_deleted(mut self) -> Self {
        self.takes_deleted = true;
        self
    }

    /// Sets how long the domain is Processing after each accepted change.
    pub(crate) fn processing(mut self, period: Period) -> Self {
        self.processing = period;
        self
    }

    /// Sets how long after that updates are still refused, although reads say Active.
    pub(crate) fn lag(mut self, period: Period) -> Self {
        self.lag = period;
        self
    }
}

/// What is left of a [`Period`].
#[derive(Clone, Copy, Debug)]
enum Left {
    Until(Instant),
    Calls(u32),
    Finish,
}

impl Left {
    fn start(period: Period, from: Instant) -> Option<Self> {
        match period {
            Period::None | Period::Calls(0) => None,
            Period::For(duration) => Some(Self::Until(from + duration)),
            Period::Calls(calls) => Some(Self::Calls(calls)),
            Period::UntilFinished => Some(Self::Finish),
        }
    }

    fn is_over(self) -> bool {
        match self {
            Self::Until(end) => end <= Instant::now(),
            Self::Calls(left) => left == 0,
            Self::Finish => false,
        }
    }

    fn count(&mut self) {
        if let Self::Calls(left) = self {
            *left = left.saturating_sub(1);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Processing(Left),
    Lagging(Left),
    Settled,
}

/// The latest change of a domain, finished or not.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) id: String,
    pub(crate) started: Timestamp,
    pub(crate) updated: Timestamp,
    /// `ApplyingChanges`, `Completed` or `ValidationFailed`.
    pub(crate) status: &'static str,
    pub(crate) message: String,
    pub(crate) properties: Vec<String>,
    /// The policy before the change.
    pub(crate) previous: Stored,
}

/// A domain of one account and region.
pub(crate) struct Domain {
    pub(crate) site: Site,
    pub(crate) options: DomainOptions,
    pub(crate) id: String,
    /// Configuration that is carried along, by the name of its section.
    pub(crate) sections: BTreeMap<String, Value>,
    /// `Creating`, `Isolated` or `Deleting`, if a test says so.
    pub(crate) status: Option<String>,
    policy: Stored,
    pub(crate) policy_created: Timestamp,
    pub(crate) policy_updated: Timestamp,
    pub(crate) update_version: u64,
    pub(crate) accepted_updates: usize,
    pub(crate) versions: Vec<Version>,
    pub(crate) change: Option<Change>,
    phase: Phase,
    /// Why the next accepted change fails after the fact.
    pub(crate) fail_next: Option<String>,
    /// What another writer stores after each update.
    pub(crate) undone_by: Option<String>,
    failing: Option<String>,
    pub(crate) stale_reads: bool,
    seed: u64,
}

impl Domain {
    pub(crate) fn new(
        site: Site,
        options: DomainOptions,
        accounts: &Accounts,
        seed: u64,
        now: Timestamp,
    ) -> Self {
        let arn = site.arn();
        let text = options.policy.clone();
        let mut domain = Self {
            id: format!("{}/{}", site.account, site.domain),
            site,
            options,
            sections: super::es::plain_sections(),
            status: None,
            policy: Stored::Empty,
            policy_created: now,
            policy_updated: now,
            update_version: 0,
            accepted_updates: 0,
            versions: Vec::new(),
            change: None,
            phase: Phase::Settled,
            fail_next: None,
            undone_by: None,
            failing: None,
            stale_reads: false,
            seed: u64::try_from(Seeded::new(seed, &arn).below(1 << 30)).expect("it fits"),
        };
        let policy =
            super::policy::stored::keep(&text, &domain.site, accounts, domain.next_order());
        domain.store(policy, &text, "external", accounts, now);
        domain
    }

    /// Returns the seed of the order in which the next version is read back.
    pub(crate) fn next_order(&self) -> u64 {
        self.seed.wrapping_add(self.update_version + 1)
    }

    /// Returns the policy that is stored, which a stale read does not show yet.
    pub(crate) fn stored(&self) -> &Stored {
        &self.policy
    }

    /// Returns the policy as the API shows it now.
    pub(crate) fn shown(&self) -> &Stored {
        match &self.change {
            Some(change) if self.stale_reads && self.is_processing() => &change.previous,
            _ => &self.policy,
        }
    }

    pub(crate) fn is_processing(&self) -> bool {
        matches!(self.phase, Phase::Processing(_))
    }

    /// Lets time pass; `reading` counts as a read of the domain.
    pub(crate) fn advance(&mut self, reading: bool, accounts: &Accounts, now: Timestamp) {
        if let Phase::Processing(left) = &mut self.phase {
            if left.is_over() {
                let ended = if let Left::Until(end) = left {
                    *end
                } else {
                    Instant::now()
                };
                self.finish_processing(ended, accounts, now);
            } else if reading {
                left.count();
            }
        }
        if let Phase::Lagging(left) = self.phase
            && left.is_over()
        {
            self.phase = Phase::Settled;
        }
    }

    /// Ends the phase that the domain is in.
    pub(crate) fn finish_phase(&mut self, accounts: &Accounts, now: Timestamp) {
        match self.phase {
            Phase::Processing(_) => self.finish_processing(Instant::now(), accounts, now),
            Phase::Lagging(_) => self.phase = Phase::Settled,
            Phase::Settled => {}
        }
    }

    fn finish_processing(&mut self, ended: Instant, accounts: &Accounts, now: Timestamp) {
        self.phase = Left::start(self.options.lag, ended).map_or(Phase::Settled, Phase::Lagging);
        let failure = self.failing.take();
        let Some(change) = &mut self.change else {
            return;
        };
        change.updated = now;
        if let Some(message) = failure {
            change.status = "ValidationFailed";
            change.message = message;
            let previous = change.previous.clone();
            self.store(previous, "", "rollback", accounts, now);
        } else {
            change.status = "Completed";
        }
    }

    /// Refuses if a change is under way.
    pub(crate) fn check_idle(&mut self) -> Result<(), Refusal> {
        match &mut self.phase {
            Phase::Settled => return Ok(()),
            Phase::Lagging(left) => left.count(),
            Phase::Processing(_) => {}
        }
        Err(Refusal::validation(IN_PROGRESS))
    }

    /// Applies an accepted update, and begins the change that it asks for.
    pub(crate) fn accept(
        &mut self,
        policy: Option<(Stored, &str)>,
        properties: Vec<String>,
        caller_arn: &str,
        accounts: &Accounts,
        now: Timestamp,
    ) {
        let previous = self.policy.clone();
        if let Some((policy, submitted)) = policy {
            self.store(policy, submitted, caller_arn, accounts, now);
        }
        self.accepted_updates += 1;
        self.failing = self.fail_next.take();
        self.change = Some(Change {
            id: format!("00000000-0000-4000-8000-{:012x}", self.accepted_updates),
            started: now,
            updated: now,
            status: "ApplyingChanges",
            message: String::new(),
            properties,
            previous,
        });
        match Left::start(self.options.processing, Instant::now()) {
            Some(left) => self.phase = Phase::Processing(left),
            None => self.finish_processing(Instant::now(), accounts, now),
        }
    }

    /// Begins to work on what another writer stored, if it does that.
    pub(crate) fn work_on_others(&mut self) {
        if self.options.others_keep_busy
            && let Some(left) = Left::start(self.options.processing, Instant::now())
        {
            self.phase = Phase::Processing(left);
        }
    }

    /// Stores a version of the policy.
    pub(crate) fn store(
        &mut self,
        policy: Stored,
        submitted: &str,
        caller_arn: &str,
        accounts: &Accounts,
        now: Timestamp,
    ) {
        self.policy = policy;
        self.update_version += 1;
        self.policy_updated = now;
        self.versions.push(Version {
            version: self.update_version,
            at: now,
            caller_arn: caller_arn.to_owned(),
            document: self.policy.read(accounts),
            submitted: submitted.to_owned(),
        });
    }

    /// Takes over the sections of a create or update body that are not the policy. Objects merge,
    /// so that a sparse section keeps its other members; whether AWS does the same within a section
    /// is not documented.
    pub(crate) fn merge(&mut self, body: &Value) {
        if body["AdvancedSecurityOptions"]["Enabled"] == true {
            self.options.fine_grained = true;
            self.site.fgac = true;
        }
        if let Some(advanced) = body["AdvancedOptions"].as_object() {
            self.options.advanced.extend(advanced.clone());
        }
        for (name, section) in &mut self.sections {
            if let (Some(section), Some(sent)) = (section.as_object_mut(), body[name].as_object()) {
                section.extend(sent.clone());
            }
        }
    }
}
