//! The feed of a client: its replies, as they come.
//!
//! A task asks for what has come, and waits at the gateway for more. Within one subscription each entry is
//! delivered once; what was not settled when it ended comes first in the next one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cipherscore_common::JobId;
use cipherscore_common::broker::{BrokerError, Delivery, QueuePrefetch, Settlement, Subscription};
use cipherscore_common::message::{HeaderValue, MAX_BODY_BYTES, Message, REPLY_TYPE};
use cipherscore_common::topology::{REPLIES, ReplyQueue};
use hyper::Method;
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::sync::mpsc::{self, Receiver, Sender, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::GatewayClient;
use super::problem::Trouble;
use super::settling::{FeedSettlement, Place, Told, settle_all};
use super::wire::{Concern, STALL_TIMEOUT, empty, next_bytes};

/// How long the gateway waits for a first result.
const WAIT: Duration = Duration::from_secs(30);
/// Pause after an answer without results that came at once, as from a gateway that is about to stop.
const EMPTY_PAUSE: Duration = Duration::from_millis(250);
/// Results of one answer, at most.
const MAX_RESULTS: usize = 100;
/// Longest line of a feed, in bytes: a body in base64, and its headers.
const MAX_LINE_BYTES: usize = MAX_BODY_BYTES / 3 * 4 + (64 << 10);

/// Replies of one client or several, in the place of their reply queues.
pub struct FeedSubscription {
    client: GatewayClient,
    sender: Sender<Result<Delivery, BrokerError>>,
    deliveries: Receiver<Result<Delivery, BrokerError>>,
    /// Dropped, it ends the feeds.
    feeds: JoinSet<()>,
    by_queue: HashMap<String, AbortHandle>,
}

impl FeedSubscription {
    /// Must be called on a runtime.
    pub(super) fn new(
        client: GatewayClient,
        queues: &[QueuePrefetch],
    ) -> Result<Self, BrokerError> {
        // A gateway does not wait for who does not read on: an answer is read at once. Room bounds it.
        let (sender, deliveries) = mpsc::channel(MAX_RESULTS);
        let (feeds, by_queue) = (JoinSet::new(), HashMap::new());
        let mut subscription = Self { client, sender, deliveries, feeds, by_queue };
        queues.iter().try_for_each(|queue| subscription.begin(queue))?;
        Ok(subscription)
    }

    fn begin(&mut self, wanted: &QueuePrefetch) -> Result<(), BrokerError> {
        let Ok(queue) = wanted.queue.parse::<ReplyQueue>() else {
            return Err(self.client.refusal("a gateway delivers replies only"));
        };
        let own = self.client.require_own(queue.tenant());
        own.map_err(|error| self.client.refusal(error.to_string()))?;
        let (told, items) = mpsc::unbounded_channel();
        // Beside the feeds: what was delivered can be settled when they have ended.
        tokio::spawn(settle_all(self.client.clone(), queue.client().to_owned(), items));
        let feed = Feed {
            client: self.client.clone(),
            queue,
            room: Arc::new(Semaphore::new(wanted.prefetch.max(1).into())),
            told,
            after: None,
        };
        let feed = self.feeds.spawn(feed.run(self.sender.clone()));
        if let Some(before) = self.by_queue.insert(wanted.queue.clone(), feed) {
            before.abort();
        }
        Ok(())
    }
}

impl Subscription for FeedSubscription {
    async fn next(&mut self) -> Result<Delivery, BrokerError> {
        match self.deliveries.recv().await {
            Some(delivery) => delivery,
            // The subscription has a sender of its own.
            None => Err(self.client.refusal("the subscription is over")),
        }
    }

    async fn start(&mut self, queue: &QueuePrefetch) -> Result<(), BrokerError> {
        self.begin(queue)
    }

    async fn stop(&mut self, queue: &str) -> Result<(), BrokerError> {
        if let Some(feed) = self.by_queue.remove(queue) {
            feed.abort();
        }
        Ok(())
    }
}

struct Feed {
    client: GatewayClient,
    queue: ReplyQueue,
    /// For deliveries that are not settled.
    room: Arc<Semaphore>,
    told: UnboundedSender<Told>,
    /// The last entry that was delivered.
    after: Option<String>,
}

impl Feed {
    /// Until the gateway does not give any more, which is the last that is delivered.
    async fn run(mut self, deliveries: Sender<Result<Delivery, BrokerError>>) {
        loop {
            if let Err(trouble) = self.read_on(&deliveries).await {
                let error = self.client.broker_error(trouble);
                // Nobody may be there to read it.
                let _ = deliveries.send(Err(error)).await;
                return;
            }
        }
    }

    /// Asks once for as many results as there is room for, and delivers them.
    async fn read_on(
        &mut self,
        deliveries: &Sender<Result<Delivery, BrokerError>>,
    ) -> Result<(), Trouble> {
        let mut room = self.take_room().await;
        let limits = &self.client.shared.me.limits;
        let wait = WAIT.min(Duration::from_secs(limits.max_wait_seconds));
        let mut path = format!(
            "/v1/clients/{}/results?wait={}&max={}",
            self.queue.client(),
            wait.as_secs(),
            room.len().min(limits.max_results),
        );
        if let Some(after) = &self.after {
            path.push_str("&after=");
            path.push_str(after);
        }
        let (request, began) = (self.client.wire().request(Method::GET, &path), Instant::now());
        let answer = self.client.wire().send(Concern::Results, request, empty(), wait).await?;
        let (patience, mut has_results) = (wait + STALL_TIMEOUT, false);
        let body = answer.into_body();
        let mut lines = Lines { body, patience, read: Vec::new(), searched: 0 };
        while let Some(line) = lines.next().await? {
            let line = serde_json::from_slice::<Line>(&line);
            let line = line.map_err(|error| Trouble::Nonsense(error.to_string()))?;
            let (Some(job), Some(entry)) = (line.job_id, line.entry.clone()) else {
                // The last one.
                line.next.as_deref().map_or(Ok(()), require_entry)?;
                self.after = line.next.or(self.after.take());
                if !has_results && began.elapsed() < (wait / 2).max(EMPTY_PAUSE) {
                    sleep(EMPTY_PAUSE).await;
                }
                return Ok(());
            };
            require_entry(&entry)?;
            let Some(permit) = room.pop() else {
                return Err(Trouble::Nonsense("more results than were asked for".into()));
            };
            let delivery = self.delivery(job, entry.clone(), line, permit)?;
            if deliveries.send(Ok(delivery)).await.is_err() {
                // Nobody reads any more; this task is about to be ended.
                return Err(Trouble::Away("the subscription is over".into()));
            }
            self.after = Some(entry);
            has_results = true;
        }
        Err(Trouble::Away("the feed was cut off".into()))
    }

    /// Room for one delivery at least, and for more as far as there is some.
    async fn take_room(&self) -> Vec<OwnedSemaphorePermit> {
        let mut room = Vec::new();
        // It is never closed.
        room.extend(Arc::clone(&self.room).acquire_owned().await);
        while room.len() < MAX_RESULTS {
            match Arc::clone(&self.room).try_acquire_owned() {
                Ok(permit) => room.push(permit),
                Err(_) => break,
            }
        }
        room
    }

    fn delivery(
        &self,
        job: JobId,
        entry: String,
        line: Line,
        permit: OwnedSemaphorePermit,
    ) -> Result<Delivery, Trouble> {
        let body = STANDARD.decode(line.body.unwrap_or_default());
        let body = body.map_err(|error| Trouble::Nonsense(format!("a body: {error}")))?;
        let queue = self.queue.to_string();
        let headers = line.headers.into_iter().map(|(name, value)| (name, value.into())).collect();
        let message = Message {
            exchange: REPLIES.into(),
            routing_key: queue.clone(),
            kind: Some(REPLY_TYPE.into()),
            message_id: Some(job.to_string()),
            correlation_id: line.correlation_id,
            headers,
            body,
            ..Message::default()
        };
        let settlement = FeedSettlement::new(Place { job, entry }, self.told.clone(), permit);
        let settlement = Settlement::new(settlement);
        Ok(Delivery { message, queue, returned: 0, settlement })
    }
}

/// It becomes part of a path.
fn require_entry(entry: &str) -> Result<(), Trouble> {
    let is_plain = |byte: u8| byte.is_ascii_digit() || byte == b'-';
    match !entry.is_empty() && entry.len() <= 64 && entry.bytes().all(is_plain) {
        true => Ok(()),
        false => Err(Trouble::Nonsense("an entry that is none".into())),
    }
}

/// A result, or the last line, which has no job.
#[derive(Deserialize)]
struct Line {
    job_id: Option<JobId>,
    entry: Option<String>,
    correlation_id: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Header>,
    body: Option<String>,
    next: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Header {
    Integer(i64),
    Text(String),
}

impl From<Header> for HeaderValue {
    fn from(header: Header) -> Self {
        match header {
            Header::Integer(number) => Self::Integer(number),
            Header::Text(text) => Self::Text(text),
        }
    }
}

/// Lines of a body, as they come.
struct Lines {
    body: Incoming,
    /// How long the next bytes may take.
    patience: Duration,
    read: Vec<u8>,
    /// So many bytes of what was read have no end of a line in them.
    searched: usize,
}

impl Lines {
    /// The next one, without its end. What is cut off is none.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Trouble> {
        loop {
            let found = self.read[self.searched..].iter().position(|byte| *byte == b'\n');
            if let Some(found) = found {
                let rest = self.read.split_off(self.searched + found + 1);
                let mut line = std::mem::replace(&mut self.read, rest);
                line.pop();
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.read.len();
            if self.read.len() > MAX_LINE_BYTES {
                return Err(Trouble::Nonsense(format!(
                    "a line of more than {MAX_LINE_BYTES} bytes"
                )));
            }
            match next_bytes(&mut self.body, self.patience).await? {
                Some(bytes) => self.read.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }
}
