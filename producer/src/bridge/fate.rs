//! What becomes of events whose job has no scores: whose fault that is decides.

use cipherscore_common::message::ErrorCode;

use crate::client::ClientError;
use crate::model::Finality;
use crate::stream::{Cause, StreamError};

/// What becomes of events whose job has no scores.
#[derive(Debug)]
pub(super) enum Fate {
    /// They are tried again.
    Wait(String),
    /// A worker failed on them: they are tried again a few times.
    Failed(String),
    /// Some of them are refused, whenever they are tried: the others are scored.
    Refused(String),
    /// They are dead letters.
    Dead(String),
    /// Nobody can go on.
    End(StreamError),
}

impl Fate {
    /// What is no fault of the rows is waited for: somebody mends the fleet, or the keys.
    pub(super) fn of(error: StreamError) -> Self {
        match error {
            StreamError::Failed { cause, reason, .. } => match cause {
                Cause::Overdue | Cause::Lost => Self::Wait(reason),
                // The rows were in flight when their keys were spent: other keys will do.
                Cause::Final(Finality::Burned | Finality::UsedUp) => Self::Wait(reason),
                Cause::Outputs | Cause::Final(Finality::BadReply) => Self::Dead(reason),
                // A worker's own failure may pass, or be that of these rows.
                Cause::Refused(ErrorCode::Internal) => Self::Failed(reason),
                Cause::Refused(ErrorCode::Cancelled) => Self::Dead(reason),
                Cause::Refused(code) if is_of_rows(code) => Self::Refused(reason),
                Cause::Refused(_) => Self::Wait(reason),
            },
            StreamError::Ended(_)
            | StreamError::Stopped(_)
            | StreamError::Client(ClientError::NoReplies(_) | ClientError::ShuttingDown) => {
                Self::End(error)
            }
            other => Self::Wait(other.to_string()),
        }
    }
}

/// Whether the same rows would be answered so again. What else keeps them from scores is mended in the
/// fleet, or by other keys.
fn is_of_rows(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Malformed | ErrorCode::TooLarge | ErrorCode::WrongShape | ErrorCode::Poison
    )
}

#[cfg(test)]
mod tests {
    use cipherscore_common::JobId;

    use super::*;

    fn of(cause: Cause) -> Fate {
        let (job, reason) = (JobId::random(), "why".to_owned());
        Fate::of(StreamError::Failed { first: 1, last: 1, job, reason, cause })
    }

    #[test]
    fn lost_outputs_wait_and_internal_errors_are_tried_again() {
        assert!(matches!(of(Cause::Lost), Fate::Wait(_)));
        assert!(matches!(of(Cause::Outputs), Fate::Dead(_)));
        assert!(matches!(of(Cause::Refused(ErrorCode::Internal)), Fate::Failed(_)));
        assert!(matches!(of(Cause::Refused(ErrorCode::Poison)), Fate::Refused(_)));
        assert!(matches!(of(Cause::Refused(ErrorCode::Cancelled)), Fate::Dead(_)));
        assert!(matches!(of(Cause::Refused(ErrorCode::UnknownModel)), Fate::Wait(_)));
    }

    #[test]
    fn only_a_bad_reply_is_final_for_rows() {
        assert!(matches!(of(Cause::Final(Finality::BadReply)), Fate::Dead(_)));
        for spent in [Finality::Burned, Finality::UsedUp] {
            assert!(matches!(of(Cause::Final(spent)), Fate::Wait(_)), "{spent:?}");
        }
    }
}
