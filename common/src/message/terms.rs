//! What jobs of version 2 may say of themselves beside what they ask for.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use cipherscore_ids::{Digest, FormName, OwnerId, UnknownForm};
use thiserror::Error;

use super::envelope::micros;
use super::{Message, ProtocolVersion, Refusal, headers};

/// What headers begin with that may be added within a version: programs that do not know one ignore
/// it, and workers that publish a job again send it on.
pub const ADDED_PREFIX: &str = "cs-opt-";

/// Longest planned time of a job: a day.
pub const MAX_PLANNED: Duration = Duration::from_secs(24 * 60 * 60);

/// What jobs of version 2 may say of themselves; nothing in jobs of version 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobTerms {
    /// Whose rows these are. Missing where the client key has no owner id.
    pub owner_id: Option<OwnerId>,
    /// Form in which the rows are encrypted; the one that the worker prefers where it is missing.
    pub form: Option<FormName>,
    /// How long evaluation is planned to take on one thread, in whole microseconds, at most
    /// [`MAX_PLANNED`].
    pub planned: Option<Duration>,
    /// How soon the scores are wanted.
    pub deadline_class: Option<DeadlineClass>,
    /// The signed manifest of the artifact that the producer has.
    pub manifest_id: Option<Digest>,
}

impl JobTerms {
    /// Reads the headers of a job of version 2; the owner id is in the body.
    pub(super) fn of(message: &Message) -> Result<Self, Refusal> {
        let planned = message.integer(headers::PLANNED)?.map(Duration::from_micros);
        if planned.is_some_and(|planned| planned > MAX_PLANNED) {
            let (name, most) = (headers::PLANNED, MAX_PLANNED.as_micros());
            return Err(Refusal::malformed(format!("{name} is above {most}, a day")));
        }
        Ok(Self {
            owner_id: None,
            form: message.optional(headers::FORM)?,
            planned,
            // A hint: a class that only newer programs know is as good as none.
            deadline_class: message.optional(headers::DEADLINE_CLASS).unwrap_or_default(),
            manifest_id: message.optional(headers::MANIFEST_ID)?,
        })
    }

    /// Writes the headers.
    pub(super) fn set(&self, message: &mut Message) {
        let Self { owner_id: _, form, planned, deadline_class, manifest_id } = self;
        if let Some(form) = form {
            message.set(headers::FORM, form.as_str());
        }
        if let Some(planned) = planned {
            message.set(headers::PLANNED, micros(*planned));
        }
        if let Some(class) = deadline_class {
            message.set(headers::DEADLINE_CLASS, class.as_str());
        }
        if let Some(manifest) = manifest_id {
            message.set(headers::MANIFEST_ID, manifest.to_string());
        }
    }
}

impl Message {
    /// How many rows it says that it has.
    pub fn rows(&self) -> Option<u32> {
        self.integer(headers::ROWS).ok().flatten()
    }

    /// The form in which it says that its rows are encrypted; nothing in a job of version 1. An error
    /// where no such form is known.
    pub fn form(&self) -> Result<Option<FormName>, UnknownForm> {
        match self.version() {
            ProtocolVersion::V1 => Ok(None),
            ProtocolVersion::V2 => self.text(headers::FORM).map(str::parse).transpose(),
        }
    }
}

/// How soon scores are wanted, whatever the deadline after which they are of no use. A hint: it
/// decides about order, and never about whether a job is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeadlineClass {
    /// An event waits: milliseconds count.
    Immediate,
    /// Somebody waits: seconds count.
    Interactive,
    /// Nobody waits.
    Deferred,
}

/// Text that is no deadline class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a deadline class is immediate, interactive or deferred")]
pub struct InvalidDeadlineClass;

impl DeadlineClass {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Immediate, Self::Interactive, Self::Deferred];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Immediate => "immediate",
            Self::Interactive => "interactive",
            Self::Deferred => "deferred",
        }
    }
}

impl fmt::Display for DeadlineClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DeadlineClass {
    type Err = InvalidDeadlineClass;

    fn from_str(text: &str) -> Result<Self, InvalidDeadlineClass> {
        let found = Self::ALL.into_iter().find(|class| class.as_str() == text);
        found.ok_or(InvalidDeadlineClass)
    }
}
