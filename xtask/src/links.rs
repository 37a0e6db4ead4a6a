//! Links of the documentation to other files and to headings: each leads somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// Folders whose documents are not ours, or are made anew.
const SKIPPED: &[&str] = &["target", ".git", "node_modules"];

/// Checks every Markdown file.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let mut documents = Vec::new();
    collect(root, &mut documents)?;
    let mut count = 0;
    for document in &documents {
        let text = read(document)?;
        let folder = document.parent().unwrap_or(root);
        for target in targets(&text) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { document.clone() } else { folder.join(file) };
            let name = document.strip_prefix(root)?.display();
            ensure!(path.exists(), "{name}: there is no {target}");
            if !heading.is_empty() {
                let headings = headings(&read(&path)?);
                ensure!(headings.contains(heading), "{name}: no heading is {target}");
            }
            count += 1;
        }
    }
    println!("links: {count} in {} documents lead somewhere", documents.len());
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn collect(folder: &Path, documents: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() {
            if !SKIPPED.iter().any(|skipped| name == *skipped) {
                collect(&path, documents)?;
            }
        } else if path.extension().is_some_and(|end| end == "md") {
            documents.push(path);
        }
    }
    Ok(())
}

/// Where the links of a text go that do not leave the repository.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.lines().filter(|line| !line.starts_with("    "));
    let links = prose.flat_map(|line| line.split("](").skip(1));
    let targets = links.filter_map(|rest| Some(rest.split_once(')')?.0));
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
}

/// The headings of a text, as links name them.
fn headings(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| line.starts_with('#'));
    lines.map(|line| slug(line.trim_start_matches('#').trim())).collect()
}

/// Lower case, words joined by hyphens, without punctuation.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_and_headings_named() {
        let text = "[a](b.md#c) and [d](https://e.f) and [g](#h)\n    [code](no.md)\n";
        assert_eq!(targets(text).collect::<Vec<_>>(), ["b.md#c", "#h"]);
        let found = headings("# The `circuit.bin`, version 1\ntext\n## Key-folder_x\n");
        let expected = ["the-circuitbin-version-1", "key-folder_x"];
        assert_eq!(found, expected.map(str::to_owned).into());
    }
}
