//! Exchanges and queues, made or looked for.

use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::connection::{Link, NOT_FOUND, PRECONDITION_FAILED, Slot, broker_error, reply_code};
use crate::broker::{BrokerError, QueueState};
use crate::topology::{Declare, Exchange, ExchangeKind, Queue, RETRY_STEP_HEADER, Topology};

/// Declares on a channel of its own: the broker closes it at the first refusal.
pub(super) async fn declare(
    slot: &Slot,
    topology: &Topology,
    declare: Declare,
) -> Result<(), BrokerError> {
    let passive = match declare {
        Declare::Create => false,
        Declare::Verify => true,
        Declare::Leave => return Ok(()),
    };
    let link = slot.get().await?;
    let channel = slot.answer(&link, link.channel()).await?;
    for exchange in &topology.exchanges {
        step(slot, &link, declare_exchange(&channel, exchange, passive)).await?;
    }
    for queue in &topology.queues {
        step(slot, &link, declare_queue(&channel, queue, passive)).await?;
    }
    Ok(())
}

/// One declaration; its refusal says what to do.
async fn step(
    slot: &Slot,
    link: &Arc<Link>,
    declaring: impl Future<Output = lapin::Result<()>>,
) -> Result<(), BrokerError> {
    let mut code = None;
    let declaring = async { declaring.await.inspect_err(|error| code = reply_code(error)) };
    let declared = slot.answer(link, declaring).await;
    declared.map_err(|error| match (code, error) {
        (Some(PRECONDITION_FAILED), BrokerError::Refused { server, reason }) => {
            let reason = format!(
                "{reason}. It is there with other properties, which cannot be changed: delete it \
                 when it is empty, or let this program believe that it is right (declare: leave)"
            );
            BrokerError::Refused { server, reason }
        }
        (Some(NOT_FOUND), BrokerError::Refused { server, reason }) => {
            let reason = format!("{reason}. Whoever runs the broker has to make it");
            BrokerError::Refused { server, reason }
        }
        (_, error) => error,
    })
}

async fn declare_exchange(
    channel: &Channel,
    exchange: &Exchange,
    passive: bool,
) -> lapin::Result<()> {
    let kind = match exchange.kind {
        ExchangeKind::Direct => lapin::ExchangeKind::Direct,
        ExchangeKind::Topic => lapin::ExchangeKind::Topic,
        ExchangeKind::Fanout => lapin::ExchangeKind::Fanout,
        ExchangeKind::Headers => lapin::ExchangeKind::Headers,
    };
    let options =
        ExchangeDeclareOptions { passive, durable: true, ..ExchangeDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    if let Some(alternate) = exchange.alternate {
        arguments.insert("alternate-exchange".into(), text(alternate));
    }
    channel.exchange_declare(exchange.name.into(), kind, options, arguments).await
}

/// Makes a queue and binds it, or looks whether it is there; bindings cannot be looked at.
async fn declare_queue(channel: &Channel, queue: &Queue, passive: bool) -> lapin::Result<()> {
    let options = QueueDeclareOptions { passive, durable: true, ..QueueDeclareOptions::default() };
    let name = short(&queue.name)?;
    channel.queue_declare(name.clone(), options, arguments(queue)).await?;
    if passive {
        return Ok(());
    }
    let mut wanted = FieldTable::default();
    if let Some(step) = queue.binding.retry_step {
        wanted.insert("x-match".into(), text("all"));
        wanted.insert(RETRY_STEP_HEADER.into(), text(step.name()));
    }
    let exchange = queue.binding.exchange.into();
    let options = QueueBindOptions::default();
    channel.queue_bind(name.clone(), exchange, name, options, wanted).await
}

/// Only what cannot change later. Dead-lettering is at-least-once, which needs both of its
/// arguments: without them a message may be lost on its way.
fn arguments(queue: &Queue) -> FieldTable {
    let mut arguments = FieldTable::default();
    let mut set = |name: &str, value| {
        arguments.insert(name.into(), value);
    };
    set("x-queue-type", text("quorum"));
    if let Some(exchange) = queue.dead_letter {
        set("x-dead-letter-exchange", text(exchange));
        set("x-dead-letter-strategy", text("at-least-once"));
        set("x-overflow", text("reject-publish"));
    }
    if let Some(time) = queue.message_ttl {
        set("x-message-ttl", millis(time));
    }
    if let Some(time) = queue.expires {
        set("x-expires", millis(time));
    }
    arguments
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn millis(time: Duration) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

fn short(name: &str) -> lapin::Result<ShortString> {
    let invalid = |error: lapin::types::ShortStringError| std::io::Error::other(error.to_string());
    Ok(ShortString::try_new(name).map_err(invalid)?)
}

pub(super) async fn queue_state(
    slot: &Slot,
    queue: &str,
) -> Result<Option<QueueState>, BrokerError> {
    let link = slot.get().await?;
    let channel = slot.answer(&link, link.channel()).await?;
    let Ok(name) = ShortString::try_new(queue) else { return Ok(None) };
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let looking = async {
        match channel.queue_declare(name, options, FieldTable::default()).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if reply_code(&error) == Some(NOT_FOUND) => {
                match broker_error("", &error).is_temporary() {
                    true => Err(error),
                    false => Ok(None),
                }
            }
            Err(error) => Err(error),
        }
    };
    let found = slot.answer(&link, looking).await?;
    Ok(found.map(|found| QueueState {
        messages: found.message_count(),
        consumers: found.consumer_count(),
    }))
}
