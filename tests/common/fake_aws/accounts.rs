//! Who exists: accounts, their roles and users, and the access keys that sign for them.
//!
//! A principal's unique id (`AROA…`, `AIDA…`) is what policies are stored with; a new principal of
//! the same name gets a new one. Identity policies are kept but not evaluated: every known caller
//! may do everything within its account, unless a fault says otherwise.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};

use super::seeded::Seeded;

/// A role or a user.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Kind {
    Role,
    User,
}

/// One role or user of an account.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) arn: String,
    pub(crate) unique_id: String,
    pub(crate) created: Timestamp,
    /// From when on other services know it; IAM itself knows it at once.
    pub(crate) known_from: Timestamp,
    /// A role's trust policy.
    pub(crate) trust: String,
    /// Inline policies by name.
    pub(crate) inline: BTreeMap<String, String>,
}

/// What a new principal is made of.
pub(crate) struct NewPrincipal<'a> {
    pub(crate) account: &'a str,
    pub(crate) kind: Kind,
    pub(crate) path: &'a str,
    pub(crate) name: &'a str,
    /// A role's trust policy; without one it trusts its own account.
    pub(crate) trust: Option<String>,
}

/// An access key and who holds it.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) secret: String,
    pub(crate) session_token: Option<String>,
    pub(crate) expires: Option<Timestamp>,
    account: String,
    /// The unique id of the user or role.
    holder: String,
    session_name: Option<String>,
}

/// Credentials as a caller needs them.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) session_token: Option<String>,
    pub(crate) expires: Option<Timestamp>,
}

/// Who signed a request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) account: String,
    pub(crate) partition: String,
    /// The user's ARN, or the assumed-role session's.
    pub(crate) arn: String,
    /// The user's ARN, or the ARN of the role behind the session.
    pub(crate) principal_arn: String,
    pub(crate) user_id: String,
    pub(crate) access_key_id: String,
    pub(crate) session_name: Option<String>,
}

impl Caller {
    /// Whoever calls without a signature.
    pub(crate) fn anonymous() -> Self {
        Self {
            account: String::new(),
            partition: String::new(),
            arn: String::new(),
            principal_arn: String::new(),
            user_id: String::new(),
            access_key_id: String::new(),
            session_name: None,
        }
    }
}

/// All accounts of this world.
pub(crate) struct Accounts {
    /// The partition of each account.
    partitions: BTreeMap<String, String>,
    /// All principals, by their unique id.
    principals: BTreeMap<String, Principal>,
    /// The unique id by ARN: a policy may name thousands.
    by_arn: HashMap<String, String>,
    /// The ARN by account, kind and name, since the ARN also has the path.
    by_name: HashMap<(String, Kind, String), String>,
    keys: BTreeMap<String, Key>,
    /// The audiences of each OIDC provider, by its account and its issuer without `https://`.
    providers: BTreeMap<(String, String), Vec<String>>,
    /// How long other services do not know a new principal.
    pub(crate) propagation: SignedDuration,
    /// How long a session really lasts, whatever its caller asked for.
    pub(crate) session_lifetime: Option<SignedDuration>,
    ids: Seeded,
}

impl Accounts {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            partitions: BTreeMap::new(),
            principals: BTreeMap::new(),
            by_arn: HashMap::new(),
            by_name: HashMap::new(),
            keys: BTreeMap::new(),
            providers: BTreeMap::new(),
            propagation: SignedDuration::ZERO,
            session_lifetime: None,
            ids: Seeded::new(seed, "ids"),
        }
    }

    /// Creates the account unless it exists.
    pub(crate) fn open(&mut self, account: &str, partition: &str) {
        assert!(
            account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()),
            "an account id has twelve digits: {account}"
        );
        let opened = self.partitions.entry(account.to_owned());
        opened.or_insert_with(|| partition.to_owned());
    }

    pub(crate) fn partition(&self, account: &str) -> Option<&str> {
        self.partitions.get(account).map(String::as_str)
    }

    /// Returns the secret and the session token of every key that there ever was.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let tokens = self
            .keys
            .values()
            .filter_map(|key| key.session_token.as_ref());
        let secrets = self.keys.values().map(|key| &key.secret);
        secrets.chain(tokens).cloned().collect()
    }

    /// Creates a principal; `None` if the account has one of that kind and name.
    pub(crate) fn create(&mut self, new: NewPrincipal<'_>, now: Timestamp) -> Option<&Principal> {
        let NewPrincipal {
            account,
            kind,
            path,
            name,
            trust,
        } = new;
        let partition = self.partition(account)?.to_owned();
        if self.find(account, kind, name).is_some() {
            return None;
        }
        let (prefix, resource) = match kind {
            Kind::Role => ("AROA", "role"),
            Kind::User => ("AIDA", "user"),
        };
        let root = format!("arn:{partition}:iam::{account}:root");
        let principal = Principal {
            kind,
            name: name.to_owned(),
            path: path.to_owned(),
            arn: format!("arn:{partition}:iam::{account}:{resource}{path}{name}"),
            unique_id: self.ids.id(prefix, 17),
            created: now,
            known_from: now + self.propagation,
            trust: trust.unwrap_or_else(|| trust_in(&[root], None)),
            inline: BTreeMap::new(),
        };
        let (id, arn) = (principal.unique_id.clone(), principal.arn.clone());
        self.by_name
            .insert(name_key(account, kind, name), arn.clone());
        self.by_arn.insert(arn, id.clone());
        Some(self.principals.entry(id).or_insert(principal))
    }

    pub(crate) fn find(&self, account: &str, kind: Kind, name: &str) -> Option<&Principal> {
        self.by_arn(self.by_name.get(&name_key(account, kind, name))?)
    }

    pub(crate) fn find_mut(
        &mut self,
        account: &str,
        kind: Kind,
        name: &str,
    ) -> Option<&mut Principal> {
        let arn = self.by_name.get(&name_key(account, kind, name))?;
        self.principals.get_mut(self.by_arn.get(arn)?)
    }

    pub(crate) fn by_arn(&self, arn: &str) -> Option<&Principal> {
        self.by_unique_id(self.by_arn.get(arn)?)
    }

    pub(crate) fn by_unique_id(&self, id: &str) -> Option<&Principal> {
        self.principals.get(id)
    }

    /// Deletes the principal with that ARN and says whether there was one.
    pub(crate) fn delete(&mut self, arn: &str) -> bool {
        let id = self.by_arn.remove(arn);
        self.by_name.retain(|_, named| named != arn);
        id.is_some_and(|id| self.principals.remove(&id).is_some())
    }

    /// Creates an OIDC provider, or replaces its audiences.
    pub(crate) fn create_provider(&mut self, account: &str, issuer: &str, audiences: &[&str]) {
        let audiences = audiences.iter().map(|it| (*it).to_owned()).collect();
        let place = (account.to_owned(), issuer.to_owned());
        self.providers.insert(place, audiences);
    }

    /// Returns the audiences of an OIDC provider, if the account has it.
    pub(crate) fn provider(&self, account: &str, issuer: &str) -> Option<&[String]> {
        let place = (account.to_owned(), issuer.to_owned());
        self.providers.get(&place).map(Vec::as_slice)
    }

    pub(crate) fn key(&self, access_key_id: &str) -> Option<&Key> {
        self.keys.get(access_key_id)
    }

    /// Says when an access key expires, as its holder was told: in whole seconds.
    pub(crate) fn expiry(&self, access_key_id: &str) -> Option<Timestamp> {
        let expires = self.keys.get(access_key_id)?.expires?;
        Timestamp::from_second(expires.as_second()).ok()
    }

    /// Says who holds an access key; nobody does once the user or role is deleted.
    pub(crate) fn caller(&self, access_key_id: &str) -> Option<Caller> {
        let key = self.keys.get(access_key_id)?;
        let principal = self.by_unique_id(&key.holder)?;
        let partition = self.partition(&key.account)?.to_owned();
        let (arn, user_id) = match &key.session_name {
            Some(session) => (
                format!(
                    "arn:{partition}:sts::{}:assumed-role/{}/{session}",
                    key.account, principal.name
                ),
                format!("{}:{session}", principal.unique_id),
            ),
            None => (principal.arn.clone(), principal.unique_id.clone()),
        };
        Some(Caller {
            account: key.account.clone(),
            partition,
            arn,
            principal_arn: principal.arn.clone(),
            user_id,
            access_key_id: access_key_id.to_owned(),
            session_name: key.session_name.clone(),
        })
    }

    /// Returns the access key of a user, made at the first call.
    pub(crate) fn user_credentials(&mut self, account: &str, name: &str) -> Option<Credentials> {
        let holder = self.find(account, Kind::User, name)?.unique_id.clone();
        let held = self.keys.iter().find(|(_, key)| key.holder == holder);
        let (access_key_id, secret) = if let Some((id, key)) = held {
            (id.clone(), key.secret.clone())
        } else {
            let (id, secret) = (self.ids.id("AKIA", 16), self.ids.secret());
            let key = Key {
                secret: secret.clone(),
                session_token: None,
                expires: None,
                account: account.to_owned(),
                holder,
                session_name: None,
            };
            self.keys.insert(id.clone(), key);
            (id, secret)
        };
        Some(Credentials {
            access_key_id,
            secret_access_key: secret,
            session_token: None,
            expires: None,
        })
    }

    /// Opens a session of a role.
    pub(crate) fn open_session(
        &mut self,
        account: &str,
        role: &str,
        session_name: &str,
        lifetime: SignedDuration,
        now: Timestamp,
    ) -> Option<Credentials> {
        let holder = self.find(account, Kind::Role, role)?.unique_id.clone();
        let expires = now + self.session_lifetime.unwrap_or(lifetime);
        let credentials = Credentials {
            access_key_id: self.ids.id("ASIA", 16),
            secret_access_key: self.ids.secret(),
            session_token: Some(format!("FwoGZXIvYXdzE{}", self.ids.secret())),
            expires: Some(expires),
        };
        let key = Key {
            secret: credentials.secret_access_key.clone(),
            session_token: credentials.session_token.clone(),
            expires: Some(expires),
            account: account.to_owned(),
            holder,
            session_name: Some(session_name.to_owned()),
        };
        self.keys.insert(credentials.access_key_id.clone(), key);
        Some(credentials)
    }

    /// Ends all sessions that are open now.
    pub(crate) fn expire_sessions(&mut self, now: Timestamp) {
        for key in self.keys.values_mut() {
            key.expires = key.expires.map(|expires| expires.min(now));
        }
    }
}

fn name_key(account: &str, kind: Kind, name: &str) -> (String, Kind, String) {
    (account.to_owned(), kind, name.to_owned())
}

/// Writes a trust policy that lets the given principals assume the role, with an external id if one
/// is demanded.
pub(crate) fn trust_in(principals: &[String], external_id: Option<&str>) -> String {
    let mut statement = serde_json::json!({
        "Effect": "Allow",
        "Principal": { "AWS": principals },
        "Action": "sts:AssumeRole",
    });
    if let Some(external_id) = external_id {
        statement["Condition"] =
            serde_json::json!({ "StringEquals": { "sts:ExternalId": external_id } });
    }
    serde_json::json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string()
}
