//! `cipherscore status`

mod rates;
mod view;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use cipherscore_common::broker::{Broker, QueueState};
use cipherscore_common::topology::{Lane, Topology, job_queue};
use cipherscore_common::{BlobKind, BlobStore, ModelId, Presence, PresenceStore, Tenant};
use clap::Args;
use console::Term;
use serde::Serialize;

use self::rates::Rates;
use super::services::ServiceOptions;
use super::store::wait;
use super::{printable, report, size};
use crate::print::say;

/// Show queues, their consumers, workers, and what their models are.
///
/// Queues are those of the models of --model, else of the tenant's models in the store and of every
/// worker; those that wait to be tried again (cs.retry); jobs that nobody will try again
/// (cs.dead), and replies that nobody asked for (cs.unrouted).
#[derive(Args)]
pub(crate) struct Status {
    /// Model ids.
    #[arg(long, value_name = "ID", num_args = 1..)]
    model: Vec<ModelId>,

    /// Look again every so many seconds, until interrupted: on a terminal a live view, with rates;
    /// else line by line. Workers say something new every ten seconds.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2")]
    watch: Option<u32>,

    #[command(flatten)]
    services: ServiceOptions,
}

#[derive(Serialize)]
struct Shown {
    queues: Vec<ShownQueue>,
    workers: Vec<Presence>,
}

#[derive(Serialize)]
struct ShownQueue {
    queue: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_id: Option<ModelId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lane: Option<Lane>,
    /// Nothing more when it is missing.
    exists: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumers: Option<u32>,
}

impl Status {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        ensure!(
            !json || self.watch.is_none(),
            "--json prints one document, and --watch prints again and again"
        );
        let services = self.services.open()?;
        let store = services.store()?;
        let tenant = &services.settings.producer.tenant;
        let terminal = Term::stdout();
        let mut rates = Rates::default();
        let mut found = false;
        wait(async {
            loop {
                let shown = self.look(&services.broker, &store, tenant).await;
                match (&shown, self.watch) {
                    (Ok(shown), Some(_)) if terminal.is_term() => {
                        rates.see(&shown.workers);
                        view::refresh(&terminal, shown, &rates)?;
                    }
                    (Ok(shown), _) => report(json, shown, print)?,
                    // Who watches sees it go away and come back.
                    (Err(error), Some(_)) if found => {
                        eprintln!("{}", printable(&format!("{error:#}")));
                    }
                    (Err(_), _) => return shown.map(drop),
                }
                found = true;
                let Some(seconds) = self.watch else { return anyhow::Ok(()) };
                tokio::time::sleep(Duration::from_secs(seconds.max(1).into())).await;
                if !terminal.is_term() {
                    say!("");
                }
            }
        })
    }

    async fn look<B: Broker, S: BlobStore + PresenceStore>(
        &self,
        broker: &B,
        store: &S,
        tenant: &Tenant,
    ) -> anyhow::Result<Shown> {
        let workers = store.workers().await?;
        let mut models = self.model.clone();
        if models.is_empty() {
            let stored = store.list(tenant, BlobKind::Model).await?;
            models.extend(stored.into_iter().map(|info| ModelId::new(info.name.id)));
            models.extend(workers.iter().flat_map(|worker| &worker.models));
            models.sort();
            models.dedup();
        }
        let mut queues = Vec::new();
        for model in models {
            for lane in Lane::ALL {
                let queue = job_queue(model, lane);
                let state = broker.queue_state(&queue).await?;
                queues.push(ShownQueue::new(queue, Some((model, lane)), state));
            }
        }
        for queue in Topology::shared().queues {
            let state = broker.queue_state(&queue.name).await?;
            queues.push(ShownQueue::new(queue.name, None, state));
        }
        Ok(Shown { queues, workers })
    }
}

impl ShownQueue {
    fn new(queue: String, of: Option<(ModelId, Lane)>, state: Option<QueueState>) -> Self {
        Self {
            queue,
            model_id: of.map(|(model, _)| model),
            lane: of.map(|(_, lane)| lane),
            exists: state.is_some(),
            waiting: state.map(|state| state.messages),
            consumers: state.map(|state| state.consumers),
        }
    }
}

impl Shown {
    /// What a model is, by the word of the first worker that says it.
    fn kinds(&self, model: ModelId) -> Option<String> {
        let kinds = self.workers.iter().find_map(|worker| worker.kinds.get(&model))?;
        Some(printable(&kinds.join("; ")).replace('\n', " "))
    }
}

fn print(shown: &Shown) {
    let models: BTreeSet<_> = shown.queues.iter().filter_map(|queue| queue.model_id).collect();
    for model in models {
        if let Some(kinds) = shown.kinds(model) {
            say!("model {model}: {kinds}");
        }
    }
    for queue in &shown.queues {
        match (queue.waiting, queue.consumers) {
            (Some(waiting), Some(consumers)) => {
                say!("{:<86} {waiting:>8} waiting  {consumers:>4} consumers", queue.queue);
            }
            _ => say!("{:<86}  missing", queue.queue),
        }
    }
    if shown.workers.is_empty() {
        say!("no worker is running");
    }
    for worker in &shown.workers {
        let cache = size(usize::try_from(worker.key_cache_bytes).unwrap_or(usize::MAX));
        say!(
            "worker {} (version {}): {} of {} slots busy, {}, {} jobs answered, {} of them failed, \
             {} rows, {} models, keys {cache}",
            printable(&worker.worker),
            printable(&worker.version),
            worker.activity.busy,
            worker.slots,
            view::unacknowledged(&worker.activity),
            worker.answered,
            worker.activity.failed,
            worker.activity.rows,
            worker.models.len()
        );
    }
}
