//! What is done about a job without results.

use cipherscore_common::message::ErrorCode;
use tokio::time::Instant;

use crate::evaluation_keys::KeyStep;

/// Jobs that one process makes of a unit, at most.
pub(super) const MAX_JOBS_OF_UNIT: u32 = 3;

/// What a new job of the same rows may be tried with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing else: what kept this one from results passes by itself.
    Again,
    /// The evaluation key, put into the store if it is not there.
    PutKey,
    /// The evaluation key, put into the store in the place of what is there.
    ReplaceKey,
    /// There is none: a new job would end the same way.
    None,
}

impl Remedy {
    /// What a reply's error code asks for. A new job has a new id, and its payload is made anew.
    ///
    /// | what came of the job | what is done | why |
    /// |---|---|---|
    /// | `blob_missing` | a new job | the payload is put into the store again |
    /// | `deadline_exceeded` | a new job | it has time again |
    /// | `key_missing` | the evaluation key is put into the store, a new job | a lease ended, or the store lost it |
    /// | `wrong_digest` | the evaluation key is replaced, a new job | of the payload or of the key: the code does not tell |
    /// | `malformed`, `too_large`, `wrong_shape`, `not_conformant`, `wrong_owner` | the unit fails | the same rows, or the same key, would be refused again |
    /// | `unsupported_version` | a new job in an older version by the [driver](super::Driver), if there is one; else the unit fails | the worker has not been upgraded yet |
    /// | `unknown_model`, `forbidden` | the unit fails | somebody must see to it first |
    /// | `cancelled` | the unit fails | somebody wants it so |
    /// | `internal`, `poison` | the unit fails | it would harm another worker |
    /// | outputs that are lost, or cannot be read | a new job | they are made again |
    /// | no reply by its deadline | a new job | it has time again |
    ///
    /// Not in this table is what is no answer: a broker or a store that is away is waited for by the
    /// [client](crate::client), longer each time, and the job is published under its id.
    pub(super) fn of(code: ErrorCode) -> Self {
        match code {
            ErrorCode::BlobMissing | ErrorCode::DeadlineExceeded => Self::Again,
            ErrorCode::KeyMissing => Self::PutKey,
            ErrorCode::WrongDigest => Self::ReplaceKey,
            _ => Self::None,
        }
    }

    /// What to do about the evaluation key, before a new job follows one that was published then.
    /// None, where no new job follows.
    pub(super) fn key_step(self, published: Instant) -> Option<KeyStep> {
        match self {
            Self::Again => Some(KeyStep::Once),
            Self::PutKey => Some(KeyStep::Ensure(published)),
            Self::ReplaceKey => Some(KeyStep::Replace(published)),
            Self::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_code_has_its_remedy() {
        let published = Instant::now();
        let (again, ensure) = (Some(KeyStep::Once), Some(KeyStep::Ensure(published)));
        let replace = Some(KeyStep::Replace(published));
        let table = [
            (ErrorCode::Malformed, None),
            (ErrorCode::UnsupportedVersion, None),
            (ErrorCode::UnknownModel, None),
            (ErrorCode::TooLarge, None),
            (ErrorCode::WrongShape, None),
            (ErrorCode::KeyMissing, ensure),
            (ErrorCode::WrongDigest, replace),
            (ErrorCode::NotConformant, None),
            (ErrorCode::BlobMissing, again),
            (ErrorCode::Forbidden, None),
            (ErrorCode::DeadlineExceeded, again),
            (ErrorCode::Cancelled, None),
            (ErrorCode::Internal, None),
            (ErrorCode::Poison, None),
            (ErrorCode::WrongOwner, None),
        ];
        assert_eq!(table.map(|(code, _)| code), ErrorCode::ALL);
        for (code, step) in table {
            assert_eq!(Remedy::of(code).key_step(published), step, "{code}");
        }
    }
}
