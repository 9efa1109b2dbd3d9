//! Room in the policy: which grants it has to do without where not all of them fit.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::{Input, SIZE_BUDGET, compose, distinct, owned, union};
use crate::api::condition::Reason;
use crate::policy::Rejection;
use crate::policy::compile::Compiled;
use crate::policy::document::SIZE_LIMIT;
use crate::policy::ownership::Split;
use crate::policy::permission::Permissions;
use crate::policy::validate::GrantKey;
use crate::policy::verdict::Verdict;

/// Returns a length that no policy of all grants stays under: it spells every principal once. Saves
/// composing one that is far too large.
pub(super) fn least_size<'a>(grants: impl IntoIterator<Item = &'a Compiled>) -> usize {
    let mut principals: HashSet<&str> = HashSet::new();
    for permissions in distinct(grants) {
        let mut last = None;
        for (permission, _) in permissions.iter() {
            // In order, what is about one principal comes together.
            if !last.is_some_and(|last| Arc::ptr_eq(last, &permission.principal)) {
                principals.insert(&permission.principal);
                last = Some(&permission.principal);
            }
        }
    }
    // Another's statement may spell a whole account by its id.
    let least = |name: &&str| {
        if name.ends_with(":root") {
            12
        } else {
            name.len()
        }
    };
    principals.iter().map(least).sum()
}

/// Chooses which grants a policy that would be too large has to do without: those that are not in
/// it yet, the youngest first.
///
/// Grants are admitted oldest first, and what is in the policy already stays in, however much others
/// have written beside it. The size grows with each grant, so the last that fits is found by
/// halving. `kept` is what stays in any case.
pub(super) fn shed(
    input: &Input<'_>,
    compiled: &BTreeMap<GrantKey, Compiled>,
    divided: &Split,
    kept: &Permissions,
) -> Vec<(GrantKey, Rejection)> {
    let created = |key: &GrantKey| match input.grants.get(key) {
        Some(Verdict::Valid(grant) | Verdict::Undecided(grant, _)) => grant.created,
        _ => None,
    };
    let in_place = |key: &GrantKey| {
        compiled
            .get(key)
            .is_some_and(|grant| grant.permissions.is_subset(&divided.ours))
    };
    let mut order: Vec<&GrantKey> = compiled.keys().collect();
    order.sort_by_cached_key(|key| (!in_place(key), created(key).unwrap_or(Timestamp::MAX), *key));
    let size_of_first = |count: usize| {
        let first = order.iter().take(count);
        let mut desired = union(first.filter_map(|key| compiled.get(*key)));
        desired.extend(kept);
        let owned = owned(input, divided, desired);
        compose(input, divided, &owned).to_text().len()
    };
    // What fits is few beside what a cluster may ask for, so the search begins there.
    let mut fits = order.iter().filter(|key| in_place(key)).count();
    let mut too_many = order.len().min(fits + 64);
    while too_many < order.len() && size_of_first(too_many) <= SIZE_BUDGET {
        fits = too_many;
        too_many = (too_many * 2).min(order.len());
    }
    while too_many - fits > 1 {
        let middle = usize::midpoint(fits, too_many);
        if size_of_first(middle) <= SIZE_BUDGET {
            fits = middle;
        } else {
            too_many = middle;
        }
    }
    let rejection = Rejection::new(
        Reason::PolicyTooLarge,
        "",
        format!(
            "the domain's access policy would be larger than {SIZE_BUDGET} of the {SIZE_LIMIT} characters that AWS stores; older grants stay. Join grants, use wildcards in paths, or ask the domain's admin for room"
        ),
    );
    order
        .into_iter()
        .skip(fits)
        .map(|key| (key.clone(), rejection.clone()))
        .collect()
}
