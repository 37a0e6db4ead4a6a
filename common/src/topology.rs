//! Exchanges and queues: their names, what they are, and who declares them.
//!
//! ```text
//!              cs.jobs (direct)                cs.jobs.MODEL.LANE
//!  producer ──────────────────────────────────▶ quorum queue ──▶ worker
//!                 ▲                                  │ rejected, or delivered too often
//!                 │ after its time                   ▼
//!            cs.retry.STEP ◀── cs.retry (headers)   cs.dead (fanout) ──▶ cs.dead
//!
//!              cs.replies (topic)              cs.reply.TENANT.CLIENT
//!  worker ────────────────────────────────────▶ quorum queue ──▶ producer
//!                 │ nobody's
//!                 ▼
//!            cs.unrouted (fanout) ──▶ cs.unrouted
//! ```
//!
//! The routing key of a job and of a reply is the name of its queue. Replies go through an exchange of
//! topics, which routes these names as a direct one does, since only there can a permission say for
//! which routing keys somebody may bind a queue.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{FormName, ModelId, Tenant};

/// Exchange to which producers publish jobs.
pub const JOBS: &str = "cs.jobs";
/// Exchange to which workers publish jobs that shall come again later.
pub const RETRY: &str = "cs.retry";
/// Exchange to which workers publish replies.
pub const REPLIES: &str = "cs.replies";
/// Exchange and queue of jobs that nobody will try again.
pub const DEAD: &str = "cs.dead";
/// Exchange and queue of replies whose queue is gone.
pub const UNROUTED: &str = "cs.unrouted";
/// Header that says after which step a retried job comes again.
pub const RETRY_STEP_HEADER: &str = "cs-retry-step";

/// How long a reply that nobody waits for is kept.
pub const UNROUTED_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// After what time without a consumer a client's reply queue is gone.
pub const REPLY_QUEUE_EXPIRY: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Longest name of a client, in characters.
pub const MAX_CLIENT_LENGTH: usize = 64;

/// Time after which a job comes again, by its number of attempts.
const RETRY_STEPS: [(&str, Duration); 4] = [
    ("1s", Duration::from_secs(1)),
    ("5s", Duration::from_secs(5)),
    ("30s", Duration::from_secs(30)),
    ("2m", Duration::from_secs(120)),
];

/// A back-off step of a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryStep(usize);

impl RetryStep {
    /// The step for a job that was tried again so many times before; the last one from then on.
    pub fn after(attempt: u32) -> Self {
        let attempt = usize::try_from(attempt).unwrap_or(usize::MAX);
        Self(attempt.min(RETRY_STEPS.len() - 1))
    }

    /// Its name, which is the value of [`RETRY_STEP_HEADER`].
    pub fn name(self) -> &'static str {
        RETRY_STEPS[self.0].0
    }

    /// How long it takes.
    pub fn delay(self) -> Duration {
        RETRY_STEPS[self.0].1
    }

    fn all() -> impl Iterator<Item = Self> {
        (0..RETRY_STEPS.len()).map(Self)
    }
}

/// Which of a model's queues: the priority of a job. Workers take from the high lane first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Before the others.
    High,
    /// Whatever nobody waits for.
    #[default]
    Normal,
}

/// Jobs that are planned to take less are quick. Workers have a slot and a thread of their own for them,
/// and single rows among them take the high lane, so that neither waits for what takes seconds.
pub const QUICK_JOB: Duration = Duration::from_millis(50);

impl Lane {
    /// All lanes, most urgent first.
    pub const ALL: [Self; 2] = [Self::High, Self::Normal];
}

/// Which lane jobs take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LaneChoice {
    /// Quick jobs of the form for single rows the high one, so that they do not stand behind batches of
    /// the same model, and all others the normal one.
    #[default]
    Auto,
    /// This one.
    Only(Lane),
}

impl LaneChoice {
    /// The lane of a job in such a form that is planned to take so long on one thread.
    pub fn of_job(self, form: Option<FormName>, planned: Option<Duration>) -> Lane {
        let is_quick = planned.is_some_and(|planned| planned < QUICK_JOB);
        match self {
            Self::Only(lane) => lane,
            Self::Auto if form == Some(FormName::Rows) && is_quick => Lane::High,
            Self::Auto => Lane::Normal,
        }
    }
}

impl FromStr for LaneChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            lane => {
                lane.parse().map(Self::Only).map_err(|_| "a lane is auto, high or normal".into())
            }
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::High => "high",
            Self::Normal => "normal",
        })
    }
}

impl FromStr for Lane {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|lane| lane.to_string() == text);
        found.ok_or_else(|| "a lane is high or normal".into())
    }
}

/// Queue of the jobs of a model in a lane.
pub fn job_queue(model: ModelId, lane: Lane) -> String {
    format!("{JOBS}.{model}.{lane}")
}

/// Name of the queue to which the replies of a client go: `cs.reply.TENANT.CLIENT`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReplyQueue {
    tenant: Tenant,
    client: String,
}

/// Text that names no reply queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a reply queue is named cs.reply.TENANT.CLIENT, where CLIENT has 1 to {MAX_CLIENT_LENGTH} \
     characters of a-z, 0-9 and -"
)]
pub struct InvalidReplyQueue;

impl ReplyQueue {
    /// The queue of a client.
    pub fn new(tenant: &Tenant, client: &str) -> Result<Self, InvalidReplyQueue> {
        // A client is named as a tenant is: both are parts of the name of a queue.
        match client.parse::<Tenant>() {
            Ok(_) => Ok(Self { tenant: tenant.clone(), client: client.to_owned() }),
            Err(_) => Err(InvalidReplyQueue),
        }
    }

    /// Whose it is.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// Which of the tenant's clients has it.
    pub fn client(&self) -> &str {
        &self.client
    }
}

impl fmt::Display for ReplyQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cs.reply.{}.{}", self.tenant, self.client)
    }
}

impl FromStr for ReplyQueue {
    type Err = InvalidReplyQueue;

    fn from_str(text: &str) -> Result<Self, InvalidReplyQueue> {
        let rest = text.strip_prefix("cs.reply.").ok_or(InvalidReplyQueue)?;
        let (tenant, client) = rest.split_once('.').ok_or(InvalidReplyQueue)?;
        Self::new(&tenant.parse().map_err(|_| InvalidReplyQueue)?, client)
    }
}

/// What to do about exchanges and queues before they are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Declare {
    /// Make those that are missing.
    #[default]
    Create,
    /// Refuse to start when one is missing; make nothing.
    Verify,
    /// Believe that they are there.
    Leave,
}

/// What kind of exchange, in AMQP's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeKind {
    /// By equality of routing key and binding key.
    Direct,
    /// The same, as our binding keys have no wildcards.
    Topic,
    /// To every bound queue.
    Fanout,
    /// By headers.
    Headers,
}

/// A durable exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: ExchangeKind,
    /// Exchange that takes what this one cannot route.
    pub alternate: Option<&'static str>,
}

/// A durable quorum queue, with those arguments only that cannot change later; limits are for
/// policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Exchange that takes what is rejected, delivered too often, or too old.
    pub dead_letter: Option<&'static str>,
    /// How long a message stays.
    pub message_ttl: Option<Duration>,
    /// After what time without use the queue itself goes.
    pub expires: Option<Duration>,
    /// How messages come into it.
    pub binding: Binding,
}

/// How messages come into a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// From which exchange; the routing key is the queue's name.
    pub exchange: &'static str,
    /// For an exchange of headers, the retry step it must have.
    pub retry_step: Option<RetryStep>,
}

/// Exchanges and queues that somebody needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    /// Exchanges, in an order in which they can be made.
    pub exchanges: Vec<Exchange>,
    /// Queues.
    pub queues: Vec<Queue>,
}

impl Topology {
    /// What all workers share.
    pub fn shared() -> Self {
        let exchange = |name, kind| Exchange { name, kind, alternate: None };
        let exchanges = vec![
            exchange(DEAD, ExchangeKind::Fanout),
            exchange(UNROUTED, ExchangeKind::Fanout),
            exchange(JOBS, ExchangeKind::Direct),
            exchange(RETRY, ExchangeKind::Headers),
            Exchange { alternate: Some(UNROUTED), ..exchange(REPLIES, ExchangeKind::Topic) },
        ];
        let mut queues = vec![
            Queue::new(DEAD, DEAD),
            Queue { message_ttl: Some(UNROUTED_TTL), ..Queue::new(UNROUTED, UNROUTED) },
        ];
        queues.extend(RetryStep::all().map(|step| Queue {
            dead_letter: Some(JOBS),
            message_ttl: Some(step.delay()),
            binding: Binding { exchange: RETRY, retry_step: Some(step) },
            ..Queue::new(format!("{RETRY}.{}", step.name()), RETRY)
        }));
        Self { exchanges, queues }
    }

    /// The queues of a model.
    pub fn of_model(model: ModelId) -> Self {
        let queue =
            |lane| Queue { dead_letter: Some(DEAD), ..Queue::new(job_queue(model, lane), JOBS) };
        Self { exchanges: Vec::new(), queues: Lane::ALL.map(queue).into() }
    }

    /// The reply queue of a client.
    pub fn of_client(queue: &ReplyQueue) -> Self {
        let queue =
            Queue { expires: Some(REPLY_QUEUE_EXPIRY), ..Queue::new(queue.to_string(), REPLIES) };
        Self { exchanges: Vec::new(), queues: vec![queue] }
    }
}

impl Queue {
    fn new(name: impl Into<String>, exchange: &'static str) -> Self {
        Self {
            name: name.into(),
            dead_letter: None,
            message_ttl: None,
            expires: None,
            binding: Binding { exchange, retry_step: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_rows_that_are_quick_go_first_unless_somebody_says_otherwise() {
        let (rows, bulk) = (Some(FormName::Rows), Some(FormName::Bulk));
        let below = QUICK_JOB.checked_sub(Duration::from_micros(1));
        let auto = "auto".parse::<LaneChoice>();
        assert_eq!(auto, Ok(LaneChoice::default()));
        for (form, planned, lane) in [
            (rows, below, Lane::High),
            (rows, Some(QUICK_JOB), Lane::Normal),
            (rows, None, Lane::Normal),
            (bulk, below, Lane::Normal),
            (None, below, Lane::Normal),
        ] {
            assert_eq!(LaneChoice::Auto.of_job(form, planned), lane, "{form:?}, {planned:?}");
        }
        for lane in Lane::ALL {
            let choice = lane.to_string().parse::<LaneChoice>();
            assert_eq!(choice, Ok(LaneChoice::Only(lane)));
            assert_eq!(LaneChoice::Only(lane).of_job(rows, below), lane);
        }
        assert!("fast".parse::<LaneChoice>().is_err());
    }
}
