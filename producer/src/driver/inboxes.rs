//! Replies, each to the unit that waits for it, read by one task; and what is said when none comes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use cipherscore_common::broker::{Broker, BrokerError, QueueState};
use cipherscore_common::{JobId, ModelId, OwnerStore};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::client::{Client, ClientError, Received};
use crate::events::{Event, Events};

/// After what silence the queue is looked at.
const SILENCE: Duration = Duration::from_secs(10);

/// A reply, or why none comes any more.
pub(super) type Message<B, S> = Result<Received<B, S>, Arc<ClientError>>;

/// Which units wait for which jobs. What is sent to them is bounded by the replies that the broker
/// leaves unsettled.
pub(super) struct Inboxes<B: Broker, S: OwnerStore> {
    pub(super) client: Client<B, S>,
    events: Events,
    state: Mutex<State<B, S>>,
}

struct State<B: Broker, S: OwnerStore> {
    waiting: HashMap<JobId, Waiting<B, S>>,
    /// Why nothing is read any more.
    ended: Option<Arc<ClientError>>,
    /// When a reply came or the queue was looked at.
    heard: Instant,
    /// Whether the watcher was told that nobody answers.
    silent: bool,
}

struct Waiting<B: Broker, S: OwnerStore> {
    model_id: ModelId,
    inbox: UnboundedSender<Message<B, S>>,
}

impl<B: Broker, S: OwnerStore> Inboxes<B, S> {
    pub(super) fn new(client: Client<B, S>, events: Events) -> Arc<Self> {
        let (waiting, heard) = (HashMap::new(), Instant::now());
        let state = Mutex::new(State { waiting, ended: None, heard, silent: false });
        Arc::new(Self { client, events, state })
    }

    /// Begins to read replies, until the tasks are dropped.
    pub(super) fn listen(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        tasks.spawn(hand_out(Listening(Arc::clone(self))));
        tasks.spawn(watch(Arc::clone(self)));
    }

    /// Replies to a job go to this inbox from now on.
    pub(super) fn wait_for(
        &self,
        job: JobId,
        model_id: ModelId,
        inbox: &UnboundedSender<Message<B, S>>,
    ) -> Result<(), ClientError> {
        let mut state = self.state();
        if let Some(reason) = &state.ended {
            return Err(ClientError::NoReplies(Arc::clone(reason)));
        }
        if state.waiting.is_empty() {
            state.heard = Instant::now();
        }
        state.waiting.insert(job, Waiting { model_id, inbox: inbox.clone() });
        Ok(())
    }

    /// Nobody waits for a job any more.
    pub(super) fn forget(&self, job: JobId) {
        self.state().waiting.remove(&job);
    }

    /// Gives a reply to whoever waits for it, or back.
    fn deliver(&self, received: Received<B, S>) -> Option<Received<B, S>> {
        let mut state = self.state();
        state.heard = Instant::now();
        if std::mem::take(&mut state.silent) {
            self.events.tell(Event::GoesOn);
        }
        let Some(waiting) = state.waiting.get(&received.job) else { return Some(received) };
        waiting.inbox.send(Ok(received)).err().and_then(|unsent| unsent.0.ok())
    }

    /// Nothing is read any more.
    fn end(&self, error: ClientError) {
        let mut state = self.state();
        let reason = Arc::clone(state.ended.get_or_insert_with(|| Arc::new(error)));
        for (_, waiting) in state.waiting.drain() {
            // A unit that is gone needs no reason.
            let _ = waiting.inbox.send(Err(Arc::clone(&reason)));
        }
    }

    /// Models of which jobs have waited in vain, once for each silence.
    fn silent_models(&self) -> BTreeSet<ModelId> {
        let mut state = self.state();
        if state.heard.elapsed() < SILENCE {
            return BTreeSet::new();
        }
        state.heard = Instant::now();
        state.waiting.values().map(|waiting| waiting.model_id).collect()
    }

    /// No code panics while it holds the lock.
    fn state(&self) -> MutexGuard<'_, State<B, S>> {
        self.state.lock()
    }
}

/// However the task ends that reads replies, whoever waits hears of it.
struct Listening<B: Broker, S: OwnerStore>(Arc<Inboxes<B, S>>);

impl<B: Broker, S: OwnerStore> Drop for Listening<B, S> {
    fn drop(&mut self) {
        self.0.end(ClientError::ShuttingDown);
    }
}

async fn hand_out<B: Broker, S: OwnerStore>(listening: Listening<B, S>) {
    let inboxes = &listening.0;
    let mut replies = inboxes.client.replies();
    loop {
        match replies.next().await {
            Ok(received) => {
                if let Some(unwanted) = inboxes.deliver(received) {
                    unwanted.ack().await;
                }
            }
            Err(error) => {
                inboxes.end(error);
                return;
            }
        }
    }
}

/// Looks for a reason when nobody answers.
async fn watch<B: Broker, S: OwnerStore>(inboxes: Arc<Inboxes<B, S>>) {
    loop {
        let heard = inboxes.state().heard;
        sleep_until(heard + SILENCE).await;
        for model_id in inboxes.silent_models() {
            let state = inboxes.client.queue_state(model_id).await;
            if let Some(reason) = reason_of_silence(model_id, state) {
                inboxes.state().silent = true;
                inboxes.events.tell(Event::Waiting { reason, again_in: SILENCE });
            }
        }
    }
}

/// Why nobody answers jobs of a model, if its queue shows it.
fn reason_of_silence(
    model_id: ModelId,
    state: Result<Option<QueueState>, BrokerError>,
) -> Option<String> {
    match state {
        Ok(Some(QueueState { consumers: 0, messages })) => {
            Some(format!("no worker takes jobs of model {model_id}, and {messages} wait"))
        }
        Ok(None) => Some(format!("the queue of model {model_id} is gone")),
        // Workers are at work, or it is known already that the broker is away.
        Ok(Some(_)) | Err(_) => None,
    }
}
