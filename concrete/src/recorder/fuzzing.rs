//! Doors for fuzzing: what is private here and takes a stranger's bytes. Only in tests and in builds
//! by cargo-fuzz.

use super::RecordError;
use super::child::check_object;
use super::protocol;

/// An answer of the child. What was accepted can be written, and a refusal can be printed.
pub fn answer(bytes: &[u8]) {
    let Ok(outcome) = protocol::read_answer(&mut &bytes[..]) else { return };
    if let Err(error) = &outcome {
        let text = error.to_string();
        assert!(text.chars().all(|c| c.is_ascii_graphic() || c == ' '), "{text:?}");
        assert!(text.len() < 4096, "{} characters", text.len());
    }
    let written = protocol::answer(outcome.clone());
    let again = protocol::read_answer(&mut &written[..]).expect("what was read can be written");
    match (&outcome, &again) {
        // Characters that were escaped may be cut once more.
        (Err(_), Err(_)) => {}
        _ => assert_eq!(again, outcome),
    }
}

/// A shared object, up to where it would be mapped. Nothing of it runs.
pub fn object(bytes: &[u8]) {
    // As the circuits of the seeds are called, of linear models and of trees.
    for name in ["_lambda__proxy", "inference_to_compile"] {
        if let Err(RecordError::Internal(what)) = check_object(bytes, name) {
            panic!("{what}");
        }
    }
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use cipherscore_engine::artifact::{Archive, names};

    use super::check_object;
    use super::replay::replay;

    /// Headers, tables, code and data of a real object, each word of them absurd in its turn: sizes
    /// and places that overflow, names that are not there, tables that lie in each other.
    #[test]
    fn absurd_words_are_survived() {
        let zip = "../testdata/concrete/linear_regression/server.zip";
        let zip = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(zip)).unwrap();
        let archive = Archive::read(&zip).unwrap();
        let mut object = archive.require(names::SHARED_OBJECT).unwrap().to_vec();
        check_object(&object, "_lambda__proxy").unwrap_or_else(|_| {
            check_object(&object, "inference_to_compile").unwrap();
        });
        let length = object.len() as u64;
        for at in (0..object.len() - 8).step_by(8) {
            let word: [u8; 8] = object[at..at + 8].try_into().unwrap();
            let swapped = u64::from_le_bytes(word).rotate_left(32);
            for absurd in [0, 1, 7, length, length - 1, 1 << 28, 1 << 63, u64::MAX, swapped] {
                object[at..at + 8].copy_from_slice(&absurd.to_le_bytes());
                super::object(&object);
            }
            object[at..at + 8].copy_from_slice(&word);
        }
    }

    #[test]
    fn kept_answers_are_survived() {
        replay("recorder_answer", super::answer);
    }

    #[test]
    fn kept_objects_are_survived() {
        replay("recorder_object", super::object);
    }
}
