//! What is printed: on standard output what was asked for, on standard error what is amiss, coloured on a
//! terminal.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use anstyle::{AnsiColor, Color, Style};
use serde::Serialize;

const ERROR: Style = Style::new()
    .bold()
    .fg_color(Some(Color::Ansi(AnsiColor::Red)));
const NOTE: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Yellow)));

/// Nobody reads any more what is printed: `head` has its lines, `less` was left.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads what is printed")]
struct Unread;

/// Tells whether a command ended because nobody read on, which is no failure of its own.
pub(super) fn is_unread(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    let inner = error.and_then(|it| it.get_ref()?.downcast_ref::<Unread>());
    inner.is_some()
}

/// Prints as it stands.
pub(super) fn print(what: impl Display) -> io::Result<()> {
    written(write!(io::stdout(), "{what}"))
}

/// Prints one JSON document.
pub(super) fn json(what: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(what)?;
    Ok(print(format_args!("{text}\n"))?)
}

/// Prints what has colours, and leaves them out where they do not belong.
pub(super) fn print_coloured(what: impl Display) -> io::Result<()> {
    written(write!(anstream::stdout(), "{what}"))
}

/// Says what is wrong.
pub(super) fn error(what: impl Display) -> io::Result<()> {
    written(writeln!(
        anstream::stderr(),
        "{ERROR}error{ERROR:#}: {what}"
    ))
}

/// Says what to know.
pub(super) fn note(what: impl Display) -> io::Result<()> {
    written(writeln!(anstream::stderr(), "{NOTE}note{NOTE:#}: {what}"))
}

/// Says something as it stands.
pub(super) fn remark(what: impl Display) -> io::Result<()> {
    written(writeln!(io::stderr(), "{what}"))
}

/// Tells a reader that has gone from a connection that broke somewhere else.
fn written(written: io::Result<()>) -> io::Result<()> {
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => io::Error::new(ErrorKind::BrokenPipe, Unread),
        _ => error,
    })
}
