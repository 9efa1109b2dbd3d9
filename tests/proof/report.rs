//! The table of figures, each with the bar that it is held against.

use std::fmt::Display;

/// What was measured of one thing.
pub(crate) struct Figure {
    what: String,
    measured: String,
    bar: String,
    holds: bool,
}

/// All figures, in the order in which they are printed.
#[derive(Default)]
pub(crate) struct Report {
    figures: Vec<Figure>,
}

impl Report {
    /// Adds a figure that must not be above a bar.
    pub(crate) fn at_most<T: PartialOrd + Display + Copy>(
        &mut self,
        what: &str,
        measured: T,
        bar: T,
    ) {
        let holds = measured <= bar;
        self.add(what, measured, format!("at most {bar}"), holds);
    }

    /// Adds a figure that must not be below a bar.
    pub(crate) fn at_least<T: PartialOrd + Display + Copy>(
        &mut self,
        what: &str,
        measured: T,
        bar: T,
    ) {
        let holds = measured >= bar;
        self.add(what, measured, format!("at least {bar}"), holds);
    }

    /// Adds a figure without a bar.
    pub(crate) fn note(&mut self, what: &str, measured: impl Display) {
        self.add(what, measured, String::new(), true);
    }

    /// Adds what keeps a part from having figures.
    pub(crate) fn failed(&mut self, what: &str, why: impl Display) {
        self.add(what, why, "an end".to_owned(), false);
    }

    fn add(&mut self, what: &str, measured: impl Display, bar: String, holds: bool) {
        self.figures.push(Figure {
            what: what.to_owned(),
            measured: measured.to_string(),
            bar,
            holds,
        });
    }

    /// Adds another report's figures.
    pub(crate) fn append(&mut self, other: Self) {
        self.figures.extend(other.figures);
    }

    /// Tells whether every bar is reached.
    pub(crate) fn holds(&self) -> bool {
        self.figures.iter().all(|figure| figure.holds)
    }

    /// Prints the table.
    pub(crate) fn print(&self) {
        let width = |of: &dyn Fn(&Figure) -> usize| self.figures.iter().map(of).max();
        let what = width(&|it| it.what.chars().count()).unwrap_or_default();
        let measured = width(&|it| it.measured.chars().count().min(20)).unwrap_or_default();
        println!();
        for figure in &self.figures {
            let Figure {
                what: name,
                measured: value,
                bar,
                holds,
            } = figure;
            let verdict = match (holds, bar.is_empty()) {
                (true, true) => String::new(),
                (true, false) => format!("({bar})"),
                (false, _) => format!("MISSED: {bar}"),
            };
            println!("{name:what$}  {value:>measured$}  {verdict}");
        }
        println!();
    }
}
