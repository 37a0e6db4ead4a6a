//! The task that reads replies.

use cipherscore_common::Store;
use cipherscore_common::broker::Broker;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::{Client, ClientError, Received};
use crate::score::ScoreError;

/// Reads replies in a task of its own, so that none is dropped halfway. Ends with the run.
pub(super) struct ReplyTask<B: Broker, S: Store> {
    pub(super) received: mpsc::Receiver<Result<Received<B, S>, ClientError>>,
    task: JoinSet<()>,
}

impl<B: Broker, S: Store> ReplyTask<B, S> {
    pub(super) fn start(client: &Client<B, S>) -> Self {
        let (sender, received) = mpsc::channel(1);
        let mut replies = client.replies();
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let next = replies.next().await;
                let failed = next.is_err();
                if sender.send(next).await.is_err() || failed {
                    break;
                }
            }
        });
        Self { received, task }
    }

    /// Why nothing is received any more, when no error was.
    pub(super) async fn why_it_ended(&mut self) -> ScoreError {
        match self.task.join_next().await {
            Some(Err(error)) => error.into(),
            _ => ClientError::ShuttingDown.into(),
        }
    }
}
