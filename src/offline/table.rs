//! Answers and the access matrix as a person reads them in a terminal.

use std::fmt::Write;

use anstyle::{AnsiColor, Color, Style};
use kube::ResourceExt;

use super::explain::{Answer, Matrix};
use super::lint::{Placed, Report};
use crate::api::access::{DomainAccess, Principal};
use crate::api::condition::condition_type::READY;
use crate::policy::fine_grained::{self, evaluate::Filters};
use crate::policy::lint::Severity;
use crate::policy::matrix::Row;

const HEADING: Style = Style::new().bold();
const ALLOW: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Green)));
const DENY: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Red)));
const UNKNOWN: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Yellow)));

/// The names of the columns.
pub(super) const COLUMNS: [&str; 7] = ["WHO", "EFFECT", "LEVEL", "PATHS", "FROM", "UNTIL", "BY"];

/// The names of the columns of the second table: who has which role of the security plugin.
pub(super) const ROLE_COLUMNS: [&str; 6] =
    ["WHO", "ROLE", "INDEXES", "CLUSTER", "TENANTS", "KEPT BACK"];

/// Returns the cells of a line of the second table; a cell may have several items.
pub(super) fn role_cells(row: &fine_grained::matrix::Row) -> [Vec<String>; 6] {
    let role = if row.exists {
        row.role.clone()
    } else {
        format!("{} (not there, or not read)", row.role)
    };
    let on = |patterns: &[String], actions: &[String]| {
        format!("{}: {}", patterns.join(" "), actions.join(" "))
    };
    let indexes = row.indexes.iter().map(|it| on(&it.patterns, &it.actions));
    let tenants = row.tenants.iter().map(|it| on(&it.patterns, &it.actions));
    let filters = row.indexes.iter().map(|it| it.filters);
    let kept = filters
        .filter(|it| *it != Filters::default())
        .map(kept_back);
    [
        vec![row.who.clone()],
        vec![role],
        indexes.collect(),
        row.cluster.clone(),
        tenants.collect(),
        kept.collect(),
    ]
}

/// Says what a role keeps back.
fn kept_back(filters: Filters) -> String {
    let parts = [
        (filters.rows, "documents"),
        (filters.fields, "fields"),
        (filters.masked, "values"),
    ];
    let kept = parts.iter().filter(|(keeps, _)| *keeps);
    kept.map(|(_, what)| *what)
        .collect::<Vec<_>>()
        .join(" and ")
}

/// Returns the cells of a line; a cell may have several items.
pub(super) fn cells(row: &Row) -> [Vec<String>; 7] {
    let one = |text: &str| vec![text.to_owned()];
    let path = |path: &String| {
        if path.is_empty() {
            "the domain itself".to_owned()
        } else {
            path.clone()
        }
    };
    [
        one(&row.who),
        one(row.effect),
        one(&row.level),
        row.paths.iter().map(path).collect(),
        if row.from.is_empty() {
            one("anywhere")
        } else {
            row.from.clone()
        },
        one(row.until.as_deref().unwrap_or("no end")),
        one(&row.by),
    ]
}

/// Renders an answer, coloured; the caller strips the colours where they do not belong.
#[must_use]
pub fn answer(answer: &Answer) -> String {
    let style = match answer.decision {
        "Allow" => ALLOW,
        "Deny" => DENY,
        _ => UNKNOWN,
    };
    let mut lines = vec![format!(
        "{style}{}{style:#}: {}",
        answer.decision, answer.why
    )];
    for (name, half) in [
        ("access policy", &answer.door),
        ("fine-grained access control", &answer.permissions),
    ] {
        if let Some(half) = half {
            lines.push(format!("  {name}: {}", half.decision));
        }
    }
    for (role, filters) in answer.permissions.iter().flat_map(|half| &half.filters) {
        lines.push(format!("  {role} keeps back {}", kept_back(*filters)));
    }
    if !answer.statements.is_empty() {
        lines.push(format!("{HEADING}statements{HEADING:#}"));
    }
    for statement in &answer.statements {
        let text = format!("{statement:#}");
        lines.extend(text.lines().map(|line| format!("  {}", printable(line))));
    }
    if !answer.manifests.is_empty() {
        lines.push(format!("{HEADING}manifests{HEADING:#}"));
    }
    for manifest in &answer.manifests {
        let file = match manifest.file.as_str() {
            "" => String::new(),
            file => format!(" ({file})"),
        };
        lines.push(format!(
            "  {} {}/{}{file}",
            manifest.kind, manifest.namespace, manifest.name
        ));
    }
    lines.join("\n") + "\n"
}

/// Renders the matrix in columns, coloured; the caller strips the colours where they do not belong.
#[must_use]
pub fn matrix(matrix: &Matrix) -> String {
    let mut out = columns(COLUMNS, matrix.rows.iter().map(cells));
    if matrix.rows.is_empty() {
        out.push_str("the access policy allows nobody\n");
    }
    if !matrix.roles.is_empty() {
        out.push('\n');
        out += &columns(ROLE_COLUMNS, matrix.roles.iter().map(role_cells));
    }
    out
}

/// The names of the columns of the grants.
const GRANT_COLUMNS: [&str; 9] = [
    "NAMESPACE",
    "NAME",
    "DOMAIN",
    "WHO",
    "ACCESS",
    "PATHS",
    "READY",
    "UNTIL",
    "MESSAGE",
];

/// Renders grants in columns, as the controller sees each.
#[must_use]
pub fn grants(grants: &[DomainAccess]) -> String {
    if grants.is_empty() {
        return "no grants\n".to_owned();
    }
    columns(GRANT_COLUMNS, grants.iter().map(grant_cells))
}

fn grant_cells(grant: &DomainAccess) -> [Vec<String>; 9] {
    let (spec, status) = (&grant.spec, grant.status.clone().unwrap_or_default());
    let who = |it: &Principal| {
        let role = it.iam_role.as_ref().map(|it| it.arn.clone());
        let user = it.iam_user.as_ref().map(|it| it.arn.clone());
        let service = it.service_account.as_ref();
        let service = service.map(|it| format!("service account {}", it.name));
        let account = it.account.as_ref();
        let account = account.map(|it| format!("account {}", it.id));
        let named = role.or(user).or(service).or(account);
        named.unwrap_or_else(|| "anybody".to_owned())
    };
    let access = match spec.access {
        Some(level) => vec![level.as_str().to_owned()],
        None => spec
            .actions
            .iter()
            .filter_map(|it| Some(serde_json::to_value(it).ok()?.as_str()?.to_owned()))
            .collect(),
    };
    let mut conditions = status.conditions.iter();
    let ready = conditions.find(|it| it.type_ == READY);
    // What was said of an older spec is not said of this one.
    let generation = grant.metadata.generation;
    let ready = ready.filter(|it| it.observed_generation == generation);
    let (is_ready, message) = match ready {
        Some(it) if it.status == "True" => ("True".to_owned(), String::new()),
        Some(it) => (format!("{} ({})", it.status, it.reason), it.message.clone()),
        None => (
            "Unknown".to_owned(),
            "the controller has not looked yet".to_owned(),
        ),
    };
    let until = status.expires_at.or_else(|| spec.expires_at.clone());
    let until = until.map(|it| it.0.to_string());
    [
        grant.namespace().into_iter().collect(),
        vec![grant.name_any()],
        vec![spec.domain_ref.name.clone()],
        spec.principals.iter().map(who).collect(),
        access,
        spec.paths.clone(),
        vec![is_ready],
        until.into_iter().collect(),
        vec![message],
    ]
}

/// Renders lines in columns.
fn columns<const N: usize>(
    names: [&str; N],
    lines: impl Iterator<Item = [Vec<String>; N]>,
) -> String {
    let head = names.map(ToOwned::to_owned);
    let spelled = |cells: [Vec<String>; N]| cells.map(|items| printable(&items.join(", ")));
    let lines: Vec<[String; N]> = lines.map(spelled).collect();
    let width = |column: usize| {
        let cells = lines.iter().chain([&head]).map(|line| &line[column]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |cells: &[String; N]| {
        let cells = cells.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    let mut out = format!("{HEADING}{}{HEADING:#}\n", line(&head));
    for row in &lines {
        let style = if row[1] == "Deny" { DENY } else { Style::new() };
        // Writing to a string cannot fail.
        _ = writeln!(out, "{style}{}{style:#}", line(row));
    }
    out
}

/// Renders findings, one a line, coloured; the caller strips the colours where they do not belong.
#[must_use]
pub fn findings(report: &Report) -> String {
    let line = |placed: &Placed| {
        let severity = placed.finding.severity;
        let style = match severity {
            Severity::Error => DENY,
            Severity::Warning => UNKNOWN,
        };
        let text = printable(&placed.to_string());
        format!("{style}{}{style:#}: {text}\n", severity.as_str())
    };
    let lines: Vec<String> = report.findings.iter().map(line).collect();
    lines.concat()
}

/// Spells control characters, which another writer's statement may have, so that they do nothing to
/// the terminal.
fn printable(text: &str) -> String {
    let spell = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    text.chars().map(spell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_is_not_for_others_to_write_to() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }
}
