//! One job, one answer: whoever publishes a job waits for it, while one task reads all replies.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cipherscore_common::broker::Broker;
use cipherscore_common::{JobId, ModelId, Store};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::client::{Answer, Client, ClientError, JobRequest, Received};
use crate::events::{Event, Events};
use crate::parts::{SILENCE, reason_of_silence};

/// Why a job has no answer.
pub(super) enum Unanswered {
    /// Its deadline is over.
    TooLate,
    /// Nothing reads replies any more.
    Ended(String),
}

type Waiting<B, S> = HashMap<JobId, oneshot::Sender<Received<B, S>>>;

struct Shared<B: Broker, S: Store> {
    client: Client<B, S>,
    events: Events,
    waiting: Mutex<Waiting<B, S>>,
    /// Why nothing is read any more.
    ended: Mutex<Option<String>>,
    /// When a reply came or the queue was looked at.
    heard: Mutex<Instant>,
}

/// Publishes jobs and gives each its answer.
pub(super) struct Asking<B: Broker, S: Store> {
    shared: Arc<Shared<B, S>>,
    /// Ends with this.
    _replies: JoinSet<()>,
}

impl<B: Broker, S: Store> Asking<B, S> {
    /// Begins to read replies.
    pub(super) fn start(client: Client<B, S>, events: Events) -> Self {
        let shared = Arc::new(Shared {
            client,
            events,
            waiting: Mutex::default(),
            ended: Mutex::default(),
            heard: Mutex::new(Instant::now()),
        });
        let mut task = JoinSet::new();
        task.spawn(hand_out(Arc::clone(&shared)));
        Self { shared, _replies: task }
    }

    /// Returns when the broker has the job.
    pub(super) async fn publish(&self, request: JobRequest) -> Result<Asked<B, S>, ClientError> {
        let (job, model_id) = (request.id, request.model_id);
        let (sender, answer) = oneshot::channel();
        lock(&self.shared.waiting).insert(job, sender);
        // Whatever happens from here on, the job is taken back unless it is answered.
        let asked = Asked { shared: Arc::clone(&self.shared), job, model_id, answer };
        self.shared.client.submit(request).await?;
        Ok(asked)
    }
}

/// A job at the broker. Dropped without an answer, it is taken back.
pub(super) struct Asked<B: Broker, S: Store> {
    shared: Arc<Shared<B, S>>,
    job: JobId,
    model_id: ModelId,
    answer: oneshot::Receiver<Received<B, S>>,
}

impl<B: Broker, S: Store> Asked<B, S> {
    /// Waits for the answer. Says why when none comes for a while.
    pub(super) async fn answer(mut self, due: Option<Instant>) -> Result<Answer, Unanswered> {
        loop {
            if lock(&self.shared.ended).is_some() {
                // Its sender is gone or will never be used.
                return Err(Unanswered::Ended(self.shared.why_it_ended()));
            }
            let left = |due: Instant| due.saturating_duration_since(Instant::now());
            let patience = due.map_or(SILENCE, |due| left(due).min(SILENCE));
            match timeout(patience, &mut self.answer).await {
                Ok(Ok(mut received)) => {
                    let answer = received.take_answer();
                    received.ack().await;
                    return Ok(answer);
                }
                Ok(Err(_)) => return Err(Unanswered::Ended(self.shared.why_it_ended())),
                Err(_) if due.is_some_and(|due| due <= Instant::now()) => {
                    return Err(Unanswered::TooLate);
                }
                Err(_) => self.shared.look(self.model_id).await,
            }
        }
    }
}

impl<B: Broker, S: Store> Drop for Asked<B, S> {
    fn drop(&mut self) {
        let waited = lock(&self.shared.waiting).remove(&self.job).is_some();
        let Ok(runtime) = Handle::try_current() else { return };
        // Nobody looked at it any more, and the broker would keep it.
        if let Ok(received) = self.answer.try_recv() {
            runtime.spawn(received.ack());
        } else if waited {
            let (client, job) = (self.shared.client.clone(), self.job);
            runtime.spawn(async move {
                // A worker that has not begun has nothing to do; one that has, stops.
                let _ = client.cancel(job).await;
                client.abandon(job).await;
            });
        }
    }
}

/// Reads replies, each to whoever waits for it.
async fn hand_out<B: Broker, S: Store>(shared: Arc<Shared<B, S>>) {
    let mut replies = shared.client.replies();
    loop {
        match replies.next().await {
            Ok(received) => {
                *lock(&shared.heard) = Instant::now();
                let waiting = lock(&shared.waiting).remove(&received.job);
                let unwanted = match waiting {
                    Some(waiting) => waiting.send(received).err(),
                    None => Some(received),
                };
                if let Some(received) = unwanted {
                    received.ack().await;
                }
            }
            Err(error) => {
                *lock(&shared.ended) = Some(error.to_string());
                // Whoever waits hears of it by this.
                lock(&shared.waiting).clear();
                return;
            }
        }
    }
}

impl<B: Broker, S: Store> Shared<B, S> {
    fn why_it_ended(&self) -> String {
        lock(&self.ended).clone().unwrap_or_else(|| "the stream is closed".into())
    }

    /// Looks for a reason when nobody answers: one of all who wait does.
    async fn look(&self, model_id: ModelId) {
        {
            let mut heard = lock(&self.heard);
            if heard.elapsed() < SILENCE {
                return;
            }
            *heard = Instant::now();
        }
        let state = self.client.queue_state(model_id).await;
        let reason = reason_of_silence(format_args!("model {model_id}"), state);
        let Some(reason) = reason else { return };
        self.events.tell(Event::Waiting { reason, again_in: SILENCE });
    }
}

/// No code panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
