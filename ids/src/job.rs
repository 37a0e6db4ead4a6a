//! Ids of jobs.

use std::str::FromStr;

use uuid::Uuid;

use crate::{InvalidId, serde_as_text, text_form};

/// One job. Chosen at random by who publishes it, and kept through every delivery and retry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(Uuid);

impl JobId {
    /// A new one, by the clock and at random (UUID version 7): ids sort by their time.
    pub fn random() -> Self {
        Self(Uuid::now_v7())
    }

    /// A new one of random bits alone (UUID version 4), for who must not guess when it was made, nor
    /// others made then.
    pub fn random_v4() -> Self {
        Self(Uuid::new_v4())
    }

    /// Of 16 bytes, for documentation and tests that need the same id every time.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl FromStr for JobId {
    type Err = InvalidId;

    /// Only the form with hyphens and lower-case digits: one job has one text.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let id = Uuid::try_parse(text).map_err(|_| InvalidId::Job)?;
        let canonical = id.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text;
        if canonical { Ok(Self(id)) } else { Err(InvalidId::Job) }
    }
}

text_form!(JobId);
serde_as_text!(JobId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_one_text() {
        let text = "0190a0a1-b2c3-7d4e-8f90-0123456789ab";
        assert_eq!(text.parse::<JobId>().unwrap().to_string(), text);
        assert_ne!(JobId::random(), JobId::random());
        let simple = text.replace('-', "");
        for wrong in ["", &text.to_uppercase(), &simple, &format!("{{{text}}}"), &text[1..]] {
            assert_eq!(wrong.parse::<JobId>(), Err(InvalidId::Job), "{wrong}");
        }
    }
}
