//! `cipherscore dlq`

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use cipherscore_common::broker::{
    Broker, Delivery, Disposition, QueuePrefetch, Settled, Subscription,
};
use cipherscore_common::message::{HeaderValue, Message, headers};
use cipherscore_common::topology::{DEAD, JOBS, RETRY_STEP_HEADER};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::services::ServiceOptions;
use super::store::wait;
use super::{printable, report};
use crate::print::say;

/// Messages that are looked at, at most.
const MAX_MESSAGES: u16 = 1000;
/// How long the broker may take to say good-bye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// After what silence the queue counts as read.
const SILENCE: Duration = Duration::from_secs(2);

/// Look at jobs that nobody will try again, and decide about them.
///
/// They are in the queue cs.dead: the evaluation failed, workers died on them again and again, or
/// they cannot be read. The oldest 1000 are looked at: `--all` means those, and what comes after
/// them is seen when they are gone. While they are looked at, nobody else sees them.
#[derive(Args)]
pub(crate) struct Dlq {
    #[command(subcommand)]
    command: DlqCommand,

    #[command(flatten)]
    services: ServiceOptions,
}

#[derive(Subcommand)]
enum DlqCommand {
    /// Show the jobs and why they are there. They stay.
    List,
    /// Show properties and headers of one job, without its body. It stays.
    Show {
        /// Message id, as `list` prints it.
        id: String,
    },
    /// Publish jobs again to the queue from which they came.
    Replay(Replay),
    /// Throw jobs away.
    Drop(Which),
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Message ids, as `list` prints them.
    ids: Vec<String>,

    /// All of them.
    #[arg(long)]
    all: bool,
}

/// Who may speak for others.
#[derive(Args)]
struct Replay {
    #[command(flatten)]
    which: Which,

    /// Users of the broker that are workers, as in their configuration: what they say about the
    /// first publisher of a job is believed.
    #[arg(long = "worker-user", value_name = "USER", default_value = "worker")]
    worker_users: Vec<String>,
}

/// A message, as it is printed.
#[derive(Serialize)]
struct Dead {
    id: Option<String>,
    routing_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<String>,
    headers: BTreeMap<String, String>,
    body_bytes: usize,
}

#[derive(Serialize)]
struct Done {
    action: &'static str,
    ids: Vec<String>,
}

impl From<&Message> for Dead {
    fn from(message: &Message) -> Self {
        let text = |value: &HeaderValue| match value {
            HeaderValue::Text(text) => text.clone(),
            HeaderValue::Integer(number) => number.to_string(),
        };
        Self {
            id: message.message_id.clone(),
            routing_key: message.routing_key.clone(),
            reply_to: message.reply_to.clone(),
            headers: message.headers.iter().map(|(k, v)| (k.clone(), text(v))).collect(),
            body_bytes: message.body.len(),
        }
    }
}

impl Dlq {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        let services = self.services.open()?;
        let (broker, command) = (&services.broker, self.command);
        wait(async {
            let done = command.run(broker, json).await;
            // What is settled goes out before the process ends, and the rest goes back.
            broker.close(CLOSE_TIMEOUT).await;
            done
        })
    }
}

impl DlqCommand {
    async fn run<B: Broker>(self, broker: &B, json: bool) -> anyhow::Result<()> {
        let (_subscription, deliveries) = read(broker).await?;
        match self {
            Self::List => {
                let found: Vec<_> =
                    deliveries.iter().map(|delivery| Dead::from(&delivery.message)).collect();
                report(json, &found, |found| match found.is_empty() {
                    true => say!("{DEAD} is empty"),
                    false => found.iter().for_each(print_line),
                })
            }
            Self::Show { id } => {
                let found = deliveries.iter().map(|delivery| &delivery.message);
                let found = found.filter(|message| message.message_id.as_ref() == Some(&id));
                let found = found.map(Dead::from).next();
                let found = found.with_context(|| format!("{id} is not in {DEAD}"))?;
                report(json, &found, print_all)
            }
            Self::Replay(replay) => {
                let ids =
                    settle(broker, replay.which, deliveries, Some(replay.worker_users)).await?;
                Done { action: "replayed", ids }.report(json)
            }
            Self::Drop(which) => {
                let ids = settle(broker, which, deliveries, None).await?;
                Done { action: "dropped", ids }.report(json)
            }
        }
    }
}

impl Done {
    fn report(&self, json: bool) -> anyhow::Result<()> {
        report(json, self, |done| {
            done.ids.iter().for_each(|id| say!("{} {}", printable(id), done.action));
            if done.ids.is_empty() {
                say!("{DEAD} is empty");
            }
        })
    }
}

/// Takes what is in the queue now.
async fn read<B: Broker>(broker: &B) -> anyhow::Result<(B::Subscription, Vec<Delivery>)> {
    let state = broker.queue_state(DEAD).await?;
    let missing = "the queue cs.dead is missing: no worker has ever run at this broker";
    let count = state.context(missing)?.messages.min(u32::from(MAX_MESSAGES)) as usize;
    let queue = QueuePrefetch { queue: DEAD.into(), prefetch: MAX_MESSAGES };
    let mut subscription = broker.subscribe(&[queue]).await?;
    let mut found = Vec::new();
    while found.len() < count {
        // Fewer than were counted when somebody else looks as well.
        let Ok(next) = tokio::time::timeout(SILENCE, subscription.next()).await else { break };
        found.push(next?);
    }
    Ok((subscription, found))
}

async fn settle<B: Broker>(
    broker: &B,
    which: Which,
    deliveries: Vec<Delivery>,
    replay: Option<Vec<String>>,
) -> anyhow::Result<Vec<String>> {
    let id = |delivery: &Delivery| delivery.message.message_id.clone();
    let found: HashSet<_> = deliveries.iter().filter_map(id).collect();
    let missing: Vec<_> = which.ids.iter().filter(|id| !found.contains(*id)).cloned().collect();
    ensure!(missing.is_empty(), "not in {DEAD}: {}", missing.join(", "));
    let mut done = Vec::new();
    for delivery in deliveries {
        let id = id(&delivery).unwrap_or_default();
        if !(which.all || which.ids.contains(&id)) {
            continue;
        }
        if let Some(worker_users) = &replay {
            let published = broker.publish(&as_new(delivery.message, worker_users)).await;
            published.with_context(|| {
                let count = done.len();
                format!(
                    "{id}; {count} were replayed before. To publish in a tenant's name, the user \
                     needs RabbitMQ's tag impersonator"
                )
            })?;
        }
        let settled = delivery.settlement.settle(Disposition::Ack).await?;
        ensure!(settled == Settled::Told, "{id}: the connection was lost; it stays in {DEAD}");
        done.push(id);
    }
    Ok(done)
}

/// The job as it was before anybody tried it. Its routing key is still that of its queue.
fn as_new(mut message: Message, worker_users: &[String]) -> Message {
    // Published in the name of who published it first: it is still a job of that tenant. Only a
    // worker says that of another one.
    let by_worker = message.user_id.as_ref().is_some_and(|user| worker_users.contains(user));
    if by_worker && let Some(publisher) = message.text(headers::PUBLISHED_BY) {
        message.user_id = Some(publisher.to_owned());
    }
    let ours = [
        headers::ATTEMPT,
        headers::RETURNED,
        headers::PUBLISHED_BY,
        headers::DEAD_CODE,
        headers::DEAD_REASON,
        RETRY_STEP_HEADER,
    ];
    message.headers.retain(|name, _| !ours.contains(&name.as_str()));
    message.exchange = JOBS.into();
    message
}

fn print_line(dead: &Dead) {
    let header = |name| dead.headers.get(name).map_or("-", String::as_str);
    let id = dead.id.as_deref().unwrap_or("(without id)");
    let (code, reason) = (header(headers::DEAD_CODE), header(headers::DEAD_REASON));
    let line = format!("{id}  {}  {code}: {reason}", header(headers::TENANT));
    say!("{}", printable(&line));
}

fn print_all(dead: &Dead) {
    say!("id           {}", printable(dead.id.as_deref().unwrap_or("-")));
    say!("routing key  {}", printable(&dead.routing_key));
    say!("reply to     {}", printable(dead.reply_to.as_deref().unwrap_or("-")));
    say!("body         {} bytes", dead.body_bytes);
    for (name, value) in &dead.headers {
        say!("{}", printable(&format!("{name}  {value}")));
    }
}
