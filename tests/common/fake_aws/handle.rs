//! The handles of one account and of one domain.

use std::time::Duration;

use super::accounts::{Kind, NewPrincipal, trust_in};
use super::domain::{DomainOptions, Period};
use super::eks::NewAssociation;
use super::gate::Gate;
use super::record::Version;
use super::{FakeAws, World};

/// What a role is made of beyond its name.
#[derive(Clone, Debug, Default)]
pub(crate) struct RoleOptions {
    path: Option<String>,
    trusted: Option<Vec<String>>,
    external_id: Option<String>,
}

impl RoleOptions {
    /// Sets the path, for example `/team/`; the default is `/`.
    pub(crate) fn path(mut self, path: &str) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    /// Adds a principal that may assume the role; without any, the role trusts its own account.
    pub(crate) fn trusts(mut self, principal: &str) -> Self {
        self.trusted
            .get_or_insert_default()
            .push(principal.to_owned());
        self
    }

    /// Demands an external id of whoever assumes the role.
    pub(crate) fn external_id(mut self, id: &str) -> Self {
        self.external_id = Some(id.to_owned());
        self
    }
}

/// One account of the fake.
#[derive(Clone)]
pub(crate) struct AccountHandle<'a> {
    pub(super) aws: &'a FakeAws,
    pub(super) id: String,
}

impl AccountHandle<'_> {
    /// Creates a role that trusts its own account.
    ///
    /// # Panics
    ///
    /// If there is one of that name.
    pub(crate) fn role(self, name: &str) -> Self {
        self.role_with(name, RoleOptions::default())
    }

    /// Creates a role with a path or a trust policy of its own.
    pub(crate) fn role_with(self, name: &str, options: RoleOptions) -> Self {
        let RoleOptions {
            path,
            trusted,
            external_id,
        } = options;
        let trust = trusted.or_else(|| external_id.as_ref().map(|_| vec![self.id.clone()]));
        let trust = trust.map(|trusted| trust_in(&trusted, external_id.as_deref()));
        self.create(Kind::Role, path.as_deref().unwrap_or("/"), name, trust);
        self
    }

    /// Creates an OIDC provider for an issuer (`https://...`), for tokens of these audiences.
    pub(crate) fn provider(self, issuer: &str, audiences: &[&str]) -> Self {
        let bare = issuer.strip_prefix("https://").unwrap_or(issuer);
        let accounts = &mut self.aws.world.lock().accounts;
        accounts.create_provider(&self.id, bare, audiences);
        self
    }

    /// Creates a user.
    ///
    /// # Panics
    ///
    /// If there is one of that name.
    pub(crate) fn user(self, name: &str) -> Self {
        self.create(Kind::User, "/", name, None);
        self
    }

    /// Creates a public domain without fine-grained access control and without a policy.
    pub(crate) fn domain(self, name: &str, region: &str) -> Self {
        self.domain_with(name, region, DomainOptions::default())
    }

    /// Creates a domain.
    ///
    /// # Panics
    ///
    /// If the account has one of that name in that region.
    pub(crate) fn domain_with(self, name: &str, region: &str, options: DomainOptions) -> Self {
        let created = self
            .aws
            .world
            .create_domain(&self.id, region, name, options);
        created.expect("a test names its domains apart");
        self
    }

    /// Creates an EKS cluster.
    ///
    /// # Panics
    ///
    /// If the account has one of that name in that region.
    pub(crate) fn cluster(self, name: &str, region: &str) -> Self {
        let place = (self.id.clone(), region.to_owned(), name.to_owned());
        let mut state = self.aws.world.lock();
        let created = state.clusters.create(place).is_some();
        drop(state);
        assert!(created, "a test names its clusters apart");
        self
    }

    /// Makes a Pod Identity association in a cluster, and returns its id.
    ///
    /// # Panics
    ///
    /// If there is no such cluster, or the service account has an association.
    pub(crate) fn associate(&self, region: &str, cluster: &str, new: NewAssociation) -> String {
        let place = (self.id.clone(), region.to_owned(), cluster.to_owned());
        let now = self.aws.world.now();
        let made = self.aws.world.lock().clusters.associate(&place, new, now);
        made.expect("a test associates once")
    }

    fn create(&self, kind: Kind, path: &str, name: &str, trust: Option<String>) {
        let new = NewPrincipal {
            account: &self.id,
            kind,
            path,
            name,
            trust,
        };
        let mut state = self.aws.world.lock();
        let created = state.accounts.create(new, self.aws.world.now());
        assert!(
            created.is_some(),
            "{} has a {kind:?} {name} already",
            self.id
        );
    }
}

/// One domain of the fake.
#[derive(Clone)]
pub(crate) struct DomainHandle<'a> {
    pub(super) world: &'a World,
    pub(super) arn: String,
}

impl DomainHandle<'_> {
    pub(crate) fn arn(&self) -> &str {
        &self.arn
    }

    /// Returns the policy as the API reads it now, without counting as a read.
    pub(crate) fn policy(&self) -> String {
        self.world.policy(&self.arn)
    }

    /// Returns every version that was ever stored, the first one included.
    pub(crate) fn versions(&self) -> Vec<Version> {
        self.world
            .with_domain(&self.arn, |domain, _| domain.versions.clone())
    }

    /// Returns how many `UpdateDomainConfig` calls were accepted; dry runs and external writes do
    /// not count.
    pub(crate) fn updates(&self) -> usize {
        self.world
            .with_domain(&self.arn, |domain, _| domain.accepted_updates)
    }

    /// Stores a policy as Terraform or a person at the console would, at once and without any
    /// check.
    pub(crate) fn set_policy_externally(&self, document: &str) {
        self.world.write_externally(&self.arn, document);
    }

    /// Lets an external writer replace the policy right before the next update of this domain is
    /// judged: between what its caller read and what it writes. The writer is given the policy as
    /// it is read at that moment.
    pub(crate) fn before_next_update(&self, writer: impl FnOnce(&str) -> String + Send + 'static) {
        self.world
            .lock()
            .writers
            .push((self.arn.clone(), Box::new(writer)));
    }

    /// Has an external writer store a policy after each update, before anybody can read it.
    pub(crate) fn undo_updates(&self, document: &str) {
        self.world.with_domain(&self.arn, |domain, _| {
            domain.undone_by = Some(document.to_owned());
        });
    }

    /// Returns the domain's name.
    pub(crate) fn name(&self) -> String {
        self.world
            .with_domain(&self.arn, |domain, _| domain.site.domain.clone())
    }

    /// Returns what a gateway in front of the domain asks.
    pub(crate) fn gate(&self) -> Gate {
        Gate {
            world: self.world.clone(),
            arn: self.arn.clone(),
        }
    }

    /// Sets the endpoint that is reported from now on.
    pub(crate) fn set_endpoint(&self, endpoint: &str) {
        self.world.with_domain(&self.arn, |domain, _| {
            domain.options.endpoint = Some(endpoint.to_owned());
        });
    }

    /// Sets how long the domain is Processing after each change that is accepted from now on.
    pub(crate) fn processing(&self, period: Period) {
        self.world
            .with_domain(&self.arn, |domain, _| domain.options.processing = period);
    }

    /// Sets how long updates are still refused after reads say Active again.
    pub(crate) fn lag(&self, period: Period) {
        self.world
            .with_domain(&self.arn, |domain, _| domain.options.lag = period);
    }

    /// Ends the processing, or the lag, that the domain is in.
    pub(crate) fn finish_change(&self) {
        self.world.with_domain(&self.arn, |domain, accounts| {
            domain.finish_phase(accounts, self.world.now());
        });
    }

    /// Lets reads return the previous policy while the domain is Processing.
    pub(crate) fn stale_reads(&self, stale: bool) {
        self.world
            .with_domain(&self.arn, |domain, _| domain.stale_reads = stale);
    }

    /// Lets the next accepted change fail when its processing ends: `ValidationFailed`, and the
    /// policy goes back.
    pub(crate) fn fail_next_change(&self, message: &str) {
        self.world.with_domain(&self.arn, |domain, _| {
            domain.fail_next = Some(message.to_owned());
        });
    }

    /// Overrides the `DomainProcessingStatus`, for example with `Creating` or `Isolated`; `None`
    /// ends that.
    pub(crate) fn status(&self, status: Option<&str>) {
        self.world.with_domain(&self.arn, |domain, _| {
            domain.status = status.map(str::to_owned);
        });
    }

    /// Deletes the domain.
    pub(crate) fn delete(self) {
        self.world.lock().domains.remove(&self.arn);
    }
}

/// The faults of the fake.
#[derive(Clone, Copy)]
pub(crate) struct FaultsHandle<'a> {
    pub(super) world: &'a World,
}

impl FaultsHandle<'_> {
    /// Sets a fault on an operation of any service, for example `UpdateDomainConfig`; `*` means all
    /// of them.
    pub(crate) fn inject(self, operation: &str, fault: super::Fault, times: super::Times) {
        self.world
            .lock()
            .faults
            .inject(operation, None, fault, times);
    }

    /// Sets a fault on the calls of an operation that name one domain.
    pub(crate) fn inject_on(
        self,
        domain: &str,
        operation: &str,
        fault: super::Fault,
        times: super::Times,
    ) {
        self.world
            .lock()
            .faults
            .inject(operation, Some(domain), fault, times);
    }

    /// Clears the faults that were set on one domain.
    pub(crate) fn clear_on(self, domain: &str) {
        self.world.lock().faults.clear_on(domain);
    }

    /// Delays an operation until that is cleared.
    pub(crate) fn delay(self, operation: &str, duration: Duration) {
        self.inject(
            operation,
            super::Fault::Delay(duration),
            super::Times::UntilCleared,
        );
    }

    /// Clears the faults of an operation; `*` means all of them.
    pub(crate) fn clear(self, operation: &str) {
        self.world.lock().faults.clear(operation);
    }
}
