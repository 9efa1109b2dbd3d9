//! What goes to standard error, coloured on a terminal.

use std::fmt::Display;
use std::io::{self, Write};

use anstyle::{AnsiColor, Color, Style};

const ERROR: Style = Style::new()
    .bold()
    .fg_color(Some(Color::Ansi(AnsiColor::Red)));
const NOTE: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Yellow)));

/// Says what is wrong.
pub(super) fn error(what: impl Display) -> io::Result<()> {
    writeln!(anstream::stderr(), "{ERROR}error{ERROR:#}: {what}")
}

/// Says what to know.
pub(super) fn note(what: impl Display) -> io::Result<()> {
    writeln!(anstream::stderr(), "{NOTE}note{NOTE:#}: {what}")
}
