//! Everything that was asked of the operator, as the API server had it, with the times.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt as _;
use jiff::Timestamp;
use kube::api::DynamicObject;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::scene::condition;
use super::{OPERATOR_NAMESPACE, resource};
use crate::common::oracle::Sighting;

/// The kinds that are watched: what is asked, and what the operator keeps.
const KINDS: [&str; 3] = ["OpenSearchDomain", "DomainAccess", "ConfigMap"];

/// A record of all domains and grants of a world, from its start until it is dropped.
pub(crate) struct Chronicle {
    seen: Arc<Mutex<Seen>>,
    watches: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    sightings: Vec<Sighting>,
    /// What there is, by kind, namespace and name.
    latest: BTreeMap<(&'static str, String, String), Value>,
}

impl Chronicle {
    /// Begins to write down what there is and what changes.
    pub(crate) fn start(client: &Client) -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let watch = |kind: &'static str| {
            let seen = Arc::clone(&seen);
            let (client, resource) = (client.clone(), resource(kind));
            let objects: Api<DynamicObject> = if kind == "ConfigMap" {
                Api::namespaced_with(client, OPERATOR_NAMESPACE, &resource)
            } else {
                Api::all_with(client, &resource)
            };
            let events = watcher(objects, watcher::Config::default());
            let mut events = events.default_backoff().boxed();
            tokio::spawn(async move {
                let mut listed = BTreeSet::new();
                while let Some(event) = events.next().await {
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    match event {
                        Ok(Event::Apply(object)) => seen.note(kind, &object, false),
                        Ok(Event::InitApply(object)) => {
                            listed.insert(object.metadata.uid.clone().unwrap_or_default());
                            seen.note(kind, &object, false);
                        }
                        Ok(Event::Delete(object)) => seen.note(kind, &object, true),
                        Ok(Event::Init) => listed.clear(),
                        // What went while nobody watched leaves no event.
                        Ok(Event::InitDone) => seen.note_gone(kind, &listed),
                        // Tried again by itself.
                        Err(_) => {}
                    }
                }
            })
        };
        let watches = KINDS.map(watch).into();
        Self { seen, watches }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns everything that was asked so far, in order: domains and grants without their status.
    pub(crate) fn sightings(&self) -> Vec<Sighting> {
        self.seen().sightings.clone()
    }

    /// Forgets what was asked so far.
    pub(crate) fn forget(&self) {
        self.seen().sightings.clear();
    }

    /// Returns an object as it is now; `Null` if there is none.
    pub(crate) fn object(&self, kind: &'static str, namespace: &str, name: &str) -> Value {
        let key = (kind, namespace.to_owned(), name.to_owned());
        self.seen().latest.get(&key).cloned().unwrap_or_default()
    }

    /// Returns the grants of a namespace, by name.
    pub(crate) fn grants(&self, namespace: &str) -> BTreeMap<String, Value> {
        let seen = self.seen();
        let from = ("DomainAccess", namespace.to_owned(), String::new());
        let of_kind = seen.latest.range(from..);
        let there = of_kind.take_while(|((kind, place, _), _)| {
            *kind == "DomainAccess" && place.as_str() == namespace
        });
        there
            .map(|((.., name), grant)| (name.clone(), grant.clone()))
            .collect()
    }

    /// Tells how many grants are in place, of all.
    pub(crate) fn ready_grants(&self) -> usize {
        let seen = self.seen();
        let ready = |grant: &&Value| {
            let ready = condition(grant, "Ready");
            ready["status"] == "True"
                && ready["observedGeneration"] == grant["metadata"]["generation"]
        };
        let grants = seen
            .latest
            .iter()
            .filter(|((kind, ..), _)| *kind == "DomainAccess");
        grants.map(|(_, grant)| grant).filter(ready).count()
    }
}

impl Seen {
    fn note(&mut self, kind: &'static str, object: &DynamicObject, gone: bool) {
        let at = Timestamp::now();
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let name = object.metadata.name.clone().unwrap_or_default();
        let mut object = serde_json::to_value(object).unwrap_or_default();
        // What a list holds has no kind of its own.
        object["kind"] = kind.into();
        let key = (kind, namespace, name);
        if gone {
            self.latest.remove(&key);
        } else {
            self.latest.insert(key, object.clone());
        }
        if kind != "ConfigMap" {
            // What the operator says about it is nobody's order.
            object["status"].take();
            self.sightings.push(Sighting { at, object, gone });
        }
    }

    /// Takes note that what a list lacks is gone.
    fn note_gone(&mut self, kind: &'static str, listed: &BTreeSet<String>) {
        let uid = |object: &Value| object["metadata"]["uid"].as_str().map(str::to_owned);
        let known = self.latest.iter().filter(|((of, ..), _)| *of == kind);
        let lacks = known.filter(|(_, it)| !listed.contains(&uid(it).unwrap_or_default()));
        let lacks: Vec<_> = lacks.map(|(key, it)| (key.clone(), it.clone())).collect();
        for (key, mut object) in lacks {
            self.latest.remove(&key);
            if kind != "ConfigMap" {
                object["status"].take();
                let (at, gone) = (Timestamp::now(), true);
                self.sightings.push(Sighting { at, object, gone });
            }
        }
    }
}

impl Drop for Chronicle {
    fn drop(&mut self) {
        for watch in &self.watches {
            watch.abort();
        }
    }
}
