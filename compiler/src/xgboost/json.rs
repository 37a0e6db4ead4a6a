//! XGBoost's JSON, which is JSON but for three words that are no numbers there.

use std::borrow::Cow;

use super::document::Document;
use crate::reader::ReadError;

pub(super) fn parse(bytes: &[u8]) -> Result<Document, ReadError> {
    serde_json::from_slice(&without_words(bytes))
        .map_err(|error| ReadError::malformed("JSON", error.to_string()))
}

/// Writes `null` for the `NaN`, `Infinity` and `-Infinity` that XGBoost writes where it has no
/// finite number, as for the threshold of a categorical split.
fn without_words(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut rewritten: Vec<u8> = Vec::new();
    let mut copied = 0;
    let mut position = 0;
    let mut in_text = false;
    while position < bytes.len() {
        position += match bytes[position] {
            b'\\' if in_text => 2,
            b'"' => {
                in_text = !in_text;
                1
            }
            b'N' | b'I' | b'-' if !in_text => {
                let length = word(&bytes[position..]);
                if length > 0 {
                    rewritten.extend_from_slice(&bytes[copied..position]);
                    rewritten.extend_from_slice(b"null");
                    copied = position + length;
                }
                length.max(1)
            }
            _ => 1,
        };
    }
    if copied == 0 {
        return Cow::Borrowed(bytes);
    }
    rewritten.extend_from_slice(&bytes[copied..]);
    Cow::Owned(rewritten)
}

/// Length of the word that is no number, or 0.
fn word(bytes: &[u8]) -> usize {
    let words: [&[u8]; 4] = [b"NaN", b"Infinity", b"-Infinity", b"-NaN"];
    words.iter().find(|word| bytes.starts_with(word)).map_or(0, |word| word.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_outside_of_texts_are_rewritten() {
        let rewritten =
            |text: &str| String::from_utf8(without_words(text.as_bytes()).into()).unwrap();
        assert_eq!(rewritten("[NaN,-Infinity, -1,Infinity]"), "[null,null, -1,null]");
        assert_eq!(rewritten(r#"{"NaN \" NaN":"a\\",NaN}"#), r#"{"NaN \" NaN":"a\\",null}"#);
        assert_eq!(rewritten(r#"["\"#), r#"["\"#);
        assert!(matches!(without_words(b"[1]"), Cow::Borrowed(_)));
    }
}
