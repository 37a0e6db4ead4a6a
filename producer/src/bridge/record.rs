//! The seams: where events come from, where scores and dead letters go.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use cipherscore_common::broker::{Disposition, Settlement, Settling};
use cipherscore_common::message::HeaderValue;
use thiserror::Error;

/// An event, or a score, as it travels.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Id that it has besides what its body says, such as AMQP's `message-id`.
    pub id: Option<String>,
    /// Which event a score answers, where the sink has a place for it; of an event, AMQP's
    /// `correlation-id`.
    pub answers: Option<String>,
    /// AMQP's `type`, which a dead letter keeps.
    pub kind: Option<String>,
    /// AMQP's `reply-to`, which a dead letter keeps.
    pub reply_to: Option<String>,
    /// MIME type of the body, if that is known.
    pub content_type: Option<String>,
    /// Headers; none where the transport has no such thing.
    pub headers: BTreeMap<String, HeaderValue>,
    /// JSON, if it is in order.
    pub body: Vec<u8>,
}

impl Record {
    /// Bytes of its body and its headers.
    pub(super) fn bytes(&self) -> usize {
        let header = |(name, value): (&String, &HeaderValue)| header_bytes(name, value);
        self.body.len() + self.headers.iter().map(header).sum::<usize>()
    }
}

/// Bytes of a header, without its frame.
pub(super) fn header_bytes(name: &str, value: &HeaderValue) -> usize {
    let value = match value {
        HeaderValue::Text(text) => text.len(),
        HeaderValue::Integer(_) => size_of::<i64>(),
    };
    name.len() + value
}

/// Never what it says: these are clear values.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record of {} bytes", self.body.len())
    }
}

/// An event that came from a source, which keeps it until it is told otherwise.
pub struct Arrival {
    /// What came.
    pub record: Record,
    /// What the source waits for. Dropped without a word, the event comes again.
    pub claim: Box<dyn Claim>,
}

/// What became of an event.
#[derive(Debug, Clone)]
pub enum Ended {
    /// Its score is safe at the sink.
    Scored(Arc<Record>),
    /// It is safe among the dead letters, for this reason.
    Dead(Arc<DeadReason>),
}

/// How the source of an event is told what became of it.
pub trait Claim: Send + Sync {
    /// Tells it, when the score, or the dead letter, is safe.
    fn settle(self: Box<Self>, ended: &Ended) -> Settling;

    /// Whether it wants the score itself, also when the event has come again after it was scored.
    fn wants_score(&self) -> bool {
        false
    }
}

/// A queue keeps its event no longer.
impl Claim for Settlement {
    fn settle(self: Box<Self>, _: &Ended) -> Settling {
        Box::pin((*self).settle(Disposition::Ack))
    }
}

/// Why an event has no score, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadCode {
    /// It is larger than allowed.
    TooLarge,
    /// It cannot be read, or lacks what is needed.
    Unreadable,
    /// No model scores such events.
    NoRoute,
    /// The model does not take its features.
    OutOfRange,
    /// The fleet has no score for it.
    NotScored,
}

impl DeadCode {
    pub(super) const ALL: [Self; 5] =
        [Self::TooLarge, Self::Unreadable, Self::NoRoute, Self::OutOfRange, Self::NotScored];

    /// The code, as dead letters have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Unreadable => "unreadable",
            Self::NoRoute => "no_route",
            Self::OutOfRange => "out_of_range",
            Self::NotScored => "not_scored",
        }
    }
}

/// Why an event has no score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadReason {
    /// For programs.
    pub code: DeadCode,
    /// For people.
    pub text: String,
}

impl DeadReason {
    pub(super) fn new(code: DeadCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// Why a source, a sink or a place for dead letters did not do it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EndError {
    /// Not now: it is tried again, for as long as it takes.
    #[error("{0}")]
    Away(String),
    /// Never again: the bridge ends.
    #[error("{0}")]
    Gone(String),
}

/// What is waited for.
pub type Waiting<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a source has.
pub enum FromSource {
    /// An event.
    Event(Arrival),
    /// Nothing yet: it can be reached now, which it could not before.
    Open,
    /// Nothing more, ever.
    End,
}

/// Where events come from.
pub trait EventSource: Send {
    /// The next event, as soon as there is one. Dropped before, this loses nothing. After
    /// [`EndError::Away`] it is asked again.
    fn next(&mut self) -> Waiting<'_, Result<FromSource, EndError>>;

    /// Takes nothing more. Returns when whoever waits for what was taken has been told; what was taken
    /// is settled meanwhile.
    fn close(&mut self) -> Waiting<'_, ()> {
        Box::pin(async {})
    }
}

/// Where scores go.
pub trait ScoreSink: Send + Sync {
    /// Writes a score. On return it is safe there: the event is settled then, and not before.
    fn put<'a>(&'a self, score: &'a Record) -> Waiting<'a, Result<(), EndError>>;
}

/// Where events go that have no score.
pub trait DeadLetterSink: Send + Sync {
    /// Keeps an event and why it has no score. On return it is safe there.
    fn keep<'a>(
        &'a self,
        event: &'a Record,
        reason: &'a DeadReason,
    ) -> Waiting<'a, Result<(), EndError>>;
}

/// What a bridge is between.
pub struct Ends {
    /// Events come from here.
    pub source: Box<dyn EventSource>,
    /// Scores go here.
    pub sink: Box<dyn ScoreSink>,
    /// Events without scores go here.
    pub dead_letters: Box<dyn DeadLetterSink>,
}
