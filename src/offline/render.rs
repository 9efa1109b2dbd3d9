//! A plan as a person reads it.
//!
//! What is refused or held is not in here: the command line says it with the errors, once.

use std::collections::BTreeMap;
use std::fmt::{Result, Write};

use anstyle::{AnsiColor, Color, Style};

use super::diff::{self, Line, Sign};
use super::plan::{DomainReport, Report, Warning};
use crate::policy::document::SIZE_LIMIT;

const ADDED: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Green)));
const REMOVED: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Red)));
const HEADING: Style = Style::new().bold();
const ASIDE: Style = Style::new().dimmed();

/// So many grants are named in a warning that several have in common.
const NAMED: usize = 5;

/// Renders the whole report, coloured; the caller strips the colours where they do not belong.
#[must_use]
pub fn report(report: &Report) -> String {
    let mut out = String::new();
    for (name, domain) in &report.domains {
        // Writing to a string cannot fail.
        _ = render_domain(&mut out, name, domain);
    }
    if report.domains.is_empty() {
        out.push_str("no OpenSearchDomain and no DomainAccess to plan\n");
    }
    out
}

fn render_domain(out: &mut String, name: &str, domain: &DomainReport) -> Result {
    write!(out, "{HEADING}domain {name}{HEADING:#}: ")?;
    match &domain.arn {
        Some(arn) if !domain.unplanned => {
            write!(
                out,
                "{} to add, {} to remove, {} of others; {} of {SIZE_LIMIT} characters",
                statements(domain.added.len()),
                domain.removed.len(),
                domain.foreign,
                domain.planned.to_text().chars().count(),
            )?;
            failures(out, domain)?;
            let diff = diff::between(&domain.current, &domain.planned, arn);
            for statement in &diff.statements {
                lines(out, statement)?;
            }
            if !diff.statements.is_empty() && diff.unchanged > 0 {
                let unchanged = statements(diff.unchanged);
                writeln!(out, "    {ASIDE}{unchanged} as before{ASIDE:#}")?;
            }
        }
        _ => {
            write!(out, "not planned")?;
            failures(out, domain)?;
        }
    }
    for attached in &domain.identity_policies {
        write!(
            out,
            "identity policy {} on {} (by {}/{})",
            attached.policy_name, attached.role_arn, attached.namespace, attached.name
        )?;
        if attached.recorded {
            writeln!(out, ": attached before")?;
        } else {
            writeln!(out, ":")?;
            lines(out, &diff::whole(&attached.policy, Sign::Added))?;
        }
    }
    for removed in &domain.identity_removals {
        writeln!(
            out,
            "  {REMOVED}- identity policy {} on {}{REMOVED:#}",
            removed.policy_name, removed.role_arn
        )?;
    }
    for defined in &domain.definitions {
        writeln!(
            out,
            "{} {}/{} defines {}",
            defined.kind, defined.namespace, defined.name, defined.entity
        )?;
    }
    warnings(out, &domain.warnings)?;
    for note in &domain.notes {
        writeln!(out, "note: {note}")?;
    }
    writeln!(out)
}

/// Ends the heading: that something is refused must be seen where the errors go elsewhere.
fn failures(out: &mut String, domain: &DomainReport) -> Result {
    if !domain.refused.is_empty() {
        write!(
            out,
            "; {REMOVED}{} refused{REMOVED:#}",
            domain.refused.len()
        )?;
    }
    if domain.held.is_some() {
        write!(out, "; {REMOVED}held{REMOVED:#}")?;
    }
    if domain.withheld.is_some() {
        write!(out, "; {REMOVED}revocation held{REMOVED:#}")?;
    }
    writeln!(out)
}

/// Renders the warnings, those that several grants have in common once.
fn warnings(out: &mut String, all: &[Warning]) -> Result {
    let mut grants: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for warning in all {
        let grant = format!("{}/{}", warning.namespace, warning.name);
        grants.entry(&warning.message).or_default().push(grant);
    }
    for (message, grants) in grants {
        let named = grants.iter().take(NAMED).map(String::as_str);
        let named: Vec<&str> = named.collect();
        let more = match grants.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        writeln!(out, "warning: {}{more}: {message}", named.join(", "))?;
    }
    Ok(())
}

fn statements(count: usize) -> String {
    format!("{count} statement{}", if count == 1 { "" } else { "s" })
}

fn lines(out: &mut String, lines: &[Line]) -> Result {
    for Line { sign, text } in lines {
        let (sign, style) = match sign {
            Sign::Added => ('+', ADDED),
            Sign::Removed => ('-', REMOVED),
            Sign::Kept => (' ', Style::new()),
            Sign::Elided => (' ', ASIDE),
        };
        writeln!(out, "  {style}{sign} {text}{style:#}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_of_many_grants_is_said_once() {
        let warning = |number: usize, message: &str| Warning {
            namespace: "a".to_owned(),
            name: format!("g{number}"),
            message: message.to_owned(),
        };
        let mut all: Vec<Warning> = (1..=7).map(|number| warning(number, "mind")).collect();
        all.push(warning(9, "beware"));
        let mut out = String::new();
        warnings(&mut out, &all).unwrap();
        let expected = "warning: a/g9: beware\n\
                        warning: a/g1, a/g2, a/g3, a/g4, a/g5 and 2 more: mind\n";
        assert_eq!(out, expected);
    }
}
