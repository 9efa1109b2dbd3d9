//! The state that the server and the handles share, and its clock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::super::tripwire::Tripwires;
use super::accounts::{Accounts, Credentials, Kind, NewPrincipal};
use super::domain::{Domain, DomainOptions};
use super::eks::Clusters;
use super::faults::Faults;
use super::policy::{Site, stored};
use super::record::Call;
use super::token::Issuers;

/// The user whose credentials [`super::FakeAws::credentials`] returns.
const ADMIN: &str = "admin";

/// Replaces a policy in the gap between a caller's read and its update.
type ExternalWriter = Box<dyn FnOnce(&str) -> String + Send>;

/// Everything that exists, by the ARN where it has one.
pub(super) struct State {
    pub(super) accounts: Accounts,
    pub(super) domains: BTreeMap<String, Domain>,
    pub(super) clusters: Clusters,
    pub(super) issuers: Issuers,
    pub(super) faults: Faults,
    pub(super) writers: Vec<(String, ExternalWriter)>,
    pub(super) calls: Vec<Call>,
    pub(super) seed: u64,
}

/// The state as the server and the handle share it.
#[derive(Clone)]
pub(super) struct World {
    state: Arc<Mutex<State>>,
    /// What may cut a caller off.
    pub(super) wires: Tripwires,
    /// By how many milliseconds this world's clock is ahead of the machine's.
    ahead: Arc<AtomicI64>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let state = State {
            accounts: Accounts::new(seed),
            domains: BTreeMap::new(),
            clusters: Clusters::new(seed),
            issuers: Issuers::default(),
            faults: Faults::default(),
            writers: Vec::new(),
            calls: Vec::new(),
            seed,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            wires: Tripwires::default(),
            ahead: Arc::default(),
        }
    }

    /// Returns the time as this world has it.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_millis(self.ahead.load(Ordering::Relaxed))
    }

    /// Sets by how much this world's clock is ahead of the machine's.
    pub(super) fn set_ahead(&self, ahead: SignedDuration) {
        let millis = i64::try_from(ahead.as_millis()).expect("a test's clock is off by less");
        self.ahead.store(millis, Ordering::Relaxed);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a domain by its ARN, or by its name if only one has it.
    pub(super) fn domain_arn(&self, name: &str) -> Result<String, String> {
        let state = self.lock();
        let found: Vec<&String> = state
            .domains
            .iter()
            .filter(|(arn, domain)| *arn == name || domain.site.domain == name)
            .map(|(arn, _)| arn)
            .collect();
        match found[..] {
            [arn] => Ok(arn.clone()),
            [] => Err(format!("there is no domain {name}")),
            _ => Err(format!(
                "more than one domain is called {name}: use the ARN"
            )),
        }
    }

    /// Works on a domain after letting time pass.
    ///
    /// # Panics
    ///
    /// If it was deleted.
    pub(super) fn with_domain<T>(
        &self,
        arn: &str,
        work: impl FnOnce(&mut Domain, &Accounts) -> T,
    ) -> T {
        let mut state = self.lock();
        let State {
            accounts, domains, ..
        } = &mut *state;
        let domain = domains.get_mut(arn).expect("the domain was not deleted");
        domain.advance(false, accounts, self.now());
        work(domain, accounts)
    }

    pub(super) fn policy(&self, arn: &str) -> String {
        self.with_domain(arn, |domain, accounts| domain.shown().read(accounts))
    }

    pub(super) fn write_externally(&self, arn: &str, document: &str) {
        self.with_domain(arn, |domain, accounts| {
            let kept = stored::keep(document, &domain.site, accounts, domain.next_order());
            domain.store(kept, document, "external", accounts, self.now());
            domain.work_on_others();
        });
    }

    /// Runs the external writer that waits for an update of this domain, if there is one.
    pub(super) fn run_external_writer(&self, arn: &str) {
        let writer = {
            let mut state = self.lock();
            let waiting = state.writers.iter().position(|(domain, _)| domain == arn);
            let known = state.domains.contains_key(arn);
            waiting
                .filter(|_| known)
                .map(|position| state.writers.remove(position).1)
        };
        // Not under the lock: the writer may use the handle.
        if let Some(writer) = writer {
            let document = writer(&self.policy(arn));
            self.write_externally(arn, &document);
        }
    }

    /// Lets the writer that undoes each update of this domain do so, if there is one.
    pub(super) fn undo_update(&self, arn: &str) {
        let undone_by = self.with_domain(arn, |domain, _| domain.undone_by.clone());
        if let Some(document) = undone_by {
            self.write_externally(arn, &document);
        }
    }

    /// Returns the credentials of an account's admin; account and admin are made at the first call.
    pub(super) fn admin(&self, account: &str) -> Credentials {
        let accounts = &mut self.lock().accounts;
        accounts.open(account, "aws");
        let new = NewPrincipal {
            account,
            kind: Kind::User,
            path: "/",
            name: ADMIN,
            trust: None,
        };
        accounts.create(new, self.now());
        accounts
            .user_credentials(account, ADMIN)
            .expect("the admin exists")
    }

    pub(super) fn create_domain(
        &self,
        account: &str,
        region: &str,
        name: &str,
        options: DomainOptions,
    ) -> Result<String, String> {
        let mut state = self.lock();
        let partition = match region {
            _ if region.starts_with("cn-") => "aws-cn",
            _ if region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        };
        state.accounts.open(account, partition);
        let site = Site {
            partition: partition.to_owned(),
            region: region.to_owned(),
            account: account.to_owned(),
            domain: name.to_owned(),
            vpc: options.vpc_id.is_some(),
            fgac: options.fine_grained,
            takes_deleted: options.takes_deleted,
        };
        let arn = site.arn();
        if state.domains.contains_key(&arn) {
            return Err(format!("{arn} exists already"));
        }
        let domain = Domain::new(site, options, &state.accounts, state.seed, self.now());
        state.domains.insert(arn.clone(), domain);
        Ok(arn)
    }
}
