//! The access matrix as one HTML page that needs nothing else: no script to be read, no file, no
//! network. A click on a column's name sorts by it, where scripts may run.

use super::explain::Matrix;
use super::table::{COLUMNS, ROLE_COLUMNS, cells, role_cells};
use crate::policy::matrix::Row;

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --deny: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --deny: #ff8a80; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; }
h1, h2 { font-size: 1.3rem; overflow-wrap: anywhere; }
div { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .45rem .6rem; text-align: left; vertical-align: top; }
th { background: Canvas; position: sticky; top: 0; }
th[aria-sort=ascending]::after { content: ' \\2191'; }
th[aria-sort=descending]::after { content: ' \\2193'; }
tbody tr:hover { background: var(--soft); }
td { overflow-wrap: anywhere; }
td ul { list-style: none; margin: 0; padding: 0; }
.deny td:nth-child(2) { color: var(--deny); font-weight: 600; }
@media print { body { max-width: none; } th { position: static; } }
";

/// Sorts the rows by the column that is clicked; again, in the other direction.
const SCRIPT: &str = "
for (const head of document.querySelectorAll('th')) {
  const index = head.cellIndex;
  head.style.cursor = 'pointer';
  head.addEventListener('click', () => {
    const down = head.getAttribute('aria-sort') === 'ascending';
    for (const other of head.parentNode.children) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const body = head.closest('table').tBodies[0];
    const text = row => row.children[index].textContent;
    const rows = [...body.children].sort((a, b) => text(a).localeCompare(text(b)));
    body.append(...(down ? rows.reverse() : rows));
  });
}
";

/// Renders the page.
#[must_use]
pub fn matrix(matrix: &Matrix) -> String {
    let head = COLUMNS.map(|name| format!("<th scope=\"col\">{}</th>", capitalised(name)));
    let head = head.concat();
    let rows: Vec<String> = matrix.rows.iter().map(line).collect();
    let rows = rows.concat();
    let domain = escaped(&matrix.domain);
    let count = match matrix.rows.len() {
        0 => "The access policy allows nobody.".to_owned(),
        1 => "1 line.".to_owned(),
        lines => format!("{lines} lines."),
    };
    let roles = roles(matrix);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Access to {domain}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>Who may do what on {domain}</h1>\n\
         <p>{count} By the domain's access policy alone: identity policies of its own account may \
         allow more, and callers of other accounts need one that allows it too.</p>\n\
         <div><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n{roles}\
         <script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
}

/// Renders who has which role, where there is anything to tell.
fn roles(matrix: &Matrix) -> String {
    if matrix.roles.is_empty() {
        return String::new();
    }
    let head = ROLE_COLUMNS.map(|name| format!("<th scope=\"col\">{}</th>", capitalised(name)));
    let line = |row| {
        format!(
            "<tr>{}</tr>\n",
            role_cells(row).map(|it| cell(&it)).concat()
        )
    };
    let rows: String = matrix.roles.iter().map(line).collect();
    format!(
        "<h2>Roles of fine-grained access control</h2>\n\
         <p>Where the access policy lets a request in, these decide about indexes.</p>\n\
         <div><table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n",
        head.concat()
    )
}

fn line(row: &Row) -> String {
    let class = if row.effect == "Deny" {
        " class=\"deny\""
    } else {
        ""
    };
    let cells = cells(row).map(|items| cell(&items)).concat();
    format!("<tr{class}>{cells}</tr>\n")
}

fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    let first = letters.next().into_iter();
    first
        .chain(letters.map(|c| c.to_ascii_lowercase()))
        .collect()
}

fn cell(items: &[String]) -> String {
    match items {
        [one] => format!("<td>{}</td>", escaped(one)),
        many => {
            let items = many
                .iter()
                .map(|item| format!("<li>{}</li>", escaped(item)));
            let items: Vec<String> = items.collect();
            format!("<td><ul>{}</ul></td>", items.concat())
        }
    }
}

fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays_text() {
        let row = Row {
            who: "<script>alert(1)</script>".to_owned(),
            effect: "Deny",
            level: "\"es:*\" & 'more'".to_owned(),
            paths: vec!["a".to_owned(), "<b>".to_owned()],
            from: Vec::new(),
            until: None,
            by: "others".to_owned(),
        };
        let page = matrix(&Matrix {
            domain: "</title>".to_owned(),
            rows: vec![row],
            roles: Vec::new(),
        });
        assert!(
            page.contains("<td>&lt;script&gt;alert(1)&lt;/script&gt;</td>"),
            "{page}"
        );
        assert!(
            page.contains("&quot;es:*&quot; &amp; &#39;more&#39;"),
            "{page}"
        );
        assert!(page.contains("<li>a</li><li>&lt;b&gt;</li>"), "{page}");
        assert!(
            page.contains("<title>Access to &lt;/title&gt;</title>"),
            "{page}"
        );
    }

    #[test]
    fn the_page_stands_alone() {
        let page = matrix(&Matrix {
            domain: "arn".to_owned(),
            rows: Vec::new(),
            roles: Vec::new(),
        });
        for reference in ["src=", "href=", "http:", "https:", "@import", "url("] {
            assert!(!page.contains(reference), "{reference}");
        }
        assert!(page.contains("prefers-color-scheme: dark"));
        assert!(page.contains("The access policy allows nobody."));
    }
}
