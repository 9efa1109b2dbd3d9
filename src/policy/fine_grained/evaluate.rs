//! Who may do what: a request held against what the security plugin of a domain has.
//!
//! A request is what it is checked as ([`super::request`]); a caller has the roles whose mappings match it;
//! each check must be met by a role, on every index that is asked for. It is no matter which role
//! meets which.
//!
//! The answer is [`Decision::Unknown`] where the configuration alone cannot tell: where a mapping
//! asks for a host, where a pattern is a regular expression or has a variable, where the body of the
//! request names the indexes, where a pattern that is asked for matches more than the caller may
//! use, and for system indexes.
//!
//! Names are taken for those of indexes without aliases, patterns to match an index, and the domain
//! to refuse what is permitted in part (`do_not_fail_on_forbidden`).

mod caller;
mod pattern;
pub(super) mod role;

use std::collections::{BTreeMap, BTreeSet};

use self::caller::Caller;
use self::pattern::Reach;
pub use self::role::Filters;
use self::role::Role;
use super::entity::SecurityConfig;
use super::request::{Asked, Check, Need, Scope, Unknown};
use crate::policy::evaluate::{Decision, Truth};
use crate::policy::glob;

/// What a request comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The answer.
    pub decision: Decision,
    /// The roles that the caller has.
    pub roles: BTreeSet<String>,
    /// Those of them that permit something of what is asked for.
    pub by: BTreeSet<String>,
    /// The roles of the caller that keep something of the documents back, and what.
    pub filters: BTreeMap<String, Filters>,
    /// Why, for a person.
    pub why: String,
}

/// What the security plugin of a domain has, to be asked.
#[derive(Debug)]
pub struct Plugin<'a> {
    config: &'a SecurityConfig,
    roles: BTreeMap<&'a str, Role<'a>>,
}

/// What a check comes to.
#[derive(Debug)]
enum Outcome {
    /// These roles permit it together.
    Met(BTreeSet<String>),
    /// None does; where.
    Missing(String),
    /// It is not known, for this reason.
    Open(String),
}

impl<'a> Plugin<'a> {
    /// Takes a configuration, and the plugin's own action groups for where the configuration does
    /// not show them.
    #[must_use]
    pub fn new(config: &'a SecurityConfig, groups: &'a BTreeMap<String, Vec<String>>) -> Self {
        let roles = role::roles(config, groups);
        Self { config, roles }
    }

    /// Answers whether a caller may make a request; `None` is a caller that does not sign.
    #[must_use]
    pub fn answer(&self, caller: Option<&str>, asked: Result<&Asked, &Unknown>) -> Answer {
        let caller = Caller::of(caller);
        let held = self.held(&caller);
        let sure = held.iter().filter(|(_, truth)| **truth == Some(true));
        let roles: BTreeSet<String> = sure.map(|(role, _)| (*role).to_owned()).collect();
        let question = Question {
            plugin: self,
            user: caller.name.as_deref(),
            held,
        };
        let mut answer = match asked {
            Ok(asked) => question.judge(asked),
            Err(unknown) => answer(Decision::Unknown, unknown.to_string()),
        };
        if answer.decision == Decision::Deny {
            answer.why = match roles.iter().map(String::as_str).collect::<Vec<_>>() {
                none if none.is_empty() => format!("{}; the caller has no role", answer.why),
                roles => format!("{}; roles: {}", answer.why, roles.join(", ")),
            };
        }
        answer.roles = roles;
        answer
    }

    /// Returns the roles that the caller has or may have.
    fn held(&self, caller: &Caller) -> BTreeMap<&'a str, Truth> {
        let mappings = self.config.mappings.iter();
        let held = mappings.map(|(role, mapping)| (role.as_str(), caller.has(mapping)));
        let mut held: BTreeMap<_, _> = held.collect();
        if caller.may_have_any {
            for role in self.roles.keys() {
                let truth = held.entry(role).or_default();
                *truth = truth.filter(|has| *has);
            }
        }
        held.retain(|_, truth| *truth != Some(false));
        held
    }
}

fn answer(decision: Decision, why: String) -> Answer {
    Answer {
        decision,
        roles: BTreeSet::new(),
        by: BTreeSet::new(),
        filters: BTreeMap::new(),
        why,
    }
}

/// A caller before a plugin.
struct Question<'q, 'a> {
    plugin: &'q Plugin<'a>,
    user: Option<&'q str>,
    held: BTreeMap<&'a str, Truth>,
}

impl Question<'_, '_> {
    fn judge(&self, asked: &Asked) -> Answer {
        let (mut by, mut open, mut notes) = (BTreeSet::new(), None, Vec::new());
        for check in &asked.checks {
            let outcome = match self.outcome(check) {
                Outcome::Missing(why)
                    if asked.leaves_out && matches!(check.scope, Scope::Indexes(_)) =>
                {
                    Outcome::Open(format!("{why}, but some of it is left out again"))
                }
                outcome => outcome,
            };
            match (outcome, check.need) {
                (Outcome::Met(roles), Need::Always) => by.extend(roles),
                (Outcome::Met(_), _) => {}
                (Outcome::Missing(why), Need::Always) => return answer(Decision::Deny, why),
                (Outcome::Missing(why) | Outcome::Open(why), Need::Given(when)) => {
                    notes.push(format!("not where {when}: {why}"));
                }
                (Outcome::Open(why), Need::Always) => open = open.or(Some(why)),
                (Outcome::Missing(why) | Outcome::Open(why), Need::Perhaps(when)) => {
                    open = open.or(Some(format!("it may be that {when}: {why}")));
                }
            }
        }
        if let Some(why) = open {
            return answer(Decision::Unknown, why);
        }
        let filters = self.filters(asked);
        let names: Vec<&str> = by.iter().map(String::as_str).collect();
        let mut why = vec![format!("permitted by {}", names.join(", "))];
        why.extend(filters.iter().map(|(role, filters)| said(role, *filters)));
        if asked.body_may_differ {
            notes.push("not where the body names other indexes".to_owned());
        }
        why.extend(notes);
        Answer {
            by,
            filters,
            ..answer(Decision::Allow, why.join("; "))
        }
    }

    /// Returns the roles that the caller has or may have, as far as the plugin has them.
    fn roles(&self) -> impl Iterator<Item = (&str, Truth, &Role<'_>)> {
        let held = self.held.iter();
        held.filter_map(|(name, truth)| Some((*name, *truth, self.plugin.roles.get(name)?)))
    }

    fn outcome(&self, check: &Check) -> Outcome {
        let action = check.action;
        match &check.scope {
            Scope::Cluster => self.settle(&format!("{action} on the domain"), |role| {
                match role.permits(action) {
                    Some(true) => Reach::All,
                    None => Reach::Open,
                    Some(false) => Reach::None,
                }
            }),
            Scope::Body => {
                let somewhere = self.settle(&format!("{action} on any index"), |role| {
                    match role.permits_somewhere(action) {
                        Some(false) => Reach::None,
                        _ => Reach::All,
                    }
                });
                match somewhere {
                    Outcome::Met(_) => Outcome::Open(format!(
                        "{action} is asked for on indexes that the path does not name"
                    )),
                    other => other,
                }
            }
            Scope::Indexes(indexes) => {
                let (mut by, mut open) = (BTreeSet::new(), None);
                for index in indexes {
                    match self.on(action, index) {
                        Outcome::Met(roles) => by.extend(roles),
                        Outcome::Open(why) => open = open.or(Some(why)),
                        missing @ Outcome::Missing(_) => return missing,
                    }
                }
                open.map_or(Outcome::Met(by), Outcome::Open)
            }
        }
    }

    fn on(&self, action: &str, index: &str) -> Outcome {
        let what = match index {
            "*" => format!("{action} on all indexes"),
            index => format!("{action} on {index}"),
        };
        let outcome = self.settle(&what, |role| match role.reach(action, index, self.user) {
            // There always are others: the plugin's own index is one.
            Reach::Some if index == "*" => Reach::None,
            reach => reach,
        });
        match outcome {
            Outcome::Met(_) if is_guarded(action, index) => Outcome::Open(format!(
                "{what} is about system indexes, which the security plugin guards beside its roles"
            )),
            outcome => outcome,
        }
    }

    /// Asks every role how much it permits.
    fn settle(&self, what: &str, reach: impl Fn(&Role<'_>) -> Reach) -> Outcome {
        let reaches = self
            .roles()
            .map(|(name, has, role)| (name, has, reach(role)));
        let reaches: Vec<_> = reaches
            .filter(|(.., reach)| *reach != Reach::None)
            .collect();
        let met = reaches
            .iter()
            .filter(|(_, has, reach)| *has == Some(true) && *reach == Reach::All);
        let met: BTreeSet<String> = met.map(|(name, ..)| (*name).to_owned()).collect();
        if !met.is_empty() {
            return Outcome::Met(met);
        }
        let Some((name, has, reach)) = reaches
            .into_iter()
            .max_by_key(|(_, has, reach)| (*has, *reach))
        else {
            return Outcome::Missing(format!("no role of the caller permits {what}"));
        };
        Outcome::Open(match (has, reach) {
            (None, _) => format!(
                "role {name} may permit {what}: whether the caller has it depends on something that the question leaves open"
            ),
            (_, Reach::Some) => {
                format!("role {name} permits {what} in part: it depends on which indexes there are")
            }
            _ => format!(
                "role {name} may permit {what}: it has a regular expression, a date or a variable there"
            ),
        })
    }

    /// Returns what is kept back of the documents that a request reads, by role: every role of the
    /// caller that reaches them counts, whether it permits the action or not.
    fn filters(&self, asked: &Asked) -> BTreeMap<String, Filters> {
        let mut found: BTreeMap<String, Filters> = BTreeMap::new();
        let reads = asked
            .checks
            .iter()
            .filter(|check| check.action.starts_with("indices:data/read/"));
        let indexes = reads.flat_map(|check| match &check.scope {
            Scope::Indexes(indexes) => indexes.as_slice(),
            Scope::Cluster | Scope::Body => &[],
        });
        for index in indexes {
            for (name, _, role) in self.roles().filter(|(_, has, _)| *has == Some(true)) {
                for item in role.reaching(index, self.user) {
                    let filters = found.entry(name.to_owned()).or_default();
                    filters.rows |= item.filters.rows;
                    filters.fields |= item.filters.fields;
                    filters.masked |= item.filters.masked;
                }
            }
        }
        found.retain(|_, filters| *filters != Filters::default());
        found
    }
}

/// Says what a role keeps back.
fn said(role: &str, filters: Filters) -> String {
    let said = [
        (filters.rows, "rows are filtered"),
        (filters.fields, "fields are filtered"),
        (filters.masked, "fields are masked"),
    ];
    let said = said.into_iter().filter(|(is_so, _)| *is_so);
    let said: Vec<&str> = said.map(|(_, what)| what).collect();
    format!("{} by {role}", said.join(" and "))
}

/// Tells whether the plugin has a say in an action on indexes beside its roles.
///
/// A name with a leading dot may be a system index. A pattern leaves those out when it is read,
/// and is refused when it is written to.
fn is_guarded(action: &str, index: &str) -> bool {
    let system = [
        ".opendistro_security",
        ".opendistro-job-scheduler-lock",
        ".opensearch-notebooks",
        ".plugins-ml-model",
        ".kibana_1",
    ];
    let refused = [
        "indices:data/write*",
        "indices:admin/delete*",
        "indices:admin/mapping/delete*",
        "indices:admin/mapping/put*",
        "indices:admin/freeze*",
        "indices:admin/settings/update*",
        "indices:admin/aliases",
        "indices:admin/close*",
    ];
    let refused = || refused.iter().any(|it| glob::matches(it, action));
    index.starts_with('.')
        || index.contains('*') && refused() && system.iter().any(|it| glob::matches(index, it))
}

#[cfg(test)]
mod tests;
