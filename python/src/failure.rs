//! Errors on their way to an exception.

use std::error::Error;

use cipherscore_producer::client::ClientError;
use cipherscore_producer::key_folder::KeyFolderError;
use cipherscore_producer::model::Finality;
use cipherscore_producer::stream::StreamError;
use pyo3::prelude::*;

use crate::client::class_of;

/// Classes of the package's module of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A trained model that cannot be compiled.
    Compile,
    /// A trained model of a kind that is not read.
    Unsupported,
    /// A zip that cannot be used.
    Artifact,
    /// Keys.
    Keys,
    /// A key that must not be used any more.
    BurnedKey,
    /// A reply that was made up, or is damaged in a way that nobody could have damaged it by accident.
    BadReply,
    /// Rows or ciphertexts that a model cannot take.
    Rows,
    /// Rows with a value that a linear model was not compiled for.
    Range,
    /// Broker, store or workers.
    Fleet,
    /// A model that no worker has ever had.
    NotServed,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Self::Compile => "CompileError",
            Self::Unsupported => "UnsupportedModelError",
            Self::Artifact => "ArtifactError",
            Self::Keys => "KeysError",
            Self::BurnedKey => "BurnedKeyError",
            Self::BadReply => "BadReplyError",
            Self::Rows => "RowsError",
            Self::Range => "RangeError",
            Self::Fleet => "FleetError",
            Self::NotServed => "NotServedError",
        }
    }
}

/// None of them is an error of connections, which callers may be used to trying again.
impl From<Finality> for Class {
    fn from(finality: Finality) -> Self {
        match finality {
            Finality::BadReply => Self::BadReply,
            Finality::Burned => Self::BurnedKey,
            Finality::UsedUp => Self::Keys,
        }
    }
}

/// An exception that can be made in any thread, and raised in one with an interpreter.
#[derive(Debug)]
pub(crate) struct Failure {
    class: Class,
    message: String,
}

impl Failure {
    pub(crate) fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
    }

    /// An error and what led to it.
    pub(crate) fn of(class: Class, error: &(dyn Error + 'static)) -> Self {
        Self::new(class, causes(error))
    }

    /// For `map_err`.
    pub(crate) fn as_class<E: Error + 'static>(class: Class) -> impl Fn(E) -> Self {
        move |error| Self::of(class, &error)
    }

    pub(crate) fn into_exception(self, py: Python<'_>) -> PyErr {
        let make = || {
            let class = py.import("cipherscore.errors")?.getattr(self.class.name())?;
            class.call1((self.message,))
        };
        make().map_or_else(|error| error, PyErr::from_value)
    }
}

/// Says what to do in Python, where the error speaks of the command line.
impl From<KeyFolderError> for Failure {
    fn from(error: KeyFolderError) -> Self {
        Self::new(
            Class::Keys,
            match &error {
                KeyFolderError::Interrupted(path) => format!(
                    "{} holds a client key, but its making was interrupted; \
                     generate_private_and_evaluation_keys(force=True) replaces it",
                    path.display()
                ),
                KeyFolderError::NoPassphrase(path) => {
                    format!("{} is encrypted: give passphrase=", path.display())
                }
                other => causes(other),
            },
        )
    }
}

impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Keys(error) => error.into(),
            StreamError::Encryption(error) => Self::of(class_of(&error), &error),
            StreamError::Client(error @ ClientError::NoQueue { .. }) => {
                Self::of(Class::NotServed, &error)
            }
            other => Self::of(other.finality().map_or(Class::Fleet, Class::from), &other),
        }
    }
}

/// An error that repeats its cause, as many do to be complete by themselves, says it once.
pub(crate) fn causes(error: &(dyn Error + 'static)) -> String {
    let mut said = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if said.last().is_none_or(|last| !last.ends_with(&text)) {
            said.push(text);
        }
        next = cause.source();
    }
    said.join(": ")
}
