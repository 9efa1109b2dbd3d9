//! Additions to and removals from a role mapping that others write too.
//!
//! The plugin's API has no precondition: whoever stores a mapping as a whole undoes what another
//! wrote since it was read. So nothing is stored as a whole. An addition is appended, which the
//! plugin does to whatever the list holds by then. A removal names its place in the list, which may
//! be another's by then: hence it is read back, and what was taken from another is put back.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::client::Plugin;
use super::error::Error;
use super::tries::Tries;
use crate::policy::fine_grained::entity::{Entity, EntityKind};
use crate::policy::fine_grained::mapping::Entries;

/// All lists of a mapping.
const LISTS: [&str; 4] = ["users", "backend_roles", "hosts", "and_backend_roles"];

/// Adds entries to a role's mapping, which is made where there is none.
///
/// # Errors
///
/// Fails where the plugin refuses it, or not within 30 s.
pub async fn add(plugin: &Plugin, role: &str, entries: &Entries) -> Result<(), Error> {
    let mut tries = Tries::new();
    loop {
        let read = plugin.read_kind(EntityKind::Mapping).await;
        let error = match read {
            Err(error) => error,
            Ok(mappings) => {
                let patch = additions(role, mappings.get(role), entries, false);
                if patch.is_empty() {
                    return Ok(());
                }
                match plugin
                    .patch(EntityKind::Mapping, &Value::Array(patch))
                    .await
                {
                    // Read again, which is cheap, to see that it is there.
                    Ok(_) => continue,
                    Err(Error::Refused { message }) if message.contains("Missing field") => {
                        let patch = additions(role, mappings.get(role), entries, true);
                        let whole = plugin
                            .patch(EntityKind::Mapping, &Value::Array(patch))
                            .await;
                        match whole {
                            Ok(_) => continue,
                            // The mapping went, or came, since it was read.
                            Err(Error::Refused { .. }) => Error::Conflict,
                            Err(error) => error,
                        }
                    }
                    Err(error) => error,
                }
            }
        };
        tries.again(error).await?;
    }
}

/// Returns the patch that adds what a mapping lacks.
///
/// The API shows every list of a mapping, and stores those alone that were ever given: one that is
/// not stored cannot be appended to. `afresh` makes the lists that look empty.
fn additions(role: &str, mapping: Option<&Value>, entries: &Entries, afresh: bool) -> Vec<Value> {
    let at = pointer(role);
    let Some(mapping) = mapping else {
        let mut value: Map<String, Value> = LISTS
            .iter()
            .map(|list| ((*list).to_owned(), json!([])))
            .collect();
        for (list, wanted) in entries.lists() {
            value.insert(list.to_owned(), json!(wanted));
        }
        let empty = entries.lists().iter().all(|(_, wanted)| wanted.is_empty());
        return if empty {
            Vec::new()
        } else {
            vec![json!({"op": "add", "path": at, "value": value})]
        };
    };
    let mapping = Entity::parse(mapping.clone());
    let mut operations = Vec::new();
    for (list, wanted) in entries.lists() {
        let there: BTreeSet<&str> = mapping.texts(list).collect();
        let lacks = || {
            wanted
                .iter()
                .filter(|entry| !there.contains(entry.as_str()))
        };
        if afresh && there.is_empty() && lacks().next().is_some() {
            operations.push(json!({"op": "add", "path": format!("{at}/{list}"), "value": []}));
        }
        let end = format!("{at}/{list}/-");
        operations.extend(lacks().map(|entry| json!({"op": "add", "path": end, "value": entry})));
    }
    operations
}

/// Removes entries from a role's mapping, and the mapping itself where nothing is left of it and
/// `with_mapping` says so. What is not there is no error.
///
/// # Errors
///
/// Fails where the plugin refuses it, or not within 30 s.
pub async fn remove(
    plugin: &Plugin,
    role: &str,
    entries: &Entries,
    with_mapping: bool,
) -> Result<(), Error> {
    let mut tries = Tries::new();
    // What was taken from another by mistake, and is to be put back.
    let mut owed = Entries::default();
    loop {
        if owed != Entries::default() {
            add(plugin, role, &owed).await?;
            owed = Entries::default();
        }
        let error = match plugin.read_kind(EntityKind::Mapping).await {
            Err(error) => error,
            Ok(mappings) => {
                let Some(before) = mappings.get(role) else {
                    return Ok(());
                };
                let patch = removals(role, before, entries);
                if patch.is_empty() {
                    if with_mapping && is_empty(before) {
                        plugin.delete(EntityKind::Mapping, role).await?;
                    }
                    return Ok(());
                }
                match plugin
                    .patch(EntityKind::Mapping, &Value::Array(patch))
                    .await
                {
                    Ok(_) => match plugin.read_kind(EntityKind::Mapping).await {
                        Ok(after) => {
                            owed = taken(before, after.get(role), entries);
                            continue;
                        }
                        Err(error) => error,
                    },
                    // Shorter by now than it was read.
                    Err(Error::Refused { message }) if is_elsewhere(&message) => Error::Conflict,
                    Err(error) => error,
                }
            }
        };
        tries.again(error).await?;
    }
}

fn is_elsewhere(message: &str) -> bool {
    message.contains("out of bounds") || message.contains("Missing field")
}

fn is_empty(mapping: &Value) -> bool {
    let mapping = Entity::parse(mapping.clone());
    LISTS
        .iter()
        .all(|list| mapping.texts(list).next().is_none())
}

/// Returns the patch that removes entries, the last place first.
///
/// A list that is shorter by then is refused as a whole: each patch first inserts behind the end
/// that was read, and takes that out again.
fn removals(role: &str, mapping: &Value, entries: &Entries) -> Vec<Value> {
    let at = pointer(role);
    let mapping = Entity::parse(mapping.clone());
    let mut operations = Vec::new();
    for (list, unwanted) in entries.lists() {
        let there: Vec<&str> = mapping.texts(list).collect();
        let places = there.iter().enumerate().rev();
        let places: Vec<usize> = places
            .filter(|(_, entry)| unwanted.contains(**entry))
            .map(|(place, _)| place)
            .collect();
        if places.is_empty() {
            continue;
        }
        let end = format!("{at}/{list}/{}", there.len());
        operations.push(json!({"op": "add", "path": end, "value": "end"}));
        operations.push(json!({"op": "remove", "path": end}));
        let ours = places.iter().map(|place| format!("{at}/{list}/{place}"));
        operations.extend(ours.map(|place| json!({"op": "remove", "path": place})));
    }
    operations
}

/// Returns what a removal took from another: the list had moved since it was read.
///
/// It had become shorter before the place of ours, so that each of ours which still stands was
/// missed by a removal that hit an entry behind it: as many come back as were missed, and no more,
/// since what another removed meanwhile must not.
fn taken(before: &Value, after: Option<&Value>, entries: &Entries) -> Entries {
    let (before, after) = (
        Entity::parse(before.clone()),
        Entity::parse(after.cloned().unwrap_or_default()),
    );
    let lost = |list: &str, unwanted: &BTreeSet<String>| {
        let now: BTreeSet<&str> = after.texts(list).collect();
        let ours = |entry: &&str| unwanted.contains(*entry);
        let missed = before.texts(list).filter(|it| ours(it) && now.contains(it));
        let behind = before.texts(list).skip_while(|it| !ours(it));
        let gone = behind.filter(|it| !ours(it) && !now.contains(it));
        gone.take(missed.count()).map(str::to_owned).collect()
    };
    Entries {
        users: lost("users", &entries.users),
        backend_roles: lost("backend_roles", &entries.backend_roles),
    }
}

/// Spells the place of an entity as a JSON pointer (RFC 6901).
fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}
