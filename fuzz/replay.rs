// For tests of crates whose doors are private, taken in by `#[path]`.

use std::fs;
use std::path::Path;

/// Checks every input that is kept for a target.
pub(super) fn replay(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut files = 0;
    for file in fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{target}: {error}")) {
        check(&fs::read(file.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files > 0, "{target} has no inputs");
}
