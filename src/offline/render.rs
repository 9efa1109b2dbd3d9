//! A plan as a person reads it.

use std::fmt::Write;

use anstyle::{AnsiColor, Color, Style};
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use super::plan::{DomainReport, Report};
use crate::policy::document::{Document, SIZE_LIMIT};

const ADDED: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Green)));
const REMOVED: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Red)));
const HEADING: Style = Style::new().bold();

/// Renders the whole report, coloured; the caller strips the colours where they do not belong.
#[must_use]
pub fn report(report: &Report) -> String {
    let mut out = String::new();
    for (name, domain) in &report.domains {
        // Writing to a string cannot fail.
        _ = render_domain(&mut out, name, domain);
    }
    if report.domains.is_empty() {
        out.push_str("no OpenSearchDomain and no DomainAccess in the manifests\n");
    }
    out
}

fn render_domain(out: &mut String, name: &str, domain: &DomainReport) -> std::fmt::Result {
    if domain.unusable || domain.file.is_empty() {
        writeln!(out, "{HEADING}domain {name}{HEADING:#}: not planned")?;
    } else {
        writeln!(
            out,
            "{HEADING}domain {name}{HEADING:#}: {} to add, {} to remove, {} of others; {} of {SIZE_LIMIT} characters",
            statements(domain.added.len()),
            domain.removed.len(),
            domain.foreign,
            domain.planned.to_text().chars().count(),
        )?;
        diff(out, &pretty(&domain.current), &pretty(&domain.planned))?;
    }
    for attached in &domain.identity_policies {
        writeln!(
            out,
            "identity policy {} on {} (by {}/{}):",
            attached.policy_name, attached.role_arn, attached.namespace, attached.name
        )?;
        diff(out, "", &pretty_value(&attached.policy))?;
    }
    for warning in &domain.warnings {
        writeln!(
            out,
            "warning: {}/{}: {}",
            warning.namespace, warning.name, warning.message
        )?;
    }
    for refused in &domain.refused {
        writeln!(
            out,
            "{REMOVED}refused{REMOVED:#}: {}/{}: {}: {}",
            refused.namespace, refused.name, refused.reason, refused.message
        )?;
    }
    if let Some(held) = &domain.held {
        writeln!(out, "{REMOVED}held{REMOVED:#}: {held}")?;
    }
    writeln!(out)
}

fn statements(count: usize) -> String {
    format!("{count} statement{}", if count == 1 { "" } else { "s" })
}

fn pretty(document: &Document) -> String {
    document
        .to_value()
        .as_ref()
        .map(pretty_value)
        .unwrap_or_default()
}

fn pretty_value(value: &Value) -> String {
    format!("{value:#}\n")
}

fn diff(out: &mut String, before: &str, after: &str) -> std::fmt::Result {
    let diff = TextDiff::from_lines(before, after);
    for change in diff.iter_all_changes() {
        let (sign, style) = match change.tag() {
            ChangeTag::Insert => ('+', ADDED),
            ChangeTag::Delete => ('-', REMOVED),
            ChangeTag::Equal => (' ', Style::new()),
        };
        writeln!(
            out,
            "  {style}{sign} {}{style:#}",
            change.value().trim_end()
        )?;
    }
    Ok(())
}
