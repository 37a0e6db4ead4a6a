//! Finds secrets, however they were written.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use memchr::memmem::Finder;

/// Bytes of a key that are looked for at a time: in Concrete's keys, 64 bits of the secret.
const WINDOW: usize = 512;
/// Parts of a key that are looked for.
const WINDOWS: usize = 8;

/// What to look for.
#[derive(Default)]
pub(crate) struct Secrets {
    forms: Vec<(String, Finder<'static>)>,
}

impl Secrets {
    /// A text, as it is, in hexadecimal digits, or in base64.
    pub(crate) fn add_text(&mut self, what: &str, text: &str) {
        self.add_encodings(what, text.as_bytes());
    }

    /// A number, as a program would store it.
    pub(crate) fn add_number(&mut self, what: &str, number: f64) {
        self.add(what, "f64", number.to_le_bytes().to_vec());
    }

    /// Parts of a key from its beginning to its end: as they are, in hexadecimal digits, in base64,
    /// and as lists of numbers.
    pub(crate) fn add_key(&mut self, what: &str, key: &[u8]) {
        let step = (key.len() / (WINDOWS + 1)).next_multiple_of(8);
        let windows = key.chunks(step).filter_map(|part| part.get(..WINDOW));
        // Structure and padding are not secret; a part of a secret has a few of each digit.
        let is_secret = |part: &&[u8]| {
            let zeros = part.iter().filter(|&&byte| byte == 0).count();
            (WINDOW / 4..=WINDOW - WINDOW / 32).contains(&zeros)
        };
        let windows: Vec<_> = windows.filter(is_secret).collect();
        assert!(windows.len() >= WINDOWS / 2, "{what}: {} of {} bytes", windows.len(), key.len());
        for part in windows {
            self.add_encodings(what, part);
            let words: Vec<_> = part
                .chunks_exact(8)
                .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
                .collect();
            let signed: Vec<_> = part.iter().map(|byte| byte.cast_signed()).collect();
            for list in [format!("{part:?}"), format!("{signed:?}"), format!("{words:?}")] {
                let list = list.trim_matches(['[', ']']);
                self.add(what, "list", list.into());
                self.add(what, "JSON", list.replace(", ", ",").into());
            }
        }
    }

    fn add_encodings(&mut self, what: &str, secret: &[u8]) {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        self.add(what, "HEX", hex.to_uppercase().into());
        self.add(what, "hex", hex.into());
        // Base64 of a longer text has this in it, depending on where the secret begins there.
        for start in 0..3 {
            let whole = &secret[start..];
            let whole = &whole[..whole.len() / 3 * 3];
            self.add(what, "base64", STANDARD.encode(whole).into());
            self.add(what, "base64url", URL_SAFE.encode(whole).into());
        }
        self.add(what, "raw", secret.to_vec());
    }

    fn add(&mut self, what: &str, form: &str, bytes: Vec<u8>) {
        assert!(bytes.len() >= 8, "{what}: too short to look for");
        self.forms.push((format!("{what}, {form}"), Finder::new(&bytes).into_owned()));
    }

    /// What is in there, and as what.
    pub(crate) fn find(&self, text: &[u8]) -> Vec<&str> {
        let found = self.forms.iter().filter(|(_, form)| form.find(text).is_some());
        found.map(|(what, _)| what.as_str()).collect()
    }

    /// Nothing of it is in there.
    pub(crate) fn assert_absent(&self, place: &str, text: &[u8]) {
        let found = self.find(text);
        assert!(found.is_empty(), "{place} holds {found:?}");
    }
}
