//! EKS, as far as a cluster's issuer and its Pod Identity associations go. It answers for clusters
//! of the caller's account and region.
//!
//! The list of associations does not tell their roles, as at AWS; and what is made or removed shows
//! only after a while, see [`super::FakeAws::associations_propagate_in`].

use std::collections::BTreeMap;

use axum::http::Method;
use jiff::{SignedDuration, Timestamp};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::State;
use super::accounts::Caller;
use super::seeded::Seeded;
use super::wire::{Answer, Refusal, Service, form};

/// The most associations of a page.
const LARGEST_PAGE: usize = 100;

/// A cluster by its account, its region and its name.
pub(crate) type Place = (String, String, String);

/// Every cluster of this world.
pub(crate) struct Clusters {
    by_place: BTreeMap<Place, Cluster>,
    /// How long calls do not see that an association is made or removed.
    pub(crate) propagation: SignedDuration,
    ids: Seeded,
}

/// One cluster.
struct Cluster {
    issuer: String,
    /// In the order in which they were made.
    associations: Vec<Association>,
}

/// A Pod Identity association.
#[derive(Clone, Debug)]
struct Association {
    id: String,
    new: NewAssociation,
    seen_from: Timestamp,
    seen_until: Option<Timestamp>,
}

/// What a new association is made of.
#[derive(Clone, Debug)]
pub(crate) struct NewAssociation {
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) role: String,
    pub(crate) target_role: Option<String>,
    /// Narrows what sessions may do.
    pub(crate) policy: Option<String>,
}

impl Clusters {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            by_place: BTreeMap::new(),
            propagation: SignedDuration::ZERO,
            ids: Seeded::new(seed, "eks"),
        }
    }

    /// Creates a cluster and returns its issuer; `None` if there is one of that name.
    pub(crate) fn create(&mut self, place: Place) -> Option<&str> {
        if self.by_place.contains_key(&place) {
            return None;
        }
        let id = self.ids.text(32, b"0123456789ABCDEF");
        let cluster = Cluster {
            issuer: format!("https://oidc.eks.{}.amazonaws.com/id/{id}", place.1),
            associations: Vec::new(),
        };
        Some(&self.by_place.entry(place).or_insert(cluster).issuer)
    }

    /// Returns a cluster's issuer.
    pub(crate) fn issuer(&self, place: &Place) -> Option<&str> {
        self.by_place.get(place).map(|it| it.issuer.as_str())
    }

    /// Gives a cluster another issuer, and says whether there is such a cluster.
    pub(crate) fn set_issuer(&mut self, place: &Place, issuer: &str) -> bool {
        let cluster = self.by_place.get_mut(place);
        cluster
            .map(|it| issuer.clone_into(&mut it.issuer))
            .is_some()
    }

    /// Returns the association of a service account, as far as calls see it.
    pub(crate) fn associated(
        &self,
        place: &Place,
        (namespace, account): (&str, &str),
        now: Timestamp,
    ) -> Option<&NewAssociation> {
        let mut seen = self.by_place.get(place)?.associations.iter();
        let found = seen.find(|it| {
            it.is_seen(now) && it.new.namespace == namespace && it.new.service_account == account
        });
        found.map(|it| &it.new)
    }

    /// Makes an association and returns its id.
    ///
    /// # Errors
    ///
    /// Says that there is no such cluster, or that the service account has an association.
    pub(crate) fn associate(
        &mut self,
        place: &Place,
        new: NewAssociation,
        now: Timestamp,
    ) -> Result<String, String> {
        let id = self.ids.text(17, b"abcdefghijklmnopqrstuvwxyz0123456789");
        let id = format!("a-{id}");
        let cluster = self.by_place.get_mut(place);
        let cluster = cluster.ok_or_else(|| format!("there is no cluster {}", place.2))?;
        let taken = cluster.associations.iter().any(|it| {
            it.seen_until.is_none()
                && (&it.new.namespace, &it.new.service_account)
                    == (&new.namespace, &new.service_account)
        });
        if taken {
            return Err(format!(
                "Association already exists: {}/{}",
                new.namespace, new.service_account
            ));
        }
        cluster.associations.push(Association {
            id: id.clone(),
            new,
            seen_from: now + self.propagation,
            seen_until: None,
        });
        Ok(id)
    }

    /// Changes the roles of an association, at once.
    pub(crate) fn change(&mut self, id: &str, role: &str, target_role: Option<&str>) -> bool {
        let Some(association) = self.find(id) else {
            return false;
        };
        role.clone_into(&mut association.new.role);
        association.new.target_role = target_role.map(str::to_owned);
        true
    }

    /// Removes an association, and says whether there was one.
    pub(crate) fn dissociate(&mut self, id: &str, now: Timestamp) -> bool {
        let until = now + self.propagation;
        let Some(association) = self.find(id) else {
            return false;
        };
        association.seen_until = Some(until);
        true
    }

    fn find(&mut self, id: &str) -> Option<&mut Association> {
        let all = self.by_place.values_mut();
        all.flat_map(|it| &mut it.associations)
            .find(|it| it.id == id && it.seen_until.is_none())
    }
}

impl Association {
    fn is_seen(&self, now: Timestamp) -> bool {
        self.seen_from <= now && self.seen_until.is_none_or(|until| now < until)
    }

    /// Returns what a list shows.
    fn summary(&self, caller: &Caller, region: &str, cluster: &str) -> Value {
        json!({
            "clusterName": cluster,
            "namespace": self.new.namespace,
            "serviceAccount": self.new.service_account,
            "associationId": self.id,
            "associationArn": format!(
                "arn:{}:eks:{region}:{}:podidentityassociation/{cluster}/{}",
                caller.partition, caller.account, self.id
            ),
        })
    }

    /// Returns the whole of it.
    fn description(&self, caller: &Caller, region: &str, cluster: &str) -> Value {
        let mut shown = self.summary(caller, region, cluster);
        shown["roleArn"] = json!(self.new.role);
        if let Some(target) = &self.new.target_role {
            shown["targetRoleArn"] = json!(target);
        }
        if let Some(policy) = &self.new.policy {
            shown["policy"] = json!(policy);
        }
        shown
    }
}

/// Returns the operation of a request and the cluster that it names.
pub(crate) fn route(method: &Method, path: &str) -> Option<(&'static str, String)> {
    let rest = path.strip_prefix("/clusters")?;
    let parts: Vec<&str> = rest.split('/').skip(1).collect();
    let operation = match (method.as_str(), &parts[..]) {
        ("POST", []) => "CreateCluster",
        ("GET", [_]) => "DescribeCluster",
        ("POST", [_, "pod-identity-associations"]) => "CreatePodIdentityAssociation",
        ("GET", [_, "pod-identity-associations"]) => "ListPodIdentityAssociations",
        ("GET", [_, "pod-identity-associations", _]) => "DescribePodIdentityAssociation",
        ("DELETE", [_, "pod-identity-associations", _]) => "DeletePodIdentityAssociation",
        _ => return None,
    };
    let cluster = percent_decode_str(parts.first().copied().unwrap_or_default());
    Some((operation, cluster.decode_utf8_lossy().into_owned()))
}

/// One call.
pub(crate) struct Call<'a> {
    pub(crate) operation: &'a str,
    pub(crate) cluster: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) body: &'a Value,
    pub(crate) region: &'a str,
    pub(crate) caller: &'a Caller,
    pub(crate) now: Timestamp,
}

impl Call<'_> {
    fn place(&self, cluster: &str) -> Place {
        let account = self.caller.account.clone();
        (account, self.region.to_owned(), cluster.to_owned())
    }

    /// Returns what an address ends with: the id of an association.
    fn id(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// Returns a text that a body must have.
    fn text(&self, member: &str) -> Result<String, Refusal> {
        let text = self.body[member].as_str().filter(|it| !it.is_empty());
        text.map(str::to_owned)
            .ok_or_else(|| invalid(&format!("{member} is required.")))
    }
}

/// Answers a call.
pub(crate) fn answer(state: &mut State, call: &Call<'_>) -> Result<Answer, Refusal> {
    let body = match call.operation {
        "CreateCluster" => create_cluster(state, call)?,
        "DescribeCluster" => {
            let issuer = &find(state, call)?.issuer;
            described_cluster(call, call.cluster, issuer)
        }
        "CreatePodIdentityAssociation" => create_association(state, call)?,
        "ListPodIdentityAssociations" => list(state, call)?,
        "DescribePodIdentityAssociation" => found(state, call)?,
        "DeletePodIdentityAssociation" => {
            let shown = found(state, call)?;
            state.clusters.dissociate(call.id(), call.now);
            shown
        }
        other => return Err(Refusal::unknown_operation(Service::Eks, other)),
    };
    Ok(Answer::Json(body))
}

fn find<'a>(state: &'a State, call: &Call<'_>) -> Result<&'a Cluster, Refusal> {
    let cluster = state.clusters.by_place.get(&call.place(call.cluster));
    cluster.ok_or_else(|| not_found(format!("No cluster found for name: {}.", call.cluster)))
}

fn create_cluster(state: &mut State, call: &Call<'_>) -> Result<Value, Refusal> {
    let name = call.text("name")?;
    call.text("roleArn")?;
    let created = state.clusters.create(call.place(&name));
    let issuer =
        created.ok_or_else(|| in_use(format!("Cluster already exists with name: {name}")))?;
    Ok(described_cluster(call, &name, issuer))
}

fn described_cluster(call: &Call<'_>, name: &str, issuer: &str) -> Value {
    let Call { caller, region, .. } = *call;
    let arn = format!(
        "arn:{}:eks:{region}:{}:cluster/{name}",
        caller.partition, caller.account
    );
    json!({"cluster": {
        "name": name,
        "arn": arn,
        "status": "ACTIVE",
        "identity": {"oidc": {"issuer": issuer}},
    }})
}

fn create_association(state: &mut State, call: &Call<'_>) -> Result<Value, Refusal> {
    find(state, call)?;
    let optional = |member: &str| call.body[member].as_str().map(str::to_owned);
    let new = NewAssociation {
        namespace: call.text("namespace")?,
        service_account: call.text("serviceAccount")?,
        role: call.text("roleArn")?,
        target_role: optional("targetRoleArn"),
        policy: optional("policy"),
    };
    let place = call.place(call.cluster);
    let made = state.clusters.associate(&place, new, call.now);
    let id = made.map_err(in_use)?;
    let cluster = find(state, call)?;
    let made = cluster.associations.iter().find(|it| it.id == id);
    let made = made.expect("it was made just now");
    Ok(json!({"association": made.description(call.caller, call.region, call.cluster)}))
}

fn list(state: &State, call: &Call<'_>) -> Result<Value, Refusal> {
    let query = form(call.query);
    let wanted = |key: &str, value: &str| query.get(key).is_none_or(|it| it == value);
    let cluster = find(state, call)?;
    let found: Vec<&Association> = cluster
        .associations
        .iter()
        .filter(|it| it.is_seen(call.now))
        .filter(|it| wanted("namespace", &it.new.namespace))
        .filter(|it| wanted("serviceAccount", &it.new.service_account))
        .collect();
    let (page, next) = page(&found, &query)?;
    let shown: Vec<Value> = page
        .iter()
        .map(|it| it.summary(call.caller, call.region, call.cluster))
        .collect();
    Ok(json!({"associations": shown, "nextToken": next}))
}

/// Returns the association that a call names.
fn found(state: &State, call: &Call<'_>) -> Result<Value, Refusal> {
    let cluster = find(state, call)?;
    let mut seen = cluster
        .associations
        .iter()
        .filter(|it| it.is_seen(call.now));
    let found = seen.find(|it| it.id == call.id()).ok_or_else(|| {
        let id = call.id();
        not_found(format!("No association found for associationId: {id}"))
    })?;
    Ok(json!({"association": found.description(call.caller, call.region, call.cluster)}))
}

/// Cuts a page out of a list; its token is the place of the next one.
fn page<'a>(
    found: &'a [&'a Association],
    query: &BTreeMap<String, String>,
) -> Result<(&'a [&'a Association], Option<String>), Refusal> {
    let number = |key: &str| query.get(key).map(|text| text.parse::<usize>());
    let size = match number("maxResults") {
        None => LARGEST_PAGE,
        Some(Ok(size @ 1..=LARGEST_PAGE)) => size,
        Some(_) => return Err(invalid("maxResults must be between 1 and 100.")),
    };
    let begin = match number("nextToken") {
        None => 0,
        Some(Ok(begin)) if begin <= found.len() => begin,
        Some(_) => return Err(invalid("The nextToken is not valid.")),
    };
    let end = found.len().min(begin + size);
    let next = (end < found.len()).then(|| end.to_string());
    Ok((&found[begin..end], next))
}

fn not_found(message: String) -> Refusal {
    Refusal::new("ResourceNotFoundException", 404, message)
}

fn in_use(message: String) -> Refusal {
    Refusal::new("ResourceInUseException", 409, message)
}

fn invalid(message: &str) -> Refusal {
    Refusal::new("InvalidParameterException", 400, message)
}
