//! Source as words and paths, without what a person reads only.

/// Returns the source with comments, strings and characters replaced by spaces, line by line as
/// before.
///
/// Block comments nest; strings may be raw, of bytes or of C; a quote that begins a lifetime is
/// told from one that begins a character by what follows.
pub(crate) fn code(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut blank = vec![false; bytes.len()];
    let mut at = 0;
    while at < bytes.len() {
        let end = end_of_prose(bytes, at);
        blank[at..end].fill(true);
        at = end.max(at + 1);
    }
    let kept = bytes.iter().zip(blank).map(|(byte, blank)| match byte {
        b'\n' => b'\n',
        _ if blank => b' ',
        byte => *byte,
    });
    String::from_utf8_lossy(&kept.collect::<Vec<_>>()).into_owned()
}

/// Returns where the comment or literal that begins here ends; the same place if none begins.
fn end_of_prose(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let after = |needle: &[u8], from: usize| {
        let found = rest[from..]
            .windows(needle.len())
            .position(|window| window == needle);
        found.map_or(bytes.len(), |found| at + from + found + needle.len())
    };
    let in_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        return after(b"\n", 2);
    }
    if rest.starts_with(b"/*") {
        return end_of_block_comment(bytes, at);
    }
    let prefix = rest.iter().take_while(|byte| b"brc".contains(byte)).count();
    let hashes = rest[prefix..]
        .iter()
        .take_while(|byte| **byte == b'#')
        .count();
    let quote = rest.get(prefix + hashes) == Some(&b'"');
    if quote && !in_word && rest[..prefix].contains(&b'r') {
        let end = [&b"\""[..], &b"#".repeat(hashes)].concat();
        return after(&end, prefix + hashes + 1);
    }
    if quote && !in_word && hashes == 0 {
        return end_of_literal(bytes, at + prefix, b'"');
    }
    if rest[0] == b'"' {
        return end_of_literal(bytes, at, b'"');
    }
    let is_character = rest[0] == b'\''
        && match rest.get(1) {
            Some(b'\\') => true,
            // One character, of up to four bytes, and the quote; else a lifetime.
            Some(_) => {
                rest.iter().skip(2).take(4).any(|byte| *byte == b'\'') && {
                    let text = String::from_utf8_lossy(&rest[1..rest.len().min(6)]);
                    text.chars().nth(1) == Some('\'')
                }
            }
            None => false,
        };
    if is_character {
        end_of_literal(bytes, at, b'\'')
    } else {
        at
    }
}

fn end_of_literal(bytes: &[u8], at: usize, quote: u8) -> usize {
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != quote {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    (end + 1).min(bytes.len())
}

fn end_of_block_comment(bytes: &[u8], at: usize) -> usize {
    let (mut end, mut depth) = (at + 2, 1);
    while end < bytes.len() && depth > 0 {
        let step = match bytes[end..] {
            [b'/', b'*', ..] => 1,
            [b'*', b'/', ..] => -1,
            _ => 0,
        };
        depth += step;
        end += if step == 0 { 1 } else { 2 };
    }
    end
}

/// Splits code into words and signs.
pub(crate) fn tokens(code: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match rest.find(|c| !is_word(c)) {
            Some(0) if rest.starts_with("::") => 2,
            Some(0) => first.len_utf8(),
            Some(length) => length,
            None => rest.len(),
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

/// Returns every path in the code with its `use` trees written out, such as `std::fs::read`.
pub(crate) fn paths(code: &str) -> Vec<String> {
    let tokens = tokens(code);
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_name(tokens[at]) || tokens[at] == "::" {
            at = path(&tokens, at, "", &mut paths);
        } else {
            at += 1;
        }
    }
    paths
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Reads the path, or tree of paths, that begins here; returns where it ends.
fn path(tokens: &[&str], mut at: usize, prefix: &str, paths: &mut Vec<String>) -> usize {
    let mut path = prefix.to_owned();
    while at < tokens.len() {
        match tokens[at] {
            // What stands before it is from the root.
            "::" if path.is_empty() => at += 1,
            "::" => {
                path.push_str("::");
                at += 1;
            }
            "{" if path.ends_with("::") => {
                at += 1;
                while at < tokens.len() && tokens[at] != "}" {
                    if tokens[at] == "as" {
                        at += 2;
                        continue;
                    }
                    let next = self::path(tokens, at, &path, paths);
                    at = if next == at { at + 1 } else { next };
                }
                return at + 1;
            }
            token
                if (is_name(token) || token == "*")
                    && (path.is_empty() || path.ends_with("::")) =>
            {
                path.push_str(token);
                at += 1;
            }
            _ => break,
        }
    }
    if path != prefix {
        paths.push(path);
    }
    at
}

#[test]
fn prose_is_not_code() {
    for (source, left) in [
        ("a // crate::b", "a"),
        ("a /* crate::b /* c */ d */ e", "a e"),
        ("//! crate::b\na", "a"),
        (r#"a("crate::b \" crate::c", d)"#, "a( , d)"),
        (r##"a(r#"crate::"b"#, br"\", c"x")"##, "a( , , )"),
        (
            "a('\"', '\\'', 'é', b'\"', crate::b)",
            "a( , , , b , crate::b)",
        ),
        (
            "fn a<'a>(b: &'a str) -> &'static str { crate::b }",
            "fn a<'a>(b: &'a str) -> &'static str { crate::b }",
        ),
        ("a(\"//\"); crate::b", "a( ); crate::b"),
    ] {
        let code = code(source);
        assert_eq!(
            code.split_whitespace().collect::<Vec<_>>().join(" "),
            left,
            "{source}"
        );
        assert_eq!(code.lines().count(), source.lines().count(), "{source}");
    }
}

#[test]
fn trees_of_paths_are_written_out() {
    let found = paths("use crate::{a::{b, c as d}, e::*, f}; g::<crate::h::I>(::j::k, l)");
    let expected = [
        "use",
        "crate::a::b",
        "crate::a::c",
        "crate::e::*",
        "crate::f",
    ];
    assert_eq!(found[..5], expected.map(str::to_owned), "{found:?}");
    for path in ["crate::h::I", "j::k", "l"] {
        assert!(found.iter().any(|it| it == path), "{path}: {found:?}");
    }
}
