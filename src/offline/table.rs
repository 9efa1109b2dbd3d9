//! Answers and the access matrix as a person reads them in a terminal.

use std::fmt::Write;

use anstyle::{AnsiColor, Color, Style};

use super::explain::{Answer, Matrix};
use super::lint::{Placed, Report};
use crate::policy::lint::Severity;
use crate::policy::matrix::Row;

const HEADING: Style = Style::new().bold();
const ALLOW: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Green)));
const DENY: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Red)));
const UNKNOWN: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Yellow)));

/// The names of the columns.
pub(super) const COLUMNS: [&str; 7] = ["WHO", "EFFECT", "LEVEL", "PATHS", "FROM", "UNTIL", "BY"];

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
        one(row.until.as_deref().unwrap_or("revoked")),
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
    let head = COLUMNS.map(ToOwned::to_owned);
    let lines: Vec<[String; 7]> = matrix
        .rows
        .iter()
        .map(|row| cells(row).map(|items| printable(&items.join(", "))))
        .collect();
    let width = |column: usize| {
        let cells = lines.iter().chain([&head]).map(|line| &line[column]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let line = |cells: &[String; 7]| {
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
    if lines.is_empty() {
        out.push_str("the access policy allows nobody\n");
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
