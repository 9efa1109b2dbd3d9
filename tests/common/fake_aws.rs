//! Our fake AWS: `es`, `eks`, `iam` and `sts` over real HTTP, for the real AWS SDKs, with the rules of the
//! real service.
//!
//! The emulators that there are store an access policy verbatim and accept everything. This one
//! refuses, delays, normalises and forgets as AWS does, because those are the
//! behaviours that an operator gets wrong. It is a second opinion: it shares no code with the
//! operator, neither for policies nor for signatures.
//!
//! ```text
//!  SDK ──HTTP──► server ─► sigv4 ─► faults ─┬─► es ─► policy (judge, normalise) ─► domain (versions,
//!                                           │                               one change at a time)
//!                                           ├─► eks (clusters, Pod Identity associations)
//!                                           ├─► iam ─► accounts (roles, users, inline policies)
//!                                           └─► sts ─► accounts (sessions) ─► trust
//!  pod ──HTTP──► agent (EKS Pod Identity) ─► token ─► eks, accounts ─► trust
//!  test ──FakeAws── the same state; other processes: the control API under /_fake/, see [`control`]
//! ```
//!
//! ```no_run
//! let aws = FakeAws::start().await;
//! aws.account("111122223333")
//!     .role("es-role")
//!     .domain_with("logs", "eu-west-1", DomainOptions::default().processing(Period::Calls(2)));
//! let (access_key_id, secret) = aws.credentials("111122223333");
//! // AWS_ENDPOINT_URL = aws.url()
//! assert_eq!(aws.domain("logs").policy(), "");
//! ```
//!
//! # Guarantees
//!
//! * Every call is signed correctly by a key that is known here, or it is refused before anything
//!   else is looked at. A token takes the place of a signature in `AssumeRoleWithWebIdentity`.
//! * What is random (unique ids, the order in which policies read back) depends on the seed alone.
//! * A domain is visible only to callers of its account and for its region.
//!
//! # Caveats
//!
//! * Identity policies are stored but not evaluated: every known caller may do everything in its
//!   own account. Use [`Fault::AccessDenied`] for the opposite.
//! * IAM calls are accepted for any region of the scope, since the SDK signs for its own region
//!   when an endpoint is set.
//! * Where AWS is undocumented, a comment at the place says what was chosen.
//! * It runs on the runtime that started it: a test that blocks its only thread, say by waiting for
//!   another process, must use the multi-threaded flavour.

#![allow(
    dead_code,
    unused_imports,
    reason = "every test binary uses another part of the handle"
)]
#![allow(
    clippy::expect_used,
    reason = "an expectation that fails here is a failed test"
)]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) use self::accounts::Credentials;
pub(crate) use self::agent::Agent;
pub(crate) use self::domain::{DomainOptions, Period};
pub(crate) use self::door::{Asked, Caller, action};
pub(crate) use self::eks::NewAssociation;
pub(crate) use self::faults::{Fault, Times};
pub(crate) use self::gate::Gate;
pub(crate) use self::handle::{AccountHandle, DomainHandle, FaultsHandle, RoleOptions};
pub(crate) use self::record::{Call, Version};

use self::accounts::Kind;
use self::world::{State, World};
use super::connection::{Breakable, Switch, Switches};
use super::tripwire::Tripwires;

mod accounts;
mod agent;
mod control;
mod domain;
mod door;
mod eks;
mod es;
mod faults;
mod gate;
mod handle;
mod iam;
mod policy;
mod record;
mod seeded;
mod server;
mod sigv4;
mod sts;
mod token;
mod trust;
mod wire;
mod world;

/// A fake AWS that runs until it is dropped.
pub(crate) struct FakeAws {
    url: String,
    world: World,
    server: JoinHandle<()>,
    switches: Switches,
}

impl FakeAws {
    /// Starts one on a free port of the loopback interface.
    pub(crate) async fn start() -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), 0).await
    }

    /// Starts one on an address, with a seed for everything that is random.
    ///
    /// # Panics
    ///
    /// If the address is taken.
    pub(crate) async fn start_at(address: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind(address)
            .await
            .expect("the address is free");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let world = World::new(seed);
        let switches = Switches::default();
        let service = control::routes()
            .fallback(server::serve)
            .with_state(world.clone())
            .into_make_service_with_connect_info::<Switch>();
        let listener = Breakable {
            listener,
            switches: switches.clone(),
        };
        let server = tokio::spawn(async move {
            axum::serve(listener, service)
                .await
                .expect("axum::serve does not end by itself");
        });
        Self {
            url: format!("http://{address}"),
            world,
            server,
            switches,
        }
    }

    /// Returns what `AWS_ENDPOINT_URL` has to be.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Returns an account, made at the first call, in the partition `aws`.
    pub(crate) fn account(&self, id: &str) -> AccountHandle<'_> {
        self.account_in("aws", id)
    }

    /// Returns an account, made at the first call in the given partition.
    pub(crate) fn account_in(&self, partition: &str, id: &str) -> AccountHandle<'_> {
        self.world.lock().accounts.open(id, partition);
        AccountHandle {
            aws: self,
            id: id.to_owned(),
        }
    }

    /// Returns a domain by its name, or by its ARN if the name is not unique.
    ///
    /// # Panics
    ///
    /// If there is none, or more than one.
    pub(crate) fn domain(&self, name: &str) -> DomainHandle<'_> {
        let arn = self
            .world
            .domain_arn(name)
            .expect("a test names its domains");
        DomainHandle {
            world: &self.world,
            arn,
        }
    }

    /// Returns the faults.
    pub(crate) fn faults(&self) -> FaultsHandle<'_> {
        FaultsHandle { world: &self.world }
    }

    /// Returns the tripwires that every call passes; to them, a caller is its access key id.
    pub(crate) fn tripwires(&self) -> Tripwires {
        self.world.wires.clone()
    }

    // === credentials ===

    /// Returns the access key id and the secret of a user `admin` of the account.
    pub(crate) fn credentials(&self, account: &str) -> (String, String) {
        let credentials = self.world.admin(account);
        (credentials.access_key_id, credentials.secret_access_key)
    }

    /// Returns the access key of a user.
    pub(crate) fn user_credentials(&self, account: &str, user: &str) -> Credentials {
        let credentials = self.world.lock().accounts.user_credentials(account, user);
        credentials.expect("the user exists")
    }

    /// Opens a session of a role without asking its trust policy, as a pod's identity agent would.
    pub(crate) fn session(&self, account: &str, role: &str, session_name: &str) -> Credentials {
        let hour = SignedDuration::from_hours(1);
        let accounts = &mut self.world.lock().accounts;
        let opened = accounts.open_session(account, role, session_name, hour, self.world.now());
        opened.expect("the role exists")
    }

    /// Returns every secret and session token that was ever handed out, for a test to search logs
    /// for.
    pub(crate) fn secrets(&self) -> Vec<String> {
        self.world.lock().accounts.secrets()
    }

    /// Sets how long sessions that are opened from now on last, whatever was asked for.
    pub(crate) fn sessions_last(&self, duration: Duration) {
        self.world.lock().accounts.session_lifetime = Some(signed(duration));
    }

    /// Returns when an access key expires, as its holder was told; never, for a user's.
    pub(crate) fn expiry(&self, access_key_id: &str) -> Option<Timestamp> {
        self.world.lock().accounts.expiry(access_key_id)
    }

    /// Ends all sessions that are open now.
    pub(crate) fn expire_sessions(&self) {
        self.world.lock().accounts.expire_sessions(self.world.now());
    }

    /// Sets by how much AWS's clock is ahead of this machine's: for signatures, sessions and all
    /// dates in answers. Periods of processing are not affected.
    pub(crate) fn clock_is_ahead_by(&self, ahead: SignedDuration) {
        self.world.set_ahead(ahead);
    }

    // === EKS ===

    /// Returns the issuer of a cluster's service account tokens, with `https://`.
    pub(crate) fn issuer(&self, account: &str, region: &str, cluster: &str) -> String {
        let place = (account.to_owned(), region.to_owned(), cluster.to_owned());
        let state = self.world.lock();
        let issuer = state.clusters.issuer(&place);
        issuer.expect("the cluster exists").to_owned()
    }

    /// Gives a cluster the issuer that its API server has.
    pub(crate) fn set_issuer(&self, account: &str, region: &str, cluster: &str, issuer: &str) {
        let place = (account.to_owned(), region.to_owned(), cluster.to_owned());
        let known = self.world.lock().clusters.set_issuer(&place, issuer);
        assert!(known, "there is no cluster {cluster}");
    }

    /// Lets AWS find the keys of an issuer of tokens, in place of its former ones.
    pub(crate) fn publish_keys(&self, issuer: &str, keys: &Value) {
        let issuers = &mut self.world.lock().issuers;
        issuers.publish(issuer, keys.clone());
    }

    /// Lets AWS not reach an issuer of tokens any more.
    pub(crate) fn cut_off(&self, issuer: &str) {
        self.world.lock().issuers.cut_off(issuer);
    }

    /// Starts the Pod Identity agent of a node of a cluster.
    pub(crate) async fn agent(&self, account: &str, region: &str, cluster: &str) -> Agent {
        let anywhere = (Ipv4Addr::LOCALHOST, 0).into();
        self.agent_at(anywhere, account, region, cluster).await
    }

    /// The same, where pods expect it.
    pub(crate) async fn agent_at(
        &self,
        address: SocketAddr,
        account: &str,
        region: &str,
        cluster: &str,
    ) -> Agent {
        let place = (account.to_owned(), region.to_owned(), cluster.to_owned());
        Agent::start(self.world.clone(), place, address).await
    }

    /// Changes the roles of a Pod Identity association.
    pub(crate) fn change_association(&self, id: &str, role: &str, target_role: Option<&str>) {
        let changed = self.world.lock().clusters.change(id, role, target_role);
        assert!(changed, "there is no association {id}");
    }

    /// Removes a Pod Identity association.
    pub(crate) fn dissociate(&self, id: &str) {
        let removed = self.world.lock().clusters.dissociate(id, self.world.now());
        assert!(removed, "there is no association {id}");
    }

    /// Sets how long calls do not see associations that are made, or see those that are removed,
    /// from now on.
    pub(crate) fn associations_propagate_in(&self, duration: Duration) {
        self.world.lock().clusters.propagation = signed(duration);
    }

    // === principals ===

    /// Replaces the trust policy of a role.
    pub(crate) fn set_trust(&self, account: &str, role: &str, document: &Value) {
        let accounts = &mut self.world.lock().accounts;
        let role = accounts.find_mut(account, Kind::Role, role);
        role.expect("the role exists").trust = document.to_string();
    }

    /// Sets how long OpenSearch does not know a principal that is created from now on.
    pub(crate) fn principals_propagate_in(&self, duration: Duration) {
        self.world.lock().accounts.propagation = signed(duration);
    }

    /// Deletes a role and says whether there was one.
    pub(crate) fn delete_role(&self, account: &str, name: &str) -> bool {
        self.delete(account, Kind::Role, name)
    }

    /// Deletes a user and says whether there was one.
    pub(crate) fn delete_user(&self, account: &str, name: &str) -> bool {
        self.delete(account, Kind::User, name)
    }

    fn delete(&self, account: &str, kind: Kind, name: &str) -> bool {
        let accounts = &mut self.world.lock().accounts;
        let arn = accounts
            .find(account, kind, name)
            .map(|found| found.arn.clone());
        arn.is_some_and(|arn| accounts.delete(&arn))
    }

    /// Returns the unique id (`AROA…`) of a role.
    pub(crate) fn role_id(&self, account: &str, role: &str) -> Option<String> {
        let state = self.world.lock();
        state
            .accounts
            .find(account, Kind::Role, role)
            .map(|role| role.unique_id.clone())
    }

    /// Returns the inline policies of a role by name; none if there is no such role.
    pub(crate) fn role_policies(&self, account: &str, role: &str) -> BTreeMap<String, String> {
        let state = self.world.lock();
        let found = state.accounts.find(account, Kind::Role, role);
        found.map(|role| role.inline.clone()).unwrap_or_default()
    }

    /// Puts an inline policy on a role as another writer would, at once and without any check.
    pub(crate) fn attach_externally(&self, account: &str, role: &str, name: &str, document: &str) {
        let accounts = &mut self.world.lock().accounts;
        let role = accounts.find_mut(account, Kind::Role, role);
        let inline = &mut role.expect("the role exists").inline;
        inline.insert(name.to_owned(), document.to_owned());
    }

    /// Removes an inline policy as another writer would.
    pub(crate) fn detach_externally(&self, account: &str, role: &str, name: &str) {
        let accounts = &mut self.world.lock().accounts;
        let role = accounts.find_mut(account, Kind::Role, role);
        role.expect("the role exists").inline.remove(name);
    }

    // === what happened, and short ways to a domain ===

    /// Returns every call so far, refused ones included.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.world.lock().calls.clone()
    }

    /// Returns the calls of one operation.
    pub(crate) fn calls_of(&self, operation: &str) -> Vec<Call> {
        self.calls()
            .into_iter()
            .filter(|call| call.operation == operation)
            .collect()
    }

    /// See [`DomainHandle::policy`].
    pub(crate) fn policy(&self, domain: &str) -> String {
        self.domain(domain).policy()
    }

    /// Returns every version of a domain's policy, and whether the domain has fine-grained access
    /// control; `None` if there is no such domain.
    pub(crate) fn history(
        &self,
        account: &str,
        region: &str,
        name: &str,
    ) -> Option<(Vec<Version>, bool)> {
        let arn = format!("arn:aws:es:{region}:{account}:domain/{name}");
        let state = self.world.lock();
        let domain = state.domains.get(&arn)?;
        Some((domain.versions.clone(), domain.options.fine_grained))
    }

    /// See [`DomainHandle::versions`].
    pub(crate) fn versions(&self, domain: &str) -> Vec<Version> {
        self.domain(domain).versions()
    }

    /// See [`DomainHandle::updates`].
    pub(crate) fn updates(&self, domain: &str) -> usize {
        self.domain(domain).updates()
    }

    /// See [`DomainHandle::set_policy_externally`].
    pub(crate) fn set_policy_externally(&self, domain: &str, document: &str) {
        self.domain(domain).set_policy_externally(document);
    }

    /// See [`DomainHandle::before_next_update`].
    pub(crate) fn before_next_update(
        &self,
        domain: &str,
        writer: impl FnOnce(&str) -> String + Send + 'static,
    ) {
        self.domain(domain).before_next_update(writer);
    }
}

impl Drop for FakeAws {
    fn drop(&mut self) {
        self.server.abort();
        self.switches.break_all();
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).expect("a test's duration is short")
}
