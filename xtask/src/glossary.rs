//! Public names against the glossary of `docs/architecture.md`: each thing has one word, and each
//! public type a name of its own.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};

use crate::sources;

/// Where the glossary is: the table of this document's section [`SECTION`].
const DOCUMENT: &str = "docs/architecture.md";
/// The heading above the table.
const SECTION: &str = "## Words";
/// What a table's rows have: word, meaning, and words that are not used for it.
const CELLS: usize = 3;

/// A word of the last column that is right in one place.
struct Exception {
    word: &'static str,
    /// Beginning of the paths of its files.
    place: &'static str,
    reason: &'static str,
}

/// `program` is a word of its own, for polynomials, and not one for functions or processes.
const EXCEPTIONS: &[Exception] = &[
    Exception { word: "program", place: "engine/src/bulk/", reason: "what this engine evaluates" },
    Exception { word: "program", place: "engine/src/rows/", reason: "what this engine evaluates" },
    Exception { word: "program", place: "engine/src/artifact/", reason: "the file program.bin" },
];

/// A name that others can use.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PublicName {
    name: String,
    is_type: bool,
    /// Path of its file, from the root of the workspace.
    file: String,
}

/// What the glossary says.
#[derive(Debug, Default)]
struct Glossary {
    /// The words of each term, such as `ring`, `batch`.
    terms: Vec<Vec<String>>,
    /// A word that is not used, and the term that is used for it. The first of several.
    unused: BTreeMap<String, String>,
}

/// Fails when a public name has a word that the glossary does not use, or a public type the name of
/// another one.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let document = std::fs::read_to_string(root.join(DOCUMENT)).context(DOCUMENT)?;
    let glossary = Glossary::read(&document)?;
    let mut names = Vec::new();
    for source in sources::of_workspace(root)? {
        let file = source.strip_prefix(root)?.to_string_lossy().into_owned();
        if file.ends_with(".rs") && file.contains("/src/") && !is_test(&file) {
            names.extend(public_names(&std::fs::read_to_string(source)?, &file));
        }
    }
    ensure!(!names.is_empty(), "no public names were found");
    let wrong = [glossary.wrong_words(&names, EXCEPTIONS), repeated_types(&names)].concat();
    ensure!(wrong.is_empty(), "{DOCUMENT} has the words of public names:\n{}", wrong.join("\n"));
    println!("public names: {} as the glossary has them, each type once", names.len());
    Ok(())
}

/// Modules that are compiled for tests only.
fn is_test(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.contains("/tests/")
}

/// What a source makes public by an item of its own. rustfmt has an item's name on its first line.
fn public_names(source: &str, file: &str) -> Vec<PublicName> {
    let mut names = Vec::new();
    let mut lines = source.lines().map(str::trim_start).peekable();
    while let Some(line) = lines.next() {
        let test_module = |next: &&str| next.contains("mod tests {");
        if line == "#[cfg(test)]" && lines.peek().is_some_and(test_module) {
            break;
        }
        let Some(item) = line.strip_prefix("pub ") else { continue };
        let mut words = item.split(|c: char| !c.is_alphanumeric() && c != '_').peekable();
        while let Some(word) = words.next() {
            let is_type = matches!(word, "struct" | "enum" | "trait" | "type" | "union");
            let is_qualifier = matches!(word, "async" | "unsafe");
            // `const` is an item, or a kind of function.
            let is_item = is_type
                || matches!(word, "fn" | "mod" | "static")
                || (word == "const" && words.peek() != Some(&"fn"));
            if is_item {
                let name = words.next().unwrap_or_default().to_owned();
                names.push(PublicName { name, is_type, file: file.to_owned() });
                break;
            }
            if !is_qualifier && word != "const" {
                break;
            }
        }
    }
    names
}

/// The words of a name, as `RingBatch`, `ring_batch` and `RING_BATCH` have them, in the singular.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_small = false;
    for c in name.chars() {
        if c == '_' || c == ' ' || (c.is_uppercase() && after_small) {
            words.push(String::new());
        }
        after_small = c.is_lowercase() || c.is_ascii_digit();
        if c.is_alphanumeric() {
            words.last_mut().expect("there is one").extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words.iter().map(|word| singular(word)).collect()
}

fn singular(word: &str) -> String {
    let plain = match word {
        _ if word.ends_with("ss") => word,
        _ if word.ends_with("ches") || word.ends_with("sses") => &word[..word.len() - 2],
        _ => word.strip_suffix('s').unwrap_or(word),
    };
    plain.to_owned()
}

impl Glossary {
    fn read(document: &str) -> anyhow::Result<Self> {
        let mut glossary = Self::default();
        let section = document.lines().skip_while(|line| *line != SECTION).skip(1);
        let rows =
            section.take_while(|line| !line.starts_with("## ")).filter(|l| l.starts_with('|'));
        // Below the head and the line under it.
        for row in rows.skip(2) {
            let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
            ensure!(cells.len() == CELLS, "{DOCUMENT}: not {CELLS} cells: {row}");
            let terms: Vec<_> = cells[0].split(", ").map(words).collect();
            // Each is between two backticks.
            for unused in cells[2].split('`').skip(1).step_by(2) {
                let unused = singular(&unused.to_lowercase());
                glossary.unused.entry(unused).or_insert_with(|| cells[0].to_owned());
            }
            glossary.terms.extend(terms);
        }
        let found = (!glossary.terms.is_empty(), !glossary.unused.is_empty());
        ensure!(found == (true, true), "{DOCUMENT} has no table of words under {SECTION}");
        Ok(glossary)
    }

    /// The words of a name without the terms of several words, whose parts mean nothing alone.
    fn words_alone(&self, name: &str) -> Vec<String> {
        let mut words = words(name);
        for term in self.terms.iter().filter(|term| term.len() > 1) {
            while let Some(at) = words.windows(term.len()).position(|window| window == term) {
                words.drain(at..at + term.len());
            }
        }
        words
    }

    fn wrong_words(&self, names: &[PublicName], exceptions: &[Exception]) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut needed = vec![false; exceptions.len()];
        for PublicName { name, file, .. } in names {
            for word in self.words_alone(name) {
                let Some(term) = self.unused.get(&word) else { continue };
                let allowed = |it: &Exception| it.word == word && file.starts_with(it.place);
                match exceptions.iter().position(allowed) {
                    Some(exception) => needed[exception] = true,
                    None => wrong.push(format!("{file}: {name} says {word}, not {term}")),
                }
            }
        }
        for (Exception { word, place, reason }, _) in
            exceptions.iter().zip(&needed).filter(|(_, needed)| !**needed)
        {
            wrong.push(format!("nothing in {place} says {word} any more ({reason})"));
        }
        wrong
    }
}

fn repeated_types(names: &[PublicName]) -> Vec<String> {
    let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for it in names.iter().filter(|it| it.is_type) {
        files.entry(&it.name).or_default().push(&it.file);
    }
    let repeated = files.iter().filter(|(_, files)| files.len() > 1);
    repeated.map(|(name, files)| format!("{name} is the name of several: {files:?}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
## Words

| word | meaning | not |
|---|---|---|
| ring batch | N rows | `batch`, `tile` |
| framing | how rows travel | `batch` |
| program | polynomials | |
| process | of the system | `program` |

## Crates

| crate | what lives there | what never does |
|---|---|---|
| `engine` | mathematics | `network` |
";

    fn wrong(file: &str, source: &str, exceptions: &[Exception]) -> Vec<String> {
        let names = public_names(source, file);
        Glossary::read(TABLE).unwrap().wrong_words(&names, exceptions)
    }

    #[test]
    fn words_that_are_not_used_are_found() {
        let source = "\
pub struct BatchReader;
pub(crate) struct Batch;
    pub const fn batches() {}
pub const MAX_BATCH: usize = 8;
pub mod tiles;
pub async unsafe fn write(batch: &[u8]) {}
pub use batch::Tile;
pub batch: u32,
pub fn ring_batch_rows() {}
pub const RING_BATCHES: usize = 1;
#[cfg(test)]
mod tests {
    pub fn batch() {}
}
";
        let expected = [
            "a/src/b.rs: BatchReader says batch, not ring batch",
            "a/src/b.rs: batches says batch, not ring batch",
            "a/src/b.rs: MAX_BATCH says batch, not ring batch",
            "a/src/b.rs: tiles says tile, not ring batch",
        ];
        assert_eq!(wrong("a/src/b.rs", source, &[]), expected);
    }

    #[test]
    fn a_word_is_right_in_its_place_and_needed_there() {
        let exceptions = || [Exception { word: "program", place: "engine/", reason: "its own" }];
        let source = "pub struct ValidProgram {";
        assert_eq!(wrong("engine/src/a.rs", source, &exceptions()), [""; 0]);
        assert_eq!(
            wrong("testbed/src/a.rs", source, &exceptions()),
            [
                "testbed/src/a.rs: ValidProgram says program, not process",
                "nothing in engine/ says program any more (its own)",
            ]
        );
    }

    #[test]
    fn a_type_has_a_name_of_its_own() {
        let first = public_names("pub enum OpenError {\npub fn open() {}", "a/src/a.rs");
        let second = public_names("pub struct OpenError;\npub fn open() {}", "b/src/b.rs");
        let names = [first, second].concat();
        assert_eq!(
            repeated_types(&names),
            ["OpenError is the name of several: [\"a/src/a.rs\", \"b/src/b.rs\"]"]
        );
    }

    #[test]
    fn names_of_any_style_have_words() {
        for name in ["RingBatches", "ring_batch", "RING_BATCH", "ring batches"] {
            assert_eq!(words(name), ["ring", "batch"], "{name}");
        }
        assert_eq!(words("log2Process"), ["log2", "process"]);
    }

    #[test]
    fn a_document_without_the_table_is_refused() {
        for document in
            ["", "## Words\n\n## Crates\n", "## Words\n\n| a | b |\n|---|---|\n| c | d |\n"]
        {
            assert!(Glossary::read(document).is_err(), "{document}");
        }
    }
}
