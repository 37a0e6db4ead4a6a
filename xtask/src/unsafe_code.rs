//! Where unsafe code may be: the lint `unsafe_code` is denied for the workspace, and only the
//! modules of a few folders may say otherwise.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

use crate::sources;

/// The lint.
const LINT: &str = "unsafe_code";
/// Attributes that make it weaker than denied.
const WEAKER: &[&str] = &["allow", "expect", "warn"];
/// The only folders whose modules may allow unsafe code.
const ALLOWED: &[&str] = &[
    "concrete/src/recorder/",
    "engine/src/bulk/kernel/",
    "engine/src/rlwe/avx2/",
    "engine/src/rows/kernel/",
];
/// What each manifest says, so that the workspace's lints are the crate's.
const LINTS_OF_THE_WORKSPACE: &str = "[lints]\nworkspace = true";
/// Manifests beside the workspace's crates: the workspace itself, and the fuzz targets, which
/// cargo-fuzz builds and nothing ships.
const OTHER_MANIFESTS: &[&str] = &["Cargo.toml", "fuzz/Cargo.toml"];

/// Checks all sources and manifests.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    for file in sources::of_workspace(root)? {
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let name = file.strip_prefix(root)?.to_string_lossy().into_owned();
        if name.ends_with("Cargo.toml") {
            ensure!(
                OTHER_MANIFESTS.contains(&name.as_str()) || text.contains(LINTS_OF_THE_WORKSPACE),
                "{name} must say {LINTS_OF_THE_WORKSPACE:?}"
            );
        } else if !ALLOWED.iter().any(|folder| name.starts_with(folder)) {
            let weakened = weakened(&text);
            ensure!(
                weakened.is_none(),
                "{name}:{}: allows unsafe code; only {ALLOWED:?} may",
                weakened.unwrap_or_default()
            );
        }
    }
    println!("unsafe code: in {ALLOWED:?} only");
    Ok(())
}

/// The first line, from 1, that weakens the lint, wherever in an attribute and over however many
/// lines.
fn weakened(source: &str) -> Option<usize> {
    let code = without_text(source);
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut named = code.match_indices(LINT).filter(|(start, _)| {
        let (before, after) = (&code[..*start], &code[start + LINT.len()..]);
        !before.ends_with(is_word) && !after.starts_with(is_word)
    });
    let found = named.find(|(start, _)| WEAKER.contains(&enclosing_word(&code[..*start])));
    found.map(|(start, _)| code[..start].matches('\n').count() + 1)
}

/// The word before the parenthesis that is open at the end.
fn enclosing_word(code: &str) -> &str {
    let mut closed = 0_usize;
    for (index, c) in code.char_indices().rev() {
        match c {
            ')' => closed += 1,
            '(' if closed == 0 => {
                let before = code[..index].trim_end();
                let start = before.rfind(|c: char| !c.is_alphanumeric() && c != '_');
                return &before[start.map_or(0, |start| start + 1)..];
            }
            '(' => closed -= 1,
            _ => {}
        }
    }
    ""
}

/// Source without comments and the text of literals. Lines stay lines.
fn without_text(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment_length(rest),
            '"' => string_length(rest),
            'r' if !code.ends_with(|c: char| c.is_alphanumeric() || c == '_') => {
                raw_string_length(rest)
            }
            '\'' => char_length(rest),
            _ => 0,
        };
        match length {
            0 => {
                code.push(c);
                rest = &rest[c.len_utf8()..];
            }
            _ => {
                code.extend(rest[..length].chars().filter(|c| *c == '\n'));
                // What is beside it stays two words.
                code.push(' ');
                rest = &rest[length..];
            }
        }
    }
    code
}

/// Length of a comment that may hold others.
fn comment_length(text: &str) -> usize {
    let (mut depth, mut index) = (0_usize, 0);
    while index < text.len() {
        let rest = &text.as_bytes()[index..];
        match rest {
            [b'/', b'*', ..] => (depth, index) = (depth + 1, index + 2),
            [b'*', b'/', ..] => (depth, index) = (depth - 1, index + 2),
            _ => index += 1,
        }
        if depth == 0 {
            return index;
        }
    }
    text.len()
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of a raw string; 0 of what is none.
fn raw_string_length(text: &str) -> usize {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    let begin = 1 + hashes + 1;
    if text.as_bytes().get(begin - 1) != Some(&b'"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    text[begin..].find(&end).map_or(text.len(), |found| begin + found + end.len())
}

/// Length of a character in quotes; 0 of a lifetime.
fn char_length(text: &str) -> usize {
    let inner = &text[1..];
    if inner.starts_with('\\') {
        let end = inner[2..].find('\'');
        return end.map_or(0, |end| 1 + 2 + end + 1);
    }
    let length = inner.chars().next().map_or(0, char::len_utf8);
    if inner[length..].starts_with('\'') { 1 + length + 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_weaken_the_lint_is_found() {
        for (line, source) in [
            (1, "#![allow(unsafe_code)]"),
            (1, "#[expect(unsafe_code)] fn f() {}"),
            (1, "#[allow(dead_code, unsafe_code)]"),
            (1, "#[warn(unsafe_code, reason = \"denied elsewhere\")]"),
            (1, "#[cfg_attr(test, allow(unsafe_code))]"),
            (4, "\n#![allow(\n    clippy::all,\n    unsafe_code,\n    reason = \"(\"\n)]"),
            (3, "// #![deny(\n#[expect (\nunsafe_code)]"),
            (1, "#[allow(/* deny( */ unsafe_code)]"),
            (2, "#![deny(unsafe_code)]\nmod m { #![allow(unsafe_code)] }"),
            (1, "const Q: char = '\"'; #[allow(unsafe_code)] const R: char = '\"';"),
            (1, "fn f<'a>(x: &'a str) {} #[allow(unsafe_code)] fn g<'a>() {}"),
        ] {
            assert_eq!(weakened(source), Some(line), "{source}");
        }
    }

    #[test]
    fn what_does_not_weaken_it_is_passed_over() {
        for source in [
            "#![deny(unsafe_code)]",
            "#![forbid(clippy::all, unsafe_code)]",
            "// #![allow(unsafe_code)]",
            "/* outer /* inner */ #[allow(unsafe_code)] */",
            "const TEXT: &str = \"#[allow(unsafe_code)] \\\" (unsafe_code)\";",
            "const TEXT: &str = r#\"#[allow(unsafe_code)] \" (unsafe_code)\"#;",
            "#[allow(not_unsafe_code, unsafe_codes)]",
            "mod unsafe_code; fn f() { unsafe_code::check(root()) }",
        ] {
            assert_eq!(weakened(source), None, "{source}");
        }
    }
}
